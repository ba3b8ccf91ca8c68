//! The line of one simulated site to the hub: its watch, its heartbeat, its reports.
//!
//! Owns what goes over the wire, as `operator/src/edge` has it: a watch of its own assignment by field selector, a
//! merge patch of its Lease, a forced apply of its status under `rimward-sync`, growing waits after a failure.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use rimward_core::fleet::ModelReport;
use rimward_core::ids::ModelKey;
use rimward_crds::ClusterAssignment;
use serde_json::json;
use tokio::sync::{Notify, watch};

use super::device::milliseconds;
use super::faults::Reach;
use super::site::Site;
use super::sites::Shared;
use super::words;

/// Field manager of a session's writes.
const FIELD_MANAGER: &str = "rimward-sync";
/// Namespace of heartbeats.
pub(super) const CLUSTERS_NAMESPACE: &str = "rimward-clusters";
/// How long one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(10);
/// Events within this time become one plan, as in a real session.
const SETTLE: Duration = Duration::from_millis(50);
/// The first wait after a failure.
const RETRY_MIN: Duration = Duration::from_millis(250);

/// One site with its line.
pub(super) struct Session {
    pub(super) name: String,
    /// Its place among the sites.
    pub(super) index: usize,
    pub(super) reach: watch::Sender<Reach>,
    pub(super) site: Mutex<Site>,
    client: kube::Client,
    wake: Notify,
    beat_now: Notify,
    began: Instant,
    /// How often its watch has listed everything, and how many heartbeats were taken.
    pub(super) lists: AtomicU64,
    pub(super) beaten: AtomicU64,
    shared: Arc<Shared>,
}

impl Session {
    pub(super) fn new(
        name: String,
        index: usize,
        site: Site,
        client: kube::Client,
        shared: Arc<Shared>,
    ) -> Self {
        Self {
            name,
            index,
            reach: watch::Sender::new(Reach::Connected),
            site: Mutex::new(site),
            client,
            wake: Notify::new(),
            beat_now: Notify::new(),
            began: Instant::now(),
            lists: AtomicU64::new(0),
            beaten: AtomicU64::new(0),
            shared,
        }
    }

    /// Runs until it is dropped.
    pub(super) async fn run(self: Arc<Self>) {
        tokio::join!(self.beats(), self.follow(), self.rounds());
    }

    /// Sends a heartbeat out of turn.
    pub(super) fn beat(&self) {
        self.beat_now.notify_one();
    }

    /// Milliseconds since the session began: the clock of its site.
    pub(super) fn now(&self) -> u64 {
        milliseconds(self.began.elapsed())
    }

    /// Looks at the site anew: what it may do, or what happens in it, changed.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Site> {
        self.site.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where in its period this site is: differs from site to site, is the same in each run.
    fn share_of(&self, period: Duration) -> Duration {
        let spread = u32::try_from(self.index % 1024).unwrap_or(0);
        // Neighbours land far from each other.
        period * (spread * 397 % 1024) / 1024
    }

    async fn connected(&self) {
        let mut reach = self.reach.subscribe();
        let _ = reach.wait_for(|reach| *reach == Reach::Connected).await;
    }

