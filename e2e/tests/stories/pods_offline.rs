//! Installed from files, on a node that reaches no registry: the archive that a release writes, imported as K3s and people
//! do it, and the chart beside it, which names images by digest. Libraries of the host, which the agent may only read.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::node::{Cluster, Network, Node, Options};
use rimward_e2e::registry::Kind;
use rimward_e2e::{Helm, Kubectl, Story, story};
use serde_json::{Value, json};

use crate::pods_node::is_possible;
use crate::pods_world::{AGENTS, SYSTEM, WITHIN};
use crate::release_world::{VERSION, World};

/// A folder of the node with a file in it.
const LIBRARIES: &str = "/var/lib/engines";

#[test]
fn a_node_without_any_registry_runs_what_was_imported_from_the_released_archive() {
    if !is_possible("pods-offline") {
        return;
    }
    story("pods-offline", async |story: &Story| {
        let folder = story.scratch().path();
        let world = World::new(story, Kind::Referrers).await?;
        let said = world.release(&[]).await?;
        ensure!(said.status.success(), "{}", said.stderr);
        let World { out, cosign, .. } = &world;
        let trust = json!({
            "apiVersion": "rimward.dev/v1alpha1", "kind": "TrustFile",
            "authorities": [{"name": "release", "repositories": ["models.example/**"],
                "keys": [{"name": "ci", "pem": fs::read_to_string(cosign.public_key())?}]}],
        });
        let trust_file = folder.join("trust.yaml");
        fs::write(&trust_file, trust.to_string())?;

        // The registry is at this machine's 127.0.0.1, which is another on the node.
        let network = Network::start(folder).await?;
        let cluster = Cluster::start("site", folder, network, 1, Options::default()).await?;
        let node = &cluster.nodes[0];
        let (helm, kubectl) = (
            Helm::new(&cluster.plane.kubeconfig(), folder)?,
            cluster.plane.kubectl()?,
        );
        let libraries = node.var_lib("engines");
        fs::create_dir_all(&libraries)?;
        fs::write(libraries.join("libengine.so"), "an engine")?;

        let archive = out.join(format!("rimward-{VERSION}-images.tar"));
        let import = ["images", "import", &archive.display().to_string()];
        node.ctr().args(import).run().await?;
        let chart = out.join(format!("charts/rimward-{VERSION}.tgz"));
        helm.line(["install", "rimward", &chart.display().to_string()])
            .args(["-n", SYSTEM, "--create-namespace", "--wait"])
            .args(["--timeout=120s", "--set", "agent.enabled=true"])
            .args(["--set", &format!("agent.libraries[0].path={LIBRARIES}")])
            .args(["--set", "agent.libraries[0].mountPath=/opt/engines"])
            .args(["--set-file"])
            .args([&format!("agent.trust.file={}", trust_file.display())])
            .within(WITHIN)
            .run()
            .await?;
        nothing_was_pulled(&kubectl).await?;
        let agent = pod(&kubectl, AGENTS, "agent").await?;
        reads_and_never_writes(node, &agent)
    });
}

async fn nothing_was_pulled(kubectl: &Kubectl) -> Result<()> {
    for (namespace, component) in [(SYSTEM, "hub"), (AGENTS, "agent")] {
        let pod = pod(kubectl, namespace, component).await?;
        let image = pod["spec"]["containers"][0]["image"].to_string();
        ensure!(image.contains("@sha256:"), "{image}");
        let about = format!(
            "involvedObject.uid={}",
            pod["metadata"]["uid"].as_str().unwrap_or_default()
        );
        let events = kubectl
            .get_json(["events", "-n", namespace, "--field-selector", &about])
            .await?;
        let events = events["items"].as_array().cloned().unwrap_or_default();
        let seen = |event: &Value| format!("{} {}", event["reason"], event["message"]);
        let seen: Vec<String> = events.iter().map(seen).collect();
        ensure!(
            seen.iter()
                .any(|it| it.contains("already present on machine")),
            "{seen:?}"
        );
        ensure!(!seen.iter().any(|it| it.contains("Pulling")), "{seen:?}");
    }
    Ok(())
}

async fn pod(kubectl: &Kubectl, namespace: &str, component: &str) -> Result<Value> {
    let label = format!("-l=app.kubernetes.io/component={component}");
    let pods = kubectl.get_json(["pods", "-n", namespace, &label]).await?;
    let pod = pods["items"].get(0).cloned();
    pod.with_context(|| format!("no pod of {component}"))
}

/// The library is there for the agent's processes, at a mount that the kernel lets nobody write to.
fn reads_and_never_writes(node: &Node, agent: &Value) -> Result<()> {
    let uid = agent["metadata"]["uid"].as_str().context("no uid")?;
    let processes = node.processes_of_pod(uid, "rimward-node-agent");
    let process = processes
        .first()
        .context("the agent's pod has no process")?;
    let process = Path::new("/proc").join(process.as_raw_nonzero().to_string());
    let library = fs::read_to_string(process.join("root/opt/engines/libengine.so"))?;
    ensure!(library == "an engine");
    let mounts = fs::read_to_string(process.join("mountinfo"))?;
    let mount = mounts.lines().find(|line| line.contains(" /opt/engines "));
    let mount = mount.context("/opt/engines is no mount")?;
    ensure!(mount.contains(" /opt/engines ro,"), "{mount}");
    Ok(())
}
