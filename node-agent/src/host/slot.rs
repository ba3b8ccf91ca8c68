//! One loaded version: its queue, its sandboxed module, its model, its counters.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rimward_core::sample::{self, Ending};
use tokio::sync::Semaphore;

use super::backend::{self, MODEL_BYTES_MAX, Workers};
use super::sandbox::{
    GuestChannel, GuestErrorKind, GuestFailure, GuestModule, GuestWorld, Sandbox,
};
use super::stats::Counters;
use super::tensor::{Tensor, TensorBudget};
use super::{contract, native};
use crate::proto::flight::Row;
use crate::proto::{DeploymentSpec, FailReason, NativeCodeId, SlotStats, WhatRuns};

/// Named tensors, as they go in and come out.
pub(super) type Tensors = Vec<(String, Tensor)>;

/// Why a slot gives no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoAnswer {
    /// Too many wait already.
    #[error("too many requests wait for this model")]
    QueueFull,
    /// Others have all the memory for requests and answers.
    #[error("no room for more requests and answers")]
    NoRoom,
    /// Request or answer is larger than this version, or the endpoint, takes.
    #[error("{0}")]
    TooLarge(String),
    /// The request is wrong; another version might still take it if it declares other inputs.
    #[error("{0}")]
    ClientMistake(String),
    /// The deadline passed.
    #[error("no answer within {0} ms")]
    TimedOut(u64),
    /// The version failed.
    #[error("{0}")]
    Failed(String),
}

impl NoAnswer {
    /// Whose fault it is, as far as this version can tell.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::QueueFull => Ending::TurnedAway,
            Self::NoRoom => Ending::NoRoom,
            Self::ClientMistake(_) | Self::TooLarge(_) => Ending::Refused,
            Self::TimedOut(_) | Self::Failed(_) => Ending::Failed,
        }
    }
}

/// How a version ended a request.
pub(super) fn ending<T>(answer: &Result<T, NoAnswer>) -> Ending {
    match answer {
        Ok(_) => Ending::Answered,
        Err(why) => why.ending(),
    }
}

/// A version that could not be loaded.
#[derive(Debug)]
pub(super) struct LoadFailed {
    pub(super) reason: FailReason,
    pub(super) message: String,
}

/// A request, as one version is asked it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) inputs: Tensors,
    pub(super) budget: Arc<TensorBudget>,
    pub(super) began: Instant,
    pub(super) deadline: Instant,
    /// Set once it has its place and does not wait any more.
    pub(super) begun: Arc<AtomicBool>,
    /// It runs beside another that must not lose processor time to it.
    pub(super) beside: bool,
}

/// What a slot has from its host.
#[derive(Debug)]
pub(super) struct Means<'a> {
    pub(super) sandbox: &'a Sandbox,
    pub(super) workers: &'a Workers,
    pub(super) sandboxes: Arc<Semaphore>,
    pub(super) flight: Arc<Row>,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) spec: DeploymentSpec,
    pub(super) runs: WhatRuns,
    guest: GuestModule,
    world: Arc<GuestWorld>,
    running: Semaphore,
    sandboxes: Arc<Semaphore>,
    counters: Counters,
    /// Requests that are still worked on though another version answered them.
    left_over: AtomicU64,
    flight: Arc<Row>,
}

impl Slot {
    /// Loads module and model. Blocks.
    pub(super) fn load(
        spec: DeploymentSpec,
        id: &NativeCodeId,
        code: &OwnedFd,
        model: OwnedFd,
        means: Means<'_>,
    ) -> Result<Self, LoadFailed> {
        let Means {
            sandbox,
            workers,
            sandboxes,
            flight,
        } = means;
        let _busy = flight.enter();
        let refused = |error: native::NativeError| LoadFailed {
            reason: FailReason::NativeCodeRefused,
            message: error.to_string(),
        };
        let component = native::load(sandbox.engine(), id, code).map_err(refused)?;
        let guest = sandbox.link(&component).map_err(|error| LoadFailed {
            reason: FailReason::ImportRefused,
            message: error.to_string(),
        })?;
        let model =
            backend::load(&spec.variant, read_model(model)?).map_err(|error| LoadFailed {
                reason: error.reason,
                message: error.message,
            })?;
        let runs = model.what_runs();
        let world = Arc::new(GuestWorld {
            model,
            variant_name: spec.variant.name.clone(),
            workers: workers.clone(),
            config: spec.config.clone(),
            channel: GuestChannel::new(&spec.deployment, &spec.revision),
            guest_memory_bytes_max: spec.limits.guest_memory_bytes_max,
            tensor_bytes_max: spec.limits.tensor_bytes_max,
        });
        let running = Semaphore::new(spec.limits.concurrency.max(1) as usize);
        Ok(Self {
            spec,
            runs,
            guest,
            world,
            running,
            sandboxes,
            counters: Counters::new(),
            left_over: AtomicU64::new(0),
            flight,
        })
    }

