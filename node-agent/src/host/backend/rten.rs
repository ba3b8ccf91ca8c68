//! rten: ONNX on the CPU, pure Rust, built in.
//!
//! It knows four element types: FP32, INT32 (which stands for ONNX's int64 and bool too), UINT8 and
//! INT8. It can panic, run without end and has no cancel: see the workers. A padded `ConvInteger`
//! gives wrong answers silently in 0.27, so that is refused.

use std::sync::Arc;

use bytes::Bytes;
use rten::{
    DataType, Dimension, Model, NodeId, RunOptions, ThreadPool, Value, ValueOrView, ValueType,
    ValueView,
};
use rten_tensor::{Layout, Tensor};

use super::{
    BackendError, FaultCode, LoadError, LoadedModel, MODEL_BYTES_MAX, ModelTensor, WorkerContext,
    catch_panic, onnx,
};
use crate::host::tensor::TensorBudget;
use crate::proto::{Datatype, WhatRuns};

/// The engine as it is reported.
const NAME: &str = "rten 0.27";

/// Operators that say a model computes with 8-bit integers.
const INTEGER_OPERATORS: [&str; 5] = [
    "ConvInteger",
    "MatMulInteger",
    "QLinearConv",
    "QLinearMatMul",
    "DynamicQuantizeLinear",
];

#[derive(Debug)]
struct RtenModel {
    model: Model,
    inputs: Vec<Port>,
    outputs: Vec<(String, NodeId)>,
    precision: &'static str,
    file_bytes: u64,
}

#[derive(Debug)]
struct Port {
    name: String,
    node: NodeId,
    datatype: Option<DataType>,
    shape: Option<Vec<Dimension>>,
}

/// Looks a file through and loads it.
pub(super) fn load(file: Vec<u8>) -> Result<Arc<dyn LoadedModel>, LoadError> {
    let file_bytes = file.len() as u64;
    if file_bytes > MODEL_BYTES_MAX {
        return Err(LoadError::refused(format!(
            "model has {file_bytes} bytes, at most {MODEL_BYTES_MAX}"
        )));
    }
    let summary =
        onnx::inspect(&file).map_err(|refusal| LoadError::refused(refusal.to_string()))?;
    if summary.padded_conv_integer {
        return Err(LoadError::refused(
            "operator ConvInteger with padding: rten computes it wrongly",
        ));
    }
    let integer = INTEGER_OPERATORS
        .iter()
        .any(|operator| summary.operators.contains(*operator));
    let model = catch_panic(|| Model::load(file))
        .map_err(|words| {
            LoadError::refused(format!("rten panicked while loading the model: {words}"))
        })?
        .map_err(|error| LoadError::refused(format!("rten cannot load the model: {error}")))?;
    let inputs = model
        .input_ids()
        .iter()
        .map(|id| port(&model, *id))
        .collect::<Result<_, _>>()?;
    let outputs = model
        .output_ids()
        .iter()
        .map(|id| Ok((name(&model, *id)?, *id)))
        .collect::<Result<Vec<_>, LoadError>>()?;
    let precision = if integer { "int8" } else { "fp32" };
    Ok(Arc::new(RtenModel {
        model,
        inputs,
        outputs,
        precision,
        file_bytes,
    }))
}

fn name(model: &Model, id: NodeId) -> Result<String, LoadError> {
    let name = model
        .node_info(id)
        .and_then(|info| info.name().map(str::to_owned));
    name.ok_or_else(|| LoadError::refused("an input or output of the model has no name"))
}

fn port(model: &Model, node: NodeId) -> Result<Port, LoadError> {
    let info = model.node_info(node);
    let datatype = match info.as_ref().and_then(rten::NodeInfo::dtype) {
        Some(ValueType::Tensor(datatype)) => Some(datatype),
        Some(other) => {
            return Err(LoadError::refused(format!(
                "an input is {other}, only tensors can be given"
            )));
        }
        None => None,
    };
    Ok(Port {
        name: name(model, node)?,
        node,
        datatype,
        shape: info.and_then(|info| info.shape()),
    })
}

impl LoadedModel for RtenModel {
    fn what_runs(&self) -> WhatRuns {
        WhatRuns {
            backend: NAME.to_owned(),
            device: "cpu".to_owned(),
            precision: self.precision.to_owned(),
            memory_bytes: self.file_bytes,
        }
    }

