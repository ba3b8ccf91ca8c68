//! A real hub for simulated sites: control plane, registry with one package, the hub operator.
//!
//! Owns how it is set up, and the objects that most who use it need. Sites are [`super::Sites`]'.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use kube::Api;
use kube::api::{Patch, PatchParams};
use rimward_crds::ModelDeployment;
use serde_json::{Value, json};

use crate::command::Line;
use crate::control_plane::{ControlPlane, Options};
use crate::fleet::{Fleet, repository_root};
use crate::kubectl::Kubectl;
use crate::registry::{Kind, Registry};
use crate::rimward::{Operator, binary};
use crate::scratch::Scratch;
use crate::wait::{Seen, wait_for};

/// The namespace of people's objects.
pub const TEAM: &str = "team";
/// The Model that deployments run.
const MODEL: &str = "passthrough";
/// The machine may be busy with a build.
const WITHIN: Duration = Duration::from_secs(180);

/// A hub.
pub struct Hub {
    /// The hub operator.
    pub operator: Operator,
    /// kubectl as administrator.
    pub kubectl: Kubectl,
    /// The client of whoever applies objects here.
    pub client: kube::Client,
    /// Kubeconfig of the account that the operator runs as.
    pub account: PathBuf,
    /// Its control plane.
    pub plane: ControlPlane,
    /// The registry that its Model is in.
    pub registry: Registry,
    /// Where all of it lies; dropped last.
    pub scratch: Scratch,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub")
            .field("operator", &self.operator)
            .field("plane", &self.plane)
            .finish_non_exhaustive()
    }
}

impl Hub {
    /// Starts everything, and makes a Model that is resolved. `flags` are the operator's.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(name: &str, options: Options, flags: &[&str]) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let folder = scratch.path();
        let registry_folder = folder.join("registry");
        let ((plane, account), registry) = tokio::try_join!(
            Fleet::start_hub(folder, options),
            Registry::start(Kind::Referrers, &registry_folder),
        )?;
        let kubectl = plane.kubectl()?;
        kubectl.run(["create", "namespace", TEAM]).await?;
        let hosts = registry.plain_http_flags();
        let hosts = hosts.each_ref().map(String::as_str);
        let operator = Operator::hub(
            "hub-operator",
            &folder.join("hub-operator"),
            &account,
            &[&hosts[..], flags].concat(),
        )?;
        operator.wait_until_ready(WITHIN).await?;
        let image = format!("{}/models/{MODEL}:1.0.0", registry.host());
        let fixture = repository_root().join("wasm-models/fixtures").join(MODEL);
        package(&fixture, &image).await?;
        let client = plane.client().await?;
        let hub = Self {
            operator,
            kubectl,
            client,
            account,
            plane,
            registry,
            scratch,
        };
        let spec = json!({"family": "digits-raw", "version": "1.0.0", "image": image});
        hub.apply(&object("Model", MODEL, &spec)).await?;
        wait_for("the Model to be resolved", WITHIN, async || {
            let get = ["model", MODEL, "-n", TEAM];
            let status = hub.kubectl.get_json(get).await?["status"].clone();
            Ok(match status["digest"].as_str() {
                Some(_) => Seen::Done(()),
                None => Seen::NotYet(status.to_string()),
            })
        })
        .await?;
        Ok(hub)
    }

    /// Applies an object into the team's namespace.
    ///
    /// # Errors
    /// When the hub refuses it.
    pub async fn apply(&self, object: &Value) -> Result<()> {
        let line = self
            .kubectl
            .line(["apply", "--server-side", "-n", TEAM, "-f", "-"]);
        line.input(object.to_string()).run().await?;
        Ok(())
    }

    /// Applies a deployment as one request of this process. Another `release` is another revision; faults find it by
    /// that name. `more` are further fields of its spec.
    ///
    /// # Errors
    /// When the hub refuses it.
    pub async fn deploy(&self, name: &str, release: &str, more: &Value) -> Result<()> {
        let mut spec = json!({
            "modelRef": {"name": MODEL},
            "placement": {"clusterSelector": {}},
            "runtime": {"config": {"release": release}},
            "health": {"probationSeconds": 0},
        });
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        let api: Api<ModelDeployment> = Api::namespaced(self.client.clone(), TEAM);
        let params = PatchParams::apply("people").force();
        let patch = Patch::Apply(object("ModelDeployment", name, &spec));
        api.patch(name, &params, &patch)
            .await
            .with_context(|| format!("ModelDeployment {name}"))?;
        Ok(())
    }

    /// A deployment's status.
    ///
    /// # Errors
    /// When there is no such deployment.
    pub async fn status(&self, name: &str) -> Result<Value> {
        let get = ["modeldeployment", name, "-n", TEAM];
        Ok(self.kubectl.get_json(get).await?["status"].clone())
    }

    /// Waits until what a deployment asks for is promoted on so many clusters; gives the revision.
    ///
    /// # Errors
    /// When the time passes: quotes its status.
    pub async fn promoted(&self, name: &str, clusters: usize, within: Duration) -> Result<String> {
        let api: Api<ModelDeployment> = Api::namespaced(self.client.clone(), TEAM);
        let progress = format!("{clusters}/{clusters}");
        wait_for(&format!("{name} to be promoted"), within, async || {
            let object = api.get(name).await?;
            let generation = object.metadata.generation;
            let status = object.status.unwrap_or_default();
            let done = status.observed_generation == generation
                && status.progress.as_deref() == Some(&progress)
                && status.current_revision == status.update_revision;
            Ok(match status.current_revision.clone().filter(|_| done) {
                Some(revision) => Seen::Done(revision),
                None => Seen::NotYet(serde_json::to_string(&status)?),
            })
        })
        .await
    }
}

/// An object of Rimward's.
#[must_use]
pub fn object(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    })
}

async fn package(folder: &Path, image: &str) -> Result<()> {
    Line::new(&binary("kubectl-rimward")?)
        .args(["package", &folder.display().to_string(), "--push", image])
        .run()
        .await?;
    Ok(())
}
