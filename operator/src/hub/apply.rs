//! Every write of the hub, and what became of it.
//!
//! Owns how objects are written: server-side apply under one field manager, on the resource version that was
//! planned on, so that a stale writer loses. Must never decide what to write.
//!
//! What a write left is in the caches before the write returns, so that the next plan sees it; what is not known of a
//! write, and when one that was refused may be tried again, is [`Debts`]'.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::core::ApiResource;
use kube::{Api, Client, Resource};
use rimward_crds::{
    ClusterAssignment, ClusterAssignmentSpec, EdgeCluster, Model, ModelDeployment, ModelRevision,
    RolloutAction, RolloutPolicy,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::FIELD_MANAGER;
use super::debts::{Debts, Unsettled};
use super::observe::Caches;
use crate::answers::{self, Failure};
use crate::election::Leadership;
use crate::metrics::{Category, Kind, Metrics};
use crate::objects::{self, ObjectKey};

/// How long one write may take.
pub(super) const WRITE_SECONDS_MAX: u64 = 15;
/// Objects in the longest page of a list of metadata; where they are long, pages become shorter.
const METADATA_PAGE_OBJECTS_MAX: u32 = 512;
/// Objects that are asked for at once.
const LOOKS_MAX: usize = 4;
/// How often what is not known is looked through.
const LOOK: Duration = Duration::from_millis(500);

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Outcome {
    /// It stands, and the caches have it.
    Done(Stands),
    /// Somebody wrote since, or the object is gone, or it is there already: plan again.
    Conflict,
    /// The server would not have it, in its words; or it never got there.
    Refused(String),
    /// Nobody knows: no answer came, or one that does not tell. It may have been taken, or be taken yet.
    Unknown(String),
    /// It was not tried: the last try was refused and its pause is not over, or this replica leads no more.
    Paused,
}

/// What a write left behind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stands {
    /// Its version; none when the object is gone.
    pub(crate) version: Option<u128>,
    /// Its generation, which a report on it will carry.
    pub(crate) generation: Option<i64>,
}

impl Outcome {
    /// It stands.
    pub(crate) const fn is_done(&self) -> bool {
        matches!(self, Self::Done(_))
    }
}

/// Writes objects.
pub(crate) struct Writer {
    client: Client,
    metrics: Arc<Metrics>,
    caches: Arc<Caches>,
    leadership: Leadership,
    debts: Debts,
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

    fn version(&self) -> Option<u128> {
        self.resource_version.as_ref()?.parse().ok()
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
        Kind::RolloutAction => ApiResource::erase::<RolloutAction>(&()),
        Kind::EdgeNode | Kind::Secret | Kind::Lease | Kind::Event => return None,
    })
}

impl Writer {
    /// Makes a writer that has written nothing.
    pub(crate) fn new(
        client: Client,
        metrics: Arc<Metrics>,
        caches: Arc<Caches>,
        leadership: Leadership,
    ) -> Self {
        Self {
            client,
            metrics,
            caches,
            leadership,
            debts: Debts::default(),
        }
    }

    /// Applies a status.
    pub(crate) async fn status(&self, target: &Target, status: &impl Serialize) -> Outcome {
        let (api, resource, status) = match (self.api(&target.key), serde_json::to_value(status)) {
            (Ok((api, resource)), Ok(status)) => (api, resource, status),
            (Err(words), _) => return Outcome::Refused(words),
            (_, Err(error)) => return Outcome::Refused(error.to_string()),
        };
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
        self.done(&target.key, target.version(), write).await
    }

    /// Applies an assignment's entries.
    pub(crate) async fn entries(&self, target: &Target, spec: &ClusterAssignmentSpec) -> Outcome {
        let (api, resource) = match self.api(&target.key) {
            Ok(found) => found,
            Err(words) => return Outcome::Refused(words),
        };
        let ClusterAssignmentSpec { models } = spec;
        let mut body = json!({
            "apiVersion": resource.api_version,
            "kind": resource.kind,
            "metadata": target.metadata(),
            "spec": {"models": models},
        });
        let name = &target.key.name;
        let based_on = target.version();
        if models.is_empty() {
            // An apply that takes the last entry away leaves `spec: null`, which the schema refuses.
            body["metadata"]["uid"] = json!(target.uid);
            let params = PatchParams {
                field_manager: Some(FIELD_MANAGER.to_owned()),
                ..PatchParams::default()
            };
            let patch = Patch::Merge(&body);
            let write = api.patch(name, &params, &patch);
            return self.done(&target.key, based_on, write).await;
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&body);
        let write = api.patch(name, &params, &patch);
        self.done(&target.key, based_on, write).await
    }

