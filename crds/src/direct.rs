//! API servers are dialled directly, by kubeconfigs that mean what kubectl reads in them.
//!
//! Owns that the environment's `HTTPS_PROXY` never reaches kube, which heeds it without `NO_PROXY` and
//! cannot speak to a proxy as it is built here; a kubeconfig that names a proxy itself is refused. Owns also that an
//! empty field is an absent one: kubectl writes and reads them so, kube would open the file of no name.

use anyhow::ensure;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Map, Value};

/// Stands where a cluster names no proxy, so that kube does not look for one in the environment.
const NONE: &str = "http://no-proxy.invalid/";

/// Makes a client's configuration from a kubeconfig.
///
/// # Errors
/// When the kubeconfig cannot be used, or its cluster has a `proxy-url`.
pub async fn config(file: Kubeconfig, options: &KubeConfigOptions) -> anyhow::Result<Config> {
    let mut file = read_from_disk(file);
    for cluster in file
        .clusters
        .iter_mut()
        .filter_map(|it| it.cluster.as_mut())
    {
        if cluster.proxy_url.as_deref().is_none_or(str::is_empty) {
            cluster.proxy_url = Some(NONE.to_owned());
        }
    }
    let mut config = Config::from_custom_kubeconfig(file, options).await?;
    let named = config.proxy_url.take();
    ensure!(
        named.is_some_and(|url| url == NONE),
        "proxy-url: proxies before API servers are not supported yet"
    );
    Ok(config)
}

/// The kubeconfig without the fields that kubectl reads as absent: empty strings, empty lists and nulls.
#[must_use]
pub fn without_empty(file: Kubeconfig) -> Kubeconfig {
    pruned(file, |_, _| false)
}

/// The same for one that kube read from a file: it joined empty file names to the folder, and a name that ends in a
/// slash is no file's.
#[must_use]
pub fn read_from_disk(file: Kubeconfig) -> Kubeconfig {
    pruned(file, |key, value| {
        let is_path = [
            "certificate-authority",
            "client-certificate",
            "client-key",
            "tokenFile",
        ]
        .contains(&key);
        is_path && value.as_str().is_some_and(|path| path.ends_with('/'))
    })
}

/// Goes by the serialized form: the secrets have a type of their own that shows itself only to serde.
fn pruned(file: Kubeconfig, also: fn(&str, &Value) -> bool) -> Kubeconfig {
    let Ok(mut value) = serde_json::to_value(&file) else {
        return file;
    };
    let prune = |object: &mut Map<String, Value>| {
        object.retain(|key, value| !is_absent(key, value) && !also(key, value));
    };
    if let Some(root) = value.as_object_mut() {
        prune(root);
    }
    for (list, body) in [
        ("clusters", "cluster"),
        ("users", "user"),
        ("contexts", "context"),
    ] {
        let entries = value.get_mut(list).and_then(Value::as_array_mut);
        for entry in entries.into_iter().flatten() {
            if let Some(object) = entry.get_mut(body).and_then(Value::as_object_mut) {
                prune(object);
            }
        }
    }
    serde_json::from_value(value).unwrap_or(file)
}

/// An empty object is a thing of its own to kubectl (`exec: {}` is a plugin without a command), but for the one map.
fn is_absent(key: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        // Needed by kube, and what a reader then says of it is right.
        Value::String(text) => text.is_empty() && key != "cluster",
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && key == "as-user-extra",
        Value::Bool(_) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every field that kubectl's own types leave out when they are empty.
    const EMPTY: &str = "apiVersion: v1
kind: Config
current-context: a
preferences: {}
extensions: []
contexts: [{name: a, context: {cluster: a, user: a, namespace: '', extensions: []}}]
clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1', certificate-authority: '',
  certificate-authority-data: '', proxy-url: '', tls-server-name: '', insecure-skip-tls-verify: false,
  disable-compression: false, extensions: []}}]
users: [{name: a, user: {token: t, tokenFile: '', client-certificate: '', client-certificate-data: '',
  client-key: '', client-key-data: '', username: '', password: '', as: '', as-uid: '', as-groups: [],
  as-user-extra: {}, auth-provider: null, exec: null, extensions: []}}]
";

    #[tokio::test]
    async fn an_empty_field_is_an_absent_one_as_kubectl_reads_it() {
        let folder = std::env::temp_dir().join(format!("rimward-direct-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("config");
        std::fs::write(&path, EMPTY).unwrap();
        for file in [
            Kubeconfig::from_yaml(EMPTY).unwrap(),
            Kubeconfig::read_from(&path).unwrap(),
        ] {
            let tidy = read_from_disk(file.clone());
            let user = serde_json::to_value(&tidy.auth_infos[0].auth_info).unwrap();
            assert_eq!(user, serde_json::json!({"token": "t"}));
            let cluster = tidy.clusters[0].cluster.clone().unwrap();
            assert_eq!(cluster.certificate_authority, None);
            assert_eq!(cluster.certificate_authority_data, None);
            assert_eq!(cluster.tls_server_name, None);
            let config = config(file, &KubeConfigOptions::default()).await.unwrap();
            assert_eq!((config.root_cert, config.proxy_url), (None, None));
            assert_eq!(config.auth_info.client_certificate, None);
        }
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn what_is_not_empty_stays_and_an_empty_plugin_is_not_absent() {
        let file = Kubeconfig::from_yaml(
            "{users: [{name: a, user: {client-key-data: S0VZ, as-groups: [b], exec: {apiVersion: v1, command: ''}}}],
              clusters: [{name: a, cluster: {certificate-authority: /ca/}}]}",
        )
        .unwrap();
        let kept = without_empty(file.clone());
        let user = kept.auth_infos[0].auth_info.as_ref().unwrap();
        assert!(user.exec.is_some() && user.client_key_data.is_some());
        assert_eq!(
            user.impersonate_groups.as_deref(),
            Some(&["b".to_owned()][..])
        );
        let authority = |file: &Kubeconfig| {
            let cluster = file.clusters[0].cluster.as_ref().unwrap();
            cluster.certificate_authority.clone()
        };
        assert_eq!(authority(&kept).as_deref(), Some("/ca/"));
        assert_eq!(authority(&read_from_disk(file)), None);
    }

    async fn check(proxy: &str) -> anyhow::Result<Config> {
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: a, contexts: [{{name: a, context: {{cluster: a}}}}], \
             clusters: [{{name: a, cluster: {{server: 'https://127.0.0.1:1'{proxy}}}}}, \
             {{name: b, cluster: {{server: 'https://127.0.0.1:2', proxy-url: 'http://b'}}}}]}}"
        );
        let file = Kubeconfig::from_yaml(&text).unwrap();
        config(file, &KubeConfigOptions::default()).await
    }

    #[tokio::test]
    async fn a_cluster_without_a_proxy_is_dialled_directly_whatever_the_environment_says() {
        for none in ["", ", proxy-url: ''"] {
            let config = check(none).await.unwrap();
            assert_eq!(config.proxy_url, None);
        }
    }

    #[tokio::test]
    async fn a_kubeconfig_that_names_a_proxy_is_refused_by_the_fields_name() {
        let error = check(", proxy-url: 'http://127.0.0.1:3128'")
            .await
            .unwrap_err();
        assert!(error.to_string().starts_with("proxy-url: "), "{error}");
    }
}
