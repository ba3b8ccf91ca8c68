//! Golden vectors: inputs with their right answers, tried on the device before a package serves.
//!
//! Media type `application/vnd.rimward.golden.v1+json`:
//! `{"vectors":[{"inputs":[{"name","datatype","shape","data"}],"outputs":[{…,"tolerance"}]}]}`, data flattened
//! row-major, tolerance absolute and absent for exact. Numbers are parsed straight into the tensor's own bytes.

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::names::TensorName;
use super::tensor::{Datatype, RANK_MAX, TensorSpec, element_count};
use crate::json::{self, JsonError, JsonLimits};
use crate::package::config::PackageConfig;

mod element;

pub use element::{Mismatch, compare};

/// Vectors of one package.
pub const VECTORS_MAX: usize = 256;
/// Elements of all tensors of all vectors together.
pub const ELEMENTS_MAX: u64 = 4 << 20;
/// Bytes of one BYTES element.
pub const STRING_BYTES_MAX: usize = 64 << 10;

/// Golden vectors that fit the tensors their package declares.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenVectors {
    /// At least one.
    pub vectors: Vec<GoldenVector>,
}

/// One question and its right answer.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenVector {
    /// One tensor for every declared input.
    pub inputs: Vec<GoldenTensor>,
    /// The outputs to compare: at least one of those declared.
    pub outputs: Vec<GoldenTensor>,
}

/// One tensor, with the bytes that the inference protocol would send for it.
#[derive(Debug, Clone, PartialEq)]
pub struct GoldenTensor {
    /// One of the package's declared names.
    pub name: TensorName,
    /// Its element type.
    pub datatype: Datatype,
    /// Its concrete dimensions.
    pub shape: Vec<u64>,
    /// Row-major, little-endian; BYTES elements each with their length in 4 bytes in front.
    pub data: Vec<u8>,
    /// Largest absolute difference that still counts as equal; none means exact.
    pub tolerance: Option<f64>,
}

/// Why golden vectors were refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum GoldenError {
    /// Not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field with a value that is not accepted.
    #[error("golden vectors: field {field}: {message}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        message: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVectors {
    vectors: Vec<RawVector>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawVector {
    inputs: Vec<RawTensor>,
    outputs: Vec<RawTensor>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    name: TensorName,
    datatype: Datatype,
    shape: Vec<u64>,
    data: Vec<Value>,
    tolerance: Option<f64>,
}

impl GoldenVectors {
    /// Parses at most `bytes_max` bytes, and checks every tensor against what `config` declares.
    ///
    /// # Errors
    /// [`GoldenError`], naming vector, tensor, limit and value.
    pub fn parse(
        bytes: &[u8],
        config: &PackageConfig,
        bytes_max: u64,
    ) -> Result<Self, GoldenError> {
        Self::parse_for(bytes, &config.inputs, &config.outputs, bytes_max)
    }

    /// As [`GoldenVectors::parse`], where only the declared tensors are at hand.
    ///
    /// # Errors
    /// [`GoldenError`], naming vector, tensor, limit and value.
    pub fn parse_for(
        bytes: &[u8],
        declared_inputs: &[TensorSpec],
        declared_outputs: &[TensorSpec],
        bytes_max: u64,
    ) -> Result<Self, GoldenError> {
        let limits = JsonLimits {
            bytes_max,
            depth_max: 8,
            // Each element is one value; tensors and vectors add a few each.
            nodes_max: 5 << 20,
            keys_may_repeat: false,
        };
        let raw: RawVectors = json::parse("golden vectors", bytes, limits)?;
        if raw.vectors.is_empty() || raw.vectors.len() > VECTORS_MAX {
            return Err(field(
                "vectors",
                format!(
                    "has {} entries, 1 to {VECTORS_MAX} are accepted",
                    raw.vectors.len()
                ),
            ));
        }
        let mut elements = 0;
        let mut vectors = Vec::with_capacity(raw.vectors.len());
        for (index, vector) in raw.vectors.iter().enumerate() {
            let at = format!("vectors[{index}]");
            let inputs = tensors(
                &format!("{at}.inputs"),
                &vector.inputs,
                declared_inputs,
                &mut elements,
            )?;
            if inputs.len() != declared_inputs.len() {
                return Err(field(
                    &format!("{at}.inputs"),
                    format!(
                        "has {}, the package declares {}",
                        inputs.len(),
                        declared_inputs.len()
                    ),
                ));
            }
            let outputs = tensors(
                &format!("{at}.outputs"),
                &vector.outputs,
                declared_outputs,
                &mut elements,
            )?;
            if outputs.is_empty() {
                return Err(field(
                    &format!("{at}.outputs"),
                    "has none to compare".to_owned(),
                ));
            }
            vectors.push(GoldenVector { inputs, outputs });
        }
        Ok(Self { vectors })
    }
}

