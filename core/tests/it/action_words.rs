//! What people ask of a rollout: retry, promote, abort, undo; each applied exactly once.

use rimward_core::fleet::{
    ActionKind, ActionRequest, Deployment, Members, OnFailure, Outcome, StagePhase,
};
use rimward_core::selector::Selector;
use rimward_core::summary::{Counts, Phase};

use crate::fixtures::{
    all_on, deployment, fleet_of, key, one, rejecting, report, rev, stage, with,
};
use crate::hub::Hub;

const RETRY: ActionKind = ActionKind::Retry {
    forget_verdicts: false,
};
const RETRY_FORGETTING: ActionKind = ActionKind::Retry {
    forget_verdicts: true,
};
const PROMOTE: ActionKind = ActionKind::Promote { stage: None };

/// `c0`, then the rest at once; r1 is promoted, r2 asked for.
fn staged() -> Deployment {
    let mut it = deployment("r2", Some("r1"));
    it.policy.stages = vec![
        stage("canary", Members::Count(1)),
        stage("rest", Members::Percent(100)),
    ];
    it
}

fn hub(deployment: Deployment) -> Hub {
    let clusters = ["c0", "c1", "c2"].map(|name| (name, with("r1", all_on("r1"))));
    let mut hub = Hub::new(one(deployment), fleet_of(clusters));
    hub.turn();
    hub
}

fn late(attempt: u32) -> rimward_core::fleet::ModelReport {
    let nodes = Counts {
        desired: 2,
        ready: 2,
        pending: 2,
        ..Counts::default()
    };
    let mut says = report("r2", nodes, Phase::TimedOut);
    says.attempt = attempt;
    says
}

fn attempts(hub: &Hub) -> Vec<(String, u32)> {
    let entries = hub.observed.clusters.values();
    entries
        .filter_map(|it| it.entries.get(&key("digits")))
        .map(|entry| (entry.revision.to_string(), entry.attempt))
        .collect()
}

fn check_refused(hub: &mut Hub, kind: ActionKind, words: &str) {
    let before = attempts(hub);
    let (applied, message) = hub.ask(kind);
    assert!(!applied, "{message}");
    assert!(message.contains(words), "{message}");
    assert_eq!(attempts(hub), before, "a refused action changes nothing");
}

#[test]
fn retry_gives_those_that_are_not_there_a_new_attempt_and_leaves_the_others() {
    let mut hub = hub(staged());
    hub.says("c0", late(1));
    hub.turn();
    assert_eq!(
        hub.answer().standing.stage.as_ref().unwrap().phase,
        StagePhase::Stopped
    );
    let (applied, message) = hub.ask(RETRY);
    assert!(applied, "{message}");
    assert_eq!(attempts(&hub)[0], ("r2".to_owned(), 2));
    // What it says of the first attempt says nothing of the second.
    hub.says("c0", late(1));
    hub.turn();
    assert_eq!(hub.answer().clusters.failed, 0);
    hub.obey(&[]);
    hub.turn();
    hub.obey(&[]);
    hub.turn();
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    check_refused(&mut hub, RETRY, "nothing to try again");
}

#[test]
fn condemned_content_is_final_unless_verdicts_are_to_be_forgotten() {
    let mut hub = hub(staged());
    hub.says("c0", rejecting("r2"));
    hub.turn();
    hub.obey(&[]);
    hub.turn();
    check_refused(&mut hub, RETRY, "--forget-verdicts");
    let (applied, message) = hub.ask(RETRY_FORGETTING);
    assert!(applied, "{message}");
    let entry = hub.observed.clusters.values().next().unwrap().entries[&key("digits")].clone();
    assert_eq!((entry.revision, entry.attempt), (rev("r2"), 2));
    assert_eq!(entry.forget_verdicts_before, 2);
    assert_eq!(hub.told("r2"), ["c0"], "from its first stage again");
    hub.obey(&[]);
    hub.turn();
    hub.obey(&[]);
    hub.turn();
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    // Another revision does not inherit that.
    hub.edit(|it| {
        it.revisions.insert(rev("r3"), Default::default());
        it.update = Some(rev("r3"));
    });
    hub.turn();
    let entry = hub.observed.clusters.values().next().unwrap().entries[&key("digits")].clone();
    assert_eq!(
        (entry.revision, entry.forget_verdicts_before),
        (rev("r3"), 0)
    );
}

