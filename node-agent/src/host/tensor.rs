//! Tensors as the host holds them, and the account of their bytes.
//!
//! A [`Tensor`] cannot be wrong: its data is exactly as long as datatype and shape say. Clones share
//! the bytes. The bytes of a request's tensors are counted against one [`TensorBudget`] for as long
//! as anything holds them, because the sandbox's own memory limit does not see them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

use crate::proto::Datatype;

/// Counted beside the data of every tensor, so that very many empty ones are bounded too.
const OVERHEAD_BYTES: u64 = 256;

/// The most dimensions that a tensor may have.
pub const RANK_MAX: usize = 32;

/// Bytes of host-held tensors that one request may use.
#[derive(Debug)]
pub struct TensorBudget {
    used_bytes: AtomicU64,
    bytes_max: u64,
}

/// The budget does not allow for one more tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("tensors of {wanted_bytes} bytes more than the {bytes_max} allowed for one request")]
pub struct OverBudget {
    /// What the refused tensor would have added.
    pub wanted_bytes: u64,
    /// The limit.
    pub bytes_max: u64,
}

impl TensorBudget {
    /// A budget of that many bytes.
    pub fn new(bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            used_bytes: AtomicU64::new(0),
            bytes_max,
        })
    }

    /// Says whether so much more would be allowed now, for whoever is about to take the memory.
    pub fn check(&self, bytes: u64) -> Result<(), OverBudget> {
        let wanted_bytes = bytes.saturating_add(OVERHEAD_BYTES);
        let used = self.used_bytes.load(Ordering::Relaxed);
        if used.saturating_add(wanted_bytes) > self.bytes_max {
            return Err(OverBudget {
                wanted_bytes,
                bytes_max: self.bytes_max,
            });
        }
        Ok(())
    }

    /// Puts bytes on the account for as long as the buffer lives.
    pub fn charge(self: &Arc<Self>, bytes: Bytes) -> Result<Buffer, OverBudget> {
        let wanted_bytes = (bytes.len() as u64).saturating_add(OVERHEAD_BYTES);
        let charged = self
            .used_bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(wanted_bytes)
                    .filter(|total| *total <= self.bytes_max)
            });
        if charged.is_err() {
            return Err(OverBudget {
                wanted_bytes,
                bytes_max: self.bytes_max,
            });
        }
        Ok(Buffer(Arc::new(Charged {
            bytes,
            budget: Arc::clone(self),
            charged_bytes: wanted_bytes,
        })))
    }
}

/// Bytes on a budget's account, shared by all clones.
#[derive(Clone, Debug)]
pub struct Buffer(Arc<Charged>);

#[derive(Debug)]
struct Charged {
    bytes: Bytes,
    budget: Arc<TensorBudget>,
    charged_bytes: u64,
}

impl Drop for Charged {
    fn drop(&mut self) {
        self.budget
            .used_bytes
            .fetch_sub(self.charged_bytes, Ordering::Relaxed);
    }
}

impl Buffer {
    /// The bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }
}

/// Why bytes are not a tensor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TensorError {
    /// Too many dimensions.
    #[error("shape has {0} dimensions, more than {RANK_MAX}")]
    Rank(usize),
    /// The product of the shape does not fit.
    #[error("shape {0:?} has more elements than can be counted")]
    Overflow(Vec<u32>),
    /// The data is longer or shorter than the shape says.
    #[error("shape {shape:?} of {datatype} takes {wanted_bytes} bytes, the data has {got_bytes}")]
    Length {
        /// The shape.
        shape: Vec<u32>,
        /// The datatype.
        datatype: Datatype,
        /// Bytes that the two ask for.
        wanted_bytes: u64,
        /// Bytes that are there.
        got_bytes: u64,
    },
    /// The strings of a BYTES tensor do not fill the data, or are not as many as the shape says.
    #[error(
        "shape {shape:?} of BYTES takes {wanted} strings with their lengths, the data has {got} or ends within one"
    )]
    Strings {
        /// The shape.
        shape: Vec<u32>,
        /// Strings that the shape asks for.
        wanted: u64,
        /// Whole strings found.
        got: u64,
    },
    /// A BOOL is neither 0 nor 1.
    #[error("element {0} of BOOL is neither 0 nor 1")]
    Bool(usize),
}

/// An immutable tensor: row-major, little-endian, packed.
#[derive(Clone, Debug)]
pub struct Tensor {
    datatype: Datatype,
    shape: Arc<[u32]>,
    data: Buffer,
}

impl Tensor {
    /// Checks that the data is what datatype and shape say.
    pub fn new(datatype: Datatype, shape: &[u32], data: Buffer) -> Result<Self, TensorError> {
        check(datatype, shape, data.bytes())?;
        Ok(Self {
            datatype,
            shape: shape.into(),
            data,
        })
    }

    /// The same tensor, on another budget's account.
    pub fn charged_to(&self, budget: &Arc<TensorBudget>) -> Result<Self, OverBudget> {
        Ok(Self {
            datatype: self.datatype,
            shape: Arc::clone(&self.shape),
            data: budget.charge(self.data().clone())?,
        })
    }

