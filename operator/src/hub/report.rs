//! The statuses from which nothing is decided: Models, policies, EdgeClusters, objects that do not parse.
//!
//! Owns what differs and is therefore written, and the events that tell of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::core::PartialObjectMetaExt as _;
use kube::core::error_boundary::InvalidObject;
use rimward_core::fleet::{Members, Policy};
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::{ClusterAssignmentStatus, Condition, EdgeCluster, Model, RolloutPolicy};
use serde_json::{Value, json};

use super::apply::{Target, Writer};
use super::feed::Feed;
use super::models::{ModelId, Resolver};
use super::parse::Invalid;
use super::push::Known;
use super::status::cluster::Connection;
use super::status::{self, Says};
use super::steps::fleet_wide;
use crate::cache::Guarded;
use crate::events::{Events, Notice};
use crate::metrics::{Category, Kind, Metrics};
use crate::objects::ObjectKey;

/// Remembers what cannot be read back: an object that does not parse keeps its status to itself.
#[derive(Default)]
pub(crate) struct Reporter {
    /// What was last said, and written, of an invalid object.
    invalid: BTreeMap<ObjectKey, Said>,
    /// What does not parse now.
    broken: BTreeSet<ObjectKey>,
    /// The first status for which there was no time in the last turn.
    pub(super) left: Option<ObjectKey>,
    metrics: Option<std::sync::Arc<Metrics>>,
}

/// What is said of an invalid object: its UID, generation and error.
type Said = (Option<String>, Option<i64>, String);

/// What was written of invalid objects.
type Told = Vec<(ObjectKey, Said)>;

/// What was written. Give it to [`Reporter::note`].
#[derive(Default)]
pub(crate) struct Written {
    told: Told,
    /// The first for which there was no time.
    left: Option<ObjectKey>,
}

/// Statuses that differ from what stands there.
#[derive(Default)]
pub(crate) struct Statuses(Vec<Change>);

struct Change {
    target: Target,
    status: Value,
    about: ObjectReference,
    notice: Option<Notice>,
    /// What it says of an invalid object; none for others, whose statuses are read back.
    said: Option<Said>,
}

impl Reporter {
    /// Counts invalid objects into these metrics.
    pub(crate) fn new(metrics: std::sync::Arc<Metrics>) -> Self {
        Self {
            invalid: BTreeMap::new(),
            broken: BTreeSet::new(),
            left: None,
            metrics: Some(metrics),
        }
    }

    /// Looks at one object: whether it does not parse, which it then is told once.
    pub(crate) fn check<K: Resource<DynamicType = ()>>(
        &mut self,
        key: ObjectKey,
        object: Option<&Guarded<K>>,
        error: Option<&Invalid>,
        changes: &mut Statuses,
    ) {
        let broken = object.and_then(|object| match (&object.0, error) {
            (Err(invalid), _) => Some(broken::<K>(key.kind, invalid)),
            (Ok(object), Some(error)) => Some(Broken::new(
                Target::of(key.kind, object),
                object.object_ref(&()),
                object,
                error.to_string(),
            )),
            (Ok(_), None) => None,
        });
        let was = self.broken.contains(&key);
        if was != broken.is_some() {
            if was {
                self.broken.remove(&key);
            } else {
                self.broken.insert(key.clone());
            }
            if let Some(metrics) = &self.metrics {
                let count = self.broken.iter().filter(|it| it.kind == key.kind).count();
                metrics.set_invalid(key.kind, count);
            }
        }
        self.untold(key, broken, Timestamp::now(), changes);
    }

    /// Takes what was not yet told. It counts as told once [`Self::note`] heard of the write, so that a
    /// write that lost is made again.
    fn untold(
        &mut self,
        key: ObjectKey,
        broken: Option<Broken>,
        now: Timestamp,
        changes: &mut Statuses,
    ) {
        let Some(broken) = broken else {
            self.invalid.remove(&key);
            return;
        };
        let said = (broken.uid, broken.generation, broken.error.clone());
        if self.invalid.get(&key) == Some(&said) {
            return;
        }
        changes.0.push(Change {
            target: broken.target,
            status: invalid_status(broken.generation, &broken.error, now),
            notice: Some(Notice {
                warning: true,
                reason: HubReason::ObjectInvalid.as_str(),
                action: "Parse",
                note: broken.error,
            }),
            about: broken.about,
            said: Some(said),
        });
    }

