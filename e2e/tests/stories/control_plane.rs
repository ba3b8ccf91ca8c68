//! The real parts themselves: what every other story stands on.

use std::io::Write;
use std::time::Duration;

use anyhow::ensure;
use rimward_e2e::control_plane::{ControlPlane, Options};
use rimward_e2e::registry::{self, Registry};
use rimward_e2e::{Cosign, Seen, Story, audit, story, wait_for};

#[test]
fn an_api_server_keeps_what_it_acknowledged_and_records_who_asked() {
    story("api-server", async |story: &Story| {
        let options = Options {
            audit: audit::Level::Request,
            ..Options::default()
        };
        let hub = ControlPlane::start("hub", story.scratch().path(), options).await?;
        let kubectl = hub.kubectl()?;
        ensure!(kubectl.run(["get", "--raw", "/readyz"]).await? == "ok");

        let mark = hub.audit().mark()?;
        kubectl
            .run(["create", "configmap", "tide", "--from-literal=level=low"])
            .await?;
        let patch = r#"{"data":{"level":"high"}}"#;
        kubectl
            .run(["patch", "configmap", "tide", "-p", patch])
            .await?;
        let writes = hub.audit().writes_since(mark, "admin")?;
        let seen: Vec<_> = writes
            .iter()
            .map(|event| (event.verb.as_str(), event.resource()))
            .collect();
        ensure!(
            seen == [("create", "configmaps"), ("patch", "configmaps")],
            "{seen:?}"
        );
        ensure!(
            hub.audit()
                .writes_since(mark, "system:serviceaccount:rimward")?
                .is_empty()
        );

        hub.stop_api_server();
        let away = kubectl
            .output(["get", "configmap", "tide"])
            .await?
            .refusal()?;
        ensure!(away.contains("refused"), "{away}");
        hub.start_api_server().await?;
        let tide = kubectl.get_json(["configmap", "tide"]).await?;
        ensure!(tide["data"]["level"] == "high", "{tide}");
        let version = hub.client().await?.apiserver_version().await?;
        ensure!(version.major == "1", "{version:?}");
        Ok(())
    });
}

#[test]
fn controllers_collect_garbage_and_an_account_may_do_nothing_by_itself() {
    story("controllers", async |story: &Story| {
        let hub = ControlPlane::start("hub", story.scratch().path(), Options::default()).await?;
        let kubectl = hub.kubectl()?;
        kubectl.run(["create", "configmap", "owner"]).await?;
        let owner = kubectl.get_json(["configmap", "owner"]).await?;
        let uid = owner["metadata"]["uid"].as_str().unwrap_or_default();
        kubectl
            .apply(&format!(
                "{{apiVersion: v1, kind: ConfigMap, metadata: {{name: owned, ownerReferences: \
                 [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]}}}}"
            ))
            .await?;
        kubectl.run(["delete", "configmap", "owner"]).await?;
        wait_for(
            "the owned object to be collected",
            Duration::from_secs(120),
            async || {
                let output = kubectl.output(["get", "configmap", "owned"]).await?;
                Ok(if output.stderr.contains("NotFound") {
                    Seen::Done(())
                } else {
                    Seen::NotYet(output.stdout)
                })
            },
        )
        .await?;

        let account = hub.account_kubeconfig("tests", "nobody").await?;
        let nobody = rimward_e2e::Kubectl::new(&account)?;
        let who = nobody
            .run([
                "auth",
                "whoami",
                "-o",
                "jsonpath={.status.userInfo.username}",
            ])
            .await?;
        ensure!(who == "system:serviceaccount:tests:nobody", "{who}");
        let refused = nobody.output(["get", "configmaps"]).await?.refusal()?;
        ensure!(refused.contains("Forbidden"), "{refused}");
        Ok(())
    });
}

#[test]
fn a_registry_has_what_was_pushed_after_it_was_killed() {
    for (name, kind) in [
        ("registry-referrers", registry::Kind::Referrers),
        ("registry-tags", registry::Kind::TagScheme),
    ] {
        story(name, async |story: &Story| {
            let registry = Registry::start(kind, story.scratch().path()).await?;
            let digest = registry
                .push("a/b", "v1", "application/x", b"bytes")
                .await?;
            registry.stop();
            if kind == registry::Kind::Referrers {
                // A kill in the middle of a write that nobody was told of.
                let journal = story.scratch().path().join("data/manifests.jsonl");
                let mut journal = std::fs::File::options().append(true).open(journal)?;
                journal.write_all(b"{\"method\":\"PUT\",\"path\":\"/v2/a/b/mani")?;
            }
            registry.resume().await?;
            for reference in ["v1", &digest] {
                let manifest = registry.manifest("a/b", reference).await?;
                let layer = manifest["layers"][0]["digest"].as_str().unwrap_or_default();
                ensure!(registry.blob("a/b", layer).await? == b"bytes");
            }
            Ok(())
        });
    }
}

#[test]
fn cosign_signs_and_verifies_with_and_without_the_referrers_api() {
    for (name, kind) in [
        ("cosign-referrers", registry::Kind::Referrers),
        ("cosign-tags", registry::Kind::TagScheme),
    ] {
        story(name, async |story: &Story| {
            let registry = Registry::start(kind, &story.scratch().folder("registry")?).await?;
            let cosign = Cosign::generate(&story.scratch().folder("keys")?).await?;
            let digest = registry
                .push("a/b", "v1", "application/x", b"bytes")
                .await?;
            let reference = format!("{}/a/b@{digest}", registry.host());
            cosign.verify(&reference).await?.refusal()?;
            cosign.sign(&reference).await?;
            cosign.verify(&reference).await?.success()?;

            // Found by the API, or else under the tag that stands for it.
            let tag = registry.manifest("a/b", &digest.replace(':', "-")).await;
            ensure!(
                tag.is_ok() == (kind == registry::Kind::TagScheme),
                "{tag:?}"
            );

            let other = Cosign::generate(&story.scratch().folder("other")?).await?;
            other.verify(&reference).await?.refusal()?;
            Ok(())
        });
    }
}
