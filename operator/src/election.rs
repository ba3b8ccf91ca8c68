//! One leader among replicas, by a Lease.
//!
//! Owns the leader's Lease. A replica judges the holder by its *own* monotonic time since the Lease last
//! changed, never by comparing clocks (docs/adr/0021). The leader's work is dropped when renewing failed for two
//! thirds of the Lease's time, so that it stops before another can begin.
//!
//! The Lease has a thread, a runtime and connections of its own: however long the work keeps every other thread
//! busy, it is renewed. Must never share a task with the work.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::metrics::{Category, Metrics};

/// How long giving the Lease back at the end may take.
const RELEASE_SECONDS_MAX: u64 = 3;

/// Where and as whom to stand for election.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// Namespace of the Lease.
    pub(crate) namespace: String,
    /// Name of the Lease.
    pub(crate) lease: String,
    /// Name of this replica.
    pub(crate) identity: String,
    /// How long the Lease lasts without being renewed, at least 3.
    pub(crate) lease_seconds: u32,
}

/// What to do with the Lease as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is not there.
    Create,
    /// It is ours, or nobody's, or its holder is silent for too long.
    Write,
    /// Somebody else has it.
    Wait,
}

/// When the Lease was last seen to change, by our own time.
#[derive(Clone, Debug, Default)]
struct Seen {
    mark: Option<(Option<String>, Option<MicroTime>)>,
    at: Option<Instant>,
}

impl Seen {
    fn step(&mut self, lease: Option<&Lease>, me: &str, lasts: Duration, now: Instant) -> Step {
        let Some(spec) = lease.map(|lease| lease.spec.clone().unwrap_or_default()) else {
            return Step::Create;
        };
        let mark = (spec.holder_identity.clone(), spec.renew_time.clone());
        if self.mark.as_ref() != Some(&mark) {
            self.mark = Some(mark);
            self.at = Some(now);
        }
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == me {
            return Step::Write;
        }
        // The holder may have been started with a longer time than we were.
        let its = u64::try_from(spec.lease_duration_seconds.unwrap_or(0)).unwrap_or(0);
        let silent = self.at.map_or(Duration::ZERO, |at| now.duration_since(at));
        if silent > lasts.max(Duration::from_secs(its)) {
            return Step::Write;
        }
        Step::Wait
    }
}

/// One time in the lead.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    /// Cancelled when the process shall stop.
    pub(crate) stop: CancellationToken,
    /// Counts the times in the lead: who lost it and won it again meanwhile is another leader.
    term: u64,
    until: Until,
}

impl Leadership {
    /// Says whether another replica cannot lead yet. To be asked before each write: whoever was kept from running, by
    /// a long piece of work or with the whole process, may learn of the loss only later.
    pub(crate) fn holds(&self) -> bool {
        let until = self.until.get();
        until.is_some_and(|(term, until)| term == self.term && Instant::now() < until)
    }

    /// One that does not end.
    #[cfg(test)]
    pub(crate) fn endless() -> Self {
        let until = Until::default();
        until.set(Some((0, Instant::now() + Duration::from_secs(86_400))));
        Self {
            stop: CancellationToken::new(),
            term: 0,
            until,
        }
    }

    /// One that is over.
    #[cfg(test)]
    pub(crate) fn ended() -> Self {
        Self {
            term: 1,
            ..Self::endless()
        }
    }
}

/// In which term this replica leads, and until when if its Lease is not renewed again; none while it does not.
#[derive(Clone, Debug, Default)]
struct Until(Arc<Mutex<Option<(u64, Instant)>>>);

impl Until {
    fn get(&self) -> Option<(u64, Instant)> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, until: Option<(u64, Instant)>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = until;
    }
}