    /// Remembers, counts and logs what was written.
    pub(crate) fn note(&mut self, written: Written) {
        self.left = written.left;
        for (key, said) in written.told {
            if let Some(metrics) = &self.metrics {
                metrics.failed(Category::Invalid);
            }
            tracing::warn!(kind = ?key.kind, name = key.name, error = said.2, "object does not parse");
            self.invalid.insert(key, said);
        }
    }
}

impl Statuses {
    /// A Model's status, where it differs.
    pub(crate) fn model(&mut self, object: &Model, resolver: &Resolver) {
        let now = Timestamp::now();
        let next = status::model::model(object, resolver.result(&ModelId::of(object)), now);
        let old = object.status.clone().unwrap_or_default();
        self.push(
            Kind::Model,
            object,
            (&old.conditions, &old),
            (&next.conditions, &next),
        );
    }

    /// A policy's status, where it differs. `notes` say what is odd about its stages.
    pub(crate) fn policy(
        &mut self,
        object: &RolloutPolicy,
        invalid: Option<&Invalid>,
        notes: &[String],
    ) {
        let next = status::policy::policy(object, invalid, notes, Timestamp::now());
        let old = object.status.clone().unwrap_or_default();
        self.push(
            Kind::RolloutPolicy,
            object,
            (&old.conditions, &old),
            (&next.conditions, &next),
        );
    }

    /// A cluster's status, where it differs. `push` is what the hub knows of a Push cluster's credential.
    pub(crate) fn cluster(
        &mut self,
        object: &EdgeCluster,
        report: Option<&ClusterAssignmentStatus>,
        connection: &Connection,
        push: &Known,
    ) {
        let next = status::cluster::cluster(object, report, connection, push, Timestamp::now());
        let old = object.status.clone().unwrap_or_default();
        self.push(
            Kind::EdgeCluster,
            object,
            (&old.conditions, &old),
            (&next.conditions, &next),
        );
    }

    fn push<K, S>(
        &mut self,
        kind: Kind,
        object: &K,
        (old_conditions, old): (&[Condition], &S),
        (conditions, next): (&[Condition], &S),
    ) where
        K: Resource<DynamicType = ()>,
        S: serde::Serialize,
    {
        let (Ok(mut before), Ok(after)) = (serde_json::to_value(old), serde_json::to_value(next))
        else {
            return;
        };
        if !old_conditions.is_empty() {
            before["conditions"] = json!(status::sorted(old_conditions));
        }
        if before == after {
            return;
        }
        self.0.push(Change {
            target: Target::of(kind, object),
            status: after,
            about: object.object_ref(&()),
            notice: turned(old_conditions, conditions),
            said: None,
        });
    }

    /// Writes them, as far as there is time, and tells of those that were written by events. `prepared` is how long it
    /// took to find them; those that were left in an earlier turn go first.
    pub(crate) async fn write(
        mut self,
        writer: &Writer,
        feed: &Feed,
        events: &Events,
        prepared: Duration,
        left: Option<&ObjectKey>,
    ) -> Written {
        self.begin_with(left);
        let keys: Vec<ObjectKey> = self.0.iter().map(|it| it.target.key.clone()).collect();
        let writes = self.0.into_iter().map(|change| async move {
            let outcome = writer.status(&change.target, &change.status).await;
            if !outcome.is_done() {
                return None;
            }
            if let Some(notice) = &change.notice {
                events.tell(&change.about, notice);
            }
            Some((change.target.key, change.said?))
        });
        let results = fleet_wide(feed, prepared, keys.iter().cloned().zip(writes)).await;
        Written {
            left: keys.into_iter().nth(results.len()),
            told: results.into_iter().flatten().collect(),
        }
    }

