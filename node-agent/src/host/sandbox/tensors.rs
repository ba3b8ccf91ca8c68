//! `rimward:inference/tensors`: tensors of every datatype of the inference protocol.

use bytes::Bytes;
use wasmtime::component::Resource;

use super::bindings::rimward::inference::errors::{Error, Host as ErrorsHost};
use super::bindings::rimward::inference::tensors::{Datatype as WitDatatype, Host, HostTensor};
use super::bindings::wasi::nn::tensor::TensorType;
use super::nn::NnTensor;
use super::state::{GuestState, Stopped};
use crate::host::tensor::Tensor;
use crate::proto::Datatype;

impl From<WitDatatype> for Datatype {
    fn from(datatype: WitDatatype) -> Self {
        match datatype {
            WitDatatype::Bool => Self::Bool,
            WitDatatype::Uint8 => Self::Uint8,
            WitDatatype::Uint16 => Self::Uint16,
            WitDatatype::Uint32 => Self::Uint32,
            WitDatatype::Uint64 => Self::Uint64,
            WitDatatype::Int8 => Self::Int8,
            WitDatatype::Int16 => Self::Int16,
            WitDatatype::Int32 => Self::Int32,
            WitDatatype::Int64 => Self::Int64,
            WitDatatype::Fp16 => Self::Fp16,
            WitDatatype::Fp32 => Self::Fp32,
            WitDatatype::Fp64 => Self::Fp64,
            WitDatatype::Bytes => Self::Bytes,
            WitDatatype::Bf16 => Self::Bf16,
        }
    }
}

impl From<Datatype> for WitDatatype {
    fn from(datatype: Datatype) -> Self {
        match datatype {
            Datatype::Bool => Self::Bool,
            Datatype::Uint8 => Self::Uint8,
            Datatype::Uint16 => Self::Uint16,
            Datatype::Uint32 => Self::Uint32,
            Datatype::Uint64 => Self::Uint64,
            Datatype::Int8 => Self::Int8,
            Datatype::Int16 => Self::Int16,
            Datatype::Int32 => Self::Int32,
            Datatype::Int64 => Self::Int64,
            Datatype::Fp16 => Self::Fp16,
            Datatype::Fp32 => Self::Fp32,
            Datatype::Fp64 => Self::Fp64,
            Datatype::Bytes => Self::Bytes,
            Datatype::Bf16 => Self::Bf16,
        }
    }
}

/// The protocol's name for a `wasi:nn` type.
pub(super) fn from_nn_type(ty: TensorType) -> Datatype {
    match ty {
        TensorType::Fp16 => Datatype::Fp16,
        TensorType::Fp32 => Datatype::Fp32,
        TensorType::Fp64 => Datatype::Fp64,
        TensorType::Bf16 => Datatype::Bf16,
        TensorType::U8 => Datatype::Uint8,
        TensorType::I32 => Datatype::Int32,
        TensorType::I64 => Datatype::Int64,
    }
}

/// The `wasi:nn` type for a datatype, where it has one.
pub(super) fn to_nn_type(datatype: Datatype) -> Option<TensorType> {
    match datatype {
        Datatype::Fp16 => Some(TensorType::Fp16),
        Datatype::Fp32 => Some(TensorType::Fp32),
        Datatype::Fp64 => Some(TensorType::Fp64),
        Datatype::Bf16 => Some(TensorType::Bf16),
        Datatype::Uint8 => Some(TensorType::U8),
        Datatype::Int32 => Some(TensorType::I32),
        Datatype::Int64 => Some(TensorType::I64),
        Datatype::Bool
        | Datatype::Uint16
        | Datatype::Uint32
        | Datatype::Uint64
        | Datatype::Int8
        | Datatype::Int16
        | Datatype::Bytes => None,
    }
}

impl ErrorsHost for GuestState {}

impl Host for GuestState {}

impl HostTensor for GuestState {
    fn create(
        &mut self,
        datatype: WitDatatype,
        shape: Vec<u32>,
        data: Vec<u8>,
    ) -> wasmtime::Result<Result<Resource<Tensor>, Error>> {
        self.count_call()?;
        let buffer = self
            .budget
            .charge(Bytes::from(data))
            .map_err(|over| wasmtime::Error::new(Stopped::from(over)))?;
        match Tensor::new(datatype.into(), &shape, buffer) {
            Ok(tensor) => Ok(Ok(self.table.push(tensor)?)),
            Err(error) => Ok(Err(Error::InvalidInput(super::guest::clip(
                &error.to_string(),
            )))),
        }
    }

    fn from_nn(
        &mut self,
        tensor: Resource<NnTensor>,
    ) -> wasmtime::Result<Result<Resource<Tensor>, Error>> {
        self.count_call()?;
        let nn = self.table.get(&tensor)?;
        match Tensor::new(from_nn_type(nn.ty), &nn.dimensions, nn.data.clone()) {
            Ok(tensor) => Ok(Ok(self.table.push(tensor)?)),
            Err(error) => Ok(Err(Error::InvalidInput(super::guest::clip(
                &error.to_string(),
            )))),
        }
    }

    fn to_nn(
        &mut self,
        this: Resource<Tensor>,
    ) -> wasmtime::Result<Result<Resource<NnTensor>, Error>> {
        self.count_call()?;
        let tensor = self.table.get(&this)?;
        let Some(ty) = to_nn_type(tensor.datatype()) else {
            return Ok(Err(Error::Unsupported(format!(
                "wasi:nn has no tensor type for {}",
                tensor.datatype()
            ))));
        };
        // wasi:nn asks for [1] where there is a single value.
        let dimensions = if tensor.shape().is_empty() {
            vec![1]
        } else {
            tensor.shape().to_vec()
        };
        let nn = NnTensor {
            dimensions,
            ty,
            data: tensor.buffer().clone(),
        };
        Ok(Ok(self.table.push(nn)?))
    }

    fn datatype(&mut self, this: Resource<Tensor>) -> wasmtime::Result<WitDatatype> {
        self.count_call()?;
        Ok(self.table.get(&this)?.datatype().into())
    }

    fn shape(&mut self, this: Resource<Tensor>) -> wasmtime::Result<Vec<u32>> {
        self.count_call()?;
        Ok(self.table.get(&this)?.shape().to_vec())
    }

    fn byte_length(&mut self, this: Resource<Tensor>) -> wasmtime::Result<u64> {
        self.count_call()?;
        Ok(self.table.get(&this)?.data().len() as u64)
    }

    fn data(&mut self, this: Resource<Tensor>) -> wasmtime::Result<Vec<u8>> {
        self.count_call()?;
        Ok(self.table.get(&this)?.data().to_vec())
    }

    fn read(
        &mut self,
        this: Resource<Tensor>,
        offset: u64,
        length: u32,
    ) -> wasmtime::Result<Vec<u8>> {
        self.count_call()?;
        let data = self.table.get(&this)?.data();
        let start = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(data.len());
        let end = start.saturating_add(length as usize).min(data.len());
        Ok(data[start..end].to_vec())
    }

    fn drop(&mut self, this: Resource<Tensor>) -> wasmtime::Result<()> {
        // Not counted: what a guest made it may drop.
        self.table.delete(this)?;
        Ok(())
    }
}
