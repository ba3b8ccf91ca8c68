//! What every command that speaks to a registry shares: flags, credentials, the client.

use std::path::PathBuf;

use anyhow::Context;
use rimward_artifact::registry::{Client, ClientOptions, Credentials};

/// Bytes of a credentials file or a bundle of authorities.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Flags of commands that speak to a registry.
#[derive(Debug, clap::Args)]
pub(crate) struct RegistryArgs {
    /// Speak plain HTTP to this registry; hosts on this machine need no flag.
    #[arg(long, value_name = "HOST[:PORT]")]
    plain_http: Vec<String>,
    /// Docker config file with credentials [default: $DOCKER_CONFIG/config.json, else ~/.docker/config.json].
    #[arg(long, value_name = "FILE")]
    registry_config: Option<PathBuf>,
    /// PEM file with more certificate authorities, beside the system's.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl RegistryArgs {
    /// Makes the client.
    pub(crate) fn client(&self) -> anyhow::Result<Client> {
        let credentials = match self.credentials_file() {
            Some(path) => {
                let bytes = read_bounded(&path, FILE_BYTES_MAX)?;
                Credentials::from_docker_config(&bytes)
                    .with_context(|| path.display().to_string())?
            }
            None => Credentials::default(),
        };
        let extra_roots_pem = match &self.ca_file {
            Some(path) => read_bounded(path, FILE_BYTES_MAX)?,
            None => Vec::new(),
        };
        Ok(Client::new(ClientOptions {
            plain_http: self.plain_http.iter().cloned().collect(),
            credentials,
            extra_roots_pem,
            ..ClientOptions::default()
        })?)
    }

    fn credentials_file(&self) -> Option<PathBuf> {
        if let Some(path) = &self.registry_config {
            return Some(path.clone());
        }
        let folder = match std::env::var_os("DOCKER_CONFIG") {
            Some(folder) => PathBuf::from(folder),
            None => PathBuf::from(std::env::var_os("HOME")?).join(".docker"),
        };
        let path = folder.join("config.json");
        path.exists().then_some(path)
    }
}

/// Reads a file that must be small.
pub(crate) fn read_bounded(path: &std::path::Path, bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    use std::io::Read;
    let name = || path.display().to_string();
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .with_context(name)?
        .take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .with_context(name)?;
    anyhow::ensure!(
        bytes.len() as u64 <= bytes_max,
        "{}: more than the {bytes_max} bytes that are accepted",
        name()
    );
    Ok(bytes)
}
