//! Whether the API server has the definitions that this operator was built for, so whether anything may be written.
//!
//! Owns the looks: each definition is asked for by name, metadata only. They are looked at again before a write if
//! the last look is some seconds old, whenever something vanished or was listed anew, and by the clock: at rest that
//! is a look in five resyncs. Nothing that was decided on objects that vanished is written before a look that began
//! after they did: deleting a definition deletes its objects, and nobody ordered that. What follows from what is found
//! is `rimward_core::definitions`'s to say.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use rimward_core::definitions::{Found, Standing, judge};
use rimward_crds::revision;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use crate::probes::Readiness;

/// What the hub role reads and writes.
pub(crate) const OF_THE_HUB: &[&str] = &[
    "clusterassignments.rimward.dev",
    "edgeclusters.rimward.dev",
    "modeldeployments.rimward.dev",
    "modelrevisions.rimward.dev",
    "models.rimward.dev",
    "rolloutactions.rimward.dev",
    "rolloutpolicies.rimward.dev",
];
/// What a session reads and writes in its edge cluster.
pub(crate) const OF_AN_EDGE: &[&str] = &["clusterassignments.rimward.dev", "edgenodes.rimward.dev"];

/// A look that is older than this is followed by another when somebody writes.
const FRESH: Duration = Duration::from_secs(5);
/// A look that is older than this is waited out before a write.
const STALE: Duration = Duration::from_secs(15);
/// The shortest time between two looks, whatever asks for them.
const GAP: Duration = Duration::from_millis(200);
/// Between two looks while something is amiss.
const AMISS: Duration = Duration::from_secs(5);
/// Between two looks that got no answer.
const RETRY: Duration = Duration::from_secs(2);
/// How long one look may take.
const LOOK_SECONDS_MAX: u64 = 10;
/// How long a write waits for a look.
const WRITE_WAITS: Duration = Duration::from_secs(12);
/// An API server serves a definition some moments after it took it.
const SETTLE: Duration = Duration::from_secs(2);

/// Lets writes pass while the definitions fit. Clones share one.
#[derive(Clone, Debug)]
pub(crate) struct Gate(Option<Arc<Shared>>);

#[derive(Debug)]
struct Shared {
    state: watch::Sender<State>,
    /// How many reasons there were to look again.
    doubts: AtomicU64,
    look: Notify,
    task: std::sync::OnceLock<AbortHandle>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if let Some(task) = self.task.get() {
            task.abort();
        }
    }
}

/// What the last looks told.
#[derive(Clone, Debug)]
struct State {
    /// None before the first answer.
    standing: Option<Standing>,
    /// The doubts that the last answered look came after.
    doubts: u64,
    /// When that look began.
    at: Instant,
    /// Why the look after it had no answer.
    problem: Option<String>,
    /// When each definition was made.
    born: BTreeMap<&'static str, Time>,
}

/// One definition as it was found.
struct Seen {
    name: &'static str,
    found: Found,
    /// Which one it is.
    uid: Option<String>,
    born: Option<Time>,
}

