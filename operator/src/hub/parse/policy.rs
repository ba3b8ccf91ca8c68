//! RolloutPolicy → [`Policy`].

use std::collections::BTreeSet;

use rimward_core::fleet::{
    AfterUpdate, Amount, BeforeUpdate, Hold, HoldMode, Members, Offline, OnFailure, Policy, Stage,
};
use rimward_crds::rollout_policy::{HoldPolicy, OfflinePolicy};
use rimward_crds::{RolloutPolicySpec, RolloutStage};

use super::{Invalid, amount, name, selector};

/// How long clusters may be silent, by the operator's flags.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Graces {
    /// Where a policy does not say.
    pub(crate) offline_seconds: u32,
    /// Seconds between two heartbeats.
    pub(crate) heartbeat_seconds: u32,
}

impl Graces {
    /// The shortest: each cluster that lives would fall silent between two heartbeats by a shorter one, and the hub
    /// would soon doubt its ears for good.
    pub(crate) const fn shortest_seconds(self) -> u32 {
        self.heartbeat_seconds.saturating_mul(2)
    }
}

/// Parses a policy.
///
/// # Errors
/// [`Invalid`], naming the field.
pub(crate) fn policy(spec: &RolloutPolicySpec, graces: Graces) -> Result<Policy, Invalid> {
    let RolloutPolicySpec {
        nodes,
        stages,
        on_failure,
        offline,
        hold,
        rollback,
    } = spec;
    let mut names = BTreeSet::new();
    for (index, stage) in stages.iter().enumerate() {
        if !names.insert(&stage.name) {
            return Err(Invalid::at(
                format!("spec.stages[{index}].name"),
                format!("{} is the name of an earlier stage too", stage.name),
            ));
        }
    }
    let shortest = graces.shortest_seconds();
    if let Some(grace) = offline.grace_seconds.filter(|grace| *grace < shortest) {
        let beat = graces.heartbeat_seconds;
        return Err(Invalid::at(
            "spec.offline.graceSeconds",
            format!(
                "{grace} is less than two heartbeats: clusters beat every {beat} s by this hub's \
                 --heartbeat-seconds, so at least {shortest} is needed"
            ),
        ));
    }
    Ok(Policy {
        stages: stages
            .iter()
            .enumerate()
            .map(|(index, stage)| one(index, stage))
            .collect::<Result<_, _>>()?,
        nodes_max_unavailable: amount(&nodes.max_unavailable),
        nodes_max_failures: nodes.max_failures,
        offline: self::offline(offline, graces.offline_seconds),
        hold: self::hold(hold)?,
        rollback_max_concurrency: amount(&rollback.max_concurrency),
        on_failure: match on_failure {
            rimward_crds::OnFailure::Pause => OnFailure::Pause,
            rimward_crds::OnFailure::RollbackAll => OnFailure::RollbackAll,
        },
    })
}

fn offline(spec: &OfflinePolicy, grace_seconds: u32) -> Offline {
    Offline {
        before_update: match spec.before_update {
            rimward_crds::rollout_policy::BeforeUpdate::Skip => BeforeUpdate::Skip,
            rimward_crds::rollout_policy::BeforeUpdate::Wait => BeforeUpdate::Wait,
        },
        after_update: match spec.after_update {
            rimward_crds::rollout_policy::AfterUpdate::Wait => AfterUpdate::Wait,
            rimward_crds::rollout_policy::AfterUpdate::Fail => AfterUpdate::Fail,
            rimward_crds::rollout_policy::AfterUpdate::Ignore => AfterUpdate::Ignore,
        },
        grace_seconds: spec.grace_seconds.unwrap_or(grace_seconds),
    }
}

/// What a silent cluster means where no policy says.
pub(super) fn offline_default(grace_seconds: u32) -> Offline {
    offline(&OfflinePolicy::default(), grace_seconds)
}

fn hold(spec: &HoldPolicy) -> Result<Hold, Invalid> {
    let mode = match spec.mode {
        rimward_crds::rollout_policy::HoldMode::Respect => HoldMode::Respect,
        rimward_crds::rollout_policy::HoldMode::Fail => HoldMode::Fail,
        rimward_crds::rollout_policy::HoldMode::Ignore => HoldMode::Ignore,
    };
    let deadline_seconds = match (mode, spec.deadline_seconds) {
        (HoldMode::Respect, None) => 0,
        (HoldMode::Fail | HoldMode::Ignore, Some(seconds)) => seconds,
        _ => {
            return Err(Invalid::at(
                "spec.hold.deadlineSeconds",
                "is for the modes Fail and Ignore, and needed there",
            ));
        }
    };
    Ok(Hold {
        mode,
        deadline_seconds,
    })
}

