//! Answers of the Open Inference Protocol, version 2, as JSON.

use std::fmt::{self, Write};

use rimward_artifact::package::half::{bf16_value, f16_value};

use super::room::{Collected, Full};
use crate::host::slot::NoAnswer;
use crate::host::tensor::{Strings, Tensor};
use crate::proto::{Datatype, TensorSpec};

/// What an answer begins with.
#[derive(Debug)]
pub(super) struct Head<'a> {
    /// The endpoint's name.
    pub(super) model: &'a str,
    /// The revision that answers.
    pub(super) version: &'a str,
    /// The request's own, echoed.
    pub(super) id: Option<&'a str>,
}

/// Why writing stopped.
#[derive(Debug)]
enum Stop {
    /// JSON cannot carry it.
    Cannot(String),
    /// Over a limit: the bytes say which.
    Full,
}

impl From<fmt::Error> for Stop {
    fn from(_: fmt::Error) -> Self {
        Self::Full
    }
}

/// Writes an inference's answer. Refuses what JSON cannot carry, naming it, as the version's fault: a NaN, a
/// string that is not UTF-8.
pub(super) fn answer(
    head: &Head<'_>,
    outputs: &[(String, Tensor)],
    wanted: Option<&[String]>,
    json: &mut Collected<'_>,
) -> Result<(), NoAnswer> {
    write(head, outputs, wanted, json).map_err(|stop| match (stop, json.full()) {
        (Stop::Cannot(what), _) => NoAnswer::Failed(what),
        (Stop::Full, Some(Full::TooLarge(bytes_max))) => NoAnswer::TooLarge(format!(
            "the answer has more than {bytes_max} bytes: send a smaller batch, or ask for fewer outputs"
        )),
        (Stop::Full, Some(Full::NoRoom) | None) => NoAnswer::NoRoom,
    })
}

fn write(
    head: &Head<'_>,
    outputs: &[(String, Tensor)],
    wanted: Option<&[String]>,
    json: &mut Collected<'_>,
) -> Result<(), Stop> {
    json.write_str("{\"model_name\":")?;
    string(json, head.model)?;
    json.write_str(",\"model_version\":")?;
    string(json, head.version)?;
    if let Some(id) = head.id {
        json.write_str(",\"id\":")?;
        string(json, id)?;
    }
    json.write_str(",\"outputs\":[")?;
    let chosen = outputs
        .iter()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted.contains(name)));
    for (index, (name, tensor)) in chosen.enumerate() {
        if index > 0 {
            json.write_char(',')?;
        }
        json.write_str("{\"name\":")?;
        string(json, name)?;
        write!(
            json,
            ",\"datatype\":\"{}\",\"shape\":{:?},\"data\":[",
            tensor.datatype(),
            tensor.shape()
        )?;
        data(json, tensor).map_err(|stop| match stop {
            Stop::Cannot(what) => Stop::Cannot(format!("output \"{name}\": {what}")),
            Stop::Full => Stop::Full,
        })?;
        json.write_str("]}")?;
    }
    Ok(json.write_str("]}")?)
}

fn data(json: &mut Collected<'_>, tensor: &Tensor) -> Result<(), Stop> {
    let bytes = tensor.data();
    match tensor.datatype() {
        Datatype::Bool => list(json, bytes.iter(), |json, byte| {
            Ok(json.write_str(if *byte == 0 { "false" } else { "true" })?)
        }),
        Datatype::Uint8 => numbers(json, bytes, |[byte]| byte),
        Datatype::Int8 => numbers(json, bytes, i8::from_le_bytes),
        Datatype::Uint16 => numbers(json, bytes, u16::from_le_bytes),
        Datatype::Int16 => numbers(json, bytes, i16::from_le_bytes),
        Datatype::Uint32 => numbers(json, bytes, u32::from_le_bytes),
        Datatype::Int32 => numbers(json, bytes, i32::from_le_bytes),
        Datatype::Uint64 => numbers(json, bytes, u64::from_le_bytes),
        Datatype::Int64 => numbers(json, bytes, i64::from_le_bytes),
        Datatype::Fp16 => floats(json, bytes, |half| f16_value(u16::from_le_bytes(half))),
        Datatype::Bf16 => floats(json, bytes, |half| bf16_value(u16::from_le_bytes(half))),
        Datatype::Fp32 => floats(json, bytes, f32::from_le_bytes),
        Datatype::Fp64 => floats(json, bytes, f64::from_le_bytes),
        Datatype::Bytes => list(json, Strings::new(bytes), |json, bytes| {
            let text = std::str::from_utf8(bytes).map_err(|_| {
                Stop::Cannot("a string is not UTF-8, which JSON cannot carry".to_owned())
            })?;
            Ok(string(json, text)?)
        }),
    }
}

fn list<'a, T>(
    json: &mut Collected<'a>,
    items: impl Iterator<Item = T>,
    mut one: impl FnMut(&mut Collected<'a>, T) -> Result<(), Stop>,
) -> Result<(), Stop> {
    for (index, item) in items.enumerate() {
        if index > 0 {
            json.write_char(',')?;
        }
        one(json, item)?;
    }
    Ok(())
}

fn numbers<T: fmt::Display, const N: usize>(
    json: &mut Collected<'_>,
    bytes: &[u8],
    from: fn([u8; N]) -> T,
) -> Result<(), Stop> {
    list(json, bytes.as_chunks::<N>().0.iter(), |json, chunk| {
        Ok(write!(json, "{}", from(*chunk))?)
    })
}

/// Floats in the shortest form that reads back as the same number of the same width.
fn floats<T: serde::Serialize + Copy, const N: usize>(
    json: &mut Collected<'_>,
    bytes: &[u8],
    from: impl Fn([u8; N]) -> T,
) -> Result<(), Stop> {
    let mut index = 0usize;
    list(json, bytes.as_chunks::<N>().0.iter(), |json, chunk| {
        let text = serde_json::to_string(&from(*chunk))
            .map_err(|error| Stop::Cannot(error.to_string()))?;
        // serde_json writes null for what is not finite.
        if text == "null" {
            return Err(Stop::Cannot(format!(
                "element {index} is not a finite number, which JSON cannot carry"
            )));
        }
        index += 1;
        Ok(json.write_str(&text)?)
    })
}

fn string(json: &mut Collected<'_>, text: &str) -> fmt::Result {
    json.write_str(&serde_json::Value::from(text).to_string())
}

/// The metadata of tensors.
pub(super) fn tensors(specs: &[TensorSpec]) -> serde_json::Value {
    let one = |TensorSpec {
                   name,
                   datatype,
                   shape,
               }: &TensorSpec| serde_json::json!({"name": name, "datatype": datatype.name(), "shape": shape});
    specs.iter().map(one).collect()
}
