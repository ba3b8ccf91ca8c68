//! Tables for a rollout's life: stages, bake, failure, rollback, refusal, removal.

use std::collections::BTreeMap;

use rimward_core::fleet::{
    self, Action, Amount, Because, BeforeUpdate, Cluster, ConnectionState, Deployment,
    DeploymentPlan, Desired, Members, Observed, Outcome, Refusal, Revision,
};
use rimward_core::ids::RevisionName;
use rimward_core::selector::Selector;
use rimward_core::time::Timestamp;

use crate::fixtures::{
    ALIVE, NOW, Planned, SILENT, all_on, apply, cluster, deployment, entry, fleet_of, key, named,
    one, plan_at, rejecting, rev, say, stage, with,
};
use crate::hub::Hub;

pub(crate) fn plan(desired: &Desired, observed: &Observed) -> Planned {
    plan_at(desired, observed, NOW)
}

pub(crate) fn answer(plan: &Planned) -> &DeploymentPlan {
    &plan.deployments[&key("digits")]
}

/// What each cluster is told to run.
fn told(plan: &Planned) -> BTreeMap<String, Option<String>> {
    let run = |entries: &BTreeMap<_, fleet::Entry>| {
        let mine = entries.get(&key("digits"))?;
        Some(match mine.action {
            Action::Run => mine.revision.to_string(),
            Action::Remove => format!("-{}", mine.revision),
        })
    };
    plan.clusters
        .iter()
        .map(|(name, entries)| (name.to_string(), run(entries)))
        .collect()
}

pub(crate) fn check_told(plan: &Planned, expected: &[(&str, &str)]) {
    let found: Vec<_> = told(plan)
        .into_iter()
        .map(|(name, it)| (name, it.unwrap_or_default()))
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, it)| ((*name).to_owned(), (*it).to_owned()))
        .collect();
    assert_eq!(found, expected);
}

pub(crate) fn waiting(plan: &Planned, cluster: &str) -> Because {
    plan.why(&key("digits"), cluster).unwrap()
}

/// Two stages: `c0`, then the rest.
pub(crate) fn canary_then_rest(target: &str, current: Option<&str>) -> Deployment {
    let mut it = deployment(target, current);
    it.policy.stages = vec![
        stage("canary", Members::Count(1)),
        stage("rest", Members::Percent(100)),
    ];
    it
}

/// Applies the plan, then lets every cluster say that it did as told.
pub(crate) fn obey(desired: &mut Desired, observed: &mut Observed, plan: &Planned) {
    apply(desired, observed, plan);
    for cluster in observed.clusters.values_mut() {
        let run = cluster
            .entries
            .get(&key("digits"))
            .filter(|it| it.action == Action::Run);
        let says = run.map(|it| all_on(it.revision.as_str()));
        say(cluster, &key("digits"), says);
    }
}

pub(crate) fn fail_at(observed: &mut Observed, name: &str, revision: &str) {
    say(
        observed.clusters.get_mut(&named(name)).unwrap(),
        &key("digits"),
        Some(rejecting(revision)),
    );
}

#[test]
fn a_rollout_goes_through_its_stages_and_is_promoted() {
    let mut desired = one(canary_then_rest("r1", None));
    let mut observed = fleet_of(["c0", "c1", "c2"].map(|name| (name, cluster())));
    let first = plan(&desired, &observed);
    check_told(&first, &[("c0", "r1"), ("c1", ""), ("c2", "")]);
    assert!(matches!(
        waiting(&first, "c1"),
        Because::StageNotReached { .. }
    ));
    assert_eq!(answer(&first).transitions.len(), 2);
    obey(&mut desired, &mut observed, &first);
    let second = plan(&desired, &observed);
    check_told(&second, &[("c0", "r1"), ("c1", "r1"), ("c2", "r1")]);
    obey(&mut desired, &mut observed, &second);
    let third = plan(&desired, &observed);
    assert_eq!(answer(&third).standing.current, Some(rev("r1")));
    assert_eq!(
        answer(&third).outcomes[&rev("r1")].outcome,
        Outcome::Promoted
    );
    assert!(answer(&third).conditions.ready.status);
    assert_eq!(answer(&third).progress(), "3/3");
    assert_eq!(answer(&third).waiting_for(), None);
}

