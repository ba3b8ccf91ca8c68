//! What the hub's own stories share: a hub, a registry with packages, and clusters whose sessions the
//! story itself plays at the hub's contract (Lease and assignment status), so that the hub alone is told about.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use rimward_crds::{Action, ClusterAssignment};
use rimward_e2e::command::Line;
use rimward_e2e::control_plane::Options;
use rimward_e2e::fleet::{ACCOUNTS, repository_root};
use rimward_e2e::rimward::{Operator, binary};
use rimward_e2e::{Fleet, Kubectl, Registry, Seen, wait_for};
use serde_json::{Value, json};

pub(crate) const WITHIN: Duration = Duration::from_secs(120);
/// The namespace of people's objects.
pub(crate) const TEAM: &str = "team";
/// Several resyncs and renewals.
const CALM: Duration = Duration::from_secs(8);
/// How often a played session looks at its cluster.
const PLAYED_EVERY: Duration = Duration::from_millis(400);

/// A hub with a registry.
pub(crate) struct World {
    pub(crate) fleet: Parts,
    pub(crate) kubectl: Kubectl,
}

/// A fleet of one story, or the one that stories share.
pub(crate) enum Parts {
    Own(Box<Fleet>),
    Shared(&'static Fleet),
}

impl Deref for Parts {
    type Target = Fleet;

    fn deref(&self) -> &Fleet {
        match self {
            Self::Own(fleet) => fleet,
            Self::Shared(fleet) => fleet,
        }
    }
}

impl World {
    pub(crate) async fn start(name: &str) -> Result<Self> {
        let fleet = Fleet::start(name, &[], Options::default()).await?;
        Self::on(Parts::Own(Box::new(fleet))).await
    }

    pub(crate) async fn on(fleet: Parts) -> Result<Self> {
        let kubectl = fleet.hub.kubectl()?;
        kubectl.run(["create", "namespace", TEAM]).await?;
        Ok(Self { fleet, kubectl })
    }

    /// Starts a replica of the hub operator under its real account.
    pub(crate) async fn operator(&self, name: &str, folder: &Path) -> Result<Operator> {
        self.operator_for(name, folder, &[]).await
    }

    /// The same for further registries.
    pub(crate) async fn operator_for(
        &self,
        name: &str,
        folder: &Path,
        registries: &[&Registry],
    ) -> Result<Operator> {
        let registries = [&[&self.fleet.registry], registries].concat();
        let hosts = registries.iter().flat_map(|it| it.plain_http_flags());
        let hosts: Vec<String> = hosts.collect();
        let often = ["--resync-seconds=1", "--lease-seconds=3"];
        let more: Vec<&str> = often
            .into_iter()
            .chain(hosts.iter().map(String::as_str))
            .collect();
        let operator = Operator::hub(name, folder, &self.fleet.hub_operator, &more)?;
        operator.wait_until_ready(WITHIN).await?;
        Ok(operator)
    }

    /// Packages and pushes a folder of `wasm-models/fixtures`; returns the reference.
    pub(crate) async fn push(&self, fixture: &str, tag: &str) -> Result<String> {
        let reference = format!("{}/models/{fixture}:{tag}", self.fleet.registry.host());
        let folder = repository_root().join("wasm-models/fixtures").join(fixture);
        Line::new(&binary("kubectl-rimward")?)
            .args([
                "package",
                &folder.display().to_string(),
                "--push",
                &reference,
            ])
            .run()
            .await?;
        Ok(reference)
    }

    /// Applies objects into the team's namespace (cluster-scoped ones ignore it).
    pub(crate) async fn apply(&self, manifest: &str) -> Result<()> {
        self.kubectl
            .line(["apply", "--server-side", "-n", TEAM, "-f", "-"])
            .input(manifest)
            .run()
            .await?;
        Ok(())
    }

    /// An object of the team's namespace.
    pub(crate) async fn get(&self, kind: &str, name: &str) -> Result<Value> {
        self.kubectl.get_json([kind, name, "-n", TEAM]).await
    }

    /// The revision that a cluster is to run of a deployment, if any.
    pub(crate) async fn running(&self, cluster: &str, name: &str) -> Result<Option<String>> {
        let assignment = self.get("clusterassignment", cluster).await?;
        let models = assignment["spec"]["models"].as_array();
        let model = models
            .into_iter()
            .flatten()
            .find(|model| model["name"] == name && model["action"] == "Run");
        Ok(model.and_then(|model| model["revision"].as_str().map(str::to_owned)))
    }

    /// With nothing to do, Rimward's accounts send no write at all, Leases aside.
    pub(crate) async fn steady(&self) -> Result<()> {
        tokio::time::sleep(CALM / 2).await;
        let mark = self.fleet.hub.audit().mark()?;
        tokio::time::sleep(CALM).await;
        let writes = self.fleet.hub.audit().writes_since(mark, ACCOUNTS)?;
        let words: Vec<String> = writes.iter().map(ToString::to_string).collect();
        ensure!(writes.is_empty(), "{words:?}");
        Ok(())
    }

