//! Tensors against what the package declares, on the way in and on the way out.

use super::tensor::Tensor;
use crate::proto::{Datatype, TensorSpec};

/// A tensor that is not what the package declares.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Mismatch(String);

/// Does a concrete shape fit a declared one?
pub fn shape_fits(declared: &[i64], shape: &[u32]) -> bool {
    declared.len() == shape.len()
        && declared
            .iter()
            .zip(shape)
            .all(|(declared, size)| *declared == -1 || *declared == i64::from(*size))
}

/// Checks one tensor of a request: its name is declared, and datatype and shape are as declared.
pub fn check_input<'a>(
    declared: &'a [TensorSpec],
    name: &str,
    datatype: Datatype,
    shape: &[u32],
) -> Result<&'a TensorSpec, Mismatch> {
    let known = || {
        declared
            .iter()
            .map(|spec| spec.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let spec = declared
        .iter()
        .find(|spec| spec.name.as_str() == name)
        .ok_or_else(|| {
            Mismatch(format!(
                "there is no input \"{name}\"; the inputs are {}",
                known()
            ))
        })?;
    fits(spec, "input", datatype, shape)?;
    Ok(spec)
}

/// Checks that every declared input is there exactly once; `names` are already checked.
pub fn check_complete(declared: &[TensorSpec], names: &[&str]) -> Result<(), Mismatch> {
    for spec in declared {
        match names
            .iter()
            .filter(|name| **name == spec.name.as_str())
            .count()
        {
            1 => {}
            0 => return Err(Mismatch(format!("input \"{}\" is missing", spec.name))),
            times => {
                return Err(Mismatch(format!(
                    "input \"{}\" is given {times} times",
                    spec.name
                )));
            }
        }
    }
    Ok(())
}

/// Checks a module's answer: every declared output exactly once, as declared, and no other.
pub fn check_outputs(
    declared: &[TensorSpec],
    outputs: &[(String, Tensor)],
) -> Result<(), Mismatch> {
    for (name, tensor) in outputs {
        let spec = declared.iter().find(|spec| spec.name.as_str() == *name);
        let spec = spec.ok_or_else(|| {
            let name: String = name.chars().take(128).collect();
            Mismatch(format!(
                "module gave output \"{name}\", which the package does not declare"
            ))
        })?;
        fits(
            spec,
            "module gave output",
            tensor.datatype(),
            tensor.shape(),
        )?;
    }
    for spec in declared {
        if outputs
            .iter()
            .filter(|(name, _)| *name == spec.name.as_str())
            .count()
            != 1
        {
            return Err(Mismatch(format!(
                "module did not give output \"{}\" exactly once",
                spec.name
            )));
        }
    }
    Ok(())
}

fn fits(spec: &TensorSpec, what: &str, datatype: Datatype, shape: &[u32]) -> Result<(), Mismatch> {
    let TensorSpec {
        name,
        datatype: declared,
        shape: declared_shape,
    } = spec;
    if datatype != *declared {
        return Err(Mismatch(format!(
            "{what} \"{name}\" has datatype {datatype}, declared is {declared}"
        )));
    }
    if !shape_fits(declared_shape, shape) {
        return Err(Mismatch(format!(
            "{what} \"{name}\" has shape {shape:?}, declared is {declared_shape:?}"
        )));
    }
    Ok(())
}