    /// Each has its turn, however many come anew before it in every one.
    fn begin_with(&mut self, left: Option<&ObjectKey>) {
        let at = |left: &ObjectKey| {
            let behind = |key: &ObjectKey| key.kind == left.kind && key >= left;
            self.0.iter().position(|it| behind(&it.target.key))
        };
        if let Some(at) = left.and_then(at) {
            self.0.rotate_left(at);
        }
    }
}

/// An event for what turned: the object became ready, or stopped being so for another reason than before.
fn turned(old: &[Condition], new: &[Condition]) -> Option<Notice> {
    let before = status::find(old, condition::READY);
    let after = status::find(new, condition::READY)?;
    let same = before
        .is_some_and(|before| (&before.status, &before.reason) == (&after.status, &after.reason));
    let reason = after.reason.parse::<HubReason>().ok()?;
    if same || reason == HubReason::Progressing {
        return None;
    }
    Some(Notice {
        warning: after.status != "True" && reason != HubReason::NeverJoined,
        reason: reason.as_str(),
        action: "Status",
        note: after.message.clone(),
    })
}

/// An object that does not parse, and where to say so.
struct Broken {
    target: Target,
    about: ObjectReference,
    uid: Option<String>,
    generation: Option<i64>,
    error: String,
}

impl Broken {
    fn new<K: Resource>(target: Target, about: ObjectReference, object: &K, error: String) -> Self {
        Self {
            target,
            about,
            uid: object.meta().uid.clone(),
            generation: object.meta().generation,
            error,
        }
    }
}

fn broken<K: Resource<DynamicType = ()>>(kind: Kind, object: &InvalidObject) -> Broken {
    let meta = &object.metadata;
    let about = ObjectReference {
        api_version: Some(K::api_version(&()).into_owned()),
        kind: Some(K::kind(&()).into_owned()),
        name: meta.name.clone(),
        namespace: meta.namespace.clone(),
        uid: meta.uid.clone(),
        ..ObjectReference::default()
    };
    let carrier = meta.clone().into_response_partial::<K>();
    let target = Target::of(kind, &carrier);
    Broken::new(target, about, &carrier, object.error.clone())
}

fn invalid_status(generation: Option<i64>, error: &str, now: Timestamp) -> Value {
    let reason = HubReason::ObjectInvalid.as_str();
    let conditions = status::conditions(
        &[],
        generation,
        now,
        [
            Says::new(condition::READY, false, reason, error),
            Says::new(condition::RECONCILING, false, reason, ""),
            Says::new(condition::STALLED, true, reason, error),
        ],
    );
    json!({"observedGeneration": generation, "conditions": conditions})
}

/// Most notes in one policy's message.
pub(crate) const NOTES_MAX: usize = 4;

