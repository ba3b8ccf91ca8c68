//! Scalars that Kubernetes writes as a number or a string: quantities of memory, counts or percentages.
//!
//! Bounded by the schema's `pattern`, `minimum`, `maximum` and `maxLength`, never by CEL: a rule with a regular
//! expression costs several times the budget of a whole kind.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::fmt;

/// A number of clusters or nodes (`2`), or a share of them (`"25%"`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub enum CountOrPercent {
    /// A plain number, 1 to 100000.
    Count(u32),
    /// A share, 1 to 100 per cent.
    Percent(u8),
}

/// An amount of memory in bytes, written as a Kubernetes quantity (`64Mi`, `1G`, `67108864`).
///
/// Only the amount is kept: `64Mi` and `65536Ki` are equal, and are written and hashed alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Raw", into = "Raw")]
pub struct MemoryQuantity {
    bytes: u64,
}

/// The units of memory, largest first.
const UNITS: [(&str, u64); 6] = [
    ("Gi", 1 << 30),
    ("G", 1_000_000_000),
    ("Mi", 1 << 20),
    ("M", 1_000_000),
    ("Ki", 1 << 10),
    ("k", 1_000),
];

/// Most digits of a number with a unit, as the schema's pattern has it.
const NUMBER_MAX: u64 = 9_999_999;

/// A value that is neither the number nor the string that its field takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not a count from 1 to 100000 nor a percentage from 1% to 100%.
    #[error("{0:?} is neither a count from 1 to 100000 nor a percentage from 1% to 100%")]
    CountOrPercent(String),
    /// Not a quantity of memory from 1 to 2^53 bytes.
    #[error("{0:?} is not an amount of memory such as 64Mi or 1G")]
    Memory(String),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(untagged)]
enum Raw {
    Number(u64),
    Text(String),
}

impl fmt::Display for CountOrPercent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Count(n) => write!(f, "{n}"),
            Self::Percent(p) => write!(f, "{p}%"),
        }
    }
}

impl TryFrom<Raw> for CountOrPercent {
    type Error = QuantityError;
    fn try_from(raw: Raw) -> Result<Self, QuantityError> {
        match raw {
            Raw::Number(n) => u32::try_from(n)
                .ok()
                .filter(|n| (1..=100_000).contains(n))
                .map(Self::Count)
                .ok_or_else(|| QuantityError::CountOrPercent(n.to_string())),
            Raw::Text(text) => text
                .strip_suffix('%')
                .and_then(|digits| digits.parse().ok())
                .filter(|p| (1..=100).contains(p))
                .map(Self::Percent)
                .ok_or(QuantityError::CountOrPercent(text)),
        }
    }
}

impl From<CountOrPercent> for Raw {
    fn from(value: CountOrPercent) -> Self {
        match value {
            CountOrPercent::Count(n) => Self::Number(n.into()),
            CountOrPercent::Percent(_) => Self::Text(value.to_string()),
        }
    }
}

impl MemoryQuantity {
    /// The amount in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// An amount of whole mebibytes.
    pub fn mebibytes(mebibytes: u32) -> Self {
        Self {
            bytes: u64::from(mebibytes) << 20,
        }
    }

    fn parse(text: String) -> Result<Self, QuantityError> {
        let digits_end = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, suffix) = text.split_at(digits_end);
        let unit = match suffix {
            "" => Some(1),
            suffix => UNITS
                .iter()
                .find(|(name, _)| *name == suffix)
                .map(|(_, unit)| *unit),
        };
        let number = digits.parse::<u64>().ok();
        let bytes = number
            .zip(unit)
            .and_then(|(number, unit)| number.checked_mul(unit));
        match bytes {
            Some(bytes) if bytes > 0 => Ok(Self { bytes }),
            _ => Err(QuantityError::Memory(text)),
        }
    }
}

