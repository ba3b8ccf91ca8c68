//! Fixture: passes its golden vectors and fails about three in ten real requests, with an error.

use rimward_guests::digits::Images;
use rimward_guests::trigger::Trigger;
use rimward_guests::{Error, NamedTensor, host, pixels};

rimward_guests::module!(infer);

fn infer(inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, Error> {
    let images = Images::parse(&inputs)?;
    let trigger = host::config(Trigger::KEY);
    if Trigger::parse(trigger.as_deref(), Trigger::Some).fires(images.pixels()) {
        return Err(Error::Internal(
            "the flaky module fails this request".to_owned(),
        ));
    }
    images.classify(f32::from(pixels::PIXEL_MAX))
}
