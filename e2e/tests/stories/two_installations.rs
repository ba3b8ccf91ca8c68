//! Two installations in one cluster, in namespaces of their own: one plans, the other stands by and says whose lead it
//! is; told of the hub, and of an edge cluster. So does one of the version before, which led by a Lease elsewhere.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::control_plane::Options;
use rimward_e2e::fleet::repository_root;
use rimward_e2e::rimward::Operator;
use rimward_e2e::{ControlPlane, Fleet, Kubectl, Seen, Story, story, wait_for};

use crate::edge_world::add_cluster;
use crate::leader::{self, EDGE, HUB, leads};

const WITHIN: Duration = Duration::from_secs(120);
/// Longer than the leader's Lease lasts.
const CALM: Duration = Duration::from_secs(8);
const OTHER: &str = "rimward-b";

#[test]
fn of_two_hubs_in_one_cluster_one_plans_and_the_other_says_who() {
    story("two-hubs", async |story: &Story| {
        let folder = story.scratch().path();
        let (plane, account) = Fleet::start_hub(folder, Options::default()).await?;
        let kubectl = plane.kubectl()?;
        let hub = |name: &str, account: &Path, namespace: &str| {
            let namespace = format!("--namespace={namespace}");
            Operator::hub(name, folder, account, &["--lease-seconds=3", &namespace])
        };
        let first = hub("first", &account, "rimward-system")?;
        wait_for("the first to lead", WITHIN, async || {
            leads(&kubectl, HUB, "first").await
        })
        .await?;
        let account = install_again(&plane, "operator/rbac/hub.yaml", "rimward-hub").await?;
        let mark = plane.audit().mark()?;
        let second = hub("second", &account, OTHER)?;
        stands_by(&second, "rimward-system").await?;
        tokio::time::sleep(CALM).await;
        ensure!(leader::holder(&kubectl, HUB).await? == "first");
        let writes = plane.audit().since(mark)?.into_iter();
        let its = format!("system:serviceaccount:{OTHER}:");
        let mut writes = writes.filter(|it| it.is_write() && it.user.username.starts_with(&its));
        ensure!(writes.next().is_none(), "the second writes");
        takes_over(&kubectl, HUB, (&first, &second)).await?;
        one_of_the_version_before_leads(&kubectl, &plane, &second).await
    });
}

/// The guard of the namespace that the second is installed in is held by an operator of the version before, which knows
/// no other Lease: nobody leads beside it.
async fn one_of_the_version_before_leads(
    kubectl: &Kubectl,
    plane: &ControlPlane,
    operator: &Operator,
) -> Result<()> {
    operator.service().stop(Duration::from_secs(30));
    let held = |by: &str| {
        format!(
            "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: rimward-hub, namespace: {OTHER}}}, \
              spec: {{holderIdentity: '{by}', leaseDurationSeconds: 3600}}}}"
        )
    };
    force(kubectl, held("of-the-version-before")).await?;
    let mark = plane.audit().mark()?;
    operator.service().resume()?;
    operator.wait_until_ready(WITHIN).await?;
    wait_for("it to wait for the other", WITHIN, async || {
        leads(kubectl, HUB, "second").await
    })
    .await?;
    tokio::time::sleep(CALM).await;
    let metrics = operator.metrics().await?;
    ensure!(metrics.contains("rimward_leader 0"), "two versions lead");
    let (_, words) = operator.says("/readyz").await?;
    ensure!(
        words.contains("of-the-version-before leads by Lease rimward-b/rimward-hub"),
        "{words}"
    );
    ensure!(
        plane
            .audit()
            .writes_since(mark, "system:serviceaccount:")?
            .is_empty()
    );
    force(kubectl, held("")).await?;
    wait_for("it to lead", WITHIN, async || {
        let metrics = operator.metrics().await?;
        Ok(if metrics.contains("rimward_leader 1") {
            Seen::Done(())
        } else {
            Seen::NotYet("it stands by".to_owned())
        })
    })
    .await
}