/// What is odd about selector stages: one that matches no cluster, or only such as earlier selectors took.
pub(crate) fn selector_notes(
    policy: &Policy,
    clusters: &[&rimward_core::selector::Labels],
) -> Vec<String> {
    let mut notes = Vec::new();
    let mut taken = vec![None; clusters.len()];
    for stage in &policy.stages {
        let Members::Selector(selector) = &stage.members else {
            continue;
        };
        let mut matched = 0_usize;
        let mut lost = BTreeMap::<_, usize>::new();
        for (labels, by) in clusters.iter().zip(&mut taken) {
            if !selector.matches(labels) {
                continue;
            }
            matched += 1;
            match by {
                Some(earlier) => *lost.entry(*earlier).or_default() += 1,
                None => *by = Some(&stage.name),
            }
        }
        if matched == 0 {
            notes.push(format!("stage {} selects no cluster", stage.name));
        }
        for (earlier, count) in lost {
            notes.push(format!(
                "stage {} overlaps stage {earlier}, which takes {count} of its cluster(s)",
                stage.name
            ));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ObjectReference;
    use k8s_openapi::jiff::Timestamp;
    use kube::api::ObjectMeta;
    use kube::core::PartialObjectMetaExt as _;
    use rimward_core::selector::Labels;
    use rimward_crds::Model;

    use super::{Broken, Reporter, Statuses, Target, Told, Written, selector_notes};
    use crate::metrics::Kind;

    /// What a turn would write of a Model that does not parse; `write` says whether the write succeeds.
    fn turn(reporter: &mut Reporter, generation: i64, write: bool) -> usize {
        let meta = ObjectMeta {
            name: Some("digits".to_owned()),
            generation: Some(generation),
            ..ObjectMeta::default()
        };
        let model = meta.into_response_partial::<Model>();
        let target = Target::of(Kind::Model, &model);
        let about = ObjectReference::default();
        let broken = Broken::new(target.clone(), about, &model, "no image".to_owned());
        let mut changes = Statuses::default();
        reporter.untold(target.key, Some(broken), Timestamp::now(), &mut changes);
        let wanted = changes.0.len();
        if write {
            let told: Told = changes
                .0
                .into_iter()
                .filter_map(|change| Some((change.target.key, change.said?)))
                .collect();
            reporter.note(Written { told, left: None });
        }
        wanted
    }

    #[test]
    fn an_invalid_object_is_told_again_until_the_write_succeeds_and_then_once_per_spec() {
        let mut reporter = Reporter::default();
        assert_eq!(turn(&mut reporter, 1, false), 1);
        assert_eq!(turn(&mut reporter, 1, true), 1, "the first write lost");
        assert_eq!(turn(&mut reporter, 1, true), 0, "it was told");
        assert_eq!(turn(&mut reporter, 2, true), 1, "another spec");
    }

    #[test]
    fn what_was_left_goes_first_and_none_is_lost() {
        let model = |name: &str| {
            let meta = ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            };
            meta.into_response_partial::<Model>()
        };
        let order = |left: &str| {
            let mut changes = Statuses::default();
            for name in ["a", "b", "c"] {
                let (model, about) = (model(name), ObjectReference::default());
                let target = Target::of(Kind::Model, &model);
                let broken = Broken::new(target.clone(), about, &model, String::new());
                let now = Timestamp::now();
                Reporter::default().untold(target.key, Some(broken), now, &mut changes);
            }
            changes.begin_with(Some(&Target::of(Kind::Model, &model(left)).key));
            let names = changes.0.into_iter().map(|it| it.target.key.name);
            names.collect::<String>()
        };
        assert_eq!(order("b"), "bca");
        assert_eq!(order("aa"), "bca", "it differs no more");
        assert_eq!(order("gone"), "abc");
    }

    fn check(stages: &str) -> Vec<String> {
        let spec = serde_yaml::from_str(&format!("{{stages: [{stages}]}}")).unwrap();
        let graces = crate::hub::parse::Graces {
            offline_seconds: 300,
            heartbeat_seconds: 30,
        };
        let policy = crate::hub::parse::policy(&spec, graces).unwrap();
        let labels = |tier: &str| Labels::from([("tier".to_owned(), tier.to_owned())]);
        let (one, two) = (labels("canary"), labels("main"));
        selector_notes(&policy, &[&one, &two])
    }

    #[test]
    fn a_stage_that_selects_nothing_and_one_that_overlaps_are_named() {
        let notes = check(
            "{name: a, clusters: {selector: {matchLabels: {tier: canary}}}},
             {name: b, clusters: {selector: {matchLabels: {tier: typo}}}},
             {name: c, clusters: {selector: {}}}",
        );
        assert_eq!(
            notes,
            [
                "stage b selects no cluster",
                "stage c overlaps stage a, which takes 1 of its cluster(s)"
            ]
        );
    }

    #[test]
    fn stages_that_part_the_fleet_are_not_remarked_on() {
        let notes = check(
            "{name: a, clusters: {selector: {matchLabels: {tier: canary}}}},
             {name: b, clusters: {percent: 100}}",
        );
        assert!(notes.is_empty(), "{notes:?}");
    }
}
