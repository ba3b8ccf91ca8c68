//! The command line against a real API server: objects that people and the operator write, as `get`,
//! `status` and `explain` show them, and what they exit with.

use anyhow::{Result, ensure};
use rimward_e2e::control_plane::Options;
use rimward_e2e::rimward::binary;
use rimward_e2e::{Fleet, Kubectl, Story, command::Line, command::Output, story};
use serde_json::{Value, json};

#[test]
fn get_status_and_explain_say_where_a_rollout_is_and_why() {
    story("cli", async |story: &Story| {
        let fleet = Fleet::start("cli", &[], Options::default()).await?;
        let hub = fleet.hub.kubectl()?;
        let kubeconfig = fleet.hub.kubeconfig().display().to_string();
        let cli = async |arguments: &[&str]| -> Result<Output> {
            let line = Line::new(&binary("kubectl-rimward")?);
            let own = ["--kubeconfig", &kubeconfig];
            line.args([arguments, &own[..]].concat()).output().await
        };

        // What is not there: nothing on standard output, one line on the other.
        for arguments in [
            &["get", "digits"][..],
            &["status", "digits"],
            &["explain", "digits"],
        ] {
            let missing = cli(arguments).await?;
            ensure!(missing.status.code() == Some(1), "{arguments:?}");
            ensure!(missing.stdout.is_empty(), "{}", missing.stdout);
            let said: Vec<_> = missing.stderr.lines().collect();
            ensure!(said.len() == 1, "{said:?}");
            ensure!(
                said[0].starts_with("Error: ModelDeployment digits: "),
                "{said:?}"
            );
        }
        let empty = cli(&["get"]).await?;
        ensure!(empty.status.success() && empty.stdout.is_empty());

        put(
            &hub,
            "ModelDeployment",
            "digits",
            json!({
                "modelRef": {"name": "digits-2"}, "placement": {"clusterSelector": {}},
            }),
            json!({
                "observedGeneration": 1, "progress": "0/1", "waitingFor": "cluster west",
                "currentRevision": "digits-a", "updateRevision": "digits-b",
                "conditions": [condition("Reconciling", "Progressing")],
            }),
        )
        .await?;
        put(&hub, "ModelRevision", "digits-b", json!({
            "deploymentName": "digits", "model": {"name": "digits-2", "family": "digits", "version": "1.1.0"},
            "package": package(), "runtime": {}, "health": {},
        }), json!({"observedGeneration": 1, "outcome": "Pending"})).await?;
        put(&hub, "ClusterAssignment", "west", json!({"models": [{
            "namespace": "default", "name": "digits", "endpointName": "digits", "revision": "digits-b",
            "package": package(), "runtime": {}, "health": {}, "maxUnavailable": 1, "action": "Run",
            "stage": "all", "progressDeadlineSeconds": 600,
        }]}), json!({"observedGeneration": 1, "models": [{
            "namespace": "default", "name": "digits", "revision": "digits-b",
            "nodes": {"desired": 2, "failed": 1}, "verdict": {"phase": "Failed"},
            "problems": [{"node": "n1", "reason": "GoldenVectorMismatch",
                "message": "golden vector 3: expected 7, got 1"}],
        }]})).await?;

        let tree = cli(&["get"]).await?.success()?;
        ensure!(tree.starts_with("default/digits  Progressing"), "{tree}");
        let cluster = "│  └─ cluster west  digits-b  0/2 nodes updated, 0 ready, 1 failed  Failed";
        ensure!(tree.contains(cluster), "{tree}");
        let yaml = cli(&["get", "-A", "-o", "yaml"]).await?.success()?;
        let views: Value = serde_yaml::from_str(&yaml)?;
        ensure!(
            views[0]["stages"][0]["clusters"][0]["name"] == "west",
            "{yaml}"
        );

        let why = cli(&["explain", "digits", "--cluster", "west", "--node", "n1"]).await?;
        let why = why.success()?;
        let last = why.lines().last().unwrap_or_default();
        ensure!(
            last.ends_with("GoldenVectorMismatch: golden vector 3: expected 7, got 1"),
            "{why}"
        );

        // On its way: a look is fine, a wait runs out of time, and ends as soon as the rollout does.
        let look = cli(&["status", "digits"]).await?.success()?;
        ensure!(look.contains("waiting for: cluster west"), "{look}");
        let late = cli(&["status", "digits", "-w", "--timeout", "1s"])
            .await?
            .refusal()?;
        ensure!(late.contains("not settled within 1 s"), "{late}");
        for (kind, reason, code) in [("Ready", "Promoted", 0), ("Stalled", "StageFailed", 1)] {
            let wait = cli(&["status", "digits", "-w", "--timeout", "60s"]);
            let turn = async {
                tokio::time::sleep(std::time::Duration::from_secs(2)).await;
                status(
                    &hub,
                    "ModelDeployment",
                    "digits",
                    json!({
                        "observedGeneration": 1, "conditions": [condition(kind, reason)],
                    }),
                )
                .await
            };
            let (waited, turned) = tokio::join!(wait, turn);
            turned?;
            let waited = waited?;
            ensure!(waited.status.code() == Some(code), "{}", waited.stdout);
            let last = waited.stdout.lines().last().unwrap_or_default();
            ensure!(
                last.contains(kind) && last.contains(reason),
                "{}",
                waited.stdout
            );
            status(&hub, "ModelDeployment", "digits", json!({
                "observedGeneration": 1, "conditions": [condition("Reconciling", "Progressing")],
            })).await?;
        }
        ensure!(story.scratch().path().exists());
        Ok(())
    });
}

fn package() -> Value {
    json!({"repository": "r.example/m", "digest": format!("sha256:{}", "0".repeat(64))})
}

fn condition(kind: &str, reason: &str) -> Value {
    json!({"type": kind, "status": "True", "reason": reason, "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"})
}

async fn put(hub: &Kubectl, kind: &str, name: &str, spec: Value, with: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    });
    hub.apply(&object.to_string()).await?;
    status(hub, kind, name, with).await
}

async fn status(hub: &Kubectl, kind: &str, name: &str, status: Value) -> Result<()> {
    let patch = json!({ "status": status }).to_string();
    hub.run([
        "patch",
        kind,
        name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ])
    .await?;
    Ok(())
}
