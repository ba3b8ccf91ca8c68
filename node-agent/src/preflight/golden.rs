//! Golden vectors: what the module answers against what the package says it must.

use std::fs::File;
use std::io::Read;

use bytes::Bytes;
use rimward_artifact::package::golden::{
    self, GoldenTensor, GoldenVector, GoldenVectors, Mismatch,
};

use crate::host::tensor::{Tensor, TensorBudget};
use crate::proto::TensorSpec;

/// The largest file of golden vectors.
pub(super) const GOLDEN_BYTES_MAX: u64 = 64 << 20;

/// Reads and checks the file against the declared tensors.
pub(super) fn read(
    file: &mut File,
    inputs: &[TensorSpec],
    outputs: &[TensorSpec],
) -> Result<GoldenVectors, String> {
    let mut bytes = Vec::new();
    let read = file.take(GOLDEN_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("golden vectors cannot be read: {error}"))?;
    GoldenVectors::parse_for(&bytes, inputs, outputs, GOLDEN_BYTES_MAX)
        .map_err(|error| error.to_string())
}

/// The inputs of one vector as a request has them.
pub(super) fn inputs(
    vector: &GoldenVector,
    declared: &[TensorSpec],
    budget: &std::sync::Arc<TensorBudget>,
) -> Result<Vec<(String, Tensor)>, String> {
    vector
        .inputs
        .iter()
        .map(
            |GoldenTensor {
                 name,
                 datatype: _,
                 shape,
                 data,
                 tolerance: _,
             }| {
                let name = name.to_string();
                let spec = declared.iter().find(|spec| spec.name.as_str() == name);
                let spec = spec.ok_or_else(|| format!("input \"{name}\" is not declared"))?;
                let shape: Result<Vec<u32>, _> =
                    shape.iter().map(|size| u32::try_from(*size)).collect();
                let shape =
                    shape.map_err(|_| format!("input \"{name}\" has a dimension over 32 bits"))?;
                let buffer = budget
                    .charge(Bytes::copy_from_slice(data))
                    .map_err(|over| over.to_string())?;
                let tensor = Tensor::new(spec.datatype, &shape, buffer)
                    .map_err(|error| error.to_string())?;
                Ok((name, tensor))
            },
        )
        .collect()
}

/// Says where an answer differs, in the words that reach a node's status:
/// `golden vector 3: expected 7, got 1 (output label[0])`.
pub(super) fn compare(
    index: usize,
    vector: &GoldenVector,
    outputs: &[(String, Tensor)],
) -> Result<(), String> {
    let mut found: Option<(bool, Mismatch)> = None;
    for golden in &vector.outputs {
        let name = golden.name.to_string();
        let Some((_, tensor)) = outputs.iter().find(|(output, _)| *output == name) else {
            return Err(format!("golden vector {index}: output {name} is missing"));
        };
        let shape: Vec<u64> = tensor.shape().iter().map(|size| u64::from(*size)).collect();
        if let Err(mismatch) = golden::compare(golden, &shape, tensor.data()) {
            // An exact output (a label) says more to a person than the first of many numbers.
            let exact = golden.tolerance.is_none();
            if found
                .as_ref()
                .is_none_or(|(had_exact, _)| exact && !had_exact)
            {
                found = Some((exact, mismatch));
            }
        }
    }
    match found {
        None => Ok(()),
        Some((
            _,
            Mismatch::Value {
                name,
                index: element,
                expected,
                actual,
            },
        )) => Err(format!(
            "golden vector {index}: expected {expected}, got {actual} (output {name}[{element}])"
        )),
        Some((_, other)) => Err(format!("golden vector {index}: {other}")),
    }
}
