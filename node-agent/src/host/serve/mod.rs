//! The endpoint: connections in, answers out.
//!
//! Owns accepting, the limit on connections and leaving as a lame duck. hyper's own graceful shutdown
//! closes idle connections at once, and a client that is just about to use one loses its request; here
//! an idle connection stays until its next request, which is answered with `Connection: close`.

mod answers;
mod decode;
mod encode;
mod idle;
mod infer;
mod patience;
mod rest;
mod room;

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::header::{CONNECTION, HeaderValue};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

pub use infer::{FALLBACK_HEADER, VERSION_HEADER};

use self::idle::{Connection, Open};
use self::patience::Patient;
use super::engine::lock;
use super::routes::Routes;
use crate::proto::HostLimits;

/// How long a connection may be idle, or take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Bounds one connection's buffer for heads.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// All connections of this host.
#[derive(Clone, Debug)]
pub(super) struct Server(Arc<State>);

#[derive(Debug)]
struct State {
    rest: rest::Rest,
    connections: AtomicUsize,
    places: Arc<Semaphore>,
    open: Open,
    write_stall: Duration,
    lame_duck: AtomicBool,
    lame: Notify,
    left: Notify,
    accepting: Mutex<Vec<JoinHandle<()>>>,
}

impl Server {
    pub(super) fn new(routes: Routes, limits: &HostLimits) -> Self {
        Self(Arc::new(State {
            rest: rest::Rest::new(routes, limits),
            connections: AtomicUsize::new(0),
            places: Arc::new(Semaphore::new(limits.connections_max as usize)),
            open: Open::default(),
            write_stall: Duration::from_millis(limits.write_stall_milliseconds),
            lame_duck: AtomicBool::new(false),
            lame: Notify::new(),
            left: Notify::new(),
            accepting: Mutex::new(Vec::new()),
        }))
    }

    /// Tells whoever asks that this node is not ready any more; everything is served on.
    pub(super) fn drain(&self) {
        self.0.rest.drain();
    }

    /// Accepts on one listener until this host is a lame duck.
    pub(super) fn listen(&self, listener: std::net::TcpListener) -> std::io::Result<()> {
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let server = self.clone();
        let accepting = tokio::spawn(async move {
            let lame = server.0.lame.notified();
            tokio::pin!(lame);
            lame.as_mut().enable();
            tokio::select! {
                () = &mut lame => {}
                () = server.accept(&listener), if !server.is_lame_duck() => {}
            }
        });
        lock(&self.0.accepting).push(accepting);
        Ok(())
    }

    async fn accept(&self, listener: &TcpListener) {
        // One at most is accepted before it has a place; over the limit the others wait in the kernel's
        // queue, where the next host finds them.
        let door = Arc::new(Semaphore::new(1));
        loop {
            let Ok(next) = Arc::clone(&door).acquire_owned().await else {
                return;
            };
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // Counted here, not in the task, so that a lame duck that looks now sees it.
            self.0.connections.fetch_add(1, Ordering::SeqCst);
            let counted = Counted(Arc::clone(&self.0));
            let server = self.clone();
            tokio::spawn(async move {
                let place = server.place().await;
                let entry = server.0.open.enter();
                drop(next);
                server.connection(stream, &entry.connection).await;
                drop(counted);
                drop(place);
            });
        }
    }

    /// A place for one more connection: where all are taken, that of the one that has been idle longest.
    async fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = || Arc::clone(&self.0.places);
        loop {
            let went_idle = self.0.open.went_idle();
            tokio::pin!(went_idle);
            went_idle.as_mut().enable();
            if let Ok(place) = place().try_acquire_owned() {
                return Some(place);
            }
            if self.0.open.dismiss_longest_idle() {
                return place().acquire_owned().await.ok();
            }
            tokio::select! {
                place = place().acquire_owned() => return place.ok(),
                () = went_idle => {}
            }
        }
    }

    async fn connection(&self, stream: TcpStream, doing: &Arc<Connection>) {
        // Answers are small and whole: there is nothing to wait for.
        let _ = stream.set_nodelay(true);
        let service = service_fn(|request| async {
            doing.asked();
            let mut response = rest::answer(&self.0.rest, request).await;
            if self.is_lame_duck() {
                response
                    .headers_mut()
                    .insert(CONNECTION, HeaderValue::from_static("close"));
            }
            doing.answered();
            Ok::<_, Infallible>(response.map(Full::new))
        });
        let stream = Patient::new(stream, self.0.write_stall, Arc::clone(doing));
        let served = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD_BYTES_MAX)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = doing.dismissed() => {
                // A request that came just now is answered first; half a head is not waited for.
                if doing.is_idle() {
                    return;
                }
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Connections open now.
    pub(super) fn connections(&self) -> usize {
        self.0.connections.load(Ordering::SeqCst)
    }

    fn is_lame_duck(&self) -> bool {
        self.0.lame_duck.load(Ordering::SeqCst)
    }

    /// Stops accepting and waits until every connection has left, or the grace is over. Gives the
    /// number of those that stayed.
    pub(super) async fn lame_duck(&self, grace: Duration) -> usize {
        self.0.lame_duck.store(true, Ordering::SeqCst);
        self.0.lame.notify_waiters();
        let end = Instant::now() + grace;
        // Only when nobody accepts any more can no connection mean that none will come.
        let accepting = std::mem::take(&mut *lock(&self.0.accepting));
        for task in accepting {
            let _ = task.await;
        }
        loop {
            let left = self.0.left.notified();
            if self.connections() == 0 {
                return 0;
            }
            if tokio::time::timeout_at(end.into(), left).await.is_err() {
                return self.connections();
            }
        }
    }
}

/// One open connection.
struct Counted(Arc<State>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::SeqCst);
        self.0.left.notify_one();
    }
}