#[test]
fn promote_goes_on_past_a_suspect_once() {
    let mut hub = hub(staged());
    hub.obey(&["c0"]);
    hub.later(400);
    hub.beat_all(&["c0"]);
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0"]);
    let (applied, message) = hub.ask(PROMOTE);
    assert!(applied, "{message}");
    assert_eq!(hub.told("r2"), ["c0", "c1", "c2"]);
    hub.beat_all(&["c0"]);
    hub.obey(&["c0"]);
    hub.turn();
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    check_refused(&mut hub, PROMOTE, "promoted already");
}

#[test]
fn promote_goes_past_an_empty_stage_but_promotes_nothing_that_nobody_ran() {
    let mut it = staged();
    it.policy.stages[0].members = Members::Selector(Selector::label("tier", "cannary"));
    let mut hub = hub(it);
    assert!(hub.told("r2").is_empty());
    let (applied, message) = hub.ask(PROMOTE);
    assert!(applied, "{message}");
    assert_eq!(hub.told("r2").len(), 3);
    check_refused(&mut hub, PROMOTE, "no cluster has proven");
}

#[test]
fn abort_takes_the_rollout_back_and_retry_begins_it_anew() {
    let mut hub = hub(staged());
    hub.obey(&[]);
    hub.turn();
    assert_eq!(hub.told("r2").len(), 3);
    let (applied, message) = hub.ask(ActionKind::Abort);
    assert!(applied, "{message}");
    assert!(hub.told("r2").is_empty());
    hub.obey(&[]);
    hub.turn();
    assert_eq!(hub.answer().conditions.stalled.reason, "Aborted");
    let known = &hub.desired.deployments[&key("digits")].revisions[&rev("r2")];
    assert_eq!(known.outcome, Outcome::Stopped);
    let (applied, message) = hub.ask(RETRY);
    assert!(applied, "{message}");
    assert_eq!(hub.told("r2"), ["c0"]);
    assert_eq!(attempts(&hub)[0], ("r2".to_owned(), 2));
}

#[test]
fn undo_goes_to_the_promoted_revision_before_until_the_spec_asks_for_another() {
    let mut hub = hub(staged());
    for _ in 0..3 {
        hub.obey(&[]);
        hub.turn();
    }
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    check_refused(&mut hub, ActionKind::Abort, "undo goes to an earlier one");
    let (applied, message) = hub.ask(ActionKind::Undo);
    assert!(applied, "{message}");
    assert_eq!(
        hub.told("r1").len(),
        3,
        "going back is not paced like going forward"
    );
    hub.obey(&[]);
    hub.turn();
    assert_eq!(hub.answer().standing.current, Some(rev("r1")));
    let conditions = &hub.answer().conditions;
    assert_eq!(conditions.stalled.reason, "Undone");
    assert!(!conditions.ready.status && conditions.degraded.status);
    // It is still so after a restart, and over with the next revision.
    hub.restart();
    hub.turn();
    assert_eq!(hub.told("r1").len(), 3);
    hub.beat_all(&[]);
    hub.edit(|it| {
        it.revisions.insert(rev("r3"), Default::default());
        it.update = Some(rev("r3"));
    });
    hub.turn();
    assert_eq!(hub.told("r3"), ["c0"]);
    assert!(hub.answer().standing.undo.is_none());
}

#[test]
fn retry_ends_an_undo_and_rolls_the_revision_out_again_stage_by_stage() {
    let mut hub = hub(staged());
    for _ in 0..3 {
        hub.obey(&[]);
        hub.turn();
    }
    hub.ask(ActionKind::Undo);
    hub.obey(&[]);
    hub.turn();
    let (applied, message) = hub.ask(RETRY);
    assert!(applied, "{message}");
    assert_eq!(hub.told("r2"), ["c0"]);
    assert_eq!(hub.answer().standing.current, Some(rev("r1")));
}

#[test]
fn an_action_for_what_is_not_there_is_refused_by_name() {
    let mut hub = hub(staged());
    let (applied, message) = hub.ask_of(RETRY, Some("r9"));
    assert!(!applied && message.contains("not of r9"), "{message}");
    let (applied, message) = hub.ask_of(ActionKind::Undo, Some("r9"));
    assert!(!applied && message.contains("no revision r9"), "{message}");
    let stage = Some("nowhere".parse().unwrap());
    check_refused(&mut hub, ActionKind::Promote { stage }, "not in nowhere");
}

