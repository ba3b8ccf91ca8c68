//! What the stories on real pods share: two nodes, a registry with Rimward's images and signed models, and the
//! charts installed from it by helm, all on one cluster.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rimward_e2e::digits::repository;
use rimward_e2e::helm::chart;
use rimward_e2e::load::{Client, Load, Plan, Report, any_inference};
use rimward_e2e::node::{self, Cluster, Network, Node, PAUSE};
use rimward_e2e::registry::Kind;
use rimward_e2e::{Cosign, Helm, Kubectl, Registry, Seen, Story, image_push, wait_for};
use serde_json::{Value, json};

use crate::edge_world::account_of;

/// Generous: the machine may be busy with a build.
pub(crate) const WITHIN: Duration = Duration::from_secs(300);
pub(crate) const SYSTEM: &str = "rimward-system";
pub(crate) const AGENTS: &str = "rimward-agents";
/// From the last change until clients stop asking.
const SETTLED: Duration = Duration::from_secs(2);
const DIGITS: &str = "examples/packages/digits-";

/// A cluster with Rimward's chart at hand. Dropped in this order.
pub(crate) struct World {
    pub(crate) clock: Clock,
    pub(crate) helm: Helm,
    pub(crate) kubectl: Kubectl,
    pub(crate) cluster: Cluster,
    pub(crate) registry: Registry,
    cosign: Cosign,
    folder: PathBuf,
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
        let values = json!({
            "image": {"registry": format!("{host}/rimward")},
            "hub": {
                "image": {"digest": operator},
                "plainHttp": [host],
                "extraArgs": ["--resync-seconds=2"],
            },
            "edge": {
                "image": {"digest": operator},
                "extraArgs": ["--resync-seconds=2", "--heartbeat-seconds=2", "--retry-seconds-max=2"],
            },
            "agent": {
                "enabled": true,
                "image": {"digest": agent},
                "trust": {"file": serde_yaml::to_string(&trust)?},
                "registry": {"plainHttp": [host]},
                "extraArgs": ["--lease-seconds=2"],
                "drainSeconds": 4,
            },
            "test": {
                "image": {"digest": cli},
                "model": "digits",
                "request": rimward_e2e::digits::request(digit).to_string(),
            },
        });
        std::fs::write(folder.join("values.yaml"), serde_yaml::to_string(&values)?)?;
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

    /// `helm install --wait` of the hub and the agents, `kubectl rimward cluster add`, then `helm upgrade --wait` with the
    /// edge operator too.
    pub(crate) async fn install(&mut self) -> Result<()> {
        self.helm("install", &["--create-namespace"]).await?;
        self.clock.part("helm install --wait: hub and agents");
        self.print_pods().await?;
        let out = self.folder.join("join.yaml").display().to_string();
        let add = ["rimward", "cluster", "add", "edge", "--out", &out];
        let server = ["--server", "https://10.43.0.1:443"];
        self.kubectl.line(add).args(server).run().await?;
        let account = account_of(Path::new(&out))?;
        let edge = json!({"edge": {"enabled": true, "cluster": "edge",
            "hub": {"kubeconfig": std::fs::read_to_string(account)?}}});
        std::fs::write(self.folder.join("edge.yaml"), serde_yaml::to_string(&edge)?)?;
        self.helm("upgrade", &[]).await?;
        self.clock
            .part("cluster add, helm upgrade --wait: edge operator");
        Ok(())
    }

    /// helm with the chart and this world's values, and `--wait`.
    pub(crate) async fn helm(&self, verb: &str, more: &[&str]) -> Result<String> {
        let values = |name: &str| self.folder.join(name).display().to_string();
        let (own, edge) = (values("values.yaml"), values("edge.yaml"));
        let chart = chart("rimward");
        let mut line = self
            .helm
            .line([
                verb,
                "rimward",
                &chart,
                "-n",
                SYSTEM,
                "--wait",
                "--timeout=240s",
            ])
            .args(["-f", &own]);
        if Path::new(&edge).exists() {
            line = line.args(["-f", &edge]);
        }
        line.args(more).within(WITHIN).run().await
    }

    /// Packs a version of digits, signs it, and makes it known as a Model.
    pub(crate) async fn release(&self, version: &str) -> Result<()> {
        let host = self.registry.host();
        let folder = repository().join(format!("{DIGITS}{version}"));
        let (folder, target) = (
            folder.display().to_string(),
            format!("{host}/models/digits:{version}"),
        );
        let package = [
            "rimward",
            "package",
            &folder,
            "--push",
            &target,
            "--plain-http",
            &host,
        ];
        let said = self.kubectl.run(package).await?;
        let at = said
            .find("sha256:")
            .context("`package` printed no digest")?;
        let image = format!("{host}/models/digits@{}", &said[at..at + 71]);
        self.cosign.sign(&image).await?;
        let spec = json!({"family": "digits", "version": version, "image": image});
        self.kubectl
            .apply(&object("Model", &format!("digits-{version}"), &spec))
            .await?;
        Ok(())
    }

