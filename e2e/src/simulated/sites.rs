//! All simulated sites of one hub: making them known, running their sessions, steering them.
//!
//! Owns what sites share: one pool of connections, how many requests are under way at once, faults, counts.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures::future::BoxFuture;
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::client::Body;
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use rimward_core::ids::DeploymentKey;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::faults::{Faults, Reach, Timing};
use super::noted::{Noted, Notes};
use super::session::{CLUSTERS_NAMESPACE, Session};
use super::site::Site;
use crate::control_plane::ControlPlane;
use crate::wait::{Seen, wait_for};

/// Requests under way at once, watches aside: as many connections as they share.
const TURNS: usize = 64;
/// Objects that are made at once.
const MAKING: usize = 16;
/// Group that all simulated sites are in; its rights are those of a joined cluster, for all names.
const GROUP: &str = "rimward:simulated-sites";

/// How many sites, and how they are.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many.
    pub sites: usize,
    /// What their names begin with; without the dash at its end it is their label `fleet`.
    pub prefix: String,
    /// How many of them, from the first, have the label `ring: canary`; the others have `ring: main`.
    pub canaries: usize,
    /// Nodes of each.
    pub nodes: usize,
    /// How fast they are.
    pub timing: Timing,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            sites: 1,
            prefix: "site-".to_owned(),
            canaries: 1,
            nodes: 1,
            timing: Timing::default(),
        }
    }
}

/// What sessions did so far.
#[derive(Debug, Default)]
pub struct Counted {
    /// Heartbeats that the hub took.
    pub beats: AtomicU64,
    /// Statuses that the hub took.
    pub reports: AtomicU64,
    /// Watches that had listed everything.
    pub lists: AtomicU64,
    /// Requests that failed.
    pub failures: AtomicU64,
}

/// What all sessions share.
pub(super) struct Shared {
    pub(super) timing: Timing,
    pub(super) turns: Semaphore,
    pub(super) counted: Counted,
    faults: RwLock<Arc<Faults>>,
    pub(super) notes: Notes,
    last_failure: Mutex<String>,
}

impl Shared {
    pub(super) fn faults(&self) -> Arc<Faults> {
        let faults = self.faults.read().unwrap_or_else(PoisonError::into_inner);
        faults.clone()
    }

    pub(super) fn failed(&self, site: &str, what: &str, error: &anyhow::Error) {
        self.counted.failures.fetch_add(1, Ordering::Relaxed);
        let mut last = self
            .last_failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *last = format!("{site}: {what}: {error:#}");
    }
}

/// All sites. Dropping it stops every session at once.
pub struct Sites {
    sessions: Vec<Arc<Session>>,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl std::fmt::Debug for Sites {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} simulated sites", self.sessions.len())
    }
}