    async fn beats(&self) {
        tokio::time::sleep(self.share_of(self.shared.timing.heartbeat)).await;
        let mut reach = self.reach.subscribe();
        let mut pace = Pace::new(
            self.shared
                .timing
                .retry_max
                .min(self.shared.timing.heartbeat),
        );
        loop {
            self.connected().await;
            reach.mark_unchanged();
            let wait = match self.renew().await {
                Ok(()) => {
                    self.shared.counted.beats.fetch_add(1, Ordering::Relaxed);
                    self.beaten.fetch_add(1, Ordering::Relaxed);
                    pace.succeeded();
                    self.shared.timing.heartbeat
                }
                Err(error) => {
                    self.shared.failed(&self.name, "heartbeat", &error);
                    pace.failed(self.index)
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.beat_now.notified() => {}
                // Once it is back, it beats at once.
                _ = reach.changed() => {}
            }
        }
    }

    async fn renew(&self) -> Result<(), anyhow::Error> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), CLUSTERS_NAMESPACE);
        let beat_seconds = self.shared.timing.heartbeat.as_secs().max(1);
        let patch = Patch::Merge(json!({"spec": {
            "holderIdentity": "simulated",
            "leaseDurationSeconds": beat_seconds * 3,
            "renewTime": MicroTime(Timestamp::now()),
        }}));
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let _turn = self.shared.turns.acquire().await?;
        let request = leases.patch(&self.name, &params, &patch);
        tokio::time::timeout(REQUEST_MAX, request).await??;
        Ok(())
    }

    /// The watch of its assignment.
    async fn follow(&self) {
        let api: Api<ClusterAssignment> = Api::all(self.client.clone());
        let own = watcher::Config::default().fields(&format!("metadata.name={}", self.name));
        let mut reach = self.reach.subscribe();
        let mut pace = Pace::new(self.shared.timing.retry_max);
        loop {
            self.connected().await;
            let mut stream = std::pin::pin!(watcher::watcher(api.clone(), own.clone()));
            while *reach.borrow_and_update() == Reach::Connected {
                let event = tokio::select! {
                    _ = reach.changed() => continue,
                    event = stream.next() => event,
                };
                match event {
                    Some(Ok(event)) => {
                        pace.succeeded();
                        self.saw(&event);
                    }
                    Some(Err(error)) => {
                        self.shared.failed(&self.name, "watch", &error.into());
                        tokio::select! {
                            () = tokio::time::sleep(pace.failed(self.index)) => {}
                            _ = reach.changed() => {}
                        }
                    }
                    None => break,
                }
            }
        }
    }

    fn saw(&self, event: &Event<ClusterAssignment>) {
        match event {
            Event::Apply(assignment) | Event::InitApply(assignment) => {
                if self.lock().order(assignment) {
                    self.shared.notes.saw(self.index, assignment);
                    self.wake();
                }
            }
            Event::InitDone => {
                self.shared.counted.lists.fetch_add(1, Ordering::Relaxed);
                self.lists.fetch_add(1, Ordering::Relaxed);
            }
            // What is gone is no order.
            Event::Delete(_) | Event::Init => {}
        }
    }

    /// Goes round whenever something changed or is due.
    async fn rounds(&self) {
        let mut reach = self.reach.subscribe();
        let mut pace = Pace::new(self.shared.timing.retry_max);
        let mut standing: Option<u64> = None;
        loop {
            let now_reach = *reach.borrow_and_update();
            let mut wait = None;
            if now_reach != Reach::Dead {
                let now = self.now();
                let faults = self.shared.faults();
                let (round, generation, nodes) = {
                    let mut site = self.lock();
                    let round = site.round(now, &self.shared.timing, &faults);
                    if round.dies {
                        self.reach.send_replace(Reach::Dead);
                    }
                    (round, site.generation, site.count())
                };
                self.shared.notes.gave(self.index, &round.given);
                if round.dies {
                    continue;
                }
                wait = round
                    .next
                    .map(|next| Duration::from_millis(next.saturating_sub(now).max(1)));
                if let Some(generation) = generation
                    && now_reach == Reach::Connected
                {
                    let facts = words::Facts {
                        name: &self.name,
                        generation,
                        nodes,
                        now: Timestamp::now().to_string(),
                    };
                    match self.report(&facts, &round.report, standing).await {
                        Ok(written) => {
                            standing = Some(written);
                            pace.succeeded();
                        }
                        Err(error) => {
                            // It may have arrived all the same.
                            standing = None;
                            self.shared.failed(&self.name, "status", &error);
                            wait = Some(pace.failed(self.index));
                        }
                    }
                }
            }
            tokio::select! {
                () = self.wake.notified() => tokio::time::sleep(SETTLE).await,
                () = sleep_or_ever(wait) => {}
                _ = reach.changed() => {}
            }
        }
    }

    /// Writes the status if it is another than what stands.
    async fn report(
        &self,
        facts: &words::Facts<'_>,
        report: &BTreeMap<ModelKey, ModelReport>,
        standing: Option<u64>,
    ) -> Result<u64, anyhow::Error> {
        let mut status = words::status(facts, report);
        let fingerprint = words::fingerprint(&status);
        if standing == Some(fingerprint) {
            return Ok(fingerprint);
        }
        status["conditions"] = words::conditions(facts, report);
        let patch = Patch::Apply(json!({
            "apiVersion": "rimward.dev/v1alpha1",
            "kind": "ClusterAssignment",
            "metadata": {"name": self.name},
            "status": status,
        }));
        let api: Api<ClusterAssignment> = Api::all(self.client.clone());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let _turn = self.shared.turns.acquire().await?;
        let request = api.patch_status(&self.name, &params, &patch);
        tokio::time::timeout(REQUEST_MAX, request).await??;
        self.shared.counted.reports.fetch_add(1, Ordering::Relaxed);
        Ok(fingerprint)
    }
}

async fn sleep_or_ever(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}

/// Growing waits, as the edge role's: up to half off, so that sites do not come back in one instant.
struct Pace {
    longest: Duration,
    failures: u32,
}

impl Pace {
    const fn new(longest: Duration) -> Self {
        Self {
            longest,
            failures: 0,
        }
    }

    const fn succeeded(&mut self) {
        self.failures = 0;
    }

    fn failed(&mut self, index: usize) -> Duration {
        let full = RETRY_MIN
            .saturating_mul(2_u32.saturating_pow(self.failures.min(16)))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let share = u32::try_from(index * 397 % 512).unwrap_or(0);
        full - full.saturating_mul(share) / 1024
    }
}
