//! Reads the objects that views are made from.
//!
//! Owns paging and its bounds. An object that does not parse is named on standard error and skipped: it
//! hides no other.

use anyhow::{Context, bail};
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource, ResourceExt as _};
use rimward_crds::{
    ClusterAssignment, EdgeCluster, ModelDeployment, ModelRevision, RolloutAction, RolloutPolicy,
};
use serde::de::DeserializeOwned;

use crate::connect::{ConnectArgs, NamespaceArgs, words};
use crate::view::{self, Sources};

/// Objects of one page, so few that a page of the longest that etcd takes is some 50 MiB; and pages of one list.
const PAGE: u32 = 32;
const PAGES_MAX: u32 = 100_000 / PAGE;

/// Flags of commands about one ModelDeployment.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct DeploymentArgs {
    /// Name of the ModelDeployment.
    pub(crate) name: String,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    pub(crate) namespace: NamespaceArgs,
}

/// The ModelDeployment that a command is about, and how it was reached.
pub(crate) struct Found {
    pub(crate) client: Client,
    pub(crate) api: Api<ModelDeployment>,
    pub(crate) object: ModelDeployment,
}

impl DeploymentArgs {
    /// Reads it.
    pub(crate) async fn find(&self) -> anyhow::Result<Found> {
        let client = self.connect.client().await?;
        let api = self.namespace.api(&client);
        let object = get(&api, &self.name).await?;
        Ok(Found {
            client,
            api,
            object,
        })
    }
}

/// Lists all objects of a kind.
pub(crate) async fn list<K>(api: Api<DeserializeGuard<K>>) -> anyhow::Result<Vec<K>>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    let mut objects = Vec::new();
    let mut params = ListParams::default().limit(PAGE);
    for _ in 0..PAGES_MAX {
        let page = api
            .list(&params)
            .await
            .map_err(words)
            .with_context(|| format!("listing {kind} objects"))?;
        for item in page.items {
            let name = item.name_any();
            match item.0 {
                Ok(object) => objects.push(object),
                Err(error) => eprintln!("Warning: {kind} {name} does not parse: {error}"),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(objects),
        }
    }
    bail!("more than {} {kind} objects", PAGE * PAGES_MAX)
}

/// Reads one object; a missing one is named as kubectl does.
pub(crate) async fn get<K>(api: &Api<K>, name: &str) -> anyhow::Result<K>
where
    K: Resource + Clone + DeserializeOwned + std::fmt::Debug,
    K::DynamicType: Default,
{
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    api.get(name)
        .await
        .map_err(words)
        .with_context(|| format!("{kind} {name}"))
}

/// What deployments are joined with, read once.
pub(crate) struct Fleet {
    revisions: Vec<ModelRevision>,
    policies: Vec<RolloutPolicy>,
    assignments: Vec<ClusterAssignment>,
    clusters: Vec<EdgeCluster>,
    actions: Vec<RolloutAction>,
}

impl Fleet {
    /// Reads everything; of one namespace, or of all.
    pub(crate) async fn read(client: &Client, namespace: Option<&str>) -> anyhow::Result<Self> {
        let (revisions, policies, assignments, clusters, actions) = futures::try_join!(
            list(scoped(client, namespace)),
            list(scoped(client, namespace)),
            list(Api::all(client.clone())),
            list(Api::all(client.clone())),
            list(scoped(client, namespace)),
        )?;
        Ok(Self {
            revisions,
            policies,
            assignments,
            clusters,
            actions,
        })
    }

    /// Joins a deployment with what belongs to it.
    pub(crate) fn view(&self, deployment: &ModelDeployment) -> view::Deployment {
        let named = deployment.spec.rollout_policy_ref.as_ref();
        let policy = named.and_then(|named| {
            self.policies.iter().find(|policy| {
                policy.metadata.name.as_deref() == Some(&named.name)
                    && policy.metadata.namespace == deployment.metadata.namespace
            })
        });
        view::deployment(
            deployment,
            &Sources {
                revisions: &self.revisions,
                policy,
                assignments: &self.assignments,
                clusters: &self.clusters,
                actions: &self.actions,
            },
        )
    }
}

/// The API of a namespaced kind, in one namespace or in all.
pub(crate) fn scoped<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<Scope = k8s_openapi::NamespaceResourceScope>,
    K::DynamicType: Default,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}
