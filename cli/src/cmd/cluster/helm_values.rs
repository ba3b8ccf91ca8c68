//! The values with which the chart is installed at a site: the hub's credential, and which parts run there.
//!
//! Owns the text. How it is written, for its owner only, is `edge_file.rs`'s.

use serde_json::json;

/// The URL by which a pod reaches the API server of its own cluster.
pub(super) const OWN_SERVER: &str = "https://kubernetes.default.svc";
/// Hosts that lead there.
const OWN_CLUSTER: [&str; 3] = [
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "kubernetes.default",
];

/// Where the chart is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Site {
    /// A cluster of its own.
    Other,
    /// The hub's cluster: its operator stays.
    Hub,
}

impl Site {
    /// The hub's address does not say it: a LAN's name is the same for the hub itself and for every site. So whoever adds
    /// the cluster says it, or gives an address that leads nowhere else.
    pub(super) fn new(is_said: bool, server: &str) -> Self {
        if is_said || is_own(server) {
            Self::Hub
        } else {
            Self::Other
        }
    }
}

/// Puts the file's text together. `hub` is the kubeconfig of the cluster's account, in pull mode.
pub(super) fn text(cluster: &str, hub: Option<&str>, site: Site) -> anyhow::Result<String> {
    let mut values = json!({"agent": {"enabled": true}});
    let how = match hub {
        Some(kubeconfig) => {
            values["edge"] = json!({"enabled": true, "mode": "Pull", "cluster": cluster, "hub": {"kubeconfig": kubeconfig}});
            "# It holds the credential of the cluster's account on the hub: keep it secret.\n"
        }
        None => {
            values["edge"] = json!({"enabled": true, "mode": "Push"});
            "# The hub dials this cluster: no operator runs here, only agents, and the account that the hub's kubeconfig needs.\n"
        }
    };
    if site == Site::Other {
        values["hub"] = json!({"enabled": false});
    }
    Ok(format!(
        "# What the chart rimward needs at edge cluster {cluster}:\n#   {}\n{how}{}",
        command("FILE", site),
        serde_yaml::to_string(&values)?
    ))
}

/// The command that uses the file.
pub(super) fn command(file: &str, site: Site) -> String {
    let (verb, more) = match site {
        Site::Hub => ("upgrade", " --reset-then-reuse-values"),
        Site::Other => ("install", " --create-namespace"),
    };
    format!(
        "helm {verb} rimward CHART -n rimward-system{more} -f {file} --set-file agent.trust.file=trust.yaml"
    )
}

fn is_own(server: &str) -> bool {
    let host = server.split("://").nth(1).unwrap_or_default();
    let host = host.split(['/', ':']).next().unwrap_or_default();
    OWN_CLUSTER.contains(&host)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parsed(text: &str) -> Value {
        serde_yaml::from_str(text).unwrap()
    }

    #[test]
    fn a_pull_cluster_gets_its_credential_and_a_push_cluster_none() {
        let values = parsed(&text("north", Some("apiVersion: v1\n"), Site::Other).unwrap());
        assert_eq!(values["edge"]["cluster"], "north");
        assert_eq!(values["edge"]["hub"]["kubeconfig"], "apiVersion: v1\n");
        assert_eq!(values["hub"]["enabled"], false);
        assert_eq!(values["agent"]["enabled"], true);
        let values = parsed(&text("north", None, Site::Other).unwrap());
        assert_eq!(values["edge"], json!({"enabled": true, "mode": "Push"}));
    }

    #[test]
    fn a_hub_that_is_its_own_site_keeps_its_operator_whatever_its_address() {
        for (is_said, server) in [
            (false, "https://kubernetes.default.svc"),
            (false, "https://kubernetes.default.svc:443/"),
            (true, "https://hub.lan:6443"),
            (true, "https://192.168.1.10:6443"),
        ] {
            let site = Site::new(is_said, server);
            let text = text("here", Some("x"), site).unwrap();
            assert_eq!(parsed(&text)["hub"], Value::Null, "{server}");
            assert!(text.contains("helm upgrade"), "{text}");
        }
        for server in [
            "https://kubernetes.default.svc.example",
            "https://hub.lan:6443",
        ] {
            let site = Site::new(false, server);
            let other = text("here", Some("x"), site).unwrap();
            assert_eq!(parsed(&other)["hub"]["enabled"], false, "{server}");
        }
    }
}
