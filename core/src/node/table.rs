//! Every phase × every observation, written out: what the machine becomes and what it asks for.

use super::*;
use crate::ids::{Digest, RevisionName};
use crate::verdict::{Health, Histogram, Samples};

pub(super) fn revision(name: &str) -> RevisionName {
    name.parse().unwrap()
}

pub(super) fn target(name: &str) -> Target {
    let byte = name.as_bytes().last().copied().unwrap_or(0);
    Target {
        revision: revision(name),
        package: Digest::from_sha256([byte; 32]),
        health: Health {
            probation_seconds: 10,
            samples_min: 10,
            errors_permille_max: Some(100),
            latency_p99_milliseconds_max: Some(50),
        },
        keep_revisions: 2,
        attempt: 1,
        forget_verdicts_before: 0,
    }
}

pub(super) fn install(name: &str) -> Digest {
    let byte = name.as_bytes().last().copied().unwrap_or(0);
    Digest::from_sha256([byte ^ 0xff; 32])
}

pub(super) fn version(name: &str) -> Version {
    Version {
        revision: revision(name),
        package: target(name).package,
        install: install(name),
    }
}

fn attempt(name: &str, stage: AttemptStage) -> Attempt {
    Attempt {
        target: target(name),
        install: install(name),
        stage,
        writes: 1,
        preflights: 1,
    }
}

fn trial(tries_left: u8, lost: u8) -> AttemptStage {
    AttemptStage::Trial {
        tries_left,
        boot_id: "boot".into(),
        lost,
        shown: Shown::default(),
    }
}

/// Another attempt at `v2`.
fn again(attempt: u32, forget_verdicts_before: u32) -> Observation {
    Observation::Ordered(Order::Run(Target {
        attempt,
        forget_verdicts_before,
        ..target("v2")
    }))
}

pub(super) fn samples(requests: u64, errors: u64) -> Samples {
    let mut latency = Histogram::default();
    for _ in errors..requests {
        latency.record(1_000);
    }
    Samples {
        requests,
        errors,
        latency,
    }
}

fn why(reason: Reason) -> Problem {
    Problem::new(reason, "test")
}

/// A device that committed `v1`, is told to run `v2`, and stands in the named phase.
fn device(phase: &str) -> State {
    let mut state = State::recover(
        Record {
            good: vec![version("v1")],
            ..Record::default()
        },
        "boot",
    );
    state.order = Order::Run(target("v2"));
    let staged = Some(attempt("v2", AttemptStage::Staged));
    let saving = |state: &State, then| Phase::Saving {
        record: Box::new(Record {
            attempt: staged.clone(),
            ..state.record.clone()
        }),
        then,
        candidate_serves: false,
        failed: None,
    };
    match phase {
        "settled" => state.order = Order::Run(target("v1")),
        "bad" => state.record.bad.push(Bad {
            revision: revision("v2"),
            problem: why(Reason::TOO_SLOW),
            in_trial: true,
            attempt: 1,
        }),
        "recovering" => state.record.attempt = Some(attempt("v2", trial(4, 1))),
        "lost" => state.record.attempt = Some(attempt("v2", trial(4, LOST_STARTS_MAX))),
        "staging" => state.phase = Phase::Staging(target("v2")),
        "waiting" => {
            state.phase = Phase::Waiting {
                problem: why(Reason::new("SignatureMissing")),
                retry_at: 5_000,
            };
        }
        "saving" => state.phase = saving(&state, Then::Settle),
        "unsaved" => {
            state.phase = saving(&state, Then::Settle);
            if let Phase::Saving { failed, .. } = &mut state.phase {
                *failed = Some((5_000, why(Reason::STATE_UNWRITABLE)));
            }
        }
        "preflight" => {
            state.record.attempt = staged;
            state.phase = Phase::Preflight;
        }
        "starting" => {
            state.record.attempt = Some(attempt("v2", trial(4, 1)));
            state.phase = Phase::Starting;
        }
        "trial" => {
            state.record.attempt = Some(attempt("v2", trial(4, 1)));
            state.phase = Phase::Trial {
                since: 0,
                notes: 0,
                too_few: false,
            };
        }
        "last try" => {
            state.record.attempt = Some(attempt("v2", trial(0, LOST_STARTS_MAX)));
            state.phase = Phase::Trial {
                since: 0,
                notes: 0,
                too_few: false,
            };
        }
        "committing" => {
            state.record.attempt = Some(attempt("v2", trial(4, 0)));
            let mut record = state.record.clone();
            record.good.insert(0, version("v2"));
            record.attempt = None;
            state.phase = Phase::Saving {
                record: Box::new(record),
                then: Then::Collect,
                candidate_serves: true,
                failed: None,
            };
        }
        other => panic!("no such phase: {other}"),
    }
    state
}

