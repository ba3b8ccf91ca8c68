//! Resolves Models: tag to digest once, and what the package says about itself.
//!
//! Owns the network calls to registries, off the planning loop: at most [`RUNNING_MAX`] at once, each within
//! [`DEADLINE_SECONDS`], tried again with a growing wait. Fair: namespaces take turns, and none of them, and no
//! registry, has more than its share, so that a registry that swallows requests delays only those who name it.
//! Credentials and certificate authorities are read anew for every try. Must never write an object: results go to
//! the loop, which writes the status.

use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::ops::Bound;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use rimward_artifact::Limits;
use rimward_artifact::fetch::{InspectError, Inspected, inspect};
use rimward_artifact::reference::Reference;
use rimward_artifact::registry::{ClientError, ClientOptions, Credentials};
use rimward_crds::Model;
use rimward_crds::reasons::HubReason;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::feed::Feed;
use crate::backoff::Backoffs;
use crate::metrics::{Category, Kind, Metrics};
use crate::objects::ObjectKey;

/// Resolutions at once.
const RUNNING_MAX: usize = 16;
/// Of one namespace's Models.
const NAMESPACE_RUNNING_MAX: usize = 2;
/// At one registry.
const HOST_RUNNING_MAX: usize = 4;
/// At one registry that did not answer the last time.
const SILENT_HOST_RUNNING_MAX: usize = 1;
/// How long one may take.
const DEADLINE_SECONDS: u64 = 60;
/// The key of a `kubernetes.io/dockerconfigjson` Secret.
const DOCKER_CONFIG_KEY: &str = ".dockerconfigjson";

/// One Model as it stood when asked: another generation may have another pull Secret.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ModelId {
    namespace: String,
    name: String,
    uid: String,
    generation: i64,
}

impl ModelId {
    pub(crate) fn of(model: &Model) -> Self {
        Self {
            namespace: model.namespace().unwrap_or_default(),
            name: model.name_any(),
            uid: model.uid().unwrap_or_default(),
            generation: model.metadata.generation.unwrap_or(0),
        }
    }

    fn key(&self) -> ObjectKey {
        ObjectKey {
            kind: Kind::Model,
            namespace: Some(self.namespace.clone()),
            name: self.name.clone(),
        }
    }
}

/// What became of a resolution.
#[derive(Clone, Debug)]
pub(crate) enum Resolution {
    /// The package is there, and is what the Model says.
    Resolved {
        /// Registry host and repository.
        repository: String,
        /// What the package says.
        package: Box<Inspected>,
    },
    /// It could not be resolved; tried again by itself.
    Failed {
        /// From the closed list.
        reason: HubReason,
        /// One sentence, naming what and where.
        message: String,
    },
}

impl Resolution {
    /// Someone must act before this can succeed.
    pub(crate) fn is_permanent(reason: HubReason) -> bool {
        reason != HubReason::RegistryUnavailable
    }
}

/// A Model that is to be resolved.
struct Wanted {
    model: Arc<Model>,
    /// Its registry; empty when its image does not parse.
    host: String,
}

/// Resolves in the background.
pub(crate) struct Resolver {
    client: Client,
    options: ClientOptions,
    metrics: Arc<Metrics>,
    done: mpsc::Receiver<(ModelId, Resolution)>,
    finished: mpsc::Sender<(ModelId, Resolution)>,
    tasks: JoinSet<()>,
    /// Models without a digest, by namespace.
    wanted: BTreeMap<String, BTreeMap<ModelId, Wanted>>,
    /// The namespace whose turn was last.
    last: String,
    /// What runs, and at which registry.
    running: BTreeMap<ModelId, String>,
    silent_hosts: BTreeSet<String>,
    results: BTreeMap<ModelId, Resolution>,
    backoffs: Backoffs<ModelId>,
    changed: Arc<Feed>,
}

