//! The largest objects that the budgets and the schemas allow: an API server stores each of them whole.

use std::fmt::Debug;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use rimward_crds::stored::{OBJECT_BYTES_MAX, stored_bytes};
use rimward_crds::{ClusterAssignment, ModelDeployment, RolloutPolicy};
use rimward_e2e::control_plane::Options;
use rimward_e2e::{ControlPlane, story};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The budgets of the hub and of a session, as core and operator have them: here an API server adds up.
const ENTRIES_BYTES: usize = 640 * 1024;
const STATUS_BYTES: usize = 512 * 1024;
const PROGRESS_BYTES: usize = 128 * 1024;

#[test]
fn an_assignment_that_uses_every_budget_up_is_stored_whole() {
    story("largest", async |story| {
        let hub =
            ControlPlane::start("largest", story.scratch().path(), Options::default()).await?;
        hub.apply_crds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml"))
            .await?;
        let api: Api<ClusterAssignment> = Api::all(hub.client().await?);
        // Two managers of each half: an older version by another name leaves its own behind.
        for manager in ["rimward-hub", "older-hub"] {
            let annotations = json!({"rimward.dev/progress": "p".repeat(PROGRESS_BYTES)});
            let spec = json!({"models": filled(ENTRIES_BYTES, entry)});
            let body =
                json!({"metadata": {"name": "largest", "annotations": annotations}, "spec": spec});
            apply(&api, manager, body).await?;
        }
        for manager in ["rimward-session", "older-session"] {
            let models = filled(STATUS_BYTES, report);
            let status = json!({"observedGeneration": 1, "models": models});
            let body = json!({"metadata": {"name": "largest"}, "status": status});
            apply(&api, manager, body).await?;
        }
        let stored = api.get("largest").await?;
        let bytes = stored_bytes(&stored);
        let fields = stored_bytes(&stored.metadata.managed_fields);
        ensure!(
            stored.spec.models.len() == 256
                && bytes > ENTRIES_BYTES + STATUS_BYTES + PROGRESS_BYTES - 8 * 1024
                && bytes <= OBJECT_BYTES_MAX,
            "{bytes} bytes, of them {fields} of managed fields"
        );
        Ok(())
    });
}

/// 256 items of the longest names, together of about so many bytes.
fn filled(bytes: usize, item: fn(usize, usize) -> Value) -> Vec<Value> {
    let bare = stored_bytes(&item(0, 0)) + 1;
    let room = (bytes / 256).saturating_sub(bare);
    (0..256).map(|number| item(number, room)).collect()
}

fn entry(number: usize, room: usize) -> Value {
    // What is left of the room goes to the node selector: nothing else of an entry gets so large.
    let labels = room / 70;
    let terms: Vec<String> = (0..labels).map(|label| format!("{label:063}")).collect();
    let values: Vec<Value> = terms
        .chunks(60)
        .map(|values| json!({"key": "k", "operator": "In", "values": values}))
        .collect();
    json!({
        "namespace": format!("{number:063}"), "name": format!("{number:052}"), "endpointName": "e".repeat(63),
        "revision": "r".repeat(63), "attempt": 1, "replaces": "r".repeat(63), "maxFailures": 0,
        "package": {"repository": "r".repeat(255), "digest": format!("sha256:{}", "0".repeat(64))},
        "runtime": {"concurrency": 2, "memory": "64Mi", "timeoutMilliseconds": 2000},
        "health": {"goldenVectors": "Require", "probationSeconds": 30, "minSamples": 0, "maxErrorPermille": 10},
        "nodeSelector": {"matchExpressions": values}, "maxUnavailable": 1, "action": "Run", "stage": "s".repeat(63),
        "progressDeadlineSeconds": 600,
    })
}

fn report(number: usize, room: usize) -> Value {
    json!({
        "namespace": format!("{number:063}"), "name": format!("{number:052}"), "revision": "r".repeat(63), "attempt": 1,
        "nodes": {"desired": 1, "updated": 0, "pending": 0, "held": 0, "silent": 0, "suspect": 0, "failed": 1,
            "rolledBack": 0, "ready": 0},
        "verdict": {"phase": "Failed", "samples": 0, "errors": 0, "latencyP99Microseconds": 0},
        "problems": (0..5).map(|node| json!({"node": format!("{node:0200}"), "reason": "R",
            "message": "w".repeat((room / 5).min(512))})).collect::<Vec<_>>(),
    })
}