impl Sites {
    /// Makes the sites known to a hub as `kubectl rimward cluster add` does, their accounts aside, and starts their
    /// sessions.
    ///
    /// # Errors
    /// When the hub refuses an object.
    pub async fn start(hub: &ControlPlane, plan: &Plan) -> Result<Self> {
        let client = client(hub).await?;
        let names = names(plan);
        declare(&client, plan, &names).await?;
        let shared = Arc::new(Shared {
            timing: plan.timing,
            turns: Semaphore::new(TURNS),
            counted: Counted::default(),
            faults: RwLock::default(),
            notes: Notes::default(),
            last_failure: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let mut sessions = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            let nodes = (0..plan.nodes).map(|node| format!("n{node}").parse());
            let nodes: Vec<_> = nodes.collect::<Result<_, _>>().context("a node's name")?;
            let client = as_site(&client, &name)?;
            let site = Site::new(nodes.into_iter());
            let session = Arc::new(Session::new(name, index, site, client, shared.clone()));
            tasks.spawn(session.clone().run());
            sessions.push(session);
        }
        Ok(Self {
            sessions,
            shared,
            _tasks: tasks,
        })
    }

    /// Makes the sites known, and runs no session: they never joined.
    ///
    /// # Errors
    /// When the hub refuses an object.
    pub async fn declare_only(hub: &ControlPlane, plan: &Plan) -> Result<Self> {
        declare(&client(hub).await?, plan, &names(plan)).await?;
        let none = Plan {
            sites: 0,
            ..plan.clone()
        };
        Self::start(hub, &none).await
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// The name of one.
    ///
    /// # Errors
    /// When there are fewer.
    pub fn name(&self, index: usize) -> Result<&str> {
        let session = self.sessions.get(index);
        Ok(&session.with_context(|| format!("no site {index}"))?.name)
    }

    /// Cuts the line of some, or connects them again. Those that come back from the dead have all their nodes, and what
    /// these died of in a trial is tried again; a node that lies dead in a site that was only offline stays so.
    pub fn reach(&self, which: impl Fn(usize) -> bool, reach: Reach) {
        for session in self.sessions.iter().filter(|it| which(it.index)) {
            // Under the lock: a round that is under way could still find that it dies.
            let mut site = session.lock();
            if *session.reach.borrow() == Reach::Dead && reach != Reach::Dead {
                site.revive(session.now());
            }
            session.reach.send_replace(reach);
        }
    }

    /// Takes the power of one node of a site, or gives it back.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn power(&self, index: usize, node: usize, on: bool) -> Result<()> {
        let session = self.sessions.get(index).context("no such site")?;
        session.lock().power(node, on, session.now())?;
        session.wake();
        Ok(())
    }

    /// Whether a site is to be reached.
    ///
    /// # Errors
    /// When there is no such site.
    pub fn reach_of(&self, index: usize) -> Result<Reach> {
        let session = self.sessions.get(index).context("no such site")?;
        Ok(*session.reach.borrow())
    }

    /// How many sites are in each state: connected, offline, dead.
    #[must_use]
    pub fn reached(&self) -> (usize, usize, usize) {
        let count = |reach: Reach| {
            let mut sessions = self.sessions.iter();
            sessions
                .by_ref()
                .filter(|it| *it.reach.borrow() == reach)
                .count()
        };
        (
            count(Reach::Connected),
            count(Reach::Offline),
            count(Reach::Dead),
        )
    }

    /// Changes what releases do to sites from now on.
    pub fn change_faults(&self, change: impl FnOnce(&mut Faults)) {
        {
            let mut faults = self
                .shared
                .faults
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            let mut changed = Faults::clone(&faults);
            change(&mut changed);
            *faults = Arc::new(changed);
        }
        self.sessions.iter().for_each(|session| session.wake());
    }

    /// Every connected site sends a heartbeat now.
    pub fn beat(&self) {
        self.sessions.iter().for_each(|session| session.beat());
    }

    /// What sessions did so far.
    #[must_use]
    pub fn counted(&self) -> &Counted {
        &self.shared.counted
    }

    /// The last request that failed, and how.
    #[must_use]
    pub fn last_failure(&self) -> String {
        let last = self.shared.last_failure.lock();
        last.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The revision that every node of a site that answers serves of a deployment, if it is one.
    ///
    /// # Errors
    /// When there is no such site, or a name is none.
    pub fn serves(&self, index: usize, namespace: &str, name: &str) -> Result<Option<String>> {
        let key = DeploymentKey::parse(namespace, name)?;
        let session = self.sessions.get(index).context("no such site")?;
        Ok(session.lock().serves(&key).map(ToString::to_string))
    }

    /// Sites on which a revision ever came to a node.
    #[must_use]
    pub fn exposed_to(&self, revision: &str) -> Vec<usize> {
        let sessions = self.sessions.iter();
        sessions
            .filter(|session| session.lock().was_exposed_to(revision))
            .map(|session| session.index)
            .collect()
    }

    /// Begins to note each order as it comes. One at a time: a second one takes over from the first.
    #[must_use]
    pub fn note_orders(&self) -> Noted<'_> {
        self.shared.notes.begin()
    }

    /// How often a site's watch has listed everything, and how many of its heartbeats were taken.
    ///
    /// # Errors
    /// When there is no such site.
    pub fn listed_and_beat(&self, index: usize) -> Result<(u64, u64)> {
        let session = self.sessions.get(index).context("no such site")?;
        Ok((
            session.lists.load(Ordering::Relaxed),
            session.beaten.load(Ordering::Relaxed),
        ))
    }

    /// Waits until every site's watch has listed its assignment, and every site sent a heartbeat.
    ///
    /// # Errors
    /// When the time passes: quotes the last request that failed.
    pub async fn wait_until_joined(&self, within: Duration) -> Result<()> {
        let all = self.sessions.len() as u64;
        wait_for("every site to join", within, async || {
            let counted = &self.shared.counted;
            let [lists, beats] =
                [&counted.lists, &counted.beats].map(|it| it.load(Ordering::Relaxed));
            Ok(if lists >= all && beats >= all {
                Seen::Done(())
            } else {
                let failure = self.last_failure();
                Seen::NotYet(format!("{lists} lists, {beats} beats of {all}; {failure}"))
            })
        })
        .await
    }
}

/// The client that all sites' requests go through: its user may speak in the name of others.
async fn client(hub: &ControlPlane) -> Result<Client> {
    let kubeconfig = hub.user_kubeconfig("sites", "simulated-sites", &["system:masters"])?;
    crate::control_plane::client(&kubeconfig).await
}

fn names(plan: &Plan) -> Vec<String> {
    let prefix = &plan.prefix;
    let names = (0..plan.sites).map(|index| format!("{prefix}{index:04}"));
    names.collect()
}

/// A client of a site's own user over the connections of another.
fn as_site(client: &Client, name: &str) -> Result<Client> {
    let user = format!("simulated:{name}");
    let headers = [
        ("impersonate-user", user.as_str()),
        ("impersonate-group", GROUP),
    ]
    .into_iter()
    .map(|(header, value)| Ok((header, value.parse()?)))
    .collect::<Result<Vec<_>>>()?;
    let service = AsUser {
        client: client.clone(),
        headers,
    };
    Ok(Client::new(service, "default"))
}

/// Sends requests in another's name.
struct AsUser {
    client: Client,
    headers: Vec<(&'static str, hyper::header::HeaderValue)>,
}

impl tower::Service<hyper::Request<Body>> for AsUser {
    type Response = hyper::Response<Body>;
    type Error = kube::Error;
    type Future = BoxFuture<'static, Result<hyper::Response<Body>, kube::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), kube::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: hyper::Request<Body>) -> Self::Future {
        for (name, value) in &self.headers {
            request.headers_mut().insert(*name, value.clone());
        }
        let client = self.client.clone();
        Box::pin(async move { client.send(request).await })
    }
}

/// EdgeClusters, Leases, and the rights of the group.
async fn declare(client: &Client, plan: &Plan, names: &[String]) -> Result<()> {
    for object in rights() {
        make(client, &object).await?;
    }
    let sites = names.iter().enumerate().map(|(index, name)| async move {
        let ring = if index < plan.canaries { "canary" } else { "main" };
        let number = index.to_string();
        let fleet = plan.prefix.trim_end_matches('-');
        let labels = BTreeMap::from([("ring", ring), ("number", &number), ("fleet", fleet)]);
        make(
            client,
            &json!({
                "apiVersion": "rimward.dev/v1alpha1", "kind": "EdgeCluster",
                "metadata": {"name": name, "labels": labels}, "spec": {"connection": {"mode": "Pull"}},
            }),
        )
        .await?;
        make(
            client,
            &json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": name, "namespace": CLUSTERS_NAMESPACE},
            }),
        )
        .await
    });
    let making = futures::stream::iter(sites).buffer_unordered(MAKING);
    making.try_collect::<()>().await
}

