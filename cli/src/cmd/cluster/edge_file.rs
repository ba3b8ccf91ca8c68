//! The file that is applied on the edge: namespaces, kinds, rights, and in pull mode the hub's credential.
//!
//! Owns its content and how it is written: mode 0600 from its first byte on, complete or not at all.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::account::{KUBECONFIG_KEY, SYSTEM_NAMESPACE, namespace};

/// Rights of the edge role in its own cluster.
const EDGE_RBAC: &str = include_str!("../../../../operator/rbac/edge.yaml");
/// Rights of the agents.
const AGENT_RBAC: &str = include_str!("../../../../node-agent/rbac.yaml");
/// Kinds that live on the edge.
const EDGE_KINDS: [&str; 2] = ["ClusterAssignment", "EdgeNode"];
/// Namespace of the nodes' Leases.
const NODES_NAMESPACE: &str = "rimward-nodes";
/// Namespace of the agents' account.
const AGENTS_NAMESPACE: &str = "rimward-agents";
/// Name of the Secret with the hub's kubeconfig.
const HUB_SECRET: &str = "rimward-hub";

/// Puts the file's text together. `hub` is the kubeconfig of the cluster's account, in pull mode.
pub(super) fn text(cluster: &str, hub: Option<&str>) -> anyhow::Result<String> {
    let mut documents = Vec::new();
    for name in [SYSTEM_NAMESPACE, NODES_NAMESPACE, AGENTS_NAMESPACE] {
        documents.push(serde_yaml::to_string(&namespace(name))?);
    }
    for crd in rimward_crds::schema::crds()? {
        if EDGE_KINDS.contains(&crd.spec.names.kind.as_str()) {
            documents.push(serde_yaml::to_string(&crd)?);
        }
    }
    documents.push(EDGE_RBAC.to_owned());
    documents.push(AGENT_RBAC.to_owned());
    let how = match hub {
        Some(kubeconfig) => {
            documents.push(serde_yaml::to_string(&json!({
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": HUB_SECRET, "namespace": SYSTEM_NAMESPACE},
                "type": "Opaque",
                "stringData": {KUBECONFIG_KEY: kubeconfig},
            }))?);
            format!(
                "# This file holds the credential of the cluster's account on the hub: keep it secret.\n\
                 #\n\
                 # Then run the edge operator there, as service account {SYSTEM_NAMESPACE}/rimward-edge, with the Secret's\n\
                 # key `{KUBECONFIG_KEY}` as a file:\n\
                 #   rimward-operator edge --cluster {cluster} --hub-kubeconfig FILE\n"
            )
        }
        None => "# The hub dials this cluster: no operator runs here, only agents.\n".to_owned(),
    };
    Ok(format!(
        "# What edge cluster {cluster} needs. Apply it there:\n\
         #   kubectl apply --server-side -f FILE\n{how}---\n{}",
        documents.join("---\n")
    ))
}

/// A file that appears under its name when it is complete.
#[derive(Debug)]
pub(super) struct PrivateFile {
    path: PathBuf,
    temporary: PathBuf,
    file: Option<std::fs::File>,
}

impl PrivateFile {
    /// Opens a temporary file beside `path`, so that a folder that cannot be written is known before
    /// anything is made on the hub.
    pub(super) fn create(path: &Path) -> anyhow::Result<Self> {
        let about = || format!("writing {}", path.display());
        let name = path.file_name().with_context(about)?;
        let mut hidden = std::ffi::OsString::from(".");
        hidden.push(name);
        hidden.push(format!(".{}", std::process::id()));
        let temporary = path.with_file_name(hidden);
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)
            .with_context(about)?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file: Some(file),
        })
    }

    /// Writes all of it and gives it its name.
    pub(super) fn finish(mut self, text: &str) -> anyhow::Result<()> {
        let about = || format!("writing {}", self.path.display());
        let mut file = self.file.take().with_context(about)?;
        file.write_all(text.as_bytes()).with_context(about)?;
        file.sync_all().with_context(about)?;
        std::fs::rename(&self.temporary, &self.path).with_context(about)
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        // Gone already when it was finished; else half a credential is worth nothing.
        let _ = std::fs::remove_file(&self.temporary);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn every_document_parses_and_only_a_pull_cluster_gets_a_secret() {
        for (hub, secrets) in [(Some("apiVersion: v1\n"), 1), (None, 0)] {
            let text = text("site", hub).unwrap();
            let kinds: Vec<String> = serde_yaml::Deserializer::from_str(&text)
                .map(|document| serde_json::Value::deserialize(document).unwrap())
                .map(|object| object["kind"].as_str().unwrap().to_owned())
                .collect();
            let count = |kind: &str| kinds.iter().filter(|it| *it == kind).count();
            assert_eq!(count("Namespace"), 3);
            assert_eq!(count("CustomResourceDefinition"), 2);
            assert_eq!(count("ServiceAccount"), 2);
            assert_eq!(count("Secret"), secrets);
        }
    }

    #[test]
    fn the_file_is_for_its_owner_only_and_appears_complete_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("site.yaml");
        let file = PrivateFile::create(&path).unwrap();
        assert!(!path.exists());
        file.finish("secret").unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(PrivateFile::create(&path).unwrap());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "secret");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
