use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff;
use rimward_core::fleet::{ConnectionState, DoubtLimits, Fleet};
use serde_json::{Value, json};

use super::{Heartbeats, View};
use crate::hub::index::key;
use crate::hub::observe::Caches;
use crate::hub::parse::Graces;
use crate::metrics::Kind;

fn view() -> View {
    view_of(Instant::now())
}

fn view_of(began: Instant) -> View {
    let graces = Graces {
        offline_seconds: 300,
        heartbeat_seconds: 30,
    };
    let fleet = Fleet::new(300, DoubtLimits::default());
    View::new(fleet, graces, began)
}

fn wrote(caches: &Caches, kind: Kind, version: u32, spec: &Value) {
    let object = json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": format!("{kind:?}"),
        "metadata": {"name": "west", "uid": "1", "resourceVersion": version.to_string()},
        "spec": spec,
    });
    caches.wrote(kind, serde_json::from_value(object).unwrap());
}

/// What cannot be read may name any revision, so that none is collected while there is such a thing.
#[test]
fn clusters_and_assignments_that_do_not_parse_protect_revisions_from_collection() {
    let (good, bad) = (
        json!({"connection": {"mode": "Pull"}}),
        json!({"models": 7, "connection": {"mode": "Sideways"}}),
    );
    let protects = |cluster: Option<&Value>, assignment: Option<&Value>| {
        let (caches, mut view) = (Caches::unwatched(), view());
        if let Some(spec) = cluster {
            wrote(&caches, Kind::EdgeCluster, 5, spec);
        }
        if let Some(spec) = assignment {
            wrote(&caches, Kind::ClusterAssignment, 5, spec);
        }
        view.look_at_cluster(&caches, "west", Instant::now());
        let broken = view.broken.contains_key("west");
        // What is mended, or gone, protects no longer.
        for kind in [Kind::EdgeCluster, Kind::ClusterAssignment] {
            let of_name = (String::new(), "west".to_owned());
            caches.asked(&key(kind, &of_name), 5, None);
        }
        view.look_at_cluster(&caches, "west", Instant::now());
        assert!(view.broken.is_empty());
        broken
    };
    let models = json!({"models": []});
    assert!(!protects(Some(&good), Some(&models)));
    assert!(!protects(Some(&good), None));
    assert!(protects(Some(&bad), Some(&models)), "the EdgeCluster");
    assert!(protects(Some(&bad), None));
    assert!(protects(Some(&good), Some(&bad)), "its assignment");
    assert!(protects(None, Some(&bad)), "one that outlived its cluster");
}

fn renewed(second: i64) -> Option<MicroTime> {
    jiff::Timestamp::from_second(second).ok().map(MicroTime)
}

/// A replica that stood by for a day knows who died in it; only who was not called offline is news to the planner.
#[test]
fn those_that_an_earlier_leader_called_offline_do_not_fall_silent_with_the_next() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    let mut beats = Heartbeats::new(Duration::from_secs(300));
    for (name, last) in [("dead", 100), ("lately", 86_300)] {
        beats.note(name, renewed(1), after(50));
        beats.note(name, renewed(2), after(last));
    }
    let view = view_of(after(86_400));
    let state = |name, offline| view.connection(name, offline, &beats, after(86_400));
    assert_eq!(state("dead", true), ConnectionState::Silent);
    let doubtful = state("dead", false);
    assert!(matches!(doubtful, ConnectionState::Heard { .. }));
    let lately = state("lately", true);
    assert!(matches!(lately, ConnectionState::Heard { .. }));
}
