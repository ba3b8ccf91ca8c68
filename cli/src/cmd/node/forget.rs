//! `kubectl rimward node forget NODE`: a node that is gone for good and took no Node object with it.
//!
//! Owns that a living node is not forgotten: its Lease is watched first, and is deleted only as it was seen. No clock of
//! another machine is looked at, only whether the Lease changes.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, Preconditions};
use kube::{Api, ResourceExt};
use rimward_crds::EdgeNode;

use crate::connect::{ConnectArgs, words};
use crate::fetch;
use crate::output;

/// Where agents renew their Leases.
const LEASE_NAMESPACE: &str = "rimward-nodes";

/// A Lease says how long it is good for; agents renew it four times in that time.
const RENEWALS_PER_DURATION: u32 = 4;

/// What a Lease is good for that does not say, in seconds: the agent's default.
const DURATION_SECONDS_DEFAULT: u32 = 40;

/// The longest that is believed, in seconds: an agent's renewals may be set an hour apart at most.
const DURATION_SECONDS_MAX: u32 = 14_400;

/// A renewal may be late by so much.
const LATE_SECONDS: u32 = 5;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);

/// What `node forget` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of the node.
    node: String,
    /// The edge cluster's own kubeconfig and context.
    #[command(flatten)]
    connect: ConnectArgs,
    /// Do not look whether the node's agent still renews its Lease.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = args.connect.client().await?;
    let nodes: Api<EdgeNode> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client, LEASE_NAMESPACE);
    let name = args.node.as_str();
    let node = fetch::get(&nodes, name).await?;
    let lease = read(&leases, name).await?;
    if !args.force {
        let patience = patience(lease.as_ref());
        eprintln!(
            "Looking for {} s whether the agent of {name} still renews its Lease.",
            patience.as_secs()
        );
        if renewed(&leases, name, lease.as_ref(), patience).await? {
            return Err(alive(name));
        }
    }
    // The Lease first, and only as it was watched: a node that comes back at the last moment is found out by the
    // conflict, and a command that dies in between can be given again.
    if let Some(lease) = &lease {
        let deleted = leases.delete(name, &as_seen(lease, args.force)).await;
        if matches!(&deleted, Err(kube::Error::Api(status)) if status.code == 409) {
            return Err(alive(name));
        }
        gone(deleted).with_context(|| format!("deleting Lease {LEASE_NAMESPACE}/{name}"))?;
    }
    let about = || format!("deleting EdgeNode {name}");
    gone(nodes.delete(name, &as_seen(&node, true)).await).with_context(about)?;
    output::write(&format!("edgenode.rimward.dev/{name} forgotten\n"))?;
    Ok(ExitCode::SUCCESS)
}

fn alive(name: &str) -> anyhow::Error {
    anyhow!(
        "node {name} is alive: its agent renews its Lease; stop the agent first, or give --force"
    )
}

/// How long to look: one renewal, and what it may be late.
fn patience(lease: Option<&Lease>) -> Duration {
    let said = lease
        .and_then(|lease| lease.spec.as_ref())
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u32::try_from(seconds).ok())
        .filter(|seconds| *seconds > 0)
        .unwrap_or(DURATION_SECONDS_DEFAULT)
        .min(DURATION_SECONDS_MAX);
    let seconds = said.div_ceil(RENEWALS_PER_DURATION) + LATE_SECONDS;
    Duration::from_secs(seconds.into())
}

/// Whether the Lease turns into another than the one that was seen. The last look is the one that counts: a connection
/// that hangs is no proof of death.
async fn renewed(
    leases: &Api<Lease>,
    name: &str,
    seen: Option<&Lease>,
    patience: Duration,
) -> anyhow::Result<bool> {
    let version = |lease: Option<&Lease>| lease.and_then(ResourceExt::resource_version);
    let ends = Instant::now() + patience;
    loop {
        let last = Instant::now() >= ends;
        let now = read(leases, name).await?;
        // That it is gone says nothing: an agent that lives makes it anew.
        if now.is_some() && version(now.as_ref()) != version(seen) {
            return Ok(true);
        }
        if last {
            return Ok(false);
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn read(leases: &Api<Lease>, name: &str) -> anyhow::Result<Option<Lease>> {
    let lease = leases.get_opt(name).await.map_err(words);
    lease.with_context(|| format!("Lease {LEASE_NAMESPACE}/{name}"))
}

/// Deletes this very object; `any_version` or only as it was seen.
fn as_seen<K: kube::Resource>(object: &K, any_version: bool) -> DeleteParams {
    DeleteParams {
        preconditions: Some(Preconditions {
            uid: object.uid(),
            resource_version: object.resource_version().filter(|_| !any_version),
        }),
        ..DeleteParams::default()
    }
}

/// What somebody else deleted is gone as well.
fn gone<T>(deleted: Result<T, kube::Error>) -> anyhow::Result<()> {
    match deleted {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(words(error)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(duration: Option<i32>, seconds: u64) {
        let lease: Lease = serde_json::from_value(json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "spec": {"leaseDurationSeconds": duration},
        }))
        .unwrap();
        assert_eq!(patience(Some(&lease)), Duration::from_secs(seconds));
    }

    #[test]
    fn a_lease_is_watched_a_little_longer_than_its_renewals_are_apart() {
        check(Some(40), 15);
        check(Some(5), 7);
        check(None, 15);
        assert_eq!(patience(None), Duration::from_secs(15));
        // What a Lease says is somebody else's word.
        check(Some(-1), 15);
        check(Some(i32::MAX), 3_605);
    }

    #[test]
    fn a_lease_is_deleted_only_as_it_was_watched_and_a_node_under_its_own_uid() {
        let node: EdgeNode = serde_json::from_value(json!({
            "apiVersion": "rimward.dev/v1alpha1", "kind": "EdgeNode",
            "metadata": {"name": "n1", "uid": "u1", "resourceVersion": "7"}, "spec": {},
        }))
        .unwrap();
        let version = |params: DeleteParams| {
            let conditions = params.preconditions.unwrap();
            assert_eq!(conditions.uid.as_deref(), Some("u1"));
            conditions.resource_version
        };
        assert_eq!(version(as_seen(&node, false)).as_deref(), Some("7"));
        assert_eq!(version(as_seen(&node, true)), None);
    }
}
