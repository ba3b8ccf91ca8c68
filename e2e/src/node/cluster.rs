//! A control plane with real nodes.
//!
//! Owns the order in which they start and end.

use std::path::Path;

use anyhow::{Context, Result};
use futures::future::try_join_all;

use super::{Network, Node, Options, config};
use crate::control_plane::{self, ControlPlane};
use crate::service::{Recipe, Service};
use crate::tools::Tool;

/// A cluster that runs pods. Dropping it ends it all; its folder is the caller's.
#[derive(Debug)]
pub struct Cluster {
    /// Its nodes, in order of their names `NAME-1`, `NAME-2` and so on.
    pub nodes: Vec<Node>,
    /// Names of Services.
    _dns: Service,
    /// Its control plane, which runs on this machine.
    pub plane: ControlPlane,
    /// What they are plugged into. It was there before them: a registry may listen in it.
    pub network: Network,
}

impl Cluster {
    /// Starts a cluster of that many nodes in a network, and waits until all are Ready.
    ///
    /// # Errors
    /// When this process is not root, or a part does not start.
    pub async fn start(
        name: &str,
        folder: &Path,
        network: Network,
        nodes: u8,
        options: Options,
    ) -> Result<Self> {
        let plane_options = control_plane::Options {
            pods_at: Some(network.address()),
            ..control_plane::Options::default()
        };
        let plane = ControlPlane::start(name, folder, plane_options).await?;
        let admin = plane.pod_side_kubeconfig("dns", "system:dns", &["system:masters"])?;
        let path = plane.folder().join("Corefile");
        std::fs::write(&path, config::dns(network.address(), &admin))
            .with_context(|| format!("writing {}", path.display()))?;
        let dns = Service::start(Recipe {
            name: "coredns".to_owned(),
            program: Tool::Coredns.path()?,
            arguments: vec!["-conf".to_owned(), path.display().to_string()],
            environment: Vec::new(),
            folder: plane.folder().to_path_buf(),
        })?;
        let options = Options {
            dns: true,
            ..options
        };
        let starting = (0..nodes).map(|index| Node::start(&plane, &network, index, &options));
        Ok(Self {
            nodes: try_join_all(starting).await?,
            _dns: dns,
            plane,
            network,
        })
    }
}
