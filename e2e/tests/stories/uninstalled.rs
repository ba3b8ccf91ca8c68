//! What people do around an installation: the team's namespace is deleted with deployments in it; the operator is
//! uninstalled with a rollout going on, and its namespace deleted; it is installed again. Sites keep what they serve,
//! and what was under way goes on from where it was. What is played is the sites; the hub is real.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::audit::Level;
use rimward_e2e::control_plane::Options;
use rimward_e2e::fleet::{NAMESPACE, repository_root};
use rimward_e2e::rimward::Operator;
use rimward_e2e::simulated::{Hub, Plan, QUICK, Sites, TEAM, Timing, object};
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::json;

use crate::leader::{each_ordered_once, orders};

const WITHIN: Duration = Duration::from_secs(120);
/// Several resyncs and renewals.
const CALM: Duration = Duration::from_secs(8);
const SITES: usize = 4;
const OTHER: &str = "other-team";

#[test]
fn what_happens_to_namespaces_and_to_the_installation_loses_nothing() {
    story("uninstalled", async |story: &Story| {
        let options = Options {
            audit: Level::Request,
            ..Options::default()
        };
        let hub = Hub::start("uninstalled-hub", options, QUICK).await?;
        let plan = Plan {
            sites: SITES,
            timing: Timing {
                heartbeat: Duration::from_secs(1),
                retry_max: Duration::from_secs(1),
                staging: Duration::from_millis(300),
                trial: Duration::from_millis(300),
                ..Timing::default()
            },
            ..Plan::default()
        };
        let sites = Sites::start(&hub.plane, &plan).await?;
        sites.wait_until_joined(WITHIN).await?;
        let stages =
            json!({"stages": [{"name": "all", "clusters": {"percent": 100}, "maxConcurrency": 1}]});
        hub.apply(&object("RolloutPolicy", "slow", &stages)).await?;
        let policy = json!({"rolloutPolicyRef": {"name": "slow"}});
        hub.deploy("digits", "first", &policy).await?;
        let first = hub.promoted("digits", SITES, WITHIN).await?;

        let mark = hub.plane.audit().mark()?;
        hub.deploy("digits", "second", &policy).await?;
        wait_for("the first order", WITHIN, async || {
            let given = orders(&hub.plane.audit(), mark, "clusterassignments")?.len();
            Ok(if given == 0 {
                Seen::NotYet("none".to_owned())
            } else {
                Seen::Done(())
            })
        })
        .await?;
        uninstall(&hub).await?;
        tokio::time::sleep(CALM).await;
        let given = orders(&hub.plane.audit(), mark, "clusterassignments")?.len();
        ensure!(given < SITES, "the rollout was over before");
        // Each site serves one of the two, whole.
        let mut new = 0;
        for site in 0..SITES {
            let serves = sites
                .serves(site, TEAM, "digits")?
                .context("a site serves nothing")?;
            new += usize::from(serves != first);
        }
        ensure!(new == given, "{given} ordered, {new} serve it");

        let operator = install(&hub, story.scratch().path().join("again")).await?;
        let second = hub.promoted("digits", SITES, WITHIN).await?;
        each_ordered_once(&hub.plane.audit(), mark, SITES, &second)?;

        the_teams_namespace(&hub, &sites, &second).await?;
        operator.service().check_running()
    });
}

/// `helm uninstall`, and its namespace after it: the process, its rights and its account are gone.
async fn uninstall(hub: &Hub) -> Result<()> {
    hub.operator.service().stop(Duration::from_secs(30));
    let kubectl = &hub.kubectl;
    for (kind, name) in [
        ("clusterrolebinding", "rimward-hub"),
        ("clusterrole", "rimward-hub"),
    ] {
        kubectl.run(["delete", kind, name]).await?;
    }
    kubectl
        .run(["delete", "namespace", NAMESPACE, "--timeout=60s"])
        .await?;
    Ok(())
}

async fn install(hub: &Hub, folder: PathBuf) -> Result<Operator> {
    let file = repository_root()
        .join("operator/rbac/hub.yaml")
        .display()
        .to_string();
    hub.kubectl
        .run(["apply", "--server-side", "-f", &file])
        .await?;
    let account = hub
        .plane
        .account_kubeconfig(NAMESPACE, "rimward-hub")
        .await?;
    let hosts = hub.registry.plain_http_flags();
    let hosts = hosts.each_ref().map(String::as_str);
    let operator = Operator::hub("again", &folder, &account, &[QUICK, &hosts[..]].concat())?;
    operator.wait_until_ready(WITHIN).await?;
    Ok(operator)
}

/// A namespace goes with all that is in it: its models go from the sites, and nothing holds it up; another team's
/// models serve on.
async fn the_teams_namespace(hub: &Hub, sites: &Sites, revision: &str) -> Result<()> {
    let kubectl = &hub.kubectl;
    kubectl.run(["create", "namespace", OTHER]).await?;
    for kind in ["model", "modeldeployment", "rolloutpolicy"] {
        let list = kubectl.get_json([kind, "-n", TEAM]).await?;
        for item in list["items"].as_array().context("a list")? {
            let copy = json!({
                "apiVersion": item["apiVersion"], "kind": item["kind"], "spec": item["spec"],
                "metadata": {"name": item["metadata"]["name"], "namespace": OTHER},
            });
            let mut copy = copy;
            if item["kind"] == "ModelDeployment" {
                copy["spec"]["endpointName"] = json!("others");
            }
            kubectl.apply(&copy.to_string()).await?;
        }
    }
    let action = json!({"deploymentName": "digits", "action": "Undo", "by": "admin", "revision": "none-such"});
    hub.apply(&object("RolloutAction", "asked", &action))
        .await?;
    served(sites, OTHER, true).await?;

    kubectl
        .run(["delete", "namespace", TEAM, "--timeout=60s"])
        .await?;
    served(sites, TEAM, false).await?;
    wait_for("the entries to go", WITHIN, async || {
        let list = kubectl.get_json(["clusterassignments"]).await?;
        let text = list["items"].to_string();
        Ok(if text.contains(revision) && text.contains("\"team\"") {
            Seen::NotYet(text)
        } else {
            Seen::Done(())
        })
    })
    .await?;
    for site in 0..SITES {
        ensure!(
            sites.serves(site, OTHER, "digits")?.is_some(),
            "site {site}"
        );
    }
    for kind in [
        "modelrevisions",
        "rolloutactions",
        "modeldeployments",
        "models",
    ] {
        let list = kubectl.get_json([kind, "-A"]).await?;
        let left = list["items"].as_array().into_iter().flatten();
        let left = left
            .filter(|it| it["metadata"]["namespace"] != OTHER)
            .count();
        ensure!(left == 0, "{left} {kind} are left");
    }
    Ok(())
}

async fn served(sites: &Sites, namespace: &str, is: bool) -> Result<()> {
    wait_for(
        &format!("{namespace}'s model, served: {is}"),
        WITHIN,
        async || {
            for site in 0..SITES {
                let serves = sites.serves(site, namespace, "digits")?;
                if serves.is_some() != is {
                    return Ok(Seen::NotYet(format!("site {site}: {serves:?}")));
                }
            }
            Ok(Seen::Done(()))
        },
    )
    .await
}
