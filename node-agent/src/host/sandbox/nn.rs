//! `wasi:nn`, our own host side of it.
//!
//! The model comes from the verified package, so only `load-by-name` works. No panic is reachable
//! from a guest; errors carry their right code; what cannot fail by the WIT traps instead.

#![allow(
    unreachable_pub,
    reason = "the generated bindings re-export these types"
)]

use std::sync::Arc;

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::wasi::nn::errors::{self, ErrorCode, HostError};
use super::bindings::wasi::nn::graph::{self, ExecutionTarget, GraphEncoding, HostGraph};
use super::bindings::wasi::nn::inference::{self, HostGraphExecutionContext};
use super::bindings::wasi::nn::tensor::{self, HostTensor, TensorType};
use super::guest::clip;
use super::state::{GuestState, Stopped};
use super::tensors::{from_nn_type, to_nn_type};
use crate::host::backend::{self, BackendError, FaultCode, LoadedModel, ModelTensor};
use crate::host::tensor::Buffer;

/// The name under which a module finds its package's model, whatever variant the device chose.
const MODEL_NAME: &str = "model";

/// Contexts hold no memory of their own; inputs of one call are bounded by the handle table.
const NAME_BYTES_MAX: usize = 256;

/// A `wasi:nn` tensor. Its data may not fit its dimensions: the constructor cannot fail. Checked where
/// it is used.
#[derive(Clone, Debug)]
pub struct NnTensor {
    pub(super) dimensions: Vec<u32>,
    pub(super) ty: TensorType,
    pub(super) data: Buffer,
}

/// The package's model.
#[derive(Debug)]
pub struct Graph(Arc<dyn LoadedModel>);

/// The model, ready to compute.
#[derive(Debug)]
pub struct ExecutionContext(Arc<dyn LoadedModel>);

/// An error with its code.
#[derive(Debug)]
pub struct NnError {
    code: ErrorCode,
    data: String,
}

impl From<FaultCode> for ErrorCode {
    fn from(code: FaultCode) -> Self {
        match code {
            FaultCode::InvalidArgument => Self::InvalidArgument,
            FaultCode::UnsupportedOperation => Self::UnsupportedOperation,
            FaultCode::Timeout => Self::Timeout,
            FaultCode::RuntimeError => Self::RuntimeError,
            FaultCode::TooLarge => Self::TooLarge,
        }
    }
}

impl GuestState {
    fn fail<T>(
        &mut self,
        code: ErrorCode,
        data: impl std::fmt::Display,
    ) -> wasmtime::Result<Result<T, Resource<NnError>>> {
        Ok(Err(self.table.push(NnError {
            code,
            data: clip(&data.to_string()),
        })?))
    }

    /// Takes the tensors out of the table and checks them against their own dimensions.
    fn take_inputs(
        &mut self,
        inputs: Vec<(String, Resource<NnTensor>)>,
    ) -> wasmtime::Result<Result<Vec<(String, ModelTensor)>, BackendError>> {
        let mut taken = Vec::with_capacity(inputs.len());
        let mut wrong = None;
        for (name, resource) in inputs {
            let NnTensor {
                dimensions,
                ty,
                data,
            } = self.table.delete(resource)?;
            let datatype = from_nn_type(ty);
            if name.len() > NAME_BYTES_MAX {
                wrong = Some(format!(
                    "input name of {} bytes, at most {NAME_BYTES_MAX}",
                    name.len()
                ));
            } else if let Err(error) =
                crate::host::tensor::check(datatype, &dimensions, data.bytes())
            {
                wrong = Some(format!("input {name}: {error}"));
            }
            taken.push((
                name,
                ModelTensor {
                    datatype,
                    shape: dimensions,
                    data,
                },
            ));
        }
        Ok(match wrong {
            None => Ok(taken),
            Some(message) => Err(BackendError {
                code: FaultCode::InvalidArgument,
                message,
            }),
        })
    }
}

impl tensor::Host for GuestState {}

impl HostTensor for GuestState {
    fn new(
        &mut self,
        dimensions: Vec<u32>,
        ty: TensorType,
        data: Vec<u8>,
    ) -> wasmtime::Result<Resource<NnTensor>> {
        self.count_call()?;
        let data = self
            .budget
            .charge(Bytes::from(data))
            .map_err(|over| wasmtime::Error::new(Stopped::from(over)))?;
        let dimensions = bounded(dimensions)?;
        Ok(self.table.push(NnTensor {
            dimensions,
            ty,
            data,
        })?)
    }

