//! What the story plays on: hub, two edge clusters, registry, operators, agents.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rimward_e2e::command::Line;
use rimward_e2e::control_plane::Options;
use rimward_e2e::digits::{self, Digit};
use rimward_e2e::load::{Load, Plan, any_inference};
use rimward_e2e::system::{Mode, SiteSpec, System};
use rimward_e2e::{Kubectl, fleet};

use crate::narrate::Narrator;

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
    pub(crate) system: System,
    pub(crate) digits: Vec<Digit>,
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
        Ok(Self { system, digits })
    }

    pub(crate) fn kubectl(&self) -> Result<Kubectl> {
        self.system.kubectl()
    }

    /// `kubectl apply -f examples/FILE…`
    pub(crate) fn apply(&self, files: &[&str]) -> Result<Line> {
        let files: Vec<String> = files
            .iter()
            .map(|file| format!("examples/{file}"))
            .collect();
        let mut arguments = vec!["apply", "--server-side"];
        for file in &files {
            arguments.extend(["-f", file]);
        }
        Ok(self
            .kubectl()?
            .line(arguments)
            .folder(&digits::repository()))
    }

    /// `kubectl rimward …`
    pub(crate) fn rimward(&self, arguments: &[&str]) -> Result<Line> {
        Ok(self
            .kubectl()?
            .line([&["rimward"], arguments].concat())
            .folder(&digits::repository()))
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
        self.system
            .nodes()
            .map(|node| {
                let load = Load::start(Plan {
                    url: format!("http://{}/v2/models/digits/infer", node.host),
                    bodies: bodies.clone(),
                    rate_per_second,
                    connections: 4,
                    timeout: std::time::Duration::from_secs(10),
                    judge: any_inference,
                })?;
                Ok((node.name.clone(), load))
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
        for node in self.system.nodes() {
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
        let first = self.system.nodes().next().context("no nodes")?;
        let key = self.system.fleet.cosign.private_key();
        let exports = [
            format!("KUBECONFIG={}", kubectl.kubeconfig().display()),
            format!(
                "PATH={}:{}:{}:$PATH",
                tools.display(),
                cosign.display(),
                folder.display()
            ),
            format!("COSIGN_KEY={} COSIGN_PASSWORD=''", key.display()),
            format!("TRUST={}", self.system.trust.display()),
            format!("NODE=http://{}", first.host),
        ];
        narrator.say("");
        for export in exports {
            narrator.say(&format!("  export {export}"));
        }
        narrator.say("");
        narrator.say("and on with \"A first deployment\" in README.md. All nodes:");
        for node in self.system.nodes() {
            narrator.say(&format!(
                "  {}:  http://{}/v2/models/digits",
                node.name, node.host
            ));
        }
        Ok(())
    }
}
