//! Releases of the chart for the stories on real pods: packed and pushed as a release is, installed by their version.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::command::Line;
use rimward_e2e::helm::chart;
use rimward_e2e::image_push;
use serde_json::{Value, json};

use crate::pods_world::World;

/// A release of the chart in the registry.
pub(crate) struct Release {
    pub(crate) version: &'static str,
    /// Digests of its images.
    pub(crate) operator: String,
    pub(crate) agent: String,
    /// How helm is told of it.
    pub(crate) chart: Vec<String>,
}

/// Makes a release: the chart of this checkout under another version, with images of its own, and with this value key
/// more, which becomes an annotation of the agents' pods.
pub(crate) async fn release(
    world: &World,
    version: &'static str,
    key: Option<&str>,
) -> Result<Release> {
    let operator =
        image_push::push_relabelled(&world.registry, "rimward-operator", version).await?;
    let agent = image_push::push_relabelled(&world.registry, "rimward-node-agent", version).await?;
    let folder = world.folder.join(format!("chart-{version}"));
    std::fs::create_dir(&folder)?;
    let source = chart("rimward");
    let copied = folder.join("rimward");
    let copy = ["-r", &source, &copied.display().to_string()];
    Line::new(Path::new("cp")).args(copy).run().await?;
    let images = std::fs::read_to_string(world.folder.join("images.yaml"))?;
    let mut images: Value = serde_yaml::from_str(&images)?;
    for (part, digest) in [("hub", &operator), ("edge", &operator), ("agent", &agent)] {
        images[part]["image"]["digest"] = json!(digest);
    }
    let mut values: Value =
        serde_yaml::from_str(&std::fs::read_to_string(copied.join("values.yaml"))?)?;
    merge(&mut values, images);
    if let Some(key) = key {
        values["agent"][key] = json!("of the new chart");
        let path = copied.join("values.schema.json");
        let mut schema: Value = serde_json::from_str(&std::fs::read_to_string(&path)?)?;
        let keys = schema.pointer_mut("/properties/agent/properties");
        keys.context("the agent's keys in the schema")?[key] = json!({"type": "string"});
        std::fs::write(&path, schema.to_string())?;
        let path = copied.join("templates/agent/daemonset.yaml");
        let text = std::fs::read_to_string(&path)?;
        let place = "kubectl.kubernetes.io/default-container: agent\n";
        ensure!(text.contains(place), "the template has no {place:?}");
        let line = format!("{place}        test/{key}: {{{{ $agent.{key} | quote }}}}\n");
        std::fs::write(&path, text.replace(place, &line))?;
    }
    std::fs::write(copied.join("values.yaml"), serde_yaml::to_string(&values)?)?;
    let helm = async |arguments: &[&str]| world.helm.line(arguments).folder(&folder).run().await;
    helm(&[
        "package",
        "--version",
        version,
        "--app-version",
        version,
        "rimward",
    ])
    .await?;
    let at = format!("oci://{}/charts", world.registry.host());
    let archive = format!("rimward-{version}.tgz");
    helm(&["push", &archive, &at, "--plain-http"]).await?;
    let from = format!("{at}/rimward");
    Ok(Release {
        version,
        operator,
        agent,
        chart: [from.as_str(), "--version", version, "--plain-http"]
            .map(str::to_owned)
            .to_vec(),
    })
}

/// Lays values over others.
fn merge(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                merge(&mut below[&key], value);
            }
        }
        (below, above) => *below = above,
    }
}
