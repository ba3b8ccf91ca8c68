//! Two replicas of an operator: one leads, and when it dies the other does, also in the middle of a rollout; told of
//! the hub's, and of an edge cluster's.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::audit::{Audit, Mark};
use rimward_e2e::control_plane::{ControlPlane, Options};
use rimward_e2e::fleet::ACCOUNTS;
use rimward_e2e::rimward::Operator;
use rimward_e2e::system::System;
use rimward_e2e::{Fleet, Kubectl, Seen, story, wait_for};
use serde_json::json;

use crate::edge_world;
use crate::releases::{self, GOOD, Order};

const WITHIN: Duration = Duration::from_secs(120);
/// The leaders' Leases, in one place whatever namespace an operator is installed in.
pub(crate) const HUB: Lease = ("rimward-clusters", "rimward.dev.hub-leader");
pub(crate) const EDGE: Lease = ("rimward-nodes", "rimward.dev.edge-leader");

/// Namespace and name.
pub(crate) type Lease = (&'static str, &'static str);

#[test]
fn a_second_replica_leads_once_the_first_is_killed() {
    story("leader", async |story| {
        let (hub, account) = Fleet::start_hub(story.scratch().path(), Options::default()).await?;
        let kubectl = hub.kubectl()?;
        let mark = hub.audit().mark()?;
        let start = |name: &str| {
            Operator::hub(
                name,
                story.scratch().path(),
                &account,
                &["--lease-seconds=3"],
            )
        };
        let first = start("first")?;
        first.wait_until_ready(WITHIN).await?;
        wait_for("the first to lead", WITHIN, async || {
            leads(&kubectl, HUB, "first").await
        })
        .await?;

        let second = start("second")?;
        second.wait_until_ready(WITHIN).await?;
        ensure!(second.metrics().await?.contains("# EOF"));
        ensure!(
            matches!(leads(&kubectl, HUB, "first").await?, Seen::Done(())),
            "both lead"
        );

        first.service().kill();
        wait_for("the second to lead", WITHIN, async || {
            leads(&kubectl, HUB, "second").await
        })
        .await?;
        first.service().resume()?;
        first.wait_until_ready(WITHIN).await?;
        no_request_was_forbidden(&hub, mark)
    });
}

/// Kills the leading replica of a system's hub once the first cluster has its order, and starts it again: by the
/// audit logs each cluster and each node is ordered the new revision once, and nothing else. Gives the revision.
pub(crate) async fn dies_in_a_rollout(system: &System, before: &str) -> Result<String> {
    let kubectl = system.kubectl()?;
    let mark = system.fleet.hub.audit().mark()?;
    let edges = system.fleet.edges.iter().map(|edge| edge.plane.audit());
    let edges = edges
        .map(|log| Ok((log.mark()?, log)))
        .collect::<Result<Vec<_>>>()?;
    let orders = || orders(&system.fleet.hub.audit(), mark, "clusterassignments");
    releases::deploy(system, "digits", Order::new(GOOD, 100, 0)).await?;
    wait_for("the first order", WITHIN, async || {
        Ok(if orders()?.is_empty() {
            Seen::NotYet("none".to_owned())
        } else {
            Seen::Done(())
        })
    })
    .await?;
    let leader = holder(&kubectl, HUB).await?;
    let replica = system
        .hub
        .iter()
        .find(|replica| replica.service().name() == leader);
    let replica = replica.with_context(|| format!("{leader} leads, which is no replica"))?;
    replica.service().kill();
    let ordered = orders()?.len();
    ensure!(
        ordered < system.sites.len(),
        "the rollout was over before the leader died"
    );
    wait_for("another replica to lead", WITHIN, async || {
        let now = holder(&kubectl, HUB).await?;
        Ok(if now == leader {
            Seen::NotYet(now)
        } else {
            Seen::Done(())
        })
    })
    .await?;
    replica.service().resume()?;
    let revision = releases::promoted(system, "digits").await?;
    ensure!(revision != before, "still {before}");

    let mut given = orders()?;
    given.sort();
    let each = |names: &mut dyn Iterator<Item = &str>| -> Vec<(String, bool)> {
        let mut names: Vec<_> = names.map(|name| (name.to_owned(), true)).collect();
        names.sort();
        names
    };
    let names = |orders: &[(String, String)]| -> Vec<(String, bool)> {
        let name = |(name, body): &(String, String)| (name.clone(), body.contains(&revision));
        orders.iter().map(name).collect()
    };
    let clusters = each(&mut system.sites.iter().map(|site| site.name));
    ensure!(
        names(&given) == clusters,
        "once each, with {revision}: {given:#?}"
    );
    for ((mark, log), site) in edges.into_iter().zip(&system.sites) {
        let mut given = self::orders(&log, mark, "edgenodes")?;
        given.sort();
        let nodes = each(&mut site.nodes.iter().map(|node| node.name.as_str()));
        ensure!(
            names(&given) == nodes,
            "once each, with {revision}: {given:#?}"
        );
    }
    Ok(revision)
}

