//! API servers are dialled directly.
//!
//! Owns that the environment's `HTTPS_PROXY` never reaches kube, which heeds it without `NO_PROXY` and
//! cannot speak to a proxy as it is built here. A kubeconfig that names a proxy itself is refused.

use anyhow::ensure;
use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// Stands where a cluster names no proxy, so that kube does not look for one in the environment.
const NONE: &str = "http://no-proxy.invalid/";

/// Makes a client's configuration from a kubeconfig.
///
/// # Errors
/// When the kubeconfig cannot be used, or its cluster has a `proxy-url`.
pub async fn config(mut file: Kubeconfig, options: &KubeConfigOptions) -> anyhow::Result<Config> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
