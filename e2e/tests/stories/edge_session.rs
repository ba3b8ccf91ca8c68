//! A pull cluster's session on real API servers: what its account may do, how it paces nodes, and what it
//! does while the hub is away. The nodes are EdgeNodes whose status the story writes: pacing is all that
//! is told here.

use std::cmp::Ordering;
use std::time::Duration;

use anyhow::{Result, ensure};
use rimward_e2e::audit::{Audit, Event, Level, Mark};
use rimward_e2e::control_plane::Options;
use rimward_e2e::fleet::ACCOUNTS;
use rimward_e2e::rimward::Operator;
use rimward_e2e::{ControlPlane, Fleet, Seen, Story, story, wait_for};
use serde_json::{Value, json};

use crate::edge_world::{
    Beats, add_cluster, apply_assignment, committed, entries, given, model, nodes_with, report,
};
use crate::{edge_rights, leader};

const WITHIN: Duration = Duration::from_secs(60);
/// Long enough for a wrong write to happen: many plans of a session that is asked to plan every second.
const CALM: Duration = Duration::from_secs(4);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn a_session_paces_nodes_with_the_hub_or_without_and_an_absence_is_no_order() {
    story("edge-session", async |story: &Story| {
        let options = Options {
            audit: Level::Request,
            ..Options::default()
        };
        let fleet = Fleet::start("edge-session", &["west"], options).await?;
        let hub = fleet.hub.kubectl()?;
        let west = &fleet.edge("west")?.plane;
        let edge = west.kubectl()?;
        let account = add_cluster(story, "west", &fleet.hub, &[west]).await?;

        apply_assignment(&hub, "west", &[model("digits", "digits-1", "Run")]).await?;
        apply_assignment(&hub, "east", &[]).await?;
        edge_rights::check(&account).await?;

        for node in NODES {
            edge.apply(&format!(
                "{{apiVersion: rimward.dev/v1alpha1, kind: EdgeNode, metadata: {{name: {node}}}, spec: {{}}}}"
            ))
            .await?;
        }
        let _beats = Beats::of(&edge, &NODES);
        let folder = story.scratch().path();
        let more = [
            "--node-silence-seconds=600",
            "--heartbeat-seconds=1",
            "--resync-seconds=1",
            "--retry-seconds-max=1",
            "--lease-seconds=3",
        ];
        let replica = |name: &str| {
            let own = &fleet.edge("west")?.operator;
            Operator::edge(name, folder, own, "west", account.kubeconfig(), &more)
        };
        let operator = replica("edge-west")?;
        operator.wait_until_ready(WITHIN).await?;

        // One node at a time, each only after the one before has committed.
        let text = "the first go-ahead";
        wait_for(text, WITHIN, async || given(&edge, "digits-1", 1).await).await?;
        tokio::time::sleep(CALM).await;
        ensure!(nodes_with(&edge, "digits-1").await? == ["n1"]);
        report(&edge, "n1", json!([committed("digits", "digits-1")])).await?;
        wait_for("the second", WITHIN, async || {
            given(&edge, "digits-1", 2).await
        })
        .await?;

        // One rejecting node stops them, and its own words arrive on the hub.
        let rejected = json!([{
            "namespace": "team", "name": "digits", "revision": "digits-1", "state": "Rejected",
            "reason": "GoldenVectorMismatch", "message": "golden vector 3: expected 7, got 1",
        }]);
        report(&edge, "n2", rejected).await?;
        wait_for("the device's words on the hub", WITHIN, async || {
            let status = hub.get_json(["clusterassignment", "west"]).await?;
            let problem = &status["status"]["models"][0]["problems"][0];
            Ok(
                if problem["message"] == "golden vector 3: expected 7, got 1" {
                    Seen::Done(())
                } else {
                    Seen::NotYet(status["status"].to_string())
                },
            )
        })
        .await?;
        // From here on nothing happens: nothing is written, heartbeats and leadership aside.
        tokio::time::sleep(CALM).await;
        let marks = (fleet.hub.audit().mark()?, west.audit().mark()?);
        tokio::time::sleep(CALM).await;
        ensure!(nodes_with(&edge, "digits-1").await? == ["n1", "n2"]);
        for (plane, mark) in [(&fleet.hub, marks.0), (west, marks.1)] {
            let writes = plane.audit().writes_since(mark, ACCOUNTS)?;
            ensure!(writes.is_empty(), "{}: {writes:?}", plane.name());
            let events = plane.audit().since(mark)?;
            let beats =
                |it: &Event| it.resource() == "leases" && it.user.username.starts_with(ACCOUNTS);
            ensure!(events.iter().any(beats), "{}: no beat", plane.name());
        }

        // A second model; then the hub goes, and the session is killed and starts without it.
        let models = [
            model("digits", "digits-1", "Run"),
            model("tide", "tide-1", "Run"),
        ];
        apply_assignment(&hub, "west", &models).await?;
        wait_for("the mirror", WITHIN, async || {
            given(&edge, "tide-1", 1).await
        })
        .await?;
        fleet.hub.stop_api_server();
        operator.service().kill();
        its_own_cluster_makes_it_ready(&operator, west).await?;
        for (nodes, node) in [(2, "n1"), (3, "n2")] {
            let own = if node == "n1" {
                json!([committed("digits", "digits-1"), committed("tide", "tide-1")])
            } else {
                json!([committed("tide", "tide-1")])
            };
            report(&edge, node, own).await?;
            wait_for("pacing without a hub", WITHIN, async || {
                given(&edge, "tide-1", nodes).await
            })
            .await?;
        }
        fleet.hub.start_api_server().await?;
        let back = fleet.hub.audit().mark()?;
        wait_for("the sums on the hub", WITHIN, async || {
            let status = hub.get_json(["clusterassignment", "west"]).await?;
            let models = status["status"]["models"].as_array();
            let tide = models.and_then(|it| it.iter().find(|it| it["name"] == "tide"));
            Ok(match tide {
                Some(tide) if tide["nodes"]["updated"] == 2 => Seen::Done(()),
                _ => Seen::NotYet(status["status"].to_string()),
            })
        })
        .await?;

        // An order to remove is one, and confirmed node by node.
        let models = [model("tide", "tide-1", "Remove")];
        apply_assignment(&hub, "west", &models).await?;
        wait_for("the order to remove", WITHIN, async || {
            let ordered = entries(&edge, "tide", "action").await?;
            Ok(if ordered == ["Remove", "Remove", "Remove"] {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{ordered:?}"))
            })
        })
        .await?;
        for node in NODES {
            report(&edge, node, json!([])).await?;
        }
        wait_for("the confirmation", WITHIN, async || {
            let status = hub.get_json(["clusterassignment", "west"]).await?;
            let left = status["status"]["models"].as_array().map_or(0, Vec::len);
            let current =
                status["status"]["observedGeneration"] == status["metadata"]["generation"];
            Ok(if left == 0 && current {
                Seen::Done(())
            } else {
                Seen::NotYet(status["status"].to_string())
            })
        })
        .await?;

        // Two replicas: the leader dies in the middle of a rollout.
        let second = replica("edge-west-2")?;
        leader::dies_in_an_edge_cluster(&hub, west, [&operator, &second], &NODES).await?;
        every_report_says_whose_it_is(&fleet.hub.audit(), back)?;

        // An assignment that vanishes orders nothing.
        apply_assignment(&hub, "west", &[model("digits", "digits-1", "Run")]).await?;
        wait_for("the entry again", WITHIN, async || {
            let mirror = edge.get_json(["clusterassignment", "west"]).await?;
            Ok(if mirror["spec"]["models"][0]["name"] == "digits" {
                Seen::Done(())
            } else {
                Seen::NotYet(mirror["spec"].to_string())
            })
        })
        .await?;
        hub.run(["delete", "clusterassignment", "west"]).await?;
        tokio::time::sleep(CALM).await;
        let mirror = edge.get_json(["clusterassignment", "west"]).await?;
        ensure!(mirror["spec"]["models"][0]["action"] == "Run", "{mirror}");
        Ok(())
    });
}

