//! The one loop of the leader: observe, parse, plan, apply, status.
//!
//! Owns the order of writes, so that a crash between any two of them converges:
//!
//! 1. new ModelRevisions: an assignment never names one that does not exist;
//! 2. revisions' outcomes and attempts: once clusters went back, the reports that condemned a revision are gone, and
//!    nobody else would remember that it failed;
//! 3. deployments' statuses, with the place of the rollout and the actions that were decided: a stage is on record
//!    before a cluster of it moves, so that a planner after a crash sees the same clusters released, and bakes and
//!    promotions are not begun anew;
//! 4. assignments: derived from all of the above, so that planning again gives them again;
//! 5. actions' outcomes, events, and the statuses of everything else, from which nothing is decided;
//! 6. what history no longer needs.
//!
//! A deployment for which a write of 1 to 3 failed keeps its entries as they stand in 4; others go on. The order holds
//! within a deployment: writes of different ones are under way side by side, and events wait in a queue of their own.
//! A step begins no further writes after a while (`steps.rs`): the next turn goes on, with a new plan.
//! The cost of a turn grows with what changed, but for a look at each heartbeat once a second, one turn that plans
//! everything again (`--resync-seconds`) and one that looks finished actions through. Must never decide a rollout.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Resource as _;
use rimward_core::fleet::{DeploymentPlan, DoubtLimits, Fleet, OutcomeChange, Plan, Transition};
use rimward_core::ids::{ClusterName, DeploymentKey, RevisionName};
use rimward_crds::{EdgeCluster, ModelDeployment};
use tokio_util::sync::CancellationToken;

use super::apply::{Target, Writer};
use super::feed::Dirty;
use super::index::{Work, key};
use super::models::Resolver;
use super::observe::Caches;
use super::parse::Graces;
use super::push::PushSessions;
use super::report::{Reporter, Statuses};
use super::view::View;
use super::{actions, assign, others, record, revisions, steps};
use crate::events::Events;
use crate::metrics::{Kind, Metrics};
use crate::objects::ObjectKey;

/// Changes that come within this time are planned together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// The wait after a first look that failed.
const RETRY: Duration = Duration::from_secs(2);
/// How often the planner is told of every heartbeat, while there is something to plan.
const HEAR: Duration = Duration::from_secs(1);
/// How often it is looked whether a credential ends soon.
const CREDENTIALS: Duration = Duration::from_secs(3_600);

/// The leader's work.
pub(crate) struct Hub {
    pub(crate) caches: Arc<Caches>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) resolver: Resolver,
    pub(crate) push: PushSessions,
    pub(crate) reporter: Reporter,
    pub(crate) graces: Graces,
    pub(crate) doubt: DoubtLimits,
    pub(crate) action_retention: Duration,
    pub(crate) longest_wait: Duration,
    /// When the definition of ModelDeployment was made.
    pub(crate) definition: Option<Time>,
}

/// What lasts from turn to turn.
pub(super) struct Memory {
    pub(super) view: View,
    /// What was last said of each deployment.
    pub(super) said: BTreeMap<DeploymentKey, DeploymentPlan>,
    /// What plans changed and what is not written yet.
    pub(super) owed: BTreeMap<DeploymentKey, Owed>,
    heard: Option<Instant>,
    /// When everything was last planned again.
    resynced: Instant,
    /// When finished actions are looked through again.
    sweep: actions::Sweep,
    /// When the ends of credentials were last looked at.
    credentials: Option<Instant>,
    /// Whether the hub doubted its ears when clusters were last looked at.
    doubted: bool,
}

/// What a plan changed for good, until it is written.
#[derive(Debug, Default)]
pub(super) struct Owed {
    pub(super) outcomes: BTreeMap<RevisionName, OutcomeChange>,
    transitions: Vec<Transition>,
}

