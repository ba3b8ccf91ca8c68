//! What the story plays on: hub, two edge clusters, registry, operators, agents, as processes or as pods.
//!
//! Owns what chapters ask of either, so that they need not know which it is.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use rimward_e2e::command::Line;
use rimward_e2e::control_plane::Options;
use rimward_e2e::digits::{self, Digit};
use rimward_e2e::load::{Load, Plan, any_inference};
use rimward_e2e::system::{Mode, SiteSpec, System};
use rimward_e2e::{Cosign, Kubectl, fleet, rimward};

use crate::narrate::Narrator;
use crate::pods::Pods;

/// The registry's address that `examples/` names.
pub(crate) const REGISTRY: &str = rimward_e2e::system::EXAMPLE_REGISTRY;

pub(crate) const SITES: [SiteSpec; 2] = [
    SiteSpec {
        name: "north",
        mode: Mode::Pull,
        labels: "ring=canary",
        nodes: 2,
    },
    SiteSpec {
        name: "south",
        mode: Mode::Push,
        labels: "ring=main",
        nodes: 2,
    },
];

/// Everything that runs, and what the story carries from chapter to chapter.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) ground: Ground,
    pub(crate) digits: Vec<Digit>,
}

/// As what Rimward runs.
#[derive(Debug)]
pub(crate) enum Ground {
    Processes(Box<System>),
    Pods(Box<Pods>),
}

/// Where a node answers.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) name: String,
    /// `HOST:PORT`.
    pub(crate) host: String,
}

impl Stage {
    pub(crate) async fn set(narrator: &Narrator) -> Result<Self> {
        narrator.chapter("A hub, two edge clusters and a registry");
        let digits = digits::held_out()?;
        let port = REGISTRY
            .rsplit_once(':')
            .and_then(|(_, port)| port.parse().ok())
            .context("a port")?;
        let names = SITES.map(|site| site.name);
        let fleet =
            fleet::Fleet::start_with_registry("demo", &names, Options::default(), Some(port))
                .await?;
        let system = System::on(fleet, &[]).await?;
        narrator.held("hub, north and south: real API servers on kine and SQLite, as K3s has them");
        narrator.held(&format!("registry at {REGISTRY}; hub operator ready"));
        let ground = Ground::Processes(Box::new(system));
        Ok(Self { ground, digits })
    }

    pub(crate) async fn set_pods(narrator: &Narrator) -> Result<Self> {
        let digits = digits::held_out()?;
        let ground = Ground::Pods(Box::new(Pods::set(narrator).await?));
        Ok(Self { ground, digits })
    }

    /// kubectl on the hub, as administrator.
    pub(crate) fn kubectl(&self) -> Result<Kubectl> {
        match &self.ground {
            Ground::Processes(system) => system.kubectl(),
            Ground::Pods(pods) => Ok(pods.hub.kubectl.clone()),
        }
    }

    pub(crate) fn cosign(&self) -> &Cosign {
        match &self.ground {
            Ground::Processes(system) => &system.fleet.cosign,
            Ground::Pods(pods) => &pods.release.cosign,
        }
    }

    /// The trust file of every device.
    pub(crate) fn trust(&self) -> &Path {
        match &self.ground {
            Ground::Processes(system) => &system.trust,
            Ground::Pods(pods) => &pods.trust,
        }
    }

    pub(crate) fn scratch(&self) -> &Path {
        match &self.ground {
            Ground::Processes(system) => system.fleet.scratch.path(),
            Ground::Pods(pods) => pods.scratch.path(),
        }
    }

    /// Where packages go. Pods cannot reach the one of `examples/`, which is on this machine's loopback.
    pub(crate) fn registry(&self) -> String {
        match &self.ground {
            Ground::Processes(_) => REGISTRY.to_owned(),
            Ground::Pods(pods) => pods.release.registry.host(),
        }
    }

    /// What `kubectl rimward` is told of a registry that has no TLS; loopback needs no flag.
    pub(crate) fn registry_flags(&self) -> Vec<String> {
        match &self.ground {
            Ground::Processes(_) => Vec::new(),
            Ground::Pods(_) => vec!["--plain-http".to_owned(), self.registry()],
        }
    }

    pub(crate) fn doors(&self) -> Vec<Door> {
        let door = |node: &rimward_e2e::system::Node| Door {
            name: node.name.clone(),
            host: node.host.clone(),
        };
        match &self.ground {
            Ground::Processes(system) => system.nodes().map(door).collect(),
            Ground::Pods(pods) => pods.doors().collect(),
        }
    }

    /// The first node of the canary cluster.
    pub(crate) fn first_door(&self) -> Result<Door> {
        self.doors().into_iter().next().context("no nodes")
    }

    /// Packs a folder, pushes it as a version of digits; gives its reference by digest.
    pub(crate) async fn package(
        &self,
        narrator: &Narrator,
        folder: &Path,
        version: &str,
    ) -> Result<String> {
        let reference = format!("{}/models/digits:{version}", self.registry());
        let flags = self.registry_flags();
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let typed = async |line| narrator.run(line).await;
        rimward::package(&self.kubectl()?, folder, &reference, &flags, typed).await
    }

