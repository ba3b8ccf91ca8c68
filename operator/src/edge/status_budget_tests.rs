use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rimward_core::fleet::{ENTRIES_MAX, ModelReport};
use rimward_core::ids::ModelKey;
use rimward_core::summary::{Counts, Measures, PROBLEMS_MAX, Phase, Problem};
use rimward_crds::{Capabilities, NodeCounts, NodeSummary, Versions};
use serde_json::{Value, json};

use super::super::status::{Facts, Sources, status};
use super::*;

/// Bytes of a problem's words that Go writes six-fold: what a hostile device would say.
const WORST: char = '<';

fn name(number: usize, length: usize) -> String {
    format!("{number:0length$}")
}

fn report(number: usize, words: &str) -> ModelReport {
    let counts = [u32::MAX; 9];
    let [
        desired,
        updated,
        pending,
        held,
        silent,
        suspect,
        failed,
        rolled_back,
        ready,
    ] = counts;
    ModelReport {
        revision: name(number, 63).parse().unwrap(),
        attempt: u32::MAX,
        nodes: Counts {
            desired,
            updated,
            pending,
            held,
            silent,
            suspect,
            failed,
            rolled_back,
            ready,
        },
        phase: if number.is_multiple_of(2) {
            Phase::TimedOut
        } else {
            Phase::Failed
        },
        reason: "R".repeat(64),
        measures: Measures {
            samples: u64::MAX,
            errors: u64::MAX,
            latency_p99_microseconds: Some(u64::MAX),
        },
        problems: (0..PROBLEMS_MAX)
            .map(|place| Problem {
                node: name(place, 253).parse().unwrap(),
                reason: "R".repeat(64),
                message: words.to_owned(),
            })
            .collect(),
        last_good: Some(name(number, 63).parse().unwrap()),
    }
}

/// The largest status that a session can make: as many models as an assignment has, the longest of everything. Not cut yet.
fn largest(words: &str) -> ClusterAssignmentStatus {
    let report = (0..ENTRIES_MAX)
        .map(|number| {
            let key = ModelKey::parse(&name(number, 63), &name(number, 52)).unwrap();
            (key, report(number, words))
        })
        .collect();
    let full = |count: usize| vec!["c".repeat(32); count];
    let sources = Sources {
        facts: &Facts {
            cluster_uid: Some("u".repeat(64)),
            versions: Some(Versions {
                operator: "v".repeat(64),
                kubernetes: "v".repeat(64),
            }),
        },
        hub_generation: i64::MAX,
        report: &report,
        listening: &BTreeSet::new(),
        unreadable: &BTreeMap::new(),
        nodes: &NodeSummary {
            total: u32::MAX,
            ready: u32::MAX,
        },
        capabilities: &Capabilities {
            architectures: full(8),
            backends: full(16),
        },
    };
    status(&sources, None, &Time(Timestamp::UNIX_EPOCH))
}

fn counts(status: &ClusterAssignmentStatus) -> Vec<(NodeCounts, VerdictPhase)> {
    let models = status.models.iter();
    models
        .map(|model| (model.nodes.clone(), model.verdict.phase))
        .collect()
}

#[test]
fn the_largest_status_that_a_session_can_make_fits_and_no_count_is_lost() {
    for words in [
        "w".repeat(512),
        WORST.to_string().repeat(512),
        String::new(),
    ] {
        let status = largest(&words);
        assert_eq!(status.models.len(), ENTRIES_MAX);
        assert!(stored_bytes(&status) <= STATUS_BYTES_MAX);
        assert_eq!(counts(&status).len(), ENTRIES_MAX);
        assert!(
            counts(&status)
                .iter()
                .all(|(nodes, _)| nodes.suspect == u32::MAX)
        );
    }
}

#[test]
fn a_status_that_fits_is_left_alone_and_what_was_cut_once_is_not_cut_again() {
    let status = largest("short words");
    let cut = within(status.clone(), stored_bytes(&status));
    assert_eq!(cut, status);
    let cut = within(status, 300 * 1024);
    assert_eq!(within(cut.clone(), 300 * 1024), cut);
}

/// Two models, one of which failed, with two problems each.
fn small() -> ClusterAssignmentStatus {
    let model = |name: &str, phase: &str| {
        let problem = |place: &str| json!({"node": format!("{name}-{place}"), "reason": "Why", "message": WORST.to_string().repeat(200)});
        json!({"namespace": "team", "name": name, "nodes": {"desired": 9, "failed": 2}, "verdict": {"phase": phase},
            "problems": [problem("worst"), problem("mild")]})
    };
    serde_json::from_value(json!({"models": [model("bad", "Failed"), model("held", "Held")]}))
        .unwrap()
}

/// Lengths of what problems say, or that they are gone, in the order bad-worst, bad-mild, held-worst, held-mild.
fn check(less_bytes: usize, expected: [Option<usize>; 4]) {
    let status = small();
    let bytes_max = stored_bytes(&status) - less_bytes;
    let before = counts(&status);
    let cut = within(status, bytes_max);
    assert!(stored_bytes(&cut) <= bytes_max, "{less_bytes}");
    assert_eq!(counts(&cut), before);
    let left = cut.models.iter().flat_map(|model| {
        let said = |place: usize| model.problems.get(place);
        [0, 1].map(|place| said(place).map(|problem| problem.message.chars().count()))
    });
    assert_eq!(
        left.collect::<Vec<_>>(),
        expected,
        "{less_bytes} bytes less"
    );
}

#[test]
fn the_least_severe_words_go_first_then_words_at_all_then_problems() {
    let (all, short) = (Some(200), Some(WORDS_CHARS));
    check(0, [all, all, all, all]);
    check(1, [all, all, all, short]);
    check(1_000, [all, short, all, short]);
    check(1_500, [all, short, short, short]);
    check(2_400, [short, short, short, short]);
    check(2_600, [short, short, short, Some(0)]);
    check(4_700, [Some(0), Some(0), Some(0), Some(0)]);
    check(4_801, [Some(0), Some(0), Some(0), None]);
    check(4_980, [None, None, None, None]);
}

/// Managed fields name each entry of both lists once for each manager, and nothing inside it.
#[test]
fn managed_fields_of_full_lists_fit_beside_them() {
    let key = json!({"name": "n".repeat(52), "namespace": "n".repeat(63)}).to_string();
    let fields = (0..ENTRIES_MAX).map(|_| stored_bytes(&json!({ format!("k:{key}"): {} })));
    let lists: usize = fields.sum();
    // Hub and session, and each once more under the name of an older version.
    assert!(4 * lists <= METADATA_BYTES_MAX - 8 * 1024, "{lists}");
    for crd in rimward_crds::schema::crds().unwrap() {
        if crd.spec.names.kind != "ClusterAssignment" {
            continue;
        }
        let crd: Value = serde_json::to_value(&crd).unwrap();
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
        for half in ["spec", "status"] {
            let items = &root[half]["properties"]["models"]["items"];
            assert_eq!(items["x-kubernetes-map-type"], "atomic", "{half}");
        }
    }
}