    fn dimensions(&mut self, this: Resource<NnTensor>) -> wasmtime::Result<Vec<u32>> {
        self.count_call()?;
        Ok(self.table.get(&this)?.dimensions.clone())
    }

    fn ty(&mut self, this: Resource<NnTensor>) -> wasmtime::Result<TensorType> {
        self.count_call()?;
        Ok(self.table.get(&this)?.ty)
    }

    fn data(&mut self, this: Resource<NnTensor>) -> wasmtime::Result<Vec<u8>> {
        self.count_call()?;
        Ok(self.table.get(&this)?.data.bytes().to_vec())
    }

    fn drop(&mut self, this: Resource<NnTensor>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

/// The constructor has no way to fail but a trap.
fn bounded(dimensions: Vec<u32>) -> wasmtime::Result<Vec<u32>> {
    let rank = dimensions.len();
    if rank > crate::host::tensor::RANK_MAX {
        return Err(wasmtime::Error::new(
            crate::host::tensor::TensorError::Rank(rank),
        ));
    }
    Ok(dimensions)
}

impl graph::Host for GuestState {
    fn load(
        &mut self,
        _builder: Vec<Vec<u8>>,
        _encoding: GraphEncoding,
        _target: ExecutionTarget,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
        self.count_call()?;
        self.fail(
            ErrorCode::UnsupportedOperation,
            "a model comes only from the module's own verified package: use load-by-name(\"model\")",
        )
    }

    fn load_by_name(
        &mut self,
        name: String,
    ) -> wasmtime::Result<Result<Resource<Graph>, Resource<NnError>>> {
        self.count_call()?;
        if name != MODEL_NAME && name != self.world.variant_name {
            return self.fail(
                ErrorCode::NotFound,
                format!("no model named {}", clip(&name)),
            );
        }
        let graph = Graph(Arc::clone(&self.world.model));
        Ok(Ok(self.table.push(graph)?))
    }
}

impl HostGraph for GuestState {
    fn init_execution_context(
        &mut self,
        this: Resource<Graph>,
    ) -> wasmtime::Result<Result<Resource<ExecutionContext>, Resource<NnError>>> {
        self.count_call()?;
        let context = ExecutionContext(Arc::clone(&self.table.get(&this)?.0));
        Ok(Ok(self.table.push(context)?))
    }

    fn drop(&mut self, this: Resource<Graph>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl inference::Host for GuestState {}

impl HostGraphExecutionContext for GuestState {
    fn compute(
        &mut self,
        this: Resource<ExecutionContext>,
        inputs: Vec<(String, Resource<NnTensor>)>,
    ) -> wasmtime::Result<Result<Vec<(String, Resource<NnTensor>)>, Resource<NnError>>> {
        self.count_call()?;
        let model = Arc::clone(&self.table.get(&this)?.0);
        let inputs = match self.take_inputs(inputs)? {
            Ok(inputs) => inputs,
            Err(error) => return self.fail(error.code.into(), error.message),
        };
        let computed = backend::run(&*model, &mut self.worker, inputs, &self.budget);
        // No engine can be cancelled; what it says too late is not waited for by anybody.
        self.check_deadline()?;
        let outputs = match computed {
            Ok(outputs) => outputs,
            Err(error) => return self.fail(error.code.into(), error.message),
        };
        let mut named = Vec::with_capacity(outputs.len());
        for (
            name,
            ModelTensor {
                datatype,
                shape,
                data,
            },
        ) in outputs
        {
            let Some(ty) = to_nn_type(datatype) else {
                return self.fail(
                    ErrorCode::UnsupportedOperation,
                    format!("output {name} is {datatype}, which wasi:nn has no type for"),
                );
            };
            let dimensions = if shape.is_empty() { vec![1] } else { shape };
            named.push((
                name,
                self.table.push(NnTensor {
                    dimensions,
                    ty,
                    data,
                })?,
            ));
        }
        Ok(Ok(named))
    }

    fn drop(&mut self, this: Resource<ExecutionContext>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}

impl errors::Host for GuestState {}

impl HostError for GuestState {
    fn code(&mut self, this: Resource<NnError>) -> wasmtime::Result<ErrorCode> {
        self.count_call()?;
        Ok(self.table.get(&this)?.code)
    }

    fn data(&mut self, this: Resource<NnError>) -> wasmtime::Result<String> {
        self.count_call()?;
        Ok(self.table.get(&this)?.data.clone())
    }

    fn drop(&mut self, this: Resource<NnError>) -> wasmtime::Result<()> {
        self.table.delete(this)?;
        Ok(())
    }
}
