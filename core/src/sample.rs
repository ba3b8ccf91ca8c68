//! What one request says about the version in trial, and which version it is asked of.
//!
//! Owns the line between a version's error and a client's mistake, and whose answer a client gets. A version
//! cannot draw that line alone: one that refuses everything would call everything a mistake. Must never count
//! ([`crate::verdict`] judges sums) nor wait: the host tells how far both versions are.

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
    /// With an answer that there was no room for.
    NoRoom,
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
/// The previous version is the witness. What it answers, the version should have answered too. What it fails or
/// refuses as well is evidence against the client, not the version. Where no witness saw the request (there is
/// no previous version, or it was full), a failure stays the version's and a refusal the client's.
#[must_use]
pub fn weigh(ending: Ending, previous: Option<Ending>) -> Option<Sample> {
    match (ending, previous) {
        (Ending::Answered, _) => Some(Sample::Good),
        (Ending::Failed | Ending::Refused, Some(Ending::Answered | Ending::NoRoom))
        | (Ending::Failed, Some(Ending::TurnedAway) | None) => Some(Sample::Error),
        (Ending::Failed | Ending::Refused, Some(Ending::Failed | Ending::Refused))
        | (Ending::Refused, Some(Ending::TurnedAway) | None)
        | (Ending::TurnedAway | Ending::NoRoom, _) => None,
    }
}

/// One of the two versions at an endpoint during a trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// The version in trial.
    Candidate,
    /// The one that it is to replace.
    Previous,
}

/// How far the previous version is with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Previous {
    /// It was not asked.
    NotAsked,
    /// It is at work, or waits for its turn.
    Asked,
    /// It is done.
    Ended(Ending),
}

/// What is next for a request of which the client has heard nothing yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Wait for whoever is at work, or for half the time limit.
    Wait,
    /// Ask the previous version too.
    AskPrevious,
    /// The client gets this one's answer.
    Answer(Who),
    /// The client gets none, in the words of this one.
    NoAnswer(Who),
}

/// Decides what is next for a request in trial. `candidate` is how the version in trial ended it, `None` while
/// it is at work; `half_is_over` says that half of its time limit is.
///
/// Guarantees: the previous version is asked once at most; whichever answers first is the client's answer; the
/// candidate is never cut short for it. Asked again after each change, it ends.
#[must_use]
pub fn next(candidate: Option<Ending>, previous: Previous, half_is_over: bool) -> Next {
    use Ending::{Answered, Failed, NoRoom, Refused, TurnedAway};
    match (candidate, previous) {
        (Some(Answered), _) => Next::Answer(Who::Candidate),
        (None | Some(Failed | Refused | TurnedAway | NoRoom), Previous::Ended(Answered)) => {
            Next::Answer(Who::Previous)
        }
        (None, Previous::NotAsked) if !half_is_over => Next::Wait,
        (None | Some(Failed | Refused | TurnedAway), Previous::NotAsked) => Next::AskPrevious,
        (None, Previous::Asked | Previous::Ended(Failed | Refused | TurnedAway | NoRoom))
        | (Some(Failed | Refused | TurnedAway | NoRoom), Previous::Asked) => Next::Wait,
        // Without room for one version's answer there is none for the other's.
        (Some(NoRoom), Previous::NotAsked) => Next::NoAnswer(Who::Candidate),
        // Of two that give none, the one that a client is told of says why, if it is the client's mistake.
        (Some(Refused | NoRoom), Previous::Ended(Failed | Refused | TurnedAway | NoRoom)) => {
            Next::NoAnswer(Who::Candidate)
        }
        (Some(Failed | TurnedAway), Previous::Ended(Failed | Refused | TurnedAway | NoRoom)) => {
            Next::NoAnswer(Who::Previous)
        }
    }
}

/// Whether a request is given to the candidate at all. `left_over` counts those that it is still at work on
/// though the previous version answered them: their clients came back sooner than the candidate alone would have
/// let them, and behind what they left it would look slower than it is.
#[must_use]
pub fn takes(has_free_place: bool, left_over: u64) -> bool {
    has_free_place || left_over == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDINGS: [Ending; 5] = [
        Ending::Answered,
        Ending::Failed,
        Ending::Refused,
        Ending::TurnedAway,
        Ending::NoRoom,
    ];
    const GOOD: Option<Sample> = Some(Sample::Good);
    const ERROR: Option<Sample> = Some(Sample::Error);

    /// By each ending of the previous version, and by none.
    fn by_any(ending: Ending) -> Vec<Option<Sample>> {
        let previous = ENDINGS.into_iter().map(Some).chain([None]);
        previous.map(|previous| weigh(ending, previous)).collect()
    }

    #[test]
    fn an_answer_is_good_whatever_the_previous_version_does() {
        assert_eq!(by_any(Ending::Answered), [GOOD; 6]);
    }

    #[test]
    fn a_failure_is_an_error_unless_the_previous_version_fails_or_refuses_the_request_too() {
        let want = [ERROR, None, None, ERROR, ERROR, ERROR];
        assert_eq!(by_any(Ending::Failed), want);
    }

    #[test]
    fn what_a_version_refuses_and_the_previous_one_answers_is_its_error() {
        let want = [ERROR, None, None, None, ERROR, None];
        assert_eq!(by_any(Ending::Refused), want);
    }

    #[test]
    fn a_request_that_was_turned_away_unseen_or_found_no_room_says_nothing() {
        assert_eq!(by_any(Ending::TurnedAway), [None; 6]);
        assert_eq!(by_any(Ending::NoRoom), [None; 6]);
    }

    /// Every pair, one line each: candidate, then what is next while the previous version is not asked (first and
    /// second half), is asked, and has ended each way.
    #[test]
    fn what_is_next_is_as_the_table_says() {
        let mut got = Vec::new();
        for candidate in [None].into_iter().chain(ENDINGS.map(Some)) {
            let ended = ENDINGS.map(|ending| next(candidate, Previous::Ended(ending), true));
            let mut row = vec![
                next(candidate, Previous::NotAsked, false),
                next(candidate, Previous::NotAsked, true),
                next(candidate, Previous::Asked, true),
            ];
            row.extend(ended);
            let row = row.into_iter().map(|next| match next {
                Next::Wait => "wait",
                Next::AskPrevious => "ask",
                Next::Answer(Who::Candidate) => "C",
                Next::Answer(Who::Previous) => "P",
                Next::NoAnswer(Who::Candidate) => "!c",
                Next::NoAnswer(Who::Previous) => "!p",
            });
            got.push(row.collect::<Vec<_>>().join(" "));
        }
        let want = [
            // at work
            "wait ask wait P wait wait wait wait",
            // answered
            "C C C C C C C C",
            // failed
            "ask ask wait P !p !p !p !p",
            // refused
            "ask ask wait P !c !c !c !c",
            // turned away
            "ask ask wait P !p !p !p !p",
            // no room
            "!c !c wait P !c !c !c !c",
        ];
        assert_eq!(got, want);
    }

    #[test]
    fn a_candidate_is_not_asked_behind_what_others_answered() {
        assert!(takes(true, 3));
        assert!(takes(false, 0), "it may queue behind its own");
        assert!(!takes(false, 1));
    }
}
