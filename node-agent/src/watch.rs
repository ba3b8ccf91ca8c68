//! The only reader of Kubernetes: this node's EdgeNode, and the labels of its Node.
//!
//! Owns turning what the API server says into orders. An object that is gone or cannot be had is "the
//! centre is away", never an order to remove; one that does not parse is a problem that is told. A Node
//! that cannot be read is an error, never "no labels": placement goes by labels.

use std::collections::BTreeMap;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Node;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as WatchEvent, watcher};
use kube::{Api, Client};
use rimward_crds::EdgeNode;
use tokio::sync::{mpsc, watch};

use crate::manifests::HOLD_ANNOTATION;
use crate::supervisor::{Covers, Event, Orders};

/// What the API server has of this node's EdgeNode, for the writer to compare with.
#[derive(Debug, Clone, Default)]
pub enum Seen {
    /// Not heard yet.
    #[default]
    Unknown,
    /// There is none: it must be made.
    Missing,
    /// It is there.
    There(Box<EdgeNode>),
    /// It is there, but does not parse.
    Unreadable,
}

fn orders(node: &EdgeNode) -> Orders {
    let annotations = node.metadata.annotations.as_ref();
    Orders {
        generation: node.metadata.generation,
        models: node.spec.models.clone(),
        hold: annotations
            .and_then(|all| all.get(HOLD_ANNOTATION))
            .map(|reason| reason.chars().take(256).collect()),
        problem: None,
        // It may have been made anew, and is filled entry by entry: what it does not name goes on.
        covers: Covers::Entries,
    }
}

/// Watches the EdgeNode for ever: orders go to the supervisor, the object itself to the writer.
pub async fn run(
    client: Client,
    node_name: &str,
    events: mpsc::Sender<Event>,
    seen: watch::Sender<Seen>,
) {
    let api: Api<DeserializeGuard<EdgeNode>> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={node_name}"));
    let stream = watcher(api, config).default_backoff();
    pin_mut!(stream);
    let mut listed = false;
    let mut trouble = Trouble::default();
    while let Some(event) = stream.next().await {
        let object = match event {
            Ok(WatchEvent::Init) => {
                listed = false;
                continue;
            }
            Ok(WatchEvent::InitApply(object)) => {
                listed = true;
                object
            }
            Ok(WatchEvent::InitDone) => {
                trouble.over();
                if !listed {
                    let _ = seen.send(Seen::Missing);
                }
                continue;
            }
            Ok(WatchEvent::Apply(object)) => object,
            Ok(WatchEvent::Delete(_)) => {
                let _ = seen.send(Seen::Missing);
                continue;
            }
            Err(error) => {
                let error = error.to_string();
                if trouble.is_news(&error) {
                    tracing::warn!(error, "watching the EdgeNode");
                } else {
                    tracing::debug!(error, "watching the EdgeNode, still");
                }
                continue;
            }
        };
        let now = match object.0 {
            Ok(node) => {
                let orders = orders(&node);
                let _ = seen.send(Seen::There(Box::new(node)));
                orders
            }
            Err(invalid) => {
                let _ = seen.send(Seen::Unreadable);
                let problem = format!("EdgeNode {node_name} does not parse: {}", invalid.error);
                tracing::error!(problem, "orders");
                Orders {
                    problem: Some(problem),
                    ..Orders::default()
                }
            }
        };
        if events.send(Event::Orders(now)).await.is_err() {
            return;
        }
    }
}

/// The error that a watch is in, so that each is told once and not at every try.
#[derive(Default)]
struct Trouble(Option<String>);

impl Trouble {
    fn is_news(&mut self, error: &str) -> bool {
        let news = self.0.as_deref() != Some(error);
        if news {
            self.0 = Some(error.to_owned());
        }
        news
    }

    fn over(&mut self) {
        self.0 = None;
    }
}

/// The labels of the Node of that name: an empty map where there is no Node, and `None` where it may not be
/// read. That may be for good, or while the API server starts and has not read its roles yet.
///
/// # Errors
///
/// Everything else: what labels the Node has is not known then.
pub async fn node_labels(
    client: &Client,
    node_name: &str,
) -> kube::Result<Option<BTreeMap<String, String>>> {
    let api: Api<Node> = Api::all(client.clone());
    match api.get_metadata(node_name).await {
        Ok(node) => Ok(Some(node.metadata.labels.unwrap_or_default())),
        Err(kube::Error::Api(answer)) if matches!(answer.code, 403 | 404) => {
            tracing::debug!(%answer, "no labels from the Node");
            Ok((answer.code == 404).then(BTreeMap::new))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::report::fake_api::FakeApi;

    #[test]
    fn an_object_of_any_age_speaks_for_its_entries_only() {
        for generation in [1, 2, 40] {
            let mut node = EdgeNode::new("node-1", rimward_crds::EdgeNodeSpec::default());
            node.metadata.generation = Some(generation);
            assert_eq!(orders(&node).covers, Covers::Entries);
        }
    }

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn an_error_of_the_watch_is_told_at_the_default_level_once_until_it_changes() {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_writer(move || writer.clone())
            .finish();
        let _guard = tracing::subscriber::set_default(subscriber);
        let api = FakeApi::start().await;
        let (events, _kept) = mpsc::channel(8);
        let (seen, _kept_too) = watch::channel(Seen::Unknown);
        let watching = run(api.client(), "node-1", events, seen);
        let steps = async {
            for code in [401, 403] {
                api.lock().lists = 0;
                api.lock().list = code;
                api.until(|state| state.lists >= 3).await;
            }
        };
        tokio::select! {
            () = watching => unreachable!("it watches for ever"),
            () = steps => {}
        }
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        let told: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("watching the EdgeNode"))
            .collect();
        assert_eq!(told.len(), 2, "{said}");
        assert!(told.iter().all(|line| line.contains("WARN")), "{said}");
        assert!(told[0].contains("401") && told[1].contains("403"), "{said}");
    }

    #[test]
    fn an_error_that_was_over_is_news_again() {
        let mut trouble = Trouble::default();
        assert!(trouble.is_news("a"));
        assert!(!trouble.is_news("a"));
        trouble.over();
        assert!(trouble.is_news("a"));
        assert!(trouble.is_news("b"));
    }
}