    /// Writes one annotation. The version is none of its business, the object is.
    pub(crate) async fn annotate(&self, target: &Target, name: &str, value: &str) -> Outcome {
        let (api, _) = match self.api(&target.key) {
            Ok(found) => found,
            Err(words) => return Outcome::Refused(words),
        };
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let body = json!({"metadata": {"uid": target.uid, "annotations": {name: value}}});
        let patch = Patch::Merge(&body);
        let write = api.patch(&target.key.name, &params, &patch);
        self.done(&target.key, target.version(), write).await
    }

    /// Makes an object. One that is there already is a conflict.
    pub(crate) async fn create<K: Resource + Serialize>(&self, kind: Kind, object: &K) -> Outcome {
        let key = ObjectKey::of(kind, object);
        let made = serde_json::to_value(object).and_then(serde_json::from_value::<DynamicObject>);
        let (api, object) = match (self.api(&key), made) {
            (Ok((api, _)), Ok(object)) => (api, object),
            (Err(words), _) => return Outcome::Refused(words),
            (_, Err(error)) => return Outcome::Refused(error.to_string()),
        };
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let write = api.create(&params, &object);
        self.done(&key, None, write).await
    }

    /// Deletes the very object that was seen. One that is gone already is fine.
    pub(crate) async fn delete(&self, target: &Target) -> Outcome {
        let (api, _) = match self.api(&target.key) {
            Ok(found) => found,
            Err(words) => return Outcome::Refused(words),
        };
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
        let based_on = target.version();
        self.finish(&target.key, based_on, delete).await
    }

    fn api(&self, key: &ObjectKey) -> Result<(Api<DynamicObject>, ApiResource), String> {
        let resource = resource(key.kind).ok_or_else(|| "the hub does not write it".to_owned())?;
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
        based_on: Option<u128>,
        write: impl Future<Output = Result<DynamicObject, kube::Error>>,
    ) -> Outcome {
        let write = async { write.await.map(Some) };
        self.finish(key, based_on, write).await
    }

    async fn finish(
        &self,
        key: &ObjectKey,
        based_on: Option<u128>,
        write: impl Future<Output = Result<Option<DynamicObject>, kube::Error>>,
    ) -> Outcome {
        let passed = self.leadership.pass().await;
        let asked = Instant::now();
        if !self.leadership.holds() || !self.debts.may_write(key, self.caches.version(key), asked) {
            return Outcome::Paused;
        }
        // Whoever drops this future while the request is under way does not know either.
        let under_way = self.debts.begin(key, based_on, asked);
        let write = async {
            match passed {
                Ok(()) => Ok(write.await),
                Err(words) => Err(words),
            }
        };
        let result = tokio::time::timeout(Duration::from_secs(WRITE_SECONDS_MAX), write).await;
        let outcome = match result {
            Ok(Err(words)) => Outcome::Refused(words),
            Ok(Ok(Ok(object))) => {
                self.metrics.wrote(key.kind);
                let stands = object.as_ref().map(|object| Stands {
                    version: objects::version(object),
                    generation: object.metadata.generation,
                });
                if let Some(object) = object {
                    self.caches.wrote(key.kind, object);
                }
                Outcome::Done(stands.unwrap_or_default())
            }
            Ok(Ok(Err(error))) => judge(&error),
            Err(_) => Outcome::Unknown(format!("no answer within {WRITE_SECONDS_MAX} s")),
        };
        let pause = under_way.end(&outcome, self.caches.version(key), Instant::now());
        let (kind, name) = (key.kind, &key.name);
        match &outcome {
            Outcome::Done(_) | Outcome::Paused => {}
            Outcome::Conflict => {
                self.metrics.failed(Category::Conflict);
                tracing::info!(?kind, name, "somebody else wrote first, planning again");
            }
            Outcome::Refused(words) => {
                self.metrics.failed(Category::Api);
                let pause_seconds = pause.as_secs();
                tracing::warn!(?kind, name, error = words, pause_seconds, "write refused");
            }
            Outcome::Unknown(words) => {
                self.metrics.failed(Category::Api);
                tracing::warn!(
                    ?kind,
                    name,
                    error = words,
                    "nobody knows what became of a write"
                );
            }
        }
        outcome
    }

    /// What may have been written of an object, if that is not known; none once a read or a later write settled it.
    pub(crate) fn unsettled(&self, key: &ObjectKey) -> Option<Unsettled> {
        self.debts.unsettled(key, self.caches.version(key))
    }

