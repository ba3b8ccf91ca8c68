//! A registry that wants a password: the hub shows it the Model's pull Secret, the device its own file; who has the
//! wrong password says so and where it stands, and gets on once it is put right.

use anyhow::{Result, ensure};
use rimward_e2e::Story;
use rimward_e2e::device::{Device, Source, Wanted};
use rimward_e2e::registry::USER;
use serde_json::{Value, json};

use crate::hub_world::{TEAM, World};

const RELEASE: &str = "examples/packages/digits-1.0.0";
const WRONG: &str = "not-this-one";
/// The operator's right to these Secrets, as operator/rbac/hub.yaml tells people to give it.
const ROLE: &str = r#"
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: rimward-hub-pull, namespace: team}
rules:
- {apiGroups: [""], resources: [secrets], resourceNames: [right, wrong], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: rimward-hub-pull, namespace: team}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: rimward-hub-pull}
subjects:
- {kind: ServiceAccount, name: rimward-hub, namespace: rimward-system}
"#;

/// `source` is a registry that wants a password, and whoever signs there; the world's operator knows its address.
pub(crate) async fn tell(world: &World, story: &Story, source: &Source) -> Result<()> {
    let release = source.release(RELEASE, "digits", "1.0.0").await?;
    let host = source.registry().host();
    let password = source.registry().password().unwrap_or_default();
    for (name, password) in [("right", password), ("wrong", WRONG)] {
        let flags = [
            format!("--docker-server={host}"),
            format!("--docker-username={USER}"),
            format!("--docker-password={password}"),
        ];
        let words = ["create", "secret", "docker-registry", name, "-n", TEAM];
        let flags = flags.each_ref().map(String::as_str);
        world.kubectl.run([&words[..], &flags].concat()).await?;
    }
    on_the_hub(world, &release.reference(), &host, release.digest()).await?;
    on_a_device(story, source, &release).await
}

async fn on_the_hub(world: &World, image: &str, host: &str, digest: &str) -> Result<()> {
    // The Secret is there; the operator may not read it before it is given the right.
    world.apply(&model("locked", image, Some("right"))).await?;
    let locked = ("model", "locked");
    let message = world
        .condition(locked, "Stalled", "True", "PullSecretInvalid")
        .await?;
    ensure!(
        message.contains("Secret team/right may not be read"),
        "{message}"
    );
    world.kubectl.apply(ROLE).await?;
    world.condition(locked, "Ready", "True", "Resolved").await?;
    ensure!(world.get("model", "locked").await?["status"]["digest"] == digest);

    for (name, secret, words) in [
        ("no-login", None, format!("credentials for {host}: none")),
        (
            "wrong-login",
            Some("wrong"),
            format!("credentials for {host}: given"),
        ),
    ] {
        world.apply(&model(name, image, secret)).await?;
        let object = ("model", name);
        let message = world
            .condition(object, "Stalled", "True", "RegistryAccessDenied")
            .await?;
        ensure!(message.contains(&words), "{message}");
        let names_secret = message.contains("spec.pullSecretRef: Secret team/wrong");
        ensure!(names_secret == secret.is_some(), "{message}");
        ensure!(!message.contains(WRONG), "{message}");
    }
    // Of a Model's fields this one may change.
    world
        .apply(&model("wrong-login", image, Some("right")))
        .await?;
    let corrected = ("model", "wrong-login");
    world
        .condition(corrected, "Ready", "True", "Resolved")
        .await?;
    Ok(())
}

async fn on_a_device(
    story: &Story,
    source: &Source,
    package: &rimward_e2e::device::Package,
) -> Result<()> {
    let login = story.scratch().path().join("device-login.json");
    let host = source.registry().host();
    let wrong = json!({"auths": {host: {"username": USER, "password": WRONG}}});
    std::fs::write(&login, wrong.to_string())?;
    let folder = story.scratch().folder("locked-device")?;
    let device = Device::start_as("locked", folder, source, Some(&login))?;
    device.order(&[Wanted {
        name: "digits",
        revision: "digits-1",
        package,
        health: json!({"probationSeconds": 1}),
    }])?;
    let model: Value = device.wait("digits", "digits-1", "Blocked").await?;
    ensure!(model["reason"] == "RegistryAccessDenied", "{model}");
    let message = model["message"].as_str().unwrap_or_default();
    ensure!(message.contains("given"), "{model}");
    ensure!(!message.contains(WRONG), "{model}");

    std::fs::copy(source.login().unwrap_or(&login), &login)?;
    // The agent reads it again by itself.
    device.wait("digits", "digits-1", "Committed").await?;
    Ok(())
}

fn model(name: &str, image: &str, secret: Option<&str>) -> String {
    let mut spec = json!({"family": "digits", "version": "1.0.0", "image": image});
    if let Some(secret) = secret {
        spec["pullSecretRef"] = json!({"name": secret});
    }
    json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "Model", "metadata": {"name": name}, "spec": spec,
    })
    .to_string()
}
