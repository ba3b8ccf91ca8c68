//! Whose fault it was: a host that died while a candidate was in trial, a preflight that took too long.
//!
//! Owns the rule, not the evidence: the supervisor says what was seen. Trouble of the machine, or of another
//! deployment, must never be laid at a candidate's door for want of another culprit.

/// Whom the death of a host is laid at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The version in trial: the start is used up.
    Candidate,
    /// Another deployment: the start goes on as if nothing had been.
    Another,
    /// It cannot be told. Only many of these in a row, with nothing shown in between, speak against it.
    Nobody,
}

/// What was going on in a host when it died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scene {
    /// The version in trial was being loaded, or was at work on a request.
    pub candidate_ran: bool,
    /// Any other version was.
    pub another_ran: bool,
    /// The host ended itself for what it held in memory: idle versions hold some too.
    pub over_memory: bool,
}

/// Lays the death of a host at somebody's door. Where more than one ran it cannot be told who did it: then the
/// version in trial is the likelier one, since the others ran before it came.
#[must_use]
pub fn blame(scene: Scene) -> Blame {
    match scene {
        Scene {
            candidate_ran: true,
            another_ran: _,
            over_memory: _,
        } => Blame::Candidate,
        Scene {
            candidate_ran: false,
            another_ran: true,
            over_memory: false,
        } => Blame::Another,
        Scene {
            candidate_ran: false,
            another_ran: true,
            over_memory: true,
        }
        | Scene {
            candidate_ran: false,
            another_ran: false,
            over_memory: _,
        } => Blame::Nobody,
    }
}

/// Whether a time limit that ran out was used up by whom it was for: three quarters of it were spent on a
/// processor. Else the machine did not let it run.
#[must_use]
pub fn used_its_time(limit_milliseconds: u64, processor_milliseconds: u64) -> bool {
    processor_milliseconds >= limit_milliseconds / 4 * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_candidate_is_blamed_for_what_it_ran_in_and_for_nothing_else() {
        let mut got = Vec::new();
        for candidate_ran in [true, false] {
            for another_ran in [true, false] {
                for over_memory in [true, false] {
                    got.push(blame(Scene {
                        candidate_ran,
                        another_ran,
                        over_memory,
                    }));
                }
            }
        }
        let [c, a, n] = [Blame::Candidate, Blame::Another, Blame::Nobody];
        assert_eq!(got, [c, c, c, c, n, a, n, n]);
    }

    #[test]
    fn time_without_a_processor_is_not_its_own() {
        assert!(used_its_time(2_000, 2_000));
        assert!(used_its_time(2_000, 1_500));
        assert!(!used_its_time(2_000, 1_499));
        assert!(!used_its_time(300_000, 0));
    }
}