/// Kills the leading replica of an edge cluster's operator once the first node has its go-ahead, and carries the
/// rollout of a model on with the other: by the audit log each node gets its go-ahead once. `nodes` are all that
/// the cluster has, by name; they run nothing yet.
pub(crate) async fn dies_in_an_edge_cluster(
    hub: &Kubectl,
    west: &ControlPlane,
    replicas: [&Operator; 2],
    nodes: &[&str],
) -> Result<()> {
    let edge = west.kubectl()?;
    let [first, second] = replicas.map(|replica| replica.service().name());
    second_stands_by(&edge, first, replicas[1]).await?;
    let mark = west.audit().mark()?;
    edge_world::apply_assignment(hub, "west", &[edge_world::model("wave", "wave-1", "Run")])
        .await?;
    for (done, node) in nodes.iter().enumerate() {
        wait_for("the next go-ahead", WITHIN, async || {
            edge_world::given(&edge, "wave-1", done + 1).await
        })
        .await?;
        if done == 0 {
            replicas[0].service().kill();
            wait_for("the other replica to lead", WITHIN, async || {
                leads(&edge, EDGE, second).await
            })
            .await?;
        }
        let own = json!([edge_world::committed("wave", "wave-1")]);
        edge_world::report(&edge, node, own).await?;
    }
    wait_for("the sums on the hub", WITHIN, async || {
        let object = hub.get_json(["clusterassignment", "west"]).await?;
        let updated = &object["status"]["models"][0]["nodes"]["updated"];
        Ok(if *updated == nodes.len() {
            Seen::Done(())
        } else {
            Seen::NotYet(object["status"].to_string())
        })
    })
    .await?;
    // Whoever was killed comes back, and leaves the lead where it is.
    replicas[0].service().resume()?;
    replicas[0].wait_until_ready(WITHIN).await?;
    ensure!(holder(&edge, EDGE).await? == second, "both lead");
    let given = orders(&west.audit(), mark, "edgenodes")?;
    let mut names: Vec<_> = given.iter().map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    ensure!(names == nodes, "once each: {given:#?}");
    ensure!(
        given.iter().all(|(_, body)| body.contains("wave-1")),
        "{given:#?}"
    );
    Ok(())
}

/// The second replica is ready while the first leads, and does nothing.
async fn second_stands_by(edge: &Kubectl, first: &str, second: &Operator) -> Result<()> {
    second.wait_until_ready(WITHIN).await?;
    let holder = holder(edge, EDGE).await?;
    ensure!(holder == first, "{holder} leads");
    let metrics = second.metrics().await?;
    ensure!(metrics.contains("rimward_leader 0"), "{metrics}");
    Ok(())
}

/// Since a mark each of so many clusters was ordered once, and nothing but this revision.
pub(crate) fn each_ordered_once(
    log: &Audit,
    mark: Mark,
    clusters: usize,
    revision: &str,
) -> Result<()> {
    let given = orders(log, mark, "clusterassignments")?;
    let mut names: Vec<&String> = given.iter().map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    ensure!(
        names.len() == clusters && given.len() == clusters,
        "once each: {given:#?}"
    );
    ensure!(
        given.iter().all(|(_, body)| body.contains(revision)),
        "with {revision}: {given:#?}"
    );
    Ok(())
}

/// Writes of specs since a mark: the object's name and what was sent.
pub(crate) fn orders(log: &Audit, mark: Mark, kind: &str) -> Result<Vec<(String, String)>> {
    let writes = log.writes_since(mark, ACCOUNTS)?.into_iter();
    Ok(writes
        .filter_map(|event| Some((event.object_ref?, event.request_object.unwrap_or_default())))
        .filter(|(object, _)| object.resource == kind && object.subresource.is_empty())
        .map(|(object, body)| (object.name, body.to_string()))
        .collect())
}

pub(crate) async fn leads(kubectl: &Kubectl, lease: Lease, name: &str) -> Result<Seen<()>> {
    let holder = holder(kubectl, lease).await?;
    Ok(if holder == name {
        Seen::Done(())
    } else {
        Seen::NotYet(format!("{holder} leads"))
    })
}

pub(crate) async fn holder(kubectl: &Kubectl, (namespace, name): Lease) -> Result<String> {
    let lease = kubectl.get_json(["lease", name, "-n", namespace]).await?;
    let holder = lease["spec"]["holderIdentity"].as_str();
    Ok(holder.unwrap_or("nobody").to_owned())
}

/// The account may do what the operator does.
fn no_request_was_forbidden(hub: &ControlPlane, mark: Mark) -> Result<()> {
    let events = hub.audit().since(mark)?;
    let mut own = events
        .iter()
        .filter(|event| event.user.username.starts_with(ACCOUNTS))
        .peekable();
    own.peek()
        .context("the audit log has no request of the operator's account")?;
    let forbidden = own.find(|event| event.code() == 403);
    ensure!(
        forbidden.is_none(),
        "{}",
        forbidden.map(ToString::to_string).unwrap_or_default()
    );
    Ok(())
}
