//! One Lease: taken, renewed and given back by one replica.
//!
//! Owns its requests, and the judgement whether its holder is silent. Renewing is one request: it replaces what the
//! last one left, and looks only once that was refused. Must never decide what a holder may do.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};

/// Which installation leads: the namespace that it is in.
pub(crate) const INSTALLATION: &str = "rimward.dev/installation";
/// On a guard: who holds it because he leads elsewhere. Operators of 0.1 leave it as it is, so it tells only as long as
/// it names the holder.
pub(crate) const GUARDED_BY: &str = "rimward.dev/guarded-by";

/// What to do with a Lease as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// It is not there.
    Create,
    /// It is ours, or nobody's, or its holder is silent for too long.
    Write,
    /// Somebody else has it.
    Wait,
}

/// When a Lease was last seen to change, by our own time.
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

/// Who has a Lease that is not ours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Holder {
    /// The replica.
    pub(crate) identity: String,
    /// The namespace that it is installed in, where it says so.
    pub(crate) installation: Option<String>,
    /// Which Lease it holds, `namespace/name`.
    pub(crate) lease: String,
}

/// What became of a try.
pub(crate) type Taken = Result<(), Holder>;

/// One Lease and its candidate.
pub(crate) struct Seat {
    leases: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    lasts: Duration,
    annotations: BTreeMap<String, String>,
    /// A guard that is held for the sake of the lead elsewhere goes to whoever leads there now.
    is_guard: bool,
    seen: Seen,
    /// As our last write left it.
    ours: Option<Lease>,
}

impl Seat {
    /// Stands for the Lease `name`. `annotations` are set by whoever holds it.
    pub(crate) fn new(
        client: &Client,
        (namespace, name): (&str, &str),
        identity: &str,
        lasts: Duration,
        annotations: &[(&str, &str)],
    ) -> Self {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lasts,
            annotations: annotations.iter().map(owned).collect(),
            is_guard: annotations.iter().any(|(key, _)| *key == GUARDED_BY),
            seen: Seen::default(),
            ours: None,
        }
    }

    /// Where it is, for people.
    pub(crate) fn place(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// One try to take or keep the Lease.
    pub(crate) async fn take(&mut self) -> Result<Taken, kube::Error> {
        if let Some(last) = self.ours.take() {
            let next = self.mine(last);
            match self.leases.replace(&self.name, &params(), &next).await {
                Ok(lease) => {
                    self.ours = Some(lease);
                    return Ok(Ok(()));
                }
                // Somebody wrote since, or took it away.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
                Err(error) => return Err(error),
            }
        }
        let found = self.leases.get_opt(&self.name).await?;
        let (me, now) = (&self.identity, Instant::now());
        let mut step = self.seen.step(found.as_ref(), me, self.lasts, now);
        if step == Step::Wait && self.is_guard && found.as_ref().is_some_and(is_guarded) {
            step = Step::Write;
        }
        let written = match (step, found) {
            (Step::Wait, found) => return Ok(Err(self.holder(found.as_ref()))),
            (Step::Write, Some(lease)) => {
                let lease = self.mine(lease);
                self.leases.replace(&self.name, &params(), &lease).await
            }
            (Step::Create | Step::Write, _) => {
                let lease = self.mine(Lease {
                    metadata: ObjectMeta {
                        name: Some(self.name.clone()),
                        ..ObjectMeta::default()
                    },
                    spec: None,
                });
                self.leases.create(&params(), &lease).await
            }
        };
        match written {
            Ok(lease) => {
                self.ours = Some(lease);
                Ok(Ok(()))
            }
            // Another replica was faster.
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(Err(self.holder(None))),
            Err(error) => Err(error),
        }
    }

    fn holder(&self, lease: Option<&Lease>) -> Holder {
        let spec = lease.and_then(|lease| lease.spec.as_ref());
        let annotations = lease.and_then(|lease| lease.metadata.annotations.as_ref());
        Holder {
            identity: spec
                .and_then(|spec| spec.holder_identity.clone())
                .unwrap_or_default(),
            installation: annotations.and_then(|all| all.get(INSTALLATION).cloned()),
            lease: self.place(),
        }
    }

    fn mine(&self, mut lease: Lease) -> Lease {
        let before = lease.spec.unwrap_or_default();
        let now = Some(MicroTime(Timestamp::now()));
        let identity = Some(self.identity.clone());
        let taken = before.holder_identity != identity;
        let transitions = before.lease_transitions.unwrap_or(0);
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.extend(self.annotations.clone());
        lease.spec = Some(LeaseSpec {
            holder_identity: identity,
            lease_duration_seconds: i32::try_from(self.lasts.as_secs()).ok(),
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
    pub(crate) async fn release(&self) -> Result<(), kube::Error> {
        let Some(mut lease) = self.leases.get_opt(&self.name).await? else {
            return Ok(());
        };
        let Some(spec) = lease.spec.as_mut() else {
            return Ok(());
        };
        if spec.holder_identity.as_ref() == Some(&self.identity) {
            spec.holder_identity = Some(String::new());
            self.leases.replace(&self.name, &params(), &lease).await?;
        }
        Ok(())
    }
}

/// Whoever has it leads, or led, by another Lease.
fn is_guarded(lease: &Lease) -> bool {
    let annotations = lease.metadata.annotations.as_ref();
    let by = annotations.and_then(|all| all.get(GUARDED_BY));
    let spec = lease.spec.as_ref();
    by.is_some() && by == spec.and_then(|spec| spec.holder_identity.as_ref())
}

fn params() -> PostParams {
    PostParams {
        field_manager: Some("rimward-election".to_owned()),
        ..PostParams::default()
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
