//! What people ask of rollouts, on a real API server: the policy, the rights and the commands. The hub's part is played
//! with its operator's own account, so that what it may do is held against the authoriser as well.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kube::Api;
use kube::api::{Patch, PatchParams};
use rimward_crds::RolloutAction;
use rimward_e2e::command::{Line, Output};
use rimward_e2e::control_plane::Options;
use rimward_e2e::rimward::binary;
use rimward_e2e::{Fleet, Kubectl, Seen, Story, control_plane, story, wait_for};
use serde_json::{Value, json};

#[test]
fn a_person_acts_in_their_own_name_where_they_may_and_hears_what_became_of_it() {
    story("actions", async |_: &Story| {
        let fleet = Fleet::start("actions", &[], Options::default()).await?;
        let admin = fleet.hub.kubectl()?;
        let operator = Kubectl::new(&fleet.hub_operator)?;
        // The binding that operator/rbac/actions.yaml tells people to copy.
        fleet.hub.ensure_namespace("team").await?;
        fleet.hub.ensure_namespace("other").await?;
        admin.apply(BINDING).await?;
        let ann = fleet.hub.user_kubeconfig("ann", "ann", &[])?;
        for namespace in ["team", "other"] {
            admin.apply(&deployment(namespace)).await?;
            let status = json!({"status": {"updateRevision": "digits-2",
                "stage": {"name": "canary", "index": 1, "of": 2, "phase": "Stopped", "attempt": 3}}});
            patch_status(&admin, namespace, "modeldeployment/digits", &status).await?;
        }

        nobody_acts_in_anothers_name(&Kubectl::new(&ann)?).await?;
        applied(&ann, &operator).await?;
        refused(&ann, &operator).await?;
        unanswered(&ann, &admin).await?;
        elsewhere(&ann).await?;
        the_hub_answers_and_deletes_and_never_asks(&operator).await
    });
}

const BINDING: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: rimward-act, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: rimward-act}
subjects:
  - {kind: User, name: ann, apiGroup: rbac.authorization.k8s.io}
";

fn deployment(namespace: &str) -> String {
    json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "ModelDeployment",
        "metadata": {"name": "digits", "namespace": namespace},
        "spec": {"modelRef": {"name": "digits-2"}, "placement": {"clusterSelector": {}}},
    })
    .to_string()
}

async fn nobody_acts_in_anothers_name(ann: &Kubectl) -> Result<()> {
    let action = |by: &str| {
        json!({"apiVersion": "rimward.dev/v1alpha1", "kind": "RolloutAction",
            "metadata": {"generateName": "digits-abort-", "namespace": "team"},
            "spec": {"deploymentName": "digits", "action": "Abort", "by": by}})
        .to_string()
    };
    // A policy takes a moment before it is in force.
    let expected = "spec.by must be the user who asks, ann, and is admin";
    wait_for(
        "the admission policy",
        Duration::from_secs(60),
        async || {
            let forged = ann
                .line(["create", "-f", "-"])
                .input(action("admin"))
                .output()
                .await?;
            if forged.status.success() {
                return Ok(Seen::NotYet("a forged action was taken".to_owned()));
            }
            Ok(match forged.stderr.contains(expected) {
                true => Seen::Done(()),
                false => Seen::Never(forged.stderr),
            })
        },
    )
    .await?;
    ann.run(["delete", "rolloutactions", "-n", "team", "--all"])
        .await?;
    let own = ann.line(["create", "-f", "-"]).input(action("ann"));
    own.output().await?.success()?;
    // What was asked once does not turn into something else.
    let names = ann
        .run(["get", "rolloutactions", "-n", "team", "-o", "name"])
        .await?;
    let name = names.trim();
    let patch = r#"{"spec":{"action":"Retry"}}"#;
    let refusal = ann
        .output(["patch", name, "-n", "team", "--type=merge", "-p", patch])
        .await?
        .refusal()?;
    ensure!(refusal.contains("forbidden"), "{refusal}");
    ann.run(["delete", name, "-n", "team"]).await?;
    Ok(())
}

async fn cli(kubeconfig: &Path, arguments: &[&str]) -> Result<Output> {
    let own = kubeconfig.display().to_string();
    let line = Line::new(&binary("kubectl-rimward")?);
    line.args([arguments, &["--kubeconfig", &own]].concat())
        .output()
        .await
}

