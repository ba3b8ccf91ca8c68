//! Sync sessions of Push clusters, run on the hub.
//!
//! Owns one task for each Push EdgeCluster: it reads the kubeconfig Secret in the operator's own namespace,
//! checks it, and runs the same session that a Pull cluster runs at home, told of its assignment by the hub's own
//! cache. The Secret is read when it changed or when it was refused, never by the clock. Must never decide anything
//! about a cluster; a Secret that is wrong stops its own cluster's session and no other.

mod credential;

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::{FutureExt as _, StreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::Timestamp;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client};
use rimward_core::ids::ClusterName;
use rimward_crds::reasons::HubReason;
use rimward_crds::{ClusterAssignment, ConnectionMode, EdgeCluster, SecretKeyReference};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::credential::Credential;
use super::heartbeats::ConnectionState;
use super::observe::Caches;
use super::{expiry, kubeconfig};
use crate::cache::Cache;
use crate::definitions::{self, Gate};
use crate::edge::pace::{Pace, random};
use crate::edge::session::{self, SessionOptions};
use crate::edge::unsettled::Unsettled;
use crate::metrics::{Category, Kind, Metrics};
use crate::objects::ObjectKey;
use crate::pages::Pages;
use crate::runtime;

/// How often a cluster that is not heard is looked at: why it is silent.
const LOOK: Duration = Duration::from_secs(15);
/// How long one look may take.
const LOOK_SECONDS_MAX: u64 = 10;
/// The longest wait before a Secret that could not be used is read again, though it did not change.
const READ_LONGEST: Duration = Duration::from_secs(120);
/// How long a session may take to end.
const STOP_SECONDS_MAX: u64 = 5;

/// Why a cluster cannot be dialled.
pub(crate) type Problem = (HubReason, String);

/// A Secret's name and version: its content is read when needed, and not kept.
type SecretMeta = PartialObjectMeta<Secret>;

/// All sessions. Dropping it aborts them.
pub(crate) struct PushSessions {
    link: Arc<Hub>,
    running: BTreeMap<String, Running>,
    secrets: JoinHandle<()>,
}

/// What every session shares.
struct Hub {
    client: Client,
    namespace: String,
    options: SessionOptions,
    metrics: Arc<Metrics>,
    caches: Arc<Caches>,
    secrets: Cache<SecretMeta>,
    known: Mutex<BTreeMap<String, Known>>,
}

/// What is known of one cluster's credential.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// What keeps the cluster from being dialled.
    pub(crate) problem: Option<Problem>,
    /// When its credential ends.
    pub(crate) ends: Ends,
}

/// When a credential ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Ends {
    /// It was not read since this hub leads.
    #[default]
    Unread,
    /// It does not say.
    Unsaid,
    /// Then.
    At(Timestamp),
}

struct Running {
    reference: SecretKeyReference,
    uid: Option<String>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for PushSessions {
    fn drop(&mut self) {
        self.secrets.abort();
    }
}

impl PushSessions {
    /// `namespace` is the operator's own: no other namespace's Secrets are read. Clusters whose credential is another
    /// or can be used no more are marked as changed.
    pub(crate) fn new(
        client: Client,
        namespace: String,
        options: SessionOptions,
        caches: Arc<Caches>,
    ) -> Self {
        let metrics = options.metrics.clone();
        let link = Arc::new(Hub {
            client,
            namespace,
            options,
            metrics,
            caches,
            secrets: Cache::new(Kind::Secret),
            known: Mutex::default(),
        });
        let secrets = tokio::spawn(watch_secrets(link.clone()));
        Self {
            link,
            running: BTreeMap::new(),
            secrets,
        }
    }

    /// Takes one cluster as it is seen now; none when it is gone.
    pub(crate) fn saw(&mut self, name: &str, cluster: Option<&EdgeCluster>) {
        let wanted = cluster.filter(|cluster| {
            cluster.spec.connection.mode == ConnectionMode::Push
                && cluster.metadata.deletion_timestamp.is_none()
        });
        let wanted = wanted.and_then(|cluster| {
            let reference = cluster.spec.connection.kubeconfig_secret_ref.as_ref()?;
            Some((cluster, reference, name.parse::<ClusterName>().ok()?))
        });
        if let Some(running) = self.running.get(name) {
            let stays = wanted.as_ref().is_some_and(|(cluster, reference, _)| {
                **reference == running.reference && cluster.metadata.uid == running.uid
            });
            if stays {
                return;
            }
            running.stop.cancel();
            self.running.remove(name);
            self.link.know(name, |known| *known = Known::default());
        }
        let Some((cluster, reference, parsed)) = wanted else {
            return;
        };
        let stop = CancellationToken::new();
        let work = keep_up(self.link.clone(), parsed, reference.clone(), stop.clone());
        let running = Running {
            reference: reference.clone(),
            uid: cluster.metadata.uid.clone(),
            stop,
            task: tokio::spawn(work),
        };
        self.running.insert(name.to_owned(), running);
    }