impl Resolver {
    /// `changed` is told the Model when a result is there.
    pub(crate) fn new(
        client: Client,
        options: ClientOptions,
        metrics: Arc<Metrics>,
        changed: Arc<Feed>,
    ) -> Self {
        let (finished, done) = mpsc::channel(RUNNING_MAX);
        Self {
            client,
            options,
            metrics,
            done,
            finished,
            tasks: JoinSet::new(),
            wanted: BTreeMap::new(),
            last: String::new(),
            running: BTreeMap::new(),
            silent_hosts: BTreeSet::new(),
            results: BTreeMap::new(),
            backoffs: Backoffs::default(),
            changed,
        }
    }

    /// The latest result for this Model, if one came since the hub leads.
    pub(crate) fn result(&self, id: &ModelId) -> Option<&Resolution> {
        self.results.get(id)
    }

    /// Takes all Models as they are seen now; those without a digest are to be resolved.
    pub(crate) fn saw_all<'a>(&mut self, models: impl Iterator<Item = &'a Model>) {
        let mut before = std::mem::take(&mut self.wanted);
        for model in models.filter(|model| is_wanted(model)) {
            let id = ModelId::of(model);
            let known = before.get_mut(&id.namespace);
            let known = known.and_then(|of_namespace| of_namespace.remove(&id));
            self.want(id, known.unwrap_or_else(|| Wanted::new(model)));
        }
        let Self {
            wanted,
            results,
            backoffs,
            ..
        } = self;
        let exists = |id: &ModelId| {
            wanted
                .get(&id.namespace)
                .is_some_and(|of| of.contains_key(id))
        };
        results.retain(|id, _| exists(id));
        backoffs.retain(exists);
    }

    /// Takes one Model as it is seen now; none when it is gone.
    pub(crate) fn saw(&mut self, namespace: &str, name: &str, model: Option<&Model>) {
        let id = model.filter(|model| is_wanted(model)).map(ModelId::of);
        if let btree_map::Entry::Occupied(mut known) = self.wanted.entry(namespace.to_owned()) {
            let others = |other: &ModelId| other.name == name && Some(other) != id.as_ref();
            let gone: Vec<ModelId> = known
                .get()
                .keys()
                .filter(|it| others(it))
                .cloned()
                .collect();
            for id in gone {
                known.get_mut().remove(&id);
                self.results.remove(&id);
                self.backoffs.succeeded(&id);
            }
            if known.get().is_empty() {
                known.remove();
            }
        }
        if let (Some(id), Some(model)) = (id, model) {
            self.want(id, Wanted::new(model));
        }
    }

    fn want(&mut self, id: ModelId, wanted: Wanted) {
        let of_namespace = self.wanted.entry(id.namespace.clone()).or_default();
        of_namespace.insert(id, wanted);
    }

    /// Takes finished results, and starts what is due.
    pub(crate) fn turn(&mut self, now: Instant) {
        while let Ok((id, resolution)) = self.done.try_recv() {
            self.finish(id, resolution, now);
        }
        while self.tasks.try_join_next().is_some() {}
        while let Some((id, wanted)) = self.next(now) {
            let (model, host) = (wanted.model.clone(), wanted.host.clone());
            let work = resolve(self.client.clone(), self.options.clone(), model);
            self.start(id, host, work);
        }
        let queued = self.wanted.values().map(BTreeMap::len).sum();
        self.metrics.set_queued(queued);
    }

    fn finish(&mut self, id: ModelId, resolution: Resolution, now: Instant) {
        let host = self.running.remove(&id).unwrap_or_default();
        match &resolution {
            Resolution::Resolved { .. } => {
                self.backoffs.succeeded(&id);
                self.silent_hosts.remove(&host);
            }
            Resolution::Failed { reason, message } => {
                self.metrics.failed(Category::Registry);
                match reason {
                    HubReason::RegistryUnavailable => {
                        self.silent_hosts.insert(host);
                    }
                    // Nothing was asked of it.
                    HubReason::ImageInvalid | HubReason::PullSecretInvalid => {}
                    _ => {
                        self.silent_hosts.remove(&host);
                    }
                }
                let wait = self.backoffs.failed(id.clone(), now);
                tracing::warn!(
                    model = %format!("{}/{}", id.namespace, id.name),
                    %reason, message, wait_seconds = wait.as_secs(), "model not resolved"
                );
            }
        }
        let of_namespace = self.wanted.get(&id.namespace);
        if of_namespace.is_some_and(|wanted| wanted.contains_key(&id)) {
            self.results.insert(id, resolution);
        } else {
            self.backoffs.succeeded(&id);
        }
        // Only of those that anybody names, so that names cannot pile up.
        let mut named = self.wanted.values().flat_map(BTreeMap::values);
        let hosts = &mut self.silent_hosts;
        if hosts.len() > RUNNING_MAX {
            let named: BTreeSet<&str> = named.by_ref().map(|wanted| &*wanted.host).collect();
            hosts.retain(|host| named.contains(&**host));
        }
    }

    /// The next one to start: the namespaces after the last one first; in a namespace whichever waits longest.
    fn next(&self, now: Instant) -> Option<(ModelId, &Wanted)> {
        if self.running.len() >= RUNNING_MAX {
            return None;
        }
        let after = (Bound::Excluded(self.last.as_str()), Bound::Unbounded);
        let before = (Bound::Unbounded, Bound::Included(self.last.as_str()));
        let namespaces = self.wanted.range::<str, _>(after);
        let namespaces = namespaces.chain(self.wanted.range::<str, _>(before));
        for (namespace, wanted) in namespaces {
            let running = self.running.keys().filter(|id| id.namespace == *namespace);
            if running.count() >= NAMESPACE_RUNNING_MAX {
                continue;
            }
            let due = wanted.iter().filter(|(id, wanted)| {
                !self.running.contains_key(*id)
                    && self.backoffs.may_try(id, now)
                    && self.has_room(&wanted.host)
                    && !matches!(self.results.get(*id), Some(Resolution::Resolved { .. }))
            });
            // One that was never tried waits for longer than any that was.
            if let Some((id, wanted)) = due.min_by_key(|(id, _)| self.backoffs.not_before(id)) {
                return Some((id.clone(), wanted));
            }
        }
        None
    }

    fn has_room(&self, host: &str) -> bool {
        let max = if self.silent_hosts.contains(host) {
            SILENT_HOST_RUNNING_MAX
        } else {
            HOST_RUNNING_MAX
        };
        host.is_empty() || self.running.values().filter(|it| *it == host).count() < max
    }

    /// Whatever becomes of `work`, a result comes: one that never did would hold its place for good.
    fn start(
        &mut self,
        id: ModelId,
        host: String,
        work: impl Future<Output = Resolution> + Send + 'static,
    ) {
        self.last.clone_from(&id.namespace);
        self.running.insert(id.clone(), host);
        let (finished, changed) = (self.finished.clone(), self.changed.clone());
        self.tasks.spawn(async move {
            let deadline = Duration::from_secs(DEADLINE_SECONDS);
            // What a panic may have left half done is dropped with `work`, which owns all it touches.
            let work = AssertUnwindSafe(work).catch_unwind();
            let resolution = match tokio::time::timeout(deadline, work).await {
                Ok(Ok(resolution)) => resolution,
                Ok(Err(_)) => failed(
                    HubReason::RegistryUnavailable,
                    "reading the package failed inside the operator, whose log says more; \
                     it is tried again"
                        .to_owned(),
                ),
                Err(_) => failed(
                    HubReason::RegistryUnavailable,
                    format!("the package was not read within {DEADLINE_SECONDS} s"),
                ),
            };
            // The channel has room for everything that runs.
            let key = id.key();
            let _ = finished.send((id, resolution)).await;
            changed.note([key], true);
        });
    }

    /// When something that failed is due again.
    pub(crate) fn next_try(&self, now: Instant) -> Option<Instant> {
        self.backoffs.next(now)
    }
}