    /// Orders a version on every node; `number` makes a revision of its own of it.
    pub(crate) async fn deploy(&self, version: &str, number: u32) -> Result<()> {
        let spec = json!({
            "modelRef": {"name": format!("digits-{version}")},
            "placement": {"clusterSelector": {}},
            "runtime": {"concurrency": 2, "memory": "64Mi", "timeoutMilliseconds": 5000 + number},
            "health": {"probationSeconds": 1, "minSamples": 0},
        });
        self.kubectl
            .apply(&object("ModelDeployment", "digits", &spec))
            .await?;
        Ok(())
    }

    /// Waits until the deployment, as it stands now, is on every node; gives the revision.
    pub(crate) async fn promoted(&self) -> Result<String> {
        wait_for("digits to be promoted", WITHIN, async || {
            let object = self.kubectl.get_json(["modeldeployment", "digits"]).await?;
            let status = &object["status"];
            let is_now = status["observedGeneration"] == object["metadata"]["generation"];
            let is_done = status["stage"]["phase"] == "Completed"
                && status["currentRevision"] == status["updateRevision"];
            Ok(match status["currentRevision"].as_str() {
                Some(revision) if is_now && is_done => Seen::Done(revision.to_owned()),
                _ => Seen::NotYet(status.to_string()),
            })
        })
        .await
    }

    /// Starts a pod on each node that does nothing; gives their networks, to ask from.
    pub(crate) async fn clients(&self) -> Result<Vec<PathBuf>> {
        for node in &self.cluster.nodes {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("client-{}", node.name()), "namespace": "default"},
                "spec": {
                    "nodeName": node.name(),
                    "containers": [{"name": "pause", "image": PAUSE, "imagePullPolicy": "Never"}],
                },
            });
            self.kubectl.apply(&pod.to_string()).await?;
        }
        let mut networks = Vec::new();
        for node in &self.cluster.nodes {
            let name = format!("client-{}", node.name());
            let target = format!("pod/{name}");
            self.kubectl
                .wait(&target, "condition=Ready", WITHIN)
                .await?;
            let pod = self.kubectl.get_json(["pod", &name]).await?;
            let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
            networks.push(Node::pod_network(uid)?);
        }
        Ok(networks)
    }

    /// Where a Service of the agents is asked for digits.
    pub(crate) async fn service(&self, name: &str) -> Result<String> {
        let service = self
            .kubectl
            .get_json(["service", name, "-n", AGENTS])
            .await?;
        let (address, port) = (
            &service["spec"]["clusterIP"],
            &service["spec"]["ports"][0]["port"],
        );
        let address = address.as_str().context("no clusterIP")?;
        Ok(format!("http://{address}:{port}/v2/models/digits/infer"))
    }

    /// The agents' pods of a node, also those that end.
    async fn agent_pods(&self, node: &Node) -> Result<Vec<Value>> {
        let of = format!("--field-selector=spec.nodeName={}", node.name());
        let label = "-l=app.kubernetes.io/component=agent";
        let mut pods = self
            .kubectl
            .get_json(["pods", "-n", AGENTS, &of, label])
            .await?;
        Ok(pods["items"]
            .as_array_mut()
            .context("a list")?
            .drain(..)
            .collect())
    }

    /// The agent's pod of a node.
    pub(crate) async fn agent_pod(&self, node: &Node) -> Result<Value> {
        let mut pods = self.agent_pods(node).await?.into_iter();
        let pod = pods.find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pod.context("no agent's pod")
    }

    /// Takes a pod away as a drain does.
    pub(crate) async fn evict(&self, pod: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{AGENTS}/pods/{pod}/eviction");
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": AGENTS}});
        let line = self.kubectl.line(["create", "--raw", &path, "-f", "-"]);
        line.input(eviction.to_string()).run().await?;
        Ok(())
    }

    /// What a node says of digits.
    pub(crate) async fn on_node(&self, node: &Node) -> Result<Value> {
        let object = self.kubectl.get_json(["edgenode", node.name()]).await?;
        let mut models = object["status"]["models"].as_array().into_iter().flatten();
        let model = models.find(|model| model["name"] == "digits");
        Ok(model.cloned().unwrap_or_default())
    }

    /// Waits until another agent's pod than this one is Ready on a node, and the only one there.
    pub(crate) async fn replaced(&self, node: &Node, old: &Value) -> Result<()> {
        let old = &old["metadata"]["uid"];
        wait_for("the next agent's pod", WITHIN, async || {
            let pods = self.agent_pods(node).await?;
            let [pod] = &pods[..] else {
                return Ok(Seen::NotYet(format!("{} pods", pods.len())));
            };
            let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
            let is_ready = conditions
                .clone()
                .any(|it| it["type"] == "Ready" && it["status"] == "True");
            Ok(if is_ready && pod["metadata"]["uid"] != *old {
                Seen::Done(())
            } else {
                Seen::NotYet(pod["status"].to_string())
            })
        })
        .await
    }

    /// Says of each pod of Rimward when it was made, scheduled, started and Ready, and how long its image took.
    async fn print_pods(&self) -> Result<()> {
        for namespace in [SYSTEM, AGENTS] {
            let pods = self.kubectl.get_json(["pods", "-n", namespace]).await?;
            for pod in pods["items"].as_array().into_iter().flatten() {
                let status = &pod["status"];
                let conditions = status["conditions"].as_array().into_iter().flatten();
                let ready = conditions.clone().find(|it| it["type"] == "Ready");
                let ready = ready.map_or("", |it| it["lastTransitionTime"].as_str().unwrap_or(""));
                eprintln!(
                    "    {}: made {}, container started {}, Ready {ready}",
                    pod["metadata"]["name"],
                    pod["metadata"]["creationTimestamp"],
                    status["containerStatuses"][0]["state"]["running"]["startedAt"],
                );
            }
            let events = self
                .kubectl
                .get_json(["events", "-n", namespace, "--field-selector=reason=Pulled"])
                .await?;
            for event in events["items"].as_array().into_iter().flatten() {
                eprintln!("    {}", event["message"].as_str().unwrap_or(""));
            }
        }
        Ok(())
    }
}

