//! Random histories with crashes: the promises that must hold after every step.

use proptest::prelude::*;

use super::restarts::{host_died, in_trial, powered_off_and_on};
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
            preflights: 1,
        }),
        ..Record::default()
    };
    let (_, effects) = step(State::recover(record, "boot"), Observation::Tick, 0);
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
