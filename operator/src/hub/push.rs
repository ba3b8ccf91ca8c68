//! Sync sessions of Push clusters, run on the hub.
//!
//! Owns one task for each Push EdgeCluster: it reads the kubeconfig Secret in the operator's own namespace,
//! checks it, and runs the same session that a Pull cluster runs at home. Must never decide anything
//! about a cluster; a Secret that is wrong stops its own cluster's session and no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _};
use rimward_core::ids::ClusterName;
use rimward_crds::reasons::HubReason;
use rimward_crds::{ConnectionMode, EdgeCluster, SecretKeyReference};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::feed::Feed;
use super::kubeconfig;
use crate::edge::session::{self, SessionOptions};
use crate::metrics::{Category, Kind, Metrics};
use crate::objects::ObjectKey;
use crate::runtime;

/// How often the Secret and the cluster's API server are looked at.
const LOOK_SECONDS: u64 = 15;
/// How long one look may take.
const LOOK_SECONDS_MAX: u64 = 10;
/// How long a session may take to end.
const STOP_SECONDS_MAX: u64 = 5;

/// Why a cluster cannot be dialled.
pub(crate) type Problem = (HubReason, String);

/// All sessions. Dropping it aborts them.
pub(crate) struct PushSessions {
    link: Arc<Hub>,
    running: BTreeMap<String, Running>,
}

/// What every session shares.
struct Hub {
    client: Client,
    namespace: String,
    options: SessionOptions,
    metrics: Arc<Metrics>,
    changed: Arc<Feed>,
    problems: Mutex<BTreeMap<String, Problem>>,
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

impl PushSessions {
    /// `namespace` is the operator's own: no other namespace's Secrets are read. `changed` is told the
    /// cluster when a problem comes or goes.
    pub(crate) fn new(
        client: Client,
        namespace: String,
        options: SessionOptions,
        changed: Arc<Feed>,
    ) -> Self {
        let metrics = options.metrics.clone();
        Self {
            link: Arc::new(Hub {
                client,
                namespace,
                options,
                metrics,
                changed,
                problems: Mutex::default(),
            }),
            running: BTreeMap::new(),
        }
    }

    /// Starts sessions of new Push clusters, ends those of clusters that are gone or changed.
    pub(crate) fn turn<'a>(&mut self, clusters: impl Iterator<Item = &'a EdgeCluster>) {
        let wanted: BTreeMap<String, (&EdgeCluster, &SecretKeyReference)> = clusters
            .filter(|cluster| {
                cluster.spec.connection.mode == ConnectionMode::Push
                    && cluster.metadata.deletion_timestamp.is_none()
            })
            .filter_map(|cluster| {
                let reference = cluster.spec.connection.kubeconfig_secret_ref.as_ref()?;
                Some((cluster.name_any(), (cluster, reference)))
            })
            .collect();
        let link = &self.link;
        self.running.retain(|name, running| {
            let stays = wanted.get(name).is_some_and(|(cluster, reference)| {
                **reference == running.reference
                    && cluster.metadata.uid == running.uid
                    && !running.task.is_finished()
            });
            if !stays {
                running.stop.cancel();
                link.set_problem(name, None);
            }
            stays
        });
        for (name, (cluster, reference)) in wanted {
            if self.running.contains_key(&name) {
                continue;
            }
            let Ok(parsed) = name.parse::<ClusterName>() else {
                continue;
            };
            let stop = CancellationToken::new();
            let work = keep(self.link.clone(), parsed, reference.clone(), stop.clone());
            let running = Running {
                reference: reference.clone(),
                uid: cluster.metadata.uid.clone(),
                stop,
                task: tokio::spawn(work),
            };
            self.running.insert(name, running);
        }
    }