/// One line about a state after a step: phase, who serves, effects.
fn line(state: &State, effects: &[Effect]) -> String {
    let phase = match state.phase() {
        Phase::Settled => "settled".to_owned(),
        Phase::Staging(target) => format!("staging {}", target.revision),
        Phase::Waiting { problem, retry_at } => {
            format!("waiting({}) until {retry_at}", problem.reason.as_str())
        }
        Phase::Saving {
            then,
            failed: Some((at, _)),
            ..
        } => format!("unsaved({then:?}) until {at}"),
        Phase::Saving { then, .. } => match then {
            Then::Wait(problem) => format!("saving then wait({})", problem.reason.as_str()),
            Then::Settle | Then::Collect | Then::Start => format!("saving then {then:?}"),
        },
        Phase::Preflight => "preflight".to_owned(),
        Phase::Starting => "starting".to_owned(),
        Phase::Trial { notes, .. } => format!(
            "trial with {} requests, {notes} notes",
            state.shown().samples.requests
        ),
    };
    let name = |version: Option<Version>| version.map_or("-".into(), |it| it.revision.to_string());
    let serving = state.serving();
    let effects: Vec<String> = effects.iter().map(effect).collect();
    format!(
        "{phase}; serves {}/{}/{}; [{}]",
        name(serving.active),
        name(serving.fallback),
        name(serving.starting),
        effects.join(", ")
    )
}

fn effect(effect: &Effect) -> String {
    match effect {
        Effect::Stage(target) => format!("stage {}", target.revision),
        Effect::CancelStaging => "cancel staging".into(),
        Effect::Preflight(attempt) => format!("preflight {}", attempt.target.revision),
        Effect::CancelPreflight => "cancel preflight".into(),
        Effect::Put(record) => format!("put {}", durable(record)),
        Effect::Note(record) => format!("note {}", durable(record)),
        Effect::Collect => "collect".into(),
    }
}

fn durable(record: &Record) -> String {
    let good: Vec<&str> = record.good.iter().map(|it| it.revision.as_str()).collect();
    let attempt = match &record.attempt {
        None => String::new(),
        Some(it) => match &it.stage {
            AttemptStage::Staged => format!(" staged {}", it.target.revision),
            AttemptStage::Trial {
                tries_left,
                boot_id: _,
                lost,
                shown,
            } => format!(
                " trial {} tries {tries_left} lost {lost} shown {}",
                it.target.revision, shown.samples.requests
            ),
        },
    };
    let bad: Vec<String> = record
        .bad
        .iter()
        .map(|it| {
            let (revision, reason) = (&it.revision, it.problem.reason.as_str());
            format!(" bad {revision} {reason} in attempt {}", it.attempt)
        })
        .collect();
    format!("good {}{attempt}{}", good.join("+"), bad.concat())
}

fn observation(name: &str) -> Observation {
    let v2 = || revision("v2");
    match name {
        "ordered same" => Observation::Ordered(Order::Run(target("v2"))),
        "ordered again" => again(2, 0),
        "ordered anew" => again(2, 2),
        "ordered to forget itself" => again(1, 2),
        "ordered back" => Observation::Ordered(Order::Run(target("v1"))),
        "ordered other" => Observation::Ordered(Order::Run(target("v3"))),
        "ordered remove" => Observation::Ordered(Order::Remove),
        "held" => Observation::Held(true),
        "released" => Observation::Held(false),
        "trust changed" => Observation::TrustChanged,
        "tick early" | "tick due" => Observation::Tick,
        "staged" => Observation::Staged(v2(), install("v2")),
        "staged other" => Observation::Staged(revision("v9"), install("v9")),
        "stage blocked" => Observation::StageBlocked(v2(), why(Reason::new("SignatureMissing"))),
        "stage refused" => Observation::StageRefused(v2(), why(Reason::new("ManifestInvalid"))),
        "preflight passed" => Observation::PreflightPassed(v2()),
        "preflight failed" => {
            Observation::PreflightFailed(v2(), why(Reason::new("GoldenVectorMismatch")))
        }
        "preflight blocked" => {
            Observation::PreflightBlocked(v2(), why(Reason::PREFLIGHT_UNAVAILABLE))
        }
        "preflight interrupted" => {
            Observation::PreflightInterrupted(v2(), why(Reason::new("PreflightInterrupted")))
        }
        "persisted" => Observation::Persisted,
        "persist failed" => Observation::PersistFailed(why(Reason::STATE_UNWRITABLE)),
        "loaded" => Observation::Loaded(v2()),
        "load failed" => Observation::LoadFailed(v2(), why(Reason::new("ModelRefused"))),
        "current unsound" => Observation::Unsound(revision("v1"), why(Reason::CORRUPT)),
        "candidate unsound" => Observation::Unsound(v2(), why(Reason::new("SignatureMissing"))),
        "host died of it" => Observation::HostDied(why(Reason::HOST_DIED), Blame::Candidate),
        "host died of another" => Observation::HostDied(why(Reason::HOST_DIED), Blame::Another),
        "host died unseen" => Observation::HostDied(why(Reason::HOST_DIED), Blame::Nobody),
        "sampled once" => Observation::Sampled(v2(), samples(1, 0)),
        "sampled an error" => Observation::Sampled(v2(), samples(1, 1)),
        "sampled well" => Observation::Sampled(v2(), samples(20, 0)),
        "sampled badly" => Observation::Sampled(v2(), samples(20, 10)),
        "stopping" => Observation::Stopping,
        other => panic!("no such observation: {other}"),
    }
}

