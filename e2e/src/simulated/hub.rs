//! A real hub for simulated sites: control plane, registry with one package, the hub operator.
//!
//! Owns how it is set up, and the objects that most who use it need. Sites are [`super::Sites`]'.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use kube::Api;
use kube::api::{Patch, PatchParams};
use rimward_crds::ModelDeployment;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

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
/// A hub that leads soon, and by which silence begins after 10 s: sites beat every second.
pub const QUICK: &[&str] = &[
    "--lease-seconds=3",
    "--offline-grace-seconds=10",
    "--heartbeat-seconds=1",
];
/// The machine may be busy with a build.
const WITHIN: Duration = Duration::from_secs(180);

/// What a hub consists of. Fields are dropped in this order.
#[derive(Debug)]
pub struct Parts {
    /// The hub operator.
    pub operator: Operator,
    /// Kubeconfig of the account that the operator runs as.
    pub account: PathBuf,
    /// Its control plane.
    pub plane: ControlPlane,
    /// The registry that its Model is in.
    pub registry: Registry,
    /// Where all of it lies.
    pub scratch: Scratch,
}

/// A hub, as whoever applies objects to it sees it.
pub struct Hub {
    /// kubectl as administrator.
    pub kubectl: Kubectl,
    /// A client as administrator, of this story's runtime.
    pub client: kube::Client,
    parts: Own,
}

/// Of one story, or shared by the stories of a test binary.
enum Own {
    Whole(Box<Parts>),
    Shared(&'static Parts),
}

impl Deref for Hub {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        match &self.parts {
            Own::Whole(parts) => parts,
            Own::Shared(parts) => parts,
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hub({:?})", self.plane)
    }
}

impl Hub {
    /// Starts everything, and makes a Model that is resolved. `flags` are the operator's.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(name: &str, options: Options, flags: &[&str]) -> Result<Self> {
        let parts = Parts::start(name, options, flags).await?;
        Self::on(Own::Whole(Box::new(parts))).await
    }

    /// The hub that the stories of this test binary share: a cluster that is silent for 10 s is silent. Its stories
    /// keep to sites and deployments of their own, and stop nothing of it.
    ///
    /// # Errors
    /// When it does not start; then for every story, with the same reason.
    pub async fn shared() -> Result<Self> {
        static SHARED: OnceCell<Result<Parts, String>> = OnceCell::const_new();
        let start = || async {
            let parts = Parts::start("shared-hub", Options::default(), QUICK).await;
            parts.map_err(|error| format!("{error:#}"))
        };
        let parts = SHARED.get_or_init(start).await.as_ref();
        let parts = parts.map_err(|error| anyhow!("the shared hub: {error}"))?;
        Self::on(Own::Shared(parts)).await
    }

    async fn on(parts: Own) -> Result<Self> {
        let plane = match &parts {
            Own::Whole(parts) => &parts.plane,
            Own::Shared(parts) => &parts.plane,
        };
        let (kubectl, client) = (plane.kubectl()?, plane.client().await?);
        Ok(Self {
            kubectl,
            client,
            parts,
        })
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

impl Parts {
    async fn start(name: &str, options: Options, flags: &[&str]) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let folder = scratch.path();
        let registry_folder = folder.join("registry");
        let ((plane, account), registry) = tokio::try_join!(
            Fleet::start_hub(folder, options),
            Registry::start(Kind::Referrers, &registry_folder),
        )?;
        plane.ensure_namespace(TEAM).await?;
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
        let spec = json!({"family": "digits-raw", "version": "1.0.0", "image": image});
        let kubectl = plane.kubectl()?;
        let apply = kubectl.line(["apply", "--server-side", "-n", TEAM, "-f", "-"]);
        let model = object("Model", MODEL, &spec).to_string();
        apply.input(model).run().await?;
        wait_for("the Model to be resolved", WITHIN, async || {
            let get = ["model", MODEL, "-n", TEAM];
            let status = kubectl.get_json(get).await?["status"].clone();
            Ok(match status["digest"].as_str() {
                Some(_) => Seen::Done(()),
                None => Seen::NotYet(status.to_string()),
            })
        })
        .await?;
        Ok(Self {
            operator,
            account,
            plane,
            registry,
            scratch,
        })
    }
}

async fn package(folder: &Path, image: &str) -> Result<()> {
    Line::new(&binary("kubectl-rimward")?)
        .args(["package", &folder.display().to_string(), "--push", image])
        .run()
        .await?;
    Ok(())
}
