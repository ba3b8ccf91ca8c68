//! The charts without any cluster: what helm says of right and of wrong values, and what it renders.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::fleet::repository_root;
use rimward_e2e::helm::{NO_REGISTRY, chart};
use rimward_e2e::{Helm, story};
use serde::Deserialize as _;
use serde_json::{Value, json};

const EDGE: &str = "edge.enabled=true,edge.cluster=here,edge.hub.kubeconfig=x";
const AGENT: &str = "agent.enabled=true,agent.trust.file=x";

/// What a user may want, and what that sets.
fn modes() -> Vec<(&'static str, String)> {
    vec![
        ("a hub alone", String::new()),
        ("a pull site", format!("hub.enabled=false,{EDGE},{AGENT}")),
        (
            "a push site",
            format!("hub.enabled=false,edge.enabled=true,edge.mode=Push,{AGENT}"),
        ),
        (
            "agents alone",
            format!(
                "hub.enabled=false,{AGENT},agent.trust.file=,agent.trust.existingSecret.name=t"
            ),
        ),
        ("all of it", format!("{EDGE},{AGENT}")),
        (
            "everything on",
            format!(
                "{EDGE},{AGENT},hub.replicas=2,hub.podDisruptionBudget.enabled=true,networkPolicy.enabled=true,\
                 monitoring.podMonitor.enabled=true,monitoring.rules.enabled=true,monitoring.dashboards.enabled=true,\
                 agent.inference.hostPort=8000,agent.devices.resources.nvidia\\.com/gpu=1,agent.runtimeClassName=nvidia,\
                 agent.devices.nodes={{/dev/dri/renderD128}},agent.devices.supplementalGroups={{44}},\
                 agent.devices.cdi={{vendor.com/device=all}},agent.libraries[0].path=/opt/engine,agent.registry.configSecret.name=c,agent.registry.caSecret.name=a,\
                 agent.nodeLabels.a=b,global.imagePullSecrets={{pull}},commonLabels.team=edge,test.model=digits,test.request=x"
            ),
        ),
    ]
}