impl Wanted {
    fn new(model: &Model) -> Self {
        let reference = model.spec.image.parse::<Reference>();
        Self {
            model: Arc::new(model.clone()),
            host: reference.map_or_else(
                |_| String::new(),
                |it| it.repository().registry().to_owned(),
            ),
        }
    }
}

/// A Model has to be resolved as long as its status has no digest.
fn is_wanted(model: &Model) -> bool {
    let status = model.status.as_ref();
    status.is_none_or(|status| status.digest.is_none())
        && model.metadata.deletion_timestamp.is_none()
}

async fn resolve(client: Client, options: ClientOptions, model: Arc<Model>) -> Resolution {
    let reference: Reference = match model.spec.image.parse() {
        Ok(reference) => reference,
        Err(error) => return failed(HubReason::ImageInvalid, format!("spec.image: {error}")),
    };
    let options = match with_credentials(&client, options, &model).await {
        Ok(options) => options,
        Err(message) => return failed(HubReason::PullSecretInvalid, message),
    };
    let registry = match rimward_artifact::registry::Client::new(options) {
        Ok(registry) => registry,
        Err(error) => return failed(HubReason::RegistryUnavailable, error.to_string()),
    };
    match inspect(&registry, &Limits::default(), &reference).await {
        Ok(package) => judge(&model, &reference, package),
        Err(error) => {
            let reason = reason(&error);
            failed(reason, words(&model, reason, &error))
        }
    }
}

