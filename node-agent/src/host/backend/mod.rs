//! Inference engines behind one small trait: load, metadata, run with a deadline, memory used.
//!
//! An engine is native code that reads a signed but perhaps hostile model. It runs on [`Workers`],
//! where a run without end is given up on, and its panics are caught ([`run`]); what aborts or corrupts
//! takes only this process with it.

mod onnx;
mod rten;
mod workers;

use std::sync::Arc;

pub use workers::{JobLost, WorkerContext, Workers};

use super::tensor::{Buffer, TensorBudget};
use crate::proto::{Backend, Datatype, FailReason, ModelVariant, WhatRuns};

/// The largest model file that is loaded.
pub const MODEL_BYTES_MAX: u64 = 2 << 30;

/// A tensor that goes into or comes out of a model. Its data fits its shape.
#[derive(Clone, Debug)]
pub struct ModelTensor {
    /// The type of the elements.
    pub datatype: Datatype,
    /// The size of each dimension.
    pub shape: Vec<u32>,
    /// Row-major, little-endian.
    pub data: Buffer,
}

/// What went wrong, as `wasi:nn` tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultCode {
    /// The input is not what the model takes.
    InvalidArgument,
    /// This backend cannot do that.
    UnsupportedOperation,
    /// The deadline passed.
    Timeout,
    /// The engine failed.
    RuntimeError,
    /// Over the memory limit.
    TooLarge,
}

/// A failed inference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BackendError {
    /// The kind.
    pub code: FaultCode,
    /// What and where.
    pub message: String,
}

impl BackendError {
    fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// Why a model was not loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct LoadError {
    /// From the closed list.
    pub reason: FailReason,
    /// What and where.
    pub message: String,
}

impl LoadError {
    fn refused(message: impl Into<String>) -> Self {
        Self {
            reason: FailReason::ModelRefused,
            message: message.into(),
        }
    }
}

/// A model, ready to compute on any worker, by many callers at one time.
pub trait LoadedModel: Send + Sync + std::fmt::Debug {
    /// Engine, device, precision and memory as they are.
    fn what_runs(&self) -> WhatRuns;

    /// Computes, on a worker's thread; may panic or never end. Output tensors go on `budget`.
    fn run(
        &self,
        worker: &mut WorkerContext,
        inputs: Vec<(String, ModelTensor)>,
        budget: &Arc<TensorBudget>,
    ) -> Result<Vec<(String, ModelTensor)>, BackendError>;
}

/// Loads a model with the backend that its variant names. Blocks; may abort the process on a model
/// that asks for too much memory, so it runs in a preflight first.
pub fn load(variant: &ModelVariant, file: Vec<u8>) -> Result<Arc<dyn LoadedModel>, LoadError> {
    if variant.format != "onnx" {
        return Err(LoadError {
            reason: FailReason::BackendUnavailable,
            message: format!(
                "variant {}: no backend here reads format {}",
                variant.name, variant.format
            ),
        });
    }
    match variant.backend {
        Backend::Rten => rten::load(file),
    }
}

/// Computes on this thread, which must be one of [`Workers`]; a panic of the engine is an error.
pub fn run(
    model: &dyn LoadedModel,
    worker: &mut WorkerContext,
    inputs: Vec<(String, ModelTensor)>,
    budget: &Arc<TensorBudget>,
) -> Result<Vec<(String, ModelTensor)>, BackendError> {
    catch_panic(|| model.run(worker, inputs, budget)).unwrap_or_else(|words| {
        // The pool that a panic went through is not used again.
        *worker = WorkerContext::default();
        Err(BackendError::new(
            FaultCode::RuntimeError,
            format!("the engine panicked: {words}"),
        ))
    })
}

/// Runs engine code, turning a panic into words.
pub(crate) fn catch_panic<T>(call: impl FnOnce() -> T) -> Result<T, String> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).map_err(|panic| {
        let words = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let words = words.or_else(|| panic.downcast_ref::<String>().cloned());
        words.unwrap_or_else(|| "no message".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Panics;

    impl LoadedModel for Panics {
        fn what_runs(&self) -> WhatRuns {
            WhatRuns {
                backend: String::new(),
                device: String::new(),
                precision: String::new(),
                memory_bytes: 0,
            }
        }

        fn run(
            &self,
            _: &mut WorkerContext,
            _: Vec<(String, ModelTensor)>,
            _: &Arc<TensorBudget>,
        ) -> Result<Vec<(String, ModelTensor)>, BackendError> {
            panic!("index out of bounds")
        }
    }

    #[test]
    fn a_panic_of_an_engine_is_an_error_in_its_own_words() {
        let mut worker = WorkerContext::default();
        let error = run(&Panics, &mut worker, Vec::new(), &TensorBudget::new(1)).unwrap_err();
        assert_eq!(error.code, FaultCode::RuntimeError);
        assert_eq!(error.message, "the engine panicked: index out of bounds");
    }
}
