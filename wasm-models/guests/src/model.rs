//! Runs the package's model through `wasi:nn`.

use crate::Error;
use crate::bindings::wasi::nn::errors::{Error as NnError, ErrorCode};
use crate::bindings::wasi::nn::graph::load_by_name;
use crate::bindings::wasi::nn::tensor::Tensor as NnTensor;

/// The graph's name that always means the variant which this device chose.
pub const MODEL: &str = "model";

/// Runs the model once on named inputs and gives its named outputs.
///
/// # Errors
/// The backend's own words, under the case that fits its error code.
pub fn run(inputs: Vec<(String, NnTensor)>) -> Result<Vec<(String, NnTensor)>, Error> {
    let graph = load_by_name(MODEL).map_err(|error| translate("loading the model", &error))?;
    let context = graph
        .init_execution_context()
        .map_err(|error| translate("preparing the model", &error))?;
    context
        .compute(inputs)
        .map_err(|error| translate("running the model", &error))
}

/// Turns an error of `wasi:nn` into one of ours, saying what was being done.
fn translate(doing: &str, error: &NnError) -> Error {
    let text = format!("{doing}: {}", error.data());
    match error.code() {
        ErrorCode::InvalidArgument => Error::InvalidInput(text),
        ErrorCode::UnsupportedOperation => Error::Unsupported(text),
        ErrorCode::Timeout => Error::Timeout(text),
        _ => Error::Backend(text),
    }
}
