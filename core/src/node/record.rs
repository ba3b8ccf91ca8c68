//! What a device remembers about one deployment: the durable half of the activation machine.
//!
//! Owns the shape of the record that `put` makes durable as a whole. Must never hold anything that
//! a restart may forget.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, RevisionName};
use crate::verdict::{Health, Samples};

/// Rejected revisions remembered per deployment; the oldest is forgotten first.
pub const BAD_MAX: usize = 32;
/// Committed versions kept at least: the current one and the one to go back to.
pub const GOOD_MIN: u8 = 2;
/// Committed versions kept at most.
pub const GOOD_MAX: u8 = 10;
/// Longest message kept, in characters: device's words travel to the hub in every summary.
pub const MESSAGE_CHARS_MAX: usize = 512;

/// What the device is told to run: the part of an order that the machine decides by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The revision; the same name always means the same content.
    pub revision: RevisionName,
    /// Digest of the package's manifest.
    pub package: Digest,
    /// What the candidate must show in trial.
    pub health: Health,
    /// How many committed versions to keep, the current one included.
    pub keep_revisions: u8,
    /// Which attempt at this revision this is: a person's retry is the next one. No new version for that.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
    /// A verdict on this revision that was given under a lower attempt than this is forgotten; 0 and 1: none is.
    #[serde(default)]
    pub forget_verdicts_before: u32,
}

/// What was ordered before attempts were counted was the first.
fn first_attempt() -> u32 {
    1
}

/// A version whose bytes are in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The revision.
    pub revision: RevisionName,
    /// Digest of the package's manifest.
    pub package: Digest,
    /// Digest of the stored install order: the resolved order verbatim and the chosen variant.
    pub install: Digest,
}

/// An attempt to replace the current version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// What is attempted, kept whole: after a restart nobody may be there to say it again.
    pub target: Target,
    /// Digest of the stored install order.
    pub install: Digest,
    /// How far it got.
    pub stage: AttemptStage,
    /// Durable writes so far; too many of them mean a loop.
    pub writes: u8,
    /// Preflights in a row that were begun, and of which nobody knows how they ended; the one that goes on is one of
    /// them.
    #[serde(default)]
    pub preflights: u8,
}

/// How far an attempt got. The version that serves meanwhile, and that a rollback goes back to, is
/// the record's current one: it changes at commit only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum AttemptStage {
    /// Its bytes are stored; nothing of it has had traffic.
    Staged,
    /// It was, or may have been, started.
    Trial {
        /// Starts still allowed after the one that this write announced; each that it dies of itself takes one.
        tries_left: u8,
        /// The boot in which it was started last.
        boot_id: String,
        /// Starts in a row in which it showed nothing, and of which nobody knows how they ended; the one that
        /// goes on is one of them until it shows something.
        #[serde(default)]
        lost: u8,
        /// What it has shown in all its starts, as of the last write.
        #[serde(default)]
        shown: Shown,
    },
}

/// What a candidate has shown in trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Shown {
    /// What it answered.
    pub samples: Samples,
    /// For how long it was watched.
    pub watched_milliseconds: u64,
}

impl Shown {
    /// Requests that it answered as it should.
    #[must_use]
    pub fn good(&self) -> u64 {
        self.samples.requests.saturating_sub(self.samples.errors)
    }
}

impl Attempt {
    /// The candidate as a version.
    #[must_use]
    pub fn candidate(&self) -> Version {
        Version {
            revision: self.target.revision.clone(),
            package: self.target.package,
            install: self.install,
        }
    }
}

/// Why something is refused or waits: a reason from a closed list, and the device's own words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable category.
    pub reason: Reason,
    /// What and where, at most [`MESSAGE_CHARS_MAX`] characters.
    pub message: String,
}

impl Problem {
    /// Makes a problem; a longer message is cut.
    #[must_use]
    pub fn new(reason: Reason, message: impl AsRef<str>) -> Self {
        Self {
            reason,
            message: message.as_ref().chars().take(MESSAGE_CHARS_MAX).collect(),
        }
    }
}

/// A CamelCase word from a closed list, shared by status, events and metrics.
///
/// The machine's own words are the constants here; those of verification, of the registry client and
/// of the preflight come from the lists of those crates, unchanged.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reason(Cow<'static, str>);