#[test]
fn two_actions_at_once_are_decided_one_after_the_other() {
    let mut hub = hub(staged());
    hub.says("c0", late(1));
    hub.turn();
    let request = |uid: &str, kind| ActionRequest {
        uid: uid.to_owned(),
        name: uid.to_owned(),
        created: hub.now,
        kind,
        revision: None,
        attempt: Some(1),
    };
    let both = vec![request("b", RETRY), request("a", RETRY)];
    hub.edit(|it| it.actions = both);
    hub.turn();
    let standing = hub.desired.deployments[&key("digits")].standing.clone();
    let applied: Vec<_> = standing
        .decided
        .iter()
        .map(|it| (it.uid.as_str(), it.applied))
        .collect();
    assert_eq!(applied, [("a", true), ("b", false)]);
    assert_eq!(attempts(&hub)[0].1, 2);
}

/// The hub dies after the revision's status was written, before the deployment's: the next leader must neither
/// lose the action nor do it twice.
#[test]
fn an_action_is_applied_once_wherever_the_hub_dies() {
    for (kind, fail) in [(RETRY_FORGETTING, true), (RETRY, false)] {
        let mut hub = hub(staged());
        if fail {
            hub.says("c0", rejecting("r2"));
        } else {
            hub.says("c0", late(1));
        }
        hub.turn();
        hub.obey(if fail { &[] } else { &["c0"] });
        hub.turn();
        let request = hub.request(kind, None);
        hub.edit(|it| it.actions.push(request));
        // The plan is made, and only what is written first arrives.
        let plan = hub.fleet.plan(hub.now);
        let answer = &plan.deployments[&key("digits")];
        let deployment = hub.desired.deployments.get_mut(&key("digits")).unwrap();
        for (name, change) in &answer.outcomes {
            deployment.revisions.get_mut(name).unwrap().outcome = change.outcome;
        }
        if let Some((name, attempt)) = &answer.attempt {
            deployment.revisions.get_mut(name).unwrap().attempt = *attempt;
        }
        hub.restart();
        hub.turn();
        hub.beat_all(&[]);
        hub.turn();
        assert_eq!(
            attempts(&hub)[0],
            ("r2".to_owned(), 2),
            "forgetting: {fail}"
        );
        assert_eq!(hub.told("r2"), ["c0"]);
        // And once more, after everything arrived.
        hub.restart();
        hub.turn();
        hub.beat_all(&[]);
        hub.turn();
        assert_eq!(attempts(&hub)[0], ("r2".to_owned(), 2));
        // Once its outcome is told, the note goes.
        hub.edit(|it| it.actions.clear());
        hub.turn();
        assert!(
            hub.desired.deployments[&key("digits")]
                .standing
                .decided
                .is_empty()
        );
    }
}

#[test]
fn a_retry_under_pause_goes_on_where_the_clusters_are() {
    let mut it = staged();
    it.policy.on_failure = OnFailure::Pause;
    let mut hub = hub(it);
    hub.says("c0", rejecting("r2"));
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0"]);
    let (applied, message) = hub.ask(RETRY_FORGETTING);
    assert!(applied, "{message}");
    assert_eq!(attempts(&hub)[0], ("r2".to_owned(), 2));
    hub.obey(&[]);
    hub.turn();
    assert_eq!(hub.told("r2").len(), 3);
}

#[test]
fn a_registry_away_for_longer_than_every_deadline_condemns_nothing() {
    let mut hub = hub(staged());
    hub.says("c0", late(1));
    hub.turn();
    for _ in 0..50 {
        hub.later(600);
        hub.beat_all(&[]);
        hub.turn();
    }
    let known = &hub.desired.deployments[&key("digits")].revisions[&rev("r2")];
    assert_eq!(known.outcome, Outcome::Stopped);
    // It is back.
    let (applied, _) = hub.ask(RETRY);
    assert!(applied);
    for _ in 0..3 {
        hub.obey(&[]);
        hub.turn();
    }
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    assert!(hub.answer().conditions.ready.status);
}