/// Starts a session whose own API server is away, and so is the hub's: it lives, and is ready once the own one is
/// back, whatever the hub does.
async fn its_own_cluster_makes_it_ready(operator: &Operator, west: &ControlPlane) -> Result<()> {
    west.stop_api_server();
    operator.service().resume()?;
    wait_for("the session to live", WITHIN, async || {
        let code = operator.probe("/healthz").await?;
        ensure!(operator.probe("/readyz").await? == 503, "ready too soon");
        Ok(if code == 200 {
            Seen::Done(())
        } else {
            Seen::NotYet(code.to_string())
        })
    })
    .await?;
    tokio::time::sleep(CALM).await;
    ensure!(
        operator.probe("/readyz").await? == 503,
        "ready without its cluster"
    );
    west.start_api_server().await?;
    operator.wait_until_ready(WITHIN).await
}

/// Else the hub would take the first words of another cluster under this name for those of this one.
fn every_report_says_whose_it_is(log: &Audit, mark: Mark) -> Result<()> {
    let writes = log.writes_since(mark, ACCOUNTS)?;
    let mut reports = writes
        .iter()
        .filter(|it| it.resource() == "clusterassignments" && it.code() < 300)
        .filter_map(|it| it.request_object.as_ref())
        .peekable();
    ensure!(reports.peek().is_some(), "no report in the audit log");
    for report in reports {
        ensure!(report["status"]["clusterUID"].is_string(), "{report}");
    }
    Ok(())
}

