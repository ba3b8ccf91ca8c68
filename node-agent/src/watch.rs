//! The only reader of Kubernetes: this node's EdgeNode, and the labels of its Node.
//!
//! Owns turning what the API server says into orders. An object that is gone or cannot be had is "the
//! centre is away", never an order to remove; one that does not parse is a problem that is told.

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
                tracing::debug!(%error, "watching the EdgeNode");
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

/// The labels of the Node of that name; none where there is no Node, or it may not be read.
pub async fn node_labels(client: &Client, node_name: &str) -> BTreeMap<String, String> {
    let api: Api<Node> = Api::all(client.clone());
    match api.get_opt(node_name).await {
        Ok(Some(node)) => node.metadata.labels.unwrap_or_default(),
        Ok(None) => BTreeMap::new(),
        Err(error) => {
            tracing::debug!(%error, "labels of the Node");
            BTreeMap::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_of_any_age_speaks_for_its_entries_only() {
        for generation in [1, 2, 40] {
            let mut node = EdgeNode::new("node-1", rimward_crds::EdgeNodeSpec::default());
            node.metadata.generation = Some(generation);
            assert_eq!(orders(&node).covers, Covers::Entries);
        }
    }
}