/// What may be wrong, and words that the answer must have.
const MISTAKES: &[(&str, &[&str])] = &[
    // Keys that are misspelt, at every depth.
    ("hubb.enabled=true", &["'hubb' not allowed"]),
    ("hub.replica=2", &["at '/hub'", "'replica' not allowed"]),
    (
        "image.registery=x",
        &["at '/image'", "'registery' not allowed"],
    ),
    ("hub.image.tag=1", &["at '/hub/image'", "'tag' not allowed"]),
    (
        "hub.resources.limit.memory=1Gi",
        &["at '/hub/resources'", "'limit' not allowed"],
    ),
    (
        "edge.hub.kubeConfig=x",
        &["at '/edge/hub'", "'kubeConfig' not allowed"],
    ),
    (
        "edge.hub.existingSecret.nam=x",
        &["at '/edge/hub/existingSecret'", "'nam' not allowed"],
    ),
    (
        "agent.inference.hostport=80",
        &["at '/agent/inference'", "'hostport' not allowed"],
    ),
    (
        "agent.devices.resource=x",
        &["at '/agent/devices'", "'resource' not allowed"],
    ),
    (
        "agent.libraries[0].path=/opt/engine,agent.libraries[0].write=true",
        &["at '/agent/libraries/0'", "'write' not allowed"],
    ),
    (
        "agent.namespace.label=x",
        &["at '/agent/namespace'", "'label' not allowed"],
    ),
    (
        "monitoring.podmonitor.enabled=true",
        &["at '/monitoring'", "'podmonitor' not allowed"],
    ),
    (
        "networkPolicy.enable=true",
        &["at '/networkPolicy'", "'enable' not allowed"],
    ),
    (
        "crds.install=true",
        &["at '/crds'", "'install' not allowed"],
    ),
    // Values of another type or form.
    (
        "hub.image.digest=sha256:12",
        &["'/hub/image/digest'", "sha256:12"],
    ),
    ("agent.inference.port=0", &["'/agent/inference/port'"]),
    ("agent.libraries[0].path=/", &["'/agent/libraries/0/path'"]),
    ("edge.mode=Both", &["'/edge/mode'", "'Pull', 'Push'"]),
    ("edge.cluster=Not_A_Name", &["'/edge/cluster'"]),
    ("hub.enabled=maybe", &["'/hub/enabled'", "want boolean"]),
    // Values that do not go together.
    (
        "image.registry=",
        &["image.registry is empty", "cargo xtask images"],
    ),
    ("hub.enabled=false", &["nothing is enabled"]),
    (
        "edge.enabled=true,edge.hub.kubeconfig=x",
        &["edge.cluster is empty", "cluster add"],
    ),
    (
        "edge.enabled=true,edge.cluster=a",
        &["edge.hub has no credential", "--helm-values"],
    ),
    (
        "edge.enabled=true,edge.cluster=a,edge.hub.kubeconfig=x,edge.hub.existingSecret.name=s",
        &["both set: choose one"],
    ),
    (
        "agent.enabled=true",
        &["agent.trust is empty", "--set-file agent.trust.file"],
    ),
    (
        "agent.enabled=true,agent.trust.file=x,agent.trust.existingSecret.name=s",
        &["agent.trust.existingSecret are both set"],
    ),
    (
        "agent.enabled=true,agent.trust.file=x,agent.inference.hostPort=80,agent.inference.hostNetwork=true",
        &["hostPort and agent.inference.hostNetwork are both set"],
    ),
    (
        "agent.enabled=true,agent.trust.file=x,agent.namespace.name=rimward-system",
        &["the release's own namespace"],
    ),
    (
        "agent.enabled=true,agent.trust.file=x,agent.metricsPort=8080",
        &["agent.metricsPort are both 8080"],
    ),
    (
        "agent.enabled=true,agent.trust.file=x,agent.inference.hostPort=80,\
         agent.updateStrategy.type=RollingUpdate,agent.updateStrategy.rollingUpdate.maxSurge=1",
        &["no two pods of a node can have one port"],
    ),
    (
        "agent.enabled=true,agent.trust.file=x,agent.libraries[0].path=/var/lib,agent.libraries[1].path=/var/lib/rimward/x,\
         agent.libraries[1].mountPath=/x",
        &[
            "agent.libraries has /var/lib, and",
            "agent.libraries has /var/lib/rimward/x, and agent.hostFolder.path is",
        ],
    ),
    (
        "agent.enabled=true,agent.trust.file=x,agent.libraries[0].path=/usr/lib/x86_64-linux-gnu",
        &["would hide /usr/lib/x86_64-linux-gnu", "mountPath"],
    ),
    (
        "monitoring.podMonitor.enabled=true,monitoring.serviceMonitor.enabled=true",
        &["would be counted twice"],
    ),
    ("test.request=x", &["test.model is not"]),
    ("test.model=x", &["test.request is not"]),
];

#[test]
fn values_that_are_wrong_are_named_and_right_ones_render_the_same_each_time() {
    story("charts-values", async |story| {
        let helm = Helm::without_cluster(story.scratch().path())?;
        let registry = format!("image.registry={NO_REGISTRY}");
        let lint = ["lint", "--strict", "--set", &registry];
        for name in ["rimward", "rimward-crds"] {
            let with_values = name == "rimward";
            let arguments = if with_values { &lint[..] } else { &lint[..2] };
            helm.line(arguments).args([chart(name)]).run().await?;
        }
        for (mode, set) in modes() {
            let first = render(&helm, &set).await.context(mode)?;
            ensure!(first == render(&helm, &set).await?, "{mode} differs");
            for object in objects(&first)? {
                labelled(&object).with_context(|| format!("{mode}: {}", name(&object)))?;
            }
        }
        let mut wrong = Vec::new();
        for (set, words) in MISTAKES {
            let output = helm
                .line([
                    "template",
                    "rimward",
                    &chart("rimward"),
                    "-n",
                    "rimward-system",
                ])
                .args(["--set", &registry, "--set", set])
                .output()
                .await?;
            let said = match output.refusal() {
                Ok(said) => said,
                Err(error) => {
                    wrong.push(format!("{set}: {error}"));
                    continue;
                }
            };
            if !words.iter().all(|word| said.contains(word)) {
                wrong.push(format!("{set}: expected {words:?}, got {said}"));
            }
        }
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
        as_a_part_of_another_chart(story.scratch().path(), &helm).await?;
        the_rights_are_those_of_the_sources(&helm).await
    });
}

async fn render(helm: &Helm, set: &str) -> Result<String> {
    let registry = format!("image.registry={NO_REGISTRY}");
    helm.line([
        "template",
        "rimward",
        &chart("rimward"),
        "-n",
        "rimward-system",
    ])
    .args(["--set", &registry, "--set", set])
    .run()
    .await
}