#[test]
fn no_policy_means_one_cluster_at_a_time() {
    let mut desired = one(deployment("r1", None));
    let mut observed = fleet_of([("c0", cluster()), ("c1", cluster())]);
    let first = plan(&desired, &observed);
    check_told(&first, &[("c0", "r1"), ("c1", "")]);
    assert!(matches!(
        waiting(&first, "c1"),
        Because::Concurrency {
            moving: 1,
            max: 1,
            ..
        }
    ));
    obey(&mut desired, &mut observed, &first);
    check_told(&plan(&desired, &observed), &[("c0", "r1"), ("c1", "r1")]);
}

/// A misspelt canary label must not release to everyone (silence.md, rule 3); before, such a stage passed.
#[test]
fn a_stage_that_no_cluster_belongs_to_waits_unless_it_may_be_empty() {
    let mut it = deployment("r1", None);
    it.policy.stages = vec![stage(
        "none",
        Members::Selector(Selector::label("tier", "cannary")),
    )];
    let observed = fleet_of([("c0", cluster())]);
    let waits = plan(&one(it.clone()), &observed);
    check_told(&waits, &[("c0", "")]);
    let stalled = &answer(&waits).conditions.stalled;
    assert_eq!((stalled.status, stalled.reason), (true, "StageEmpty"));
    assert!(
        answer(&waits)
            .waiting_for()
            .unwrap()
            .contains("kubectl rimward promote digits")
    );
    it.policy.stages[0].allow_empty = true;
    let passes = plan(&one(it), &observed);
    check_told(&passes, &[("c0", "r1")]);
}

#[test]
fn an_old_report_neither_fails_nor_passes_the_entry_of_today() {
    for says in [all_on("r1"), rejecting("r1")] {
        let mut desired = one(canary_then_rest("r1", None));
        let mut observed = fleet_of([("c0", with("r1", says)), ("c1", cluster())]);
        observed.clusters.get_mut(&named("c0")).unwrap().generation = 2;
        let plan = plan(&desired, &observed);
        assert!(answer(&plan).outcomes.is_empty());
        check_told(&plan, &[("c0", "r1"), ("c1", "")]);
        apply(&mut desired, &mut observed, &plan);
    }
}

#[test]
fn the_rollout_goes_on_without_an_offline_cluster_which_goes_straight_to_what_is_right() {
    let mut desired = one(canary_then_rest("r2", Some("r1")));
    let mut observed = fleet_of(["c0", "c1", "c2"].map(|name| (name, with("r1", all_on("r1")))));
    let away = |observed: &mut Observed, connection| {
        observed.clusters.get_mut(&named("c1")).unwrap().connection = connection;
    };
    away(&mut observed, SILENT);
    for _ in 0..3 {
        let next = plan(&desired, &observed);
        obey(&mut desired, &mut observed, &next);
    }
    let without = plan(&desired, &observed);
    assert_eq!(answer(&without).standing.current, Some(rev("r2")));
    assert!(answer(&without).conditions.ready.status);
    assert!(matches!(
        waiting(&without, "c1"),
        Because::Silent { awaited: false, .. }
    ));
    check_told(&without, &[("c0", "r2"), ("c1", "r1"), ("c2", "r2")]);
    away(&mut observed, ALIVE);
    check_told(
        &plan(&desired, &observed),
        &[("c0", "r2"), ("c1", "r2"), ("c2", "r2")],
    );
}

#[test]
fn with_wait_the_stage_waits_for_an_offline_cluster() {
    let mut it = deployment("r2", Some("r1"));
    it.policy.offline.before_update = BeforeUpdate::Wait;
    let mut desired = one(it);
    let mut observed = fleet_of(["c0", "c1"].map(|name| (name, with("r1", all_on("r1")))));
    observed.clusters.get_mut(&named("c1")).unwrap().connection = SILENT;
    for _ in 0..3 {
        let next = plan(&desired, &observed);
        obey(&mut desired, &mut observed, &next);
    }
    let next = plan(&desired, &observed);
    assert_eq!(answer(&next).standing.current, Some(rev("r1")));
    assert!(matches!(
        waiting(&next, "c1"),
        Because::Silent { awaited: true, .. }
    ));
}

