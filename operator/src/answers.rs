//! Bounds what an API server's answer may take of our memory: an edge's server may be in foreign hands, and
//! kube collects answers, and lines of watches, without end.
//!
//! Owns the limits, and the layer that every API client has. Must never read what an answer says.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures::future::{BoxFuture, FutureExt as _, TryFutureExt as _};
use hyper::body::{Body, Buf as _, Bytes, Frame, SizeHint};
use hyper::{Request, Response};
use tower::{BoxError, Layer, Service};

/// The longest answer that is not a watch, in MiB. The longest that we ask for is a page of a list.
const ANSWER_MIB_MAX: u64 = 64;

/// Objects in one page of a list: however long each of them is, the page stays below the longest answer. A page
/// of 500 objects, as is usual, ends at 128 KiB each.
pub(crate) const PAGE_OBJECTS_MAX: u32 = 32;

/// The longest object, in KiB: etcd's own limit on what it stores, which for our kinds is their JSON, managed fields
/// included. The rest of the answer is the list around them.
const OBJECT_KIB_MAX: u64 = 1536;

const _: () = assert!(PAGE_OBJECTS_MAX as u64 * OBJECT_KIB_MAX < ANSWER_MIB_MAX * 1024);

/// The longest line of a watch, in MiB. A line is one object, of which etcd takes at most 1.5 MiB; as JSON
/// it can be longer. A watch as a whole has no end.
const WATCH_LINE_MIB_MAX: u64 = 4;

const MIB: u64 = 1 << 20;

/// What may not be longer than what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Answer { bytes: u64 },
    WatchLine { bytes: u64 },
}

impl Limit {
    /// A refused watch answers like any other request, and is collected by kube.
    fn of(watch: bool, succeeded: bool) -> Self {
        if watch && succeeded {
            Self::WatchLine {
                bytes: WATCH_LINE_MIB_MAX * MIB,
            }
        } else {
            Self::Answer {
                bytes: ANSWER_MIB_MAX * MIB,
            }
        }
    }

    /// Whether more than the limit is there once `data` has come. `seen` counts from answer to answer, or
    /// from line to line.
    fn is_over(self, seen: &mut u64, data: &[u8]) -> bool {
        match self {
            Self::Answer { bytes } => {
                *seen += data.len() as u64;
                *seen > bytes
            }
            Self::WatchLine { bytes } => {
                for (nth, piece) in data.split(|byte| *byte == b'\n').enumerate() {
                    if nth > 0 {
                        *seen = 0;
                    }
                    *seen += piece.len() as u64;
                    if *seen > bytes {
                        return true;
                    }
                }
                false
            }
        }
    }
}

/// An answer was longer than its limit.
#[derive(Debug)]
struct OverLimit(Limit);

impl fmt::Display for OverLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Limit::Answer { bytes } => write!(
                f,
                "the API server's answer is longer than the limit of {} MiB",
                bytes / MIB
            ),
            Limit::WatchLine { bytes } => write!(
                f,
                "a line of the API server's watch is longer than the limit of {} MiB",
                bytes / MIB
            ),
        }
    }
}

impl Error for OverLimit {}

/// Says whether an answer was longer than its limit.
pub(crate) fn is_over_limit(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(<dyn Error + 'static>::is::<OverLimit>)
}

/// Says whether a request failed for want of a connection, so that no server can have acted on it.
pub(crate) fn never_left(error: &(dyn Error + 'static)) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<hyper_util::client::legacy::Error>())
        .any(hyper_util::client::legacy::Error::is_connect)
}

/// What an error says of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// Another was first: what was planned on is not there any more.
    Conflict,
    /// It was not taken.
    Refused,
    /// It may have been taken all the same.
    Unknown,
}

/// Judges whether a write that failed may have been taken.
pub(crate) fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if matches!(status.code, 404 | 409) => Failure::Conflict,
        // The server may have given up on etcd, or a proxy on the server, after it was taken.
        kube::Error::Api(status) if status.code >= 500 || status.code == 408 => Failure::Unknown,
        kube::Error::Api(_)
        | kube::Error::BuildRequest(_)
        | kube::Error::HttpError(_)
        | kube::Error::Auth(_) => Failure::Refused,
        error if never_left(error) => Failure::Refused,
        _ => Failure::Unknown,
    }
}

fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

/// Puts the limits around a client's service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BoundAnswers;

impl<S> Layer<S> for BoundAnswers {
    type Service = Bounding<S>;

    fn layer(&self, inner: S) -> Bounding<S> {
        Bounding { inner }
    }
}

/// A service whose answers are bounded.
#[derive(Clone, Debug)]
pub(crate) struct Bounding<S> {
    inner: S,
}

impl<S, A, B> Service<Request<A>> for Bounding<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = Response<Bounded<B>>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let watch = query.split('&').any(|pair| pair == "watch=true");
        self.inner
            .call(request)
            .map_ok(move |answer| {
                let limit = Limit::of(watch, answer.status().is_success());
                answer.map(|body| Bounded::new(body, limit))
            })
            .boxed()
    }
}

/// A body that ends with an error where its limit is reached.
#[derive(Debug)]
pub(crate) struct Bounded<B> {
    /// Gone, and its connection with it, once the limit is reached.
    body: Option<B>,
    limit: Limit,
    seen: u64,
}

impl<B> Bounded<B> {
    fn new(body: B, limit: Limit) -> Self {
        Self {
            body: Some(body),
            limit,
            seen: 0,
        }
    }
}

