//! What one request says about the version that was asked first.
//!
//! Owns the line between a version's error and a client's mistake. A version cannot draw it alone: one that
//! refuses everything would call everything a mistake. Must never count: [`crate::verdict`] judges sums.

/// How a version ended one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// With an answer.
    Answered,
    /// With none, through a fault of its own: a trap, an engine's error, wrong outputs, no answer in time.
    Failed,
    /// With none, as the client's mistake.
    Refused,
    /// With none and unseen: too many others were there already.
    TurnedAway,
}

/// A request that says something about a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sample {
    /// It did as it should.
    Good,
    /// It failed.
    Error,
}

/// Weighs one request by how the version ended it and, where it gave no answer and a previous version was
/// asked in its place, by how that one did. `None`: the request says nothing about the version.
///
/// A refusal is an error where the previous version answers the same request: it is a client that was served
/// before and would not be after. Where that one gives no answer either, or there is none, the mistake is the
/// client's. A failure stays one, whatever the previous version makes of the request.
#[must_use]
pub fn weigh(ending: Ending, previous: Option<Ending>) -> Option<Sample> {
    match (ending, previous) {
        (Ending::Answered, _) => Some(Sample::Good),
        (Ending::Failed, _) => Some(Sample::Error),
        (Ending::Refused, Some(Ending::Answered)) => Some(Sample::Error),
        (Ending::Refused, Some(Ending::Failed | Ending::Refused | Ending::TurnedAway) | None) => {
            None
        }
        (Ending::TurnedAway, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDINGS: [Ending; 4] = [
        Ending::Answered,
        Ending::Failed,
        Ending::Refused,
        Ending::TurnedAway,
    ];

    fn by_any(ending: Ending) -> Vec<Option<Sample>> {
        let previous = ENDINGS.into_iter().map(Some).chain([None]);
        previous.map(|previous| weigh(ending, previous)).collect()
    }

    #[test]
    fn what_a_version_refuses_and_the_previous_one_answers_is_its_error() {
        let error = Some(Sample::Error);
        assert_eq!(weigh(Ending::Refused, Some(Ending::Answered)), error);
        assert_eq!(by_any(Ending::Refused), [error, None, None, None, None]);
    }

    #[test]
    fn an_answer_and_a_failure_are_the_versions_own_whatever_the_previous_one_does() {
        assert_eq!(by_any(Ending::Answered), [Some(Sample::Good); 5]);
        assert_eq!(by_any(Ending::Failed), [Some(Sample::Error); 5]);
    }

    #[test]
    fn a_request_that_was_turned_away_unseen_says_nothing() {
        assert_eq!(by_any(Ending::TurnedAway), [None; 5]);
    }
}
