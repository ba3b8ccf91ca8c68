//! Times as people write them on a command line.

use std::time::Duration;

use anyhow::Context;

/// Reads `90`, `90s`, `10m` or `1h`.
pub(crate) fn parse_time(text: &str) -> anyhow::Result<Duration> {
    let (digits, unit_seconds) = match text.strip_suffix(['s', 'm', 'h']) {
        Some(digits) if text.ends_with('m') => (digits, 60),
        Some(digits) if text.ends_with('h') => (digits, 3600),
        Some(digits) => (digits, 1),
        None => (text, 1),
    };
    let number: u32 = digits
        .parse()
        .context("a time is a whole number with s, m or h behind it")?;
    Ok(Duration::from_secs(u64::from(number) * unit_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_with_their_unit() {
        for (text, seconds) in [("90", 90), ("90s", 90), ("10m", 600), ("1h", 3600)] {
            assert_eq!(parse_time(text).unwrap(), Duration::from_secs(seconds));
        }
        for bad in ["", "m", "1.5m", "-1", "1d"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
