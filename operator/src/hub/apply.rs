//! Every write of the hub, and the memory of what was written.
//!
//! Owns how objects are written: server-side apply under one field manager, on the resource version that was
//! planned on, so that a stale writer loses. Must never decide what to write.
//!
//! It remembers the version that each write left. A plan may only begin when the caches show them all
//! ([`Writer::settle`]): else two plans in a row could spend one budget on two clusters.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::ApiResource;
use kube::{Api, Client, Resource};
use rimward_crds::{
    ClusterAssignment, ClusterAssignmentSpec, EdgeCluster, Model, ModelDeployment, ModelRevision,
    RolloutPolicy,
};
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

use super::FIELD_MANAGER;
use super::observe::{Caches, ObjectKey};
use crate::metrics::{Category, Kind, Metrics};
use crate::objects;

/// How long one write may take.
const WRITE_SECONDS_MAX: u64 = 15;
/// How long to wait for a cache before the object is asked for directly.
const SETTLE_SECONDS: u64 = 2;
/// Objects in one page of a list.
const PAGE_OBJECTS_MAX: u32 = 500;

/// A write did not happen.
#[derive(Debug, Error)]
pub(crate) enum WriteError {
    /// Somebody wrote since, or the object is gone: plan again.
    #[error("{kind:?} {name}: somebody else wrote first")]
    Conflict {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
    },
    /// The server refused or did not answer.
    #[error("{kind:?} {name}: {message}")]
    Api {
        /// Its kind.
        kind: Kind,
        /// Its name.
        name: String,
        /// Its words.
        message: String,
    },
}

/// Writes objects.
pub(crate) struct Writer {
    client: Client,
    metrics: Arc<Metrics>,
    written: Mutex<BTreeMap<ObjectKey, u128>>,
}

/// What of an object's metadata a write needs.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) key: ObjectKey,
    /// The version that was planned on.
    resource_version: Option<String>,
    uid: Option<String>,
}

impl Target {
    /// The object as it was seen.
    pub(crate) fn of<K: Resource>(kind: Kind, object: &K) -> Self {
        let meta = object.meta();
        Self {
            key: ObjectKey::of(kind, object),
            resource_version: meta.resource_version.clone(),
            uid: meta.uid.clone(),
        }
    }

    fn metadata(&self) -> Value {
        let mut metadata = json!({"name": self.key.name});
        if let Some(namespace) = &self.key.namespace {
            metadata["namespace"] = json!(namespace);
        }
        if let Some(version) = &self.resource_version {
            metadata["resourceVersion"] = json!(version);
        }
        metadata
    }
}

fn resource(kind: Kind) -> Option<ApiResource> {
    Some(match kind {
        Kind::EdgeCluster => ApiResource::erase::<EdgeCluster>(&()),
        Kind::Model => ApiResource::erase::<Model>(&()),
        Kind::ModelDeployment => ApiResource::erase::<ModelDeployment>(&()),
        Kind::RolloutPolicy => ApiResource::erase::<RolloutPolicy>(&()),
        Kind::ModelRevision => ApiResource::erase::<ModelRevision>(&()),
        Kind::ClusterAssignment => ApiResource::erase::<ClusterAssignment>(&()),
        Kind::EdgeNode | Kind::Lease | Kind::Event => return None,
    })
}