/// Where clients ask.
#[derive(Clone, Copy)]
pub(crate) struct Door<'a> {
    pub(crate) name: &'static str,
    pub(crate) client: Client<'a>,
    pub(crate) url: &'a str,
}

impl<'a> Door<'a> {
    /// A door that is asked from a pod's network, over kept connections.
    pub(crate) const fn new(name: &'static str, from: &'a Path, url: &'a str) -> Self {
        let client = Client {
            network: Some(from),
            is_fresh: false,
        };
        Self { name, client, url }
    }

    /// The same, each request over a connection of its own.
    pub(crate) const fn fresh(mut self, name: &'static str) -> Self {
        self.name = name;
        self.client.is_fresh = true;
        self
    }
}

/// Clients that ask all the time, each at a door of its own.
pub(crate) struct Asking(Vec<(&'static str, Load)>);

impl Asking {
    /// Begins to ask 50 times a second at each door.
    pub(crate) fn start(doors: &[Door<'_>]) -> Result<Self> {
        let loads = doors
            .iter()
            .map(|door| Ok((door.name, load(door.client, door.url, 50, 4)?)));
        Ok(Self(loads.collect::<Result<_>>()?))
    }

    /// The same as [`Asking::stop`], and nothing may have been lost.
    pub(crate) async fn stop_whole(self, what: &str) -> Result<()> {
        let reports = self.stop(what).await?;
        reports.iter().try_for_each(Report::check_none_failed)
    }

    /// The same as [`Asking::stop`], where requests in hand may be lost: most are answered. How many depends on how
    /// busy the machine is, which is printed and not judged.
    pub(crate) async fn stop_nearly_whole(self, what: &str) -> Result<()> {
        for report in self.stop(what).await? {
            let (failed, total) = (report.failed, report.total);
            ensure!(
                total > 50 && failed * 5 <= total,
                "{what}: {failed} of {total} failed"
            );
        }
        Ok(())
    }

    /// Stops once all has settled, prints what was lost while `what` happened, and gives that in the doors' order.
    pub(crate) async fn stop(self, what: &str) -> Result<Vec<Report>> {
        tokio::time::sleep(SETTLED).await;
        let mut reports = Vec::new();
        for (door, load) in self.0 {
            let report = tokio::task::spawn_blocking(move || load.stop()).await??;
            let why = report
                .failures
                .first()
                .map(|it| format!("; the first: {:?}", it.result));
            eprintln!(
                "    {what}; {door}: {} of {} failed, longest silence {:.2} s{}",
                report.failed,
                report.total,
                report.silence.as_secs_f64(),
                why.unwrap_or_default(),
            );
            reports.push(report);
        }
        Ok(reports)
    }
}

/// Asks until somebody answers; gives the revision that did.
pub(crate) async fn answering(network: Option<&Path>, url: &str) -> Result<String> {
    let what = format!("an answer of {url}");
    wait_for(&what, WITHIN, async || {
        let client = Client {
            network,
            is_fresh: true,
        };
        let load = load(client, url, 20, 1)?;
        tokio::time::sleep(Duration::from_millis(60)).await;
        let report = tokio::task::spawn_blocking(move || load.stop()).await??;
        Ok(match report.answered_by.first_key_value() {
            Some((revision, _)) => Seen::Done(revision.clone()),
            None => Seen::NotYet(format!("{:?}", report.failures.first())),
        })
    })
    .await
}

/// What clients would send all the time, from a pod's network or from this machine.
fn load(client: Client<'_>, url: &str, rate: u32, connections: usize) -> Result<Load> {
    let plan = Plan {
        url: url.to_owned(),
        bodies: vec![request()?],
        rate_per_second: rate,
        connections,
        timeout: Duration::from_secs(10),
        judge: any_inference,
    };
    Load::start_as(plan, client)
}

fn request() -> Result<Bytes> {
    let path = repository().join("examples/data/digit-request.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(!text.is_empty(), "{} is empty", path.display());
    Ok(text.into())
}

fn object(kind: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": "rimward.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec})
    .to_string()
}