    /// Waits for a condition of an object; returns its message.
    pub(crate) async fn condition(
        &self,
        object: (&str, &str),
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Result<String> {
        let (kind, name) = object;
        let what = format!("{kind} {name} to be {type_}={status} {reason}");
        wait_for(&what, WITHIN, async || {
            let object = self.get(kind, name).await?;
            let conditions = object["status"]["conditions"].clone();
            let found = conditions
                .as_array()
                .into_iter()
                .flatten()
                .find(|condition| condition["type"] == type_);
            Ok(match found {
                Some(found)
                    if found["status"] == status
                        && found["reason"] == reason
                        && found["observedGeneration"] == object["metadata"]["generation"] =>
                {
                    Seen::Done(found["message"].as_str().unwrap_or_default().to_owned())
                }
                _ => Seen::NotYet(object["status"].to_string()),
            })
        })
        .await
    }
}

pub(crate) fn model(name: &str, family: &str, image: &str) -> String {
    format!(
        "{{apiVersion: rimward.dev/v1alpha1, kind: Model, metadata: {{name: {name}}},
           spec: {{family: {family}, version: 1.0.0, image: '{image}'}}}}"
    )
}

pub(crate) fn deployment(name: &str, model: &str, more: &str) -> String {
    format!(
        "{{apiVersion: rimward.dev/v1alpha1, kind: ModelDeployment, metadata: {{name: {name}}},
           spec: {{modelRef: {{name: {model}}}, {more}}}}}"
    )
}

pub(crate) fn cluster(name: &str, ring: &str) -> String {
    format!(
        "{{apiVersion: rimward.dev/v1alpha1, kind: EdgeCluster, metadata: {{name: {name}, labels: {{ring: {ring}}}}},
           spec: {{connection: {{mode: Pull}}}}}}"
    )
}

/// The sessions of all clusters, played: every entry is carried out at once, but revisions in `rejects`.
pub(crate) struct Sessions {
    rejects: Arc<Mutex<BTreeSet<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Sessions {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sessions {
    /// Plays for these clusters, whose heartbeat Leases it makes.
    pub(crate) async fn play(world: &World, clusters: &[&str]) -> Result<Self> {
        for name in clusters {
            world
                .kubectl
                .apply(&format!(
                    "{{apiVersion: coordination.k8s.io/v1, kind: Lease,
                       metadata: {{name: {name}, namespace: rimward-clusters}}, spec: {{}}}}"
                ))
                .await?;
        }
        let client = world.fleet.hub.client().await?;
        let rejects = Arc::new(Mutex::new(BTreeSet::new()));
        let names: Vec<String> = clusters.iter().map(|name| (*name).to_owned()).collect();
        let shared = rejects.clone();
        let task = tokio::spawn(async move {
            loop {
                let rejected = shared
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .clone();
                for name in &names {
                    // The hub's API server may be away for a moment.
                    let _ = beat(&client, name).await;
                }
                let _ = report(&client, &names, &rejected).await;
                tokio::time::sleep(PLAYED_EVERY).await;
            }
        });
        Ok(Self { rejects, task })
    }

    /// From now on nodes reject this revision.
    pub(crate) fn reject(&self, revision: &str) {
        let mut rejects = self.rejects.lock().unwrap_or_else(PoisonError::into_inner);
        rejects.insert(revision.to_owned());
    }
}

async fn beat(client: &Client, name: &str) -> Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "rimward-clusters");
    let now = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(Timestamp::now());
    let patch = json!({"spec": {"holderIdentity": "played", "renewTime": now}});
    leases
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await?;
    Ok(())
}

async fn report(client: &Client, names: &[String], rejected: &BTreeSet<String>) -> Result<()> {
    let api: Api<ClusterAssignment> = Api::all(client.clone());
    for assignment in api.list(&ListParams::default()).await? {
        let name = assignment.name_any();
        if !names.contains(&name) {
            continue;
        }
        let models: Vec<Value> = assignment
            .spec
            .models
            .iter()
            .filter(|entry| entry.action == Action::Run)
            .map(|entry| {
                let key = json!({"namespace": entry.namespace, "name": entry.name,
                                 "revision": entry.revision});
                let mut model = key;
                if rejected.contains(&entry.revision) {
                    model["nodes"] = json!({"desired": 1, "ready": 1, "rolledBack": 1});
                    model["verdict"] = json!({"phase": "Failed", "reason": "GoldenVectorMismatch"});
                    model["problems"] = json!([{"node": "n1", "reason": "GoldenVectorMismatch",
                                                "message": "golden vector 3: expected 7, got 1"}]);
                } else {
                    model["nodes"] = json!({"desired": 1, "updated": 1, "ready": 1});
                    model["verdict"] = json!({"phase": "Passed"});
                }
                model
            })
            .collect();
        let status = json!({
            "apiVersion": "rimward.dev/v1alpha1", "kind": "ClusterAssignment",
            "metadata": {"name": name},
            "status": {
                "observedGeneration": assignment.metadata.generation,
                "clusterUID": format!("uid-of-{name}"),
                "models": models,
            },
        });
        // An apply that changes nothing writes nothing.
        let params = PatchParams::apply("played-session").force();
        api.patch_status(&name, &params, &Patch::Apply(status))
            .await
            .with_context(|| format!("status of {name}"))?;
    }
    Ok(())
}
