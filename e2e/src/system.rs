//! Rimward itself on a fleet: a hub operator, edge clusters that joined by the real command line, node agents.
//!
//! Owns starting it as an installation would, under the real accounts. Everything that a person types goes
//! through `typed`, so that the demo can show it while stories just run it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::command::Line;
use crate::control_plane::Options;
use crate::fleet::{Edge, Fleet, NAMESPACE};
use crate::kubectl::Kubectl;
use crate::ports::free_port;
use crate::rimward::{self, Operator};
use crate::service::Service;

/// Generous: the machine may be busy with a build.
pub const WITHIN: Duration = Duration::from_secs(180);

/// The registry's address in `examples/`; stories put their own in its place.
pub const EXAMPLE_REGISTRY: &str = "localhost:5055";

/// How a cluster and the hub reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The edge operator dials the hub.
    Pull,
    /// The hub dials the cluster.
    Push,
}

/// How one edge cluster is to be.
#[derive(Clone, Copy, Debug)]
pub struct SiteSpec {
    /// Its name.
    pub name: &'static str,
    /// Who dials whom.
    pub mode: Mode,
    /// Labels, as `--labels` takes them.
    pub labels: &'static str,
    /// How many nodes it has.
    pub nodes: usize,
}

/// How often operators and agents do what they do by the clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// So often that a story does not wait for minutes.
    #[default]
    OfStories,
    /// As their flags are by default.
    OfUsers,
}

impl Pace {
    fn flags(self, of_stories: &[&'static str]) -> Vec<&'static str> {
        match self {
            Self::OfStories => of_stories.to_vec(),
            Self::OfUsers => Vec::new(),
        }
    }
}

/// A running Rimward. Agents and operators end before the clusters that they talk to.
#[derive(Debug)]
pub struct System {
    /// The edge clusters, in order of their specs.
    pub sites: Vec<Site>,
    /// Replicas of the hub operator.
    pub hub: Vec<Operator>,
    /// The trust file of every device.
    pub trust: PathBuf,
    /// How often its parts do what they do by the clock.
    pub pace: Pace,
    /// The parts that it runs on.
    pub fleet: Fleet,
}

/// One edge cluster.
#[derive(Debug)]
pub struct Site {
    /// Its name.
    pub name: &'static str,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// Replicas of its edge operator; none in push mode.
    pub operators: Vec<Operator>,
}

/// One node.
#[derive(Debug)]
pub struct Node {
    /// Its name, that of its EdgeNode too.
    pub name: String,
    /// `127.0.0.1:PORT` where it answers inference requests.
    pub host: String,
    /// Its agent.
    pub agent: Service,
}

/// What the operators' flags are set to, so that a story does not wait for minutes.
const HUB_FLAGS: [&str; 3] = [
    "--resync-seconds=2",
    "--lease-seconds=5",
    "--log-format=text",
];
const EDGE_FLAGS: [&str; 5] = [
    "--resync-seconds=2",
    "--lease-seconds=5",
    "--heartbeat-seconds=2",
    "--retry-seconds-max=2",
    "--log-format=text",
];

impl System {
    /// Starts hub, clusters and registry and one hub operator; no cluster has joined yet.
    ///
    /// # Errors
    /// When any part does not start.
    pub async fn start(name: &str, sites: &[SiteSpec], options: Options) -> Result<Self> {
        let names: Vec<&str> = sites.iter().map(|site| site.name).collect();
        let fleet = Fleet::start(name, &names, options).await?;
        Self::on(fleet, &[]).await
    }

    /// Starts a hub operator on parts that run; `hub_flags` add to its flags.
    ///
    /// # Errors
    /// When the operator does not start.
    pub async fn on(fleet: Fleet, hub_flags: &[&str]) -> Result<Self> {
        Self::on_at(fleet, Pace::OfStories, hub_flags).await
    }

    /// The same at some pace.
    ///
    /// # Errors
    /// When the operator does not start.
    pub async fn on_at(fleet: Fleet, pace: Pace, hub_flags: &[&str]) -> Result<Self> {
        let trust = write_trust(&fleet)?;
        let mut system = Self {
            sites: Vec::new(),
            hub: Vec::new(),
            trust,
            pace,
            fleet,
        };
        system.add_hub_replica(hub_flags).await?;
        Ok(system)
    }

    /// Starts one more replica of the hub operator.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn add_hub_replica(&mut self, flags: &[&str]) -> Result<()> {
        let name = format!("hub-operator-{}", self.hub.len());
        let folder = self.fleet.scratch.path().join(&name);
        let registry = self.fleet.registry.plain_http_flags();
        let registry = registry.each_ref().map(String::as_str);
        let flags = [&self.pace.flags(&HUB_FLAGS)[..], &registry[..], flags].concat();
        let operator = Operator::hub(&name, &folder, &self.fleet.hub_operator, &flags)?;
        operator.wait_until_ready(WITHIN).await?;
        self.hub.push(operator);
        Ok(())
    }

    /// kubectl on the hub, as administrator.
    ///
    /// # Errors
    /// When kubectl is not installed.
    pub fn kubectl(&self) -> Result<Kubectl> {
        self.fleet.hub.kubectl()
    }

    /// Joins an edge cluster with the real commands, and starts its operator (in pull mode) and its agents.
    ///
    /// # Errors
    /// When a command fails, or a part does not start.
    pub async fn join(
        &mut self,
        spec: SiteSpec,
        typed: impl AsyncFn(Line) -> Result<String>,
    ) -> Result<()> {
        let edge = self.fleet.edge(spec.name)?;
        let folder = edge.plane.folder().to_path_buf();
        let file = folder.join("join.yaml").display().to_string();
        let mut add = vec![
            "rimward",
            "cluster",
            "add",
            spec.name,
            "--labels",
            spec.labels,
            "--out",
            &file,
        ];
        let (hub_server, edge_server) = (self.fleet.hub.server(), edge.plane.server());
        let kubeconfig = edge.operator.display().to_string();
        match spec.mode {
            Mode::Pull => add.extend(["--server", &hub_server]),
            Mode::Push => add.extend(["--push", &kubeconfig, "--server", &edge_server]),
        }
        typed(self.kubectl()?.line(add)).await?;
        let kubectl = edge.plane.kubectl()?;
        let config = kubectl.kubeconfig().display().to_string();
        typed(kubectl.line([
            "--kubeconfig",
            &config,
            "apply",
            "--server-side",
            "--force-conflicts",
            "-f",
            &file,
        ]))
        .await?;
        let operators = match spec.mode {
            Mode::Push => Vec::new(),
            Mode::Pull => {
                let hub = hub_kubeconfig(&kubectl, &folder).await?;
                let operator = Operator::edge(
                    "edge-operator",
                    &folder,
                    &edge.operator,
                    spec.name,
                    &hub,
                    &self.pace.flags(&EDGE_FLAGS),
                )?;
                operator.wait_until_ready(WITHIN).await?;
                vec![operator]
            }
        };
        let nodes = (0..spec.nodes)
            .map(|index| {
                start_node(
                    edge,
                    &self.trust,
                    self.pace,
                    &format!("{}-{}", spec.name, index + 1),
                )
            })
            .collect::<Result<Vec<_>>>()?;
        self.sites.push(Site {
            name: spec.name,
            nodes,
            operators,
        });
        Ok(())
    }

    /// All nodes of all clusters.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.sites.iter().flat_map(|site| &site.nodes)
    }

