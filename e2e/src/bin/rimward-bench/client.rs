//! A client that keeps its connection, measures each exchange, and retries nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The revision that answered.
pub(crate) const VERSION: &str = "rimward-model-version";
/// The revision in trial that failed the request before.
pub(crate) const FALLBACK: &str = "rimward-fallback-from";

/// An answer is far smaller.
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// Silence longer than this is an error.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Reply {
    /// A header as text; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.and_then(|value| value.to_str().ok()).unwrap_or("")
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Client {
    authority: String,
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    /// Connects to `HOST:PORT`.
    pub(crate) async fn connect(authority: &str) -> Result<Self> {
        let stream = TcpStream::connect(authority).await?;
        stream.set_nodelay(true)?;
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(driver); // ends with the connection; what it fails with, the sender says
        Ok(Self {
            authority: authority.to_owned(),
            sender,
        })
    }

    /// Posts a body and reads the answer.
    pub(crate) async fn post(&mut self, path: &str, body: &Bytes) -> Result<Reply> {
        let request = Request::post(path)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .body(Full::new(body.clone()))?;
        let exchange = async {
            self.sender.ready().await?;
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("answer cut off: {error}"))?;
            Ok(Reply {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            })
        };
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .context("no answer in time")?
    }
}

/// Where closed-loop load goes to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// `HOST:PORT`.
    pub(crate) authority: String,
    /// Path.
    pub(crate) path: String,
    /// Body of each request.
    pub(crate) body: Bytes,
}

/// Sends as fast as answers come, on each of `connections`, for a time; microseconds that each took.
///
/// Runs on a thread of its own, so that nothing else of this process delays it.
pub(crate) async fn closed_loop(
    target: &Target,
    connections: usize,
    lasting: Duration,
) -> Result<Vec<f64>> {
    let target = target.clone();
    let thread = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let loops = (0..connections).map(|_| one_connection(&target, lasting));
            let took = futures::future::try_join_all(loops).await?;
            Ok(took.concat())
        })
    });
    thread.await.context("the client's thread broke")?
}

async fn one_connection(target: &Target, lasting: Duration) -> Result<Vec<f64>> {
    let mut client = Client::connect(&target.authority).await?;
    let mut took = Vec::new();
    let started = Instant::now();
    while started.elapsed() < lasting {
        let sent = Instant::now();
        let reply = client.post(&target.path, &target.body).await?;
        took.push(sent.elapsed().as_secs_f64() * 1e6);
        ensure!(
            reply.status == StatusCode::OK,
            "{} answered {}: {}",
            target.path,
            reply.status,
            String::from_utf8_lossy(&reply.body)
        );
    }
    Ok(took)
}
