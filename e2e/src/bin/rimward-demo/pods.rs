//! `--pods`: the same story on real pods. Images in a registry, charts put by helm on two clusters of a real node each.
//!
//! Owns what differs from the story with processes: how the parts get there, and what dies when the hub is away.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::installed::{Place, Release};
use rimward_e2e::node::{self, Network, Node};
use rimward_e2e::{Scratch, fleet};
use rustix::process::{Signal, kill_process};
use serde_json::json;

use crate::narrate::Narrator;
use crate::stage::Door;

/// Port of each node that leads to its agent.
const PORT: u16 = 8080;

/// Two clusters and a registry. Dropped in this order.
#[derive(Debug)]
pub(crate) struct Pods {
    /// A site.
    pub(crate) north: Place,
    /// The hub, which is the site south as well.
    pub(crate) hub: Place,
    pub(crate) release: Release,
    pub(crate) trust: PathBuf,
    pub(crate) scratch: Scratch,
}

impl Pods {
    pub(crate) async fn set(narrator: &Narrator) -> Result<Self> {
        ensure!(
            node::is_root(),
            "real nodes need root, for namespaces and control groups: run it as root, or without --pods, which tells the same story"
        );
        narrator.chapter("Two clusters, each with a real node, and a registry");
        let scratch = Scratch::new("demo")?;
        let folder = scratch.path();
        let network = Network::start(&scratch.folder("hub-network")?).await?;
        let release = Release::start(folder, &network).await?;
        let to_north = Network::start(&scratch.folder("north-network")?).await?;
        let (hub, north) = tokio::try_join!(
            Place::start("hub", folder, network, 1, &release),
            Place::start("north", folder, to_north, 1, &release),
        )?;
        narrator.held("hub and north: real API servers on kine and SQLite, kubelet, containerd, kube-proxy, CoreDNS");
        for place in [&hub, &north] {
            narrator
                .run(place.kubectl.line(["get", "nodes", "-o", "wide"]))
                .await?;
        }
        narrator.held(&format!("registry at {}", release.registry.host()));
        let trust = release.trust()?;
        Ok(Self {
            north,
            hub,
            release,
            trust,
            scratch,
        })
    }

    /// Where each node answers, the canary first.
    pub(crate) fn doors(&self) -> impl Iterator<Item = Door> {
        let places = [("north", &self.north), ("south", &self.hub)];
        places.into_iter().flat_map(|(site, place)| {
            place.cluster.nodes.iter().map(move |node| Door {
                name: format!("{site}'s node {}", node.name()),
                host: format!("{}:{PORT}", node.address()),
            })
        })
    }

    pub(crate) async fn a_release_is_made(&self, narrator: &Narrator) -> Result<()> {
        narrator.chapter("Images and charts go to the registry, signed, by digest");
        narrator.run(self.release.line()?).await?;
        narrator.held("the chart names the images by digest");
        Ok(())
    }

    /// The hub, then its sites: what README.md says under "On your cluster".
    pub(crate) async fn helm_installs(&self, narrator: &Narrator) -> Result<()> {
        narrator.chapter("helm puts the hub there, and a site on another cluster");
        let often = [
            "--resync-seconds=2",
            "--heartbeat-seconds=2",
            "--retry-seconds-max=2",
        ];
        let values = json!({
            "hub": {"extraArgs": often[..1]},
            "edge": {"extraArgs": often},
            "agent": {"extraArgs": ["--lease-seconds=2"], "inference": {"hostPort": PORT}},
        });
        let values = self.release.values("values.yaml", &values)?;
        narrator.say("values.yaml: the registry has no TLS, a port of each node leads to its agent, and what");
        narrator.say("is done by the clock is done every 2 s instead of twice a minute, so that you need not wait.");
        let installed = |place: &Place, verb: &str, files: &[&Path]| {
            let config = place.kubectl.kubeconfig().display().to_string();
            let line = place.helm(verb, &self.release, files);
            line.args(["--kubeconfig", &config])
        };
        narrator
            .run(installed(&self.hub, "install", &[&values]))
            .await?;

        let trust = format!("agent.trust.file={}", self.trust.display());
        let server = self.hub.cluster.plane.pod_side_server()?;
        let north = self.add(narrator, "north", "ring=canary", &server).await?;
        let line = installed(&self.north, "install", &[&values, &north]);
        narrator.run(line.args(["--set-file", &trust])).await?;

        narrator.say("The hub's own cluster becomes a site, too:");
        let own = "https://kubernetes.default.svc";
        let south = self.add(narrator, "south", "ring=main", own).await?;
        let line = installed(&self.hub, "upgrade", &[&south]);
        narrator.run(line.args(["--set-file", &trust])).await?;
        for place in [&self.hub, &self.north] {
            let pods = [
                "get",
                "pods",
                "-A",
                "-l",
                "app.kubernetes.io/part-of=rimward",
            ];
            narrator.run(place.kubectl.line(pods)).await?;
        }
        Ok(())
    }

    /// `kubectl rimward cluster add`; gives the values file that it wrote.
    async fn add(
        &self,
        narrator: &Narrator,
        name: &str,
        labels: &str,
        server: &str,
    ) -> Result<PathBuf> {
        let file = self.scratch.path().join(format!("{name}.yaml"));
        let path = file.display().to_string();
        let add = ["rimward", "cluster", "add", name, "--server", server];
        let line = self.hub.kubectl.line(add);
        let line = line.args(["--labels", labels, "--helm-values", &path]);
        narrator.run(line).await?;
        Ok(file)
    }

    /// API servers and registry stop, and the agent of north is killed; says which node that was.
    pub(crate) async fn go_away(&self, narrator: &Narrator) -> Result<()> {
        let node = self.node()?;
        let pods = ["pods", "-n", fleet::AGENTS_NAMESPACE];
        let pods = self.north.kubectl.get_json(pods).await?;
        let uid = pods["items"][0]["metadata"]["uid"].as_str();
        let uid = uid.context("north has no agent's pod")?;
        self.hub.cluster.plane.stop_api_server();
        self.release.registry.stop();
        narrator.held("hub's API server and registry stopped");
        self.north.cluster.plane.stop_api_server();
        let processes = node.processes_of_pod(uid, "rimward-node-agent");
        ensure!(!processes.is_empty(), "north's agent has no process");
        for process in processes {
            // The second may be gone with the first.
            let _ = kill_process(process, Signal::KILL);
        }
        narrator.held(
            "north's agent killed, its own API server gone as well: the kubelet starts it again",
        );
        Ok(())
    }

    /// What was stopped comes back.
    pub(crate) async fn come_back(&self) -> Result<()> {
        self.north.cluster.plane.start_api_server().await?;
        self.hub.cluster.plane.start_api_server().await?;
        self.release.registry.resume().await
    }

    fn node(&self) -> Result<&Node> {
        self.north
            .cluster
            .nodes
            .first()
            .context("north has no node")
    }

    /// Time for what a kubelet does at its own pace: it waits longer before each restart of a container.
    pub(crate) const fn restart_within() -> Duration {
        Duration::from_secs(120)
    }
}
