//! One leader among replicas, by a Lease.
//!
//! Owns the leader's Lease. A replica judges the holder by its *own* monotonic time since the Lease last
//! changed, never by comparing clocks (docs/adr/0021). The leader's work is dropped when renewing failed for two
//! thirds of the Lease's time, so that it stops before another can begin.
//!
//! The Lease has one place in a cluster, whatever namespace the operator was installed in: two installations must not
//! both lead. Operators of 0.1 led by a Lease in their own namespace: whoever leads holds that one too, as a guard, so
//! that nothing is done twice while one version takes the place of another, forth or back (docs/adr/0075).
//!
//! The Lease has a thread, a runtime and connections of its own: however long the work keeps every other thread
//! busy, it is renewed. Must never share a task with the work.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use kube::Client;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::definitions::Gate;
use crate::lease::{GUARDED_BY, Holder, INSTALLATION, Seat, Taken};
use crate::metrics::{Category, Metrics};
use crate::probes::Readiness;

/// How long giving the Lease back at the end may take.
const RELEASE_SECONDS_MAX: u64 = 3;

/// The guard lasts so many times as long as the Lease: it is renewed the less often for it.
const GUARD_LASTS: u32 = 4;

/// Where and as whom to stand for election.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    /// The Lease, by namespace and name: the same for every installation in a cluster.
    pub(crate) lease: (&'static str, &'static str),
    /// The Lease by which operators of 0.1 led, in the namespace that this one is installed in.
    pub(crate) guard: &'static str,
    /// The namespace that this replica is installed in.
    pub(crate) installation: String,
    /// Name of this replica.
    pub(crate) identity: String,
    /// How long the Lease lasts without being renewed, at least 3.
    pub(crate) lease_seconds: u32,
}

/// One time in the lead.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    /// Cancelled when the process shall stop.
    pub(crate) stop: CancellationToken,
    /// Counts the times in the lead: who lost it and won it again meanwhile is another leader.
    term: u64,
    until: Until,
    /// Of every API server that is written to by it.
    gates: Vec<Gate>,
}

impl Leadership {
    /// Waits until something may be written, as far as definitions are concerned.
    ///
    /// # Errors
    /// In words, when they do not fit, or could not be looked at in time.
    pub(crate) async fn pass(&self) -> Result<(), String> {
        for gate in &self.gates {
            gate.pass().await?;
        }
        Ok(())
    }

    /// The same lead, for writes to another API server as well.
    pub(crate) fn beside(&self, gate: Gate) -> Self {
        let mut both = self.clone();
        both.gates.push(gate);
        both
    }

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
            gates: Vec::new(),
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
/// anything. `connect` makes the client for the Lease. `gate`: what its writes wait for. `standing_by` is called whenever
/// the API server answered that somebody else leads, or led until now.
///
/// # Errors
/// What `work` failed with, or `connect`. API errors only delay.
pub(crate) async fn lead<C, F, Fut>(
    connect: C,
    candidate: Candidate,
    gate: Gate,
    metrics: &Arc<Metrics>,
    standing_by: impl Fn(&Holder) + Send + 'static,
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
            gates: vec![gate.clone()],
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

/// What a replica does while another one leads: it is ready, and says whose lead it is, in the log once.
pub(crate) fn standing_by(
    installation: &str,
    readiness: &Readiness,
) -> impl Fn(&Holder) + Send + use<> {
    let (own, readiness) = (installation.to_owned(), readiness.clone());
    let told = Mutex::new(None);
    move |holder| {
        let Holder {
            identity,
            installation,
            lease,
        } = holder;
        let other = installation.as_ref().filter(|its| **its != own);
        let words = match other {
            Some(other) => format!(
                "stands by: {identity} of the installation in namespace {other} leads this cluster by Lease {lease}; \
                 of two installations one is too many"
            ),
            None => format!("stands by: {identity} leads by Lease {lease}"),
        };
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        // Between two holders there may be none.
        if !identity.is_empty() && told.as_ref() != Some(holder) {
            match other {
                Some(_) => tracing::warn!("{words}"),
                None => tracing::info!("{words}"),
            }
            *told = Some(holder.clone());
        }
        readiness.stands_by(words);
    }
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
        standing_by: impl Fn(&Holder),
    ) -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("asynchronous runtime of the Lease")?;
        runtime.block_on(async {
            // Made here: a client's connections are driven by the runtime that it was made on.
            let client = connect.await?;
            let mut elector = Elector::new(&client, &self.candidate, &self.until);
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
            elector.release().await;
            Ok(())
        })
    }
}