fn one(index: usize, stage: &RolloutStage) -> Result<Stage, Invalid> {
    let RolloutStage {
        name: stage_name,
        clusters,
        max_concurrency,
        max_unavailable,
        max_failures,
        min_proven,
        allow_empty,
        bake_seconds,
        progress_deadline_seconds,
    } = stage;
    let members = match (&clusters.selector, clusters.count, clusters.percent) {
        (Some(labels), None, None) => Members::Selector(selector(Some(labels))),
        (None, Some(count), None) => Members::Count(count),
        (None, None, Some(percent)) => Members::Percent(percent),
        _ => {
            return Err(Invalid::at(
                format!("spec.stages[{index}].clusters"),
                "a stage takes exactly one of selector, count and percent",
            ));
        }
    };
    Ok(Stage {
        name: name(&format!("spec.stages[{index}].name"), stage_name)?,
        members,
        // Absent means no limit of its own: all of the stage's clusters at once.
        max_concurrency: max_concurrency
            .as_ref()
            .map_or(Amount::Percent(100), amount),
        max_unavailable: max_unavailable.as_ref().map(amount),
        max_failures: *max_failures,
        min_proven: min_proven.as_ref().map(amount),
        allow_empty: *allow_empty,
        bake_seconds: *bake_seconds,
        progress_deadline_seconds: *progress_deadline_seconds,
    })
}

#[cfg(test)]
mod tests {
    use super::{Amount, Graces, Members, OnFailure, policy};

    fn check(yaml: &str) -> Result<rimward_core::fleet::Policy, String> {
        let spec = serde_yaml::from_str(yaml).unwrap();
        let graces = Graces {
            offline_seconds: 300,
            heartbeat_seconds: 30,
        };
        policy(&spec, graces).map_err(|error| error.to_string())
    }

    #[test]
    fn a_policy_reads_as_it_was_written() {
        let policy = check(
            "{nodes: {maxUnavailable: 25%}, onFailure: Pause, stages: [
               {name: canary, clusters: {selector: {matchLabels: {tier: canary}}}, maxConcurrency: 1, maxFailures: 2},
               {name: half, clusters: {percent: 50}, maxUnavailable: 10%, bakeSeconds: 60, progressDeadlineSeconds: 90}]}",
        )
        .unwrap();
        assert_eq!(policy.nodes_max_unavailable, Amount::Percent(25));
        assert_eq!(policy.on_failure, OnFailure::Pause);
        assert_eq!(policy.offline.grace_seconds, 300);
        assert_eq!(policy.stages[0].max_concurrency, Amount::ONE);
        assert_eq!(policy.stages[0].max_failures, 2);
        assert_eq!(policy.stages[1].members, Members::Percent(50));
        assert_eq!(
            policy.stages[1].max_concurrency.of(7),
            7,
            "no limit of its own"
        );
        assert_eq!(policy.stages[1].max_unavailable, Some(Amount::Percent(10)));
        assert_eq!(policy.stages[1].progress_deadline_seconds, Some(90));
    }

    #[test]
    fn a_stage_that_takes_two_ways_or_none_is_named() {
        for (clusters, index) in [("{count: 1, percent: 2}", 0), ("{}", 0)] {
            let error = check(&format!("{{stages: [{{name: a, clusters: {clusters}}}]}}"));
            assert_eq!(
                error.unwrap_err(),
                format!(
                    "spec.stages[{index}].clusters: a stage takes exactly one of selector, count and percent"
                )
            );
        }
    }

    #[test]
    fn a_grace_within_which_a_living_cluster_may_not_beat_is_refused() {
        let grace = |seconds: u32| check(&format!("{{offline: {{graceSeconds: {seconds}}}}}"));
        assert_eq!(grace(60).unwrap().offline.grace_seconds, 60);
        assert_eq!(
            grace(59).unwrap_err(),
            "spec.offline.graceSeconds: 59 is less than two heartbeats: clusters beat every 30 s by this hub's \
             --heartbeat-seconds, so at least 60 is needed"
        );
    }

    #[test]
    fn two_stages_of_one_name_are_refused() {
        let error =
            check("{stages: [{name: a, clusters: {count: 1}}, {name: a, clusters: {count: 2}}]}");
        assert_eq!(
            error.unwrap_err(),
            "spec.stages[1].name: a is the name of an earlier stage too"
        );
    }
}
