//! Makes foreign text safe to put in an error, a log line or a status field.

/// Cuts `text` to `max` characters and escapes control characters, so that a hostile value can neither flood
/// nor forge a log line.
pub(crate) fn clip(text: &str, max: usize) -> String {
    let mut clipped = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == max {
            clipped.push('…');
            break;
        }
        if character.is_control() {
            clipped.extend(character.escape_default());
        } else {
            clipped.push(character);
        }
    }
    clipped
}

/// Is this a DNS-1123 label: 1 to 63 of `a-z0-9-`, a letter or digit at both ends?
pub(crate) fn is_dns_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let alphanumeric = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !bytes.is_empty()
        && bytes.len() <= 63
        && bytes.iter().all(|byte| alphanumeric(byte) || *byte == b'-')
        && bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::{clip, is_dns_label};

    #[test]
    fn a_hostile_value_is_cut_and_its_control_characters_are_escaped() {
        assert_eq!(clip("a\nb\u{1b}[31m", 20), "a\\nb\\u{1b}[31m");
        assert_eq!(clip("abcdef", 3), "abc…");
    }

    #[test]
    fn labels_follow_dns_1123() {
        assert!(is_dns_label("digits-2"));
        for bad in ["", "-a", "a-", "A", "a.b", &"a".repeat(64)] {
            assert!(!is_dns_label(bad), "{bad}");
        }
    }
}