#[test]
fn a_cluster_that_is_away_while_promoted_twice_skips_what_is_over() {
    let mut it = canary_then_rest("r3", Some("r2"));
    let promoted = Revision {
        outcome: Outcome::Promoted,
        ..Revision::default()
    };
    it.revisions.insert(rev("r1"), promoted);
    let observed = fleet_of([
        ("c0", with("r2", all_on("r2"))),
        ("c1", with("r1", all_on("r1"))),
    ]);
    check_told(&plan(&one(it), &observed), &[("c0", "r3"), ("c1", "r2")]);
}

#[test]
fn nothing_is_promoted_that_no_node_ran() {
    let mut empty = all_on("r1");
    empty.nodes = rimward_core::summary::Counts::default();
    let desired = one(deployment("r1", None));
    let plan = plan(&desired, &fleet_of([("c0", with("r1", empty))]));
    assert_eq!(answer(&plan).standing.current, None);
    assert!(!answer(&plan).conditions.ready.status);
}

#[test]
fn max_unavailable_counts_what_is_broken_already() {
    let mut it = deployment("r2", Some("r1"));
    it.policy.stages = vec![stage("all", Members::Percent(100))];
    it.policy.stages[0].max_unavailable = Some(Amount::Count(1));
    let mut broken = all_on("r1");
    broken.nodes.ready = 1;
    let observed = fleet_of([
        ("c0", with("r1", all_on("r1"))),
        ("c1", with("r1", broken)),
        ("c2", with("r1", all_on("r1"))),
    ]);
    let plan = plan(&one(it), &observed);
    check_told(&plan, &[("c0", "r1"), ("c1", "r2"), ("c2", "r1")]);
    assert!(matches!(
        waiting(&plan, "c0"),
        Because::Unavailable {
            unavailable: 1,
            max: 1,
            ..
        }
    ));
}

#[test]
fn a_paused_deployment_a_paused_cluster_and_a_held_one_stay() {
    let mut paused = deployment("r2", Some("r1"));
    paused.paused = true;
    let observed = fleet_of([("c0", with("r1", all_on("r1")))]);
    let stays = plan(&one(paused), &observed);
    check_told(&stays, &[("c0", "r1")]);
    assert!(answer(&stays).conditions.paused.status);

    let change: [fn(&mut Cluster); 2] = [
        |it| it.paused = true,
        |it| it.held = Some("harvest".to_owned()),
    ];
    for (edit, reason) in change.into_iter().zip(["ClusterPaused", "Held"]) {
        let mut observed = observed.clone();
        edit(observed.clusters.get_mut(&named("c0")).unwrap());
        let stays = plan(&one(deployment("r2", Some("r1"))), &observed);
        check_told(&stays, &[("c0", "r1")]);
        assert_eq!(waiting(&stays, "c0").reason(), reason);
    }
}

#[test]
fn deleting_and_leaving_the_placement_remove_and_the_entry_goes_when_confirmed() {
    let mut deleting = deployment("r1", Some("r1"));
    deleting.deleting = true;
    let mut elsewhere = deployment("r1", Some("r1"));
    elsewhere.placement.clusters = Selector::Nothing;
    for desired in [one(deleting), one(elsewhere), Desired::default()] {
        let mut desired = desired;
        let mut observed = fleet_of([("c0", with("r1", all_on("r1")))]);
        observed.clusters.get_mut(&named("c0")).unwrap().connection = SILENT;
        let ordered = plan(&desired, &observed);
        check_told(&ordered, &[("c0", "-r1")]);
        obey(&mut desired, &mut observed, &ordered);
        check_told(&plan(&desired, &observed), &[("c0", "")]);
    }
}

