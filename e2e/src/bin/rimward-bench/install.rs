//! From `helm install --wait` to the first prediction on a fresh node, by part, and memory of the pods as the kubelet
//! counts it; beside a pod that does nothing, and cert-manager's controller.

mod kubelet;
mod sights;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::installed::{Place, Release};
use rimward_e2e::node::{self, Network, PAUSE};
use rimward_e2e::tools::Tool;
use rimward_e2e::{Scratch, Seen, digits, fleet, rimward, wait_for};
use serde_json::{Value, json};

use self::kubelet::Memory;
use self::sights::Sights;
use crate::report::{Row, Section};
use crate::stats::{median, megabytes, spread, time};

const REPEATS: usize = 2;
const WITHIN: Duration = Duration::from_secs(300);
const REQUESTS: usize = 100;
/// What the peer's pod is called, and its image.
const PEER: &str = "cert-manager";
const PEER_IMAGE: &str = "rimward.test/cert-manager:1";

/// A part, and how long it took in microseconds.
type Parts = Vec<(&'static str, f64)>;

/// What one repeat found.
struct Found {
    parts: Parts,
    /// Of a pause pod and of the peer, applied to ready.
    floors: [f64; 2],
    memory: Vec<(&'static str, Memory)>,
    sizes: [String; 2],
}

pub(crate) async fn run() -> Result<Section> {
    ensure!(
        node::is_root(),
        "real nodes need root, for namespaces and control groups"
    );
    let mut all = Vec::new();
    for repeat in 1..=REPEATS {
        eprintln!("    a fresh node, {repeat} of {REPEATS}");
        all.push(once().await?);
    }
    let first = all.first().context("nothing was measured")?;
    let of_floor = |which: usize| -> Vec<f64> { all.iter().map(|it| it.floors[which]).collect() };
    let (pause, peer) = (of_floor(0), of_floor(1));
    let beside = format!("a pause pod {}", spread(&pause, time));
    let mut rows = Vec::new();
    for (index, (what, _)) in first.parts.iter().enumerate() {
        let times: Vec<f64> = all.iter().map(|it| it.parts[index].1).collect();
        let row = Row::new(*what, spread(&times, time));
        // Whole steps that start a pod stand beside one that starts a pod and nothing else.
        rows.push(if what.contains("--wait") {
            row.beside(beside.clone(), Some(median(&times) / median(&pause)))
        } else {
            row
        });
    }
    let peer_version = Tool::CertManager.version()?;
    rows.push(
        Row::new(
            "beside: a Deployment of one pod, `kubectl apply` to Available, image there",
            "",
        )
        .beside(
            format!(
                "pause {}; cert-manager's controller {}",
                spread(&pause, time),
                spread(&peer, time)
            ),
            None,
        ),
    );
    for (index, (what, _)) in first.memory.iter().enumerate() {
        let of = |pick: fn(&Memory) -> f64| -> String {
            let values: Vec<f64> = all.iter().map(|it| pick(&it.memory[index].1)).collect();
            spread(&values, megabytes)
        };
        let (working, resident) = (of(|it| it.working_set), of(|it| it.resident));
        let what = format!("memory by the kubelet, {what}: working set; resident");
        let words = format!("{working}; {resident}");
        rows.push(match index {
            0..OURS => Row::new(what, words),
            _ => Row::new(what, "").beside(words, None),
        });
    }
    let [operator, agent] = &first.sizes;
    Ok(Section {
        title: "An installation, from helm to the first prediction",
        how: format!(
            "A fresh cluster of one real node (kubelet, containerd, kube-proxy, CoreDNS; containers as on any node) each time, \
             {REPEATS} times; the registry and the API server are on the same machine, and images are pulled from it. `helm \
             install --wait` of the released chart puts the hub there; `cluster add --helm-values` and `helm upgrade --wait` \
             make its own cluster a site, with an edge operator and an agent; then digits 1.0.0 is applied. Steps of pods are \
             as a watch of this program saw them, pulls as the kubelet's events say. The kubelet has pulled {operator} bytes for \
             an operator and {agent} for the agent, by its own count. Beside it, on the same node, after that: a Deployment of one \
             pause container, whose image the node has, which is what a kubelet and a containerd cost by themselves; and one of \
             cert-manager's controller {peer_version} (static, built from its Go module, its image on the node as well)."
        ),
        beside: "beside",
        rows,
        notes: vec![
            which_images()?.to_owned(),
            "Memory is what the kubelet's `stats/summary` says of the container, some 25 s after it came to that state; the \
             working set counts file pages in use too. An operator's image is there once for hub and edge, so only the first \
             pod pulls it."
                .to_owned(),
        ],
    })
}

/// `cargo xtask bench` builds images for this; others may be named.
fn which_images() -> Result<&'static str> {
    Ok(
        if rimward_e2e::images::folder()?.ends_with("images-bench") {
            "Rimward's images are optimised builds (profile `release`), as the peer's is."
        } else {
            "Rimward's images of this run were development builds: larger to pull, and not optimised."
        },
    )
}

/// Rows of memory that are of Rimward, before those beside.
const OURS: usize = 4;

async fn once() -> Result<Found> {
    let scratch = Scratch::new("bench-install")?;
    let folder = scratch.path();
    let network = Network::start(folder).await?;
    let release = Release::start(folder, &network).await?;
    release.line()?.run().await?;
    let place = Place::start("here", folder, network, 1, &release).await?;
    let sights = Sights::start(place.cluster.plane.client().await?);
    let values = release.values("values.yaml", &json!({}))?;
    let trust = format!("agent.trust.file={}", release.trust()?.display());
    let image = package(&place, &release).await?;

    let began = Instant::now();
    let mut parts = Parts::new();
    let helm = place.helm("install", &release, &[&values]);
    helm.run().await?;
    parts.push(("`helm install --wait`: the hub", micros(began.elapsed())));
    let of_hub = pod(&sights, "rimward-hub", began).await?;
    parts.extend(named(
        of_hub.0,
        [
            "of it until the hub's pod is made: helm, kinds, admission",
            "of it the pull of the operator's image",
            "of it the pod until its container runs, without the pull",
            "of it running to Ready",
        ],
    ));

    let began_site = Instant::now();
    let site = folder.join("site.yaml").display().to_string();
    let add = ["rimward", "cluster", "add", "here", "--helm-values", &site];
    let own = ["--server", "https://kubernetes.default.svc"];
    place.kubectl.line(add).args(own).run().await?;
    parts.push(("`cluster add`", micros(began_site.elapsed())));
    let began_upgrade = Instant::now();
    let helm = place.helm("upgrade", &release, &[Path::new(&site)]);
    helm.args(["--set-file", &trust]).run().await?;
    parts.push((
        "`helm upgrade --wait`: edge operator and agent",
        micros(began_upgrade.elapsed()),
    ));
    let of_agent = pod(&sights, "rimward-agent", began_upgrade).await?;
    parts.extend(named(
        of_agent.0,
        [
            "of it until the agent's pod is made",
            "of it the pull of the agent's image",
            "of it the pod until its container runs, without the pull",
            "of it running to Ready",
        ],
    ));
    let began_joining = Instant::now();
    let cluster = ["edgecluster", "here"];
    place
        .kubectl
        .wait_for_value(&cluster, ".status.nodes.ready", "1", WITHIN)
        .await?;
    parts.push((
        "from there until the hub counts the node as ready",
        micros(began_joining.elapsed()),
    ));
    let whole = began.elapsed();
    let idle = kubelet::memory(&place, ["rimward-hub", "rimward-edge", "rimward-agent"]).await?;

    let began_model = Instant::now();
    place.kubectl.apply(&model(&image).to_string()).await?;
    let host = agent_host(&place).await?;
    first_prediction(&host).await?;
    let model = began_model.elapsed();
    parts.push((
        "`kubectl apply` of a model to its first prediction",
        micros(model),
    ));
    parts.insert(
        0,
        (
            "**whole: `helm install` to the first prediction**",
            micros(whole + model),
        ),
    );
    let digits = digits::held_out()?;
    for digit in digits.iter().cycle().take(REQUESTS) {
        digits::ask(&reqwest::Client::new(), &host, "digits", digit).await?;
    }
    let floors = [pause(&place).await?, peer(&place, folder).await?];
    let [agent, pause, peer] = kubelet::memory(&place, ["rimward-agent", "pause", PEER]).await?;
    Ok(Found {
        parts,
        floors,
        memory: vec![
            ("hub operator", idle[0]),
            ("edge operator", idle[1]),
            ("agent without a model", idle[2]),
            ("agent with one, after 100 requests", agent),
            ("a pause container", pause),
            ("cert-manager's controller, no certificate", peer),
        ],
        sizes: [of_hub.1, of_agent.1],
    })
}

fn named(times: [f64; 4], names: [&'static str; 4]) -> impl Iterator<Item = (&'static str, f64)> {
    names.into_iter().zip(times)
}

/// A pod's steps since a time: made, pulled, running without the pull, Ready; and its image's size.
async fn pod(sights: &Sights, prefix: &str, since: Instant) -> Result<([f64; 4], String)> {
    let steps = wait_for("the watch to see it Ready", WITHIN, async || {
        let steps = sights.of(prefix)?;
        Ok(match (steps.started, steps.ready) {
            (Some(started), Some(ready)) => Seen::Done((steps.made, started, ready)),
            _ => Seen::NotYet(format!("{steps:?}")),
        })
    });
    let (made, started, ready) = steps.await?;
    let (pull, size) = sights.pull(prefix).await?;
    let starting = started.duration_since(made).as_secs_f64() - pull;
    let times = [
        micros(made.duration_since(since)),
        pull * 1e6,
        starting.max(0.0) * 1e6,
        micros(ready.duration_since(started)),
    ];
    Ok((times, size))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Packs, pushes and signs digits 1.0.0; gives its reference.
async fn package(place: &Place, release: &Release) -> Result<String> {
    let host = release.registry.host();
    let folder = digits::repository().join("examples/packages/digits-1.0.0");
    let reference = format!("{host}/models/digits:1.0.0");
    let typed = async |line: rimward_e2e::command::Line| line.run().await;
    let flags = ["--plain-http", &host];
    let image = rimward::package(&place.kubectl, &folder, &reference, &flags, typed).await?;
    release.cosign.sign(&image).await?;
    Ok(image)
}

/// A model and its deployment, as one list.
fn model(image: &str) -> Value {
    let object = |kind: &str, spec: Value| {
        json!({"apiVersion": "rimward.dev/v1alpha1", "kind": kind,
               "metadata": {"name": "digits", "namespace": "default"}, "spec": spec})
    };
    let model = json!({"family": "digits", "version": "1.0.0", "image": image});
    let deployment = json!({
        "modelRef": {"name": "digits"},
        "placement": {"clusterSelector": {}},
        "health": {"probationSeconds": 1},
    });
    let items = [
        object("Model", model),
        object("ModelDeployment", deployment),
    ];
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// Where the agent's pod answers.
async fn agent_host(place: &Place) -> Result<String> {
    let namespace = fleet::AGENTS_NAMESPACE;
    let pods = place.kubectl.get_json(["pods", "-n", namespace]).await?;
    let address = pods["items"][0]["status"]["podIP"].as_str();
    Ok(format!("{}:8080", address.context("no agent's pod")?))
}

/// Asks every few milliseconds until the model answers.
async fn first_prediction(host: &str) -> Result<()> {
    let client = reqwest::Client::new();
    let digits = digits::held_out()?;
    let digit = digits.first().context("no digits")?;
    let began = Instant::now();
    while let Err(error) = digits::ask(&client, host, "digits", digit).await {
        ensure!(began.elapsed() < WITHIN, "nothing answers: {error:#}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// A Deployment of one pause container, applied to Available, in microseconds.
async fn pause(place: &Place) -> Result<f64> {
    let container = json!({"name": "pause", "image": PAUSE, "imagePullPolicy": "Never"});
    applied(place, "pause", json!({"containers": [container]})).await
}

/// The same of cert-manager's controller, whose kinds are there and whose image the node has.
async fn peer(place: &Place, folder: &Path) -> Result<f64> {
    let program = Tool::CertManager.path()?;
    let kinds = program.parent().context("it lies in no folder")?;
    place.cluster.plane.apply_crds(&kinds.join("kinds")).await?;
    let node = place.cluster.nodes.first().context("no node")?;
    node.import_program(folder, PEER_IMAGE, &program).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": PEER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    });
    place.kubectl.apply(&binding.to_string()).await?;
    // As its own chart has it.
    let probe = json!({"httpGet": {"port": 9403, "path": "/livez"}});
    let container = json!({
        "name": PEER, "image": PEER_IMAGE, "imagePullPolicy": "Never",
        "args": ["--leader-election-namespace=kube-system"],
        "livenessProbe": probe,
    });
    applied(place, PEER, json!({"containers": [container]})).await
}

async fn applied(place: &Place, name: &str, pod: Value) -> Result<f64> {
    let labels = json!({"app": name});
    let object = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    });
    let began = Instant::now();
    place.kubectl.apply(&object.to_string()).await?;
    let target = format!("deployment/{name}");
    let available = "condition=Available";
    place.kubectl.wait(&target, available, WITHIN).await?;
    Ok(micros(began.elapsed()))
}
