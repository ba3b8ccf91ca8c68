//! Single elements: from JSON to a tensor's bytes, and compared with what a model answered.

use serde_json::Value;
use thiserror::Error;

use super::{GoldenTensor, STRING_BYTES_MAX};
use crate::package::half::{bf16_bits, bf16_value, f16_bits, f16_value};
use crate::package::tensor::Datatype;
use crate::text::clip;

/// Where an answer differs from a golden tensor. Its text ends up in a node's status and in `explain`.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Mismatch {
    /// Other dimensions.
    #[error("output {name}: expected shape {expected:?}, got {actual:?}")]
    Shape {
        /// The output.
        name: String,
        /// The golden shape.
        expected: Vec<u64>,
        /// The answer's, at most 9 dimensions of it.
        actual: Vec<u64>,
    },
    /// Data that does not fill its shape.
    #[error("output {name}: data does not fill shape {shape:?}")]
    Data {
        /// The output.
        name: String,
        /// The shape.
        shape: Vec<u64>,
    },
    /// Another value.
    #[error("output {name}[{index}]: expected {expected}, got {actual}")]
    Value {
        /// The output.
        name: String,
        /// Row-major index of the first element that differs.
        index: usize,
        /// The golden value.
        expected: String,
        /// The answer.
        actual: String,
    },
}

/// Compares a model's answer with a golden tensor.
///
/// `data` is laid out as [`GoldenTensor::data`] is; the datatype was checked by whoever produced it. A NaN
/// never equals anything.
///
/// # Errors
/// The first [`Mismatch`].
pub fn compare(golden: &GoldenTensor, shape: &[u64], data: &[u8]) -> Result<(), Mismatch> {
    let name = || golden.name.to_string();
    if shape != golden.shape {
        return Err(Mismatch::Shape {
            name: name(),
            expected: golden.shape.clone(),
            actual: shape.iter().copied().take(9).collect(),
        });
    }
    let expected = split(golden.datatype, &golden.data);
    let actual = split(golden.datatype, data);
    let (Some(expected), Some(actual)) = (expected, actual) else {
        return Err(Mismatch::Data {
            name: name(),
            shape: shape.to_vec(),
        });
    };
    if expected.len() != actual.len() {
        return Err(Mismatch::Data {
            name: name(),
            shape: shape.to_vec(),
        });
    }
    for (index, (expected, actual)) in expected.iter().zip(&actual).enumerate() {
        if !equal(golden.datatype, expected, actual, golden.tolerance) {
            return Err(Mismatch::Value {
                name: name(),
                index,
                expected: show(golden.datatype, expected),
                actual: show(golden.datatype, actual),
            });
        }
    }
    Ok(())
}

/// Cuts a tensor's bytes into elements; none if they do not divide.
fn split(datatype: Datatype, data: &[u8]) -> Option<Vec<&[u8]>> {
    if let Some(size) = datatype.element_bytes() {
        return data
            .len()
            .is_multiple_of(size)
            .then(|| data.chunks_exact(size).collect());
    }
    let (mut rest, mut elements) = (data, Vec::new());
    while !rest.is_empty() {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
        let (element, after) = after.split_at_checked(length)?;
        elements.push(element);
        rest = after;
    }
    Some(elements)
}

fn equal(datatype: Datatype, expected: &[u8], actual: &[u8], tolerance: Option<f64>) -> bool {
    match (float(datatype, expected), float(datatype, actual)) {
        (Some(expected), Some(actual)) => (expected - actual).abs() <= tolerance.unwrap_or(0.0),
        _ => match (
            integer(datatype, expected),
            integer(datatype, actual),
            tolerance,
        ) {
            (Some(expected), Some(actual), Some(tolerance)) => {
                #[allow(clippy::cast_precision_loss, reason = "a tolerance is not that exact")]
                let difference = expected.abs_diff(actual) as f64;
                difference <= tolerance
            }
            _ => expected == actual,
        },
    }
}

