//! The values with which the chart is installed at a site: the hub's credential, and which parts run there.
//!
//! Owns the text. How it is written, for its owner only, is `edge_file.rs`'s.

use serde_json::json;

/// Hosts by which a pod reaches the API server of its own cluster.
const OWN_CLUSTER: [&str; 3] = [
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "kubernetes.default",
];

/// Puts the file's text together. `hub` is the kubeconfig of the cluster's account, in pull mode; `server` the URL in it.
pub(super) fn text(cluster: &str, hub: Option<&str>, server: &str) -> anyhow::Result<String> {
    let of_own = is_own(server);
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
    // A hub that is its own site keeps its operator.
    if !of_own {
        values["hub"] = json!({"enabled": false});
    }
    Ok(format!(
        "# What the chart rimward needs at edge cluster {cluster}:\n#   {}\n{how}{}",
        command("FILE", of_own),
        serde_yaml::to_string(&values)?
    ))
}

/// The command that uses the file.
pub(super) fn next(file: &str, server: &str) -> String {
    command(file, is_own(server))
}

fn command(file: &str, of_own: bool) -> String {
    let (verb, more) = if of_own {
        ("upgrade", " --reset-then-reuse-values")
    } else {
        ("install", " --create-namespace")
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
        let values = parsed(&text("north", Some("apiVersion: v1\n"), "https://hub:6443").unwrap());
        assert_eq!(values["edge"]["cluster"], "north");
        assert_eq!(values["edge"]["hub"]["kubeconfig"], "apiVersion: v1\n");
        assert_eq!(values["hub"]["enabled"], false);
        assert_eq!(values["agent"]["enabled"], true);
        let values = parsed(&text("north", None, "").unwrap());
        assert_eq!(values["edge"], json!({"enabled": true, "mode": "Push"}));
    }

    #[test]
    fn a_hub_that_is_its_own_site_keeps_its_operator() {
        for server in [
            "https://kubernetes.default.svc",
            "https://kubernetes.default.svc:443/",
        ] {
            let text = text("here", Some("x"), server).unwrap();
            assert_eq!(parsed(&text)["hub"], Value::Null, "{server}");
            assert!(text.contains("helm upgrade"), "{text}");
        }
        let other = text("here", Some("x"), "https://kubernetes.default.svc.example").unwrap();
        assert_eq!(parsed(&other)["hub"]["enabled"], false);
    }
}
