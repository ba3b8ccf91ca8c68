//! Bad input to the hub, one by one: each is refused or gets a condition that names what and where, and stops no
//! other object.

use anyhow::{Result, ensure};
use rimward_e2e::device::Source;
use rimward_e2e::tamper::{Wrong, tamper};
use rimward_e2e::{Registry, Seen, Story, story, wait_for};

use crate::hub_world::{Sessions, TEAM, WITHIN, World, cluster, deployment, model};
use crate::{hub_bounds, pull_secret};

const EVERYWHERE: &str = "placement: {clusterSelector: {}}";

#[test]
fn every_bad_object_says_what_and_where_and_stops_no_other() {
    story("hub-refusals", async |story: &Story| {
        let world = World::start("hub-refusals-fleet").await?;
        let image = world.push("passthrough", "1.0.0").await?;
        let folder = story.scratch();
        let locked = Registry::start_locked(&folder.folder("registry")?).await?;
        let locked = Source::of(locked, folder).await?;
        let _operator = world
            .operator_for("hub", folder.path(), &[locked.registry()])
            .await?;
        world.apply(&cluster("one", "canary")).await?;
        world.apply(&cluster("two", "main")).await?;
        let _sessions = Sessions::play(&world, &["one", "two"]).await?;
        world.apply(&model("good", "digits-raw", &image)).await?;
        world
            .condition(("model", "good"), "Ready", "True", "Resolved")
            .await?;

        models(&world, &image).await?;
        placements(&world).await?;
        policies(&world).await?;
        hub_bounds::history(&world, "one", "two").await?;
        hub_bounds::too_large(&world, "canary", "one").await?;
        pull_secret::tell(&world, story, &locked).await?;
        kubeconfigs(&world).await?;
        an_unreadable_object_stops_no_other(&world).await?;
        // All of this said once is enough.
        world.steady().await
    });
}

async fn models(world: &World, image: &str) -> Result<()> {
    let host = world.fleet.registry.host();
    world
        .fleet
        .registry
        .push("a/b", "v1", "application/x", b"bytes")
        .await?;
    let large = tamper(
        &world.fleet.registry,
        "models/passthrough",
        "1.0.0",
        Wrong::TooLarge,
    );
    let large = large.await?.reference();
    for (name, family, image, reason, stalled, words) in [
        (
            "too-large",
            "digits-raw",
            large,
            "PackageInvalid",
            "True",
            "declares 9663676416 bytes, at most 8589934592",
        ),
        (
            "no-tag",
            "digits-raw",
            format!("{host}/models/passthrough:2.0.0"),
            "ImageNotFound",
            "True",
            "2.0.0",
        ),
        (
            "no-package",
            "digits-raw",
            format!("{host}/a/b:v1"),
            "PackageInvalid",
            "True",
            "manifest",
        ),
        (
            "other-family",
            "letters",
            image.to_owned(),
            "PackageMismatch",
            "True",
            "digits-raw",
        ),
        (
            "no-host",
            "digits-raw",
            "digits:1".to_owned(),
            "ImageInvalid",
            "True",
            "spec.image",
        ),
        (
            "no-registry",
            "digits-raw",
            "127.0.0.1:9/a/b:v1".to_owned(),
            "RegistryUnavailable",
            "False",
            "--plain-http 127.0.0.1:9 there allows it",
        ),
    ] {
        world.apply(&model(name, family, &image)).await?;
        let message = world
            .condition(("model", name), "Ready", "False", reason)
            .await?;
        ensure!(message.contains(words), "{name}: {message}");
        world
            .condition(("model", name), "Stalled", stalled, reason)
            .await?;
    }
    let manifest = format!(
        "{{apiVersion: rimward.dev/v1alpha1, kind: Model, metadata: {{name: no-secret}},
           spec: {{family: digits-raw, version: 1.0.0, image: '{image}', pullSecretRef: {{name: absent}}}}}}"
    );
    world.apply(&manifest).await?;
    let model = ("model", "no-secret");
    let message = world
        .condition(model, "Stalled", "True", "PullSecretInvalid")
        .await?;
    ensure!(message.contains("team/absent"), "{message}");
    // What was good before is good still. A tag that moves after it was resolved changes nothing.
    let pinned = world.get("model", "good").await?["status"]["digest"].clone();
    world
        .fleet
        .registry
        .push("models/passthrough", "1.0.0", "application/x", b"moved")
        .await?;
    let hold = r#"{"metadata":{"labels":{"touched":"yes"}}}"#;
    world
        .kubectl
        .run([
            "patch",
            "model",
            "good",
            "-n",
            TEAM,
            "--type=merge",
            "-p",
            hold,
        ])
        .await?;
    world
        .condition(("model", "good"), "Ready", "True", "Resolved")
        .await?;
    ensure!(world.get("model", "good").await?["status"]["digest"] == pinned);
    Ok(())
}

