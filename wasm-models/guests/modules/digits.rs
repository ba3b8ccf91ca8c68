//! The good module: classifies handwritten digits.

use rimward_guests::{Error, NamedTensor, digits};

rimward_guests::module!(infer);

fn infer(inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, Error> {
    digits::infer(&inputs)
}
