//! What a target counts as, and the counts of many.
//!
//! Owns the flags, and that a target is in exactly one column. A count is kept up by taking a target's old
//! flags away and adding its new ones: work per report, not per fleet.

/// One thing that a target can count as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flag {
    /// Column: runs the revision, by its last word.
    Updated,
    /// Column: none of the others.
    Pending,
    /// Column: kept back by its site, a pause, its identity, or refused alone.
    Held,
    /// Column: silent, and never exposed.
    Silent,
    /// Column: fell silent after it was exposed.
    Suspect,
    /// Column: condemned the revision, or its time ran out.
    Failed,
    /// Column: had the revision and is back on the promoted one.
    RolledBack,
    /// It is in the placement.
    Member,
    /// Fell silent after it was exposed, whatever its column.
    Dark,
    /// A living proof.
    Proven,
    /// A device condemned the content.
    Condemned,
    /// Its time ran out.
    TimedOut,
    /// Counts toward `maxFailures`, once, for whatever reason.
    Failing,
    /// Silent before exposure, and left out.
    Skipped,
    /// Silent before exposure, and waited for.
    Awaited,
    /// Not heard by this leader yet.
    Unheard,
    /// Heard within the grace.
    Heard,
    /// Held or refused, and not silent: its stage does not wait for it.
    KeptBack,
    /// Heard, and not waited for: kept back, or failed within the allowance.
    Excused,
    /// Held for longer than the policy respects, and therefore failed.
    HoldExpired,
    /// Holds a place among those on their way.
    Moving,
    /// Holds such a place for today's revision.
    Underway,
    /// Is told to run today's revision.
    Given,
    /// Its order names today's revision, to run it, to remove it, or as what it replaced.
    Named,
    /// Holds a place among those unavailable.
    Unavailable,
    /// Serves something good, by its last word.
    Serving,
    /// Counts for availability: not silent.
    Relevant,
    /// On its way back, and heard.
    GoingBack,
    /// Still has to go back, or to say that it did.
    NotBack,
    /// Its removal is ordered, not confirmed, and it is heard.
    Removing,
    /// Known not to have what it should: a bake begins anew.
    Regressed,
    /// Its endpoint name is taken there.
    NameTaken,
    /// Its assignment is full.
    TooLarge,
    /// Something keeps it from where the spec wants it.
    Open,
    /// As `Open`, and the deployment is not ready for it.
    Unready,
}

const FLAGS: usize = Flag::Unready as usize + 1;

/// The flags of one target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Class(u64);

impl Class {
    pub(super) fn set(&mut self, flag: Flag, holds: bool) {
        if holds {
            self.0 |= 1 << flag as u32;
        }
    }

    pub(super) fn has(self, flag: Flag) -> bool {
        self.0 & 1 << flag as u32 != 0
    }
}

/// How many targets have each flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tally([u32; FLAGS]);

impl Default for Tally {
    fn default() -> Self {
        Self([0; FLAGS])
    }
}

impl Tally {
    pub(super) fn add(&mut self, class: Class) {
        self.each(class, |count| *count = count.saturating_add(1));
    }

    pub(super) fn take(&mut self, class: Class) {
        self.each(class, |count| *count = count.saturating_sub(1));
    }

    fn each(&mut self, class: Class, change: impl Fn(&mut u32)) {
        let mut left = class.0;
        while left != 0 {
            let flag = left.trailing_zeros() as usize;
            if let Some(count) = self.0.get_mut(flag) {
                change(count);
            }
            left &= left - 1;
        }
    }

    pub(super) fn of(&self, flag: Flag) -> u32 {
        self.0[flag as usize]
    }

    pub(super) fn plus(mut self, other: &Self) -> Self {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(more);
        }
        self
    }
}
