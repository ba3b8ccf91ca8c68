//! Tensors of the Open Inference Protocol v2: datatypes and declared shapes.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::names::TensorName;

/// Dimensions of one tensor.
pub const RANK_MAX: usize = 8;
/// Largest declared dimension.
pub const DIMENSION_MAX: i64 = 1 << 31;

/// Element type of a tensor, with the protocol's own names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, 8 bits.
    Uint8,
    /// Unsigned, 16 bits.
    Uint16,
    /// Unsigned, 32 bits.
    Uint32,
    /// Unsigned, 64 bits.
    Uint64,
    /// Signed, 8 bits.
    Int8,
    /// Signed, 16 bits.
    Int16,
    /// Signed, 32 bits.
    Int32,
    /// Signed, 64 bits.
    Int64,
    /// IEEE half precision.
    Fp16,
    /// IEEE single precision.
    Fp32,
    /// IEEE double precision.
    Fp64,
    /// Byte strings of any length; on the wire each with its length in 4 bytes, little-endian, in front.
    Bytes,
    /// bfloat16, an extension of the protocol that its large servers share.
    Bf16,
}

impl Datatype {
    /// Every datatype.
    pub const ALL: [Self; 14] = [
        Self::Bool,
        Self::Uint8,
        Self::Uint16,
        Self::Uint32,
        Self::Uint64,
        Self::Int8,
        Self::Int16,
        Self::Int32,
        Self::Int64,
        Self::Fp16,
        Self::Fp32,
        Self::Fp64,
        Self::Bytes,
        Self::Bf16,
    ];

    /// The datatype of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|datatype| datatype.name() == name)
    }

    /// The protocol's name, such as `FP32`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bool => "BOOL",
            Self::Uint8 => "UINT8",
            Self::Uint16 => "UINT16",
            Self::Uint32 => "UINT32",
            Self::Uint64 => "UINT64",
            Self::Int8 => "INT8",
            Self::Int16 => "INT16",
            Self::Int32 => "INT32",
            Self::Int64 => "INT64",
            Self::Fp16 => "FP16",
            Self::Fp32 => "FP32",
            Self::Fp64 => "FP64",
            Self::Bytes => "BYTES",
            Self::Bf16 => "BF16",
        }
    }

    /// Bytes of one element, none for [`Datatype::Bytes`].
    #[must_use]
    pub const fn element_bytes(self) -> Option<usize> {
        match self {
            Self::Bool | Self::Uint8 | Self::Int8 => Some(1),
            Self::Uint16 | Self::Int16 | Self::Fp16 | Self::Bf16 => Some(2),
            Self::Uint32 | Self::Int32 | Self::Fp32 => Some(4),
            Self::Uint64 | Self::Int64 | Self::Fp64 => Some(8),
            Self::Bytes => None,
        }
    }
}

impl fmt::Display for Datatype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One declared input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Its name at the inference endpoint.
    pub name: TensorName,
    /// Its element type.
    pub datatype: Datatype,
    /// Its dimensions; -1 is any size. At most [`RANK_MAX`].
    pub shape: Vec<i64>,
}

impl TensorSpec {
    /// Says what is wrong with the declared shape, if anything.
    pub(crate) fn problem(&self) -> Option<String> {
        if self.shape.len() > RANK_MAX {
            return Some(format!(
                "shape has {} dimensions, at most {RANK_MAX}",
                self.shape.len()
            ));
        }
        let bad = |size: &&i64| **size != -1 && !(1..=DIMENSION_MAX).contains(*size);
        self.shape.iter().find(bad).map(|size| {
            format!("shape has dimension {size}, -1 or 1 to {DIMENSION_MAX} are accepted")
        })
    }

    /// Does a concrete shape fit the declared one?
    #[must_use]
    pub fn accepts(&self, shape: &[u64]) -> bool {
        shape.len() == self.shape.len()
            && shape.iter().zip(&self.shape).all(|(actual, declared)| {
                *declared == -1 || u64::try_from(*declared) == Ok(*actual)
            })
    }
}

/// Number of elements of a concrete shape; none if it does not fit 64 bits.
#[must_use]
pub fn element_count(shape: &[u64]) -> Option<u64> {
    shape
        .iter()
        .try_fold(1_u64, |count, size| count.checked_mul(*size))
}

#[cfg(test)]
mod tests {
    use super::{Datatype, TensorSpec, element_count};

    fn spec(shape: &[i64]) -> TensorSpec {
        TensorSpec {
            name: "x".parse().unwrap(),
            datatype: Datatype::Fp32,
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn every_datatype_is_written_with_its_protocol_name() {
        let names = [
            (Datatype::Bool, "BOOL"),
            (Datatype::Uint8, "UINT8"),
            (Datatype::Uint16, "UINT16"),
            (Datatype::Uint32, "UINT32"),
            (Datatype::Uint64, "UINT64"),
            (Datatype::Int8, "INT8"),
            (Datatype::Int16, "INT16"),
            (Datatype::Int32, "INT32"),
            (Datatype::Int64, "INT64"),
            (Datatype::Fp16, "FP16"),
            (Datatype::Fp32, "FP32"),
            (Datatype::Fp64, "FP64"),
            (Datatype::Bytes, "BYTES"),
            (Datatype::Bf16, "BF16"),
        ];
        assert_eq!(names.map(|(datatype, _)| datatype), Datatype::ALL);
        for (datatype, name) in names {
            assert_eq!(datatype.name(), name);
            assert_eq!(Datatype::parse(name), Some(datatype));
            assert_eq!(serde_json::to_value(datatype).unwrap(), name);
        }
    }

    #[test]
    fn a_shape_fits_where_minus_one_stands_or_sizes_agree() {
        let image = spec(&[-1, 8, 8]);
        assert!(image.accepts(&[3, 8, 8]));
        assert!(!image.accepts(&[3, 8, 9]));
        assert!(!image.accepts(&[8, 8]));
        assert_eq!(element_count(&[u64::MAX, 2]), None);
    }

    #[test]
    fn zero_negative_and_huge_dimensions_are_refused() {
        for bad in [0, -2, i64::MAX] {
            assert!(spec(&[bad]).problem().is_some(), "{bad}");
        }
        assert!(spec(&[1; 9]).problem().is_some());
        assert!(spec(&[-1, 1]).problem().is_none());
    }
}