/// Applies the half of `largest` that the body has.
async fn apply<K>(api: &Api<K>, manager: &str, mut body: Value) -> Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    body["apiVersion"] = json!(K::api_version(&()));
    body["kind"] = json!(K::kind(&()));
    let params = PatchParams::apply(manager).force();
    let patch = Patch::Apply(&body);
    if body["status"].is_object() {
        api.patch_status("largest", &params, &patch).await?;
    } else {
        api.patch("largest", &params, &patch).await?;
    }
    Ok(())
}

#[test]
fn the_largest_policy_and_deployment_that_their_schemas_allow_are_stored_whole() {
    story("largest-specs", async |story| {
        let folder = story.scratch().path();
        let hub = ControlPlane::start("largest-specs", folder, Options::default()).await?;
        hub.apply_crds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml"))
            .await?;
        let client = hub.client().await?;
        let policy = schema("RolloutPolicy")?;
        stored_whole::<RolloutPolicy>(
            &client,
            json!({
                "stages": stages(&policy["spec"]["properties"]["stages"]), "nodes": {"maxUnavailable": "100%", "maxFailures": 100_000},
                "offline": {"beforeUpdate": "Skip", "afterUpdate": "Ignore", "graceSeconds": 86_400},
                "hold": {"mode": "Ignore", "deadlineSeconds": 2_592_000}, "rollback": {"maxConcurrency": "100%"},
            }),
            json!({"observedGeneration": 1, "conditions": conditions(&policy)}),
        )
        .await?;
        let deployment = schema("ModelDeployment")?;
        let spec = &deployment["spec"]["properties"];
        let status = &deployment["status"]["properties"];
        let name = "n".repeat(253);
        let config = &spec["runtime"]["properties"]["config"];
        let config: Value = (0..bound(config, "/maxProperties"))
            .map(|pair| {
                let value = "<".repeat(bound(config, "/additionalProperties/maxLength"));
                (format!("{pair:063}"), json!(value))
            })
            .collect();
        let actions = &status["actions"];
        let message = "<".repeat(bound(actions, "/items/properties/message/maxLength"));
        let actions: Vec<Value> = (0..bound(actions, "/maxItems"))
            .map(|action| {
                json!({"uid": format!("{action:064}"), "name": "<".repeat(253), "outcome": "Refused",
                    "message": message})
            })
            .collect();
        let placement = &spec["placement"]["properties"];
        let (clusters, nodes) = (&placement["clusterSelector"], &placement["nodeSelector"]);
        let values = "/properties/matchExpressions/items/properties/values/maxItems";
        let clusters = selector(clusters, bound(clusters, values));
        let nodes = selector(nodes, bound(nodes, values));
        let waiting = "<".repeat(bound(status, "/waitingFor/maxLength"));
        let passed: Vec<Value> = (0..17)
            .map(|stage| {
                json!({"stage": format!("{stage:063}"), "suspects": u32::MAX, "failed": u32::MAX})
            })
            .collect();
        let revision = "<".repeat(63);
        stored_whole::<ModelDeployment>(
            &client,
            json!({
                "modelRef": {"name": name}, "rolloutPolicyRef": {"name": name}, "endpointName": "e".repeat(63),
                "placement": {"clusterSelector": clusters, "nodeSelector": nodes, "maxClusters": 100_000},
                "runtime": {"concurrency": 64, "memory": "64Mi", "timeoutMilliseconds": 600_000, "config": config},
                "health": {"goldenVectors": "Require", "probationSeconds": 86_400, "minSamples": 1_000_000,
                    "maxErrorPermille": 10},
                "revisionHistoryLimit": 100, "progressDeadlineSeconds": 604_800, "minAvailable": "100%", "paused": true,
            }),
            json!({
                "observedGeneration": 1, "conditions": conditions(&deployment), "currentRevision": revision,
                "previousRevision": revision, "updateRevision": revision, "progress": "<".repeat(32),
                "stage": {"name": revision, "index": 16, "of": 17, "phase": "Progressing", "attempt": 9,
                    "passed": passed, "startedTime": TIME, "lastProgressTime": TIME},
                "undo": {"from": revision, "to": revision}, "actions": actions, "clusters": counts(),
                "nodes": counts(), "waitingFor": waiting,
            }),
        )
        .await
    });
}

const TIME: &str = "2026-01-01T00:00:00Z";
/// Bytes of annotations that an API server takes, `kubectl apply`'s second copy of the object among them.
const ANNOTATIONS_BYTES: usize = 256 * 1024;

