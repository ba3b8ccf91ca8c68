//! The link to the hub: the cluster's heartbeat, and what is known of the cluster itself.
//!
//! Owns the heartbeat Lease. A beat is sent only after the edge's own API server answered: in push mode
//! the session runs on the hub, and a beat without that would call a dead cluster alive.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Client, ResourceExt as _};
use rimward_core::ids::ClusterName;
use rimward_crds::Versions;
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pace::{Pace, random};
use super::session::{FIELD_MANAGER, bounded};
use super::status::Facts;
use crate::metrics::{Category, Kind, Metrics};
use crate::objects::CLUSTERS_NAMESPACE;

/// Longest version that is reported: the schema's bound.
const VERSION_CHARS_MAX: usize = 64;

const EDGE: &str = "the edge's API server";
const HUB: &str = "the hub";

/// A Lease lasts this many beats: two may get lost.
const BEATS_PER_LEASE: u32 = 3;

/// One session's link.
pub(crate) struct Link<'a> {
    pub(crate) hub: Client,
    pub(crate) edge: Client,
    pub(crate) cluster: &'a ClusterName,
    pub(crate) holder: &'a str,
    pub(crate) beat_seconds: u32,
    pub(crate) retry_max: Duration,
    pub(crate) metrics: &'a Metrics,
    pub(crate) facts: &'a Mutex<Facts>,
    /// Set while the hub does not answer: nothing else needs to wait for it then.
    pub(crate) hub_away: &'a AtomicBool,
    /// Told when the hub answers again, so that its watch starts anew at once.
    pub(crate) hub_back: &'a Notify,
    /// Told when the facts changed, or the hub answers again.
    pub(crate) wake: &'a Notify,
}

/// Why a beat was not sent.
#[derive(Debug, thiserror::Error)]
enum Missed {
    #[error("the edge's API server")]
    Edge(#[source] kube::Error),
    #[error("the hub")]
    Hub(#[source] kube::Error),
    #[error("no answer in time from {0}")]
    Late(&'static str),
}

impl Link<'_> {
    /// Beats until shutdown.
    pub(crate) async fn run(&self, shutdown: &CancellationToken) {
        let every = Duration::from_secs(u64::from(self.beat_seconds));
        let mut pace = Pace::new(self.retry_max.min(every));
        let mut missed = false;
        while !shutdown.is_cancelled() {
            let wait = match self.beat().await {
                Ok(()) => {
                    pace.succeeded();
                    self.hub_away.store(false, Ordering::Release);
                    if std::mem::take(&mut missed) {
                        tracing::info!("the hub answers again");
                        self.hub_back.notify_one();
                        self.wake.notify_one();
                    }
                    every
                }
                Err(error) => {
                    self.metrics.failed(Category::Api);
                    let away = !matches!(error, Missed::Edge(_) | Missed::Late(EDGE));
                    self.hub_away.store(away, Ordering::Release);
                    if !std::mem::replace(&mut missed, true) {
                        let error = anyhow::Error::from(error);
                        tracing::warn!(error = format!("{error:#}"), "no heartbeat");
                    }
                    pace.failed(random())
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn beat(&self) -> Result<(), Missed> {
        let edge = bounded(self.learn()).await;
        edge.ok_or(Missed::Late(EDGE))?.map_err(Missed::Edge)?;
        let hub = bounded(self.renew()).await;
        hub.ok_or(Missed::Late(HUB))?.map_err(Missed::Hub)
    }

    /// Reads who and what the edge cluster is.
    async fn learn(&self) -> Result<(), kube::Error> {
        let namespaces: Api<PartialObjectMeta<Namespace>> = Api::all(self.edge.clone());
        let uid = namespaces.get("kube-system").await?.uid();
        let known = self.lock_facts().clone();
        let same = known.cluster_uid == uid && known.versions.is_some();
        // The version is asked for once, and again when the cluster was made anew.
        if !same {
            let kubernetes = self.edge.apiserver_version().await?.git_version;
            let versions = Versions {
                operator: env!("CARGO_PKG_VERSION").to_owned(),
                kubernetes: kubernetes.chars().take(VERSION_CHARS_MAX).collect(),
            };
            *self.lock_facts() = Facts {
                cluster_uid: uid,
                versions: Some(versions),
            };
            self.wake.notify_one();
        }
        Ok(())
    }

    /// Renews the Lease. It is made beforehand for a pull cluster, whose account may not create it.
    async fn renew(&self) -> Result<(), kube::Error> {
        let leases: Api<Lease> = Api::namespaced(self.hub.clone(), CLUSTERS_NAMESPACE);
        let name = self.cluster.as_str();
        let spec = json!({
            "holderIdentity": self.holder,
            "leaseDurationSeconds": self.beat_seconds.saturating_mul(BEATS_PER_LEASE),
            "renewTime": MicroTime(Timestamp::now()),
        });
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(json!({ "spec": spec }));
        match leases.patch(name, &params, &patch).await {
            Err(kube::Error::Api(status)) if status.is_not_found() => {
                let lease: Lease = serde_json::from_value(json!({
                    "metadata": { "name": name, "namespace": CLUSTERS_NAMESPACE },
                    "spec": spec,
                }))
                .map_err(kube::Error::SerdeError)?;
                leases.create(&PostParams::default(), &lease).await?;
            }
            other => {
                other?;
            }
        }
        self.metrics.wrote(Kind::Lease);
        Ok(())
    }

    fn lock_facts(&self) -> std::sync::MutexGuard<'_, Facts> {
        self.facts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
