//! What commands show, made from objects and turned into text; pure, so that tests need no server.
//!
//! Owns wording and layout. Text that came from a device or a person is shown without control characters.

mod complaint;
mod explain;
mod model;
mod node;
mod settle;
mod tree;

pub(crate) use explain::explain;
pub(crate) use model::{Deployment, Sources, deployment};
pub(crate) use settle::{Verdict, line, verdict};
pub(crate) use tree::tree;

/// Text that cannot move the cursor or colour the terminal.
pub(crate) fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect()
}

/// `Reason: message`, or whichever of the two there is.
fn because(reason: Option<&str>, message: Option<&str>) -> String {
    let part = |text: Option<&str>| text.filter(|text| !text.is_empty()).map(clean);
    match (part(reason), part(message)) {
        (Some(reason), Some(message)) => format!("{reason}: {message}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => String::new(),
    }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