#[test]
fn of_two_edge_operators_in_one_cluster_one_orders_and_the_other_says_who() {
    story("two-edges", async |story: &Story| {
        let folder = story.scratch().path();
        let fleet = Fleet::start("two-edges-fleet", &["west"], Options::default()).await?;
        let edge = fleet.edge("west")?;
        let kubectl = edge.plane.kubectl()?;
        let hub = add_cluster(story, "west", &fleet.hub, &[&edge.plane]).await?;
        let operator = |name: &str, account: &Path, namespace: &str| {
            let namespace = format!("--namespace={namespace}");
            let more = ["--lease-seconds=3", "--heartbeat-seconds=1", &namespace];
            Operator::edge(name, folder, account, "west", hub.kubeconfig(), &more)
        };
        let first = operator("first", &edge.operator, "rimward-system")?;
        wait_for("the first to lead", WITHIN, async || {
            leads(&kubectl, EDGE, "first").await
        })
        .await?;
        let account = install_again(&edge.plane, "operator/rbac/edge.yaml", "rimward-edge").await?;
        let second = operator("second", &account, OTHER)?;
        stands_by(&second, "rimward-system").await?;
        tokio::time::sleep(CALM).await;
        ensure!(leader::holder(&kubectl, EDGE).await? == "first");
        takes_over(&kubectl, EDGE, (&first, &second)).await
    });
}

/// The rights of a second installation, as another release of the chart has them; gives its account's kubeconfig.
async fn install_again(plane: &ControlPlane, file: &str, account: &str) -> Result<PathBuf> {
    let text = std::fs::read_to_string(repository_root().join(file))?;
    let name = format!("{OTHER}-{account}");
    let text = text
        .replace("rimward-system", OTHER)
        .replace(&format!("name: {account}\n"), &format!("name: {name}\n"));
    plane.ensure_namespace(OTHER).await?;
    force(&plane.kubectl()?, text).await?;
    plane.account_kubeconfig(OTHER, &name).await
}

async fn force(kubectl: &Kubectl, manifest: String) -> Result<()> {
    let line = kubectl.line(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
    line.input(manifest).run().await?;
    Ok(())
}

/// It is ready, as `helm --wait` wants it, and says in its log and at /readyz whose lead it is.
async fn stands_by(operator: &Operator, installation: &str) -> Result<()> {
    operator.wait_until_ready(WITHIN).await?;
    let says = format!("first of the installation in namespace {installation} leads");
    wait_for("it to say who leads", WITHIN, async || {
        let (code, words) = operator.says("/readyz").await?;
        Ok(if code == 200 && words.contains(&says) {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{code} {words}"))
        })
    })
    .await?;
    let log = std::fs::read_to_string(operator.service().log())?;
    let lines = log.lines().filter(|line| line.contains(&says)).count();
    ensure!(lines == 1, "{lines} lines");
    let metrics = operator.metrics().await?;
    ensure!(metrics.contains("rimward_leader 0"), "both lead");
    Ok(())
}

/// The one that leads is asked to stop: the other leads before its Lease could have run out.
async fn takes_over(
    kubectl: &Kubectl,
    lease: leader::Lease,
    (first, second): (&Operator, &Operator),
) -> Result<()> {
    let began = Instant::now();
    let status = first.service().stop(Duration::from_secs(30));
    let status = status.context("it ran")?;
    ensure!(status.success(), "{status}");
    let stopped = began.elapsed();
    wait_for("the second to lead", WITHIN, async || {
        leads(kubectl, lease, second.service().name()).await
    })
    .await?;
    println!(
        "stopped after {stopped:?}, the next leads {:?} after SIGTERM",
        began.elapsed()
    );
    ensure!(stopped < Duration::from_secs(25), "{stopped:?}");
    Ok(())
}
