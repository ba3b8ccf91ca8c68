//! A small registry on loopback that can be made to misbehave.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rimward_artifact::Digest;
use rimward_artifact::hash::sha256;
use rimward_artifact::package::BuiltPackage;
use rimward_artifact::reference::Repository;
use rimward_artifact::registry::{Client, ClientOptions, Pace};
use rimward_artifact::verify::SignatureCandidate;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::bytes as blob_bytes;

pub(crate) type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) host: String,
}

/// Content by path below `/v2/`.
pub(crate) type Content = BTreeMap<String, Vec<u8>>;

#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// Serves `content`, unless `misbehave` answers; it gets the request and how many came before it.
    pub(crate) async fn start(
        content: Content,
        misbehave: impl Fn(&Seen, usize) -> Option<Answer> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let log = seen.clone();
        let shared = Arc::new((content, misbehave));
        let task = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    return;
                };
                let (shared, log) = (shared.clone(), log.clone());
                let service = service_fn(move |request: Request<Incoming>| {
                    let (shared, log) = (shared.clone(), log.clone());
                    async move {
                        let header = |name: &str| {
                            let value = request.headers().get(name)?;
                            Some(value.to_str().ok()?.to_owned())
                        };
                        let one = Seen {
                            method: request.method().to_string(),
                            path: request.uri().to_string(),
                            authorization: header("authorization"),
                            range: header("range"),
                            host: header("host").unwrap_or_default(),
                        };
                        let before = {
                            let mut log = log.lock().unwrap();
                            log.push(one.clone());
                            log.len() - 1
                        };
                        let (content, misbehave) = &*shared;
                        let answer = misbehave(&one, before).unwrap_or_else(|| {
                            match content.get(one.path.trim_start_matches("/v2/")) {
                                Some(bytes) => full(200, bytes.clone()),
                                None => full(404, "{}"),
                            }
                        });
                        Ok::<_, Infallible>(answer)
                    }
                });
                tokio::spawn(async move {
                    let io = TokioIo::new(stream);
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(io, service)
                        .await;
                });
            }
        });
        Self {
            address,
            seen,
            task,
        }
    }

    pub(crate) fn repository(&self) -> Repository {
        format!("{}/models/digits", self.address).parse().unwrap()
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// Paths asked for that contain `part`.
    pub(crate) fn asked(&self, part: &str) -> usize {
        self.seen()
            .iter()
            .filter(|seen| seen.path.contains(part))
            .count()
    }
}

/// A client without retries, unless `change` says otherwise.
pub(crate) fn client(change: impl FnOnce(&mut ClientOptions)) -> Client {
    let mut options = ClientOptions {
        pace: Pace {
            retries_max: 0,
            retry_delay: Duration::from_millis(1),
            ..Pace::default()
        },
        ..ClientOptions::default()
    };
    change(&mut options);
    Client::new(options).unwrap()
}

pub(crate) fn full(status: u16, body: impl Into<Bytes>) -> Answer {
    let body = Full::new(body.into()).map_err(|never: Infallible| match never {});
    Response::builder()
        .status(status)
        .body(body.boxed_unsync())
        .unwrap()
}

/// A body that never ends, and a counter of what was handed out.
pub(crate) fn endless(sent: &Arc<Mutex<u64>>) -> Answer {
    let sent = sent.clone();
    let chunks = futures::stream::repeat(Bytes::from(vec![b' '; 64 << 10])).map(move |chunk| {
        *sent.lock().unwrap() += chunk.len() as u64;
        Ok(Frame::data(chunk))
    });
    Response::new(StreamBody::new(chunks).boxed_unsync())
}

/// A body that comes in drops, for ever.
pub(crate) fn dripping(every: Duration) -> Answer {
    let drops = futures::stream::unfold((), move |()| async move {
        tokio::time::sleep(every).await;
        Some((Ok(Frame::data(Bytes::from_static(b" "))), ()))
    });
    Response::new(StreamBody::new(drops).boxed_unsync())
}

/// Promises `promised` bytes, gives `body` and breaks off.
pub(crate) fn cut(status: u16, promised: usize, body: Vec<u8>) -> Answer {
    let start = futures::stream::once(async { Ok(Frame::data(Bytes::from(body))) });
    let end = futures::stream::once(async {
        // Time for what was sent to leave, or the server throws it away with the connection.
        tokio::time::sleep(Duration::from_millis(200)).await;
        Err(io::Error::other("cut"))
    });
    let chunks = start.chain(end);
    Response::builder()
        .status(status)
        .header("content-length", promised)
        .body(StreamBody::new(chunks).boxed_unsync())
        .unwrap()
}

pub(crate) fn with_header(mut answer: Answer, name: &'static str, value: &str) -> Answer {
    answer.headers_mut().insert(name, value.parse().unwrap());
    answer
}

/// A registry's content with this package, by digest and at tag `v1`.
pub(crate) fn content(built: &BuiltPackage) -> Content {
    let mut content = Content::new();
    content.insert(
        format!("models/digits/manifests/{}", built.digest),
        built.manifest_bytes.clone(),
    );
    content.insert(
        "models/digits/manifests/v1".to_owned(),
        built.manifest_bytes.clone(),
    );
    for blob in &built.blobs {
        content.insert(
            format!("models/digits/blobs/{}", blob.digest),
            blob_bytes(&blob.source),
        );
    }
    content
}

/// How a signature is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    Referrers,
    Tag,
}

/// Adds signatures to a package's content, as cosign v3 does.
pub(crate) fn attach(
    content: &mut Content,
    subject: Digest,
    signatures: &[SignatureCandidate],
    via: Via,
) {
    let mut entries = Vec::new();
    for signature in signatures {
        let blob = sha256(&signature.bytes);
        content.insert(
            format!("models/digits/blobs/{blob}"),
            signature.bytes.clone(),
        );
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2},
            "layers": [{
                "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
                "digest": blob,
                "size": signature.bytes.len(),
            }],
            "subject": {"digest": subject},
        })
        .to_string()
        .into_bytes();
        let digest = sha256(&manifest);
        entries.push(json!({"digest": digest, "size": manifest.len()}));
        content.insert(format!("models/digits/manifests/{digest}"), manifest);
    }
    let index = json!({"schemaVersion": 2, "manifests": entries})
        .to_string()
        .into_bytes();
    let path = match via {
        Via::Referrers => format!("models/digits/referrers/{subject}"),
        Via::Tag => format!("models/digits/manifests/sha256-{}", subject.hex()),
    };
    content.insert(path, index);
}
