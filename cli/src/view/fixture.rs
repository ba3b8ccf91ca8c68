//! A fleet in the middle of a story: one stage done, one node that rejected the new revision.

use rimward_crds::{ClusterAssignment, EdgeCluster, ModelDeployment, ModelRevision, RolloutPolicy};
use serde_json::{Value, json};

use super::model::{Deployment, Sources, deployment};

pub(super) fn object<T: serde::de::DeserializeOwned>(kind: &str, mut body: Value) -> T {
    body["apiVersion"] = json!("rimward.dev/v1alpha1");
    body["kind"] = json!(kind);
    serde_json::from_value(body).unwrap()
}

fn conditions(list: &[(&str, &str, &str)]) -> Value {
    list.iter()
        .map(|(kind, reason, message)| {
            json!({"type": kind, "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        })
        .collect()
}

pub(super) fn mdep(list: &[(&str, &str, &str)]) -> ModelDeployment {
    object(
        "ModelDeployment",
        json!({
            "metadata": {"name": "digits", "namespace": "team", "generation": 2},
            "spec": {"modelRef": {"name": "digits-2"}, "placement": {}, "rolloutPolicyRef": {"name": "careful"}},
            "status": {
                "observedGeneration": 2, "conditions": conditions(list), "progress": "0/2",
                "currentRevision": "digits-aaa", "updateRevision": "digits-bbb",
                "stage": {"name": "canary", "index": 1, "of": 2, "phase": "Failed"},
                "waitingFor": "a new revision",
            },
        }),
    )
}

fn revision(name: &str, version: &str, status: Value) -> ModelRevision {
    object(
        "ModelRevision",
        json!({
            "metadata": {"name": name, "namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {
                "deploymentName": "digits",
                "model": {"name": format!("digits-{version}"), "family": "digits", "version": version},
                "package": {"repository": "r.example/digits", "digest": format!("sha256:{}", "0".repeat(64))},
                "runtime": {}, "health": {},
            },
            "status": status,
        }),
    )
}

fn assignment(name: &str, revision: &str, stage: &str, status: Value) -> ClusterAssignment {
    object(
        "ClusterAssignment",
        json!({
            "metadata": {"name": name, "generation": 7},
            "spec": {"models": [{
                "namespace": "team", "name": "digits", "endpointName": "digits", "revision": revision,
                "package": {"repository": "r.example/digits", "digest": format!("sha256:{}", "0".repeat(64))},
                "runtime": {}, "health": {}, "maxUnavailable": 1, "action": "Run", "stage": stage,
                "progressDeadlineSeconds": 600,
            }]},
            "status": {"observedGeneration": 7, "models": [status]},
        }),
    )
}

/// The whole view of it.
pub(super) fn view() -> Deployment {
    let revisions = [
        revision("digits-aaa", "1.0.0", json!({"outcome": "Promoted"})),
        revision(
            "digits-bbb",
            "1.1.0",
            json!({"outcome": "Failed", "stage": "canary", "reason": "GoldenVectorMismatch",
                "message": "golden vector 3: expected 7, got 1"}),
        ),
    ];
    let assignments = [
        assignment(
            "site-a",
            "digits-bbb",
            "canary",
            json!({
                "namespace": "team", "name": "digits", "revision": "digits-bbb",
                "nodes": {"desired": 2, "ready": 2, "rolledBack": 1},
                "lastGoodRevision": "digits-aaa", "verdict": {"phase": "Failed"},
                "problems": [{"node": "n1", "reason": "GoldenVectorMismatch",
                    "message": "golden vector 3:\u{1b}[31m expected 7, got 1"}],
            }),
        ),
        assignment(
            "site-b",
            "digits-aaa",
            "rest",
            json!({
                "namespace": "team", "name": "digits", "revision": "digits-aaa",
                "nodes": {"desired": 3, "updated": 3, "ready": 3}, "verdict": {"phase": "Passed"},
            }),
        ),
    ];
    let cluster = |name: &str, available: &str| -> EdgeCluster {
        object(
            "EdgeCluster",
            json!({
                "metadata": {"name": name}, "spec": {},
                "status": {"conditions": [{"type": "Available", "status": available, "reason": "Offline",
                    "message": "last heard of 400 s ago", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
            }),
        )
    };
    let policy: RolloutPolicy = object(
        "RolloutPolicy",
        json!({
            "metadata": {"name": "careful", "namespace": "team"},
            "spec": {"stages": [{"name": "canary", "clusters": {"count": 1}}, {"name": "rest", "clusters": {"percent": 50}}, {"name": "all", "clusters": {"percent": 100}}]},
        }),
    );
    deployment(
        &mdep(&[("Degraded", "StageFailed", "1 of 1 clusters failed")]),
        &Sources {
            revisions: &revisions,
            policy: Some(&policy),
            assignments: &assignments,
            clusters: &[cluster("site-a", "True"), cluster("site-b", "False")],
            actions: &[],
        },
    )
}