struct Elector<'a> {
    seat: Seat,
    guard: Seat,
    /// When the guard is renewed next.
    guard_due: Instant,
    lasts: Duration,
    term: u64,
    until: &'a Until,
    /// What went wrong last: told once.
    problem: Option<String>,
    /// Whether the Lease, or the guard, may be ours.
    to_release: bool,
}

impl<'a> Elector<'a> {
    fn new(client: &Client, candidate: &'a Candidate, until: &'a Until) -> Self {
        let Candidate {
            lease,
            guard,
            installation,
            identity,
            lease_seconds,
        } = candidate;
        let lasts = Duration::from_secs((*lease_seconds).max(3).into());
        let own = [(INSTALLATION, installation.as_str())];
        let guarded = [(GUARDED_BY, identity.as_str())];
        Self {
            seat: Seat::new(client, *lease, identity, lasts, &own),
            guard: Seat::new(
                client,
                (installation, guard),
                identity,
                lasts * GUARD_LASTS,
                &guarded,
            ),
            guard_due: Instant::now(),
            term: 0,
            until,
            lasts,
            problem: None,
            to_release: false,
        }
    }

    /// Returns once the Lease is ours.
    async fn win(&mut self, metrics: &Metrics, standing_by: impl Fn(&Holder)) {
        // Whoever lost the lead may have lost the guard.
        self.guard_due = Instant::now();
        loop {
            let asked = Instant::now();
            match self.attempt().await {
                Ok(Ok(())) => {
                    self.problem = None;
                    self.term += 1;
                    self.renewed(asked);
                    return;
                }
                Ok(Err(holder)) => {
                    self.problem = None;
                    standing_by(&holder);
                }
                Err(problem) => {
                    metrics.failed(Category::Api);
                    if self.problem.as_ref() != Some(&problem) {
                        let lease = self.seat.place();
                        tracing::warn!(lease, problem, "election");
                        self.problem = Some(problem);
                    }
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
                Ok(Ok(())) => self.renewed(asked),
                Ok(Err(_)) => return,
                Err(problem) => {
                    metrics.failed(Category::Api);
                    tracing::warn!(lease = self.seat.place(), problem, "lease not renewed");
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
    async fn attempt(&mut self) -> Result<Taken, String> {
        self.to_release = true;
        match tokio::time::timeout(self.lasts / 5, self.take()).await {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("no answer in time".to_owned()),
        }
    }

    /// The Lease first: who does not have it leaves the guard alone, so no two wait for each other.
    async fn take(&mut self) -> Result<Taken, kube::Error> {
        if let Err(holder) = self.seat.take().await? {
            return Ok(Err(holder));
        }
        if Instant::now() < self.guard_due {
            return Ok(Ok(()));
        }
        let taken = match self.guard.take().await {
            // Where this account may hold none, that of an operator of 0.1 could neither.
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => Ok(()),
            taken => taken?,
        };
        if taken.is_ok() {
            self.guard_due = Instant::now() + self.lasts * GUARD_LASTS / 5;
        }
        Ok(taken)
    }

    /// Gives both back, so that another replica need not wait for them to run out.
    async fn release(&self) {
        if !self.to_release {
            return;
        }
        let release = async { tokio::try_join!(self.guard.release(), self.seat.release()) };
        let longest = Duration::from_secs(RELEASE_SECONDS_MAX);
        if !matches!(tokio::time::timeout(longest, release).await, Ok(Ok(_))) {
            let lease = self.seat.place();
            tracing::warn!(lease, "not released; it runs out by itself");
        }
    }
}

#[cfg(test)]
#[path = "election_tests.rs"]
mod tests;
