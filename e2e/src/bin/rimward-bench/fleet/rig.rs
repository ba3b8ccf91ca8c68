//! The hub and its sites, ready to be measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rimward_e2e::control_plane::Options;
use rimward_e2e::simulated::{Counted, Hub, Plan, Sites, Timing, object};
use rimward_e2e::{Seen, wait_for};
use serde_json::{Value, json};

/// As the edge role has it by default.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(30);
/// For whatever is not measured.
pub(super) const WITHIN: Duration = Duration::from_secs(600);
/// The deployment that is on every site.
pub(super) const EVERYWHERE: &str = "digits";
/// Between two looks at what the hub's own words say.
const SETTLE: Duration = Duration::from_millis(500);

/// A hub with sites that have joined, and one deployment on all of them.
pub(super) struct Rig {
    pub(super) hub: Hub,
    pub(super) sites: Sites,
}

impl Rig {
    pub(super) async fn start(count: usize) -> Result<Self> {
        // Nothing here needs Kubernetes' own controllers, and they would take processor time.
        let options = Options {
            controllers: false,
            ..Options::default()
        };
        let hub = Hub::start("bench-fleet", options, &["--lease-seconds=5"]).await?;
        let plan = Plan {
            sites: count,
            timing: Timing {
                heartbeat: HEARTBEAT,
                ..Timing::default()
            },
            ..Plan::default()
        };
        let sites = Sites::start(&hub.plane, &plan).await?;
        sites.beat();
        sites.wait_until_joined(WITHIN).await?;
        let rig = Self { hub, sites };
        let policy = json!({"stages": [{
            "name": "everyone", "clusters": {"percent": 100},
            "maxConcurrency": "100%", "maxUnavailable": "100%",
        }]});
        rig.hub
            .apply(&object("RolloutPolicy", "at-once", &policy))
            .await?;
        rig.hub.deploy(EVERYWHERE, "first", &everywhere()).await?;
        rig.be_heard().await?;
        rig.settled(EVERYWHERE).await?;
        Ok(rig)
    }

    /// Every site sends two heartbeats: a leader that began lately has heard them all then.
    pub(super) async fn be_heard(&self) -> Result<()> {
        for _ in 0..2 {
            let before = self.count(|counted| &counted.beats);
            self.sites.beat();
            self.at_least(|counted| &counted.beats, before + self.sites.len() as u64)
                .await?;
        }
        Ok(())
    }

    /// Waits until a count of the sessions is so high.
    pub(super) async fn at_least(
        &self,
        pick: impl Fn(&Counted) -> &AtomicU64,
        least: u64,
    ) -> Result<()> {
        wait_for("the sessions", WITHIN, async || {
            let count = self.count(&pick);
            Ok(if count >= least {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{count} of {least}; {}", self.sites.last_failure()))
            })
        })
        .await
    }

    /// What the sessions did so far.
    pub(super) fn count(&self, pick: impl Fn(&Counted) -> &AtomicU64) -> u64 {
        pick(self.sites.counted()).load(Ordering::Relaxed)
    }

    /// Waits until a deployment is promoted on every site; gives the revision.
    pub(super) async fn settled(&self, name: &str) -> Result<String> {
        let revision = self.hub.promoted(name, self.sites.len(), WITHIN).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(revision)
    }

    /// The hub dies, `meanwhile` happens, and a new leader has heard every site.
    pub(super) async fn without_hub<T>(
        &self,
        meanwhile: impl AsyncFnOnce() -> Result<T>,
    ) -> Result<T> {
        let service = self.hub.operator.service();
        service.kill();
        let outcome = meanwhile().await;
        service.resume()?;
        self.leads().await?;
        self.be_heard().await?;
        outcome
    }

    /// Waits until the hub leads and has planned once.
    pub(super) async fn leads(&self) -> Result<()> {
        wait_for("the hub to lead", WITHIN, async || {
            self.hub.operator.service().check_running()?;
            Ok(if self.has_planned().await? {
                Seen::Done(())
            } else {
                Seen::NotYet("it does not lead, or has not planned".to_owned())
            })
        })
        .await
    }

    /// Whether the hub leads and has planned once.
    pub(super) async fn has_planned(&self) -> Result<bool> {
        let metrics = self.hub.operator.metrics().await?;
        let leads = metrics.lines().any(|line| line == "rimward_leader 1");
        Ok(leads && value(&metrics, "rimward_plans_total ") > 0.0)
    }

    /// The hub operator's process.
    pub(super) fn process(&self) -> Result<u32> {
        let id = self.hub.operator.service().id();
        id.context("the hub operator does not run")
    }
}

/// What a line of a metrics page that begins so says; 0 if there is none.
fn value(page: &str, name: &str) -> f64 {
    let line = page.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|value| value.trim().parse().ok())
        .unwrap_or(0.0)
}

/// The spec of a deployment that goes to all sites at once.
pub(super) fn everywhere() -> Value {
    json!({"rolloutPolicyRef": {"name": "at-once"}})
}

/// The spec of a deployment that is on one site alone.
pub(super) fn only_on(site: usize) -> Value {
    let labels = json!({"number": site.to_string()});
    json!({"placement": {"clusterSelector": {"matchLabels": labels}}})
}