/// The error; where access was denied, with the place of the credentials that were shown.
fn words(model: &Model, reason: HubReason, error: &InspectError) -> String {
    match &model.spec.pull_secret_ref {
        Some(secret_ref) if reason == HubReason::RegistryAccessDenied => {
            format!("{}: {error}", secret_at(model, &secret_ref.name))
        }
        _ => error.to_string(),
    }
}

fn secret_at(model: &Model, name: &str) -> String {
    let namespace = model.namespace().unwrap_or_default();
    format!("spec.pullSecretRef: Secret {namespace}/{name}")
}

async fn with_credentials(
    client: &Client,
    mut options: ClientOptions,
    model: &Model,
) -> Result<ClientOptions, String> {
    let Some(secret_ref) = &model.spec.pull_secret_ref else {
        return Ok(options);
    };
    let namespace = model.namespace().unwrap_or_default();
    let at = secret_at(model, &secret_ref.name);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let secret = secrets
        .get(&secret_ref.name)
        .await
        .map_err(|error| match error {
            kube::Error::Api(status) if status.code == 404 => format!("{at} does not exist"),
            kube::Error::Api(status) if status.code == 403 => {
                format!("{at} may not be read; give the operator a Role for it in this namespace")
            }
            error => format!("{at}: {error}"),
        })?;
    let bytes = secret
        .data
        .as_ref()
        .and_then(|data| data.get(DOCKER_CONFIG_KEY))
        .ok_or_else(|| format!("{at} has no key {DOCKER_CONFIG_KEY}"))?;
    let credentials =
        Credentials::from_docker_config(&bytes.0).map_err(|error| format!("{at}: {error}"))?;
    options.credentials = credentials;
    Ok(options)
}

/// Is the package the one that the Model says it is?
fn judge(model: &Model, reference: &Reference, package: Inspected) -> Resolution {
    let (family, version) = (
        package.config.family.as_str().to_owned(),
        package.config.version.to_string(),
    );
    for (field, ours, its) in [
        ("family", &model.spec.family, &family),
        ("version", &model.spec.version, &version),
    ] {
        if ours != its {
            return failed(
                HubReason::PackageMismatch,
                format!("spec.{field} is {ours}, but the package at {reference} says {its}"),
            );
        }
    }
    Resolution::Resolved {
        repository: reference.repository().to_string(),
        package: Box::new(package),
    }
}

fn failed(reason: HubReason, message: String) -> Resolution {
    Resolution::Failed { reason, message }
}

fn reason(error: &InspectError) -> HubReason {
    match error {
        InspectError::Registry(ClientError::NotFound { .. }) => HubReason::ImageNotFound,
        InspectError::Registry(ClientError::Denied { .. }) => HubReason::RegistryAccessDenied,
        InspectError::Registry(ClientError::TooLarge { .. } | ClientError::Digest { .. })
        | InspectError::Manifest(_)
        | InspectError::Config(_)
        | InspectError::Files(_) => HubReason::PackageInvalid,
        InspectError::Registry(_) => HubReason::RegistryUnavailable,
    }
}

#[cfg(test)]
#[path = "models_tests.rs"]
mod tests;
