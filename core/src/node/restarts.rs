//! A trial across starts: what uses up a start, what is kept of what the candidate showed, and how long a machine in
//! trouble tries.

use super::table::{install, revision, samples, target};
use super::*;

/// Does what a machine asks for, as a device does on which all goes well, until it starts a candidate or is done.
pub(super) fn driven(state: State, observation: Observation, now: Millis) -> State {
    let (mut state, mut effects) = step(state, observation, now);
    for _ in 0..20 {
        let next = match effects.first() {
            Some(Effect::Preflight(attempt)) => {
                Observation::PreflightPassed(attempt.target.revision.clone())
            }
            Some(Effect::Put(_)) => Observation::Persisted,
            Some(_) | None => return state,
        };
        (state, effects) = step(state, next, now);
    }
    panic!("does not end: {state:#?}");
}

/// A device that serves `v1` and starts this candidate for the first time.
pub(super) fn in_trial(target: Target) -> State {
    let record = Record {
        good: vec![super::table::version("v1")],
        attempt: Some(Attempt {
            install: install(target.revision.as_str()),
            target,
            stage: AttemptStage::Staged,
            writes: 1,
            preflights: 1,
        }),
        ..Record::default()
    };
    let state = driven(State::recover(record, "boot"), Observation::Tick, 0);
    assert_eq!(state.phase(), &Phase::Starting);
    state
}

pub(super) fn host_died(state: State, blame: Blame, now: Millis) -> State {
    let problem = Problem::new(Reason::HOST_DIED, "signal 11");
    driven(state, Observation::HostDied(problem, blame), now)
}

/// Started with such a record, up to the preflight.
fn in_preflight(record: Record) -> State {
    let (state, effects) = step(State::recover(record, "boot"), Observation::Tick, 0);
    assert!(matches!(effects[..], [Effect::Put(_)]), "{effects:?}");
    let (state, effects) = step(state, Observation::Persisted, 0);
    assert!(matches!(effects[..], [Effect::Preflight(_)]), "{effects:?}");
    state
}

/// Without a word to anybody; what was put or noted is durable.
pub(super) fn powered_off_and_on(state: State) -> State {
    let record = state.record().clone();
    driven(State::recover(record, "another boot"), Observation::Tick, 0)
}

fn loaded(state: State, now: Millis) -> State {
    driven(state, Observation::Loaded(revision("v2")), now)
}

fn sampled(state: State, requests: u64, errors: u64, now: Millis) -> State {
    let samples = samples(requests, errors);
    driven(state, Observation::Sampled(revision("v2"), samples), now)
}

/// Needs 40 samples.
fn slow_judge() -> Target {
    let mut target = target("v2");
    target.health.samples_min = 40;
    target
}

#[test]
fn ten_ignitions_lose_no_good_release_and_no_more_than_half_of_what_it_showed() {
    let mut state = in_trial(slow_judge());
    let mut starts = 0;
    for ignition in 0..10 {
        assert_eq!(state.phase(), &Phase::Starting, "ignition {ignition}");
        starts += 1;
        state = loaded(state, 0);
        for second in 1..=8 {
            state = sampled(state, 1, 0, second * 5_000);
        }
        if state.record().attempt.is_none() {
            break;
        }
        state = powered_off_and_on(state);
    }
    assert_eq!(state.record().good[0], super::table::version("v2"));
    assert_eq!(state.record().judged.as_ref().map(|it| it.errors), Some(0));
    assert!(starts <= 10, "{starts} starts");
}

#[test]
fn ten_ignitions_without_a_single_request_lose_no_release_either() {
    let mut state = in_trial(slow_judge());
    for _ in 0..10 {
        state = powered_off_and_on(loaded(state, 0));
    }
    assert_eq!(state.phase(), &Phase::Starting);
    let mut state = loaded(state, 0);
    for second in 1..=20 {
        state = sampled(state, 2, 0, second * 1_000);
    }
    assert_eq!(state.record().good[0], super::table::version("v2"));
}

