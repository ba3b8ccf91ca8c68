//! What an installation asks of API servers while nothing happens, by who asks and by verb, and how much memory the
//! operators have then; controllers of others beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rimward_e2e::audit::{Audit, Event};
use rimward_e2e::control_plane::Options;
use rimward_e2e::digits::repository;
use rimward_e2e::fleet::Fleet;
use rimward_e2e::system::{Mode, Pace, SiteSpec, System};
use rimward_e2e::tools::Tool;
use serde_json::json;

use crate::peer::{self, OBJECTS, Peer};
use crate::processes::{Memory, memory};
use crate::report::{Row, Section};
use crate::stats::megabytes;

const SITES: [SiteSpec; 2] = [
    SiteSpec {
        name: "north",
        mode: Mode::Pull,
        labels: "ring=main",
        nodes: NODES,
    },
    SiteSpec {
        name: "south",
        mode: Mode::Push,
        labels: "ring=main",
        nodes: NODES,
    },
];
const NODES: usize = 2;
const WITHIN: Duration = Duration::from_secs(180);
/// What a rollout leads to is over by then.
const SETTLE: Duration = Duration::from_secs(60);
/// As long as the rarest look by the clock, which is one in five resyncs.
const MINUTES: u32 = 5;

const WHAT_PEERS_LACK: &str = "cert-manager's is one controller of one cluster, without what else an installation of it \
    runs: a webhook, and a CA injector that has Leases of its own. It knows no fleet and no devices. Its later versions have their \
    main programs in modules that replace their own library by a folder beside them, which Go builds from a checkout alone.";

/// Requests of one account.
type Verbs = BTreeMap<String, f64>;

pub(crate) async fn run() -> Result<Section> {
    let names = SITES.map(|site| site.name);
    let fleet = Fleet::start("bench-rest", &names, Options::default()).await?;
    let mut system = System::on_at(fleet, Pace::OfUsers, &[]).await?;
    for site in SITES {
        system.join(site, async |line| line.run().await).await?;
    }
    deploy(&system).await?;
    let certs = Peer::start(system.fleet.scratch.path()).await?;
    tokio::time::sleep(SETTLE).await;
    let planes: Vec<(&str, Audit)> = std::iter::once(&system.fleet.hub)
        .chain(system.fleet.edges.iter().map(|edge| &edge.plane))
        .chain([&certs.plane])
        .map(|plane| (plane.name(), plane.audit()))
        .collect();
    let marks = planes
        .iter()
        .map(|(_, log)| log.mark())
        .collect::<Result<Vec<_>>>()?;
    tokio::time::sleep(Duration::from_secs(60) * MINUTES).await;
    let mut all: BTreeMap<(String, String), Verbs> = BTreeMap::new();
    for ((name, log), mark) in planes.iter().zip(marks) {
        for event in log.since(mark)? {
            let verbs = all.entry(((*name).to_owned(), who(&event))).or_default();
            *verbs.entry(verb(&event)).or_default() += 1.0 / f64::from(MINUTES);
        }
    }
    let of = |plane: &str, who: &str| {
        let found = all.get(&(plane.to_owned(), who.to_owned()));
        found.cloned().unwrap_or_default()
    };
    let per = |verbs: Verbs, count: usize| -> Verbs {
        let share = |(verb, rate): (String, f64)| (verb, rate / count as f64);
        verbs.into_iter().map(share).collect()
    };
    let hub = "rimward-system/rimward-hub";
    let agent = "rimward-agents/rimward-agent";
    let mut rows = vec![
        row("hub operator, to the hub", of("hub", hub)),
        row(
            "a site that pulls, to the hub",
            of("hub", "rimward-clusters/north"),
        ),
        row(
            "a site that pulls: its operator, to its own API server",
            of("north", "rimward-system/rimward-edge"),
        ),
        row(
            "a site that is pushed to: the hub's session, to the site",
            of("south", "rimward-system/rimward-edge"),
        ),
        row(
            "a node's agent, to its own API server",
            per(of("north", agent), NODES),
        ),
    ];
    let version = Tool::CertManager.version()?;
    let what = format!("beside: cert-manager's controller {version}, {OBJECTS} certificates");
    rows.push(row_of_peer(&what, of("peer", peer::USER)));
    let words_of = |memory: Memory| {
        let (resident, anonymous) = (megabytes(memory.resident), megabytes(memory.anonymous));
        format!("{resident} resident, {anonymous} of it anonymous")
    };
    let operator = |id: Option<u32>| -> Result<String> {
        Ok(words_of(memory(id.context("an operator does not run")?)?))
    };
    let [pulls, ..] = system.sites.as_slice() else {
        anyhow::bail!("no site");
    };
    let edge = pulls.operators.first().context("no edge operator")?;
    let notes = vec![
        format!(
            "Memory at rest, as processes: hub operator {}; edge operator {}; cert-manager's controller {}.",
            operator(system.hub[0].service().id())?,
            operator(edge.service().id())?,
            words_of(certs.memory()?),
        ),
        WHAT_PEERS_LACK.to_owned(),
        which_binaries().to_owned(),
        format!("All that was asked, by account: {}.", words(&all)),
    ];
    Ok(Section {
        title: "Requests to API servers at rest, per minute",
        how: format!(
            "A hub and two sites of {NODES} nodes each on real API servers, flags as they are by default; one site \
             pulls, the other is pushed to; one deployment serves everywhere. cert-manager's controller is a process on \
             one more API server of the same kind, flags as they are by default, with {OBJECTS} certificates of a \
             self-signed issuer (as many as there are deployments, sites and nodes on Rimward's side), all issued. \
             Counted from all audit logs over the same {MINUTES} minutes, in which nothing happens. A watch counts when it begins: an open one is no request."
        ),
        beside: "peer",
        rows,
        notes,
    })
}

