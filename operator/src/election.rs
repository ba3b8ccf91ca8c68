//! One leader among replicas, by a Lease.
//!
//! Owns the leader's Lease. A replica judges the holder by its *own* monotonic time since the Lease last
//! changed, never by comparing clocks (docs/adr/0021). The leader's work is dropped at once when renewing
//! failed for two thirds of the Lease's time, so that it stops before another can begin.

use std::future::Future;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
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

/// Stands for election until `shutdown`, and does `work` while leading. `work` gets a token that is
/// cancelled when the process shall stop; when leadership is lost its future is dropped at once.
/// `standing_by` is called whenever the API server answered that somebody else leads.
///
/// # Errors
/// What `work` failed with. API errors only delay.
pub(crate) async fn lead<F, Fut>(
    client: &Client,
    candidate: &Candidate,
    metrics: &Metrics,
    standing_by: impl Fn(),
    shutdown: &CancellationToken,
    mut work: F,
) -> anyhow::Result<()>
where
    F: FnMut(CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    let leases: Api<Lease> = Api::namespaced(client.clone(), &candidate.namespace);
    let mut elector = Elector::new(leases, candidate);
    while !shutdown.is_cancelled() {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = elector.win(metrics, &standing_by) => {}
        }
        tracing::info!(
            identity = candidate.identity,
            lease = candidate.lease,
            "leads"
        );
        metrics.set_leader(true);
        let result = tokio::select! {
            biased;
            () = elector.lose(metrics) => None,
            result = work(shutdown.child_token()) => Some(result),
        };
        metrics.set_leader(false);
        if let Some(result) = result {
            elector.release().await;
            return result;
        }
        tracing::warn!(identity = candidate.identity, "lost the lead; work stopped");
    }
    Ok(())
}

struct Elector<'a> {
    leases: Api<Lease>,
    candidate: &'a Candidate,
    lasts: Duration,
    seen: Seen,
}

impl<'a> Elector<'a> {
    fn new(leases: Api<Lease>, candidate: &'a Candidate) -> Self {
        Self {
            leases,
            candidate,
            lasts: Duration::from_secs(candidate.lease_seconds.max(3).into()),
            seen: Seen::default(),
        }
    }

    /// Returns once the Lease is ours.
    async fn win(&mut self, metrics: &Metrics, standing_by: impl Fn()) {
        loop {
            match self.attempt().await {
                Ok(true) => return,
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
        let mut renewed = Instant::now();
        loop {
            tokio::time::sleep(self.lasts / 5).await;
            let asked = Instant::now();
            match self.attempt().await {
                Ok(true) => renewed = asked,
                Ok(false) => return,
                Err(problem) => {
                    metrics.failed(Category::Api);
                    tracing::warn!(lease = self.candidate.lease, problem, "lease not renewed");
                }
            }
            // A third is left for what is in flight to be refused or to arrive.
            if renewed.elapsed() > self.lasts * 2 / 3 {
                return;
            }
        }
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
mod tests {
    use super::{Lease, LeaseSpec, MicroTime, Seen, Step, Timestamp};
    use std::time::{Duration, Instant};

    const LASTS: Duration = Duration::from_secs(15);

    fn held(by: &str, renewed: i64) -> Lease {
        Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(by.to_owned()),
                lease_duration_seconds: Some(15),
                renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        }
    }

    #[test]
    fn a_missing_released_or_own_lease_is_taken_at_once() {
        let now = Instant::now();
        let step = |lease: Option<&Lease>| Seen::default().step(lease, "me", LASTS, now);
        assert_eq!(step(None), Step::Create);
        assert_eq!(step(Some(&held("", 5))), Step::Write);
        assert_eq!(step(Some(&held("me", 5))), Step::Write);
        assert_eq!(step(Some(&Lease::default())), Step::Write);
    }

    #[test]
    fn a_holder_is_silent_by_our_own_time_whatever_its_clock_says() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        // Its clock stands in 1970 and in 2100; neither matters.
        for clock in [0, 4_102_444_800] {
            let mut seen = Seen::default();
            let mut step = |lease: &Lease, at| seen.step(Some(lease), "me", LASTS, at);
            assert_eq!(step(&held("other", clock), after(0)), Step::Wait);
            assert_eq!(step(&held("other", clock), after(15)), Step::Wait);
            assert_eq!(step(&held("other", clock + 1), after(16)), Step::Wait);
            assert_eq!(step(&held("other", clock + 1), after(31)), Step::Wait);
            assert_eq!(step(&held("other", clock + 1), after(32)), Step::Write);
        }
    }

    #[test]
    fn a_holder_with_a_longer_lease_is_given_its_own_time() {
        let start = Instant::now();
        let mut lease = held("other", 0);
        if let Some(spec) = lease.spec.as_mut() {
            spec.lease_duration_seconds = Some(60);
        }
        let mut seen = Seen::default();
        assert_eq!(seen.step(Some(&lease), "me", LASTS, start), Step::Wait);
        let later = start + Duration::from_secs(59);
        assert_eq!(seen.step(Some(&lease), "me", LASTS, later), Step::Wait);
        let later = start + Duration::from_secs(61);
        assert_eq!(seen.step(Some(&lease), "me", LASTS, later), Step::Write);
    }
}