    /// `kubectl apply -f examples/FILE…`, with the registry that there is.
    pub(crate) async fn apply(&self, narrator: &Narrator, files: &[&str]) -> Result<()> {
        let files = files.iter().map(|file| format!("examples/{file}"));
        let files: Vec<String> = files.collect();
        let registry = self.registry();
        let mut arguments = vec!["apply", "--server-side"];
        if registry == REGISTRY {
            for file in &files {
                arguments.extend(["-f", file]);
            }
            let line = self.kubectl()?.line(arguments);
            narrator.run(line.folder(&digits::repository())).await?;
            return Ok(());
        }
        // As README.md says it. The model is in the last file.
        let Some((last, others)) = files.split_last() else {
            return Ok(());
        };
        let replace = format!("s,{REGISTRY},{registry},");
        let sed = Line::new(Path::new("sed")).args([&replace, last]);
        let sed = sed.folder(&digits::repository());
        for file in others {
            arguments.extend(["-f", file]);
        }
        arguments.extend(["-f", "-"]);
        let apply = self.kubectl()?.line(arguments);
        let apply = apply.folder(&digits::repository());
        narrator.pipe(sed, apply).await?;
        Ok(())
    }

    /// `kubectl rimward …`
    pub(crate) fn rimward(&self, arguments: &[&str]) -> Result<Line> {
        Ok(self
            .kubectl()?
            .line([&["rimward"], arguments].concat())
            .folder(&digits::repository()))
    }

    /// `kubectl rimward verify`: what a device would say.
    pub(crate) fn verify(&self, reference: &str) -> Result<Line> {
        let trust = self.trust().display().to_string();
        let line = self.rimward(&["verify", reference, "--trust", &trust])?;
        Ok(line.args(self.registry_flags()))
    }

    /// The name of the revision that a deployment promoted last.
    pub(crate) async fn promoted(&self) -> Result<String> {
        let kubectl = self.kubectl()?;
        let revision = kubectl
            .run([
                "get",
                "mdep",
                "digits",
                "-o",
                "jsonpath={.status.currentRevision}",
            ])
            .await?;
        ensure!(
            !revision.is_empty(),
            "deployment digits has no promoted revision"
        );
        Ok(revision)
    }

    /// What a camera at each node would send, all the time.
    pub(crate) fn load(&self, rate_per_second: u32) -> Result<Vec<(String, Load)>> {
        let bodies: Vec<_> = self
            .digits
            .iter()
            .map(|digit| digits::request(digit).to_string().into_bytes().into())
            .collect();
        self.doors()
            .into_iter()
            .map(|node| {
                let load = Load::start(Plan {
                    url: format!("http://{}/v2/models/digits/infer", node.host),
                    bodies: bodies.clone(),
                    rate_per_second,
                    connections: 4,
                    timeout: std::time::Duration::from_secs(10),
                    judge: any_inference,
                })?;
                Ok((node.name, load))
            })
            .collect()
    }

    /// Every node answers held-out digits with this revision; says how well.
    pub(crate) async fn predictions(
        &self,
        narrator: &Narrator,
        revision: &str,
        count: usize,
    ) -> Result<()> {
        let client = reqwest::Client::new();
        for node in self.doors() {
            let first = self.digits.first().context("no digits")?;
            let answer = digits::ask(&client, &node.host, "digits", first).await?;
            ensure!(
                answer.revision == revision,
                "{} answers with {}, not {revision}",
                node.name,
                answer.revision
            );
            let (right, of) = digits::accuracy(&node.host, "digits", &self.digits[..count]).await?;
            ensure!(
                right * 100 >= of * 95,
                "{}: only {right} of {of} held-out digits are right",
                node.name
            );
            narrator.held(&format!(
                "{} at {}: {right} of {of} held-out digits right, by {revision}",
                node.name, node.host
            ));
        }
        Ok(())
    }

    /// No request failed at any node.
    pub(crate) fn none_lost(&self, narrator: &Narrator, loads: Vec<(String, Load)>) -> Result<()> {
        let mut total = 0;
        for (node, load) in loads {
            let report = load.stop()?;
            report
                .check_none_failed()
                .with_context(|| format!("load on {node}"))?;
            total += report.total;
        }
        ensure!(total > 0, "no request was sent");
        narrator.held(&format!("{total} requests while it went on, none failed"));
        Ok(())
    }

    pub(crate) fn explain_how_to_reach(&self, narrator: &Narrator) -> Result<()> {
        let kubectl = self.kubectl()?;
        let folder = rimward_e2e::rimward::folder()?;
        let tools = rimward_e2e::tools::Tool::Kubectl.path()?;
        let tools = tools.parent().map(PathBuf::from).unwrap_or_default();
        let cosign = rimward_e2e::tools::Tool::Cosign.path()?;
        let cosign = cosign.parent().map(PathBuf::from).unwrap_or_default();
        narrator.say("Everything keeps running until Ctrl-C. In another terminal, in this folder:");
        let helm = rimward_e2e::tools::Tool::Helm.path().ok();
        let helm = helm.as_deref().and_then(Path::parent);
        let first = self.first_door()?;
        let key = self.cosign().private_key();
        let exports = [
            format!("KUBECONFIG={}", kubectl.kubeconfig().display()),
            format!(
                "PATH={}:{}:{}{}:$PATH",
                tools.display(),
                cosign.display(),
                folder.display(),
                helm.map_or_else(String::new, |helm| format!(":{}", helm.display()))
            ),
            format!("COSIGN_KEY={} COSIGN_PASSWORD=''", key.display()),
            format!("TRUST={}", self.trust().display()),
            format!("NODE=http://{}", first.host),
        ];
        narrator.say("");
        for export in exports {
            narrator.say(&format!("  export {export}"));
        }
        narrator.say("");
        narrator.say("and on with \"A first deployment\" in README.md.");
        let registry = self.registry();
        if registry != REGISTRY {
            narrator.say(&format!(
                "Where it says {REGISTRY}, take {registry}, also in examples/; `kubectl rimward` wants \
                 `--plain-http {registry}` with it."
            ));
        }
        narrator.say("All nodes:");
        for node in self.doors() {
            narrator.say(&format!(
                "  {}:  http://{}/v2/models/digits",
                node.name, node.host
            ));
        }
        Ok(())
    }
}