#[test]
fn what_cannot_be_read_stays_as_it_is() {
    let mut desired = Desired::default();
    desired.unreadable.insert(key("digits"));
    check_told(
        &plan(&desired, &fleet_of([("c0", with("r1", all_on("r1")))])),
        &[("c0", "r1")],
    );
}

#[test]
fn of_two_deployments_with_one_endpoint_name_the_first_keeps_it() {
    let mut desired = one(deployment("r1", Some("r1")));
    let mut late = deployment("x1", None);
    late.created = Timestamp(-5);
    desired.deployments.insert(key("late"), late);
    let plan = plan(&desired, &fleet_of([("c0", with("r1", all_on("r1")))]));
    let refusal = &plan.deployments[&key("late")].refusals[0];
    assert_eq!(
        refusal.to_string(),
        "endpoint name digits is taken by deployment team/digits on cluster c0"
    );
    assert_eq!(
        plan.deployments[&key("late")].conditions.stalled.reason,
        "EndpointNameTaken"
    );
    assert!(!plan.clusters[&named("c0")].contains_key(&key("late")));
    assert!(answer(&plan).refusals.is_empty());
}

#[test]
fn an_assignment_over_its_bound_is_refused_and_takes_no_place_from_others() {
    let mut it = deployment("r1", None);
    it.revisions.get_mut(&rev("r1")).unwrap().entry_bytes = 1000;
    let mut desired = one(it);
    let mut full = cluster();
    for index in 0..256 {
        let name = key(&format!("d{index}"));
        desired.unreadable.insert(name.clone());
        let endpoint_name = format!("e{index}").parse().unwrap();
        full.entries.insert(
            name,
            fleet::Entry {
                endpoint_name,
                ..entry("x")
            },
        );
    }
    let mut hub = Hub::new(desired, fleet_of([("c0", full), ("c1", cluster())]));
    hub.turn();
    assert_eq!(hub.told("r1"), ["c1"]);
    assert_eq!(hub.why("c0"), Some(Because::AssignmentTooLarge));
    // While others go on it stalls nobody; once it alone is left, somebody must act.
    assert!(!hub.answer().conditions.stalled.status);
    hub.obey(&["c0"]);
    hub.turn();
    assert_eq!(hub.answer().standing.current, Some(rev("r1")));
    assert_eq!(
        hub.answer().refusals,
        [Refusal::AssignmentTooLarge {
            cluster: named("c0")
        }]
    );
}

#[test]
fn a_placement_that_matches_nothing_is_stalled() {
    let plan = plan(&one(deployment("r1", None)), &Observed::default());
    assert_eq!(answer(&plan).conditions.stalled.reason, "NoClusters");
    assert_eq!(answer(&plan).standing.current, None::<RevisionName>);
}

#[test]
fn in_steady_state_status_stays_the_same_whatever_the_time_and_the_heartbeats() {
    let mut stalled = deployment("x2", None);
    stalled.endpoint_name = "other".parse().unwrap();
    stalled.revisions.get_mut(&rev("x2")).unwrap().outcome = Outcome::Failed;
    let mut desired = one(deployment("r1", Some("r1")));
    desired.deployments.insert(key("stalled"), stalled);
    let mut observed = fleet_of(["c0", "c1"].map(|name| (name, with("r1", all_on("r1")))));
    let silent = observed.clusters.get_mut(&named("c1")).unwrap();
    silent.connection = SILENT;
    let first = plan(&desired, &observed);
    apply(&mut desired, &mut observed, &first);
    let settled = plan(&desired, &observed);
    assert!(
        settled.deployments[&key("stalled")]
            .conditions
            .stalled
            .status
    );
    assert!(answer(&settled).conditions.ready.status);
    for seconds in [1, 100, 5000] {
        let now = NOW.plus_seconds(seconds);
        let beating = observed.clusters.get_mut(&named("c0")).unwrap();
        beating.connection = ConnectionState::Heard { at: now };
        let later = plan_at(&desired, &observed, now);
        assert_eq!(later.clusters, settled.clusters);
        assert_eq!(later.deployments, settled.deployments);
    }
}
