//! Which clusters a deployment means, and which stage each belongs to.
//!
//! Owns the words *placement*, *cumulative* and *last stage*, and that membership sticks. Decides nothing
//! about when.

use super::policy::{Members, Policy, Stage};
use super::types::{Hearing, StageRecord};
use crate::ids::ClusterName;
use crate::selector::Labels;

/// What dividing needs to know of a cluster of the placement.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) name: &'a ClusterName,
    /// Its place in the division's list.
    pub(super) slot: usize,
    pub(super) labels: &'a Labels,
    /// An order to run the revision may have left.
    pub(super) exposed: bool,
    /// Its stage so far, where that is known.
    pub(super) was: Option<usize>,
    pub(super) hearing: Hearing,
}

/// A policy's stages, with where each cluster belongs.
#[derive(Debug, Default)]
pub(super) struct Division {
    pub(super) stages: Vec<Divided>,
    /// The stage of each slot; none: in no stage.
    pub(super) places: Vec<Option<usize>>,
}

/// One stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Divided {
    pub(super) stage: Stage,
    /// No cluster of the placement is meant by its selector, taken or not: a misspelt label, perhaps.
    pub(super) matches_none: bool,
}

/// Divides the placement into the policy's stages; clusters that none names form a last one.
///
/// Count and percent take clusters that were exposed first, then those that are heard, of these the members so
/// far, then names: so a cluster that comes and goes changes places with another one only while neither was
/// given anything. Always gives at least one stage.
///
/// A stage past whose suspects a person went on (`past`, by place) keeps its members, lest the next stage wait for them.
pub(super) fn divide(
    policy: &Policy,
    clusters: &[Candidate<'_>],
    slots: usize,
    past: impl Fn(usize) -> bool,
) -> Division {
    let total = clusters.len();
    let mut left: Vec<&Candidate<'_>> = clusters.iter().collect();
    let mut division = Division {
        stages: Vec::new(),
        places: vec![None; slots],
    };
    for (index, stage) in policy.stages.iter().enumerate() {
        let taken_before = total - left.len();
        let (mine, rest, matches_none) = match &stage.members {
            Members::Selector(selector) => {
                let none = !clusters.iter().any(|it| selector.matches(it.labels));
                let (mine, rest): (Vec<_>, Vec<_>) =
                    left.into_iter().partition(|it| selector.matches(it.labels));
                (mine, rest, none)
            }
            Members::Count(count) => {
                let reach = usize::try_from(*count).unwrap_or(usize::MAX);
                split(left, reach.saturating_sub(taken_before), index, past(index))
            }
            Members::Percent(percent) => {
                let percent = usize::try_from(*percent).unwrap_or(100);
                let reach = total.saturating_mul(percent).div_ceil(100);
                split(left, reach.saturating_sub(taken_before), index, past(index))
            }
        };
        left = rest;
        division.push(stage.clone(), matches_none, &mine);
    }
    if division.stages.is_empty() || !left.is_empty() {
        let only = division.stages.is_empty();
        division.push(Stage::last(only), false, &left);
    }
    division
}

type Split<'a, 'b> = (Vec<&'a Candidate<'b>>, Vec<&'a Candidate<'b>>, bool);

fn split<'a, 'b>(
    mut left: Vec<&'a Candidate<'b>>,
    count: usize,
    stage: usize,
    past: bool,
) -> Split<'a, 'b> {
    if count >= left.len() {
        return (left, Vec::new(), false);
    }
    left.sort_by_key(|it| {
        let other = it.was != Some(stage);
        let foreign = match it.was {
            _ if !past => 0,
            Some(was) if was == stage => 0,
            None => 1,
            Some(_) => 2,
        };
        let unheard = it.hearing != Hearing::Heard;
        (foreign, !it.exposed, unheard, other, it.name)
    });
    let rest = left.split_off(count.min(left.len()));
    (left, rest, false)
}

impl Division {
    fn push(&mut self, stage: Stage, matches_none: bool, members: &[&Candidate<'_>]) {
        let place = self.stages.len();
        for member in members {
            if let Some(slot) = self.places.get_mut(member.slot) {
                *slot = Some(place);
            }
        }
        self.stages.push(Divided {
            stage,
            matches_none,
        });
    }
}

/// Where a persisted record stands among today's stages: by place, else by name, else as far as there are
/// stages (a policy may be edited on the way).
pub(super) fn locate(record: &StageRecord, stages: &[Divided]) -> usize {
    let last = stages.len().saturating_sub(1);
    let index = usize::try_from(record.index).unwrap_or(last).min(last);
    let named = |at: usize| {
        stages
            .get(at)
            .is_some_and(|divided| divided.stage.name == record.name)
    };
    if named(index) {
        return index;
    }
    (0..stages.len()).find(|&at| named(at)).unwrap_or(index)
}