fn objects(text: &str) -> Result<Vec<Value>> {
    let documents = serde_yaml::Deserializer::from_str(text);
    let objects: Vec<Value> = documents
        .map(|document| Value::deserialize(document).context("a rendered document"))
        .collect::<Result<_>>()?;
    Ok(objects.into_iter().filter(Value::is_object).collect())
}

fn name(object: &Value) -> String {
    let text = |pointer: &str| {
        let value = object.pointer(pointer).and_then(Value::as_str);
        value.unwrap_or_default().to_owned()
    };
    let (kind, namespace) = (text("/kind"), text("/metadata/namespace"));
    format!("{kind} {namespace}/{}", text("/metadata/name"))
}

/// The labels that are recommended, on every object.
fn labelled(object: &Value) -> Result<()> {
    let labels = &object["metadata"]["labels"];
    for label in [
        "name",
        "instance",
        "version",
        "component",
        "part-of",
        "managed-by",
    ] {
        let label = format!("app.kubernetes.io/{label}");
        ensure!(labels[&label].is_string(), "no label {label}");
    }
    Ok(())
}

/// Its values may have what a parent chart adds: `global`, and `enabled` for a condition.
async fn as_a_part_of_another_chart(folder: &std::path::Path, helm: &Helm) -> Result<()> {
    let parent = folder.join("parent");
    std::fs::create_dir_all(&parent)?;
    let path = chart("rimward");
    let text = json!({
        "apiVersion": "v2", "name": "parent", "version": "0.1.0",
        "dependencies": [{"name": "rimward", "version": "0.1.0", "repository": format!("file://{path}"),
                          "condition": "rimward.enabled"}],
    });
    std::fs::write(parent.join("Chart.yaml"), text.to_string())?;
    let values = json!({
        "global": {"other": 1},
        "rimward": {"enabled": true, "image": {"registry": NO_REGISTRY}},
    });
    std::fs::write(parent.join("values.yaml"), values.to_string())?;
    let parent = parent.display().to_string();
    helm.run(["dependency", "update", "--skip-refresh", &parent])
        .await?;
    let text = helm.run(["template", "p", &parent]).await?;
    let objects = objects(&text)?;
    ensure!(
        objects
            .iter()
            .any(|it| name(it) == "Deployment default/p-rimward-hub"),
        "{:?}",
        objects.iter().map(name).collect::<Vec<_>>()
    );
    Ok(())
}

/// Every object of the files that are applied without Helm is in the chart, with the same rules; and no right is
/// in the chart that is not in them.
async fn the_rights_are_those_of_the_sources(helm: &Helm) -> Result<()> {
    const KINDS: [&str; 6] = [
        "Role",
        "RoleBinding",
        "ClusterRole",
        "ClusterRoleBinding",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ];
    /// The chart's own: it takes rights away.
    const OWN: &str = "/rimward-agent-pods";
    let pick = |text: &str| -> Result<BTreeMap<String, Value>> {
        let objects = objects(text)?.into_iter();
        let objects =
            objects.filter(|it| it["kind"].as_str().is_some_and(|it| KINDS.contains(&it)));
        let without_labels = |mut object: Value| {
            if let Some(metadata) = object["metadata"].as_object_mut() {
                metadata.remove("labels");
            }
            (name(&object), object)
        };
        Ok(objects.map(without_labels).collect())
    };
    let mut rendered = pick(&render(helm, &format!("{EDGE},{AGENT}")).await?)?;
    rendered.retain(|name, _| !name.ends_with(OWN));
    let mut sources = BTreeMap::new();
    for file in [
        "operator/rbac/hub.yaml",
        "operator/rbac/actions.yaml",
        "operator/rbac/edge.yaml",
        "node-agent/rbac.yaml",
    ] {
        let text = std::fs::read_to_string(repository_root().join(file))?;
        sources.extend(pick(&text)?);
    }
    ensure!(sources.len() > 15, "{}", sources.len());
    for (name, object) in &sources {
        ensure!(
            rendered.get(name) == Some(object),
            "{name} is {object} in the sources, and in the chart {:?}",
            rendered.get(name)
        );
    }
    ensure!(rendered.len() == sources.len(), "{:?}", rendered.keys());
    let without = pick(&render(helm, &format!("{EDGE},{AGENT},rbac.create=false")).await?)?;
    ensure!(
        without
            .keys()
            .all(|name| name.starts_with("ValidatingAdmissionPolicy")),
        "{:?}",
        without.keys()
    );
    Ok(())
}
