//! The life of an installation, with Rimward's real programs under the chart's own accounts: hub and site on one
//! cluster, a model that answers, upgrades in the middle of a rollout, an uninstall that takes nothing of the fleet.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::command::{Line, Output};
use rimward_e2e::control_plane::Options;
use rimward_e2e::device::Source;
use rimward_e2e::digits;
use rimward_e2e::fleet::{AGENTS_NAMESPACE, NAMESPACE};
use rimward_e2e::helm::{NO_REGISTRY, chart};
use rimward_e2e::ports::free_port;
use rimward_e2e::rimward::{self, Operator};
use rimward_e2e::{ControlPlane, Helm, Kubectl, Seen, Service, Story, story, wait_for};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(120);
const OFTEN: [&str; 3] = [
    "--resync-seconds=2",
    "--lease-seconds=5",
    "--log-format=text",
];
/// What must outlive the release, by kind.
const KEPT: [&str; 7] = [
    "customresourcedefinitions",
    "modeldeployments",
    "modelrevisions",
    "edgeclusters",
    "clusterassignments",
    "edgenodes",
    "leases",
];

#[test]
fn hub_and_site_on_one_cluster_live_under_the_charts_accounts_and_outlive_the_chart() {
    story("charts-life", async |story: &Story| {
        let world = World::install(story).await?;
        let programs = world.join().await?;
        world.deploy("first", "1.0.0").await?;
        world.promoted("first").await?;
        world.answers(&programs.endpoint).await?;

        // Everything has a status by now. Twice the same: nobody else's field is in the way, and nothing changes.
        for log in ["debug", "debug", "info"] {
            let before = world.fleet().await?;
            world
                .upgrade(&format!("hub.log={log},commonLabels.round={log}"))
                .await?;
            let after = world.fleet().await?;
            ensure!(before == after, "{before:#?} became {after:#?}");
        }
        // In the middle of a rollout.
        world.deploy("second", "1.1.0").await?;
        world.upgrade("hub.replicas=2").await?;
        world.promoted("second").await?;
        world.answers(&programs.endpoint).await?;

        world.deploy("third", "1.0.0").await?;
        let before = world.kept().await?;
        let said = world
            .helm
            .run(["uninstall", "rimward", "-n", NAMESPACE])
            .await?;
        ensure!(said.contains("uninstalled"), "{said}");
        world.is_gone("deployment", NAMESPACE).await?;
        world.is_gone("daemonset", AGENTS_NAMESPACE).await?;
        let after = world.kept().await?;
        for object in &before {
            ensure!(after.contains(object), "{object} went with the release");
        }
        // What served goes on, and installed again the release takes up what it left.
        world.answers(&programs.endpoint).await?;
        world.site("install").await?;
        world.accounts().await?;
        world.promoted("third").await?;
        world.answers(&programs.endpoint).await
    });
}

/// A cluster with the chart, and packages.
struct World {
    plane: ControlPlane,
    kubectl: Kubectl,
    helm: Helm,
    source: Source,
    folder: PathBuf,
    values: PathBuf,
}

/// What a kubelet would have started.
struct Programs {
    _hub: Operator,
    _edge: Operator,
    _agent: Service,
    endpoint: String,
}

impl World {
    /// The hub alone, as its notes say; nothing runs yet.
    async fn install(story: &Story) -> Result<Self> {
        let folder = story.scratch().path().to_path_buf();
        let plane = ControlPlane::start("one", &folder, Options::default()).await?;
        let source = Source::start(story.scratch()).await?;
        let world = Self {
            kubectl: plane.kubectl()?,
            helm: Helm::new(&plane.kubeconfig(), &folder)?,
            values: folder.join("here.values.yaml"),
            plane,
            source,
            folder,
        };
        world.helm_values("install", &[], "hub.replicas=1").await?;
        Ok(world)
    }

