//! What each object's status shall say. Pure: from the plan and from what was seen.
//!
//! Owns the status contract: `observedGeneration` everywhere, conditions as a set, times that change only
//! when the condition turns. Must never decide a rollout: the plan did.

use k8s_openapi::jiff::Timestamp;
use rimward_crds::common::{Condition, Time};

use crate::events::clip;

pub(crate) mod cluster;
pub(crate) mod deployment;
pub(crate) mod model;
pub(crate) mod policy;
pub(crate) mod revision;

/// Bytes of a message: people read it in one line of a terminal.
const MESSAGE_BYTES_MAX: usize = 1024;

/// One condition, before it is given its generation and time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Says {
    /// Its type.
    pub(crate) type_: &'static str,
    /// Whether it holds.
    pub(crate) holds: bool,
    /// From a closed list.
    pub(crate) reason: &'static str,
    /// One sentence.
    pub(crate) message: String,
}

impl Says {
    pub(crate) fn new(
        type_: &'static str,
        holds: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self {
            type_,
            holds,
            reason,
            message: message.into(),
        }
    }
}

/// Completes conditions: sorted by type, with the generation, and with the old time where nothing turned.
pub(crate) fn conditions(
    old: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
    says: impl IntoIterator<Item = Says>,
) -> Vec<Condition> {
    let mut conditions: Vec<_> = says
        .into_iter()
        .map(|says| {
            let status = if says.holds { "True" } else { "False" };
            let since = old
                .iter()
                .find(|old| old.type_ == says.type_ && old.status == status)
                .map(|old| old.last_transition_time.clone());
            Condition {
                type_: says.type_.to_owned(),
                status: status.to_owned(),
                reason: says.reason.to_owned(),
                message: clip(&says.message, MESSAGE_BYTES_MAX).to_owned(),
                observed_generation: generation,
                last_transition_time: since.unwrap_or(Time(whole_seconds(now))),
            }
        })
        .collect();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    conditions
}

/// What the server stores of a time: whole seconds. Anything finer would differ from what is read back.
pub(crate) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Conditions as a set: the order in which they stand means nothing.
pub(crate) fn sorted(conditions: &[Condition]) -> Vec<Condition> {
    let mut conditions = conditions.to_vec();
    conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    conditions
}

/// A condition of that type.
pub(crate) fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

#[cfg(test)]
mod tests {
    use super::{Says, conditions, sorted, whole_seconds};
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let ready = |holds| Says::new("Ready", holds, "Why", "words");
        let first = conditions(&[], Some(1), at(10), [ready(false)]);
        let same = conditions(&first, Some(2), at(20), [ready(false)]);
        assert_eq!(same[0].last_transition_time.0, at(10));
        assert_eq!(same[0].observed_generation, Some(2));
        let turned = conditions(&same, Some(2), at(30), [ready(true)]);
        assert_eq!(turned[0].last_transition_time.0, at(30));
    }

    #[test]
    fn conditions_are_a_set() {
        let of = |types: [&'static str; 2]| {
            conditions(
                &[],
                None,
                at(1),
                types.map(|type_| Says::new(type_, true, "Why", "")),
            )
        };
        assert_eq!(of(["B", "A"]), of(["A", "B"]));
        let mut stored = of(["A", "B"]);
        stored.reverse();
        assert_eq!(sorted(&stored), of(["A", "B"]));
    }

    #[test]
    fn times_are_whole_seconds_as_the_server_stores_them() {
        let fine = Timestamp::from_millisecond(1_500).unwrap();
        assert_eq!(whole_seconds(fine), at(1));
    }
}
