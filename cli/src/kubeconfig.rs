//! Kubeconfigs as data: choosing a context, and making one that stands alone.
//!
//! Owns what may leave this machine: certificates are taken in from their files; anything that would
//! run a program, or read a file, on the machine that uses it later is refused by the field's name.
//! Pure but for reading the certificate files that the kubeconfig names.

use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use k8s_openapi::ByteString;
use kube::config::{AuthInfo, Cluster, Kubeconfig};
use rimward_crds::direct;
use serde_json::{Map, Value, json};

/// Largest kubeconfig or certificate file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// One context of a kubeconfig.
#[derive(Debug)]
pub(crate) struct Chosen {
    pub(crate) cluster: Cluster,
    pub(crate) user: AuthInfo,
}

/// Reads a kubeconfig file, bounded.
pub(crate) fn read(path: &Path) -> anyhow::Result<Kubeconfig> {
    let about = || format!("kubeconfig {}", path.display());
    let size = std::fs::metadata(path).with_context(about)?.len();
    ensure!(
        size <= FILE_BYTES_MAX,
        "{}: {size} bytes, at most {FILE_BYTES_MAX} are read",
        about()
    );
    let file = Kubeconfig::read_from(path).with_context(about)?;
    Ok(direct::read_from_disk(file))
}

/// Reads the kubeconfig that kubectl would: `$KUBECONFIG`, else `~/.kube/config`.
pub(crate) fn read_default() -> anyhow::Result<Kubeconfig> {
    let file = Kubeconfig::read().context("kubeconfig")?;
    Ok(direct::read_from_disk(file))
}

/// Picks a context by name, or the current one.
pub(crate) fn choose(config: &Kubeconfig, context: Option<&str>) -> anyhow::Result<Chosen> {
    let config = direct::without_empty(config.clone());
    let name = context
        .or(config.current_context.as_deref())
        .context("the kubeconfig has no current-context")?;
    let found = config.contexts.iter().find(|it| it.name == name);
    let context = found
        .and_then(|it| it.context.as_ref())
        .with_context(|| format!("the kubeconfig has no context {name:?}"))?;
    let cluster = config.clusters.iter().find(|it| it.name == context.cluster);
    let cluster = cluster
        .and_then(|it| it.cluster.clone())
        .with_context(|| format!("the kubeconfig has no cluster {:?}", context.cluster))?;
    let user = match &context.user {
        None => AuthInfo::default(),
        Some(user) => config
            .auth_infos
            .iter()
            .find(|it| &it.name == user)
            .map(|it| it.auth_info.clone().unwrap_or_default())
            .with_context(|| format!("the kubeconfig has no user {user:?}"))?,
    };
    Ok(Chosen { cluster, user })
}

/// How another machine reaches a cluster: its URL and what its certificate is checked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Endpoint {
    server: String,
    authority: Option<ByteString>,
    tls_server_name: Option<String>,
}

impl Endpoint {
    /// Its URL.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }
}

/// Makes the endpoint out of a kubeconfig's cluster; `server` replaces its URL. `dialler` says who will
/// dial it, for the refusal of a loopback address.
pub(crate) fn endpoint(
    cluster: &Cluster,
    server: Option<&str>,
    dialler: &str,
) -> anyhow::Result<Endpoint> {
    let Cluster {
        server: written,
        insecure_skip_tls_verify,
        certificate_authority,
        certificate_authority_data,
        proxy_url,
        disable_compression: _,
        tls_server_name,
        extensions: _,
        other: _,
    } = cluster;
    let written = written.as_deref();
    let url = match server {
        Some(given) => given,
        None => {
            let url =
                written.context("the kubeconfig's cluster has no server; give --server URL")?;
            ensure!(
                !is_loopback(url),
                "the kubeconfig's server {url} is a loopback address, which {dialler} cannot dial; give --server URL"
            );
            url
        }
    };
    ensure!(
        host(url).is_some() && url.starts_with("https://"),
        "server {url:?} is no https URL"
    );
    ensure!(
        *insecure_skip_tls_verify != Some(true),
        "refused: insecure-skip-tls-verify (a credential must not be sent to whoever answers)"
    );
    ensure!(proxy_url.is_none(), "refused: proxy-url");
    let authority = inlined(
        "certificate-authority",
        certificate_authority_data.as_deref(),
        certificate_authority.as_deref(),
    )?;
    Ok(Endpoint {
        server: url.to_owned(),
        authority,
        tls_server_name: tls_server_name.clone(),
    })
}

