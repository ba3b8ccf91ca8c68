//! The objects of one cluster on the hub: what its account is, and all that it may do.
//!
//! Owns the rights of a site: read its own assignment, write that one's status, renew its own Lease, and
//! nothing else. All belong to the EdgeCluster, so that deleting it takes the account away.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// Namespace of the clusters' accounts and Leases on the hub.
pub(super) const NAMESPACE: &str = "rimward-clusters";
/// The operator's namespace: Secrets of pushed clusters are there.
pub(super) const SYSTEM_NAMESPACE: &str = "rimward-system";
/// Key of the kubeconfig in its Secret.
pub(super) const KUBECONFIG_KEY: &str = "kubeconfig";

/// Name of the Secret with a pushed cluster's kubeconfig.
pub(super) fn secret_name(cluster: &str) -> String {
    format!("cluster-{cluster}")
}

/// A namespace.
pub(super) fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// The EdgeCluster, in push mode or not.
pub(super) fn edge_cluster(name: &str, labels: &BTreeMap<String, String>, push: bool) -> Value {
    let connection = if push {
        json!({"mode": "Push", "kubeconfigSecretRef": {"name": secret_name(name), "key": KUBECONFIG_KEY}})
    } else {
        json!({"mode": "Pull"})
    };
    json!({
        "apiVersion": "rimward.dev/v1alpha1",
        "kind": "EdgeCluster",
        "metadata": {"name": name, "labels": labels},
        "spec": {"connection": connection},
    })
}

/// The Secret of a pushed cluster.
pub(super) fn push_secret(cluster: &str, owner: &Value, kubeconfig: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata(&secret_name(cluster), Some(SYSTEM_NAMESPACE), owner),
        "type": "Opaque",
        "stringData": {KUBECONFIG_KEY: kubeconfig},
    })
}

/// The heartbeat Lease, made beforehand since the account may not create it.
pub(super) fn lease(cluster: &str, owner: &Value) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": metadata(cluster, Some(NAMESPACE), owner),
    })
}

/// Account, roles and bindings of a pull cluster.
pub(super) fn account(cluster: &str, owner: &Value) -> Vec<Value> {
    let role = format!("rimward:cluster:{cluster}");
    let subjects = json!([{"kind": "ServiceAccount", "name": cluster, "namespace": NAMESPACE}]);
    let rbac = "rbac.authorization.k8s.io";
    let version = format!("{rbac}/v1");
    vec![
        json!({
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": metadata(cluster, Some(NAMESPACE), owner),
            "automountServiceAccountToken": false,
        }),
        json!({
            "apiVersion": version,
            "kind": "ClusterRole",
            "metadata": metadata(&role, None, owner),
            "rules": [
                {
                    "apiGroups": ["rimward.dev"],
                    "resources": ["clusterassignments"],
                    "resourceNames": [cluster],
                    "verbs": ["get", "list", "watch"],
                },
                {
                    "apiGroups": ["rimward.dev"],
                    "resources": ["clusterassignments/status"],
                    "resourceNames": [cluster],
                    "verbs": ["get", "patch"],
                },
            ],
        }),
        json!({
            "apiVersion": version,
            "kind": "ClusterRoleBinding",
            "metadata": metadata(&role, None, owner),
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": role},
            "subjects": subjects,
        }),
        json!({
            "apiVersion": version,
            "kind": "Role",
            "metadata": metadata(cluster, Some(NAMESPACE), owner),
            "rules": [{
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "resourceNames": [cluster],
                "verbs": ["get", "patch"],
            }],
        }),
        json!({
            "apiVersion": version,
            "kind": "RoleBinding",
            "metadata": metadata(cluster, Some(NAMESPACE), owner),
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": cluster},
            "subjects": subjects,
        }),
    ]
}

fn metadata(name: &str, namespace: Option<&str>, owner: &Value) -> Value {
    let mut metadata = json!({"name": name, "ownerReferences": [owner]});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_right_of_an_account_is_for_its_own_name_and_none_writes_a_spec() {
        let objects = account("site", &json!({}));
        let rules: Vec<_> = objects
            .iter()
            .filter_map(|object| object["rules"].as_array())
            .flatten()
            .collect();
        assert_eq!(rules.len(), 3);
        for rule in rules {
            assert_eq!(rule["resourceNames"], json!(["site"]), "{rule}");
            let writes = rule["verbs"].as_array().unwrap().contains(&json!("patch"));
            let resource = rule["resources"][0].as_str().unwrap();
            assert_eq!(writes, resource != "clusterassignments", "{rule}");
            for verb in ["*", "create", "update", "delete"] {
                assert!(!rule["verbs"].as_array().unwrap().contains(&json!(verb)));
            }
        }
    }
}
