//! Random histories with crashes: the promises that must hold after every step.

use proptest::prelude::*;

use super::table::{install, revision, samples, target};
use super::*;

const REVISIONS: [&str; 3] = ["v1", "v2", "v3"];

#[derive(Debug, Clone)]
enum Move {
    Observe(u8, u8),
    Wait(u16),
    /// The process dies; the write in flight, if any, was or was not durable.
    Crash(bool),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        8 => (0_u8..22, 0_u8..3).prop_map(|(kind, of)| Move::Observe(kind, of)),
        1 => (0_u16..30_000).prop_map(Move::Wait),
        1 => any::<bool>().prop_map(Move::Crash),
    ]
}

fn observation(kind: u8, of: u8) -> Observation {
    let name = REVISIONS[usize::from(of)];
    let why = |reason| Problem::new(reason, "walk");
    match kind {
        0 | 1 => Observation::Ordered(Order::Run(target(name))),
        2 => Observation::Ordered(Order::Remove),
        3 => Observation::Held(of == 0),
        4 => Observation::TrustChanged,
        5 => Observation::Staged(revision(name), install(name)),
        6 => Observation::StageBlocked(revision(name), why(Reason::FETCH_FAILED)),
        7 => Observation::StageRefused(revision(name), why(Reason::new("ManifestInvalid"))),
        8 => Observation::PreflightPassed(revision(name)),
        9 => Observation::PreflightFailed(revision(name), why(Reason::new("GoldenVectorMismatch"))),
        10 => Observation::PreflightBlocked(revision(name), why(Reason::PREFLIGHT_UNAVAILABLE)),
        11 => Observation::PersistFailed(why(Reason::STATE_UNWRITABLE)),
        12 => Observation::Loaded(revision(name)),
        13 => Observation::LoadFailed(revision(name), why(Reason::new("ModelRefused"))),
        14 => Observation::Unsound(revision(name), why(Reason::CORRUPT)),
        15 => {
            let blame = [Blame::Candidate, Blame::Another, Blame::Nobody];
            Observation::HostDied(why(Reason::HOST_DIED), blame[usize::from(of)])
        }
        16 => Observation::Sampled(revision(name), samples(20, 0)),
        17 => Observation::Sampled(revision(name), samples(20, 15)),
        18 => Observation::Sampled(revision(name), samples(1, 0)),
        19 => Observation::PreflightInterrupted(revision(name), why(Reason::NO_SPACE)),
        20 => Observation::Stopping,
        21 => Observation::Ordered(Order::Run(Target {
            attempt: 2 + u32::from(of),
            forget_verdicts_before: u32::from(of) * 2,
            ..target("v2")
        })),
        _ => Observation::Persisted,
    }
}

/// Checks what must hold of any state, whatever happened before.
fn check(state: &State) {
    let record = state.record();
    let serving = state.serving();
    for version in [&serving.active, &serving.fallback, &serving.starting]
        .into_iter()
        .flatten()
    {
        assert!(
            record.why_bad(&version.revision).is_none(),
            "a rejected revision runs: {state:#?}"
        );
        let committed = record.good.contains(version);
        let announced = record.attempt.as_ref().is_some_and(|attempt| {
            attempt.candidate() == *version && attempt.stage != AttemptStage::Staged
        });
        assert!(
            committed || announced,
            "runs without a durable word of it: {state:#?}"
        );
    }
    assert!(record.good.len() <= usize::from(GOOD_MAX));
    assert!(record.bad.len() <= BAD_MAX);
    if let Some(attempt) = &record.attempt {
        assert!(attempt.writes <= WRITES_MAX);
        if let AttemptStage::Trial {
            lost, tries_left, ..
        } = attempt.stage
        {
            assert!(lost <= LOST_STARTS_MAX && tries_left < STARTS_MAX);
        }
        assert!(record.why_bad(&attempt.target.revision).is_none());
    }
}

/// Keeps account of what the supervisor has in flight, and refuses doubles.
#[derive(Default)]
struct InFlight {
    staging: bool,
    preflight: bool,
}

