//! An API server for tests: one Node, one EdgeNode with the record of who owns its labels, and events.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use bytes::Bytes;
use http::{Method, StatusCode, Uri};
use kube::{Client, Config};
use serde_json::{Value, json};

/// One write, as it came.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) method: Method,
    pub(crate) body: Value,
}

/// What it has, and what it was asked.
#[derive(Debug)]
pub(crate) struct State {
    /// Status of the answer to a read of the Node.
    pub(crate) node: u16,
    pub(crate) node_labels: BTreeMap<String, String>,
    pub(crate) node_reads: usize,
    /// Status of the answer to a list of EdgeNodes.
    pub(crate) list: u16,
    pub(crate) lists: usize,
    /// Labels of the EdgeNode, each with whether the agent applied it.
    edge: Option<BTreeMap<String, (String, bool)>>,
    pub(crate) events_hang: bool,
    pub(crate) writes: Vec<Write>,
}

impl State {
    pub(crate) fn edge_labels(&self) -> BTreeMap<String, String> {
        let labels = self.edge.iter().flatten();
        labels
            .map(|(key, (value, _))| (key.clone(), value.clone()))
            .collect()
    }

    pub(crate) fn label_by_hand(&mut self, key: &str, value: &str) {
        let labels = self.edge.get_or_insert_default();
        labels.insert(key.to_owned(), (value.to_owned(), false));
    }

    fn edge_node(&self) -> Value {
        let entry = |manager: &str, operation: &str, applied: bool| {
            let labels = self.edge.iter().flatten();
            let fields: BTreeMap<String, Value> = labels
                .filter(|(_, (_, by_agent))| *by_agent == applied)
                .map(|(key, _)| (format!("f:{key}"), json!({})))
                .collect();
            json!({
                "manager": manager,
                "operation": operation,
                "apiVersion": "rimward.dev/v1alpha1",
                "fieldsType": "FieldsV1",
                "fieldsV1": { "f:metadata": { "f:labels": fields }, "f:spec": {} },
            })
        };
        json!({
            "apiVersion": "rimward.dev/v1alpha1",
            "kind": "EdgeNode",
            "metadata": {
                "name": "node-1",
                "labels": self.edge_labels(),
                "managedFields": [
                    entry("rimward-agent", "Apply", true),
                    entry("kubectl-label", "Update", false),
                ],
            },
            "spec": {},
        })
    }

    fn apply(&mut self, body: &Value) {
        let before = self.edge.take().unwrap_or_default();
        let mut labels: BTreeMap<_, _> = before
            .into_iter()
            .filter(|(_, (_, by_agent))| !by_agent)
            .collect();
        for (key, value) in body["metadata"]["labels"].as_object().into_iter().flatten() {
            let value = value.as_str().unwrap_or_default().to_owned();
            labels.insert(key.clone(), (value, true));
        }
        self.edge = Some(labels);
    }

    /// Status and body; nothing where no answer is to come.
    fn serve(&mut self, method: &Method, path: &str, body: Value) -> Option<(u16, Value)> {
        if method != Method::GET {
            self.writes.push(Write {
                method: method.clone(),
                body: body.clone(),
            });
        }
        Some(if path.contains("/events") {
            if self.events_hang {
                return None;
            }
            (200, body)
        } else if path == "/api/v1/nodes/node-1" {
            self.node_reads += 1;
            let metadata = json!({ "name": "node-1", "labels": self.node_labels });
            let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata });
            (self.node, node)
        } else if path.ends_with("/edgenodes") {
            self.lists += 1;
            (self.list, json!({ "metadata": {}, "items": [] }))
        } else if method == Method::PATCH {
            self.apply(&body);
            (200, self.edge_node())
        } else if self.edge.is_some() {
            (200, self.edge_node())
        } else {
            (404, Value::Null)
        })
    }
}

/// A running one; it ends with the test's runtime.
pub(crate) struct FakeApi {
    state: Arc<Mutex<State>>,
    address: SocketAddr,
}

impl FakeApi {
    pub(crate) async fn start() -> Self {
        let state = Arc::new(Mutex::new(State {
            node: 200,
            node_labels: BTreeMap::new(),
            node_reads: 0,
            list: 200,
            lists: 0,
            edge: None,
            events_hang: false,
            writes: Vec::new(),
        }));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().fallback(answer).with_state(state.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { state, address }
    }

    pub(crate) fn client(&self) -> Client {
        let uri: Uri = format!("http://{}", self.address).parse().unwrap();
        let mut config = Config::new(uri);
        config.default_retry = false;
        Client::try_from(config).unwrap()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Waits until that holds.
    pub(crate) async fn until(&self, holds: impl Fn(&State) -> bool) {
        for _ in 0..2000 {
            if holds(&self.lock()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not within 20 s: {:?}", self.lock());
    }
}

async fn answer(
    Shared(state): Shared<Arc<Mutex<State>>>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> (StatusCode, String) {
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let served = state.lock().unwrap().serve(&method, uri.path(), body);
    let Some((code, answer)) = served else {
        return std::future::pending().await;
    };
    if code == 200 {
        return (StatusCode::OK, answer.to_string());
    }
    let reason = match code {
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        _ => "Unknown",
    };
    let problem = json!({
        "apiVersion": "v1",
        "kind": "Status",
        "status": "Failure",
        "message": format!("refused with {code}"),
        "reason": reason,
        "code": code,
    });
    (StatusCode::from_u16(code).unwrap(), problem.to_string())
}
