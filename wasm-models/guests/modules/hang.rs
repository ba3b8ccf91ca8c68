//! Fixture: runs without end, where `runtime.config` says under `in`: `guest` (the default), or
//! `host`, calling the host over and over. Always, so that preflight refuses it, unless
//! `runtime.config` has `trigger: some`: then in use.

use rimward_guests::digits::Images;
use rimward_guests::trigger::Trigger;
use rimward_guests::{Error, NamedTensor, host, pixels};

rimward_guests::module!(infer);

fn infer(inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, Error> {
    let images = Images::parse(&inputs)?;
    let trigger = host::config(Trigger::KEY);
    if Trigger::parse(trigger.as_deref(), Trigger::Always).fires(images.pixels()) {
        hang();
    }
    images.classify(f32::from(pixels::PIXEL_MAX))
}

fn hang() -> ! {
    let in_host = host::config("in").as_deref() == Some("host");
    loop {
        if in_host {
            host::config("in");
        } else {
            std::hint::black_box(());
        }
    }
}