/// A user's credential that needs nothing else: certificate and key, or a token.
pub(crate) fn credential(user: &AuthInfo) -> anyhow::Result<Map<String, Value>> {
    // Read as written: the secrets have a type of their own that shows itself only to serde.
    let fields = serde_json::to_value(user).context("the kubeconfig's user")?;
    let Value::Object(fields) = fields else {
        bail!("the kubeconfig's user is no object");
    };
    let text = |key: &str| fields.get(key).and_then(Value::as_str);
    let mut kept = Map::new();
    for (key, value) in &fields {
        match key.as_str() {
            "token" | "client-certificate-data" | "client-key-data" => {
                kept.insert(key.clone(), value.clone());
            }
            // Taken in below. An `extensions` list is for other tools.
            "client-certificate" | "client-key" | "extensions" => {}
            // exec and auth-provider run programs, tokenFile is a file that somebody renews, the rest
            // are ways that API servers dropped, or that act as somebody else.
            refused => bail!(
                "refused: users[].user.{refused} (a stored kubeconfig may have client-certificate-data, \
                 client-key-data or token; for a service account, see `kubectl create token`)"
            ),
        }
    }
    for (data, file) in [
        ("client-certificate-data", "client-certificate"),
        ("client-key-data", "client-key"),
    ] {
        if let Some(bytes) = inlined(file, text(data), text(file))? {
            kept.insert(data.to_owned(), json!(bytes));
        }
    }
    let has = |key: &str| kept.contains_key(key);
    ensure!(
        has("token") || has("client-certificate-data") && has("client-key-data"),
        "the kubeconfig's user has neither a token nor a client certificate with its key"
    );
    Ok(kept)
}

/// Puts a kubeconfig together that stands alone.
pub(crate) fn standalone(name: &str, endpoint: &Endpoint, user: Value) -> anyhow::Result<String> {
    let Endpoint {
        server,
        authority,
        tls_server_name,
    } = endpoint;
    let mut cluster = json!({ "server": server });
    if let Some(authority) = authority {
        cluster["certificate-authority-data"] = json!(authority);
    }
    if let Some(name) = tls_server_name {
        cluster["tls-server-name"] = json!(name);
    }
    serde_yaml::to_string(&json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": name, "cluster": cluster }],
        "users": [{ "name": name, "user": user }],
        "contexts": [{ "name": name, "context": { "cluster": name, "user": name } }],
        "current-context": name,
    }))
    .context("writing a kubeconfig")
}

/// The bytes of a certificate or key: from the kubeconfig, else from the file that it names.
fn inlined(
    field: &str,
    data: Option<&str>,
    file: Option<&str>,
) -> anyhow::Result<Option<ByteString>> {
    match (data, file) {
        (Some(data), _) => serde_json::from_value(json!(data))
            .map(Some)
            .with_context(|| format!("{field}-data is no base64")),
        (None, Some(file)) => {
            let about = || format!("{field} {file}");
            let size = std::fs::metadata(file).with_context(about)?.len();
            ensure!(
                size <= FILE_BYTES_MAX,
                "{}: {size} bytes, at most {FILE_BYTES_MAX} are read",
                about()
            );
            let bytes = std::fs::read(file).with_context(about)?;
            Ok(Some(ByteString(bytes)))
        }
        (None, None) => Ok(None),
    }
}

/// Host of an URL, without brackets around an IPv6 address.
fn host(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit('@').next()?;
    let host = match authority.strip_prefix('[') {
        Some(bracketed) => bracketed.split(']').next()?,
        None => authority.split(':').next()?,
    };
    Some(host).filter(|host| !host.is_empty())
}

fn is_loopback(url: &str) -> bool {
    let Some(host) = host(url) else { return false };
    host.parse::<IpAddr>()
        .map_or(host == "localhost" || host.ends_with(".localhost"), |ip| {
            ip.is_loopback() || ip.is_unspecified()
        })
}

#[cfg(test)]
#[path = "kubeconfig_tests.rs"]
mod tests;
