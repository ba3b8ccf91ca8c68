//! `/healthz`, `/readyz` and `/metrics`.
//!
//! Owns the listening socket and the bounds on its connections: how many, how long a head may take, how long
//! they hold up the end. Reads only: whether the role is ready, and the metrics.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long a connection may be idle, or take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long open connections may hold up the end.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);
/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Whether the role can do its work: the definitions fit, and the caches of its own cluster are filled. An edge replica
/// that stands by has none; it is ready once its API server answered. A hub that is away makes no edge unready.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness(Arc<Mutex<Ready>>);

#[derive(Clone, Debug, Default)]
struct Ready {
    ready: bool,
    /// Why not; or what is to be said of a role that is ready.
    words: String,
}

impl Readiness {
    /// It is ready from now on.
    pub(crate) fn set(&self) {
        self.lock().ready = true;
    }

    /// It is not, and why.
    pub(crate) fn unset(&self, words: String) {
        *self.lock() = Ready {
            ready: false,
            words,
        };
    }

    /// It is ready, and does nothing yet: why.
    pub(crate) fn stands_by(&self, words: String) {
        *self.lock() = Ready { ready: true, words };
    }

    /// It does its work: nothing more is to be said once it is ready.
    pub(crate) fn leads(&self) {
        self.lock().words = String::new();
    }

    #[cfg(test)]
    pub(crate) fn is_ready(&self) -> bool {
        self.lock().ready
    }

    #[cfg(test)]
    pub(crate) fn words(&self) -> String {
        self.lock().words.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Ready> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Shared {
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

/// Runs a role with its probes beside it, until the role ends. Whatever ended the role, `shutdown` is told and
/// the probes end too. They have a task of their own: a role that is busy answers.
///
/// # Errors
/// The role's own, or that the address cannot be bound: then the role does not begin.
pub(crate) async fn beside<F>(
    listen: SocketAddr,
    shutdown: &CancellationToken,
    role: impl FnOnce(Readiness, Arc<Metrics>) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>>,
{
    let (readiness, metrics) = (Readiness::default(), Arc::new(Metrics::default()));
    let probes = serve(listen, readiness.clone(), metrics.clone(), shutdown.clone()).await?;
    let probes = tokio::spawn(probes);
    let role = async {
        let result = role(readiness, metrics).await;
        shutdown.cancel();
        result
    };
    let (probes, role) = tokio::join!(probes, role);
    role.and(probes.context("probes")?)
}

/// Serves until `shutdown`. Binds before it returns the future, so that a taken port is an error at start.
///
/// # Errors
/// When the address cannot be bound.
async fn serve(
    listen: SocketAddr,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> anyhow::Result<impl Future<Output = anyhow::Result<()>> + Send + 'static> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("--listen {listen}"))?;
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(text))
        .with_state(Shared { readiness, metrics });
    Ok(async move {
        let mut connections = JoinSet::new();
        let accepting = accept(&listener, &router, &shutdown, &mut connections);
        shutdown.run_until_cancelled(accepting).await;
        drop(listener);
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!(count = connections.len(), "open connections are cut off");
        }
        Ok(())
    })
}

/// Accepts for ever. `axum::serve` bounds neither heads nor the wait for its connections.
async fn accept(
    listener: &TcpListener,
    router: &Router,
    shutdown: &CancellationToken,
    connections: &mut JoinSet<()>,
) {
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, router.clone(), shutdown.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the probes could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Serves one connection; at `shutdown` it ends with the answer that is under way.
async fn connection(stream: TcpStream, router: Router, shutdown: CancellationToken) {
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the probes broke off");
    }
}

async fn ready(State(shared): State<Shared>) -> impl IntoResponse {
    let Ready { ready, words } = shared.readiness.lock().clone();
    match (ready, words.as_str()) {
        (true, "") => (StatusCode::OK, "ok\n".to_owned()),
        (true, words) => (StatusCode::OK, format!("ok: {words}\n")),
        (false, "") => (
            StatusCode::SERVICE_UNAVAILABLE,
            "caches are not filled yet\n".to_owned(),
        ),
        (false, words) => (StatusCode::SERVICE_UNAVAILABLE, format!("{words}\n")),
    }
}

async fn text(State(shared): State<Shared>) -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        shared.metrics.text(),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio_util::sync::CancellationToken;

    use super::{HEAD_TIMEOUT, Readiness, beside, serve};

    /// The machine may be busy; unbounded is what must fail.
    const WITHIN: Duration = Duration::from_secs(20);
    // Else the bound on heads would end what the bound on ends is to end.
    const _: () = assert!(WITHIN.as_secs() < HEAD_TIMEOUT.as_secs());

    fn free() -> std::net::SocketAddr {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        free.local_addr().unwrap()
    }

    #[tokio::test]
    async fn a_role_that_ends_by_itself_ends_its_probes_and_tells_why() {
        let stop = CancellationToken::new();
        let role = beside(free(), &stop, |_, _| async { anyhow::bail!("no more") });
        let ended = tokio::time::timeout(WITHIN, role).await.expect("it ends");
        assert_eq!(ended.unwrap_err().to_string(), "no more");
        assert!(stop.is_cancelled());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_role_that_is_busy_answers_its_probes() {
        let (stop, listen) = (CancellationToken::new(), free());
        let role = beside(listen, &stop, |_, _| async move {
            let asked = std::thread::spawn(move || {
                use std::io::{Read as _, Write as _};
                let mut socket = std::net::TcpStream::connect(listen).unwrap();
                socket.set_read_timeout(Some(WITHIN)).unwrap();
                let ask = b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
                socket.write_all(ask).unwrap();
                let mut answer = String::new();
                socket.read_to_string(&mut answer).map(|_| answer)
            });
            // Nothing else of this task runs until it has its answer.
            let answer = asked.join().unwrap();
            assert!(answer.unwrap().starts_with("HTTP/1.1 200"));
            Ok(())
        });
        role.await.unwrap();
    }

    #[tokio::test]
    async fn half_a_request_does_not_keep_the_probes_from_ending() {
        let listen = free();
        let (readiness, stop) = (Readiness::default(), CancellationToken::new());
        readiness.set();
        let probes = serve(listen, readiness, std::sync::Arc::default(), stop.clone())
            .await
            .unwrap();
        let probes = tokio::spawn(probes);

        let mut half = TcpStream::connect(listen).await.unwrap();
        half.write_all(b"GET /healthz HTTP/1.1\r\nHost: ")
            .await
            .unwrap();
        // An answer to another connection: the first one was accepted before.
        let mut whole = TcpStream::connect(listen).await.unwrap();
        whole
            .write_all(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .await
            .unwrap();
        let mut answer = String::new();
        whole.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        stop.cancel();
        let ended = tokio::time::timeout(WITHIN, probes).await;
        ended.expect("it ends").unwrap().unwrap();
        drop(half);
    }
}
