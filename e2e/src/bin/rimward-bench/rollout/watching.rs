//! Everything that can be seen from outside while a release goes its way, with the time of each sight.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use rimward_crds::{ClusterAssignment, EdgeNode, ModelDeployment, ModelRevision};
use rimward_e2e::system::System;
use rimward_e2e::{Seen, digits, wait_for};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::client::{Client, VERSION};

/// Between two requests of a client.
pub(super) const ASK_PERIOD: Duration = Duration::from_millis(10);
/// A client that finds nobody tries again after this.
const RETRY: Duration = Duration::from_millis(100);

/// Microseconds since 1970.
pub(super) fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs_f64() * 1e6
}

/// Where an object was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    HubDeployment,
    HubRevision,
    HubAssignment,
    EdgeAssignment,
    EdgeNode,
}

/// One sight of an object.
#[derive(Debug)]
pub(super) struct Sight {
    pub(super) at: f64,
    pub(super) place: Place,
    pub(super) name: String,
    pub(super) object: Value,
}

#[derive(Debug, Default)]
struct Log {
    sights: Vec<Sight>,
    /// By node and revision: its first answer.
    answers: BTreeMap<(String, String), f64>,
}

/// Watches and clients, until dropped.
#[derive(Debug)]
pub(super) struct Watching {
    log: Arc<Mutex<Log>>,
    _tasks: JoinSet<()>,
}

impl Watching {
    /// Starts them on a system of one cluster.
    pub(super) async fn start(system: &System) -> Result<Self> {
        let log = Arc::<Mutex<Log>>::default();
        let site = system.sites.first().context("no cluster")?;
        let hub = system.fleet.hub.client().await?;
        let edge = system.fleet.edge(site.name)?.plane.client().await?;
        let mut tasks = JoinSet::new();
        let deployments: Api<ModelDeployment> = Api::default_namespaced(hub.clone());
        let revisions: Api<ModelRevision> = Api::default_namespaced(hub.clone());
        tasks.spawn(follow(deployments, Place::HubDeployment, log.clone()));
        tasks.spawn(follow(revisions, Place::HubRevision, log.clone()));
        let (there, here) = (Api::<ClusterAssignment>::all(hub), Api::all(edge.clone()));
        tasks.spawn(follow(there, Place::HubAssignment, log.clone()));
        tasks.spawn(follow::<ClusterAssignment>(
            here,
            Place::EdgeAssignment,
            log.clone(),
        ));
        tasks.spawn(follow(
            Api::<EdgeNode>::all(edge),
            Place::EdgeNode,
            log.clone(),
        ));
        let digit = digits::held_out()?.first().cloned().context("no digits")?;
        let body = Bytes::from(digits::request(&digit).to_string());
        for node in &site.nodes {
            tasks.spawn(keep_asking(
                node.name.clone(),
                node.host.clone(),
                body.clone(),
                log.clone(),
            ));
        }
        Ok(Self { log, _tasks: tasks })
    }

    /// The first sight that is of this kind.
    pub(super) fn first(&self, is_it: impl Fn(&Sight) -> bool) -> Option<f64> {
        let log = lock(&self.log);
        log.sights
            .iter()
            .find(|sight| is_it(sight))
            .map(|sight| sight.at)
    }

    /// When a node first answered with a revision.
    pub(super) fn first_answer(&self, node: &str, revision: &str) -> Option<f64> {
        let key = (node.to_owned(), revision.to_owned());
        lock(&self.log).answers.get(&key).copied()
    }

    /// The revision that was made since then.
    pub(super) async fn revision_since(&self, began: f64, within: Duration) -> Result<String> {
        wait_for("a new revision", within, async || {
            let log = lock(&self.log);
            let mut made = log
                .sights
                .iter()
                .filter(|it| it.place == Place::HubRevision);
            let known = |name: &str| {
                let mut before = log.sights.iter();
                before.any(|it| it.place == Place::HubRevision && it.at < began && it.name == name)
            };
            let made = made.find(|it| it.at >= began && !known(&it.name));
            Ok(made.map_or_else(
                || Seen::NotYet("none".to_owned()),
                |it| Seen::Done(it.name.clone()),
            ))
        })
        .await
    }
}

async fn follow<K>(api: Api<K>, place: Place, log: Arc<Mutex<Log>>)
where
    K: kube::Resource<DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned
        + serde::Serialize
        + Send
        + 'static,
{
    let mut events = watcher(api, watcher::Config::default()).boxed();
    while let Some(event) = events.next().await {
        if let Ok(watcher::Event::Apply(object) | watcher::Event::InitApply(object)) = event {
            let sight = Sight {
                at: now(),
                place,
                name: object.name_any(),
                object: serde_json::to_value(&object).unwrap_or_default(),
            };
            lock(&log).sights.push(sight);
        }
    }
}

async fn keep_asking(node: String, host: String, body: Bytes, log: Arc<Mutex<Log>>) {
    loop {
        let Ok(mut client) = Client::connect(&host).await else {
            tokio::time::sleep(RETRY).await;
            continue;
        };
        while let Ok(reply) = client.post("/v2/models/digits/infer", &body).await {
            if reply.status.is_success() {
                let key = (node.clone(), reply.header(VERSION).to_owned());
                lock(&log).answers.entry(key).or_insert_with(now);
            }
            tokio::time::sleep(ASK_PERIOD).await;
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Writes an object of the hub again and again; microseconds until a watch that was open before saw each.
pub(crate) async fn watch_latency(client: &kube::Client, samples: usize) -> Result<Vec<f64>> {
    let api: Api<ConfigMap> = Api::default_namespaced(client.clone());
    let write = async |number: usize| -> Result<String> {
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "watch-latency"}, "data": {"number": number.to_string()},
        });
        let parameters = PatchParams::apply("rimward-bench");
        let written = api
            .patch("watch-latency", &parameters, &Patch::Apply(object))
            .await?;
        written.resource_version().context("no version")
    };
    // Beginning anew each time, so that the first write of a round differs from the last of the one before.
    let version = write(samples).await?;
    let parameters = WatchParams::default().fields("metadata.name=watch-latency");
    let mut events = api.watch(&parameters, &version).await?.boxed();
    let mut latencies = Vec::new();
    for number in 0..samples {
        let sent = now();
        let (written, seen) = tokio::join!(write(number), async {
            while let Some(event) = events.try_next().await? {
                if let WatchEvent::Added(object) | WatchEvent::Modified(object) = event
                    && object.data.unwrap_or_default().get("number") == Some(&number.to_string())
                {
                    return anyhow::Ok(now());
                }
            }
            anyhow::bail!("the watch ended")
        });
        written?;
        latencies.push(seen? - sent);
    }
    Ok(latencies)
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}