    /// The site, with what `cluster add` writes, and the programs under the accounts of their pods.
    async fn join(&self) -> Result<Programs> {
        let hub = self.account(NAMESPACE, "rimward-hub").await?;
        let [flag, host] = self.source.registry().plain_http_flags();
        let flags = [&OFTEN[..], &[flag.as_str(), host.as_str()]].concat();
        let hub = Operator::hub("hub", &self.folder.join("hub"), &hub, &flags)?;
        hub.wait_until_ready(WITHIN).await?;

        let said = self.add_cluster().await?;
        ensure!(
            said.contains("Install on the edge:  helm upgrade rimward CHART"),
            "{said}"
        );
        // Once more, to renew: another credential, nothing else.
        let first = std::fs::read_to_string(&self.values)?;
        self.add_cluster().await?;
        let (first, second): (Value, Value) = (
            serde_yaml::from_str(&first)?,
            serde_yaml::from_str(&std::fs::read_to_string(&self.values)?)?,
        );
        ensure!(first["edge"]["cluster"] == second["edge"]["cluster"]);
        self.site("upgrade").await?;

        let secret = ["secret", "rimward-edge-hub", "-n", NAMESPACE];
        let credential = self
            .secret(&secret, "kubeconfig", "site.kubeconfig")
            .await?;
        let edge = self.account(NAMESPACE, "rimward-edge").await?;
        let folder = self.folder.join("edge");
        let flags = [&OFTEN[..], &["--heartbeat-seconds=2"]].concat();
        let edge = Operator::edge("edge", &folder, &edge, "here", &credential, &flags)?;
        edge.wait_until_ready(WITHIN).await?;

        let secret = ["secret", "rimward-agent-trust", "-n", AGENTS_NAMESPACE];
        let trust = self
            .secret(&secret, "trust.yaml", "device-trust.yaml")
            .await?;
        let account = self.account(AGENTS_NAMESPACE, "rimward-agent").await?;
        let endpoint = format!("127.0.0.1:{}", free_port()?);
        let mut arguments = vec![
            "run".to_owned(),
            "--node-name=node-1".to_owned(),
            format!("--kubeconfig={}", account.display()),
            format!("--data-dir={}", self.folder.join("data").display()),
            format!("--trust={}", trust.display()),
            format!("--listen={endpoint}"),
        ];
        arguments.extend(self.source.registry().plain_http_flags());
        let agent = rimward::agent("agent", &self.folder.join("agent"), &arguments)?;
        Ok(Programs {
            _hub: hub,
            _edge: edge,
            _agent: agent,
            endpoint: format!("http://{endpoint}"),
        })
    }

    /// Hub and site, with the file that `cluster add` wrote.
    async fn site(&self, verb: &str) -> Result<()> {
        let values = self.values.display().to_string();
        let trust = format!("agent.trust.file={}", self.source.trust().display());
        let more = ["-f", &values, "--set-file", &trust];
        self.helm_values(verb, &more, "hub.replicas=1").await?;
        Ok(())
    }

    /// Tokens of the accounts as they are now, where the programs read them.
    async fn accounts(&self) -> Result<()> {
        for (namespace, name) in [
            (NAMESPACE, "rimward-hub"),
            (NAMESPACE, "rimward-edge"),
            (AGENTS_NAMESPACE, "rimward-agent"),
        ] {
            self.account(namespace, name).await?;
        }
        Ok(())
    }

    async fn add_cluster(&self) -> Result<String> {
        let cli = Line::new(&rimward::binary("kubectl-rimward")?);
        let kubeconfig = self.plane.kubeconfig().display().to_string();
        let values = self.values.display().to_string();
        let add = ["cluster", "add", "here", "--kubeconfig", &kubeconfig];
        let server = self.plane.server();
        let how = ["--same-cluster", "--server", &server];
        let line = cli.args(add).args(how);
        line.args(["--helm-values", &values]).run().await
    }

