//! What a device remembers of attempts and of what it condemned.

use super::restarts::driven;
use super::table::{revision, target};
use super::*;

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

#[test]
fn a_trial_without_traffic_says_too_few_samples_and_goes_on() {
    let record = Record {
        good: vec![super::table::version("v1")],
        attempt: Some(Attempt {
            target: target("v2"),
            install: super::table::install("v2"),
            stage: AttemptStage::Staged,
            writes: 0,
            preflights: 1,
        }),
        ..Record::default()
    };
    let order = Observation::Ordered(Order::Run(target("v2")));
    let state = driven(State::recover(record, "boot"), order, 0);
    let state = driven(state, Observation::PreflightPassed(revision("v2")), 0);
    let state = driven(state, Observation::Loaded(revision("v2")), 0);
    let state = driven(state, Observation::Tick, 9_999);
    assert_eq!(state.report().problem, None, "its probation goes on");
    let state = driven(state, Observation::Tick, 10_000);
    let first = state.report();
    assert_eq!(first.standing, Standing::Trial);
    let problem = first.problem.clone().unwrap();
    assert_eq!(problem.reason, Reason::TOO_FEW_SAMPLES);
    assert_eq!(
        problem.message,
        "its probation of 10 s is over, but of at least 10 requests that its policy wants to see fewer were judged: the \
         trial goes on until there are as many"
    );
    // A day later, and with a request: the same words, so that nothing is written for it.
    let few = |count| Observation::Sampled(revision("v2"), super::table::samples(count, 0));
    let state = driven(state, few(1), 86_400_000);
    let state = driven(state, Observation::Tick, 86_400_000);
    assert_eq!(state.report(), first);
    let state = driven(state, few(9), 86_401_000);
    let state = driven(state, Observation::Tick, 86_401_000);
    assert_eq!(
        (state.report().standing, state.report().problem),
        (Standing::Ready, None)
    );
}