/// Stands for election until `shutdown`, and does `work` while leading. `work` gets a token that is
/// cancelled when the process shall stop; when leadership is lost its future is dropped as soon as it waits for
/// anything. `connect` makes the client for the Lease. `standing_by` is called whenever the API server answered that
/// somebody else leads.
///
/// # Errors
/// What `work` failed with, or `connect`. API errors only delay.
pub(crate) async fn lead<C, F, Fut>(
    connect: C,
    candidate: Candidate,
    metrics: &Arc<Metrics>,
    standing_by: impl Fn() + Send + 'static,
    shutdown: &CancellationToken,
    mut work: F,
) -> anyhow::Result<()>
where
    C: Future<Output = anyhow::Result<Client>> + Send + 'static,
    F: FnMut(Leadership) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let identity = candidate.identity.clone();
    let until = Until::default();
    let (says, mut leads) = watch::channel(None);
    let (ended, end) = oneshot::channel();
    let give_back = CancellationToken::new();
    // Whatever becomes of this future, the thread ends.
    let _guard = give_back.clone().drop_guard();
    let thread = Thread {
        candidate,
        metrics: metrics.clone(),
        until: until.clone(),
        says,
        give_back: give_back.clone(),
    };
    std::thread::Builder::new()
        .name("lease".to_owned())
        .spawn(move || {
            let result = thread.run(connect, standing_by);
            let _ = ended.send(result);
        })
        .context("the Lease's thread")?;
    let result = loop {
        let won = tokio::select! {
            () = shutdown.cancelled() => break Ok(()),
            won = leads.wait_for(Option::is_some) => won.ok().and_then(|won| *won),
        };
        let Some(term) = won else {
            break Ok(());
        };
        tracing::info!(identity, "leads");
        metrics.set_leader(true);
        let leadership = Leadership {
            stop: shutdown.child_token(),
            term,
            until: until.clone(),
        };
        let result = tokio::select! {
            biased;
            _ = leads.wait_for(|leads| *leads != Some(term)) => None,
            result = work(leadership) => Some(result),
        };
        metrics.set_leader(false);
        if let Some(result) = result {
            break result;
        }
        tracing::warn!(identity, "lost the lead; work stopped");
    };
    give_back.cancel();
    let thread = end.await.context("the Lease's thread ended by itself")?;
    result.and(thread)
}

/// What stands for election, on a thread of its own.
struct Thread {
    candidate: Candidate,
    metrics: Arc<Metrics>,
    until: Until,
    /// The term in which this replica leads.
    says: watch::Sender<Option<u64>>,
    give_back: CancellationToken,
}

impl Thread {
    fn run(
        self,
        connect: impl Future<Output = anyhow::Result<Client>>,
        standing_by: impl Fn(),
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("asynchronous runtime of the Lease")?;
        runtime.block_on(async {
            // Made here: a client's connections are driven by the runtime that it was made on.
            let client = connect.await?;
            let leases = Api::namespaced(client, &self.candidate.namespace);
            let mut elector = Elector::new(leases, &self.candidate, &self.until);
            let stands = async {
                loop {
                    elector.win(&self.metrics, &standing_by).await;
                    self.says.send_replace(Some(elector.term));
                    elector.lose(&self.metrics).await;
                    self.until.set(None);
                    self.says.send_replace(None);
                }
            };
            self.give_back.run_until_cancelled(stands).await;
            self.until.set(None);
            if self.says.borrow().is_some() {
                elector.release().await;
            }
            Ok(())
        })
    }
}

struct Elector<'a> {
    leases: Api<Lease>,
    candidate: &'a Candidate,
    lasts: Duration,
    seen: Seen,
    term: u64,
    until: &'a Until,
}

impl<'a> Elector<'a> {
    fn new(leases: Api<Lease>, candidate: &'a Candidate, until: &'a Until) -> Self {
        Self {
            leases,
            candidate,
            term: 0,
            until,
            lasts: Duration::from_secs(candidate.lease_seconds.max(3).into()),
            seen: Seen::default(),
        }
    }

