//! The digits classifier: one UINT8 tensor `image` in, `probabilities` and `label` out.

use crate::bindings::wasi::nn::tensor::{Tensor as NnTensor, TensorType};
use crate::{Datatype, Error, NamedTensor, Tensor, datatypes, labels, model, pixels};

/// Name of the input: UINT8 `[N, 8, 8]`, pixels 0 to 16. Also the name of the model's own input:
/// FP32 `[N, 1, 8, 8]`, 0.0 to 1.0.
pub const IMAGE: &str = "image";

/// Name of the first output, which is the model's own: FP32 `[N, 10]`, rows sum to one.
pub const PROBABILITIES: &str = "probabilities";

/// Name of the second output: INT64 `[N]`.
pub const LABEL: &str = "label";

/// Images that were found to be what the model takes.
#[derive(Debug)]
pub struct Images {
    pixels: Vec<u8>,
    count: u32,
}

impl Images {
    /// Takes the one input out of a request.
    ///
    /// # Errors
    /// `invalid-input` naming the tensor and what is wrong with its name, datatype, shape or a
    /// pixel.
    pub fn parse(inputs: &[NamedTensor]) -> Result<Self, Error> {
        let [NamedTensor { name, tensor }] = inputs else {
            let count = inputs.len();
            return Err(Error::InvalidInput(format!(
                "{count} inputs, but one, {IMAGE:?}, is needed"
            )));
        };
        if name != IMAGE {
            return Err(Error::InvalidInput(format!(
                "input {name:?}, but {IMAGE:?} is needed"
            )));
        }
        let invalid = |what: String| Error::InvalidInput(format!("input {IMAGE:?}: {what}"));
        let datatype = tensor.datatype();
        if datatype != Datatype::Uint8 {
            return Err(invalid(format!(
                "datatype is {}, but UINT8 is needed",
                datatypes::name(datatype)
            )));
        }
        let count = pixels::batch_size(&tensor.shape()).map_err(invalid)?;
        let pixels = tensor.data();
        pixels::check_scale(&pixels).map_err(invalid)?;
        Ok(Self { pixels, count })
    }

    /// The pixels of all images, row-major.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Classifies the images, taking `white` as the brightest pixel.
    ///
    /// The probabilities are handed on as the model gave them, without a copy of ours.
    ///
    /// # Errors
    /// Those of [`model::run`]; `backend` where the model's answer is not what it should be.
    pub fn classify(self, white: f32) -> Result<Vec<NamedTensor>, Error> {
        let side = pixels::SIDE as u32;
        let input = NnTensor::new(
            &[self.count, 1, side, side],
            TensorType::Fp32,
            &pixels::normalise(&self.pixels, white),
        );
        let outputs = model::run(vec![(IMAGE.to_owned(), input)])?;
        let Some((_, probabilities)) = outputs.iter().find(|(name, _)| name == PROBABILITIES)
        else {
            return Err(Error::Backend(format!(
                "the model gave no output {PROBABILITIES:?}"
            )));
        };
        if probabilities.ty() != TensorType::Fp32 {
            return Err(Error::Backend(format!(
                "the model's {PROBABILITIES:?} is not FP32"
            )));
        }
        let labels = labels::most_probable(&probabilities.data(), self.count as usize)
            .map_err(Error::Backend)?;
        Ok(vec![
            NamedTensor {
                name: PROBABILITIES.to_owned(),
                tensor: Tensor::from_nn(probabilities)?,
            },
            NamedTensor {
                name: LABEL.to_owned(),
                tensor: Tensor::create(Datatype::Int64, &[self.count], &labels)?,
            },
        ])
    }
}

/// Answers a request as the good module does.
///
/// # Errors
/// Those of [`Images::parse`] and [`Images::classify`].
pub fn infer(inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Error> {
    Images::parse(inputs)?.classify(f32::from(pixels::PIXEL_MAX))
}
