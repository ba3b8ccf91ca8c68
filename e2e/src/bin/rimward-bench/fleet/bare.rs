//! The bare writer: the same objects to the same server, and nothing else.
//!
//! It knows what to write beforehand, so its rate is what the API server takes.

use anyhow::{Context as _, Result};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use rimward_crds::ClusterAssignment;
use serde_json::{Value, json};

use super::rig::{EVERYWHERE, Rig};

/// As many as the hub has under way.
pub(super) const WRITES_AT_ONCE: usize = 8;

/// What stands on the hub, to be written again with another revision.
pub(super) struct Bare {
    api: Api<ClusterAssignment>,
    objects: Vec<ClusterAssignment>,
}

impl Bare {
    /// Reads what stands.
    pub(super) async fn read(rig: &Rig) -> Result<Self> {
        let client = rimward_e2e::control_plane::client(&rig.hub.account).await?;
        let api: Api<ClusterAssignment> = Api::all(client);
        let objects = api.list(&ListParams::default()).await?.items;
        Ok(Self { api, objects })
    }

    /// The revision that stands.
    pub(super) fn revision(&self) -> Result<String> {
        let models = self.objects.iter().flat_map(|it| &it.spec.models);
        let mut of_name = models.filter(|model| model.name == EVERYWHERE);
        let first = of_name
            .next()
            .context("no assignment names the deployment")?;
        Ok(first.revision.clone())
    }

    /// Writes every object with this revision, which is as long as the one that stands.
    pub(super) async fn write(&self, revision: &str) -> Result<()> {
        let bodies = self
            .objects
            .iter()
            .map(|object| self::body(object, revision));
        let bodies = bodies.collect::<Result<Vec<_>>>()?;
        let params = PatchParams::apply("rimward-hub").force();
        let writes = bodies.iter().map(|(name, body)| {
            let (api, params) = (&self.api, &params);
            async move { api.patch(name, params, &Patch::Apply(body)).await.map(drop) }
        });
        let writes = futures::stream::iter(writes).buffer_unordered(WRITES_AT_ONCE);
        writes.try_collect::<()>().await?;
        Ok(())
    }
}

fn body(object: &ClusterAssignment, revision: &str) -> Result<(String, Value)> {
    let name = object.metadata.name.clone().context("no name")?;
    let mut models = object.spec.models.clone();
    for model in models.iter_mut().filter(|it| it.name == EVERYWHERE) {
        revision.clone_into(&mut model.revision);
    }
    let body = json!({
        "apiVersion": "rimward.dev/v1alpha1",
        "kind": "ClusterAssignment",
        "metadata": {"name": name, "uid": object.metadata.uid},
        "spec": {"models": models},
    });
    Ok((name, body))
}