    /// Lays what the server holds now over what the caches show, whoever wrote it: what a new leader does first.
    ///
    /// # Errors
    /// In words, when a request failed.
    pub(crate) async fn catch_up(&self) -> Result<(), String> {
        for kind in [
            // The assignment of a cluster that is not seen yet would be deleted.
            Kind::EdgeCluster,
            Kind::ClusterAssignment,
            Kind::ModelDeployment,
            Kind::ModelRevision,
            // An action that was applied must not be applied again.
            Kind::RolloutAction,
        ] {
            let lagging = self.lagging(kind).await?;
            let looks = lagging.iter().map(|key| async move {
                if let Some(object) = self.look(key).await? {
                    self.caches.wrote(kind, object);
                }
                Ok::<_, String>(())
            });
            let looks = futures::stream::iter(looks).buffer_unordered(LOOKS_MAX);
            looks.try_collect::<Vec<()>>().await?;
        }
        Ok(())
    }

    /// Objects that the server holds in a newer version than the caches.
    async fn lagging(&self, kind: Kind) -> Result<Vec<ObjectKey>, String> {
        let any = ObjectKey {
            kind,
            namespace: None,
            name: "*".to_owned(),
        };
        let (api, _) = self.api(&any)?;
        let (mut lagging, mut token) = (Vec::new(), None::<String>);
        let mut page = METADATA_PAGE_OBJECTS_MAX;
        loop {
            let mut params = ListParams::default().limit(page);
            params.continue_token.clone_from(&token);
            let list = match bounded(api.list_metadata(&params)).await {
                Err(Some(error)) if answers::is_over_limit(&error) && page > 1 => {
                    page /= 2;
                    continue;
                }
                list => list.map_err(|error| words(kind, error))?,
            };
            for object in &list.items {
                let key = ObjectKey::of(kind, object);
                if objects::version(object) > self.caches.version(&key) {
                    lagging.push(key);
                }
            }
            token = list.metadata.continue_.filter(|token| !token.is_empty());
            if token.is_none() {
                return Ok(lagging);
            }
            page = METADATA_PAGE_OBJECTS_MAX.min(page * 2);
        }
    }

    async fn look(&self, key: &ObjectKey) -> Result<Option<DynamicObject>, String> {
        let (api, _) = self.api(key)?;
        let object = bounded(api.get_opt(&key.name)).await;
        object.map_err(|error| words(key.kind, error))
    }

    /// Settles, by asking, what nobody knows and what no watch shows; wakes the loop for objects whose pause is over.
    /// Runs beside the loop: planning waits for none of it.
    pub(crate) async fn settle(&self, stop: &CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
            self.settle_once(Instant::now()).await;
        }
    }

    async fn settle_once(&self, now: Instant) {
        let caches = &self.caches;
        let ended = self.debts.ended(now, |key| caches.version(key));
        caches.feed.mark(ended);
        let due = self.debts.due(caches.unshown(), now);
        let looks = due.into_iter().map(|look| async move {
            let asked = Instant::now();
            let answer = self.look(&look.key).await;
            (look, asked, answer)
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(LOOKS_MAX);
        while let Some((look, asked, answer)) = looks.next().await {
            let key = look.key;
            match answer {
                Ok(object) => {
                    let version = object.as_ref().and_then(objects::version);
                    match look.unshown {
                        Some(written) => caches.asked(&key, written, object),
                        None => {
                            if let Some(object) = object {
                                caches.wrote(key.kind, object);
                            }
                        }
                    }
                    if self.debts.looked(&key, version, asked) {
                        caches.feed.mark([key]);
                    }
                }
                Err(error) => {
                    tracing::warn!(kind = ?key.kind, name = key.name, error, "object not read");
                }
            }
        }
    }
}

/// Bounds a request in time; the error of one that took too long is none.
async fn bounded<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Option<kube::Error>> {
    match tokio::time::timeout(Duration::from_secs(WRITE_SECONDS_MAX), request).await {
        Ok(result) => result.map_err(Some),
        Err(_) => Err(None),
    }
}

fn words(kind: Kind, error: Option<kube::Error>) -> String {
    match error {
        Some(error) => format!("{kind:?}: {error}"),
        None => format!("{kind:?}: no answer within {WRITE_SECONDS_MAX} s"),
    }
}

/// What an error says of a write: whether it may have been taken all the same.
fn judge(error: &kube::Error) -> Outcome {
    match answers::failure(error) {
        Failure::Conflict => Outcome::Conflict,
        Failure::Refused => Outcome::Refused(error.to_string()),
        Failure::Unknown => Outcome::Unknown(error.to_string()),
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
