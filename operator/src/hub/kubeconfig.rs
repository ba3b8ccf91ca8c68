//! The kubeconfig of a Push cluster: hostile until parsed.
//!
//! Owns which fields it may have. Whoever may write the Secret must not make the hub run a program, read its
//! files, or send its traffic elsewhere: such fields are refused by name.

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rimward_crds::direct;
use thiserror::Error;

/// Bytes of a kubeconfig that is looked at; a Secret holds at most 1 MiB.
const BYTES_MAX: usize = 256 * 1024;

/// A kubeconfig is refused. Never holds a value from it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(crate) enum KubeconfigError {
    /// Too long.
    #[error("has {bytes} bytes, at most {BYTES_MAX} are accepted")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not a kubeconfig.
    #[error("is not a kubeconfig in YAML or JSON")]
    Syntax,
    /// A field that would make the hub do something else than dial.
    #[error("field {field} is refused: {why}")]
    Field {
        /// Its path.
        field: String,
        /// What is wrong.
        why: &'static str,
    },
    /// No usable context.
    #[error(
        "cannot be used: its current-context, cluster or user is missing or its certificates do not parse"
    )]
    Unusable,
}

/// Parses and checks a kubeconfig, and makes a client's configuration from it.
///
/// # Errors
/// [`KubeconfigError`], naming the field.
pub(crate) async fn config(bytes: &[u8]) -> Result<Config, KubeconfigError> {
    let checked = checked(bytes)?;
    direct::config(checked, &KubeConfigOptions::default())
        .await
        .map_err(|_| KubeconfigError::Unusable)
}

/// Every user and cluster is looked at, not only those of the current context: nobody should have to know which
/// one is taken.
fn checked(bytes: &[u8]) -> Result<Kubeconfig, KubeconfigError> {
    if bytes.len() > BYTES_MAX {
        return Err(KubeconfigError::TooLarge { bytes: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| KubeconfigError::Syntax)?;
    // Read plainly first: kube's own reader would follow nothing, but `other` fields could hide a name
    // that a later version acts on. An empty field is an absent one, as kubectl writes and reads it.
    let config = Kubeconfig::from_yaml(text).map_err(|_| KubeconfigError::Syntax)?;
    let config = direct::without_empty(config);
    for (index, user) in config.auth_infos.iter().enumerate() {
        let Some(info) = &user.auth_info else {
            continue;
        };
        let program = "it would run a program on the hub";
        let file = "it names a file on the hub; give the data itself";
        for (name, present, why) in [
            ("exec", info.exec.is_some(), program),
            ("auth-provider", info.auth_provider.is_some(), program),
            ("tokenFile", info.token_file.is_some(), file),
            (
                "client-certificate",
                info.client_certificate.is_some(),
                file,
            ),
            ("client-key", info.client_key.is_some(), file),
        ] {
            if present {
                return Err(refused(format!("users[{index}].user.{name}"), why));
            }
        }
    }
    for (index, cluster) in config.clusters.iter().enumerate() {
        let Some(cluster) = &cluster.cluster else {
            continue;
        };
        let at = |name: &str| format!("clusters[{index}].cluster.{name}");
        if cluster.certificate_authority.is_some() {
            return Err(refused(
                at("certificate-authority"),
                "it names a file on the hub; give the data itself",
            ));
        }
        if cluster.proxy_url.is_some() {
            return Err(refused(at("proxy-url"), "the hub dials clusters directly"));
        }
        if cluster.insecure_skip_tls_verify == Some(true) {
            return Err(refused(
                at("insecure-skip-tls-verify"),
                "the cluster's identity must be checked",
            ));
        }
        let server = cluster.server.as_deref().unwrap_or_default();
        if !server.starts_with("https://") {
            return Err(refused(at("server"), "it must be an https URL"));
        }
    }
    Ok(config)
}

fn refused(field: String, why: &'static str) -> KubeconfigError {
    KubeconfigError::Field { field, why }
}

#[cfg(test)]
mod tests {
    use super::{BYTES_MAX, checked};

    fn check(user: &str, cluster: &str) -> Result<(), String> {
        let text = format!(
            "{{apiVersion: v1, kind: Config, current-context: c,
               contexts: [{{name: c, context: {{cluster: k, user: u}}}}],
               clusters: [{{name: k, cluster: {{server: 'https://edge.example.com', {cluster}}}}}],
               users: [{{name: u, user: {{{user}}}}}]}}"
        );
        checked(text.as_bytes())
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_plain_kubeconfig_is_taken() {
        assert_eq!(check("token: abc", "tls-server-name: edge"), Ok(()));
    }

    #[test]
    fn empty_fields_that_kubectl_reads_as_absent_are_not_refused() {
        let user = "token: abc, tokenFile: '', client-certificate: '', client-certificate-data: '', \
                    client-key: '', client-key-data: '', exec: null, auth-provider: null";
        let cluster = "certificate-authority: '', proxy-url: '', tls-server-name: '', \
                       insecure-skip-tls-verify: false";
        assert_eq!(check(user, cluster), Ok(()));
        // What is not there for kubectl either is still missed.
        let error = check("exec: {apiVersion: v1, command: ''}", "").unwrap_err();
        assert!(error.starts_with("field users[0].user.exec"), "{error}");
    }

    #[test]
    fn fields_that_run_programs_or_read_files_of_the_hub_are_refused_by_name() {
        for (user, cluster, field) in [
            ("exec: {command: sh}", "", "users[0].user.exec"),
            (
                "auth-provider: {name: gcp, config: {}}",
                "",
                "users[0].user.auth-provider",
            ),
            ("tokenFile: /etc/shadow", "", "users[0].user.tokenFile"),
            (
                "client-certificate: /a",
                "",
                "users[0].user.client-certificate",
            ),
            ("client-key: /a", "", "users[0].user.client-key"),
            (
                "",
                "certificate-authority: /a",
                "clusters[0].cluster.certificate-authority",
            ),
            ("", "proxy-url: 'http://a'", "clusters[0].cluster.proxy-url"),
            (
                "",
                "insecure-skip-tls-verify: true",
                "clusters[0].cluster.insecure-skip-tls-verify",
            ),
        ] {
            let error = check(user, cluster).unwrap_err();
            assert!(
                error.starts_with(&format!("field {field} is refused")),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_no_kubeconfig_is_refused_without_its_content() {
        let error = checked(b"hunter2: [").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
        assert!(checked(&vec![b' '; BYTES_MAX + 1]).is_err());
    }
}
