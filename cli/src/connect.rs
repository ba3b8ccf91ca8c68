//! What every command that speaks to the hub shares: `--kubeconfig`, `--context`, `-n`, `-A`, and the client.
//!
//! Owns how the hub is reached. Every request is bounded in time.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Resource};
use rimward_crds::direct;

use crate::kubeconfig;

/// How long the API server may be silent. Watches end by themselves after 290 s.
const READ_SECONDS_MAX: u64 = 295;
const CONNECT_SECONDS_MAX: u64 = 10;

/// Flags of commands that speak to the hub.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ConnectArgs {
    /// Kubeconfig to use [default: $KUBECONFIG, else ~/.kube/config].
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use.
    #[arg(long, value_name = "NAME", global = true)]
    context: Option<String>,
}

/// Flags of commands on namespaced objects.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct NamespaceArgs {
    /// Namespace [default: the context's].
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
}

impl ConnectArgs {
    /// Reads the kubeconfig.
    pub(crate) fn kubeconfig(&self) -> anyhow::Result<Kubeconfig> {
        match &self.kubeconfig {
            Some(path) => kubeconfig::read(path),
            None => kubeconfig::read_default(),
        }
    }

    /// The context that was asked for.
    pub(crate) fn context(&self) -> Option<&str> {
        self.context.as_deref()
    }

    /// Makes a client.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let config = direct::config(self.kubeconfig()?, &options);
        client(config.await.context("kubeconfig")?)
    }
}

impl NamespaceArgs {
    /// The namespace to look in.
    pub(crate) fn name<'a>(&'a self, client: &'a Client) -> &'a str {
        self.namespace
            .as_deref()
            .unwrap_or_else(|| client.default_namespace())
    }

    /// The API of a kind in that namespace.
    pub(crate) fn api<K>(&self, client: &Client) -> Api<K>
    where
        K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(client.clone(), self.name(client))
    }
}

/// Makes a client by the kubeconfig of another cluster.
pub(crate) async fn client_of(path: &std::path::Path) -> anyhow::Result<Client> {
    let about = || format!("kubeconfig {}", path.display());
    let file = kubeconfig::read(path)?;
    let options = KubeConfigOptions::default();
    let config = direct::config(file, &options).await;
    client(config.with_context(about)?)
}

fn client(mut config: Config) -> anyhow::Result<Client> {
    config.connect_timeout = Some(Duration::from_secs(CONNECT_SECONDS_MAX));
    config.read_timeout = Some(Duration::from_secs(READ_SECONDS_MAX));
    config.write_timeout = Some(Duration::from_secs(READ_SECONDS_MAX));
    Client::try_from(config).context("API client")
}

/// The words of an API error, without the debug form that kube appends.
pub(crate) fn words(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow::anyhow!("{} ({})", status.message, status.code),
        other => anyhow::Error::new(other).context("the API server"),
    }
}
