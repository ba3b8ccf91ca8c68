//! What one target counts as, and whether it wants an order.
//!
//! Owns the meaning of the columns, of a place in a budget, and of a living proof. Pure: one target, its
//! cluster's facts and the rollout's context in, flags out.

use super::class::{Class, Flag};
use super::context::{Context, Course, Goal};
use super::policy::{AfterUpdate, BeforeUpdate, HoldMode};
use super::target::{Refused, Sight};
use super::types::{Action, Deployment, Entry, Hearing};

/// An order that a target wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Want {
    /// Forward, within its stage's budgets.
    Forward,
    /// Back, within the policy's own budget.
    Back,
    /// Away, since it left the placement: within that budget.
    Leave,
    /// Away at once, or an order that is confirmed and may go.
    Now,
}

/// A target's flags, and the order that it wants and may be given if there is a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Judged {
    pub(super) class: Class,
    pub(super) want: Option<Want>,
}

/// Judges one target.
pub(super) fn classify(deployment: &Deployment, context: &Context, sight: &Sight<'_>) -> Judged {
    let goal = context.goal(deployment, sight);
    let mut class = Class::default();
    let member = sight.target.place.is_some() && context.course != Course::Away;
    class.set(Flag::Member, member);
    let heard = sight.facts.hearing == Hearing::Heard && !sight.silent();
    class.set(Flag::Heard, heard);
    let named = |entry: &Entry| context.update.as_ref().is_some_and(|it| entry.names(it));
    class.set(Flag::Named, sight.entry().is_some_and(named));
    hearing(deployment, context, sight, member, &mut class);
    verdict(deployment, context, sight, member, &mut class);
    if member {
        class.set(column(context, sight, class), true);
    }
    places(deployment, context, sight, &mut class);
    let refused = sight.target.refused.as_ref();
    class.set(
        Flag::NameTaken,
        matches!(refused, Some(Refused::NameTaken(_))),
    );
    class.set(Flag::TooLarge, refused == Some(&Refused::TooLarge));
    Judged {
        class,
        want: want(context, sight, goal, class),
    }
}

/// Silence: who is skipped, awaited or suspect.
fn hearing(
    deployment: &Deployment,
    context: &Context,
    sight: &Sight<'_>,
    member: bool,
    class: &mut Class,
) {
    let silent = sight.silent();
    // Where no node was heard since the order came, none has it.
    let exposed =
        context.update.as_ref().is_some_and(|it| sight.exposed(it)) && !sight.nodes_away();
    // Once the rollout is over, a cluster that proved the revision may come and go.
    let suspect = silent && exposed && context.course != Course::Undone && !done(context, sight);
    let awaited = deployment.policy.offline.before_update == BeforeUpdate::Wait
        && sight.facts.hearing != Hearing::NeverJoined;
    class.set(Flag::Dark, member && suspect);
    class.set(Flag::Awaited, member && silent && !exposed && awaited);
    let waited_for = suspect || !exposed && awaited;
    class.set(Flag::Skipped, member && silent && !waited_for);
    class.set(
        Flag::Unheard,
        member && sight.facts.hearing == Hearing::Unheard,
    );
    class.set(Flag::Relevant, member && !silent);
    class.set(Flag::Serving, member && !silent && sight.serving());
}

/// The rollout is over, and by its last word the cluster has the revision.
fn done(context: &Context, sight: &Sight<'_>) -> bool {
    let over = context.update.as_ref().filter(|_| context.is_over());
    over.is_some_and(|update| sight.settled(update))
}

/// What the cluster's own word says of the revision.
fn verdict(
    deployment: &Deployment,
    context: &Context,
    sight: &Sight<'_>,
    member: bool,
    class: &mut Class,
) {
    let Some(update) = context.update.as_ref().filter(|_| member) else {
        return;
    };
    let hold = deployment.policy.hold.mode;
    let settled = sight.settled(update);
    let held = sight.facts.paused
        || sight.facts.held.is_some() && context.respects_hold(hold)
        || nodes_held(sight);
    let refused = sight.target.refused.is_some();
    // A silent one counts as that: nothing can be expected of it, whoever keeps it back.
    let silent = [Flag::Dark, Flag::Skipped, Flag::Awaited];
    let silent = silent.into_iter().any(|flag| class.has(flag));
    let kept_back = !settled && (held || refused) && !silent;
    // What it says of an earlier attempt is over once it is to get another one.
    let today = context.attempted(sight, update);
    class.set(Flag::Condemned, today && sight.condemned(update));
    class.set(Flag::TimedOut, today && sight.timed_out(update));
    class.set(Flag::KeptBack, kept_back);
    let expired = context.hold_over && hold == HoldMode::Fail;
    class.set(Flag::HoldExpired, kept_back && held && expired);
    let dark = class.has(Flag::Dark) && deployment.policy.offline.after_update == AfterUpdate::Fail;
    class.set(
        Flag::Failing,
        dark || class.has(Flag::Condemned)
            || class.has(Flag::TimedOut)
            || class.has(Flag::HoldExpired),
    );
    class.set(
        Flag::Excused,
        class.has(Flag::Heard)
            && (kept_back || class.has(Flag::Condemned) || class.has(Flag::TimedOut)),
    );
    class.set(
        Flag::Proven,
        class.has(Flag::Heard)
            && sight.complete(update)
            && sight.fresh().is_some_and(|report| report.nodes.updated > 0),
    );
    class.set(
        Flag::Regressed,
        class.has(Flag::Heard) && !kept_back && sight.fell_back(update),
    );
}