#[test]
fn a_candidate_that_takes_its_board_down_at_each_start_is_rolled_back() {
    let mut state = in_trial(slow_judge());
    let mut starts = 0;
    while state.phase() == &Phase::Starting {
        starts += 1;
        state = powered_off_and_on(loaded(state, 0));
    }
    assert_eq!(starts, u32::from(LOST_STARTS_MAX));
    let bad = state.record().why_bad(&revision("v2")).unwrap();
    assert_eq!(bad.problem.reason, Reason::STARTS_USED_UP);
    assert_eq!(state.serving().active, Some(super::table::version("v1")));
}

#[test]
fn a_start_that_showed_something_begins_the_count_anew() {
    let mut state = in_trial(slow_judge());
    for start in 0..40 {
        state = loaded(state, 0);
        // One request every fifth start, or half a minute without one.
        state = match start % 10 {
            0 => sampled(state, 1, 0, 1_000),
            5 => driven(state, Observation::Tick, STEADY_MILLISECONDS),
            _ => state,
        };
        state = powered_off_and_on(state);
        assert_eq!(state.phase(), &Phase::Starting, "start {start}");
    }
    let errors_only = (0..40).try_fold(in_trial(slow_judge()), |state, _| {
        let state = sampled(loaded(state, 0), 1, 1, 1_000);
        let state = powered_off_and_on(state);
        (state.phase() == &Phase::Starting).then_some(state)
    });
    assert_eq!(errors_only, None, "an error shows nothing");
}

#[test]
fn an_orderly_stop_uses_up_nothing_and_forgets_nothing() {
    let mut state = in_trial(slow_judge());
    for start in 1..=100 {
        state = loaded(state, 0);
        state = match start % 10 {
            0 => sampled(state, 1, 0, 1_000),
            _ => state,
        };
        state = driven(state, Observation::Stopping, 2_000);
        state = powered_off_and_on(state);
        assert_eq!(state.phase(), &Phase::Starting, "start {start}");
    }
    assert_eq!(state.shown().good(), 10);
    assert_eq!(state.shown().watched_milliseconds, 200_000);
}

#[test]
fn a_death_by_another_deployment_uses_up_no_start_and_costs_no_write_and_no_sample() {
    let mut state = sampled(loaded(in_trial(slow_judge()), 0), 5, 0, 1_000);
    let before = state.record().clone();
    for _ in 0..100 {
        let died =
            Observation::HostDied(Problem::new(Reason::HOST_DIED, "signal 11"), Blame::Another);
        let (next, effects) = step(state, died, 1_500);
        assert_eq!(effects, []);
        assert_eq!(next.phase(), &Phase::Starting);
        state = loaded(next, 1_500);
    }
    assert_eq!(state.record(), &before);
    assert_eq!(state.shown().good(), 5);
    for second in 2..=12 {
        state = sampled(state, 5, 0, second * 1_000);
    }
    assert_eq!(state.record().good[0], super::table::version("v2"));
}