impl Hub {
    /// Plans and applies until `stop`. Must run on one replica at a time; when another took over it loses
    /// by resource versions.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        while let Err(error) = self.writer.catch_up().await {
            tracing::warn!(%error, "a new leader has to see what is there");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        self.caches.feed.mark_everything();
        let fleet = Fleet::new(self.graces.offline_seconds, self.doubt);
        let began = Instant::now();
        let mut memory = Memory::new(fleet, self.graces, began);
        memory.view = memory.view.since(self.definition.clone());
        let (writer, caches) = (self.writer.clone(), self.caches.clone());
        let turns = async {
            loop {
                let dirty = caches.feed.take();
                let wait = self.turn(&mut memory, dirty).await;
                tokio::select! {
                    () = caches.feed.changed() => tokio::time::sleep(DEBOUNCE).await,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = writer.settle(&stop) => {}
            () = turns => {}
        }
        self.push.stop().await;
        Ok(())
    }

    /// One turn; returns how long the next may be put off if nothing changes.
    async fn turn(&mut self, memory: &mut Memory, dirty: Dirty) -> Duration {
        let began = Instant::now();
        let mut work = self.observe(memory, &dirty, began);
        let now = memory.view.now(began);
        if began.saturating_duration_since(memory.resynced) >= self.longest_wait {
            memory.resynced = began;
            memory.view.fleet.resync();
        }
        let plan = memory.view.fleet.plan(now);
        // A return after a silence that only a policy acts on is news as well.
        let shortest = memory.view.fleet.shortest_grace_seconds();
        self.caches
            .set_patience(Duration::from_secs(shortest.into()));
        let doubts = memory.view.fleet.doubt().is_some();
        if doubts != memory.doubted {
            memory.doubted = doubts;
            let all: Vec<String> = memory
                .view
                .clusters
                .keys()
                .map(ToString::to_string)
                .collect();
            for name in &all {
                memory.view.look_at_cluster(&self.caches, name, began);
            }
            work.clusters.extend(all);
        }
        let touched = memory.take_in(&plan, &work);
        let prepared = began.elapsed();
        let failed = record::write(&self.writer, &self.caches.feed, memory, &touched).await;
        let unsettled = self.unsettled(&plan);
        for key in &failed {
            memory.view.fleet.revert(key, &unsettled);
        }
        assign::assignments(
            &self.writer,
            &self.caches,
            &memory.view,
            &plan,
            &work,
            prepared,
        )
        .await;
        self.transitions(memory, &touched, &failed);
        let said = touched.iter().filter(|key| !failed.contains(*key));
        let said = said.filter_map(|key| Some((key, memory.said.get(key)?)));
        let decided =
            said.flat_map(|(key, said)| said.standing.decided.iter().map(move |it| (key, it)));
        actions::statuses(&self.writer, &self.caches, decided, &work).await;
        let retention = self.action_retention;
        let next_action = memory
            .sweep
            .turn(&self.writer, &self.caches, &work, retention)
            .await;
        self.statuses(memory, &work, prepared).await;
        self.collect(memory, &touched, &failed).await;
        self.metrics.planned(began.elapsed().as_secs_f64());
        let instant = Instant::now();
        let retry = self.resolver.next_try(instant);
        let retry = retry.map(|at| at.saturating_duration_since(instant));
        let wake = plan
            .wake_at
            .map(|at| Duration::from_secs(at.seconds_since(now).max(1)));
        [retry, wake, next_action]
            .into_iter()
            .flatten()
            .fold(self.longest_wait, Duration::min)
            .max(DEBOUNCE)
    }

    /// Observes and parses what changed.
    fn observe(&mut self, memory: &mut Memory, dirty: &Dirty, at: Instant) -> Work {
        let view = &mut memory.view;
        let mut work = view.index.work(&self.caches, dirty);
        if *dirty == Dirty::Everything {
            // What is known and gone is in no cache.
            work.clusters
                .extend(view.clusters.keys().map(ToString::to_string));
            self.resolver.saw_all(self.caches.all().valid());
        }
        // Deployments first: what clusters have and say of them is then placed once.
        for named in &work.deployments {
            view.look_at_deployment(&self.caches, named);
        }
        for name in &work.clusters {
            view.look_at_cluster(&self.caches, name, at);
        }
        for named in &work.models {
            let model = self.caches.get(&key(Kind::Model, named));
            let model = model.as_ref().and_then(|it| it.0.as_ref().ok());
            self.resolver.saw(&named.0, &named.1, model);
        }
        self.resolver.turn(at);
        for name in &work.clusters {
            let of_name = (String::new(), name.clone());
            let cluster = self
                .caches
                .get::<EdgeCluster>(&key(Kind::EdgeCluster, &of_name));
            let cluster = cluster.as_ref().and_then(|it| it.0.as_ref().ok());
            self.push.saw(name, cluster);
        }
        let credentials = memory
            .credentials
            .is_none_or(|at_last| at.saturating_duration_since(at_last) >= CREDENTIALS);
        if credentials {
            memory.credentials = Some(at);
            work.clusters
                .extend(view.clusters.keys().map(ToString::to_string));
        }
        let due = memory
            .heard
            .is_none_or(|heard| at.saturating_duration_since(heard) >= HEAR);
        if due {
            memory.heard = Some(at);
            self.caches.heartbeats(|beats| view.hear_all(beats, at));
        }
        work
    }

    /// Clusters of which it is not known whether they were given what was last written.
    fn unsettled(&self, plan: &Plan) -> BTreeSet<ClusterName> {
        let names = plan.clusters.keys();
        let unsettled = names.filter(|name| {
            let of_name = (String::new(), name.to_string());
            let key = key(Kind::ClusterAssignment, &of_name);
            self.writer.unsettled(&key).is_some()
        });
        unsettled.cloned().collect()
    }

    /// Step 5, first half: what plans changed, told once it stands.
    fn transitions(
        &self,
        memory: &mut Memory,
        touched: &BTreeSet<DeploymentKey>,
        failed: &BTreeSet<DeploymentKey>,
    ) {
        for key in touched.iter().filter(|key| !failed.contains(*key)) {
            let Some(owed) = memory.owed.remove(key) else {
                continue;
            };
            let Some(known) = memory.view.deployments.get(key) else {
                continue;
            };
            let Ok(object) = known.object.0.as_ref() else {
                continue;
            };
            for transition in &owed.transitions {
                tracing::info!(deployment = %key, reason = transition.reason(), "{transition}");
                let notice = crate::events::Notice {
                    warning: transition.is_warning(),
                    reason: transition.reason(),
                    action: "Rollout",
                    note: transition.to_string(),
                };
                self.events.tell(&object.object_ref(&()), &notice);
            }
        }
    }

    /// Step 5, second half.
    async fn statuses(&mut self, memory: &Memory, work: &Work, prepared: Duration) {
        let began = Instant::now();
        let mut changes = Statuses::default();
        let seen = others::Seen {
            caches: &self.caches,
            view: &memory.view,
            resolver: &self.resolver,
            push: &self.push,
        };
        others::statuses(&seen, work, &mut self.reporter, &mut changes);
        let written = changes
            .write(
                &self.writer,
                &self.caches.feed,
                &self.events,
                prepared + began.elapsed(),
                self.reporter.left.as_ref(),
            )
            .await;
        self.reporter.note(written);
    }

    /// Step 6. Only what nothing names, on the hub as it is seen or as it was just planned; and nothing at all while
    /// a cluster or an assignment cannot be read, since nobody knows what it names.
    async fn collect(
        &self,
        memory: &Memory,
        touched: &BTreeSet<DeploymentKey>,
        failed: &BTreeSet<DeploymentKey>,
    ) {
        let view = &memory.view;
        if !view.broken.is_empty() {
            return;
        }
        let mut needless = Vec::new();
        for key in touched.iter().filter(|key| !failed.contains(*key)) {
            let Some(known) = view.deployments.get(key).filter(|known| known.planned) else {
                continue;
            };
            let Ok(object) = known.object.0.as_ref() else {
                continue;
            };
            if !revisions::may_collect(object, &known.revisions) {
                continue;
            }
            let in_use = in_use(memory, key, object);
            let previous = memory.said.get(key);
            let previous = previous.and_then(|said| said.standing.previous.as_ref());
            let previous = previous.map(RevisionName::as_str);
            for name in revisions::collectable(object, &known.revisions, &in_use, previous) {
                let revision = known.revisions.get(&name);
                needless.extend(revision.map(|it| Target::of(Kind::ModelRevision, it)));
            }
        }
        steps::delete(&self.writer, &self.caches.feed, &needless).await;
    }
}

impl Memory {
    pub(super) fn new(fleet: Fleet, graces: Graces, began: Instant) -> Self {
        Self {
            view: View::new(fleet, graces, began),
            said: BTreeMap::new(),
            owed: BTreeMap::new(),
            heard: None,
            resynced: began,
            sweep: actions::Sweep::default(),
            credentials: None,
            doubted: false,
        }
    }

