//! The only reader of Kubernetes: this node's EdgeNode, and its Node.
//!
//! Owns turning what the API server says into orders. An object that is gone or cannot be had is "the
//! centre is away", never an order to remove; one that does not parse is a problem that is told. A Node
//! that cannot be read is not known, never "no labels": placement goes by labels.

use std::collections::BTreeMap;

use futures::{StreamExt, pin_mut};
use k8s_openapi::api::core::v1::Node;
use kube::api::ObjectMeta;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as WatchEvent, watcher};
use kube::{Api, Client};
use rimward_crds::EdgeNode;
use tokio::sync::{mpsc, watch};

use crate::definition::Definition;
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
    Unreadable(Box<ObjectMeta>),
}

/// The Node of this name, as far as this agent may know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum NodeSeen {
    /// Not heard yet.
    #[default]
    Unknown,
    /// It may not be read: for good, or while the API server starts and has not read its roles yet.
    Forbidden,
    /// There is none: a device outside of Kubernetes' nodes.
    Missing,
    /// It is there.
    There {
        /// Which one: another Node of the same name has another.
        uid: String,
        /// What placements select by.
        labels: BTreeMap<String, String>,
    },
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
    definition: &Definition,
    node_name: &str,
    events: mpsc::Sender<Event>,
    seen: watch::Sender<Seen>,
    mut on_error: impl FnMut(&watcher::Error),
) {
    let api: Api<DeserializeGuard<EdgeNode>> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={node_name}"));
    let mut trouble = Trouble::default();
    // Lists anew when the definition was not what it should be: what was read until then lacks fields.
    loop {
        let stream = watcher(api.clone(), config.clone()).default_backoff();
        pin_mut!(stream);
        let mut listed = false;
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
                    on_error(&error);
                    let error = error.to_string();
                    if trouble.is_news(&error) {
                        tracing::warn!(error, "watching the EdgeNode");
                    } else {
                        tracing::debug!(error, "watching the EdgeNode, still");
                    }
                    continue;
                }
            };
            if !definition.fits().await {
                break;
            }
            let now = match object.0 {
                Ok(node) => {
                    let orders = orders(&node);
                    let _ = seen.send(Seen::There(Box::new(node)));
                    orders
                }
                Err(invalid) => {
                    let problem = format!("EdgeNode {node_name} does not parse: {}", invalid.error);
                    let _ = seen.send(Seen::Unreadable(Box::new(invalid.metadata)));
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

/// Watches the one Node of that name for ever. While it cannot be read, what was seen last stands.
pub async fn node(client: Client, node_name: &str, seen: watch::Sender<NodeSeen>) {
    let api: Api<PartialObjectMeta<Node>> = Api::all(client);
    let config = watcher::Config::default().fields(&format!("metadata.name={node_name}"));
    let stream = watcher(api, config).default_backoff();
    pin_mut!(stream);
    let mut listed = None;
    let mut trouble = Trouble::default();
    while let Some(event) = stream.next().await {
        let now = match event {
            Ok(WatchEvent::Init) => {
                listed = None;
                continue;
            }
            Ok(WatchEvent::InitApply(node)) => {
                listed = Some(there(node.metadata));
                continue;
            }
            Ok(WatchEvent::InitDone) => {
                trouble.over();
                listed.take().unwrap_or(NodeSeen::Missing)
            }
            Ok(WatchEvent::Apply(node)) => there(node.metadata),
            Ok(WatchEvent::Delete(_)) => NodeSeen::Missing,
            Err(error) => {
                let forbidden = is_forbidden(&error);
                let error = error.to_string();
                if trouble.is_news(&error) {
                    tracing::info!(error, "watching the Node: its labels stay as they are");
                }
                if !forbidden {
                    continue;
                }
                NodeSeen::Forbidden
            }
        };
        seen.send_if_modified(|last| {
            let changed = *last != now;
            if changed {
                *last = now;
            }
            changed
        });
    }
}

fn there(node: ObjectMeta) -> NodeSeen {
    NodeSeen::There {
        uid: node.uid.unwrap_or_default(),
        labels: node.labels.unwrap_or_default(),
    }
}

fn is_forbidden(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(answer))
        | watcher::Error::WatchStartFailed(kube::Error::Api(answer)) => answer.code == 403,
        watcher::Error::WatchError(answer) => answer.code == 403,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

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
        let definition = Definition::new(api.client());
        let watching = run(api.client(), &definition, "node-1", events, seen, |_| ());
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

    #[tokio::test]
    async fn orders_from_an_api_server_with_an_older_definition_are_not_taken() {
        let api = FakeApi::start().await;
        api.lock().definition = Some(0);
        api.lock().label_by_hand("a", "b");
        let definition = Definition::new(api.client());
        let (events, mut heard) = mpsc::channel(8);
        let (seen, _kept) = watch::channel(Seen::Unknown);
        let watching = run(api.client(), &definition, "node-1", events, seen, |_| ());
        let steps = async {
            api.until(|state| state.looks >= 1).await;
            let waits = tokio::time::timeout(Duration::from_millis(500), heard.recv());
            assert!(waits.await.is_err(), "orders came through");
            let lists = api.lock().lists;
            api.lock().definition = Some(rimward_crds::revision::REVISION);
            heard.recv().await.unwrap();
            assert!(api.lock().lists > lists, "what was read before is not used");
        };
        tokio::select! {
            () = watching => unreachable!("it watches for ever"),
            () = steps => {}
        }
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