    /// Waits until a JSON path of an object on the hub has a value.
    ///
    /// # Errors
    /// When it does not in time: says what it has.
    pub async fn wait_for_value(
        &self,
        object: &[&str],
        path: &str,
        value: &str,
        within: Duration,
    ) -> Result<()> {
        self.kubectl()?
            .wait_for_value(object, path, value, within)
            .await
    }

    /// A file of `examples/` with this fleet's registry in it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn example(&self, name: &str) -> Result<String> {
        let path = crate::digits::repository().join("examples").join(name);
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        Ok(text.replace(EXAMPLE_REGISTRY, &self.fleet.registry.host()))
    }

    /// Packs a folder, pushes it as `REPOSITORY:TAG`, and returns the reference by digest.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn package(
        &self,
        folder: &Path,
        registry: &str,
        repository_and_tag: &str,
        typed: impl AsyncFn(Line) -> Result<String>,
    ) -> Result<String> {
        let reference = format!("{registry}/{repository_and_tag}");
        rimward::package(&self.kubectl()?, folder, &reference, &[], typed).await
    }
}

async fn hub_kubeconfig(edge: &Kubectl, folder: &Path) -> Result<PathBuf> {
    let secret = edge
        .get_json(["secret", "rimward-hub", "-n", NAMESPACE])
        .await?;
    let encoded = secret["data"]["kubeconfig"]
        .as_str()
        .context("Secret rimward-hub has no kubeconfig")?;
    let path = folder.join("hub.kubeconfig");
    std::fs::write(&path, decode_base64(encoded)?)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn decode_base64(text: &str) -> Result<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .context("a Secret's data is base64")
}

/// The file on each device: who may sign for this fleet's registry.
fn write_trust(fleet: &Fleet) -> Result<PathBuf> {
    let pem = std::fs::read_to_string(fleet.cosign.public_key())
        .context("reading cosign's public key")?;
    let port = fleet.registry.host();
    let port = port
        .rsplit_once(':')
        .map_or("", |(_, port)| port)
        .to_owned();
    let trust = serde_json::json!({
        "apiVersion": "rimward.dev/v1alpha1",
        "kind": "TrustFile",
        "authorities": [{
            "name": "release",
            "threshold": 1,
            "keys": [{"name": "cosign", "pem": pem}],
            "repositories": [format!("localhost:{port}/models/**"), format!("127.0.0.1:{port}/models/**")],
        }],
    });
    let path = fleet.scratch.path().join("trust.yaml");
    std::fs::write(&path, serde_yaml::to_string(&trust)?)
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}

fn start_node(edge: &Edge, trust: &Path, pace: Pace, name: &str) -> Result<Node> {
    let folder = edge.plane.folder().join(name);
    let host = format!("127.0.0.1:{}", free_port()?);
    ensure!(TcpListener::bind(&host).is_ok(), "{host} is in use");
    let mut arguments = vec![
        "run".to_owned(),
        format!("--node-name={name}"),
        format!("--kubeconfig={}", edge.agent.display()),
        format!("--data-dir={}", folder.join("data").display()),
        format!("--trust={}", trust.display()),
        format!("--listen={host}"),
    ];
    arguments.extend(
        pace.flags(&["--lease-seconds=10"])
            .into_iter()
            .map(str::to_owned),
    );
    let agent = rimward::agent(&format!("agent-{name}"), &folder, &arguments)?;
    Ok(Node {
        name: name.to_owned(),
        host,
        agent,
    })
}
