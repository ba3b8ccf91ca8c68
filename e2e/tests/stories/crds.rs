//! The kinds on a real API server: valid samples are accepted, invalid ones refused with the message that each states.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use kube::Api;
use kube::api::{Patch, PatchParams};
use rimward_crds::ClusterAssignment;
use rimward_crds::stored::{OBJECT_BYTES_MAX, stored_bytes};
use rimward_e2e::control_plane::Options;
use rimward_e2e::{ControlPlane, story};
use serde_json::{Value, json};

fn samples(folder: &str) -> Result<Vec<PathBuf>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crds/samples")
        .join(folder);
    let mut paths = std::fs::read_dir(&folder)
        .with_context(|| format!("reading {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<Result<Vec<_>>>()?;
    paths.sort();
    ensure!(!paths.is_empty(), "{} is empty", folder.display());
    Ok(paths)
}

#[test]
fn an_api_server_takes_the_valid_samples_and_refuses_the_invalid_ones_by_name() {
    story("crds", async |story| {
        let hub = ControlPlane::start("crds", story.scratch().path(), Options::default()).await?;
        hub.apply_crds(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/yaml"))
            .await?;
        let kubectl = hub.kubectl()?;
        for path in samples("valid")? {
            let file = path.display().to_string();
            kubectl.run(["apply", "--server-side", "-f", &file]).await?;
            // Once more: nothing that the API server fills in may make the object differ from its manifest.
            let diff = kubectl
                .output(["diff", "--server-side", "-f", &file])
                .await?;
            ensure!(
                diff.stdout.is_empty(),
                "{file} differs after it was applied:\n{}",
                diff.stdout
            );
        }
        let mut wrong = Vec::new();
        for path in samples("invalid")? {
            let text = std::fs::read_to_string(&path)?;
            let expected = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("# refused: "));
            let expected =
                expected.with_context(|| format!("{} states no message", path.display()))?;
            let file = path.display().to_string();
            let output = kubectl
                .output(["create", "--validate=strict", "-f", &file])
                .await?;
            if output.status.success() || !output.stderr.contains(expected) {
                wrong.push(format!(
                    "{file}: expected {expected:?}, got {:?}",
                    output.stderr
                ));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        immutable(&kubectl).await
    });
}

/// What was accepted once does not change where the kind says so.
async fn immutable(kubectl: &rimward_e2e::Kubectl) -> Result<()> {
    let patches = [
        (
            "model/sample-digits-1-0-0",
            r#"{"spec":{"image":"registry.example.com/other:1"}}"#,
            "image never changes",
        ),
        (
            "model/sample-digits-1-0-0",
            r#"{"spec":{"version":"1.0.1"}}"#,
            "version never changes",
        ),
        (
            "model/sample-digits-1-0-0",
            r#"{"spec":{"family":"letters"}}"#,
            "family never changes",
        ),
        (
            "modelrevision/sample-digits-1a2b3c4d5e",
            r#"{"spec":{"health":{"minSamples":5}}}"#,
            "a ModelRevision never changes",
        ),
        (
            "rolloutaction/sample-digits-promote-b4m9q",
            r#"{"spec":{"stage":"half"}}"#,
            "a RolloutAction never changes",
        ),
    ];
    for (object, patch, expected) in patches {
        let refusal = kubectl
            .output(["patch", object, "--type=merge", "-p", patch])
            .await?
            .refusal()?;
        ensure!(
            refusal.contains(expected),
            "{object}: expected {expected:?}, got {refusal:?}"
        );
    }
    let secret = r#"{"spec":{"pullSecretRef":{"name":"another"}}}"#;
    kubectl
        .run([
            "patch",
            "model/sample-digits-1-0-0",
            "--type=merge",
            "-p",
            secret,
        ])
        .await?;
    let status = kubectl
        .run([
            "get",
            "rpol/sample-canary-first",
            "-o",
            "jsonpath={.status.observedGeneration}",
        ])
        .await?;
    ensure!(
        status == "-1",
        "a status never written must not look finished: {status:?}"
    );
    Ok(())
}

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
        let apply = async |manager: &str, half: &str, body: Value| -> Result<()> {
            let mut object = body;
            object["apiVersion"] = json!("rimward.dev/v1alpha1");
            object["kind"] = json!("ClusterAssignment");
            let params = PatchParams::apply(manager).force();
            let patch = Patch::Apply(&object);
            match half {
                "status" => api.patch_status("largest", &params, &patch).await?,
                _ => api.patch("largest", &params, &patch).await?,
            };
            Ok(())
        };
        // Two managers of each half: an older version by another name leaves its own behind.
        for manager in ["rimward-hub", "older-hub"] {
            let annotations = json!({"rimward.dev/progress": "p".repeat(PROGRESS_BYTES)});
            apply(
                manager,
                "spec",
                json!({"metadata": {"name": "largest", "annotations": annotations}, "spec": {"models": filled(
                    ENTRIES_BYTES, entry)}}),
            )
            .await?;
        }
        for manager in ["rimward-session", "older-session"] {
            let models = filled(STATUS_BYTES, report);
            apply(
                manager,
                "status",
                json!({"metadata": {"name": "largest"}, "status": {"observedGeneration": 1, "models": models}}),
            )
            .await?;
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