    /// What is known of a cluster's credential.
    pub(crate) fn known(&self, name: &str) -> Known {
        self.link.lock().get(name).cloned().unwrap_or_default()
    }

    /// Asks all sessions to end, and waits a little.
    pub(crate) async fn stop(&mut self) {
        for running in self.running.values() {
            running.stop.cancel();
        }
        let deadline = tokio::time::Instant::now() + Duration::from_secs(STOP_SECONDS_MAX);
        for (_, mut running) in std::mem::take(&mut self.running) {
            let _ = tokio::time::timeout_at(deadline, &mut running.task).await;
        }
    }
}

impl Hub {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is known of a cluster; the loop hears of it if it is something else than before.
    fn know(&self, name: &str, change: impl FnOnce(&mut Known)) {
        let mut all = self.lock();
        let before = all.get(name).cloned().unwrap_or_default();
        let mut now = before.clone();
        change(&mut now);
        if now == before {
            return;
        }
        if let Some((reason, message)) = now
            .problem
            .as_ref()
            .filter(|_| now.problem != before.problem)
        {
            self.metrics.failed(Category::Session);
            tracing::warn!(cluster = name, %reason, message, "push cluster");
        }
        if now == Known::default() {
            all.remove(name);
        } else {
            all.insert(name.to_owned(), now);
        }
        drop(all);
        self.caches.feed.mark([key(Kind::EdgeCluster, None, name)]);
    }

    fn set_problem(&self, name: &str, problem: Option<Problem>) {
        self.know(name, |known| known.problem = problem);
    }

    async fn kubeconfig(&self, reference: &SecretKeyReference) -> Result<Vec<u8>, Problem> {
        let SecretKeyReference { name, key } = reference;
        let at = format!("Secret {}/{name}", self.namespace);
        let invalid = |message: String| (HubReason::KubeconfigInvalid, message);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = look(secrets.get_opt(name))
            .await
            .map_err(|(_, message)| (HubReason::Unreachable, format!("{at}: {message}")))?
            .ok_or_else(|| invalid(format!("{at} does not exist")))?;
        let bytes = secret.data.and_then(|mut data| data.remove(key));
        bytes
            .map(|bytes| bytes.0)
            .ok_or_else(|| invalid(format!("{at} has no key {key}")))
    }

    async fn dial(
        &self,
        reference: &SecretKeyReference,
        kubeconfig: &[u8],
    ) -> Result<(Client, Option<Timestamp>), Problem> {
        let SecretKeyReference { name, key } = reference;
        let at = format!("Secret {}/{name}, key {key}", self.namespace);
        let invalid = |message: String| (HubReason::KubeconfigInvalid, message);
        let config = kubeconfig::config(kubeconfig)
            .await
            .map_err(|error| invalid(format!("{at}: {error}")))?;
        let expires = expiry::of(&config.auth_info);
        let client = runtime::client(config)
            .map_err(|_| invalid(format!("{at}: its certificates cannot be used")))?;
        Ok((client, expires))
    }

    /// Is the session's own heartbeat heard? It is sent only after the edge's API server answered.
    fn is_heard(&self, cluster: &ClusterName) -> bool {
        let beat = u64::from(self.options.heartbeat_seconds);
        let now = Instant::now();
        let state = self
            .caches
            .heartbeats(|beats| beats.state(cluster.as_str(), false, now));
        matches!(state, ConnectionState::Heard { seconds_ago } if seconds_ago <= 2 * beat)
    }
}

fn key(kind: Kind, namespace: Option<&str>, name: &str) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: namespace.map(str::to_owned),
        name: name.to_owned(),
    }
}

/// Follows names and versions of the Secrets in the operator's namespace, for ever.
async fn watch_secrets(hub: Arc<Hub>) {
    let api: Api<SecretMeta> = Api::namespaced(hub.client.clone(), &hub.namespace);
    let mut pages = Pages::default();
    loop {
        let config = pages.config(watcher::Config::default());
        let stream = watcher::watcher(api.clone(), config).default_backoff();
        let mut stream = std::pin::pin!(stream);
        loop {
            match stream.next().await {
                None => return,
                Some(Ok(event)) => {
                    hub.secrets.apply(guarded(event));
                }
                Some(Err(error)) => {
                    hub.metrics.watch_failed(Kind::Secret);
                    tracing::warn!(kind = ?Kind::Secret, %error, "watch");
                    if pages.halved(&error) {
                        break;
                    }
                }
            }
        }
    }
}