async fn placements(world: &World) -> Result<()> {
    let refused = world
        .apply(&deployment(
            "typo",
            "good",
            "placement: {}, canaryPercent: 5",
        ))
        .await;
    let words = refused
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    ensure!(words.contains("canaryPercent"), "{words}");

    world
        .apply(&deployment("first", "good", EVERYWHERE))
        .await?;
    let ready = ("modeldeployment", "first");
    world.condition(ready, "Ready", "True", "RolledOut").await?;
    let second = format!("endpointName: first, {EVERYWHERE}");
    world.apply(&deployment("second", "good", &second)).await?;
    let object = ("modeldeployment", "second");
    let message = world
        .condition(object, "Stalled", "True", "EndpointNameTaken")
        .await?;
    ensure!(message.contains("team/first"), "{message}");

    let nowhere = "placement: {clusterSelector: {matchLabels: {ring: none}}}";
    world.apply(&deployment("nowhere", "good", nowhere)).await?;
    let object = ("modeldeployment", "nowhere");
    let message = world
        .condition(object, "Ready", "False", "NoClusters")
        .await?;
    ensure!(message.contains("no cluster"), "{message}");

    world
        .apply(&deployment("no-model", "absent", EVERYWHERE))
        .await?;
    let object = ("modeldeployment", "no-model");
    let message = world
        .condition(object, "Ready", "False", "ModelNotFound")
        .await?;
    ensure!(message.contains("team/absent"), "{message}");
    world
        .apply(&deployment("bad-model", "no-tag", EVERYWHERE))
        .await?;
    let object = ("modeldeployment", "bad-model");
    let message = world
        .condition(object, "Stalled", "True", "ModelNotReady")
        .await?;
    ensure!(message.contains("ImageNotFound"), "{message}");
    // What served keeps serving.
    world.condition(ready, "Ready", "True", "RolledOut").await?;
    Ok(())
}

async fn policies(world: &World) -> Result<()> {
    let uses = format!("{EVERYWHERE}, endpointName: staged, rolloutPolicyRef: {{name: odd}}");
    world.apply(&deployment("staged", "good", &uses)).await?;
    let object = ("modeldeployment", "staged");
    let message = world
        .condition(object, "Ready", "False", "PolicyNotFound")
        .await?;
    ensure!(message.contains("odd"), "{message}");
    let odd = |typo: &str| {
        format!(
            "{{apiVersion: rimward.dev/v1alpha1, kind: RolloutPolicy, metadata: {{name: odd}}, spec: {{stages: [
               {{name: typo, clusters: {{selector: {{matchLabels: {{ring: cannary}}}}}}{typo}}},
               {{name: ring, clusters: {{selector: {{matchLabels: {{ring: canary}}}}}}}},
               {{name: again, clusters: {{selector: {{}}}}}}]}}}}"
        )
    };
    world.apply(&odd("")).await?;
    // A misspelt canary label must not release to everyone: such a stage waits, and says what a person can do.
    let message = world
        .condition(object, "Stalled", "True", "StageEmpty")
        .await?;
    ensure!(
        message.contains("kubectl rimward promote staged"),
        "{message}"
    );
    world.apply(&odd(", allowEmpty: true")).await?;
    // Where it may be empty it passes, and the policy says which one it was, and which one overlaps.
    world
        .condition(object, "Ready", "True", "RolledOut")
        .await?;
    let message = wait_for("the policy's remarks", WITHIN, async || {
        let message = world
            .condition(("rolloutpolicy", "odd"), "Ready", "True", "Valid")
            .await?;
        Ok(if message.contains("selects no cluster") {
            Seen::Done(message)
        } else {
            Seen::NotYet(message)
        })
    })
    .await?;
    ensure!(
        message.contains("stage typo selects no cluster"),
        "{message}"
    );
    ensure!(
        message.contains("stage again overlaps stage ring"),
        "{message}"
    );
    Ok(())
}