impl InFlight {
    fn take(&mut self, state: &State, effects: &[Effect]) {
        for effect in effects {
            match effect {
                Effect::Stage(_) => self.staging = true,
                Effect::CancelStaging => self.staging = false,
                Effect::Preflight(_) => self.preflight = true,
                Effect::CancelPreflight => self.preflight = false,
                Effect::Put(_) => assert!(
                    matches!(state.phase(), Phase::Saving { .. }),
                    "a write that nobody waits for"
                ),
                Effect::Note(_) => assert!(
                    matches!(state.phase(), Phase::Starting | Phase::Trial { .. }),
                    "a note that is not about a trial"
                ),
                Effect::Collect => {}
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn no_history_breaks_a_promise(moves in prop::collection::vec(moves(), 1..120)) {
        let mut state = State::recover(Record::default(), "boot");
        let mut flight = InFlight::default();
        let mut now = 0;
        // What the disk has: a note may be lost, a put that was acknowledged may not.
        let mut durable = Record::default();
        for one in moves {
            let observation = match one {
                Move::Observe(kind, of) => observation(kind, of),
                Move::Wait(milliseconds) => {
                    now += u64::from(milliseconds);
                    Observation::Tick
                }
                Move::Crash(was_durable) => {
                    let record = match state.phase() {
                        Phase::Saving { record, .. } if was_durable => Record::clone(record),
                        _ => durable.clone(),
                    };
                    durable = record.clone();
                    state = State::recover(record, "boot");
                    flight = InFlight::default();
                    Observation::Tick
                }
            };
            let good_before = state.record().good.clone();
            let acknowledged = observation == Observation::Persisted;
            let (next, effects) = step(state, observation, now);
            prop_assert!(
                acknowledged || next.record().good == good_before,
                "the committed versions changed without a durable write"
            );
            flight.take(&next, &effects);
            state = next;
            if acknowledged {
                durable = state.record().clone();
            }
            for effect in &effects {
                if let Effect::Note(record) = effect
                    && now % 2 == 0
                {
                    durable = record.clone();
                }
            }
            check(&state);
        }
    }

    /// However a candidate kills host, agent or device, a committed version has the traffic after a bounded number
    /// of starts, and the attempt is over.
    #[test]
    fn a_candidate_that_kills_everything_is_rolled_back(
        deaths in prop::collection::vec(0_u8..3, usize::from(STARTS_MAX + LOST_STARTS_MAX)),
    ) {
        let mut state = in_trial(target("v2"));
        let mut starts = 0;
        for death in deaths {
            if !matches!(state.phase(), Phase::Starting) {
                break;
            }
            starts += 1;
            state = match death {
                0 => host_died(state, Blame::Candidate, 0),
                1 => host_died(state, Blame::Nobody, 0),
                _ => powered_off_and_on(state),
            };
        }
        prop_assert!(starts < usize::from(STARTS_MAX + LOST_STARTS_MAX), "{starts} starts");
        prop_assert!(state.record().why_bad(&revision("v2")).is_some());
        prop_assert_eq!(state.serving().active, Some(super::table::version("v1")));
    }
}

/// Does what a machine asks for, as a device does on which all goes well, until it starts a candidate or is done.
fn driven(state: State, observation: Observation, now: Millis) -> State {
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
fn in_trial(target: Target) -> State {
    let record = Record {
        good: vec![super::table::version("v1")],
        attempt: Some(Attempt {
            install: install(target.revision.as_str()),
            target,
            stage: AttemptStage::Staged,
            writes: 1,
        }),
        ..Record::default()
    };
    let state = driven(State::recover(record, "boot"), Observation::Tick, 0);
    assert_eq!(state.phase(), &Phase::Starting);
    state
}

fn host_died(state: State, blame: Blame, now: Millis) -> State {
    let problem = Problem::new(Reason::HOST_DIED, "signal 11");
    driven(state, Observation::HostDied(problem, blame), now)
}

/// Without a word to anybody; what was put or noted is durable.
fn powered_off_and_on(state: State) -> State {
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
    let record = Record {
        attempt: Some(Attempt {
            target: target("v2"),
            install: install("v2"),
            stage: AttemptStage::Staged,
            writes: 1,
        }),
        ..Record::default()
    };
    let (mut state, _) = step(State::recover(record, "boot"), Observation::Tick, 0);
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

#[test]
fn a_verdict_is_forgotten_when_a_later_attempt_says_so_and_not_before() {
    let rejected = |attempt, forget_verdicts_before| {
        let bad = Bad {
            revision: revision("v2"),
            problem: Problem::new(Reason::TOO_SLOW, "slow"),
            in_trial: true,
            attempt: 2,
        };
        let record = Record {
            good: vec![super::table::version("v1")],
            bad: vec![bad],
            ..Record::default()
        };
        let order = Order::Run(Target {
            attempt,
            forget_verdicts_before,
            ..target("v2")
        });
        driven(
            State::recover(record, "boot"),
            Observation::Ordered(order),
            0,
        )
    };
    for (attempt, before) in [(2, 0), (3, 0), (3, 2), (2, 3)] {
        let state = rejected(attempt, before);
        assert_eq!(
            state.report().standing,
            Standing::RolledBack,
            "{attempt} {before}"
        );
        assert_eq!(state.report().attempt, Some(attempt));
    }
    let state = rejected(3, 3);
    assert!(matches!(state.phase(), Phase::Staging(_)));
    assert!(state.record().bad.is_empty(), "and durably so");
    let why = Problem::new(Reason::new("ManifestInvalid"), "no");
    let state = driven(state, Observation::StageRefused(revision("v2"), why), 0);
    assert_eq!(state.record().bad[0].attempt, 3);
}

#[test]
fn another_attempt_at_what_is_committed_is_only_reported() {
    let record = Record {
        good: vec![super::table::version("v1")],
        ..Record::default()
    };
    let order = Order::Run(Target {
        attempt: 7,
        forget_verdicts_before: 7,
        ..target("v1")
    });
    let (state, effects) = step(
        State::recover(record, "boot"),
        Observation::Ordered(order),
        0,
    );
    assert_eq!(effects, []);
    let report = state.report();
    assert_eq!(
        (report.standing, report.attempt),
        (Standing::Ready, Some(7))
    );
}

#[test]
fn a_record_of_before_attempts_and_samples_were_kept_is_read() {
    let text = r#"{"good":[],"attempt":{"target":{"revision":"v2","package":"sha256:3232323232323232323232323232323232323232323232323232323232323232","health":{"probation_seconds":10,"samples_min":10,"errors_permille_max":100,"latency_p99_milliseconds_max":50},"keep_revisions":2},"install":"sha256:cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd","stage":{"trial":{"triesLeft":3,"bootId":"boot"}},"writes":3},"bad":[{"revision":"v0","problem":{"reason":"TooSlow","message":"slow"},"in_trial":true}],"judged":null}"#;
    let record: Record = serde_json::from_str(text).unwrap();
    assert_eq!(record.bad[0].attempt, 1);
    let state = driven(State::recover(record, "boot"), Observation::Tick, 0);
    assert_eq!(state.phase(), &Phase::Starting);
    let attempt = state.candidate().unwrap();
    assert_eq!(attempt.target, target("v2"));
    assert!(matches!(
        attempt.stage,
        AttemptStage::Trial {
            tries_left: 3,
            lost: 1,
            ..
        }
    ));
    let again: Record =
        serde_json::from_str(&serde_json::to_string(state.record()).unwrap()).unwrap();
    assert_eq!(&again, state.record());
}

/// Answers every effect as a device does on which all goes well, until nothing is left to do.
fn settle(mut state: State, now: &mut Millis) -> State {
    let mut observations = vec![Observation::Tick];
    for _ in 0..100 {
        let Some(observation) = observations.pop() else {
            match state.phase() {
                Phase::Starting => {
                    let candidate = state.candidate().unwrap().candidate();
                    observations.push(Observation::Loaded(candidate.revision));
                }
                Phase::Trial { .. } => {
                    *now += 20_000;
                    let candidate = state.candidate().unwrap().candidate();
                    observations.push(Observation::Sampled(candidate.revision, samples(20, 0)));
                }
                _ => return state,
            }
            continue;
        };
        let (next, effects) = step(state, observation, *now);
        state = next;
        for effect in effects {
            match effect {
                Effect::Stage(target) => {
                    let name = target.revision.to_string();
                    observations.push(Observation::Staged(target.revision, install(&name)));
                }
                Effect::Preflight(attempt) => {
                    observations.push(Observation::PreflightPassed(attempt.target.revision));
                }
                Effect::Put(_) => observations.push(Observation::Persisted),
                Effect::CancelStaging
                | Effect::CancelPreflight
                | Effect::Collect
                | Effect::Note(_) => {}
            }
        }
    }
    panic!("does not settle: {state:#?}");
}

#[test]
fn a_crash_after_any_step_converges_to_the_same_end() {
    let mut now = 0;
    let installed = |name: &str, from: Record, now: &mut Millis| {
        let state = State::recover(from, "boot");
        let (state, _) = step(state, Observation::Ordered(Order::Run(target(name))), *now);
        // The order's first effect is lost with the first crash below; ticking starts it again.
        let (state, _) = step(state, Observation::TrustChanged, *now);
        let state = State {
            phase: Phase::Settled,
            ..state
        };
        settle(state, now)
    };
    let first = installed("v1", Record::default(), &mut now);
    let want = installed("v2", first.record().clone(), &mut now);
    assert_eq!(
        want.record().good.first(),
        Some(&super::table::version("v2"))
    );

    for crash_after in 0..12 {
        let mut state = State::recover(first.record().clone(), "boot");
        let mut observation = Observation::Ordered(Order::Run(target("v2")));
        for _ in 0..crash_after {
            let (next, effects) = step(state, observation, now);
            state = next;
            observation = match (effects.first(), state.phase()) {
                (Some(Effect::Stage(_)), _) => Observation::Staged(revision("v2"), install("v2")),
                (Some(Effect::Put(_)), _) => Observation::Persisted,
                (Some(Effect::Preflight(_)), _) => Observation::PreflightPassed(revision("v2")),
                (_, Phase::Starting) => Observation::Loaded(revision("v2")),
                (_, Phase::Trial { .. }) => {
                    now += 20_000;
                    Observation::Sampled(revision("v2"), samples(20, 0))
                }
                (_, _) => Observation::Tick,
            };
        }
        let end = installed("v2", state.record().clone(), &mut now);
        assert_eq!(end.record().good, want.record().good, "after {crash_after}");
        assert_eq!(end.record().attempt, None);
    }
}

#[test]
fn a_settled_machine_has_nothing_left_to_do() {
    let mut now = 0;
    let state = State::recover(Record::default(), "boot");
    let (mut state, _) = step(state, Observation::Ordered(Order::Run(target("v1"))), now);
    state.phase = Phase::Settled;
    let state = settle(state, &mut now);
    assert_eq!(state.report().standing, Standing::Ready);
    let (again, effects) = step(state.clone(), Observation::Tick, now + 60_000);
    assert_eq!(effects, []);
    assert_eq!(again, state);
}

#[test]
fn a_device_without_orders_goes_on_serving_what_it_committed() {
    let record = Record {
        good: vec![super::table::version("v1")],
        ..Record::default()
    };
    let (state, effects) = step(State::recover(record, "boot"), Observation::Tick, 0);
    assert_eq!(effects, []);
    assert_eq!(state.serving().active, Some(super::table::version("v1")));
    assert_eq!(state.report().standing, Standing::Ready);
}

#[test]
fn a_blocked_step_is_retried_later_and_later_and_never_rejected() {
    let state = State::recover(Record::default(), "boot");
    let (mut state, _) = step(state, Observation::Ordered(Order::Run(target("v1"))), 0);
    let mut now = 0;
    let mut waits = Vec::new();
    for _ in 0..8 {
        let why = Problem::new(Reason::new("SignatureMissing"), "no signature");
        let (next, _) = step(state, Observation::StageBlocked(revision("v1"), why), now);
        let at = next.wakes_at().unwrap();
        waits.push((at - now) / 1_000);
        now = at;
        let (next, effects) = step(next, Observation::Tick, now);
        assert_eq!(effects, [Effect::Stage(target("v1"))]);
        state = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60]);
    assert!(state.record().bad.is_empty());
}

#[test]
fn an_attempt_that_writes_without_end_is_rejected() {
    let record = Record {
        attempt: Some(Attempt {
            target: target("v2"),
            install: install("v2"),
            stage: AttemptStage::Staged,
            writes: WRITES_MAX,
        }),
        ..Record::default()
    };
    let (state, _) = step(State::recover(record, "boot"), Observation::Tick, 0);
    let (_, effects) = step(state, Observation::PreflightPassed(revision("v2")), 0);
    let [Effect::Put(record)] = effects.as_slice() else {
        panic!("{effects:?}");
    };
    let why = record.why_bad(&revision("v2")).unwrap();
    assert_eq!(why.problem.reason, Reason::TOO_MANY_WRITES);
}

#[test]
fn a_committed_version_that_could_not_be_loaded_is_tried_again_without_any_centre() {
    let record = Record {
        good: vec![super::table::version("v1")],
        ..Record::default()
    };
    let (state, _) = step(State::recover(record, "boot"), Observation::Tick, 0);
    let why = Problem::new(Reason::new("MemoryExceeded"), "for a moment");
    let failed = Observation::LoadFailed(revision("v1"), why);
    let (state, _) = step(state, failed, 100);
    assert_eq!(state.serving().active, None);
    assert_eq!(state.report().standing, Standing::Blocked);
    let at = state.wakes_at().unwrap();
    let (state, effects) = step(state, Observation::Tick, at);
    assert_eq!(effects, []);
    assert_eq!(state.serving().active, Some(super::table::version("v1")));
}
