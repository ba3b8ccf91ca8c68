//! Fixture: takes memory without end, of the kind that `runtime.config` names under `of`: `guest`
//! (the default), or `host`, as tensors. Always, so that preflight refuses it, unless
//! `runtime.config` has `trigger: some`: then in use.

use rimward_guests::digits::Images;
use rimward_guests::trigger::Trigger;
use rimward_guests::{Datatype, Error, NamedTensor, Tensor, host, pixels};

rimward_guests::module!(infer);

fn infer(inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, Error> {
    let images = Images::parse(&inputs)?;
    let trigger = host::config(Trigger::KEY);
    if Trigger::parse(trigger.as_deref(), Trigger::Always).fires(images.pixels()) {
        devour();
    }
    images.classify(f32::from(pixels::PIXEL_MAX))
}

/// One bite: a mebibyte.
const BITE_BYTES: u32 = 1 << 20;

fn devour() -> ! {
    let bite = vec![1; BITE_BYTES as usize];
    if host::config("of").as_deref() == Some("host") {
        let mut tensors = Vec::new();
        loop {
            tensors.push(Tensor::create(Datatype::Uint8, &[BITE_BYTES], &bite));
        }
    }
    let mut bites = Vec::new();
    loop {
        bites.push(std::hint::black_box(bite.clone()));
    }
}