/// Applies both halves, each by two managers, beside as many annotations as there may be.
async fn stored_whole<K>(client: &Client, spec: Value, status: Value) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let api: Api<K> = Api::namespaced(client.clone(), "default");
    let text = "a".repeat(ANNOTATIONS_BYTES - 16);
    let annotations = json!({"largest": text});
    for manager in ["rimward", "older"] {
        let body =
            json!({"metadata": {"name": "largest", "annotations": annotations}, "spec": spec});
        apply(&api, manager, body).await?;
        let body = json!({"metadata": {"name": "largest"}, "status": status});
        apply(&api, manager, body).await?;
    }
    let stored = serde_json::to_value(api.get("largest").await?)?;
    let bytes = stored_bytes(&stored);
    let fields = stored_bytes(&stored["metadata"]["managedFields"]);
    let written = stored_bytes(&spec) + stored_bytes(&status) + ANNOTATIONS_BYTES;
    ensure!(
        bytes > written && bytes <= OBJECT_BYTES_MAX,
        "{}: {bytes} bytes for {written}, of them {fields} of managed fields",
        K::kind(&())
    );
    Ok(())
}

/// The properties of a kind, as the API server is told.
fn schema(kind: &str) -> Result<Value> {
    let crds = rimward_crds::schema::crds()?;
    let crd = crds.iter().find(|crd| crd.spec.names.kind == kind);
    let crd = serde_json::to_value(crd)?;
    let properties = crd.pointer("/spec/versions/0/schema/openAPIV3Schema/properties");
    properties
        .cloned()
        .with_context(|| format!("no schema of {kind}"))
}

/// A bound as the schema has it; what has none makes the object too large.
fn bound(schema: &Value, pointer: &str) -> usize {
    let bound = schema.pointer(pointer).and_then(Value::as_u64);
    bound.map_or(OBJECT_BYTES_MAX, |bound| {
        usize::try_from(bound).unwrap_or(OBJECT_BYTES_MAX)
    })
}

/// The longest messages, of characters that are stored as six bytes each.
fn conditions(kind: &Value) -> Vec<Value> {
    let conditions = &kind["status"]["properties"]["conditions"];
    let message = "<".repeat(bound(conditions, "/items/properties/message/maxLength"));
    let condition = |number: usize| {
        json!({"type": format!("{number:0316}"), "status": "Unknown", "reason": "R".repeat(1024),
            "message": message, "lastTransitionTime": TIME, "observedGeneration": 1})
    };
    (0..bound(conditions, "/maxItems")).map(condition).collect()
}

/// Values of requirements that all stages together may have, by a rule of the kind.
const VALUES_MAX: usize = 1024;

/// As many stages as there may be, whose selectors have as many values as all together may.
fn stages(stages: &Value) -> Vec<Value> {
    let many = bound(stages, "/maxItems");
    let of_stage = &stages["items"]["properties"]["clusters"]["properties"]["selector"];
    let requirements = bound(of_stage, "/properties/matchExpressions/maxItems");
    let selector = selector(of_stage, VALUES_MAX / many / requirements);
    let stage = |number: usize| {
        json!({"name": format!("{number:063}"), "clusters": {"selector": selector}, "maxConcurrency": "100%",
            "maxUnavailable": "100%", "maxFailures": 100_000, "minProven": "100%", "allowEmpty": true,
            "bakeSeconds": 2_592_000, "progressDeadlineSeconds": 604_800})
    };
    (0..many).map(stage).collect()
}

/// The largest selector with so many values in each requirement.
fn selector(schema: &Value, values: usize) -> Value {
    let key = |number: usize| format!("{}/{number:063}", "p".repeat(253));
    let labels: Value = (0..bound(schema, "/properties/matchLabels/maxProperties"))
        .map(|label| (key(label), json!("v".repeat(63))))
        .collect();
    let values: Vec<String> = (0..values).map(|value| format!("{value:063}")).collect();
    let requirements: Vec<Value> = (0..bound(schema, "/properties/matchExpressions/maxItems"))
        .map(|number| json!({"key": key(number), "operator": "NotIn", "values": values}))
        .collect();
    json!({"matchLabels": labels, "matchExpressions": requirements})
}

fn counts() -> Value {
    let most = u32::MAX;
    json!({"desired": most, "updated": most, "pending": most, "held": most, "silent": most, "suspect": most,
        "failed": most, "rolledBack": most, "ready": most})
}