impl Writer {
    /// Makes a writer that has written nothing.
    pub(crate) fn new(client: Client, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            metrics,
            written: Mutex::default(),
        }
    }

    /// Applies a status.
    ///
    /// # Errors
    /// [`WriteError`].
    pub(crate) async fn status(
        &self,
        target: &Target,
        status: &impl Serialize,
    ) -> Result<(), WriteError> {
        let (api, resource) = self.api(&target.key)?;
        let body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": target.metadata(),
            "status": status,
        });
        // An object that was made with an empty list conflicts with "before-first-apply" otherwise.
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        let write = api.patch_status(&target.key.name, &params, &patch);
        self.done(&target.key, write).await
    }

    /// Applies an assignment's entries.
    ///
    /// # Errors
    /// [`WriteError`].
    pub(crate) async fn entries(
        &self,
        target: &Target,
        spec: &ClusterAssignmentSpec,
    ) -> Result<(), WriteError> {
        let (api, resource) = self.api(&target.key)?;
        let ClusterAssignmentSpec { models } = spec;
        let mut body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": target.metadata(),
            "spec": {"models": models},
        });
        let name = &target.key.name;
        if models.is_empty() {
            // An apply that takes the last entry away leaves `spec: null`, which the schema refuses.
            body["metadata"]["uid"] = json!(target.uid);
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Merge(&body);
            return self
                .done(&target.key, api.patch(name, &params, &patch))
                .await;
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        self.done(&target.key, api.patch(name, &params, &patch))
            .await
    }

    /// Makes an object. One that is there already is a conflict.
    ///
    /// # Errors
    /// [`WriteError`].
    pub(crate) async fn create<K: Resource + Serialize>(
        &self,
        kind: Kind,
        object: &K,
    ) -> Result<(), WriteError> {
        let key = ObjectKey::of(kind, object);
        let (api, _) = self.api(&key)?;
        let object: DynamicObject = serde_json::to_value(object)
            .and_then(serde_json::from_value)
            .map_err(|error| refused(&key, error.to_string()))?;
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let write = api.create(&params, &object);
        self.done(&key, write).await
    }

    /// Deletes the very object that was seen. One that is gone already is fine.
    ///
    /// # Errors
    /// [`WriteError`].
    pub(crate) async fn delete(&self, target: &Target) -> Result<(), WriteError> {
        let (api, _) = self.api(&target.key)?;
        let params = DeleteParams::background().preconditions(Preconditions {
            uid: target.uid.clone(),
            resource_version: target.resource_version.clone(),
        });
        let delete = async {
            match api.delete(&target.key.name, &params).await {
                Ok(_) => Ok(None),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
                Err(error) => Err(error),
            }
        };
        self.finish(&target.key, delete).await
    }

    fn api(&self, key: &ObjectKey) -> Result<(Api<DynamicObject>, ApiResource), WriteError> {
        let resource = resource(key.kind)
            .ok_or_else(|| refused(key, "the hub does not write it".to_owned()))?;
        let client = self.client.clone();
        let api = match &key.namespace {
            Some(namespace) => Api::namespaced_with(client, namespace, &resource),
            None => Api::all_with(client, &resource),
        };
        Ok((api, resource))
    }

    async fn done(
        &self,
        key: &ObjectKey,
        write: impl Future<Output = Result<DynamicObject, kube::Error>>,
    ) -> Result<(), WriteError> {
        self.finish(key, async { write.await.map(Some) }).await
    }

    async fn finish(
        &self,
        key: &ObjectKey,
        write: impl Future<Output = Result<Option<DynamicObject>, kube::Error>>,
    ) -> Result<(), WriteError> {
        let result = tokio::time::timeout(Duration::from_secs(WRITE_SECONDS_MAX), write).await;
        let error = match result {
            Ok(Ok(object)) => {
                self.metrics.wrote(key.kind);
                if let Some(version) = object.as_ref().and_then(objects::version) {
                    self.remember(key.clone(), version);
                }
                return Ok(());
            }
            Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => {
                self.metrics.failed(Category::Conflict);
                return Err(WriteError::Conflict {
                    kind: key.kind,
                    name: key.name.clone(),
                });
            }
            Ok(Err(error)) => refused(key, error.to_string()),
            // It may have arrived all the same: the caches will tell.
            Err(_) => refused(key, format!("no answer within {WRITE_SECONDS_MAX} s")),
        };
        self.metrics.failed(Category::Api);
        Err(error)
    }

    fn remember(&self, key: ObjectKey, version: u128) {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let latest = written.entry(key).or_default();
        *latest = version.max(*latest);
    }

    /// Waits for the caches to show what the server holds now, whoever wrote it: what a new leader does first.
    ///
    /// # Errors
    /// [`WriteError`] when a list is refused.
    pub(crate) async fn catch_up(&self) -> Result<(), WriteError> {
        for kind in [
            Kind::ClusterAssignment,
            Kind::ModelDeployment,
            Kind::ModelRevision,
        ] {
            let any = ObjectKey {
                kind,
                namespace: None,
                name: "*".to_owned(),
            };
            let (api, _) = self.api(&any)?;
            let mut params = ListParams::default().limit(PAGE_OBJECTS_MAX);
            loop {
                let list = api.list_metadata(&params);
                let list = tokio::time::timeout(Duration::from_secs(WRITE_SECONDS_MAX), list)
                    .await
                    .map_err(|_| refused(&any, "no answer in time".to_owned()))?
                    .map_err(|error| refused(&any, error.to_string()))?;
                for object in &list.items {
                    if let Some(version) = objects::version(object) {
                        self.remember(ObjectKey::of(kind, object), version);
                    }
                }
                match list.metadata.continue_ {
                    Some(token) if !token.is_empty() => params = params.continue_token(&token),
                    _ => break,
                }
            }
        }
        Ok(())
    }

    /// Returns once the caches show every write.
    pub(crate) async fn settle(&self, caches: &Caches) {
        loop {
            let lagging = self.lagging(caches);
            if lagging.is_empty() {
                return;
            }
            tokio::select! {
                () = caches.changed.notified() => continue,
                () = tokio::time::sleep(Duration::from_secs(SETTLE_SECONDS)) => {}
            }
            // An object that was deleted since is never seen again.
            for key in self.lagging(caches) {
                if self.is_gone(&key).await {
                    let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
                    written.remove(&key);
                } else {
                    tracing::warn!(kind = ?key.kind, name = key.name, "cache lags behind a write");
                }
            }
        }
    }

    fn lagging(&self, caches: &Caches) -> Vec<ObjectKey> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.retain(|key, version| caches.version(key).is_none_or(|seen| seen < *version));
        written.keys().cloned().collect()
    }

    async fn is_gone(&self, key: &ObjectKey) -> bool {
        let Ok((api, _)) = self.api(key) else {
            return true;
        };
        let get = api.get_metadata_opt(&key.name);
        let found = tokio::time::timeout(Duration::from_secs(WRITE_SECONDS_MAX), get).await;
        matches!(found, Ok(Ok(None)))
    }
}

fn refused(key: &ObjectKey, message: String) -> WriteError {
    WriteError::Api {
        kind: key.kind,
        name: key.name.clone(),
        message,
    }
}