fn tensors(
    at: &str,
    raw: &[RawTensor],
    declared: &[TensorSpec],
    elements: &mut u64,
) -> Result<Vec<GoldenTensor>, GoldenError> {
    let mut tensors: Vec<GoldenTensor> = Vec::new();
    for (index, raw) in raw.iter().enumerate() {
        let at = format!("{at}[{index}]");
        if tensors.iter().any(|earlier| earlier.name == raw.name) {
            return Err(field(&at, format!("\"{}\" is given twice", raw.name)));
        }
        tensors.push(tensor(&at, raw, declared, elements)?);
    }
    Ok(tensors)
}

fn tensor(
    at: &str,
    raw: &RawTensor,
    declared: &[TensorSpec],
    elements: &mut u64,
) -> Result<GoldenTensor, GoldenError> {
    let RawTensor {
        name,
        datatype,
        shape,
        data,
        tolerance,
    } = raw;
    let spec = declared
        .iter()
        .find(|spec| spec.name == *name)
        .ok_or_else(|| field(at, format!("\"{name}\" is not declared by the package")))?;
    if spec.datatype != *datatype {
        return Err(field(
            &format!("{at}.datatype"),
            format!(
                "\"{name}\" is {datatype}, the package declares {}",
                spec.datatype
            ),
        ));
    }
    if shape.len() > RANK_MAX || !spec.accepts(shape) {
        let shape = &shape[..shape.len().min(RANK_MAX)];
        return Err(field(
            &format!("{at}.shape"),
            format!(
                "\"{name}\" is {shape:?}, the package declares {:?}",
                spec.shape
            ),
        ));
    }
    let count = element_count(shape).unwrap_or(u64::MAX);
    if count != data.len() as u64 {
        return Err(field(
            &format!("{at}.data"),
            format!(
                "\"{name}\" has {} elements, its shape asks for {count}",
                data.len()
            ),
        ));
    }
    *elements += count;
    if *elements > ELEMENTS_MAX {
        return Err(field(
            at,
            format!("more than {ELEMENTS_MAX} elements in all"),
        ));
    }
    if tolerance.is_some_and(|tolerance| !tolerance.is_finite() || tolerance < 0.0) {
        return Err(field(
            &format!("{at}.tolerance"),
            "must be a finite number, at least 0".to_owned(),
        ));
    }
    let mut bytes = Vec::with_capacity(data.len() * datatype.element_bytes().unwrap_or(8));
    for (index, value) in data.iter().enumerate() {
        element::write(*datatype, value, &mut bytes)
            .map_err(|message| field(&format!("{at}.data[{index}]"), message))?;
    }
    Ok(GoldenTensor {
        name: name.clone(),
        datatype: *datatype,
        shape: shape.clone(),
        data: bytes,
        tolerance: *tolerance,
    })
}

fn field(name: &str, message: String) -> GoldenError {
    GoldenError::Field {
        field: name.to_owned(),
        message,
    }
}
