//! API objects → core's types, once. Inside, types cannot be wrong.
//!
//! Owns what the words of the API mean in core's vocabulary. Pure: must never fetch, nor decide a rollout.

use std::collections::BTreeSet;

use kube::ResourceExt as _;
use rimward_core::fleet::Amount;
use rimward_core::ids::NameError;
use rimward_core::selector::{Requirement, Selector};
use rimward_core::time::Timestamp;
use rimward_crds::common::SelectorOperator;
use rimward_crds::{CountOrPercent, LabelSelector};
use thiserror::Error;

mod cluster;
mod deployment;
mod policy;

pub(crate) use cluster::cluster;
pub(crate) use deployment::{DeploymentFacts, action, deployment};
pub(crate) use policy::{Graces, policy};

/// The annotation by which a site refuses updates for now.
pub(crate) const HOLD_ANNOTATION: &str = "rimward.dev/hold";

/// An object passes the schema, but not our types.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: {message}")]
pub(crate) struct Invalid {
    /// Path of the field.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) message: String,
}

impl Invalid {
    pub(crate) fn at(field: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self {
            field: field.into(),
            message: message.to_string(),
        }
    }
}

/// Parses a name, and says in which field it stood.
pub(super) fn name<T: std::str::FromStr<Err = NameError>>(
    field: &str,
    text: &str,
) -> Result<T, Invalid> {
    text.parse().map_err(|error| Invalid::at(field, error))
}

/// A selector of clusters: an absent one selects nothing.
pub(crate) fn selector(selector: Option<&LabelSelector>) -> Selector {
    let Some(selector) = selector else {
        return Selector::Nothing;
    };
    let equals = selector
        .match_labels
        .iter()
        .map(|(key, value)| Requirement::Equals {
            key: key.clone(),
            value: value.clone(),
        });
    let expressions = selector.match_expressions.iter().map(|expression| {
        let key = expression.key.clone();
        let values: BTreeSet<String> = expression.values.iter().cloned().collect();
        match expression.operator {
            SelectorOperator::In => Requirement::In { key, values },
            SelectorOperator::NotIn => Requirement::NotIn { key, values },
            SelectorOperator::Exists => Requirement::Exists { key },
            SelectorOperator::DoesNotExist => Requirement::DoesNotExist { key },
        }
    });
    Selector::All(equals.chain(expressions).collect())
}

/// A budget.
pub(crate) fn amount(value: &CountOrPercent) -> Amount {
    match value {
        CountOrPercent::Count(count) => Amount::Count(*count),
        CountOrPercent::Percent(percent) => Amount::Percent(u32::from(*percent)),
    }
}

/// When the object was made; the epoch when the server did not say.
pub(crate) fn created(object: &impl kube::Resource) -> Timestamp {
    object
        .meta()
        .creation_timestamp
        .as_ref()
        .map_or_else(Timestamp::default, |time| Timestamp(time.0.as_second()))
}

/// The reason in the hold annotation, clipped to what a condition's readers can bear.
pub(crate) fn held(object: &impl kube::Resource) -> Option<String> {
    object
        .annotations()
        .get(HOLD_ANNOTATION)
        .map(|reason| crate::events::clip(reason, 256).to_owned())
}