/// Keeps the list of names honest: a new kind of observation does not compile without a row.
fn rows_of(observation: &Observation) -> &'static [&'static str] {
    match observation {
        Observation::Ordered(_) => &[
            "ordered same",
            "ordered again",
            "ordered anew",
            "ordered to forget itself",
            "ordered back",
            "ordered other",
            "ordered remove",
        ],
        Observation::Held(_) => &["held", "released"],
        Observation::TrustChanged => &["trust changed"],
        Observation::Tick => &["tick early", "tick due"],
        Observation::Staged(..) => &["staged", "staged other"],
        Observation::StageBlocked(..) => &["stage blocked"],
        Observation::StageRefused(..) => &["stage refused"],
        Observation::PreflightPassed(_) => &["preflight passed"],
        Observation::PreflightFailed(..) => &["preflight failed"],
        Observation::PreflightBlocked(..) => &["preflight blocked"],
        Observation::PreflightInterrupted(..) => &["preflight interrupted"],
        Observation::Persisted => &["persisted"],
        Observation::PersistFailed(_) => &["persist failed"],
        Observation::Loaded(_) => &["loaded"],
        Observation::LoadFailed(..) => &["load failed"],
        Observation::Unsound(..) => &["current unsound", "candidate unsound"],
        Observation::HostDied(_, Blame::Candidate | Blame::Another | Blame::Nobody) => &[
            "host died of it",
            "host died of another",
            "host died unseen",
        ],
        Observation::Sampled(..) => &[
            "sampled once",
            "sampled an error",
            "sampled well",
            "sampled badly",
        ],
        Observation::Stopping => &["stopping"],
    }
}

const PHASES: [&str; 13] = [
    "settled",
    "bad",
    "recovering",
    "lost",
    "staging",
    "waiting",
    "saving",
    "unsaved",
    "preflight",
    "starting",
    "trial",
    "last try",
    "committing",
];

fn names() -> Vec<&'static str> {
    let kinds = [
        "ordered same",
        "held",
        "trust changed",
        "tick early",
        "staged",
        "stage blocked",
        "stage refused",
        "preflight passed",
        "preflight failed",
        "preflight blocked",
        "preflight interrupted",
        "persisted",
        "persist failed",
        "loaded",
        "load failed",
        "current unsound",
        "host died of it",
        "sampled well",
        "stopping",
    ];
    kinds
        .iter()
        .flat_map(|kind| rows_of(&observation(kind)))
        .copied()
        .collect()
}

/// `device(phase)` followed by `observation`, as one line.
fn row(phase: &str, name: &str) -> String {
    let now = match name {
        "tick early" => 4_999,
        // Before the probation is over.
        "sampled once" | "sampled an error" => 8_000,
        _ => 20_000,
    };
    let (state, effects) = step(device(phase), observation(name), now);
    format!("{phase} + {name} -> {}", line(&state, &effects))
}

#[test]
fn every_phase_takes_every_observation_as_the_table_says() {
    let mut got = String::new();
    for phase in PHASES {
        for name in names() {
            got.push_str(&row(phase, name));
            got.push('\n');
        }
        got.push('\n');
    }
    let want = include_str!("table.txt");
    for (got, want) in got.lines().zip(want.lines()) {
        assert_eq!(got, want);
    }
    assert!(got == want, "rows are missing; the whole table is:\n{got}");
}
