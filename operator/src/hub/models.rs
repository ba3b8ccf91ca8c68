//! Resolves Models: tag to digest once, and what the package says about itself.
//!
//! Owns the network calls to registries, off the planning loop: at most [`RUNNING_MAX`] at once, each within
//! [`DEADLINE_SECONDS`], tried again with a growing wait. Must never write an object: results go to the
//! loop, which writes the status.

use std::collections::{BTreeMap, BTreeSet};
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
const RUNNING_MAX: usize = 4;
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

/// Resolves in the background.
pub(crate) struct Resolver {
    client: Client,
    options: ClientOptions,
    metrics: Arc<Metrics>,
    done: mpsc::Receiver<(ModelId, Resolution)>,
    finished: mpsc::Sender<(ModelId, Resolution)>,
    tasks: JoinSet<()>,
    running: BTreeSet<ModelId>,
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
            running: BTreeSet::new(),
            results: BTreeMap::new(),
            backoffs: Backoffs::default(),
            changed,
        }
    }

    /// The latest result for this Model, if one came since the hub leads.
    pub(crate) fn result(&self, id: &ModelId) -> Option<&Resolution> {
        self.results.get(id)
    }

    /// Takes finished results, and starts what is due among `unresolved`, which is every Model without a digest.
    pub(crate) fn turn(&mut self, unresolved: &BTreeMap<ModelId, &Model>, now: Instant) {
        while let Ok((id, resolution)) = self.done.try_recv() {
            self.running.remove(&id);
            match &resolution {
                Resolution::Resolved { .. } => self.backoffs.succeeded(&id),
                Resolution::Failed { reason, message } => {
                    self.metrics.failed(Category::Registry);
                    let wait = self.backoffs.failed(id.clone(), now);
                    tracing::warn!(
                        model = %format!("{}/{}", id.namespace, id.name),
                        %reason, message, wait_seconds = wait.as_secs(), "model not resolved"
                    );
                }
            }
            self.results.insert(id, resolution);
        }
        while self.tasks.try_join_next().is_some() {}
        self.results.retain(|id, _| unresolved.contains_key(id));
        self.backoffs.retain(|id| unresolved.contains_key(id));
        let due = unresolved.iter().filter(|(id, _)| {
            let resolved = matches!(self.results.get(id), Some(Resolution::Resolved { .. }));
            !resolved && !self.running.contains(id) && self.backoffs.may_try(id, now)
        });
        let free = RUNNING_MAX.saturating_sub(self.running.len());
        let due: Vec<_> = due.take(free).collect();
        for (id, model) in due {
            let work = resolve(self.client.clone(), self.options.clone(), (*model).clone());
            self.start(id.clone(), work);
        }
        self.metrics.set_queued(unresolved.len());
    }

    /// Whatever becomes of `work`, a result comes: one that never did would hold its place for good.
    fn start(&mut self, id: ModelId, work: impl Future<Output = Resolution> + Send + 'static) {
        self.running.insert(id.clone());
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
            changed.mark([key]);
        });
    }

    /// When something that failed is due again.
    pub(crate) fn next_try(&self, now: Instant) -> Option<Instant> {
        self.backoffs.next(now)
    }
}

async fn resolve(client: Client, options: ClientOptions, model: Model) -> Resolution {
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
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use kube::Config;
    use rimward_artifact::registry::ClientOptions;
    use rimward_crds::Model;
    use rimward_crds::reasons::HubReason;

    use super::{ModelId, RUNNING_MAX, Resolution, Resolver};
    use crate::hub::feed::Feed;
    use crate::metrics::Metrics;

    /// Its image is refused before anything is asked of a registry.
    fn object(name: &str) -> Model {
        serde_yaml::from_str(&format!(
            "{{apiVersion: rimward.dev/v1alpha1, kind: Model, metadata: {{name: {name}, generation: 1}},
               spec: {{family: digits, version: 1.0.0, image: 'not an image'}}}}"
        ))
        .unwrap()
    }

    fn failure(resolver: &Resolver, id: &ModelId) -> Option<HubReason> {
        match resolver.result(id)? {
            Resolution::Failed { reason, .. } => Some(*reason),
            Resolution::Resolved { .. } => None,
        }
    }

    /// Takes turns at `now` until nothing runs.
    async fn settle(
        resolver: &mut Resolver,
        changed: &Feed,
        unresolved: &BTreeMap<ModelId, &Model>,
        now: Instant,
    ) {
        loop {
            resolver.turn(unresolved, now);
            if resolver.running.is_empty() {
                return;
            }
            tokio::time::timeout(Duration::from_secs(10), changed.changed())
                .await
                .expect("what runs says when it ended");
        }
    }

    #[tokio::test]
    async fn a_panic_is_a_failed_try_that_is_tried_again_and_holds_no_place() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let config = Config::new("http://127.0.0.1:1".parse().unwrap());
        let changed = Arc::new(Feed::default());
        let mut resolver = Resolver::new(
            crate::runtime::client(config).unwrap(),
            ClientOptions::default(),
            Arc::new(Metrics::default()),
            changed.clone(),
        );
        let models: Vec<_> = (0..RUNNING_MAX)
            .map(|nth| object(&format!("m{nth}")))
            .collect();
        let unresolved: BTreeMap<_, _> = models.iter().map(|it| (ModelId::of(it), it)).collect();
        for id in unresolved.keys() {
            resolver.start(id.clone(), async { panic!("in a resolve task") });
        }
        let now = Instant::now();
        settle(&mut resolver, &changed, &unresolved, now).await;
        for id in unresolved.keys() {
            assert_eq!(failure(&resolver, id), Some(HubReason::RegistryUnavailable));
        }
        assert!(resolver.next_try(now).is_some(), "they wait for their turn");

        let later = now + Duration::from_secs(2);
        settle(&mut resolver, &changed, &unresolved, later).await;
        for id in unresolved.keys() {
            assert_eq!(failure(&resolver, id), Some(HubReason::ImageInvalid));
        }
    }
}