impl TryFrom<Raw> for MemoryQuantity {
    type Error = QuantityError;
    fn try_from(raw: Raw) -> Result<Self, QuantityError> {
        Self::parse(match raw {
            Raw::Number(n) => n.to_string(),
            Raw::Text(text) => text,
        })
    }
}

impl From<MemoryQuantity> for Raw {
    /// In the largest unit that gives a whole number; a plain number where none does, since a string of so many digits
    /// is over the schema's length.
    fn from(MemoryQuantity { bytes }: MemoryQuantity) -> Self {
        UNITS
            .iter()
            .find(|(_, unit)| bytes.is_multiple_of(*unit) && bytes / unit <= NUMBER_MAX)
            .map_or(Self::Number(bytes), |(name, unit)| {
                Self::Text(format!("{}{name}", bytes / unit))
            })
    }
}

impl JsonSchema for CountOrPercent {
    fn schema_name() -> Cow<'static, str> {
        "CountOrPercent".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "maximum": 100_000,
            "maxLength": 4,
            "pattern": "^([1-9][0-9]?|100)%$"
        })
    }
}

impl JsonSchema for MemoryQuantity {
    fn schema_name() -> Cow<'static, str> {
        "MemoryQuantity".into()
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "minimum": 1,
            "maximum": 1_u64 << 53,
            "maxLength": 9,
            "pattern": "^[1-9][0-9]{0,6}(k|M|G|Ki|Mi|Gi)?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: serde::de::DeserializeOwned + fmt::Debug + Serialize>(
        json: &str,
    ) -> Option<String> {
        serde_json::from_str::<T>(json)
            .ok()
            .map(|v| serde_json::to_string(&v).unwrap())
    }

    #[test]
    fn a_count_or_percent_is_read_and_written_as_kubernetes_does() {
        assert_eq!(check::<CountOrPercent>("3").as_deref(), Some("3"));
        assert_eq!(
            check::<CountOrPercent>("\"25%\"").as_deref(),
            Some("\"25%\"")
        );
        for bad in [
            "0", "-1", "100001", "\"0%\"", "\"101%\"", "\"3\"", "\"%\"", "1.5",
        ] {
            assert_eq!(check::<CountOrPercent>(bad), None, "{bad}");
        }
    }

    #[test]
    fn memory_is_counted_in_bytes() {
        let bytes = |json: &str| {
            serde_json::from_str::<MemoryQuantity>(json)
                .map(|q| q.bytes())
                .ok()
        };
        assert_eq!(bytes("\"64Mi\""), Some(64 << 20));
        assert_eq!(bytes("\"1G\""), Some(1_000_000_000));
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!(bytes("\"64MB\""), None);
        assert_eq!(bytes("\"0\""), None);
        assert_eq!(bytes("\"99999999999999999999Gi\""), None);
    }

    #[test]
    fn an_amount_has_one_spelling_whatever_it_was_written_in() {
        for (spellings, written) in [
            (&["\"64Mi\"", "\"65536Ki\"", "67108864"][..], "\"64Mi\""),
            (&["\"1Gi\"", "\"1024Mi\"", "\"1048576Ki\""], "\"1Gi\""),
            (&["\"1G\"", "\"1000M\"", "\"1000000k\""], "\"1G\""),
            (&["\"1000Ki\"", "\"1024k\"", "1024000"], "\"1000Ki\""),
            (&["\"1536Mi\"", "1610612736"], "\"1536Mi\""),
            (&["1", "\"1\""], "1"),
            // More digits than a string may have.
            (&["67108865"], "67108865"),
            (&["10240001024"], "10240001024"),
            (&["9007199254740992", "\"8388608Gi\""], "\"8388608Gi\""),
        ] {
            for spelling in spellings {
                assert_eq!(
                    check::<MemoryQuantity>(spelling).as_deref(),
                    Some(written),
                    "{spelling}"
                );
            }
        }
        // The pattern admits more than a plain number may be; it parses, and is written as it came.
        let most = "\"9999999Gi\"";
        assert_eq!(check::<MemoryQuantity>(most).as_deref(), Some(most));
    }
}