/// Waits for the only action, answers it as the hub does, and returns it.
async fn answer(operator: &Kubectl, outcome: &str, message: &str) -> Result<Value> {
    let began = Instant::now();
    let action = loop {
        let list = operator
            .get_json(["rolloutactions", "-n", "team"])
            .await
            .context("the operator's account may not read actions")?;
        let open = |it: &&Value| it["status"]["outcome"].is_null();
        if let Some(found) = list["items"]
            .as_array()
            .and_then(|all| all.iter().find(open))
        {
            break found.clone();
        }
        ensure!(began.elapsed() < Duration::from_secs(60), "no action came");
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    let name = action["metadata"]["name"].as_str().unwrap_or_default();
    let status = json!({"status": {"observedGeneration": 1, "outcome": outcome, "message": message,
        "completedTime": "2026-01-01T00:00:00Z"}});
    // As the hub does it: kubectl would read the status first, for which it has no right and no need.
    let client = control_plane::client(operator.kubeconfig()).await?;
    let api: Api<RolloutAction> = Api::namespaced(client, "team");
    let params = PatchParams::default();
    api.patch_status(name, &params, &Patch::Merge(&status))
        .await
        .context("the operator's account may not answer an action")?;
    Ok(action)
}

async fn patch_status(
    kubectl: &Kubectl,
    namespace: &str,
    object: &str,
    status: &Value,
) -> Result<()> {
    let patch = status.to_string();
    let line = [
        "patch",
        object,
        "-n",
        namespace,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    kubectl.run(line).await?;
    Ok(())
}

async fn applied(ann: &Path, operator: &Kubectl) -> Result<()> {
    let sentence = "revision digits-2 is open again as attempt 4";
    let asking = cli(
        ann,
        &[
            "retry",
            "digits",
            "-n",
            "team",
            "--forget-verdicts",
            "--timeout",
            "60s",
        ],
    );
    let (asked, action) = tokio::try_join!(asking, answer(operator, "Applied", sentence))?;
    let asked = asked.success()?;
    ensure!(asked == format!("{sentence}\n"), "{asked:?}");
    let expected = json!({"deploymentName": "digits", "action": "Retry", "revision": "digits-2", "attempt": 3,
        "forgetVerdicts": true, "by": "ann"});
    ensure!(action["spec"] == expected, "{action}");
    let name = action["metadata"]["name"].as_str().unwrap_or_default();
    ensure!(name.starts_with("digits-retry-"), "{name}");
    Ok(())
}

async fn refused(ann: &Path, operator: &Kubectl) -> Result<()> {
    let sentence = "deployment digits is in stage rest, not in canary";
    let asking = cli(
        ann,
        &["promote", "digits", "-n", "team", "--timeout", "60s"],
    );
    let (asked, action) = tokio::try_join!(asking, answer(operator, "Refused", sentence))?;
    ensure!(asked.status.code() == Some(1) && asked.stdout.is_empty());
    ensure!(
        asked.stderr == format!("Error: refused: {sentence}\n"),
        "{}",
        asked.stderr
    );
    ensure!(action["spec"]["stage"] == "canary", "{action}");
    Ok(())
}

/// No hub runs: the question stands, and the command says so.
async fn unanswered(ann: &Path, admin: &Kubectl) -> Result<()> {
    let late = cli(ann, &["abort", "digits", "-n", "team", "--timeout", "1s"]).await?;
    ensure!(late.status.code() == Some(1) && late.stdout.is_empty());
    let lines: Vec<_> = late.stderr.lines().collect();
    ensure!(lines.len() == 1, "{lines:?}");
    let begin = "Error: the hub has not answered RolloutAction digits-abort-";
    ensure!(lines[0].starts_with(begin), "{lines:?}");
    let made = cli(
        ann,
        &["undo", "digits", "digits-0", "-n", "team", "--no-wait"],
    )
    .await?;
    let made = made.success()?;
    ensure!(
        made.starts_with("rolloutaction.rimward.dev/digits-undo-") && made.ends_with(" created\n"),
        "{made}"
    );
    let name = made.trim_end_matches(" created\n");
    let spec = admin.get_json([name, "-n", "team"]).await?["spec"].take();
    let expected =
        json!({"deploymentName": "digits", "action": "Undo", "revision": "digits-0", "by": "ann"});
    ensure!(spec == expected, "{spec}");
    // Both stand among what the deployment's tree shows.
    let tree = cli(
        admin.kubeconfig(),
        &["get", "digits", "-n", "team", "-o", "wide"],
    )
    .await?;
    let tree = tree.success()?;
    for line in [
        "action Undo by ann (digits-undo-",
        "action Abort by ann (digits-abort-",
        "  Applied: revision digits-2 is open again as attempt 4\n",
    ] {
        ensure!(tree.contains(line), "no {line:?} in\n{tree}");
    }
    Ok(())
}

/// Rights end at the namespace.
async fn elsewhere(ann: &Path) -> Result<()> {
    let refusal = cli(ann, &["retry", "digits", "-n", "other"])
        .await?
        .refusal()?;
    ensure!(
        refusal.contains("forbidden") && refusal.lines().count() == 1,
        "{refusal}"
    );
    let action = json!({"apiVersion": "rimward.dev/v1alpha1", "kind": "RolloutAction",
        "metadata": {"name": "sneaky", "namespace": "other"},
        "spec": {"deploymentName": "digits", "action": "Retry", "by": "ann"}});
    let made = Kubectl::new(ann)?
        .line(["create", "-f", "-"])
        .input(action.to_string())
        .output()
        .await?;
    let refusal = made.refusal()?;
    ensure!(
        refusal.contains("cannot create resource \"rolloutactions\""),
        "{refusal}"
    );
    Ok(())
}

async fn the_hub_answers_and_deletes_and_never_asks(operator: &Kubectl) -> Result<()> {
    for (verb, may) in [
        ("list", true),
        ("watch", true),
        ("delete", true),
        ("create", false),
        ("patch", false),
        ("update", false),
    ] {
        let answer = operator
            .output([
                "auth",
                "can-i",
                verb,
                "rolloutactions.rimward.dev",
                "-n",
                "team",
            ])
            .await?;
        ensure!(answer.status.success() == may, "{verb}: {}", answer.stdout);
    }
    operator
        .run(["delete", "rolloutactions", "-n", "team", "--all"])
        .await?;
    Ok(())
}

#[test]
fn a_node_that_is_gone_is_forgotten_and_a_living_one_is_not() {
    story("node-forget", async |_: &Story| {
        let fleet = Fleet::start("node-forget", &[], Options::default()).await?;
        let edge = &fleet.hub;
        let admin = edge.kubectl()?;
        let kubeconfig = edge.kubeconfig();
        edge.ensure_namespace("rimward-nodes").await?;
        let missing = cli(&kubeconfig, &["node", "forget", "n1"])
            .await?
            .refusal()?;
        ensure!(missing.contains("Error: EdgeNode n1: "), "{missing}");

        let lease = |beat: u32| {
            json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": "n1", "namespace": "rimward-nodes"},
                "spec": {"holderIdentity": beat.to_string(), "leaseDurationSeconds": 4}})
            .to_string()
        };
        admin
            .apply("{apiVersion: rimward.dev/v1alpha1, kind: EdgeNode, metadata: {name: n1}, spec: {}}")
            .await?;
        admin.apply(&lease(0)).await?;

        // It beats once a second while it is looked at.
        let beats = async {
            for beat in 1..60 {
                tokio::time::sleep(Duration::from_secs(1)).await;
                admin.apply(&lease(beat)).await?;
            }
            anyhow::Ok(())
        };
        let refusal = tokio::select! {
            asked = cli(&kubeconfig, &["node", "forget", "n1"]) => asked?.refusal()?,
            beats = beats => { beats?; String::new() }
        };
        let last = refusal.lines().last().unwrap_or_default();
        ensure!(last.starts_with("Error: node n1 is alive: "), "{refusal}");
        admin.run(["get", "edgenode", "n1"]).await?;
        admin
            .run(["get", "lease", "n1", "-n", "rimward-nodes"])
            .await?;

        let began = Instant::now();
        let forgotten = cli(&kubeconfig, &["node", "forget", "n1"])
            .await?
            .success()?;
        ensure!(
            forgotten == "edgenode.rimward.dev/n1 forgotten\n",
            "{forgotten}"
        );
        ensure!(
            began.elapsed() >= Duration::from_secs(6),
            "it was not looked at"
        );
        for line in [
            &["get", "edgenode", "n1"][..],
            &["get", "lease", "n1", "-n", "rimward-nodes"],
        ] {
            let gone = admin.output(line).await?.refusal()?;
            ensure!(gone.contains("not found"), "{gone}");
        }
        Ok(())
    });
}
