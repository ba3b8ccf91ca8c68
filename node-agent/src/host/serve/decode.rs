//! JSON of the Open Inference Protocol, version 2, into tensors.
//!
//! The body is bounded before it gets here. A tensor's data goes straight from text into its own
//! bytes: no tree of JSON values is built, nothing is reserved that the text could not fill, and
//! reading stops at the first element too many.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use rimward_artifact::package::half;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::host::tensor::{OverBudget, RANK_MAX, Tensor, TensorBudget, element_count};
use crate::proto::Datatype;

/// Inputs or outputs that a request may name.
const TENSORS_MAX: usize = 256;
/// The longest id.
const ID_BYTES_MAX: usize = 1024;

/// A request, parsed.
#[derive(Debug)]
pub(super) struct Request {
    /// Echoed in the answer.
    pub(super) id: Option<String>,
    /// Named tensors.
    pub(super) inputs: Vec<(String, Tensor)>,
    /// The outputs that the client asks for; `None` for all.
    pub(super) outputs: Option<Vec<String>>,
}

/// Why a request is refused: always the client's mistake.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mistake {
    #[error("request is not JSON of the inference protocol: {0}")]
    Json(String),
    #[error("{at}: {what}")]
    Field { at: String, what: String },
    #[error("{at}: {what}")]
    TooLarge { at: String, what: String },
}

fn field(at: impl Into<String>, what: impl Into<String>) -> Mistake {
    Mistake::Field {
        at: at.into(),
        what: what.into(),
    }
}

#[derive(Deserialize)]
struct RawRequest<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(default, borrow)]
    parameters: Option<Parameters<'a>>,
    #[serde(borrow)]
    inputs: Vec<RawInput<'a>>,
    #[serde(default, borrow)]
    outputs: Option<Vec<RawOutput<'a>>>,
}

#[derive(Deserialize)]
struct RawInput<'a> {
    name: String,
    shape: Vec<i64>,
    datatype: String,
    #[serde(default, borrow)]
    parameters: Option<Parameters<'a>>,
    #[serde(default, borrow)]
    data: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct RawOutput<'a> {
    name: String,
    #[serde(default, borrow)]
    parameters: Option<Parameters<'a>>,
}

/// Parameters are passed over: no module sees them yet. Those of the binary extension are refused,
/// because a client that sends them expects another answer.
type Parameters<'a> = BTreeMap<String, &'a RawValue>;

/// Parses a body. Its tensors go on the budget.
pub(super) fn request(body: &[u8], budget: &Arc<TensorBudget>) -> Result<Request, Mistake> {
    let raw: RawRequest<'_> =
        serde_json::from_slice(body).map_err(|error| Mistake::Json(error.to_string()))?;
    let RawRequest {
        id,
        parameters,
        inputs,
        outputs,
    } = raw;
    if id.as_ref().is_some_and(|id| id.len() > ID_BYTES_MAX) {
        return Err(field("id", format!("is longer than {ID_BYTES_MAX} bytes")));
    }
    refuse_binary("parameters", parameters.as_ref())?;
    if inputs.len() > TENSORS_MAX
        || outputs
            .as_ref()
            .is_some_and(|outputs| outputs.len() > TENSORS_MAX)
    {
        return Err(field(
            "inputs and outputs",
            format!("are more than {TENSORS_MAX}"),
        ));
    }
    let inputs = inputs
        .into_iter()
        .enumerate()
        .map(|(index, raw)| input(index, raw, budget))
        .collect::<Result<_, _>>()?;
    let outputs = outputs
        .map(|outputs| {
            outputs
                .into_iter()
                .enumerate()
                .map(|(index, RawOutput { name, parameters })| {
                    refuse_binary(&format!("outputs[{index}].parameters"), parameters.as_ref())?;
                    Ok(name)
                })
                .collect::<Result<Vec<_>, Mistake>>()
        })
        .transpose()?;
    // An empty list asks for everything, as no list does.
    Ok(Request {
        id,
        inputs,
        outputs: outputs.filter(|outputs| !outputs.is_empty()),
    })
}