    /// The type of the elements.
    pub fn datatype(&self) -> Datatype {
        self.datatype
    }

    /// The size of each dimension; empty for a scalar.
    pub fn shape(&self) -> &[u32] {
        &self.shape
    }

    /// The bytes, on their budget's account.
    pub fn buffer(&self) -> &Buffer {
        &self.data
    }

    /// The bytes.
    pub fn data(&self) -> &Bytes {
        self.data.bytes()
    }
}

/// The product of a shape.
pub fn element_count(shape: &[u32]) -> Result<u64, TensorError> {
    if shape.len() > RANK_MAX {
        return Err(TensorError::Rank(shape.len()));
    }
    shape
        .iter()
        .try_fold(1u64, |product, size| product.checked_mul(u64::from(*size)))
        .ok_or_else(|| TensorError::Overflow(shape.to_vec()))
}

/// Checks bytes against datatype and shape.
pub fn check(datatype: Datatype, shape: &[u32], data: &[u8]) -> Result<(), TensorError> {
    let count = element_count(shape)?;
    let Some(element_bytes) = datatype.element_bytes() else {
        return check_strings(shape, count, data);
    };
    let wanted_bytes = count
        .checked_mul(element_bytes as u64)
        .ok_or_else(|| TensorError::Overflow(shape.to_vec()))?;
    if wanted_bytes != data.len() as u64 {
        return Err(TensorError::Length {
            shape: shape.to_vec(),
            datatype,
            wanted_bytes,
            got_bytes: data.len() as u64,
        });
    }
    match data.iter().position(|byte| *byte > 1) {
        Some(index) if datatype == Datatype::Bool => Err(TensorError::Bool(index)),
        _ => Ok(()),
    }
}

fn check_strings(shape: &[u32], wanted: u64, data: &[u8]) -> Result<(), TensorError> {
    let mut strings = Strings { rest: data };
    let got = strings.by_ref().count() as u64;
    if got == wanted && strings.rest.is_empty() {
        return Ok(());
    }
    Err(TensorError::Strings {
        shape: shape.to_vec(),
        wanted,
        got,
    })
}

/// The strings of a BYTES tensor's data; ends at the first that is not whole.
#[derive(Debug)]
pub struct Strings<'a> {
    rest: &'a [u8],
}

impl<'a> Strings<'a> {
    /// Over a BYTES tensor's data.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }
}

impl<'a> Iterator for Strings<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length) as usize;
        let (string, rest) = rest.split_at_checked(length)?;
        self.rest = rest;
        Some(string)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(datatype: Datatype, shape: &[u32], data: &[u8]) -> Result<Tensor, TensorError> {
        let budget = TensorBudget::new(1 << 20);
        Tensor::new(
            datatype,
            shape,
            budget.charge(Bytes::copy_from_slice(data)).unwrap(),
        )
    }

    #[test]
    fn data_of_another_length_than_the_shape_says_is_no_tensor() {
        assert!(tensor(Datatype::Fp32, &[2], &[0; 8]).is_ok());
        assert!(tensor(Datatype::Fp32, &[], &[0; 4]).is_ok());
        assert!(tensor(Datatype::Fp32, &[0], &[]).is_ok());
        assert!(matches!(
            tensor(Datatype::Fp32, &[2], &[0; 7]),
            Err(TensorError::Length { .. })
        ));
        assert!(matches!(
            tensor(Datatype::Uint8, &[u32::MAX, u32::MAX, 4], &[]),
            Err(TensorError::Overflow(_))
        ));
        assert!(matches!(
            tensor(Datatype::Uint8, &[1; 33], &[0]),
            Err(TensorError::Rank(33))
        ));
    }

    #[test]
    fn a_bool_is_zero_or_one() {
        assert!(tensor(Datatype::Bool, &[2], &[0, 1]).is_ok());
        assert_eq!(
            tensor(Datatype::Bool, &[2], &[0, 2]).unwrap_err(),
            TensorError::Bool(1)
        );
    }

    #[test]
    fn strings_fill_their_tensor_exactly() {
        let two = [1, 0, 0, 0, b'a', 0, 0, 0, 0];
        assert!(tensor(Datatype::Bytes, &[2], &two).is_ok());
        assert!(tensor(Datatype::Bytes, &[1], &two).is_err());
        assert!(tensor(Datatype::Bytes, &[2], &two[..8]).is_err());
        assert!(tensor(Datatype::Bytes, &[1], &[255, 255, 255, 255, 0]).is_err());
    }

    #[test]
    fn a_budget_is_given_back_when_the_last_clone_goes() {
        let budget = TensorBudget::new(1000);
        let first = budget.charge(Bytes::from_static(&[0; 500])).unwrap();
        let clone = first.clone();
        drop(first);
        assert!(budget.charge(Bytes::from_static(&[0; 500])).is_err());
        drop(clone);
        assert!(budget.charge(Bytes::from_static(&[0; 500])).is_ok());
    }
}