impl<B> Body for Bounded<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.get_mut();
        let Some(body) = &mut this.body else {
            return Poll::Ready(None);
        };
        let frame = ready!(Pin::new(body).poll_frame(context));
        let data = frame
            .as_ref()
            .and_then(|frame| frame.as_ref().ok()?.data_ref());
        if data.is_some_and(|data| this.limit.is_over(&mut this.seen, data.chunk())) {
            this.body = None;
            return Poll::Ready(Some(Err(OverLimit(this.limit).into())));
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use futures::StreamExt as _;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::api::{ListParams, WatchParams};
    use kube::{Api, Client, Config};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::{ANSWER_MIB_MAX, Limit, MIB, WATCH_LINE_MIB_MAX};

    /// What sockets hold beside what a client has read.
    const SOCKETS_MIB_MAX: u64 = 32;

    /// Where the server gives up, so that a client without limits fails its test and not the machine.
    const ENDLESS_MIB: u64 = 256;

    /// Answers every request with `status` and a word that does not end; counts what it got rid of.
    async fn endless(status: &'static str) -> (Client, Arc<AtomicU64>) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap());
        let sent = Arc::new(AtomicU64::new(0));
        let count = sent.clone();
        tokio::spawn(async move {
            let chunk = [b"10000\r\n", &[b'x'; 0x1_0000][..], b"\r\n"].concat();
            while let Ok((mut socket, _)) = listener.accept().await {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(socket.read_u8().await.unwrap());
                }
                let head = format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\n\r\n");
                let mut result = socket.write_all(head.as_bytes()).await;
                while result.is_ok() && count.load(Ordering::Relaxed) < ENDLESS_MIB * MIB {
                    result = socket.write_all(&chunk).await;
                    count.fetch_add(0x1_0000, Ordering::Relaxed);
                }
            }
        });
        let mut config = Config::new(uri.parse().unwrap());
        config.proxy_url = None;
        (crate::runtime::client(config).unwrap(), sent)
    }

    /// Waits for the error of `request`, and sees what was sent until then.
    async fn check<T>(
        request: impl Future<Output = Result<T, kube::Error>>,
        sent: &AtomicU64,
        limit_mib: u64,
    ) {
        let result = tokio::time::timeout(Duration::from_secs(60), request).await;
        let error = result.expect("ends by itself").err().unwrap();
        assert!(super::is_over_limit(&error) && !super::never_left(&error));
        let error = error.to_string();
        assert!(
            error.contains(&format!("limit of {limit_mib} MiB")),
            "{error}"
        );
        let sent_mib = sent.load(Ordering::Relaxed) / MIB;
        assert!(
            (limit_mib..limit_mib + SOCKETS_MIB_MAX).contains(&sent_mib),
            "{sent_mib} MiB sent"
        );
    }

    async fn first_event(client: Client) -> Result<(), kube::Error> {
        let maps: Api<ConfigMap> = Api::all(client);
        let events = maps.watch(&WatchParams::default(), "0").await?;
        let mut events = std::pin::pin!(events);
        let first = events.next().await.expect("an event or an error");
        // kube may still hand out what it holds of the line; but nothing more is read.
        for _ in 0..4 {
            if let Some(Err(again)) = events.next().await {
                assert!(!again.to_string().contains("limit"), "{again}");
            }
        }
        first.map(drop)
    }

    #[tokio::test]
    async fn an_endless_list_ends_at_its_limit() {
        let (client, sent) = endless("200 OK").await;
        let maps: Api<ConfigMap> = Api::all(client);
        check(maps.list(&ListParams::default()), &sent, ANSWER_MIB_MAX).await;
    }

    #[tokio::test]
    async fn an_endless_line_of_a_watch_ends_at_its_limit() {
        let (client, sent) = endless("200 OK").await;
        check(first_event(client), &sent, WATCH_LINE_MIB_MAX).await;
    }

    /// kube collects the answer to a watch that was refused: lines do not help there.
    #[tokio::test]
    async fn the_endless_refusal_of_a_watch_ends_at_its_limit() {
        let (client, sent) = endless("403 Forbidden").await;
        check(first_event(client), &sent, ANSWER_MIB_MAX).await;
    }

    #[tokio::test]
    async fn a_request_without_a_connection_never_left() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", closed.local_addr().unwrap());
        drop(closed);
        let mut config = Config::new(uri.parse().unwrap());
        config.proxy_url = None;
        let maps: Api<ConfigMap> = Api::all(crate::runtime::client(config).unwrap());
        let error = maps.list(&ListParams::default()).await.unwrap_err();
        assert!(super::never_left(&error), "{error:?}");
        assert!(!super::is_over_limit(&error));
    }

    #[test]
    fn a_watch_is_bounded_by_line_and_all_else_in_total() {
        let line = Limit::WatchLine { bytes: 4 };
        let mut seen = 0;
        for _ in 0..100 {
            assert!(
                !line.is_over(&mut seen, b"23\n1234\n1"),
                "any number of lines"
            );
            assert!(!line.is_over(&mut seen, b"2"));
            assert!(!line.is_over(&mut seen, b"34\n\n"), "four in three pieces");
        }
        assert!(line.is_over(&mut 0, b"1\n12345\n1"), "within a piece");
        let mut seen = 0;
        assert!(!line.is_over(&mut seen, b"\n123"));
        assert!(line.is_over(&mut seen, b"45\n"), "over two pieces");

        let answer = Limit::Answer { bytes: 4 };
        let mut seen = 0;
        assert!(!answer.is_over(&mut seen, b"12\n4"));
        assert!(answer.is_over(&mut seen, b"\n"), "lines do not count");

        for (watch, succeeded, by_line) in [
            (true, true, true),
            (true, false, false),
            (false, true, false),
            (false, false, false),
        ] {
            let limit = Limit::of(watch, succeeded);
            assert_eq!(matches!(limit, Limit::WatchLine { .. }), by_line);
        }
    }
}
