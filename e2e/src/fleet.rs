//! A hub, some edge clusters and a registry, ready for Rimward: its kinds are served, its accounts exist.
//!
//! Owns the parts, not Rimward's processes: stories start those. One fleet may be shared by the stories of
//! a test binary; such stories keep to objects named after them, and stop nothing of it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use futures::future::try_join_all;
use tokio::sync::OnceCell;

use crate::control_plane::{ControlPlane, Options};
use crate::cosign::Cosign;
use crate::registry::{Kind, Registry};
use crate::scratch::Scratch;

/// The operator's own namespace, which its accounts are in.
pub const NAMESPACE: &str = "rimward-system";

/// The agents' namespace, which their account is in: their pods need a folder of the host, and nobody else's do.
pub const AGENTS_NAMESPACE: &str = "rimward-agents";

/// What every user name of Rimward's accounts begins with: how audit logs are filtered.
pub const ACCOUNTS: &str = "system:serviceaccount:rimward-";

/// The parts that a story runs Rimward on. Fields are dropped in this order; the folder goes last.
#[derive(Debug)]
pub struct Fleet {
    /// The hub cluster.
    pub hub: ControlPlane,
    /// Kubeconfig of the account that the hub operator runs as.
    pub hub_operator: PathBuf,
    /// The edge clusters.
    pub edges: Vec<Edge>,
    /// A registry with the referrers API.
    pub registry: Registry,
    /// cosign with the key pair that this fleet's devices trust.
    pub cosign: Cosign,
    /// Where all of it lies.
    pub scratch: Scratch,
}

/// One edge cluster.
#[derive(Debug)]
pub struct Edge {
    /// Its control plane, by the cluster's name.
    pub plane: ControlPlane,
    /// Kubeconfig of the account that its sync session runs as.
    pub operator: PathBuf,
    /// Kubeconfig of the account that its node agents run as.
    pub agent: PathBuf,
}

impl Fleet {
    /// Starts a hub, an edge cluster for each name, and a registry, at once.
    ///
    /// # Errors
    /// When any of them does not start.
    pub async fn start(name: &str, edges: &[&str], options: Options) -> Result<Self> {
        Self::start_with_registry(name, edges, options, None).await
    }

    /// The same with the registry at a port of its own, for a story whose manifests name it.
    ///
    /// # Errors
    /// When any of them does not start, or the port is in use.
    pub async fn start_with_registry(
        name: &str,
        edges: &[&str],
        options: Options,
        port: Option<u16>,
    ) -> Result<Self> {
        let scratch = Scratch::new(name)?;
        let folder = scratch.path();
        let (registry_folder, keys) = (folder.join("registry"), folder.join("keys"));
        let (hub, edges, registry, cosign) = tokio::try_join!(
            Self::start_hub(folder, options),
            try_join_all(
                edges
                    .iter()
                    .map(|edge| Self::start_edge(folder, edge, options))
            ),
            Registry::start_at(Kind::Referrers, &registry_folder, port),
            Cosign::generate(&keys),
        )?;
        let (hub, hub_operator) = hub;
        Ok(Self {
            hub,
            hub_operator,
            edges,
            registry,
            cosign,
            scratch,
        })
    }

    /// The fleet that the stories of this test binary share: a hub, `north` and `south`. Started by the
    /// first that asks, gone with the process.
    ///
    /// # Errors
    /// When it does not start; then for every story, with the same reason.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Result<Fleet, String>> = OnceCell::const_new();
        let start = || async {
            let fleet = Self::start("shared", &["north", "south"], Options::default()).await;
            fleet.map_err(|error| format!("{error:#}"))
        };
        SHARED
            .get_or_init(start)
            .await
            .as_ref()
            .map_err(|error| anyhow!("the shared fleet: {error}"))
    }

    /// Starts a hub alone, and makes the kubeconfig of its operator's account.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_hub(folder: &Path, options: Options) -> Result<(ControlPlane, PathBuf)> {
        let hub = ControlPlane::start("hub", folder, options).await?;
        install(
            &hub,
            &["operator/rbac/hub.yaml", "operator/rbac/actions.yaml"],
        )
        .await?;
        let operator = hub.account_kubeconfig(NAMESPACE, "rimward-hub").await?;
        Ok((hub, operator))
    }

    /// Starts an edge cluster alone, and makes the kubeconfigs of its accounts.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start_edge(folder: &Path, name: &str, options: Options) -> Result<Edge> {
        ensure!(
            name != "hub",
            "an edge cluster cannot be called hub: that folder is the hub's"
        );
        let plane = ControlPlane::start(name, folder, options).await?;
        // The rights that users get, not some of our own.
        let files = [
            "e2e/manifests/edge-namespaces.yaml",
            "operator/rbac/edge.yaml",
            "node-agent/rbac.yaml",
        ];
        install(&plane, &files).await?;
        let operator = plane.account_kubeconfig(NAMESPACE, "rimward-edge").await?;
        let agent = plane
            .account_kubeconfig(AGENTS_NAMESPACE, "rimward-agent")
            .await?;
        Ok(Edge {
            plane,
            operator,
            agent,
        })
    }

    /// One of its edge clusters.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn edge(&self, name: &str) -> Result<&Edge> {
        let mut edges = self.edges.iter();
        edges
            .find(|edge| edge.plane.name() == name)
            .with_context(|| format!("no edge cluster {name}"))
    }
}

/// Rimward's kinds and accounts, as an installation makes them. `files` are relative to the repository.
async fn install(plane: &ControlPlane, files: &[&str]) -> Result<()> {
    let root = repository_root();
    plane.apply_crds(&root.join("crds/yaml")).await?;
    for file in files {
        let file = root.join(file).display().to_string();
        plane
            .kubectl()?
            .run(["apply", "--server-side", "-f", &file])
            .await?;
    }
    Ok(())
}

/// The checkout that this was compiled in: examples and generated manifests are read from it.
#[must_use]
pub fn repository_root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