/// A Push cluster's Secret that is missing, lacks the key, is no kubeconfig, or would run a program on the hub.
async fn kubeconfigs(world: &World) -> Result<()> {
    let exec = "apiVersion: v1\nkind: Config\nusers:\n- name: u\n  user: {exec: {apiVersion: v1, command: sh}}\n";
    for (name, file, words) in [
        ("absent", None, "rimward-system/absent does not exist"),
        ("no-key", Some(("other", "x")), "has no key kubeconfig"),
        (
            "no-config",
            Some(("kubeconfig", "hunter2: [")),
            "is not a kubeconfig",
        ),
        ("exec", Some(("kubeconfig", exec)), "users[0].user.exec"),
    ] {
        if let Some((key, text)) = file {
            let literal = format!("--from-literal={key}={text}");
            let secret = [
                "create",
                "secret",
                "generic",
                name,
                "-n",
                "rimward-system",
                &literal,
            ];
            world.kubectl.run(secret).await?;
        }
        world
            .apply(&format!(
                "{{apiVersion: rimward.dev/v1alpha1, kind: EdgeCluster, metadata: {{name: push-{name}}},
                   spec: {{connection: {{mode: Push, kubeconfigSecretRef: {{name: {name}}}}}}}}}"
            ))
            .await?;
        let object = ("edgecluster", &*format!("push-{name}"));
        let message = world
            .condition(object, "Stalled", "True", "KubeconfigInvalid")
            .await?;
        ensure!(
            message.contains(words) && !message.contains("hunter2"),
            "{message}"
        );
    }
    Ok(())
}

/// The schema is as tight as the types; here it is loosened, as an older or newer one might be.
async fn an_unreadable_object_stops_no_other(world: &World) -> Result<()> {
    let path =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/revisionHistoryLimit";
    let loose = format!(
        r#"[{{"op":"replace","path":"{path}","value":{{"x-kubernetes-int-or-string":true,"description":"loose"}}}}]"#
    );
    let crd = "modeldeployments.rimward.dev";
    world
        .kubectl
        .run(["patch", "crd", crd, "--type=json", "-p", &loose])
        .await?;
    // One that served before, and one that never did.
    let served = format!("{EVERYWHERE}, endpointName: served");
    world.apply(&deployment("served", "good", &served)).await?;
    let object = ("modeldeployment", "served");
    world
        .condition(object, "Ready", "True", "RolledOut")
        .await?;
    let before = world.running("one", "served").await?;
    ensure!(before.is_some());
    for name in ["served", "never"] {
        let spec = format!("{EVERYWHERE}, endpointName: {name}, revisionHistoryLimit: many");
        wait_for("the loose schema to be served", WITHIN, async || {
            world.apply(&deployment(name, "good", &spec)).await?;
            Ok(Seen::Done(()))
        })
        .await?;
        let message = world
            .condition(
                ("modeldeployment", name),
                "Stalled",
                "True",
                "ObjectInvalid",
            )
            .await?;
        ensure!(message.contains("many"), "{message}");
    }
    // Others go on, and what served is left as it is.
    let after = format!("{EVERYWHERE}, endpointName: after");
    world.apply(&deployment("after", "good", &after)).await?;
    world
        .condition(("modeldeployment", "after"), "Ready", "True", "RolledOut")
        .await?;
    ensure!(world.running("one", "served").await? == before);
    ensure!(world.running("one", "never").await?.is_none());
    Ok(())
}