fn float(datatype: Datatype, bytes: &[u8]) -> Option<f64> {
    match datatype {
        Datatype::Fp16 => Some(f16_value(u16::from_le_bytes(bytes.try_into().ok()?)).into()),
        Datatype::Bf16 => Some(bf16_value(u16::from_le_bytes(bytes.try_into().ok()?)).into()),
        Datatype::Fp32 => Some(f64::from(f32::from_le_bytes(bytes.try_into().ok()?))),
        Datatype::Fp64 => Some(f64::from_le_bytes(bytes.try_into().ok()?)),
        _ => None,
    }
}

fn integer(datatype: Datatype, bytes: &[u8]) -> Option<i128> {
    let size = datatype
        .element_bytes()
        .filter(|size| *size == bytes.len())?;
    let signed = match datatype {
        Datatype::Int8 | Datatype::Int16 | Datatype::Int32 | Datatype::Int64 => true,
        Datatype::Uint8 | Datatype::Uint16 | Datatype::Uint32 | Datatype::Uint64 => false,
        _ => return None,
    };
    let fill = if signed && bytes[size - 1] & 0x80 != 0 {
        0xff
    } else {
        0
    };
    let mut wide = [fill; 16];
    wide[..size].copy_from_slice(bytes);
    Some(i128::from_le_bytes(wide))
}

fn show(datatype: Datatype, bytes: &[u8]) -> String {
    if let Some(value) = float(datatype, bytes) {
        // As the tensor's own precision writes it: 0.1 and not 0.10000000149011612.
        #[allow(clippy::cast_possible_truncation, reason = "it was an f32")]
        return match datatype {
            Datatype::Fp32 => format!("{}", value as f32),
            _ => format!("{value}"),
        };
    }
    match integer(datatype, bytes) {
        Some(value) => value.to_string(),
        None if datatype == Datatype::Bool => (bytes != [0]).to_string(),
        None => format!("\"{}\"", clip(&String::from_utf8_lossy(bytes), 40)),
    }
}

/// Appends one JSON value as an element of that datatype.
pub(super) fn write(datatype: Datatype, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    macro_rules! integer {
        ($type:ty) => {{
            let wide = value
                .as_i64()
                .map(i128::from)
                .or(value.as_u64().map(i128::from));
            let fits = wide.and_then(|wide| <$type>::try_from(wide).ok());
            out.extend_from_slice(&fits.ok_or_else(|| wrong(datatype, value))?.to_le_bytes());
        }};
    }
    match datatype {
        Datatype::Bool => {
            let bit = value.as_bool().ok_or_else(|| wrong(datatype, value))?;
            out.push(u8::from(bit));
        }
        Datatype::Uint8 => integer!(u8),
        Datatype::Uint16 => integer!(u16),
        Datatype::Uint32 => integer!(u32),
        Datatype::Uint64 => integer!(u64),
        Datatype::Int8 => integer!(i8),
        Datatype::Int16 => integer!(i16),
        Datatype::Int32 => integer!(i32),
        Datatype::Int64 => integer!(i64),
        Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => {
            let number = value.as_f64().ok_or_else(|| wrong(datatype, value))?;
            let start = out.len();
            #[allow(
                clippy::cast_possible_truncation,
                reason = "rounding is what is asked for"
            )]
            match datatype {
                Datatype::Fp16 => out.extend_from_slice(&f16_bits(number).to_le_bytes()),
                Datatype::Bf16 => out.extend_from_slice(&bf16_bits(number).to_le_bytes()),
                Datatype::Fp32 => out.extend_from_slice(&(number as f32).to_le_bytes()),
                _ => out.extend_from_slice(&number.to_le_bytes()),
            }
            if !float(datatype, &out[start..]).is_some_and(f64::is_finite) {
                return Err(wrong(datatype, value));
            }
        }
        Datatype::Bytes => {
            let text = value.as_str().ok_or_else(|| wrong(datatype, value))?;
            let length = u32::try_from(text.len())
                .ok()
                .filter(|_| text.len() <= STRING_BYTES_MAX)
                .ok_or_else(|| {
                    format!(
                        "has {} bytes, at most {STRING_BYTES_MAX} are accepted",
                        text.len()
                    )
                })?;
            out.extend_from_slice(&length.to_le_bytes());
            out.extend_from_slice(text.as_bytes());
        }
    }
    Ok(())
}