/// The rights that `cluster add` gives each account for its own name, for all names: a thousand roles would tell
/// nothing about the hub.
fn rights() -> Vec<Value> {
    let version = "rbac.authorization.k8s.io/v1";
    let name = "rimward-simulated-sites";
    let subjects =
        json!([{"kind": "Group", "name": GROUP, "apiGroup": "rbac.authorization.k8s.io"}]);
    let binding = |kind: &str, namespace: Option<&str>, role: &str| {
        json!({
            "apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": name},
            "subjects": subjects,
        })
    };
    vec![
        json!({
            "apiVersion": version, "kind": "ClusterRole", "metadata": {"name": name},
            "rules": [
                {"apiGroups": ["rimward.dev"], "resources": ["clusterassignments"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["rimward.dev"], "resources": ["clusterassignments/status"], "verbs": ["get", "patch"]},
            ],
        }),
        binding("ClusterRoleBinding", None, "ClusterRole"),
        json!({
            "apiVersion": version, "kind": "Role",
            "metadata": {"name": name, "namespace": CLUSTERS_NAMESPACE},
            "rules": [{"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "patch"]}],
        }),
        binding("RoleBinding", Some(CLUSTERS_NAMESPACE), "Role"),
    ]
}

async fn make(client: &Client, object: &Value) -> Result<()> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
    let (version, kind) = (text("/apiVersion"), text("/kind"));
    let (version, kind) = (version.unwrap_or_default(), kind.unwrap_or_default());
    let name = text("/metadata/name").unwrap_or_default();
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let api: Api<DynamicObject> = match text("/metadata/namespace") {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams::apply("rimward-cli").force();
    api.patch(name, &params, &Patch::Apply(object))
        .await
        .with_context(|| format!("{kind} {name}"))?;
    Ok(())
}