    fn run(
        &self,
        worker: &mut WorkerContext,
        inputs: Vec<(String, ModelTensor)>,
        budget: &Arc<TensorBudget>,
    ) -> Result<Vec<(String, ModelTensor)>, BackendError> {
        let mut values: Vec<(NodeId, ValueOrView<'_>)> = Vec::with_capacity(inputs.len());
        for (name, tensor) in &inputs {
            let port = self.port(name)?;
            if values.iter().any(|(node, _)| *node == port.node) {
                return Err(invalid(format!("input {name} is given twice")));
            }
            port.check_shape(&tensor.shape)?;
            values.push((port.node, ValueOrView::Value(port.value(tensor)?)));
        }
        if let Some(missing) = self
            .inputs
            .iter()
            .find(|port| values.iter().all(|(node, _)| *node != port.node))
        {
            return Err(invalid(format!("input {} is missing", missing.name)));
        }
        let pool = worker
            .rten_pool
            .get_or_insert_with(|| Arc::new(ThreadPool::with_num_threads(1)));
        let nodes: Vec<NodeId> = self.outputs.iter().map(|(_, node)| *node).collect();
        let options = RunOptions::default().with_thread_pool(Some(Arc::clone(pool)));
        let values = self
            .model
            .run(values, &nodes, Some(options))
            .map_err(|error| {
                BackendError::new(FaultCode::RuntimeError, format!("rten: {error}"))
            })?;
        self.outputs
            .iter()
            .zip(values)
            .map(|((name, _), value)| Ok((name.clone(), from_value(name, &value, budget)?)))
            .collect()
    }
}

impl RtenModel {
    fn port(&self, name: &str) -> Result<&Port, BackendError> {
        self.inputs
            .iter()
            .find(|port| port.name == name)
            .ok_or_else(|| {
                let known: Vec<&str> = self.inputs.iter().map(|port| port.name.as_str()).collect();
                invalid(format!(
                    "the model has no input {name}; it has {}",
                    known.join(", ")
                ))
            })
    }
}

impl Port {
    fn check_shape(&self, shape: &[u32]) -> Result<(), BackendError> {
        let Some(declared) = &self.shape else {
            return Ok(());
        };
        let fits = declared.len() == shape.len()
            && declared
                .iter()
                .zip(shape)
                .all(|(declared, size)| match declared {
                    Dimension::Fixed(declared) => *declared == *size as usize,
                    Dimension::Symbolic(_) => true,
                });
        if fits {
            return Ok(());
        }
        let words: Vec<String> = declared
            .iter()
            .map(|dimension| match dimension {
                Dimension::Fixed(size) => size.to_string(),
                Dimension::Symbolic(name) => name.clone(),
            })
            .collect();
        Err(invalid(format!(
            "input {} has shape {shape:?}, the model takes [{}]",
            self.name,
            words.join(", ")
        )))
    }

    /// One copy: from the request's bytes into the engine's own.
    fn value(&self, tensor: &ModelTensor) -> Result<Value, BackendError> {
        let shape: Vec<usize> = tensor.shape.iter().map(|size| *size as usize).collect();
        let bytes = tensor.data.bytes();
        let value = match (tensor.datatype, self.datatype) {
            (Datatype::Fp32, Some(DataType::Float) | None) => {
                made(&shape, elements(bytes, f32::from_le_bytes))
            }
            (Datatype::Int32, Some(DataType::Int32) | None) => {
                made(&shape, elements(bytes, i32::from_le_bytes))
            }
            (Datatype::Uint8, Some(DataType::UInt8) | None) => made(&shape, bytes.to_vec()),
            (Datatype::Int64, Some(DataType::Int32)) => {
                let narrow = elements(bytes, i64::from_le_bytes)
                    .into_iter()
                    .map(i32::try_from);
                let narrow: Result<Vec<i32>, _> = narrow.collect();
                let too_large = || {
                    invalid(format!(
                        "input {}: rten holds INT64 in 32 bits, a value does not fit",
                        self.name
                    ))
                };
                made(&shape, narrow.map_err(|_| too_large())?)
            }
            (
                datatype @ (Datatype::Fp32 | Datatype::Int32 | Datatype::Int64 | Datatype::Uint8),
                Some(wanted),
            ) => {
                return Err(invalid(format!(
                    "input {} is {datatype}, the model takes {wanted:?}",
                    self.name
                )));
            }
            (datatype, _) => {
                let message = format!("input {}: rten has no tensors of {datatype}", self.name);
                return Err(BackendError::new(FaultCode::UnsupportedOperation, message));
            }
        };
        value.ok_or_else(|| invalid(format!("input {}: data does not fill its shape", self.name)))
    }
}

fn invalid(message: String) -> BackendError {
    BackendError::new(FaultCode::InvalidArgument, message)
}

fn elements<T, const N: usize>(bytes: &[u8], from: fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| from(*chunk)).collect()
}

fn made<T>(shape: &[usize], data: Vec<T>) -> Option<Value>
where
    Value: From<Tensor<T>>,
{
    Value::from_shape(shape, data).ok()
}

/// One copy: from the engine's own into bytes.
fn from_value(
    name: &str,
    value: &Value,
    budget: &Arc<TensorBudget>,
) -> Result<ModelTensor, BackendError> {
    let view = value.as_view();
    let (datatype, shape, bytes) = match &view {
        ValueView::FloatTensor(tensor) => (
            Datatype::Fp32,
            tensor.shape(),
            packed(tensor.iter(), |value| value.to_le_bytes()),
        ),
        ValueView::Int32Tensor(tensor) => (
            Datatype::Int32,
            tensor.shape(),
            packed(tensor.iter(), |value| value.to_le_bytes()),
        ),
        ValueView::Int8Tensor(tensor) => (
            Datatype::Int8,
            tensor.shape(),
            packed(tensor.iter(), |value| value.to_le_bytes()),
        ),
        ValueView::UInt8Tensor(tensor) => (
            Datatype::Uint8,
            tensor.shape(),
            packed(tensor.iter(), |value| [*value]),
        ),
        _ => {
            let message = format!("output {name} is no tensor");
            return Err(BackendError::new(FaultCode::UnsupportedOperation, message));
        }
    };
    let shape = shape
        .iter()
        .map(|size| u32::try_from(*size))
        .collect::<Result<Vec<u32>, _>>();
    let too_large = |message: String| {
        BackendError::new(FaultCode::TooLarge, format!("output {name}: {message}"))
    };
    let shape = shape.map_err(|_| too_large("a dimension does not fit 32 bits".to_owned()))?;
    let data = budget
        .charge(Bytes::from(bytes))
        .map_err(|over| too_large(over.to_string()))?;
    Ok(ModelTensor {
        datatype,
        shape,
        data,
    })
}

fn packed<'a, T: 'a, const N: usize>(
    values: impl ExactSizeIterator<Item = &'a T>,
    to: fn(&T) -> [u8; N],
) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * N);
    for value in values {
        bytes.extend_from_slice(&to(value));
    }
    bytes
}