impl Gate {
    /// Looks at these definitions until nobody has the gate any more.
    pub(crate) fn start(client: &Client, names: &'static [&'static str], resync: Duration) -> Self {
        let (state, _) = watch::channel(State {
            standing: None,
            doubts: 0,
            at: Instant::now(),
            problem: None,
            born: BTreeMap::new(),
        });
        let shared = Arc::new(Shared {
            state,
            doubts: AtomicU64::new(0),
            look: Notify::new(),
            task: std::sync::OnceLock::new(),
        });
        let looker = Looker {
            api: Api::all(client.clone()),
            names,
            at_rest: resync * 5,
            uids: None,
            born: BTreeMap::new(),
            told: None,
        };
        let task = tokio::spawn(looker.run(Arc::downgrade(&shared)));
        let _ = shared.task.set(task.abort_handle());
        Self(Some(shared))
    }

    /// One that is always open.
    #[cfg(test)]
    pub(crate) const fn open() -> Self {
        Self(None)
    }

    /// Something vanished, or was listed anew: whatever follows from that waits for another look.
    pub(crate) fn doubt(&self) {
        if let Some(shared) = &self.0 {
            shared.doubts.fetch_add(1, Ordering::AcqRel);
            shared.look.notify_one();
        }
    }

    /// Returns once something may be written, or says why not.
    ///
    /// # Errors
    /// In words, when a definition does not fit, or no look had an answer in time.
    pub(crate) async fn pass(&self) -> Result<(), String> {
        let Some(shared) = &self.0 else {
            return Ok(());
        };
        let doubts = shared.doubts.load(Ordering::Acquire);
        let mut states = shared.state.subscribe();
        let passed = async {
            loop {
                {
                    let state = states.borrow_and_update();
                    let age = state.at.elapsed();
                    match &state.standing {
                        Some(Standing::Unfit(words)) => return Err(words.clone()),
                        Some(Standing::Fit(_)) if state.doubts >= doubts && age < STALE => {
                            if age > FRESH {
                                shared.look.notify_one();
                            }
                            return Ok(());
                        }
                        _ => {}
                    }
                }
                shared.look.notify_one();
                if states.changed().await.is_err() {
                    return Err("the operator stops".to_owned());
                }
            }
        };
        match tokio::time::timeout(WRITE_WAITS, passed).await {
            Ok(result) => result,
            Err(_) => Err(self.words()),
        }
    }

    /// Returns once the definitions fit; meanwhile `on` is told why not.
    pub(crate) async fn fits(&self, mut on: impl FnMut(String)) {
        let Some(shared) = &self.0 else {
            return;
        };
        let mut states = shared.state.subscribe();
        loop {
            if matches!(states.borrow_and_update().standing, Some(Standing::Fit(_))) {
                return;
            }
            on(self.words());
            if states.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// What is amiss, if the last look found something.
    pub(crate) fn unfit(&self) -> Option<String> {
        let shared = self.0.as_ref()?;
        match &shared.state.borrow().standing {
            Some(Standing::Unfit(words)) => Some(words.clone()),
            _ => None,
        }
    }

    /// Returns once something else is amiss than now.
    pub(crate) async fn turns(&self) {
        let Some(shared) = &self.0 else {
            return std::future::pending().await;
        };
        let now = self.unfit();
        let other = |state: &State| match &state.standing {
            Some(Standing::Unfit(words)) => now.as_ref() != Some(words),
            _ => now.is_some(),
        };
        if shared.state.subscribe().wait_for(other).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Returns once the definitions do not fit.
    pub(crate) async fn fails(&self) {
        let Some(shared) = &self.0 else {
            return std::future::pending().await;
        };
        let unfit = |state: &State| matches!(state.standing, Some(Standing::Unfit(_)));
        if shared.state.subscribe().wait_for(unfit).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// When a definition was made, as of the last look. Objects that are older were made under another one, which was
    /// deleted, and all of its objects with it.
    pub(crate) fn born(&self, name: &str) -> Option<Time> {
        let shared = self.0.as_ref()?;
        shared.state.borrow().born.get(name).cloned()
    }

    /// Why nothing may be written.
    pub(crate) fn words(&self) -> String {
        let state = self.0.as_ref().map(|shared| shared.state.borrow().clone());
        let words = state.and_then(|state| match (state.standing, state.problem) {
            (Some(Standing::Unfit(words)), _) | (_, Some(words)) => Some(words),
            _ => None,
        });
        words.unwrap_or_else(|| "CustomResourceDefinitions were not looked at yet".to_owned())
    }
}

/// Does `work` while the definitions fit, each time anew, until it ends by itself or `shutdown`. Whatever it knew of
/// objects is dropped with it: they may have been read without some of their fields, or have vanished.
///
/// # Errors
/// What `work` failed with.
pub(crate) async fn while_fit<F, Fut>(
    gate: &Gate,
    readiness: &Readiness,
    shutdown: &CancellationToken,
    mut work: F,
) -> anyhow::Result<()>
where
    F: FnMut(CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = gate.fits(|words| readiness.unset(words)) => {}
        }
        readiness.unset("caches are not filled yet".to_owned());
        let stop = shutdown.child_token();
        let mut work = pin!(work(stop.clone()));
        tokio::select! {
            result = &mut work => return result,
            () = gate.fails() => {
                readiness.unset(gate.words());
                stop.cancel();
                work.await?;
            }
        }
    }
}

struct Looker {
    api: Api<PartialObjectMeta<CustomResourceDefinition>>,
    names: &'static [&'static str],
    at_rest: Duration,
    /// Which definitions they were at the last look that was answered.
    uids: Option<Vec<Option<String>>>,
    born: BTreeMap<&'static str, Time>,
    /// What was said last.
    told: Option<String>,
}

