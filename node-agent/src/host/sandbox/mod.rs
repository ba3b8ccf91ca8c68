//! Runs a module for one request, alone in a store of its own.
//!
//! Owns compiled modules and their instances. A module gets `wasi:nn` and `rimward:inference/*` and
//! nothing else. Guest and engine run on one worker thread, so a request changes threads twice: there
//! and back. After a trap or a deadline the store is gone with everything in it; no handle of it
//! outlives the call, only tensors, which share their bytes.

mod bindings;
mod guest;
mod nn;
mod state;
mod tensors;

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::{Component, HasSelf, Linker};
use wasmtime::{Engine, Store, UpdateDeadline};

use bindings::rimward::inference::errors::Error as WitError;
use bindings::rimward::inference::tensors::NamedTensor;
use bindings::{Model, ModelPre};
pub use guest::GuestChannel;
use state::GuestState;
pub use state::{GuestWorld, Stopped};

use super::backend::{JobLost, WorkerContext};
use super::engine::{GUEST_MEMORY_BYTES_MAX, Ticker, engine};
use super::tensor::{Tensor, TensorBudget};

/// The most outputs that a module may answer with.
const OUTPUTS_MAX: usize = 256;
/// Bytes that one host call may carry from the guest, as the host counts them.
const HOST_CALL_BYTES_MAX: usize = GUEST_MEMORY_BYTES_MAX as usize + (1 << 20);
/// How long after the deadline the call is given up on, should the guest not have been stopped by then:
/// an engine computes.
const BACKSTOP: Duration = Duration::from_millis(200);

/// Makes and runs guests of one engine.
#[derive(Clone)]
pub struct Sandbox {
    engine: Engine,
    linker: Arc<Linker<GuestState>>,
    ticker: Ticker,
}

impl std::fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sandbox")
    }
}

/// A module, linked and ready to be instantiated.
#[derive(Clone)]
pub struct GuestModule {
    pre: ModelPre<GuestState>,
    ticker: Ticker,
}

impl std::fmt::Debug for GuestModule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("GuestModule")
    }
}

/// A module that cannot be linked: it asks for more, or exports less, than the world says.
#[derive(Debug, thiserror::Error)]
#[error("module does not fit the world rimward:inference/model: {0}")]
pub struct LinkError(String);

/// The kinds of error that a module may return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestErrorKind {
    /// The client's mistake.
    InvalidInput,
    /// The client asks for what this module cannot do.
    Unsupported,
    /// The deadline passed, says the module.
    Timeout,
    /// The engine failed, says the module.
    Backend,
    /// The module failed, says the module.
    Internal,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GuestFailure {
    /// The module returned an error.
    #[error("{message}")]
    Returned {
        /// Its kind.
        kind: GuestErrorKind,
        /// The module's own words.
        message: String,
    },
    /// The module trapped.
    #[error("module trapped: {0}")]
    Trapped(String),
    /// The deadline passed.
    #[error("no answer within the time limit")]
    TimedOut,
    /// The module was refused memory.
    #[error("{0}")]
    MemoryExceeded(String),
    /// There is no free place for an instance.
    #[error("no free sandbox")]
    NoRoom,
    /// The host's own failure.
    #[error("request was lost: {0}")]
    Lost(String),
}

impl Sandbox {
    /// A sandbox with room for that many instances.
    pub fn new(instances_max: u32) -> wasmtime::Result<Self> {
        let engine = engine(instances_max)?;
        let mut linker = Linker::new(&engine);
        Model::add_to_linker::<GuestState, HasSelf<GuestState>>(&mut linker, |state| state)?;
        let ticker = Ticker::start(&engine)?;
        Ok(Self {
            engine,
            linker: Arc::new(linker),
            ticker,
        })
    }

    /// The engine.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Links a compiled component.
    pub fn link(&self, component: &Component) -> Result<GuestModule, LinkError> {
        let linked = self
            .linker
            .instantiate_pre(component)
            .and_then(ModelPre::new);
        let pre = linked.map_err(|error| LinkError(guest::clip(&format!("{error:#}"))))?;
        Ok(GuestModule {
            pre,
            ticker: self.ticker.clone(),
        })
    }
}

