//! A stand-in for an API server, for tests of what is done with its answers. What real ones answer is told by the
//! stories in `e2e/`.

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use futures::future::BoxFuture;
use kube::{Client, Config};
use rimward_crds::{EdgeNode, EdgeNodeSpec};
use serde_json::{Value, json};

/// A request, as far as tests care.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) query: String,
    /// The header of that name.
    pub(crate) authorization: String,
    pub(crate) body: Value,
}

/// An answer; none is a server that never answers.
pub(crate) type Answer = Option<(u16, Value)>;

/// Serves on a thread of its own, whatever the test does with its own, until the test's process ends. Returns where.
pub(crate) fn serve(
    answer: impl Fn(Asked) -> BoxFuture<'static, Answer> + Send + Sync + 'static,
) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap());
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let router = Router::new().fallback(
                move |method: Method, uri: Uri, headers: HeaderMap, body: axum::body::Bytes| {
                    let authorization =
                        headers.get("authorization").and_then(|it| it.to_str().ok());
                    let asked = Asked {
                        authorization: authorization.unwrap_or_default().to_owned(),
                        method,
                        path: uri.path().to_owned(),
                        query: uri.query().unwrap_or_default().to_owned(),
                        body: serde_json::from_slice(&body).unwrap_or_default(),
                    };
                    let answer = answer(asked);
                    async move {
                        match answer.await {
                            Some(answer) => response(answer),
                            None => std::future::pending().await,
                        }
                    }
                },
            );
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                let stream = hyper_util::rt::TokioIo::new(stream);
                let connection = hyper::server::conn::http1::Builder::new();
                tokio::spawn(connection.serve_connection(stream, service));
            }
        });
    });
    uri
}

fn response((code, body): (u16, Value)) -> Response {
    let code = StatusCode::from_u16(code).unwrap();
    let json = [("content-type", "application/json")];
    (code, json, body.to_string()).into_response()
}

/// What an API server says when it refuses.
pub(crate) fn refusal(code: u16, reason: &str) -> (u16, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("refused: {reason}"), "reason": reason, "code": code,
    });
    (code, body)
}

/// The configuration of a client of `uri`.
pub(crate) fn config(uri: &str) -> Config {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::new(uri.parse().unwrap());
    config.proxy_url = None;
    config
}

/// A client of `uri`.
pub(crate) fn client(uri: &str) -> Client {
    crate::runtime::client(config(uri)).unwrap()
}

/// The EdgeNode n1 with this UID, at this version.
pub(crate) fn edge_node(uid: &str, version: &str) -> EdgeNode {
    let mut node = EdgeNode::new("n1", EdgeNodeSpec::default());
    node.metadata.uid = Some(uid.to_owned());
    node.metadata.resource_version = Some(version.to_owned());
    node
}
