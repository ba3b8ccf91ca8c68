//! Who belongs to a stage: members that were given nothing after all leave their places, and suspects say what their
//! stage makes of them.

use std::collections::BTreeSet;

use rimward_core::fleet::{AfterUpdate, Amount, Because, Members, SuspectPlace};

use crate::fixtures::{key, named, rev};
use crate::hub::Hub;
use crate::silence_words::{canary, hub, pass};

/// Two canaries at once, which bake for hours.
fn two_canaries() -> Hub {
    let mut it = canary(false);
    it.policy.stages[0].members = Members::Count(2);
    it.policy.stages[0].max_concurrency = Amount::Count(2);
    it.policy.stages[0].max_unavailable = None;
    it.policy.stages[0].bake_seconds = 36_000;
    hub(it)
}

/// It never got anything, so nobody waits for it.
#[test]
fn a_member_that_was_given_nothing_after_all_and_is_silent_leaves_its_place_to_another() {
    let mut hub = hub(canary(false));
    let before = hub.observed.clusters[&named("c0")].clone();
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0"]);
    pass(&mut hub, 8, &["c0"]);
    assert_eq!(hub.told("r2"), ["c0"], "a suspect is waited for");
    hub.cluster("c0", |it| {
        it.entries = before.entries;
        it.generation += 1;
    });
    hub.turn();
    assert_eq!(hub.told("r2"), ["c1"]);
}

/// Between a spec and its record, which could not be written at first.
#[test]
fn a_member_that_falls_silent_before_the_rollout_is_on_record_leaves_its_place_to_another() {
    let mut it = canary(false);
    it.update = Some(rev("r1"));
    let mut hub = hub(it);
    pass(&mut hub, 3, &[]);
    let record = hub.answer().standing.stage.clone().unwrap();
    assert_eq!(record.revision, rev("r1"));
    hub.edit(|it| it.update = Some(rev("r2")));
    drop(hub.fleet.plan(hub.now));
    hub.fleet.revert(&key("digits"), &BTreeSet::new());
    hub.edit(|_| {});
    hub.later(330);
    hub.beat_all(&["c0"]);
    hub.turn();
    assert_eq!(hub.told("r2"), ["c1"]);
}

/// The other member has the release; that does not make one that never got it a member for ever.
#[test]
fn one_of_two_members_that_was_given_nothing_after_all_leaves_its_place_to_another() {
    let mut hub = two_canaries();
    let before = hub.observed.clusters[&named("c0")].clone();
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0", "c1"]);
    pass(&mut hub, 8, &["c0"]);
    hub.cluster("c0", |it| {
        it.entries = before.entries;
        it.generation += 1;
    });
    hub.turn();
    assert_eq!(hub.told("r2"), ["c1", "c2"]);
}

/// Its proof let the stage pass; what becomes of it later holds nobody up, unless the policy says that it fails.
#[test]
fn a_proof_that_falls_silent_after_its_stage_says_so() {
    for (after, says) in [
        (
            AfterUpdate::Wait,
            "its stage is passed, and no longer waits for it",
        ),
        (AfterUpdate::Fail, "it counts as failed"),
    ] {
        let mut it = canary(true);
        it.policy.offline.after_update = after;
        it.policy.stages[1].max_unavailable = None;
        it.policy.stages[1].bake_seconds = 36_000;
        let mut hub = hub(it);
        pass(&mut hub, 3, &[]);
        assert!(hub.told("r2").len() > 1, "the first stage is passed");
        pass(&mut hub, 8, &["c0"]);
        let why = hub.why("c0").unwrap();
        let place = SuspectPlace::Passed;
        assert!(matches!(why, Because::Suspect { place: it, .. } if it == place));
        assert!(why.to_string().contains(says), "{why}");
    }
}

/// A policy that is edited on the way may put a cluster that has the release into a later stage.
#[test]
fn a_suspect_of_a_later_stage_is_not_what_this_one_waits_for() {
    let mut hub = two_canaries();
    pass(&mut hub, 2, &[]);
    assert_eq!(hub.told("r2"), ["c0", "c1"]);
    hub.edit(|it| it.policy.stages[0].members = Members::Count(1));
    pass(&mut hub, 8, &["c1"]);
    let why = hub.why("c1").unwrap();
    let place = SuspectPlace::Ahead;
    assert!(
        matches!(why, Because::Suspect { place: it, .. } if it == place),
        "{why:?}"
    );
    assert!(!why.to_string().contains("promote"), "{why}");
    let waits = hub.answer().waiting_for().unwrap();
    assert!(!waits.contains("c1"), "{waits}");
}