    /// Returns once the Lease is ours.
    async fn win(&mut self, metrics: &Metrics, standing_by: impl Fn()) {
        loop {
            let asked = Instant::now();
            match self.attempt().await {
                Ok(true) => {
                    self.term += 1;
                    self.renewed(asked);
                    return;
                }
                Ok(false) => standing_by(),
                Err(problem) => {
                    metrics.failed(Category::Api);
                    tracing::warn!(lease = self.candidate.lease, problem, "election");
                }
            }
            tokio::time::sleep(self.lasts / 6).await;
        }
    }

    /// Renews; returns once the Lease is somebody else's, or could not be renewed in time.
    async fn lose(&mut self, metrics: &Metrics) {
        loop {
            tokio::time::sleep(self.lasts / 5).await;
            let asked = Instant::now();
            match self.attempt().await {
                Ok(true) => self.renewed(asked),
                Ok(false) => return,
                Err(problem) => {
                    metrics.failed(Category::Api);
                    tracing::warn!(lease = self.candidate.lease, problem, "lease not renewed");
                }
            }
            if self
                .until
                .get()
                .is_none_or(|(_, until)| Instant::now() > until)
            {
                return;
            }
        }
    }

    /// A third of the Lease's time is left for what is in flight to be refused or to arrive.
    fn renewed(&self, asked: Instant) {
        self.until
            .set(Some((self.term, asked + self.lasts * 2 / 3)));
    }

    /// One try to take or keep the Lease, within a fifth of its time.
    async fn attempt(&mut self) -> Result<bool, String> {
        match tokio::time::timeout(self.lasts / 5, self.take()).await {
            Ok(Ok(ours)) => Ok(ours),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    async fn take(&mut self) -> Result<bool, kube::Error> {
        let Candidate {
            lease: name,
            identity,
            ..
        } = self.candidate;
        let found = self.leases.get_opt(name).await?;
        let step = self
            .seen
            .step(found.as_ref(), identity, self.lasts, Instant::now());
        let written = match (step, found) {
            (Step::Wait, _) => return Ok(false),
            (Step::Write, Some(lease)) => {
                let lease = self.ours(lease);
                self.leases.replace(name, &params(), &lease).await
            }
            (Step::Create | Step::Write, _) => {
                let lease = self.ours(Lease {
                    metadata: ObjectMeta {
                        name: Some(name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: None,
                });
                self.leases.create(&params(), &lease).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn ours(&self, mut lease: Lease) -> Lease {
        let before = lease.spec.unwrap_or_default();
        let now = Some(MicroTime(Timestamp::now()));
        let identity = Some(self.candidate.identity.clone());
        let taken = before.holder_identity != identity;
        let transitions = before.lease_transitions.unwrap_or(0);
        lease.spec = Some(LeaseSpec {
            holder_identity: identity,
            lease_duration_seconds: i32::try_from(self.candidate.lease_seconds).ok(),
            acquire_time: if taken {
                now.clone()
            } else {
                before.acquire_time
            },
            renew_time: now,
            lease_transitions: Some(transitions.saturating_add(i32::from(taken))),
            ..LeaseSpec::default()
        });
        lease
    }

    /// Gives the Lease back, so that another replica need not wait for it to run out.
    async fn release(&self) {
        let release = async {
            let name = &self.candidate.lease;
            let Some(mut lease) = self.leases.get_opt(name).await? else {
                return Ok(());
            };
            let Some(spec) = lease.spec.as_mut() else {
                return Ok(());
            };
            if spec.holder_identity.as_ref() == Some(&self.candidate.identity) {
                spec.holder_identity = Some(String::new());
                self.leases.replace(name, &params(), &lease).await?;
            }
            Ok::<(), kube::Error>(())
        };
        let bounded = tokio::time::timeout(Duration::from_secs(RELEASE_SECONDS_MAX), release);
        if !matches!(bounded.await, Ok(Ok(()))) {
            tracing::warn!(
                lease = self.candidate.lease,
                "not released; it runs out by itself"
            );
        }
    }
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some("rimward-election".to_owned()),
        ..PostParams::default()
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