    /// Answers one request, or says why not. `encode` turns tensors into an answer. The caller counts it.
    pub(super) async fn answer<T>(
        &self,
        question: Question,
        encode: impl FnOnce(&Tensors) -> Result<T, NoAnswer>,
    ) -> Result<T, NoAnswer> {
        let Question {
            inputs,
            budget,
            began,
            deadline,
            begun,
            beside,
        } = question;
        self.check_inputs(&inputs)?;
        let timed_out =
            || NoAnswer::TimedOut(deadline.saturating_duration_since(began).as_millis() as u64);
        // One that finds a free place does not wait, so a queue of length 0 still serves.
        let _permit = match self.running.try_acquire() {
            Ok(permit) => permit,
            Err(_) => {
                let _waiting = self
                    .counters
                    .enqueue(u64::from(self.spec.limits.queue))
                    .ok_or(NoAnswer::QueueFull)?;
                let permit = tokio::time::timeout_at(deadline.into(), self.running.acquire()).await;
                permit
                    .map_err(|_| timed_out())?
                    .map_err(|closed| NoAnswer::Failed(closed.to_string()))?
            }
        };
        begun.store(true, Ordering::Relaxed);
        let _inflight = self.counters.begin();
        let sandboxes = Arc::clone(&self.sandboxes).acquire_owned();
        let sandbox = tokio::time::timeout_at(deadline.into(), sandboxes)
            .await
            .map_err(|_| timed_out())?
            .map_err(|closed| NoAnswer::Failed(closed.to_string()))?;
        let place = (sandbox, self.flight.enter());
        let outputs = self
            .guest
            .infer(&self.world, inputs, budget, deadline, beside, place)
            .await
            .map_err(|failure| match failure {
                GuestFailure::Returned {
                    kind: GuestErrorKind::InvalidInput | GuestErrorKind::Unsupported,
                    message,
                } => NoAnswer::ClientMistake(message),
                GuestFailure::Returned {
                    kind: GuestErrorKind::Timeout,
                    ..
                }
                | GuestFailure::TimedOut => timed_out(),
                other @ (GuestFailure::Returned { .. }
                | GuestFailure::Trapped(_)
                | GuestFailure::MemoryExceeded(_)
                | GuestFailure::NoRoom
                | GuestFailure::Lost(_)) => NoAnswer::Failed(other.to_string()),
            })?;
        contract::check_outputs(&self.spec.outputs, &outputs)
            .map_err(|error| NoAnswer::Failed(error.to_string()))?;
        encode(&outputs)
    }

    fn check_inputs(&self, inputs: &Tensors) -> Result<(), NoAnswer> {
        let declared = &self.spec.inputs;
        let mistake = |mismatch: contract::Mismatch| NoAnswer::ClientMistake(mismatch.to_string());
        for (name, tensor) in inputs {
            contract::check_input(declared, name, tensor.datatype(), tensor.shape())
                .map_err(mistake)?;
        }
        let names: Vec<&str> = inputs.iter().map(|(name, _)| name.as_str()).collect();
        contract::check_complete(declared, &names).map_err(mistake)
    }

    /// Counts a request that this version was asked to answer: see [`Counters::count`].
    pub(super) fn count(&self, why: Option<&NoAnswer>, previous: Option<Ending>, took: Duration) {
        self.counters.count(why, previous, took);
    }

    /// Whether a request of a trial is given to this version: see [`sample::takes`].
    pub(super) fn takes_in_trial(&self) -> bool {
        let has_free_place = self.running.available_permits() > 0;
        sample::takes(has_free_place, self.left_over.load(Ordering::Relaxed))
    }

    /// A request that another version answered is still worked on, for as long as the gauge lives.
    pub(super) fn leave_over(self: &Arc<Self>) -> LeftOver {
        self.left_over.fetch_add(1, Ordering::Relaxed);
        LeftOver(Arc::clone(self))
    }

    /// Requests waiting or being answered.
    pub(super) fn busy(&self) -> u64 {
        self.counters.busy()
    }

    pub(super) fn stats(&self) -> SlotStats {
        SlotStats {
            metrics: self.world.channel.metrics(),
            ..self.counters.snapshot()
        }
    }
}

/// Counts itself out when dropped.
#[derive(Debug)]
pub(super) struct LeftOver(Arc<Slot>);

impl Drop for LeftOver {
    fn drop(&mut self) {
        self.0.left_over.fetch_sub(1, Ordering::Relaxed);
    }
}

fn read_model(fd: OwnedFd) -> Result<Vec<u8>, LoadFailed> {
    let failed = |error: std::io::Error| LoadFailed {
        reason: FailReason::Internal,
        message: format!("model file cannot be read: {error}"),
    };
    let mut file = File::from(fd);
    let length = file.metadata().map_err(failed)?.len();
    if length > MODEL_BYTES_MAX {
        let message = format!("model has {length} bytes, at most {MODEL_BYTES_MAX}");
        return Err(LoadFailed {
            reason: FailReason::ModelRefused,
            message,
        });
    }
    // The descriptor may have been read from before: it shares its position with the supervisor's.
    std::io::Seek::rewind(&mut file).map_err(failed)?;
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MODEL_BYTES_MAX)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}
