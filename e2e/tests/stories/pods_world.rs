//! What the stories on real pods share: two nodes, a registry with Rimward's images and signed models, and the
//! charts installed from it by helm, all on one cluster.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::helm::chart;
use rimward_e2e::node::{self, Cluster, Network};
use rimward_e2e::registry::Kind;
use rimward_e2e::{Cosign, Helm, Kubectl, Registry, Story, image_push};
use serde_json::json;

/// Generous: the machine may be busy with a build.
pub(crate) const WITHIN: Duration = Duration::from_secs(300);
pub(crate) const SYSTEM: &str = "rimward-system";
pub(crate) const AGENTS: &str = "rimward-agents";
/// The trust file of the agents.
const TRUST: &str = "trust.yaml";
/// What `cluster add` wrote, once it did.
const SITE: &str = "site.yaml";

/// A cluster with Rimward's chart at hand. Dropped in this order.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) helm: Helm,
    pub(crate) kubectl: Kubectl,
    pub(crate) cluster: Cluster,
    pub(crate) registry: Registry,
    pub(crate) cosign: Cosign,
    pub(crate) folder: PathBuf,
}

/// Says what took how long.
pub(crate) struct Clock {
    story: String,
    began: Instant,
    last: Instant,
}

impl Clock {
    fn start(story: &str) -> Self {
        let began = Instant::now();
        Self {
            story: story.to_owned(),
            began,
            last: began,
        }
    }

    /// Ends a part, and prints how long it took.
    pub(crate) fn part(&mut self, what: &str) {
        let (part, all) = (self.last.elapsed(), self.began.elapsed());
        let (part, all) = (part.as_secs_f64(), all.as_secs_f64());
        eprintln!("{}: {part:6.2} s  {what} (at {all:.1} s)", self.story);
        self.last = Instant::now();
    }
}

impl World {
    /// Starts two nodes, pushes the images, and writes the values of an installation.
    pub(crate) async fn start(story: &Story) -> Result<Self> {
        let mut clock = Clock::start(story.name());
        let folder = story.scratch().path().to_path_buf();
        let network = Network::start(&folder).await?;
        let place = folder.join("registry");
        let registry = Registry::start_on(Kind::Referrers, &place, network.address()).await?;
        let options = node::Options {
            plain_http: vec![registry.host()],
            ..node::Options::default()
        };
        let keys = folder.join("keys");
        let (cluster, cosign, operator, agent, cli) = tokio::try_join!(
            Cluster::start("edge", &folder, network, 2, options),
            Cosign::generate(&keys),
            image_push::push(&registry, "rimward-operator"),
            image_push::push(&registry, "rimward-node-agent"),
            image_push::push(&registry, "rimward-cli"),
        )?;
        let host = registry.host();
        let trust = json!({
            "apiVersion": "rimward.dev/v1alpha1",
            "kind": "TrustFile",
            "authorities": [{
                "name": "release",
                "repositories": [format!("{host}/models/**")],
                "keys": [{"name": "ci", "pem": std::fs::read_to_string(cosign.public_key())?}],
            }],
        });
        let digit = rimward_e2e::digits::held_out()?;
        let digit = digit.first().context("no digits")?;
        let images = json!({
            "image": {"registry": format!("{host}/rimward")},
            "hub": {"image": {"digest": operator}},
            "edge": {"image": {"digest": operator}},
            "agent": {"image": {"digest": agent}},
            "test": {"image": {"digest": cli}},
        });
        // What a machine of tests needs beside what the install guide says.
        let values = json!({
            "hub": {"plainHttp": [host], "extraArgs": ["--resync-seconds=2"]},
            "edge": {
                "extraArgs": ["--resync-seconds=2", "--heartbeat-seconds=2", "--retry-seconds-max=2"],
            },
            "agent": {
                "registry": {"plainHttp": [host]},
                "extraArgs": ["--lease-seconds=2"],
            },
            "test": {
                "model": "digits",
                "request": rimward_e2e::digits::request(digit).to_string(),
            },
        });
        for (name, content) in [
            ("images.yaml", images),
            ("values.yaml", values),
            (TRUST, trust),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, serde_yaml::to_string(&content)?)
                .with_context(|| format!("writing {}", path.display()))?;
        }
        let world = Self {
            helm: Helm::new(&cluster.plane.kubeconfig(), &folder)?,
            kubectl: cluster.plane.kubectl()?,
            clock: {
                clock.part("two nodes Ready, images in the registry");
                clock
            },
            cluster,
            registry,
            cosign,
            folder,
        };
        Ok(world)
    }

    /// `helm install --wait` of the hub and the agents, then the site as the install guide says for one machine.
    pub(crate) async fn install(&mut self) -> Result<()> {
        let agents = ["--set=agent.enabled=true", &self.trust_flag()];
        let chart = self.source_chart();
        self.helm("install", &chart, &["--create-namespace"], &agents)
            .await?;
        self.clock.part("helm install --wait: hub and agents");
        self.print_pods().await?;
        self.join("edge", &[]).await?;
        self.helm("upgrade", &chart, &["--reset-then-reuse-values"], &[])
            .await?;
        self.clock
            .part("cluster add, helm upgrade --wait: edge operator");
        Ok(())
    }

    /// `kubectl rimward cluster add NAME --same-cluster --helm-values`: its file is used from then on.
    pub(crate) async fn join(&self, name: &str, more: &[&str]) -> Result<()> {
        let add = ["rimward", "cluster", "add", name];
        let how = ["--same-cluster", "--helm-values"];
        let line = self.kubectl.line(add).args(how).args(more);
        let said = line.folder(&self.folder).run().await?;
        // Where it says that it put it, so that the next command finds it.
        let file = self.folder.join(format!("{name}.values.yaml"));
        ensure!(
            said.contains(&format!("-f {name}.values.yaml")) && file.exists(),
            "{said}"
        );
        std::fs::rename(file, self.folder.join(SITE))?;
        Ok(())
    }

    /// The chart of this checkout, with the images that were pushed.
    pub(crate) fn source_chart(&self) -> Vec<String> {
        let images = self.folder.join("images.yaml").display().to_string();
        vec![chart("rimward"), "-f".to_owned(), images]
    }

    /// What tells helm whom the agents trust.
    pub(crate) fn trust_flag(&self) -> String {
        let path = self.folder.join(TRUST);
        format!("--set-file=agent.trust.file={}", path.display())
    }

    /// helm with a chart and this world's values, and `--wait`.
    pub(crate) async fn helm(
        &self,
        verb: &str,
        chart: &[String],
        how: &[&str],
        more: &[&str],
    ) -> Result<String> {
        let mut line = self.helm.line([verb, "rimward"]).args(chart);
        line = line.args(["-n", SYSTEM, "--wait", "--timeout=240s"]);
        for name in ["values.yaml", SITE] {
            let path = self.folder.join(name);
            if path.exists() {
                line = line.args(["-f", &path.display().to_string()]);
            }
        }
        line.args(how).args(more).within(WITHIN).run().await
    }

    /// `helm upgrade` to the same chart with other values.
    pub(crate) async fn upgrade(&self, set: &str) -> Result<()> {
        let chart = self.source_chart();
        let how = ["--reset-then-reuse-values", "--set", set];
        self.helm("upgrade", &chart, &how, &[]).await?;
        Ok(())
    }

    /// `helm rollback` to the revision before.
    pub(crate) async fn rollback(&self) -> Result<()> {
        let back = ["rollback", "rimward", "-n", SYSTEM];
        let line = self.helm.line(back).args(["--wait", "--timeout=240s"]);
        line.within(WITHIN).run().await?;
        Ok(())
    }
}