fn guarded(event: Event<SecretMeta>) -> Event<DeserializeGuard<SecretMeta>> {
    let guard = |object| DeserializeGuard(Ok(object));
    match event {
        Event::Apply(object) => Event::Apply(guard(object)),
        Event::Delete(object) => Event::Delete(guard(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(guard(object)),
        Event::InitDone => Event::InitDone,
    }
}

/// Bounds one request; an error becomes words, and whether it says that the credential is not taken.
async fn look<T>(
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, (bool, String)> {
    match tokio::time::timeout(Duration::from_secs(LOOK_SECONDS_MAX), request).await {
        Ok(result) => result.map_err(|error| {
            let refused = matches!(&error, kube::Error::Api(status) if status.code == 401);
            (refused, error.to_string())
        }),
        Err(_) => Err((false, format!("no answer within {LOOK_SECONDS_MAX} s"))),
    }
}

/// Keeps one cluster's session running, whatever becomes of it.
async fn keep_up(
    hub: Arc<Hub>,
    cluster: ClusterName,
    reference: SecretKeyReference,
    stop: CancellationToken,
) {
    let mut unsettled = Unsettled::new();
    loop {
        // What a panic may have left half done is dropped with the session, which owns all it touches; only its writes
        // without an answer outlive it.
        let session = keep(&hub, &cluster, &reference, &mut unsettled, &stop);
        let session = AssertUnwindSafe(session);
        if session.catch_unwind().await.is_ok() {
            return;
        }
        let message = "its session failed inside the operator, whose log says more".to_owned();
        hub.set_problem(cluster.as_str(), Some((HubReason::Unreachable, message)));
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// Keeps one cluster's session running with the kubeconfig as it stands.
async fn keep(
    hub: &Hub,
    cluster: &ClusterName,
    reference: &SecretKeyReference,
    unsettled: &mut Unsettled,
    stop: &CancellationToken,
) {
    let name = cluster.as_str();
    let mut secret = hub
        .secrets
        .follow(&key(Kind::Secret, Some(&hub.namespace), &reference.name));
    let mut pace = Pace::new(READ_LONGEST);
    while !stop.is_cancelled() {
        secret.mark_unchanged();
        let ready = async {
            let bytes = hub.kubeconfig(reference).await?;
            let (client, expires) = hub.dial(reference, &bytes).await?;
            Ok::<_, Problem>((bytes, client, expires))
        };
        match ready.await {
            Err(problem) => hub.set_problem(name, Some(problem)),
            Ok((bytes, edge, expires)) => {
                hub.know(name, |known| {
                    known.ends = expires.map_or(Ends::Unsaid, Ends::At);
                });
                let ending = stop.child_token();
                let resync = Duration::from_secs(hub.options.resync_seconds.into());
                let definitions = Gate::start(&edge, definitions::OF_AN_EDGE, resync);
                let session = while_fit(hub, cluster, &edge, &definitions, unsettled, &ending);
                let mut watching = Credential {
                    definitions: &definitions,
                    hub,
                    cluster,
                    reference,
                    bytes: &bytes,
                    edge: &edge,
                };
                let ended = watching.until_it_changes(&mut secret, stop, &mut pace);
                let mut session = std::pin::pin!(session);
                tokio::select! {
                    result = &mut session => {
                        if let Err(error) = result {
                            let problem = (HubReason::Unreachable, error.to_string());
                            hub.set_problem(name, Some(problem));
                        }
                    }
                    () = ended => {
                        ending.cancel();
                        let deadline = Duration::from_secs(STOP_SECONDS_MAX);
                        let _ = tokio::time::timeout(deadline, &mut session).await;
                        continue;
                    }
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => {}
            changed = secret.changed() => if changed.is_ok() { pace.succeeded() },
            () = tokio::time::sleep(pace.failed(random())) => {}
        }
    }
}

/// Runs sessions while the edge cluster has the definitions that they need, each time anew.
async fn while_fit(
    hub: &Hub,
    cluster: &ClusterName,
    edge: &Client,
    definitions: &Gate,
    unsettled: &mut Unsettled,
    ending: &CancellationToken,
) -> Result<(), session::SessionError> {
    let assignment = key(Kind::ClusterAssignment, None, cluster.as_str());
    while !ending.is_cancelled() {
        tokio::select! {
            () = ending.cancelled() => return Ok(()),
            () = definitions.fits(|_| ()) => {}
        }
        let options = SessionOptions {
            leadership: hub.options.leadership.beside(definitions.clone()),
            definitions: definitions.clone(),
            ..hub.options.clone()
        };
        let stop = ending.child_token();
        let session = session::run(
            hub.client.clone(),
            Some(hub.caches.follow::<ClusterAssignment>(&assignment)),
            edge.clone(),
            cluster.clone(),
            options,
            unsettled,
            stop.clone(),
        );
        let mut session = std::pin::pin!(session);
        tokio::select! {
            result = &mut session => return result,
            () = definitions.fails() => {
                stop.cancel();
                session.await?;
            }
        }
    }
    Ok(())
}