    /// What keeps clusters from being dialled, by name.
    pub(crate) fn problems(&self) -> BTreeMap<String, Problem> {
        let problems = &self.link.problems;
        problems
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
    fn set_problem(&self, name: &str, problem: Option<Problem>) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        let same = problems.get(name) == problem.as_ref();
        if same {
            return;
        }
        if let Some((reason, message)) = &problem {
            self.metrics.failed(Category::Session);
            tracing::warn!(cluster = name, %reason, message, "push cluster");
        }
        match problem {
            Some(problem) => problems.insert(name.to_owned(), problem),
            None => problems.remove(name),
        };
        self.changed.mark([ObjectKey {
            kind: Kind::EdgeCluster,
            namespace: None,
            name: name.to_owned(),
        }]);
    }

    async fn kubeconfig(&self, reference: &SecretKeyReference) -> Result<Vec<u8>, Problem> {
        let SecretKeyReference { name, key } = reference;
        let at = format!("Secret {}/{name}", self.namespace);
        let invalid = |message: String| (HubReason::KubeconfigInvalid, message);
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let secret = look(secrets.get_opt(name))
            .await
            .map_err(|message| (HubReason::Unreachable, format!("{at}: {message}")))?
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
    ) -> Result<Client, Problem> {
        let SecretKeyReference { name, key } = reference;
        let at = format!("Secret {}/{name}, key {key}", self.namespace);
        let invalid = |message: String| (HubReason::KubeconfigInvalid, message);
        let config = kubeconfig::config(kubeconfig)
            .await
            .map_err(|error| invalid(format!("{at}: {error}")))?;
        runtime::client(config)
            .map_err(|_| invalid(format!("{at}: its certificates cannot be used")))
    }
}

/// Bounds one request; an error becomes words.
async fn look<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match tokio::time::timeout(Duration::from_secs(LOOK_SECONDS_MAX), request).await {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {LOOK_SECONDS_MAX} s")),
    }
}

/// Keeps one cluster's session running with the kubeconfig as it stands.
async fn keep(
    hub: Arc<Hub>,
    cluster: ClusterName,
    reference: SecretKeyReference,
    stop: CancellationToken,
) {
    while !stop.is_cancelled() {
        let ready = async {
            let bytes = hub.kubeconfig(&reference).await?;
            let client = hub.dial(&reference, &bytes).await?;
            Ok::<_, Problem>((bytes, client))
        };
        match ready.await {
            Err(problem) => hub.set_problem(cluster.as_str(), Some(problem)),
            Ok((bytes, edge)) => {
                let ending = stop.child_token();
                let session = session::run(
                    hub.client.clone(),
                    None,
                    edge.clone(),
                    cluster.clone(),
                    hub.options.clone(),
                    ending.clone(),
                );
                let watch = until_it_changes(&hub, &cluster, &reference, &bytes, &edge, &stop);
                let mut session = std::pin::pin!(session);
                tokio::select! {
                    result = &mut session => {
                        if let Err(error) = result {
                            let problem = (HubReason::Unreachable, error.to_string());
                            hub.set_problem(cluster.as_str(), Some(problem));
                        }
                    }
                    () = watch => {
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
            () = tokio::time::sleep(Duration::from_secs(LOOK_SECONDS)) => {}
        }
    }
}

/// Returns when the kubeconfig is another one or cannot be used any more, or when asked to stop. Meanwhile says
/// whether the cluster's API server answers.
async fn until_it_changes(
    hub: &Hub,
    cluster: &ClusterName,
    reference: &SecretKeyReference,
    bytes: &[u8],
    edge: &Client,
    stop: &CancellationToken,
) {
    loop {
        match hub.kubeconfig(reference).await {
            Ok(now) if now != bytes => return,
            Err((HubReason::KubeconfigInvalid, _)) => return,
            // The hub's own API server is slow: no reason to end a session.
            Ok(_) | Err(_) => {}
        }
        let problem = look(edge.apiserver_version()).await.err().map(|message| {
            let message = format!("its API server: {message}");
            (HubReason::Unreachable, message)
        });
        hub.set_problem(cluster.as_str(), problem);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(LOOK_SECONDS)) => {}
        }
    }
}
