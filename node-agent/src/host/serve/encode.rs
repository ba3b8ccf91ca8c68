//! Answers of the Open Inference Protocol, version 2, as JSON.

use std::fmt::Write;

use rimward_artifact::package::half::{bf16_value, f16_value};

use crate::host::tensor::{Strings, Tensor};
use crate::proto::{Datatype, TensorSpec};

/// Writes an inference's answer. Refuses what JSON cannot carry, naming it: a NaN, a string that is
/// not UTF-8.
pub(super) fn answer(
    model: &str,
    version: &str,
    id: Option<&str>,
    outputs: &[(String, Tensor)],
    wanted: Option<&[String]>,
) -> Result<Vec<u8>, String> {
    let mut json = String::with_capacity(256);
    json.push_str("{\"model_name\":");
    string(&mut json, model);
    json.push_str(",\"model_version\":");
    string(&mut json, version);
    if let Some(id) = id {
        json.push_str(",\"id\":");
        string(&mut json, id);
    }
    json.push_str(",\"outputs\":[");
    let chosen = outputs
        .iter()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted.contains(name)));
    for (index, (name, tensor)) in chosen.enumerate() {
        if index > 0 {
            json.push(',');
        }
        json.push_str("{\"name\":");
        string(&mut json, name);
        let _ = write!(
            json,
            ",\"datatype\":\"{}\",\"shape\":{:?},\"data\":[",
            tensor.datatype(),
            tensor.shape()
        );
        data(&mut json, tensor).map_err(|what| format!("output \"{name}\": {what}"))?;
        json.push_str("]}");
    }
    json.push_str("]}");
    Ok(json.into_bytes())
}

fn data(json: &mut String, tensor: &Tensor) -> Result<(), String> {
    let bytes = tensor.data();
    match tensor.datatype() {
        Datatype::Bool => list(json, bytes.iter(), |json, byte| {
            json.push_str(if *byte == 0 { "false" } else { "true" });
            Ok(())
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
            let text = std::str::from_utf8(bytes)
                .map_err(|_| "a string is not UTF-8, which JSON cannot carry")?;
            string(json, text);
            Ok(())
        }),
    }
}

fn list<T>(
    json: &mut String,
    items: impl Iterator<Item = T>,
    mut one: impl FnMut(&mut String, T) -> Result<(), String>,
) -> Result<(), String> {
    for (index, item) in items.enumerate() {
        if index > 0 {
            json.push(',');
        }
        one(json, item)?;
    }
    Ok(())
}

fn numbers<T: std::fmt::Display, const N: usize>(
    json: &mut String,
    bytes: &[u8],
    from: fn([u8; N]) -> T,
) -> Result<(), String> {
    json.reserve(bytes.len());
    list(json, bytes.as_chunks::<N>().0.iter(), |json, chunk| {
        let _ = write!(json, "{}", from(*chunk));
        Ok(())
    })
}

/// Floats in the shortest form that reads back as the same number of the same width.
fn floats<T: serde::Serialize + Copy, const N: usize>(
    json: &mut String,
    bytes: &[u8],
    from: impl Fn([u8; N]) -> T,
) -> Result<(), String> {
    json.reserve(bytes.len() * 2);
    let mut index = 0usize;
    list(json, bytes.as_chunks::<N>().0.iter(), |json, chunk| {
        let text = serde_json::to_string(&from(*chunk)).map_err(|error| error.to_string())?;
        // serde_json writes null for what is not finite.
        if text == "null" {
            return Err(format!(
                "element {index} is not a finite number, which JSON cannot carry"
            ));
        }
        index += 1;
        json.push_str(&text);
        Ok(())
    })
}

fn string(json: &mut String, text: &str) {
    json.push_str(&serde_json::Value::from(text).to_string());
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
