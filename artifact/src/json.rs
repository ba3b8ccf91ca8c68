//! Strict JSON: bounded in bytes, depth and nodes, and without duplicate keys, before it is parsed into a type.
//!
//! Keys that differ only in case are duplicates here: some readers match keys without regard to case (Go's
//! does), and two readers that see different documents under one signature are an attack.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use crate::text::clip;

/// Bounds of one document.
#[derive(Debug, Clone, Copy)]
pub struct JsonLimits {
    /// Length of the text.
    pub bytes_max: u64,
    /// Nested arrays and objects.
    pub depth_max: u32,
    /// Values in all.
    pub nodes_max: u32,
    /// Accept a key twice in one object: only for what decides nothing, and is compiled from many hands.
    pub keys_may_repeat: bool,
}

impl JsonLimits {
    /// For documents that people would still call small: 16 levels, 20,000 values.
    #[must_use]
    pub const fn small(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            depth_max: 16,
            nodes_max: 20_000,
            keys_may_repeat: false,
        }
    }
}

/// Why a document was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum JsonError {
    /// Longer than its limit.
    #[error("{what}: {bytes} bytes, at most {limit} are accepted")]
    TooLarge {
        /// The document.
        what: String,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not JSON, nested too deep, too many values or a repeated key.
    #[error("{what}: {message}")]
    Structure {
        /// The document.
        what: String,
        /// What is wrong, and where.
        message: String,
    },
    /// JSON, but not this type.
    #[error("{what}: field {field}: {message}")]
    Field {
        /// The document.
        what: String,
        /// Path of the field, `.` for the document itself.
        field: String,
        /// What is wrong with it.
        message: String,
    },
}

/// Parses `bytes` strictly; `what` names the document in errors.
///
/// # Errors
/// [`JsonError`]: too long, too deep, too many values, a key twice, or not a `T`.
pub fn parse<T: DeserializeOwned>(
    what: &str,
    bytes: &[u8],
    limits: JsonLimits,
) -> Result<T, JsonError> {
    if bytes.len() as u64 > limits.bytes_max {
        return Err(JsonError::TooLarge {
            what: what.to_owned(),
            bytes: bytes.len() as u64,
            limit: limits.bytes_max,
        });
    }
    let structure = |error: serde_json::Error| JsonError::Structure {
        what: what.to_owned(),
        message: clip(&error.to_string(), 300),
    };
    let walk = Walk {
        nodes: &RefCell::new(0),
        limits,
        depth: 0,
    };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    walk.deserialize(&mut deserializer).map_err(structure)?;
    deserializer.end().map_err(structure)?;

    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| JsonError::Field {
        what: what.to_owned(),
        field: clip(&error.path().to_string(), 120),
        message: clip(&error.inner().to_string(), 300),
    })
}

/// Reads a document without keeping it: counts depth and values, and remembers the keys of open objects.
#[derive(Clone, Copy)]
struct Walk<'a> {
    nodes: &'a RefCell<u32>,
    limits: JsonLimits,
    depth: u32,
}

impl Walk<'_> {
    fn deeper<E: serde::de::Error>(self) -> Result<Self, E> {
        if self.depth == self.limits.depth_max {
            return Err(E::custom(format_args!(
                "nested deeper than {} levels",
                self.limits.depth_max
            )));
        }
        Ok(Self {
            depth: self.depth + 1,
            ..self
        })
    }

    fn count<E: serde::de::Error>(self) -> Result<(), E> {
        let mut nodes = self.nodes.borrow_mut();
        *nodes += 1;
        if *nodes > self.limits.nodes_max {
            return Err(E::custom(format_args!(
                "more than {} values",
                self.limits.nodes_max
            )));
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<(), E> {
        self.count()
    }

    fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<(), E> {
        self.count()
    }

    fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<(), E> {
        self.count()
    }

    fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<(), E> {
        self.count()
    }

    fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<(), E> {
        self.count()
    }

    fn visit_str<E: serde::de::Error>(self, _: &str) -> Result<(), E> {
        self.count()
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.count()?;
        let inner = self.deeper()?;
        while seq.next_element_seed(inner)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.count()?;
        let inner = self.deeper()?;
        let mut seen = HashSet::new();
        while let Some(key) = map.next_key::<String>()? {
            if !self.limits.keys_may_repeat && !seen.insert(key.to_lowercase()) {
                return Err(serde::de::Error::custom(format_args!(
                    "key \"{}\" twice in one object",
                    clip(&key, 64)
                )));
            }
            map.next_value_seed(inner)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{JsonError, JsonLimits, parse};

    fn check(text: &str) -> Result<serde_json::Value, JsonError> {
        parse("x.json", text.as_bytes(), JsonLimits::small(1000))
    }

    #[test]
    fn a_key_twice_is_refused_even_in_other_case_and_deep_inside() {
        for text in [r#"{"a":1,"a":2}"#, r#"[{"b":{"type":1,"Type":2}}]"#] {
            let error = check(text).unwrap_err().to_string();
            assert!(error.contains("twice in one object"), "{error}");
        }
        check(r#"[{"a":1},{"a":2}]"#).unwrap();
    }

    #[test]
    fn keys_may_repeat_only_where_that_is_said_and_the_other_bounds_stay() {
        let limits = JsonLimits {
            keys_may_repeat: true,
            ..JsonLimits::small(1000)
        };
        let lenient = |text: &str| parse::<serde_json::Value>("x", text.as_bytes(), limits);
        lenient(r#"{"a":1,"A":2}"#).unwrap();
        lenient(&format!("{}{}", "[".repeat(17), "]".repeat(17))).unwrap_err();
    }

    #[test]
    fn depth_values_length_and_trailing_bytes_are_bounded() {
        let deep = format!("{}{}", "[".repeat(17), "]".repeat(17));
        assert!(check(&deep).unwrap_err().to_string().contains("16 levels"));
        let deepest = format!("{}{}", "[".repeat(400), "]".repeat(400));
        check(&deepest).unwrap_err();
        let wide = format!("[{}0]", "0,".repeat(30_000));
        let limits = JsonLimits::small(1 << 20);
        let error = parse::<serde_json::Value>("x", wide.as_bytes(), limits).unwrap_err();
        assert!(error.to_string().contains("20000 values"), "{error}");
        let long = format!("\"{}\"", "a".repeat(2000));
        assert!(matches!(check(&long), Err(JsonError::TooLarge { .. })));
        check("1 2").unwrap_err();
    }

    #[test]
    fn an_error_names_document_and_field() {
        #[derive(Debug, serde::Deserialize)]
        struct Inner {
            #[allow(dead_code, reason = "only parsed")]
            n: Vec<u8>,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Outer {
            #[allow(dead_code, reason = "only parsed")]
            inner: Inner,
        }
        let text = br#"{"inner":{"n":[1,300]}}"#;
        let error = parse::<Outer>("x.json", text, JsonLimits::small(100)).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("x.json: field inner.n[1]: invalid value: integer `300`"),
            "{error}"
        );
    }
}
