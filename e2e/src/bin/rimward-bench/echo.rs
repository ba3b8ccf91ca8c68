//! The bare echo: the least that an axum server does with a request and an answer of the same sizes.

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::Path;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use tokio::net::TcpListener;

/// As many threads as the agent's host serves requests with.
const THREADS: usize = 2;
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Serves `POST /{bytes}` at an address until the process ends: reads the body, and answers with as many bytes
/// of it, again and again.
pub(crate) fn serve(address: &str) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listening at {address}"))?;
        let router = Router::new().route("/{bytes}", post(echo));
        Ok(axum::serve(listener, router).await?)
    })
}

async fn echo(Path(bytes): Path<usize>, body: Bytes) -> Response {
    let wanted = if body.is_empty() {
        0
    } else {
        bytes.min(ANSWER_BYTES_MAX)
    };
    let mut answer = Vec::with_capacity(wanted);
    while answer.len() < wanted {
        let left = wanted - answer.len();
        answer.extend_from_slice(&body[..left.min(body.len())]);
    }
    ([(CONTENT_TYPE, "application/json")], answer).into_response()
}