fn refuse_binary(at: &str, parameters: Option<&Parameters<'_>>) -> Result<(), Mistake> {
    for (name, value) in parameters.into_iter().flatten() {
        let asked = match name.as_str() {
            "binary_data_size" => true,
            "binary_data" | "binary_data_output" => value.get().trim() != "false",
            _ => false,
        };
        if asked {
            return Err(field(
                format!("{at}.{name}"),
                "the binary tensor extension is not supported yet: send and ask for JSON data",
            ));
        }
    }
    Ok(())
}

fn input(
    index: usize,
    raw: RawInput<'_>,
    budget: &Arc<TensorBudget>,
) -> Result<(String, Tensor), Mistake> {
    let RawInput {
        name,
        shape,
        datatype,
        parameters,
        data,
    } = raw;
    let at = format!(
        "inputs[{index}] ({})",
        name.chars().take(64).collect::<String>()
    );
    refuse_binary(&format!("{at}.parameters"), parameters.as_ref())?;
    let datatype = Datatype::parse(&datatype).ok_or_else(|| {
        let datatype: String = datatype.chars().take(32).collect();
        field(
            format!("{at}.datatype"),
            format!("\"{datatype}\" is no datatype of the inference protocol"),
        )
    })?;
    if shape.len() > RANK_MAX {
        return Err(field(
            format!("{at}.shape"),
            format!("has {} dimensions, at most {RANK_MAX}", shape.len()),
        ));
    }
    let shape = shape
        .iter()
        .map(|size| {
            u32::try_from(*size)
                .map_err(|_| field(format!("{at}.shape"), format!("{size} is no dimension")))
        })
        .collect::<Result<Vec<u32>, _>>()?;
    let data = data.ok_or_else(|| field(&at, "has no data"))?;
    let count =
        element_count(&shape).map_err(|error| field(format!("{at}.shape"), error.to_string()))?;
    let too_large = |over: OverBudget| Mistake::TooLarge {
        at: format!("{at}.data"),
        what: over.to_string(),
    };
    // Every element takes a digit and a comma, so the text itself bounds what is reserved.
    let likely = count.min(data.get().len() as u64 / 2 + 1);
    let element_bytes = datatype.element_bytes().unwrap_or(4) as u64;
    let reserve_bytes = likely.saturating_mul(element_bytes);
    budget.check(reserve_bytes).map_err(too_large)?;
    let bytes = Vec::with_capacity(reserve_bytes as usize);
    let bytes = read_data(datatype, &shape, count, data, bytes)
        .map_err(|what| field(format!("{at}.data"), what))?;
    let buffer = budget.charge(Bytes::from(bytes)).map_err(too_large)?;
    let tensor = Tensor::new(datatype, &shape, buffer)
        .map_err(|error| field(format!("{at}.data"), error.to_string()))?;
    Ok((name, tensor))
}