impl GuestModule {
    /// Answers one request in a fresh instance. `place` is kept until that instance is gone, which is
    /// after the deadline where an engine does not end. What runs `beside` another request leaves it most of the
    /// processor where there is not enough for both.
    pub async fn infer(
        &self,
        world: &Arc<GuestWorld>,
        inputs: Vec<(String, Tensor)>,
        budget: Arc<TensorBudget>,
        deadline: Instant,
        beside: bool,
        place: impl Send + 'static,
    ) -> Result<Vec<(String, Tensor)>, GuestFailure> {
        let (module, guest_world) = (self.clone(), Arc::clone(world));
        let job = move |worker: &mut WorkerContext| {
            let _place = place;
            let state = GuestState::new(guest_world, budget, deadline, worker.clone());
            module.run(state, inputs, worker)
        };
        match world.workers.run(deadline + BACKSTOP, beside, job).await {
            Ok(answer) => answer,
            Err(JobLost::TimedOut) => Err(GuestFailure::TimedOut),
            Err(lost @ (JobLost::Panicked(_) | JobLost::NoThread(_))) => {
                Err(GuestFailure::Lost(lost.to_string()))
            }
        }
    }

    fn run(
        &self,
        state: GuestState,
        inputs: Vec<(String, Tensor)>,
        worker: &mut WorkerContext,
    ) -> Result<Vec<(String, Tensor)>, GuestFailure> {
        let _ticking = self.ticker.run();
        let mut store = Store::new(self.pre.engine(), state);
        store.limiter(|state| &mut state.limits);
        // One call of the guest into the host carries no more than the guest can hold.
        store.set_hostcall_fuel(HOST_CALL_BYTES_MAX);
        store.set_epoch_deadline(1);
        store.epoch_deadline_callback(|context| {
            context.data().check_deadline()?;
            Ok(UpdateDeadline::Continue(1))
        });
        let answer = self
            .call(&mut store, inputs)
            .unwrap_or_else(|error| Err(why(&error, store.data())));
        *worker = store.into_data().worker;
        answer
    }

    fn call(
        &self,
        store: &mut Store<GuestState>,
        inputs: Vec<(String, Tensor)>,
    ) -> wasmtime::Result<Result<Vec<(String, Tensor)>, GuestFailure>> {
        let model = self.pre.instantiate(&mut *store)?;
        let mut named = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            named.push(NamedTensor {
                name,
                tensor: store.data_mut().table.push(tensor)?,
            });
        }
        let answer = model
            .rimward_inference_handler()
            .call_infer(&mut *store, &named)?;
        let outputs = match answer {
            Ok(outputs) => outputs,
            Err(error) => return Ok(Err(returned(error))),
        };
        if outputs.len() > OUTPUTS_MAX {
            let message = format!("{} outputs, at most {OUTPUTS_MAX}", outputs.len());
            return Ok(Err(GuestFailure::Returned {
                kind: GuestErrorKind::Internal,
                message,
            }));
        }
        let mut taken = Vec::with_capacity(outputs.len());
        for NamedTensor { name, tensor } in outputs {
            taken.push((name, store.data_mut().table.delete(tensor)?));
        }
        Ok(Ok(taken))
    }
}

fn returned(error: WitError) -> GuestFailure {
    let (kind, message) = match error {
        WitError::InvalidInput(message) => (GuestErrorKind::InvalidInput, message),
        WitError::Unsupported(message) => (GuestErrorKind::Unsupported, message),
        WitError::Timeout(message) => (GuestErrorKind::Timeout, message),
        WitError::Backend(message) => (GuestErrorKind::Backend, message),
        WitError::Internal(message) => (GuestErrorKind::Internal, message),
    };
    GuestFailure::Returned {
        kind,
        message: guest::clip(&message),
    }
}

/// Sorts what wasmtime reports.
fn why(error: &wasmtime::Error, state: &GuestState) -> GuestFailure {
    if let Some(stopped) = error.downcast_ref::<Stopped>() {
        return match stopped {
            Stopped::Deadline => GuestFailure::TimedOut,
            Stopped::TensorMemory(over) => GuestFailure::MemoryExceeded(over.to_string()),
            Stopped::HostCalls => GuestFailure::Trapped(stopped.to_string()),
        };
    }
    if error.is::<wasmtime::PoolConcurrencyLimitError>() {
        return GuestFailure::NoRoom;
    }
    if let Some(refusal) = state.limits.refusal() {
        return GuestFailure::MemoryExceeded(refusal);
    }
    let words = error
        .downcast_ref::<wasmtime::Trap>()
        .map_or_else(|| error.root_cause().to_string(), ToString::to_string);
    GuestFailure::Trapped(guest::clip(&words))
}

#[cfg(test)]
#[path = "pass_through_tests.rs"]
mod tests;