#[test]
fn a_cluster_that_is_its_own_hub_has_no_mirror_and_a_deadline_survives_a_restart() {
    story("edge-solo", async |story: &Story| {
        let fleet = Fleet::start("edge-solo", &[], Options::default()).await?;
        let hub = fleet.hub.kubectl()?;
        let account = add_cluster(story, "west", &fleet.hub, &[&fleet.hub]).await?;
        let mut slow = model("digits", "digits-1", "Run");
        slow["progressDeadlineSeconds"] = json!(24);
        apply_assignment(&hub, "west", &[slow]).await?;
        hub.apply(
            "{apiVersion: rimward.dev/v1alpha1, kind: EdgeNode, metadata: {name: n1}, spec: {}}",
        )
        .await?;
        let _beats = Beats::of(&hub, &["n1"]);
        let operator = Operator::edge(
            "edge-solo",
            story.scratch().path(),
            &fleet.hub.kubeconfig(),
            "west",
            account.kubeconfig(),
            &[
                "--resync-seconds=1",
                "--heartbeat-seconds=1",
                "--node-silence-seconds=600",
            ],
        )?;
        wait_for("the go-ahead", WITHIN, async || {
            given(&hub, "digits-1", 1).await
        })
        .await?;

        // The node never reports: its time is counted, and a session that is killed does not give it back.
        let used = async || -> Result<u64> {
            let object = hub.get_json(["clusterassignment", "west"]).await?;
            let text = object["metadata"]["annotations"]["rimward.dev/progress"].as_str();
            let ledger: Value = serde_json::from_str(text.unwrap_or("{}"))?;
            let used = &ledger["team/digits"]["usedSeconds"]["n1"];
            Ok(used.as_u64().unwrap_or(0))
        };
        let before = wait_for("time to be used up", WITHIN, async || {
            let used = used().await?;
            Ok(if used >= 9 {
                Seen::Done(used)
            } else {
                Seen::NotYet(used.to_string())
            })
        })
        .await?;
        operator.service().kill();
        operator.service().resume()?;
        wait_for("the count to go on", WITHIN, async || {
            let used = used().await?;
            Ok(match used.cmp(&before) {
                Ordering::Less => Seen::Never(format!("{before} s became {used}")),
                Ordering::Equal => Seen::NotYet(used.to_string()),
                Ordering::Greater => Seen::Done(()),
            })
        })
        .await?;
        wait_for("the deadline", WITHIN, async || {
            let object = hub.get_json(["clusterassignment", "west"]).await?;
            let verdict = &object["status"]["models"][0]["verdict"];
            // Time ran out, which condemns nothing.
            ensure!(verdict["phase"] != "Failed", "{verdict}");
            Ok(
                if verdict["phase"] == "TimedOut" && verdict["reason"] == "ProgressDeadlineExceeded"
                {
                    Seen::Done(())
                } else {
                    Seen::NotYet(verdict.to_string())
                },
            )
        })
        .await?;
        let object = hub.get_json(["clusterassignment", "west"]).await?;
        let annotations = &object["metadata"]["annotations"];
        ensure!(
            annotations["rimward.dev/hub-generation"].is_null(),
            "{annotations}"
        );
        ensure!(
            object["metadata"]["generation"] == 1,
            "its spec was written: {object}"
        );
        Ok(())
    });
}