/// Reads flat or nested data, row-major, into `bytes`.
fn read_data(
    datatype: Datatype,
    shape: &[u32],
    count: u64,
    data: &RawValue,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, String> {
    let mut sink = Sink {
        datatype,
        shape,
        left: count,
        bytes,
    };
    let mut json = serde_json::Deserializer::from_str(data.get());
    Level {
        sink: &mut sink,
        level: 0,
    }
    .deserialize(&mut json)
    .map_err(words)?;
    if sink.left > 0 {
        return Err(format!(
            "has {} elements, shape {shape:?} takes {count}",
            count - sink.left
        ));
    }
    Ok(sink.bytes)
}

/// serde_json's words without its position, which counts from the start of the tensor's data.
fn words(error: serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

struct Sink<'a> {
    datatype: Datatype,
    shape: &'a [u32],
    left: u64,
    bytes: Vec<u8>,
}

impl Sink<'_> {
    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.left = self.left.checked_sub(1).ok_or_else(|| {
            E::custom(format!(
                "has more elements than shape {:?} takes",
                self.shape
            ))
        })?;
        Ok(())
    }

    fn integer<E: serde::de::Error>(&mut self, value: i128) -> Result<(), E> {
        self.count()?;
        let out_of_range = || E::custom(format!("{value} does not fit {}", self.datatype));
        macro_rules! put {
            ($type:ty) => {{
                let bytes = <$type>::try_from(value)
                    .map_err(|_| out_of_range())?
                    .to_le_bytes();
                self.bytes.extend_from_slice(&bytes);
            }};
        }
        match self.datatype {
            Datatype::Bool if value == 0 || value == 1 => self.bytes.push(value as u8),
            Datatype::Bool => return Err(out_of_range()),
            Datatype::Uint8 => put!(u8),
            Datatype::Uint16 => put!(u16),
            Datatype::Uint32 => put!(u32),
            Datatype::Uint64 => put!(u64),
            Datatype::Int8 => put!(i8),
            Datatype::Int16 => put!(i16),
            Datatype::Int32 => put!(i32),
            Datatype::Int64 => put!(i64),
            Datatype::Fp16 | Datatype::Fp32 | Datatype::Fp64 | Datatype::Bf16 => {
                return self.float(value as f64);
            }
            Datatype::Bytes => {
                return Err(E::custom("a number is no element of BYTES: send strings"));
            }
        }
        Ok(())
    }

    fn float<E: serde::de::Error>(&mut self, value: f64) -> Result<(), E> {
        let single = value as f32;
        let finite = match self.datatype {
            Datatype::Fp64 => {
                self.bytes.extend_from_slice(&value.to_le_bytes());
                true
            }
            Datatype::Fp32 => {
                self.bytes.extend_from_slice(&single.to_le_bytes());
                single.is_finite()
            }
            Datatype::Fp16 => {
                let bits = half::f16_bits(value);
                self.bytes.extend_from_slice(&bits.to_le_bytes());
                half::f16_value(bits).is_finite()
            }
            Datatype::Bf16 => {
                let bits = half::bf16_bits(value);
                self.bytes.extend_from_slice(&bits.to_le_bytes());
                half::bf16_value(bits).is_finite()
            }
            other => return Err(E::custom(format!("{value} is no element of {other}"))),
        };
        if finite {
            Ok(())
        } else {
            Err(E::custom(format!("{value} does not fit {}", self.datatype)))
        }
    }

    fn string<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        if self.datatype != Datatype::Bytes {
            return Err(E::custom(format!(
                "a string is no element of {}",
                self.datatype
            )));
        }
        self.count()?;
        let length = u32::try_from(text.len()).map_err(|_| E::custom("a string is too long"))?;
        self.bytes.extend_from_slice(&length.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// One value at one depth of the data: an array or an element.
struct Level<'s, 'a> {
    sink: &'s mut Sink<'a>,
    level: usize,
}

impl<'de> DeserializeSeed<'de> for Level<'_, '_> {
    /// Whether it was an array.
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Level<'_, '_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.level {
            0 => f.write_str("an array of elements"),
            _ => write!(f, "an element of {} or an array", self.sink.datatype),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<bool, A::Error> {
        let Level { sink, level } = self;
        // A flat array is level 0 alone; nested ones are as deep as the shape.
        if level > 0 && level >= sink.shape.len() {
            return Err(A::Error::custom(format!(
                "is nested deeper than shape {:?}",
                sink.shape
            )));
        }
        let (mut length, mut arrays) = (0u64, 0u64);
        while let Some(array) = seq.next_element_seed(Level {
            sink: &mut *sink,
            level: level + 1,
        })? {
            length += 1;
            arrays += u64::from(array);
        }
        if arrays != 0 && arrays != length {
            return Err(A::Error::custom("mixes elements and arrays"));
        }
        let nested = level > 0 || arrays > 0;
        let declared = sink.shape.get(level).copied().map_or(1, u64::from);
        let leaf = arrays == 0 && length > 0;
        if nested && (length != declared || leaf && level + 1 != sink.shape.len()) {
            return Err(A::Error::custom(format!(
                "is nested otherwise than shape {:?}",
                sink.shape
            )));
        }
        Ok(true)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<bool, E> {
        self.element()?;
        if self.sink.datatype != Datatype::Bool {
            return Err(E::custom(format!(
                "{value} is no element of {}",
                self.sink.datatype
            )));
        }
        self.sink.integer(i128::from(value))?;
        Ok(false)
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<bool, E> {
        self.element()?;
        self.sink.integer(i128::from(value))?;
        Ok(false)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<bool, E> {
        self.element()?;
        self.sink.integer(i128::from(value))?;
        Ok(false)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<bool, E> {
        self.element()?;
        self.sink.count()?;
        self.sink.float(value)?;
        Ok(false)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<bool, E> {
        self.element()?;
        self.sink.string(value)?;
        Ok(false)
    }
}

impl Level<'_, '_> {
    fn element<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.level == 0 {
            Err(E::custom("is not an array"))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