    /// Takes in what a plan says. Gives the deployments whose objects have to be compared with it.
    fn take_in(&mut self, plan: &Plan, work: &Work) -> BTreeSet<DeploymentKey> {
        let mut touched: BTreeSet<DeploymentKey> = plan.deployments.keys().cloned().collect();
        let looked_at = work.deployments.iter();
        touched.extend(
            looked_at.filter_map(|(namespace, name)| DeploymentKey::parse(namespace, name).ok()),
        );
        for (key, answer) in &plan.deployments {
            let mut answer = answer.clone();
            let owed = self.owed.entry(key.clone()).or_default();
            owed.outcomes.append(&mut answer.outcomes);
            owed.transitions.append(&mut answer.transitions);
            self.said.insert(key.clone(), answer);
        }
        let deployments = &self.view.deployments;
        self.said.retain(|key, _| deployments.contains_key(key));
        self.owed.retain(|key, _| deployments.contains_key(key));
        touched
    }
}

fn in_use(memory: &Memory, key: &DeploymentKey, object: &ModelDeployment) -> BTreeSet<String> {
    let status = object.status.as_ref();
    let known = memory.view.deployments.get(key);
    let standing = memory.said.get(key).map(|said| &said.standing);
    let undo = standing.and_then(|it| it.undo.as_ref());
    let named = memory.view.fleet.revisions_in_use(key);
    named
        .iter()
        .chain(known.and_then(|known| known.target.as_ref()))
        .chain(standing.and_then(|it| it.current.as_ref()))
        .chain(undo.into_iter().flat_map(|undo| [&undo.from, &undo.to]))
        .map(ToString::to_string)
        .chain(status.and_then(|status| status.current_revision.clone()))
        .chain(status.and_then(|status| status.update_revision.clone()))
        .collect()
}

/// The key of a cluster's assignment.
pub(super) fn assignment_key(name: &str) -> ObjectKey {
    key(Kind::ClusterAssignment, &(String::new(), name.to_owned()))
}
