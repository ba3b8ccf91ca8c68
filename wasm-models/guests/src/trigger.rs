//! Pure: decides for which requests a fixture misbehaves.
//!
//! The decision depends on the pixels alone, so that the same request always ends the same way,
//! the golden vectors never trigger, and about three in ten held-out digits do.

/// Which requests trigger a fixture's fault. The deployment's `runtime.config` may say, under the
/// key [`Trigger::KEY`]: `always`, `some` or `never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// Every request, golden vectors too: the module fails preflight.
    Always,
    /// About three in ten requests, golden vectors never: the module passes preflight and fails
    /// in use.
    Some,
    /// None: the module is as good as the real one.
    Never,
}

impl Trigger {
    /// The key of `runtime.config`.
    pub const KEY: &'static str = "trigger";

    /// Reads the configured value; an absent or unknown one means `default`.
    #[must_use]
    pub fn parse(value: Option<&str>, default: Self) -> Self {
        match value {
            Some("always") => Self::Always,
            Some("some") => Self::Some,
            Some("never") => Self::Never,
            _ => default,
        }
    }

    /// Says whether these pixels trigger the fault.
    #[must_use]
    pub fn fires(self, pixels: &[u8]) -> bool {
        match self {
            Self::Always => true,
            Self::Some => checksum(pixels) % 10 < 3,
            Self::Never => false,
        }
    }
}

/// Start value chosen so that no golden vector is among the three in ten; the test below tells
/// when another training makes another choice necessary.
const SALT: u32 = 24;

/// FNV-1a with a salted start, folded so that the low digits depend on all of it.
fn checksum(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0x811c_9dc5 ^ SALT, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    hash ^ (hash >> 16)
}