async fn deploy(system: &System) -> Result<()> {
    let registry = system.fleet.registry.host();
    let folder = repository().join("examples/packages/digits-1.0.0");
    let image = system
        .package(&folder, &registry, "models/digits:1.0.0", async |line| {
            line.run().await
        })
        .await?;
    system.fleet.cosign.sign(&image).await?;
    for (kind, spec) in [
        (
            "Model",
            json!({"family": "digits", "version": "1.0.0", "image": image}),
        ),
        (
            "ModelDeployment",
            json!({"modelRef": {"name": "digits"}, "placement": {"clusterSelector": {}}, "health": {"probationSeconds": 1}}),
        ),
    ] {
        let object = json!({"apiVersion": "rimward.dev/v1alpha1", "kind": kind, "metadata": {"name": "digits"}, "spec": spec});
        system.kubectl()?.apply(&object.to_string()).await?;
    }
    let deployment = ["modeldeployment", "digits"];
    let path = ".status.progress";
    system
        .wait_for_value(&deployment, path, "2/2", WITHIN)
        .await
}

/// Says it where somebody named other binaries than those that were built with this one.
fn which_binaries() -> &'static str {
    let is_named = |name: &str| std::env::var_os(format!("RIMWARD_BIN_RIMWARD_{name}")).is_some();
    if is_named("OPERATOR") || is_named("NODE_AGENT") {
        "Rimward's programs were development builds in this run: what they ask for does not depend on that, their memory does."
    } else {
        "Rimward's programs were optimised builds, as the peer's is."
    }
}

/// The account, without what all of them begin with.
fn who(event: &Event) -> String {
    let user = &event.user.username;
    let account = user.strip_prefix("system:serviceaccount:");
    account.map_or_else(|| user.clone(), |account| account.replace(':', "/"))
}

fn verb(event: &Event) -> String {
    let resource = match event.resource() {
        "" => "other",
        "customresourcedefinitions" => "definitions",
        resource => resource,
    };
    format!("{} {resource}", event.verb)
}

fn row(what: &str, verbs: Verbs) -> Row {
    let (sum, words) = by_verb(verbs);
    Row::new(format!("{what}: {words}"), sum)
}

fn row_of_peer(what: &str, verbs: Verbs) -> Row {
    let (sum, words) = by_verb(verbs);
    Row::new(format!("{what}: {words}"), "").beside(sum, None)
}

/// The sum, and what it is made of, the most frequent first.
fn by_verb(verbs: Verbs) -> (String, String) {
    let sum: f64 = verbs.values().sum();
    let mut verbs: Vec<_> = verbs.into_iter().collect();
    verbs.sort_by(|one, other| other.1.total_cmp(&one.1));
    let words = verbs.iter().map(|(verb, rate)| format!("{verb} {rate:.1}"));
    (format!("{sum:.1}"), words.collect::<Vec<_>>().join(", "))
}

fn words(all: &BTreeMap<(String, String), Verbs>) -> String {
    let each = all.iter().map(|((plane, who), verbs)| {
        let sum: f64 = verbs.values().sum();
        format!("{who} at {plane} {sum:.1}")
    });
    each.collect::<Vec<_>>().join(", ")
}