/// Its nodes that are not there yet are held.
fn nodes_held(sight: &Sight<'_>) -> bool {
    sight.fresh().is_some_and(|report| {
        let nodes = report.nodes;
        let expected = nodes.desired.saturating_sub(nodes.silent);
        nodes.held > 0 && nodes.updated.saturating_add(nodes.held) >= expected
    })
}

/// Places in budgets. A suspect keeps its own, whoever else comes and goes, unless the policy ignores such. (What a
/// person went on past is taken off the sums.)
fn places(deployment: &Deployment, context: &Context, sight: &Sight<'_>, class: &mut Class) {
    let silent = sight.silent();
    // Where only holds are left, nothing is on its way.
    let moving = sight.moving() && !nodes_held(sight);
    let respected = deployment.policy.offline.after_update != AfterUpdate::Ignore;
    let keeps = class.has(Flag::Suspect) && respected;
    // It condemned the revision and then fell silent: no longer on its way, and as broken as it was.
    let broken = class.has(Flag::Dark) && class.has(Flag::Condemned) && respected;
    let leaves = sight
        .entry()
        .is_some_and(|entry| entry.action == Action::Remove && !sight.removal_confirmed());
    class.set(Flag::Removing, leaves && !silent);
    if !class.has(Flag::Member) {
        return;
    }
    // Its proof is a memory until this leader hears it.
    let given = context.update.as_ref().is_some_and(|it| sight.runs(it));
    let memory = class.has(Flag::Unheard) && given && !done(context, sight);
    // One that is to remove the revision has it until it says otherwise.
    let exposed = context.update.as_ref().is_some_and(|it| sight.exposed(it));
    let holds = if silent {
        keeps
    } else {
        moving || memory || leaves && exposed
    };
    class.set(Flag::Moving, holds);
    class.set(Flag::Given, given);
    class.set(Flag::Underway, holds && exposed);
    class.set(
        Flag::Unavailable,
        if silent {
            keeps || broken && !sight.available()
        } else {
            sight.running().is_some() && (moving || class.has(Flag::Unheard) || !sight.available())
        },
    );
    let back = matches!(context.course, Course::Back | Course::Undone);
    let to_current = context
        .current
        .as_ref()
        .is_some_and(|current| sight.runs(current) && sight.moving());
    class.set(Flag::GoingBack, back && !silent && (to_current || leaves));
    class.set(Flag::NotBack, back && !silent && not_back(context, sight));
}

/// It still has the revision that is taken back, or has not said that it is where it should be.
fn not_back(context: &Context, sight: &Sight<'_>) -> bool {
    match (&context.current, &context.update) {
        (Some(current), _) => sight.running().is_some() && !sight.arrived(current),
        (None, Some(update)) => match sight.entry() {
            Some(entry) if entry.action == Action::Remove => !sight.removal_confirmed(),
            Some(entry) => &entry.revision == update,
            None => false,
        },
        (None, None) => false,
    }
}

fn column(context: &Context, sight: &Sight<'_>, class: Class) -> Flag {
    let Some(update) = &context.update else {
        return if class.has(Flag::Skipped) || class.has(Flag::Awaited) {
            Flag::Silent
        } else {
            Flag::Pending
        };
    };
    let back = matches!(context.course, Course::Back | Course::Pause);
    if class.has(Flag::Condemned) {
        Flag::Failed
    } else if class.has(Flag::Dark) {
        Flag::Suspect
    } else if back && sight.left(update) && returned(context, sight) {
        Flag::RolledBack
    } else if done(context, sight) {
        Flag::Updated
    } else if class.has(Flag::Skipped) || class.has(Flag::Awaited) {
        Flag::Silent
    } else if class.has(Flag::TimedOut) || class.has(Flag::HoldExpired) {
        Flag::Failed
    } else if sight.settled(update) {
        Flag::Updated
    } else if class.has(Flag::KeptBack) {
        Flag::Held
    } else {
        Flag::Pending
    }
}

/// It had the revision, and by its last word has what it goes back to.
fn returned(context: &Context, sight: &Sight<'_>) -> bool {
    match &context.current {
        Some(current) => sight.arrived(current) && !sight.moving(),
        None => sight.entry().is_none() || sight.removal_confirmed(),
    }
}

/// The order that a target wants and may have, if there is a place.
///
/// Whatever goes back or away is told so even while it is silent: it must not go on when it returns. Only
/// heard clusters are sent forward, so that a silent one with the revision fell silent after it.
fn want(context: &Context, sight: &Sight<'_>, goal: Goal<'_>, class: Class) -> Option<Want> {
    if sight.facts.paused {
        return None;
    }
    let forward = |revision| {
        let there = sight.runs(revision) && context.attempted(sight, revision);
        let free = class.has(Flag::Heard)
            && !(class.has(Flag::KeptBack) && sight.facts.held.is_some())
            && sight.target.refused.is_none();
        (!there && free).then_some(Want::Forward)
    };
    match goal {
        Goal::Keep => None,
        Goal::Run(revision) => forward(revision),
        Goal::Back(revision) => (!sight.runs(revision)).then_some(Want::Back),
        Goal::Leave | Goal::Gone => {
            let entry = sight.entry()?;
            match entry.action {
                Action::Remove => sight.removal_confirmed().then_some(Want::Now),
                Action::Run if goal == Goal::Leave => Some(Want::Leave),
                Action::Run if context.course == Course::Back => Some(Want::Back),
                Action::Run => Some(Want::Now),
            }
        }
    }
}
