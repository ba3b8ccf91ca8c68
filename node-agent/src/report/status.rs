//! The status object: a picture with its conditions, whose times change only when they turn.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rimward_crds::reasons::condition;
use rimward_crds::{Condition, EdgeNodeStatus};

use super::Picture;

/// Makes the status of a picture; conditions that did not turn keep the time they have in `last`.
#[must_use]
pub(super) fn status(picture: &Picture, last: &[Condition], now: Timestamp) -> EdgeNodeStatus {
    let generation = picture.status.observed_generation;
    let condition = |kind: &str, holds: bool, reason: &str, message: &str| {
        let status = if holds { "True" } else { "False" };
        let turned = last
            .iter()
            .find(|had| had.type_ == kind && had.status == status)
            .map_or(Time(now), |had| had.last_transition_time.clone());
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: generation,
            last_transition_time: turned,
        }
    };
    let ready = match &picture.ready {
        Ok(()) => condition(
            condition::READY,
            true,
            "Committed",
            "everything ordered is committed",
        ),
        Err((reason, message)) => condition(condition::READY, false, reason, message),
    };
    let held = match &picture.held {
        Some(reason) => condition(condition::HELD, true, "HeldBySite", reason),
        None => condition(condition::HELD, false, "NotHeld", ""),
    };
    EdgeNodeStatus {
        conditions: vec![ready, held],
        ..picture.status.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_condition_keeps_its_time_until_it_turns() {
        let mut picture = Picture::blank();
        let first = status(&picture, &[], at(10));
        let second = status(&picture, &first.conditions, at(20));
        assert_eq!(first, second, "nothing changed, so nothing is written");
        picture.held = Some("harvest".into());
        let third = status(&picture, &second.conditions, at(30));
        let times: Vec<i64> = third
            .conditions
            .iter()
            .map(|it| it.last_transition_time.0.as_second())
            .collect();
        assert_eq!(times, [10, 30]);
    }

    #[test]
    fn a_clock_that_jumps_ten_years_either_way_turns_nothing_and_writes_nothing() {
        const YEARS_10: i64 = 10 * 365 * 86_400;
        let mut picture = Picture::blank();
        let now = 1_800_000_000;
        let first = status(&picture, &[], at(now));
        for clock in [now - YEARS_10, now + YEARS_10, 0, -YEARS_10] {
            assert_eq!(status(&picture, &first.conditions, at(clock)), first);
        }
        // What turns while the clock is wrong says the wrong time, and keeps it once the clock is right.
        picture.held = Some("harvest".into());
        let turned = status(&picture, &first.conditions, at(now - YEARS_10));
        let later = status(&picture, &turned.conditions, at(now));
        assert_eq!(turned, later);
    }
}