impl Looker {
    async fn run(mut self, shared: std::sync::Weak<Shared>) {
        loop {
            let Some(here) = shared.upgrade() else {
                return;
            };
            let doubts = here.doubts.load(Ordering::Acquire);
            let (at, before) = (Instant::now(), here.state.borrow().standing.clone());
            let wait = match self.look().await {
                Ok(mut standing) => {
                    let was_amiss = matches!(before, Some(Standing::Unfit(_)));
                    if was_amiss && matches!(standing, Standing::Fit(_)) {
                        tokio::time::sleep(SETTLE).await;
                        // As it is once it is served.
                        standing = self.look().await.unwrap_or(standing);
                    }
                    self.tell(&standing, was_amiss);
                    let fits = matches!(standing, Standing::Fit(_));
                    here.state.send_replace(State {
                        standing: Some(standing),
                        doubts,
                        at,
                        problem: None,
                        born: self.born.clone(),
                    });
                    if fits { self.at_rest } else { AMISS }
                }
                Err(words) => {
                    here.state.send_modify(|state| state.problem = Some(words));
                    RETRY
                }
            };
            tokio::time::sleep(GAP).await;
            let asked = async { here.look.notified().await };
            let _ = tokio::time::timeout(wait, asked).await;
        }
    }

    /// Asks for all of them at once.
    async fn look(&mut self) -> Result<Standing, String> {
        let looks = try_join_all(self.names.iter().map(|name| find(&self.api, name)));
        let longest = Duration::from_secs(LOOK_SECONDS_MAX);
        let seen = match tokio::time::timeout(longest, looks).await {
            Ok(seen) => seen.map_err(|error| format!("CustomResourceDefinitions: {error}"))?,
            Err(_) => {
                return Err(format!(
                    "CustomResourceDefinitions: no answer within {LOOK_SECONDS_MAX} s"
                ));
            }
        };
        let uids = seen.iter().map(|it| it.uid.clone()).collect();
        let before = self.uids.replace(uids);
        let born = seen
            .iter()
            .filter_map(|it| Some((it.name, it.born.clone()?)));
        self.born = born.collect();
        // Deleted and made anew between two looks: what vanished meanwhile was deleted by nobody either.
        let anew = before
            .into_iter()
            .flatten()
            .zip(&seen)
            .find_map(|(before, now)| {
                let other = before.is_some() && now.uid.is_some() && before != now.uid;
                other.then_some(now.name)
            });
        Ok(match anew {
            Some(name) => Standing::Unfit(format!(
                "CustomResourceDefinition {name} was deleted and made anew: all is read again"
            )),
            None => judge(
                seen.iter().map(|it| (it.name, it.found)),
                revision::REVISION,
            ),
        })
    }

    /// One line each time that something else is to be said.
    fn tell(&mut self, standing: &Standing, was_amiss: bool) {
        let words = match standing {
            Standing::Fit(words) => words.clone(),
            Standing::Unfit(words) => Some(words.clone()),
        };
        if words != self.told {
            match (standing, &words) {
                (Standing::Unfit(words), _) => tracing::error!("{words}"),
                (Standing::Fit(_), Some(words)) => tracing::warn!("{words}"),
                (Standing::Fit(_), None) => {}
            }
            self.told = words;
        }
        if was_amiss && matches!(standing, Standing::Fit(_)) {
            tracing::info!("CustomResourceDefinitions are as they should be: going on");
        }
    }
}

async fn find(
    api: &Api<PartialObjectMeta<CustomResourceDefinition>>,
    name: &'static str,
) -> Result<Seen, kube::Error> {
    let none = |found| Seen {
        name,
        found,
        uid: None,
        born: None,
    };
    match api.get(name).await {
        Ok(object) => {
            let metadata = object.metadata;
            let found = match metadata.deletion_timestamp {
                Some(_) => Found::Leaving,
                None => Found::There(revision::of(&metadata)),
            };
            Ok(Seen {
                name,
                found,
                uid: metadata.uid,
                born: metadata.creation_timestamp,
            })
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(none(Found::Missing)),
        Err(kube::Error::Api(status)) if status.code == 403 => Ok(none(Found::Hidden)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
#[path = "definitions_tests.rs"]
mod tests;
