//! How many bytes a value takes once an API server has stored it.
//!
//! Owns the measure that size budgets are kept by. API servers store these kinds as JSON in Go's spelling, which writes
//! some characters longer than ours does: a budget that counted our own bytes would be broken by a device whose words are
//! full of `<`.

use serde::Serialize;

/// Bytes of a request that etcd takes by default: an object as a whole must stay below.
pub const OBJECT_BYTES_MAX: usize = 1_572_864;

/// Counts the bytes of a value as it is stored. A value that is no JSON counts as more than any budget.
pub fn stored_bytes<T: Serialize + ?Sized>(value: &T) -> usize {
    let Ok(json) = serde_json::to_vec(value) else {
        return usize::MAX;
    };
    json.len().saturating_add(longer(&json))
}

/// What Go writes beyond our own spelling.
fn longer(json: &[u8]) -> usize {
    let mut more = 0_usize;
    for (at, byte) in json.iter().enumerate() {
        let rest = json.get(at..).unwrap_or_default();
        more = more.saturating_add(match byte {
            // As \u003c: one byte becomes six.
            b'<' | b'>' | b'&' => 5,
            // The two line separators become \u2028 and \u2029: three bytes become six.
            0xe2 if rest.starts_with(&[0xe2, 0x80, 0xa8]) => 3,
            0xe2 if rest.starts_with(&[0xe2, 0x80, 0xa9]) => 3,
            // Older ones know no short form of \b and \f. An escaped backslash before a plain letter counts too: too
            // much is no harm.
            b'\\' if rest.starts_with(b"\\b") || rest.starts_with(b"\\f") => 4,
            _ => 0,
        });
    }
    more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_as_many_bytes_as_go_writes() {
        for (text, bytes) in [
            ("", 2),
            ("abc", 5),
            ("<>&", 2 + 18),
            ("\u{2028}\u{2029}", 2 + 12),
            ("é", 4),
            ("\u{8}\u{c}", 2 + 12),
            ("\n\"\\", 2 + 6),
            ("\u{1b}", 2 + 6),
        ] {
            assert_eq!(stored_bytes(text), bytes, "{text:?}");
        }
    }
}
