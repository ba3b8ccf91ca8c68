//! An API server for tests: one Node, one EdgeNode with the record of who owns its labels, Leases and events.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use axum::Router;
use axum::extract::State as Shared;
use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, StatusCode, Uri};
use kube::api::ObjectMeta;
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
    /// What a request may show; anything, if nothing is here.
    pub(crate) tokens: Vec<&'static str>,
    /// What the last one showed.
    pub(crate) shown: String,
    /// Requests that showed something else.
    pub(crate) refused: usize,
    /// Of these, lists of EdgeNodes.
    pub(crate) refused_lists: usize,
    /// Renewals of Leases.
    pub(crate) leases: usize,
    /// The Node that owns the EdgeNode.
    pub(crate) owner: Option<String>,
    /// Where a client under test reads how to come here.
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Status of the answer to a list of EdgeNodes.
    pub(crate) list: u16,
    pub(crate) lists: usize,
    /// Revision of the definition of EdgeNode; none if there is no definition.
    pub(crate) definition: Option<u32>,
    pub(crate) looks: usize,
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
                "resourceVersion": "1",
                "labels": self.edge_labels(),
                "ownerReferences": self.owner.iter().map(|uid| json!({
                    "apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": uid,
                })).collect::<Vec<_>>(),
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
        let owner = &body["metadata"]["ownerReferences"][0]["uid"];
        self.owner = owner.as_str().map(str::to_owned);
    }

    fn node(&self) -> Value {
        let metadata = json!({
            "name": "node-1", "uid": "node-uid", "resourceVersion": "1", "labels": self.node_labels,
        });
        json!({ "apiVersion": "v1", "kind": "Node", "metadata": metadata })
    }

    /// Status and body; nothing where no answer is to come.
    fn serve(&mut self, method: &Method, uri: &Uri, body: Value) -> Option<(u16, Value)> {
        let path = uri.path();
        let watch = uri
            .query()
            .is_some_and(|query| query.contains("watch=true"));
        if method != Method::GET {
            self.writes.push(Write {
                method: method.clone(),
                body: body.clone(),
            });
        }
        if path.contains("/customresourcedefinitions/") {
            self.looks += 1;
            let revision = self.definition.map(|it| it.to_string());
            return Some(match revision {
                Some(revision) => (
                    200,
                    json!({ "metadata": { "name": "a", "annotations": { "rimward.dev/crd-revision": revision } } }),
                ),
                None => (404, Value::Null),
            });
        }
        Some(if path.contains("/events") {
            if self.events_hang {
                return None;
            }
            (200, body)
        } else if path.contains("/leases/") {
            if method == Method::GET {
                return Some((404, Value::Null));
            }
            self.leases += 1;
            (200, body)
        } else if path == "/api/v1/nodes" && watch {
            (
                self.node,
                json!({ "type": "MODIFIED", "object": self.node() }),
            )
        } else if path == "/api/v1/nodes" {
            self.node_reads += 1;
            let metadata = json!({ "resourceVersion": "1" });
            (
                self.node,
                json!({ "metadata": metadata, "items": [self.node()] }),
            )
        } else if path.ends_with("/edgenodes") && watch {
            match &self.edge {
                Some(_) => (
                    self.list,
                    json!({ "type": "MODIFIED", "object": self.edge_node() }),
                ),
                None => (
                    self.list,
                    json!({ "type": "BOOKMARK", "object": {
                    "kind": "EdgeNode", "apiVersion": "rimward.dev/v1alpha1", "metadata": { "resourceVersion": "1" },
                } }),
                ),
            }
        } else if path.ends_with("/edgenodes") {
            self.lists += 1;
            let items: Vec<Value> = self.edge.iter().map(|_| self.edge_node()).collect();
            (
                self.list,
                json!({ "metadata": { "resourceVersion": "1" }, "items": items }),
            )
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
            tokens: Vec::new(),
            shown: String::new(),
            refused: 0,
            refused_lists: 0,
            leases: 0,
            owner: None,
            kubeconfig: None,
            list: 200,
            lists: 0,
            definition: Some(rimward_crds::revision::REVISION),
            looks: 0,
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

    pub(crate) fn edge_metadata(&self) -> ObjectMeta {
        serde_json::from_value(self.lock().edge_node()["metadata"].take()).unwrap()
    }

    pub(crate) fn write_kubeconfig(&self, path: &Path, token: &str) {
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "a",
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
            "clusters": [{"name": "a", "cluster": {"server": format!("http://{}", self.address)}}],
            "users": [{"name": "a", "user": {"token": token}}],
        });
        std::fs::write(path, kubeconfig.to_string()).unwrap();
    }

    pub(crate) fn rewrite_kubeconfig(&self, token: &str) {
        let path = self.lock().kubeconfig.clone().unwrap();
        self.write_kubeconfig(&path, token);
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
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let body = serde_json::from_slice(&body).unwrap_or_default();
    if uri
        .query()
        .is_some_and(|query| query.contains("watch=true"))
    {
        // An answer that ends is asked for again at once.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let served = {
        let mut state = state.lock().unwrap();
        let shown = headers.get(AUTHORIZATION).and_then(|it| it.to_str().ok());
        state.shown = shown.unwrap_or_default().replace("Bearer ", "");
        if !state.tokens.is_empty() && !state.tokens.contains(&state.shown.as_str()) {
            state.refused += 1;
            let lists = uri.path().ends_with("/edgenodes")
                && !uri.query().is_some_and(|it| it.contains("watch=true"));
            state.refused_lists += usize::from(lists);
            Some((401, Value::Null))
        } else {
            state.serve(&method, &uri, body)
        }
    };
    let Some((code, answer)) = served else {
        return std::future::pending().await;
    };
    if code == 200 {
        return (StatusCode::OK, format!("{answer}\n"));
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
