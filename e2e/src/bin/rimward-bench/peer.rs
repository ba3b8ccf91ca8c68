//! cert-manager's controller as it is at rest: on an API server of its own, with a few objects that are done.
//!
//! Owns starting it and giving it something to watch. It runs as a process, by a certificate that may do everything: what
//! it asks for is counted, not what it may.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rimward_e2e::ControlPlane;
use rimward_e2e::control_plane::Options;
use rimward_e2e::service::{Recipe, Service};
use rimward_e2e::tools::Tool;
use serde_json::{Value, json};

use crate::processes::{Memory, memory};

/// Its certificates: as many as Rimward's side has of deployments, sites and nodes together.
pub(crate) const OBJECTS: usize = 7;
/// The user that it is to the API server.
pub(crate) const USER: &str = "cert-manager";
const WITHIN: Duration = Duration::from_secs(180);

fn certificate(number: usize) -> Value {
    json!({
        "apiVersion": "cert-manager.io/v1", "kind": "Certificate",
        "metadata": {"name": format!("at-rest-{number}"), "namespace": "default"},
        "spec": {
            "secretName": format!("at-rest-{number}"),
            "dnsNames": ["a.example"],
            "privateKey": {"algorithm": "ECDSA", "size": 256},
            "issuerRef": {"name": "own", "kind": "Issuer"},
        },
    })
}

/// It runs, and its API server.
#[derive(Debug)]
pub(crate) struct Peer {
    controller: Service,
    pub(crate) plane: ControlPlane,
}

impl Peer {
    /// Starts both, and waits until every certificate is issued.
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let plane = ControlPlane::start("peer", folder, Options::default()).await?;
        let kubectl = plane.kubectl()?;
        let program = Tool::CertManager.path()?;
        let kinds = program.parent().context("it lies in no folder")?;
        plane.apply_crds(&kinds.join("kinds")).await?;
        let config = plane.user_kubeconfig(USER, USER, &["system:masters"])?;
        let controller = Service::start(Recipe {
            name: USER.to_owned(),
            program,
            arguments: vec![
                format!("--kubeconfig={}", config.display()),
                "--leader-election-namespace=kube-system".to_owned(),
                "--metrics-listen-address=127.0.0.1:0".to_owned(),
            ],
            environment: Vec::new(),
            folder: plane.folder().to_path_buf(),
        })?;
        let issuer = json!({"apiVersion": "cert-manager.io/v1", "kind": "Issuer",
            "metadata": {"name": "own", "namespace": "default"}, "spec": {"selfSigned": {}}});
        kubectl.apply(&issuer.to_string()).await?;
        for number in 0..OBJECTS {
            kubectl.apply(&certificate(number).to_string()).await?;
        }
        let ready = ".status.conditions[?(@.type==\"Ready\")].status";
        for number in 0..OBJECTS {
            let name = format!("at-rest-{number}");
            let object = ["certificate", name.as_str()];
            kubectl
                .wait_for_value(&object, ready, "True", WITHIN)
                .await
                .with_context(|| format!("its log is {}", controller.log().display()))?;
        }
        Ok(Self { controller, plane })
    }

    /// Its memory now.
    pub(crate) fn memory(&self) -> Result<Memory> {
        memory(self.controller.id().context("cert-manager does not run")?)
    }
}