fn wrong(datatype: Datatype, value: &Value) -> String {
    format!("{} is no {datatype}", clip(&value.to_string(), 40))
}

#[cfg(test)]
mod tests {
    use super::{compare, write};
    use crate::package::golden::GoldenTensor;
    use crate::package::tensor::Datatype;
    use serde_json::{Value, json};

    fn bytes(datatype: Datatype, values: &[Value]) -> Vec<u8> {
        let mut out = Vec::new();
        for value in values {
            write(datatype, value, &mut out).unwrap();
        }
        out
    }

    fn check(
        datatype: Datatype,
        golden: &[Value],
        answer: &[Value],
        tolerance: Option<f64>,
    ) -> String {
        let golden = GoldenTensor {
            name: "label".parse().unwrap(),
            datatype,
            shape: vec![golden.len() as u64],
            data: bytes(datatype, golden),
            tolerance,
        };
        match compare(&golden, &[answer.len() as u64], &bytes(datatype, answer)) {
            Ok(()) => "equal".to_owned(),
            Err(mismatch) => mismatch.to_string(),
        }
    }

    #[test]
    fn a_wrong_answer_is_told_in_words() {
        assert_eq!(
            check(Datatype::Int64, &[json!(7)], &[json!(1)], None),
            "output label[0]: expected 7, got 1"
        );
        assert_eq!(
            check(
                Datatype::Fp32,
                &[json!(0.5), json!(0.1)],
                &[json!(0.5), json!(0.2)],
                Some(0.05)
            ),
            "output label[1]: expected 0.1, got 0.2"
        );
        assert_eq!(
            check(Datatype::Bf16, &[json!(1.0)], &[json!(1.01)], Some(0.001)),
            "output label[0]: expected 1, got 1.0078125"
        );
        assert_eq!(
            check(Datatype::Bytes, &[json!("a")], &[json!("b\n")], None),
            "output label[0]: expected \"a\", got \"b\\n\""
        );
        assert_eq!(
            check(Datatype::Int8, &[json!(-1)], &[json!(-1), json!(2)], None),
            "output label: expected shape [1], got [2]"
        );
    }

    #[test]
    fn a_tolerance_is_absolute_and_a_nan_never_equals() {
        assert_eq!(
            check(Datatype::Fp32, &[json!(0.5)], &[json!(0.5005)], Some(0.001)),
            "equal"
        );
        assert_eq!(
            check(Datatype::Int8, &[json!(-1)], &[json!(1)], Some(2.0)),
            "equal"
        );
        let golden = GoldenTensor {
            name: "p".parse().unwrap(),
            datatype: Datatype::Fp32,
            shape: vec![1],
            data: 0.5_f32.to_le_bytes().to_vec(),
            tolerance: Some(1e30),
        };
        let nan = compare(&golden, &[1], &f32::NAN.to_le_bytes()).unwrap_err();
        assert_eq!(nan.to_string(), "output p[0]: expected 0.5, got NaN");
        assert!(compare(&golden, &[1], &[0; 3]).is_err());
        assert!(compare(&golden, &[1], &[0; 8]).is_err());
    }

    #[test]
    fn a_number_that_does_not_fit_its_datatype_is_refused() {
        for (datatype, value) in [
            (Datatype::Uint8, json!(256)),
            (Datatype::Uint8, json!(-1)),
            (Datatype::Uint8, json!(1.0)),
            (Datatype::Int64, json!(u64::MAX)),
            (Datatype::Bool, json!(1)),
            (Datatype::Fp16, json!(70000)),
            (Datatype::Bf16, json!(1e39)),
            (Datatype::Fp32, json!(1e300)),
            (Datatype::Fp64, json!("1")),
            (Datatype::Bytes, json!(1)),
        ] {
            let error = write(datatype, &value, &mut Vec::new()).unwrap_err();
            assert!(error.contains("is no"), "{datatype} {value}: {error}");
        }
    }
}
