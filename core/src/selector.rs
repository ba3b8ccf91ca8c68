//! Kubernetes label selectors, with exactly Kubernetes' meaning.
//!
//! Owns matching. Parsing the API's `LabelSelector` object into these types is the caller's edge.

use std::collections::{BTreeMap, BTreeSet};

/// An object's labels.
pub type Labels = BTreeMap<String, String>;

/// Which objects are meant, by label. All requirements must hold.
///
/// A *null* selector selects nothing; an empty one (`{}`) everything.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum Selector {
    /// The selector was absent: nothing is meant.
    #[default]
    Nothing,
    /// Every requirement must hold; with none, everything is meant.
    All(Vec<Requirement>),
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// `matchLabels`: the label is there with this value.
    Equals {
        /// Label key.
        key: String,
        /// Its value.
        value: String,
    },
    /// The label is there, and its value is one of these.
    In {
        /// Label key.
        key: String,
        /// Allowed values.
        values: BTreeSet<String>,
    },
    /// The label is absent, or its value is none of these.
    NotIn {
        /// Label key.
        key: String,
        /// Values that are not wanted.
        values: BTreeSet<String>,
    },
    /// The label is there.
    Exists {
        /// Label key.
        key: String,
    },
    /// The label is absent.
    DoesNotExist {
        /// Label key.
        key: String,
    },
}

impl Selector {
    /// The selector `{}`: everything.
    #[must_use]
    pub const fn everything() -> Self {
        Self::All(Vec::new())
    }

    /// Selects by one label.
    #[must_use]
    pub fn label(key: &str, value: &str) -> Self {
        Self::All(vec![Requirement::Equals {
            key: key.to_owned(),
            value: value.to_owned(),
        }])
    }

    /// Says whether an object with `labels` is meant.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        match self {
            Self::Nothing => false,
            Self::All(requirements) => requirements.iter().all(|one| one.holds(labels)),
        }
    }
}

impl Requirement {
    /// Says whether the requirement holds for `labels`.
    #[must_use]
    pub fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::Equals { key, value } => labels.get(key) == Some(value),
            Self::In { key, values } => labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn { key, values } => {
                labels.get(key).is_none_or(|value| !values.contains(value))
            }
            Self::Exists { key } => labels.contains_key(key),
            Self::DoesNotExist { key } => !labels.contains_key(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Labels, Requirement, Selector};

    fn labels() -> Labels {
        [("tier", "canary"), ("site", "berlin")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn null_selects_nothing_and_empty_everything() {
        assert!(!Selector::Nothing.matches(&labels()));
        assert!(Selector::everything().matches(&labels()));
        assert!(Selector::everything().matches(&Labels::new()));
    }

    #[test]
    fn every_operator_means_what_kubernetes_says() {
        let values = |list: &[&str]| list.iter().map(|&v| v.to_owned()).collect();
        let key = |k: &str| k.to_owned();
        let table = [
            (
                Requirement::Equals {
                    key: key("tier"),
                    value: key("canary"),
                },
                true,
            ),
            (
                Requirement::Equals {
                    key: key("tier"),
                    value: key("main"),
                },
                false,
            ),
            (
                Requirement::In {
                    key: key("tier"),
                    values: values(&["x", "canary"]),
                },
                true,
            ),
            (
                Requirement::In {
                    key: key("none"),
                    values: values(&["canary"]),
                },
                false,
            ),
            (
                Requirement::NotIn {
                    key: key("tier"),
                    values: values(&["canary"]),
                },
                false,
            ),
            (
                Requirement::NotIn {
                    key: key("none"),
                    values: values(&["canary"]),
                },
                true,
            ),
            (Requirement::Exists { key: key("tier") }, true),
            (Requirement::Exists { key: key("none") }, false),
            (Requirement::DoesNotExist { key: key("tier") }, false),
            (Requirement::DoesNotExist { key: key("none") }, true),
        ];
        for (requirement, expected) in table {
            assert_eq!(requirement.holds(&labels()), expected, "{requirement:?}");
        }
    }

    #[test]
    fn all_requirements_must_hold() {
        let both = Selector::All(vec![
            Requirement::Exists {
                key: "tier".to_owned(),
            },
            Requirement::Exists {
                key: "none".to_owned(),
            },
        ]);
        assert!(!both.matches(&labels()));
    }
}