    /// A token of an account that the chart made; kubectl's `account_kubeconfig` would make one that it forgot.
    async fn account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        self.kubectl
            .get_json(["serviceaccount", name, "-n", namespace])
            .await?;
        self.plane.account_kubeconfig(namespace, name).await
    }

    /// A key of a Secret, as a file, as a pod has it.
    async fn secret(&self, secret: &[&str], key: &str, file: &str) -> Result<PathBuf> {
        use base64::Engine as _;
        let object = self.kubectl.get_json(secret).await?;
        let data = object["data"][key].as_str().context("no such key")?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(data)?;
        let path = self.folder.join(file);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }

    async fn helm_values(&self, verb: &str, more: &[&str], set: &str) -> Result<String> {
        let registry = format!("image.registry={NO_REGISTRY}");
        let line = self
            .helm
            .line([verb, "rimward", &chart("rimward"), "-n", NAMESPACE]);
        let line = if verb == "install" {
            line.args(["--create-namespace"])
        } else {
            line
        };
        line.args(more)
            .args(["--set", &registry, "--set", set])
            .run()
            .await
    }

    async fn upgrade(&self, set: &str) -> Result<()> {
        self.helm_values("upgrade", &["--reset-then-reuse-values"], set)
            .await?;
        Ok(())
    }

    /// Packs, signs and orders a release of the digits model everywhere.
    async fn deploy(&self, model: &str, version: &str) -> Result<()> {
        let folder = format!("examples/packages/digits-{version}");
        let package = self.source.release(&folder, "digits", model).await?;
        let image = package.reference();
        let kind = |kind: &str, name: &str, spec: Value| {
            json!({"apiVersion": "rimward.dev/v1alpha1", "kind": kind,
                   "metadata": {"name": name, "namespace": "default"}, "spec": spec})
            .to_string()
        };
        let spec = json!({"family": "digits", "version": version, "image": image});
        self.kubectl.apply(&kind("Model", model, spec)).await?;
        let spec = json!({
            "modelRef": {"name": model}, "placement": {"clusterSelector": {}},
            "runtime": {"memory": "64Mi"}, "health": {"probationSeconds": 1},
        });
        self.kubectl
            .apply(&kind("ModelDeployment", "digits", spec))
            .await?;
        Ok(())
    }

    async fn promoted(&self, model: &str) -> Result<()> {
        wait_for(&format!("{model} to be rolled out"), WITHIN, async || {
            let object = self.kubectl.get_json(["modeldeployment", "digits"]).await?;
            let status = &object["status"];
            let conditions = status["conditions"].as_array();
            let ready = conditions
                .into_iter()
                .flatten()
                .any(|it| it["type"] == "Ready" && it["status"] == "True");
            let done = ready
                && status["observedGeneration"] == object["metadata"]["generation"]
                && status["currentRevision"] == status["updateRevision"];
            Ok(if done {
                Seen::Done(())
            } else {
                Seen::NotYet(status.to_string())
            })
        })
        .await
    }

    /// A prediction, as `helm test` asks for one.
    async fn answers(&self, endpoint: &str) -> Result<()> {
        let digits = digits::held_out()?;
        let request = digits::request(digits.first().context("a digit")?).to_string();
        let ask = [
            "infer",
            "digits",
            "--endpoint",
            endpoint,
            "--data",
            &request,
        ];
        let said = self.infer(&ask).await?;
        ensure!(
            said.stderr.contains("answered by digits-"),
            "{}",
            said.stderr
        );
        ensure!(said.success()?.contains("\"label\""));
        let said = self.infer(&["infer", "--endpoint", endpoint]).await?;
        ensure!(said.stderr.contains("only asked whether anything serves"));
        let said = self
            .infer(&["infer", "digits", "--endpoint", endpoint])
            .await?;
        let said = said.refusal()?;
        ensure!(said.contains("digits takes image UINT8"), "{said}");
        let said = self
            .infer(&["infer", "nobody", "--endpoint", endpoint, "-d", "{}"])
            .await?;
        let said = said.refusal()?;
        ensure!(said.contains("404"), "{said}");
        Ok(())
    }

    async fn infer(&self, arguments: &[&str]) -> Result<Output> {
        Line::new(&rimward::binary("kubectl-rimward")?)
            .args(arguments)
            .output()
            .await
    }

    /// The fleet's objects as people and operators wrote them: not a byte of them is the chart's.
    async fn fleet(&self) -> Result<Vec<String>> {
        let kinds = "modeldeployments,modelrevisions,edgeclusters,clusterassignments,edgenodes";
        let list = self.kubectl.get_json([kinds, "-A"]).await?;
        let items = list["items"].as_array().context("a list")?;
        let named = |item: &Value| {
            format!(
                "{} {} {}",
                item["kind"], item["metadata"]["name"], item["spec"]
            )
        };
        Ok(items.iter().map(named).collect())
    }

    async fn kept(&self) -> Result<Vec<String>> {
        let list = self.kubectl.get_json([&KEPT.join(","), "-A"]).await?;
        let items = list["items"].as_array().context("a list")?;
        let named = items.iter().map(|item| {
            let metadata = &item["metadata"];
            format!(
                "{} {} {} {}",
                item["kind"], metadata["namespace"], metadata["name"], metadata["uid"]
            )
        });
        let named: Vec<String> = named
            .filter(|it| it.contains("rimward") || !it.contains("Lease"))
            .collect();
        for kind in [
            "CustomResourceDefinition",
            "Lease",
            "ModelDeployment",
            "EdgeNode",
        ] {
            ensure!(
                named.iter().any(|it| it.contains(kind)),
                "no {kind}: {named:?}"
            );
        }
        Ok(named)
    }

    async fn is_gone(&self, kind: &str, namespace: &str) -> Result<()> {
        let said = self
            .kubectl
            .run(["get", kind, "-n", namespace, "-o", "name"])
            .await?;
        ensure!(said.is_empty(), "{said}");
        Ok(())
    }
}
