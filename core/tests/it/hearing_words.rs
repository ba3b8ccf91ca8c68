//! Whether the hub may trust its ears: mass silence, new leaders, clocks.

use rimward_core::fleet::{ActionKind, AfterUpdate, Because, ConnectionState, Outcome};

use crate::fixtures::{cluster, fleet_of, key, one, rev};
use crate::hub::Hub;
use crate::silence_words::{canary, hub, pass};

const PROMOTE: ActionKind = ActionKind::Promote { stage: None };

#[test]
fn when_much_of_the_fleet_falls_silent_at_once_nothing_moves_until_it_is_back_or_a_person_says_so()
{
    let silent = ["c5", "c6", "c7", "c8", "c9"];
    for overruled in [false, true] {
        let mut it = canary(true);
        it.policy.stages[0].bake_seconds = 600;
        let mut hub = hub(it);
        pass(&mut hub, 4, &[]);
        pass(&mut hub, 6, &silent);
        assert_eq!(hub.fleet.doubt().unwrap().silent, 5);
        assert!(matches!(hub.why("c1"), Some(Because::Doubt { .. })));
        pass(&mut hub, 30, &silent);
        assert_eq!(hub.told("r2"), ["c0"]);
        if overruled {
            let (applied, words) =
                hub.ask(rimward_core::fleet::ActionKind::Promote { stage: None });
            assert!(applied, "{words}");
            pass(&mut hub, 30, &silent);
            assert_eq!(hub.told("r2").len(), 5);
        } else {
            pass(&mut hub, 40, &[]);
            assert_eq!(hub.told("r2").len(), 10);
        }
        assert!(hub.fleet.doubt().is_some() == overruled);
    }
}

#[test]
fn a_clock_that_jumps_ten_years_neither_passes_nor_fails_anything() {
    let decade = 315_360_000;
    for jump in [decade, -decade] {
        let mut it = canary(true);
        it.policy.stages[0].bake_seconds = 3600;
        let mut hub = hub(it);
        pass(&mut hub, 5, &[]);
        // The leader's clock is monotonic; only another leader has another one.
        hub.now = rimward_core::time::Timestamp(hub.now.0 + jump);
        hub.restart();
        hub.turn();
        assert_eq!(hub.told("r2"), ["c0"]);
        pass(&mut hub, 30, &[]);
        assert_eq!(hub.told("r2"), ["c0"]);
        assert_eq!(hub.answer().clusters.failed, 0);
        pass(&mut hub, 45, &[]);
        assert!(hub.told("r2").len() > 1, "{jump}: it bakes to its end");
    }
}

#[test]
fn an_empty_fleet_of_unheard_clusters_says_so() {
    let mut hub = Hub::new(
        one(canary(false)),
        fleet_of([("c0", cluster()), ("c1", cluster())]),
    );
    for name in ["c0", "c1"] {
        hub.cluster(name, |it| it.connection = ConnectionState::NeverJoined);
    }
    hub.turn();
    assert!(hub.told("r2").is_empty());
    assert_eq!(hub.why("c0"), Some(Because::NeverJoined));
}

#[test]
fn that_a_doubt_was_overruled_outlives_the_leader() {
    let silent = ["c5", "c6", "c7", "c8", "c9"];
    let mut it = canary(true);
    it.policy.stages[0].bake_seconds = 1200;
    let mut hub = hub(it);
    pass(&mut hub, 4, &[]);
    pass(&mut hub, 6, &silent);
    assert!(hub.fleet.doubt().is_some());
    assert!(hub.ask(PROMOTE).0);
    hub.restart();
    pass(&mut hub, 60, &silent);
    assert!(hub.fleet.doubt().is_some(), "the same five");
    assert_eq!(hub.told("r2").len(), 5);
}

/// As a replica tells that stood by: who died over the years and was called offline then, and who fell silent lately.
#[test]
fn those_who_died_long_ago_make_no_new_leader_doubt() {
    let mut hub = hub(canary(true));
    let dead = ["c5", "c6", "c7", "c8", "c9"];
    pass(&mut hub, 1, &dead);
    for name in dead {
        hub.cluster(name, |it| it.connection = ConnectionState::Silent);
    }
    hub.restart();
    pass(&mut hub, 30, &dead);
    assert_eq!(hub.fleet.doubt(), None);
    assert_eq!(hub.told("r2").len(), 5);
}

/// Another policy with a shorter grace is no news of those who have been silent for hours.
#[test]
fn a_shorter_grace_makes_nobody_fall_silent_anew() {
    let mut hub = hub(canary(true));
    let one_by_one = ["c4", "c5", "c6", "c7", "c8", "c9"];
    for last in 0..one_by_one.len() {
        pass(&mut hub, 6, &one_by_one[..=last]);
        assert_eq!(hub.fleet.doubt(), None, "one at a time");
    }
    pass(&mut hub, 6, &one_by_one);
    for grace in [60, 300, 60] {
        hub.edit(|it| it.policy.offline.grace_seconds = grace);
        pass(&mut hub, 3, &one_by_one);
        assert_eq!(hub.fleet.doubt(), None, "{grace} s");
    }
}

#[test]
fn nobody_is_stopped_by_a_silence_that_the_hub_doubts() {
    let silent = ["c0", "c6", "c7", "c8", "c9"];
    let mut it = canary(true);
    it.policy.offline.after_update = AfterUpdate::Fail;
    let mut hub = hub(it);
    hub.turn();
    pass(&mut hub, 30, &silent);
    assert!(hub.fleet.doubt().is_some());
    let known = &hub.desired.deployments[&key("digits")].revisions[&rev("r2")];
    assert_eq!(known.outcome, Outcome::Pending, "{}", known.message);
}

/// A leader that has heard nobody yet knows of no proof and of no suspect: that is no answer.
#[test]
fn a_new_leader_decides_a_promote_once_it_has_listened() {
    let mut hub = hub(canary(true));
    hub.turn();
    pass(&mut hub, 8, &["c0"]);
    assert!(matches!(hub.why("c0"), Some(Because::Suspect { .. })));
    hub.restart();
    let request = hub.request(PROMOTE, None);
    // In the last stage, where nothing is proven: only the suspect makes sense of it.
    hub.edit(|it| {
        it.policy.stages.truncate(1);
        it.policy.stages[0].members = rimward_core::fleet::Members::Percent(100);
        it.actions.push(request);
    });
    hub.turn();
    assert!(hub.answer().standing.decided.is_empty(), "not yet");
    pass(&mut hub, 8, &["c0"]);
    let decided = &hub.answer().standing.decided;
    assert!(decided[0].applied, "{}", decided[0].message);
}

/// It means the doubt, of which the next leader does not know at first: it must not pass the stage instead.
#[test]
fn a_promote_past_a_doubt_is_decided_by_a_leader_that_doubts_too() {
    let silent = ["c5", "c6", "c7", "c8", "c9"];
    let mut hub = hub(canary(true));
    hub.turn();
    pass(&mut hub, 6, &silent);
    assert!(hub.fleet.doubt().is_some());
    hub.restart();
    let request = hub.request(PROMOTE, None);
    hub.edit(|it| it.actions.push(request));
    hub.turn();
    assert!(hub.answer().standing.decided.is_empty(), "not yet");
    pass(&mut hub, 8, &silent);
    let standing = &hub.answer().standing;
    assert!(standing.decided[0].applied);
    let record = standing.stage.clone().unwrap();
    assert!(
        record.doubt_overruled && record.passed.is_empty(),
        "{record:?}"
    );
}