impl Reason {
    /// The registry could not be reached or did not deliver.
    pub const FETCH_FAILED: Self = Self::new("FetchFailed");
    /// The disk has no room for the package, or does not take it.
    pub const NO_SPACE: Self = Self::new("NoSpace");
    /// The trust file is missing or does not parse.
    pub const TRUST_UNREADABLE: Self = Self::new("TrustUnreadable");
    /// Stored bytes are missing or do not hash to their name any more.
    pub const CORRUPT: Self = Self::new("Corrupt");
    /// The preflight child could not be run at all.
    pub const PREFLIGHT_UNAVAILABLE: Self = Self::new("PreflightUnavailable");
    /// The state record could not be written.
    pub const STATE_UNWRITABLE: Self = Self::new("StateUnwritable");
    /// None of the package's variants fits this device.
    pub const NO_VARIANT_FITS: Self = Self::new("NoVariantFits");
    /// The host process died while the version was in trial.
    pub const HOST_DIED: Self = Self::new("HostDied");
    /// Too many requests failed in trial.
    pub const TOO_MANY_ERRORS: Self = Self::new("TooManyErrors");
    /// Answers came too slowly in trial.
    pub const TOO_SLOW: Self = Self::new("TooSlow");
    /// The probation is over and too few requests were judged: the trial goes on.
    pub const TOO_FEW_SAMPLES: Self = Self::new("TooFewSamples");
    /// The attempt wrote its state too often: a loop.
    pub const TOO_MANY_WRITES: Self = Self::new("TooManyWrites");
    /// Agent or device went down in many starts in a row, before the version had shown anything in trial.
    pub const STARTS_USED_UP: Self = Self::new("StartsUsedUp");

    /// The machine's own words, all of them.
    pub const OWN: [Self; 13] = [
        Self::FETCH_FAILED,
        Self::NO_SPACE,
        Self::TRUST_UNREADABLE,
        Self::CORRUPT,
        Self::PREFLIGHT_UNAVAILABLE,
        Self::STATE_UNWRITABLE,
        Self::NO_VARIANT_FITS,
        Self::HOST_DIED,
        Self::TOO_MANY_ERRORS,
        Self::TOO_SLOW,
        Self::TOO_FEW_SAMPLES,
        Self::TOO_MANY_WRITES,
        Self::STARTS_USED_UP,
    ];

    /// Takes a word of another closed list.
    #[must_use]
    pub const fn new(word: &'static str) -> Self {
        Self(Cow::Borrowed(word))
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A rejected revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bad {
    /// The revision that never runs here again.
    pub revision: RevisionName,
    /// Why.
    pub problem: Problem,
    /// Whether it had traffic before it was rejected: a rollback, not a refusal.
    pub in_trial: bool,
    /// The attempt under which this was found.
    #[serde(default = "first_attempt")]
    pub attempt: u32,
}

/// The outcome of the last trial, frozen when it was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Judged {
    /// Which revision was judged.
    pub revision: RevisionName,
    /// Whether it passed.
    pub passed: bool,
    /// Requests that it was given in trial.
    pub requests: u64,
    /// Those that it failed.
    pub errors: u64,
    /// Its 99th percentile of the latency, in microseconds, if it answered anything.
    pub latency_p99_microseconds: Option<u64>,
}

impl Judged {
    /// Freezes what was seen.
    #[must_use]
    pub fn new(revision: RevisionName, passed: bool, samples: &Samples) -> Self {
        Self {
            revision,
            passed,
            requests: samples.requests,
            errors: samples.errors,
            latency_p99_microseconds: samples.latency_p99_microseconds(),
        }
    }
}

/// Everything durable about one deployment on one device; replaced only as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Versions committed on this device, newest first: the first one is current.
    pub good: Vec<Version>,
    /// The attempt in progress.
    pub attempt: Option<Attempt>,
    /// Rejected revisions, oldest first.
    pub bad: Vec<Bad>,
    /// The last judgement.
    pub judged: Option<Judged>,
}

impl Record {
    /// Whether what was found of this target's revision is to be forgotten. An order that asks to forget what is
    /// found under its own attempt asks for an endless loop, and is not heard.
    #[must_use]
    pub(super) fn forgets(&self, target: &Target) -> bool {
        let before = target.forget_verdicts_before.min(target.attempt);
        self.why_bad(&target.revision)
            .is_some_and(|bad| bad.attempt < before)
    }

    pub(super) fn forget(&mut self, revision: &RevisionName) {
        self.bad.retain(|bad| &bad.revision != revision);
    }

    /// Why a revision was rejected here, if it was.
    #[must_use]
    pub fn why_bad(&self, revision: &RevisionName) -> Option<&Bad> {
        self.bad.iter().find(|bad| &bad.revision == revision)
    }

    /// Every version whose bytes must be kept: the roots of garbage collection.
    pub fn roots(&self) -> impl Iterator<Item = Version> + '_ {
        let candidate = self.attempt.as_ref().map(Attempt::candidate);
        self.good.iter().cloned().chain(candidate)
    }

    /// Whether nothing but rejected revisions is remembered.
    #[must_use]
    pub fn is_removed(&self) -> bool {
        self.good.is_empty() && self.attempt.is_none()
    }

    pub(super) fn reject(&mut self, bad: Bad) {
        self.good.retain(|version| version.revision != bad.revision);
        self.forget(&bad.revision);
        self.bad.push(bad);
        let over = self.bad.len().saturating_sub(BAD_MAX);
        self.bad.drain(..over);
    }

    pub(super) fn commit(&mut self, attempt: &Attempt) {
        let keep = attempt.target.keep_revisions.clamp(GOOD_MIN, GOOD_MAX);
        self.good
            .retain(|version| version.revision != attempt.target.revision);
        self.good.insert(0, attempt.candidate());
        self.good.truncate(usize::from(keep));
    }
}