#[test]
fn what_a_candidate_shows_is_noted_with_growing_pauses() {
    let mut target = slow_judge();
    target.health.samples_min = 1_000_000;
    let mut state = loaded(in_trial(target), 0);
    let mut notes = Vec::new();
    for second in 1..=3_600 {
        let one = Observation::Sampled(revision("v2"), samples(1, 0));
        let (next, effects) = step(state, one, second * 1_000);
        state = next;
        match effects.as_slice() {
            [] => {}
            [Effect::Note(_)] => notes.push(second),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(notes, [1, 16, 46, 106, 226, 466, 946, 1_906]);
}

#[test]
fn an_interrupted_preflight_is_tried_again_with_growing_pauses_and_not_for_ever() {
    let mut state = in_preflight(staged());
    let (mut now, mut waits) = (0, Vec::new());
    while state.phase() == &Phase::Preflight {
        let why = Problem::new(Reason::new("PreflightInterrupted"), "x".repeat(2_000));
        (state, _) = step(
            state,
            Observation::PreflightInterrupted(revision("v2"), why),
            now,
        );
        let at = state.wakes_at().unwrap();
        if at == Millis::MAX {
            break;
        }
        waits.push((at - now) / 1_000);
        now = at;
        (state, _) = step(state, Observation::Tick, now);
    }
    assert_eq!(waits, [30, 60, 120, 240, 480, 960, 1_920]);
    let report = state.report();
    assert_eq!(report.standing, Standing::Blocked);
    assert!(
        report
            .problem
            .unwrap()
            .message
            .contains("kubectl rimward retry")
    );
    assert!(state.record().bad.is_empty());
    // A person's retry is another attempt at the same revision.
    let order = Order::Run(Target {
        attempt: 2,
        ..target("v2")
    });
    let (state, effects) = step(state, Observation::Ordered(order), now);
    assert!(matches!(effects[..], [Effect::Preflight(_)]));
    assert_eq!(state.report().attempt, Some(2));
}

fn staged() -> Record {
    Record {
        good: vec![super::table::version("v1")],
        attempt: Some(Attempt {
            target: target("v2"),
            install: install("v2"),
            stage: AttemptStage::Staged,
            writes: 1,
            preflights: 1,
        }),
        ..Record::default()
    }
}

#[test]
fn a_preflight_that_takes_its_agent_down_each_time_is_blocked_until_a_person_asks_again() {
    let mut record = staged();
    let mut preflights = 1;
    // The agent dies in the middle, without a word.
    let state = loop {
        assert!(preflights < 100, "it does not end");
        let state = State::recover(record, "boot");
        let (state, effects) = step(state, Observation::Tick, 0);
        if effects.is_empty() {
            break state;
        }
        let (state, _) = step(state, Observation::Persisted, 0);
        assert_eq!(state.phase(), &Phase::Preflight);
        preflights += 1;
        record = state.record().clone();
    };
    assert_eq!(preflights, u32::from(LOST_PREFLIGHTS_MAX));
    let report = state.report();
    assert_eq!(report.standing, Standing::Blocked);
    let problem = report.problem.unwrap();
    assert_eq!(problem.reason.as_str(), "PreflightInterrupted");
    assert!(
        problem.message.contains("kubectl rimward retry"),
        "{problem:?}"
    );
    assert_eq!(state.serving().active, Some(super::table::version("v1")));
    assert!(state.record().bad.is_empty(), "that says nothing for sure");
    // Neither the hub's order, nor time, nor another start begins it again.
    let same = Observation::Ordered(Order::Run(target("v2")));
    let (state, effects) = step(state, same, 1);
    assert_eq!(effects, []);
    let (state, effects) = step(state, Observation::TrustChanged, 2);
    assert_eq!(effects, []);
    let again = State::recover(state.record().clone(), "boot");
    let (_, effects) = step(again, Observation::Tick, 0);
    assert_eq!(effects, []);
    // A person's retry is another attempt at the same revision, and counts from the beginning.
    let order = Order::Run(Target {
        attempt: 2,
        ..target("v2")
    });
    let (state, effects) = step(state, Observation::Ordered(order), 3);
    let [Effect::Put(record)] = &effects[..] else {
        panic!("{effects:?}");
    };
    let attempt = record.attempt.as_ref().unwrap();
    assert_eq!((attempt.target.attempt, attempt.preflights), (2, 1));
    let (_, effects) = step(state, Observation::Persisted, 3);
    assert!(matches!(effects[..], [Effect::Preflight(_)]));
}

#[test]
fn an_agent_that_is_stopped_in_a_preflight_uses_up_nothing() {
    let mut record = staged();
    for _ in 0..100 {
        let state = in_preflight(record);
        let (state, effects) = step(state, Observation::Stopping, 1);
        let [Effect::Note(noted)] = &effects[..] else {
            panic!("{effects:?}");
        };
        assert_eq!(state.record(), noted);
        record = noted.clone();
    }
    assert!(record.attempt.unwrap().preflights <= 1);
}
