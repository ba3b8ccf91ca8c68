//! Who gets an order now.
//!
//! Owns the one place where budgets are spent.
//!
//! # Guarantees
//! - Clusters that the planner sent forward are never more than either budget of their stage, even if what
//!   was seen of them is wrong: a cluster that merely *looks* unavailable still needs a free place among those
//!   on their way. One on its way may be sent elsewhere in its own place.
//! - What goes back or away is bounded by the policy's own budget, and refused by nothing else.

use std::collections::BTreeSet;

use super::because::Because;
use super::class::Flag;
use super::context::{Goal, Motion, Past};
use super::entry::{beside, entry_bytes, run, same_beside};
use super::ledger::{Ledgers, removal_budget};
use super::planner::Elders;
use super::queue::{Cost, Seat};
use super::rollout::{Group, Kept, Rollout};
use super::target::{Order, Refused, Sight};
use super::types::{Action, Entry};
use crate::ids::{ClusterName, DeploymentKey};
use crate::time::Timestamp;

/// What carrying orders out touched beside the deployment itself.
#[derive(Debug, Default)]
pub(super) struct Touched {
    /// Whether any target changed.
    pub(super) any: bool,
    /// Deployments that may look again on a cluster, since something came free there.
    pub(super) freed: Vec<(DeploymentKey, ClusterName)>,
    /// Clusters whose assignment is nearly full: whoever is to get something there looks again.
    pub(super) tight: BTreeSet<ClusterName>,
    /// Clusters whose entries differ from what stands on the hub.
    pub(super) clusters: BTreeSet<ClusterName>,
}

impl Group {
    fn budgets(&self) -> (u32, Option<u32>) {
        let short = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let total = self.counted();
        let stage = &self.divided.stage;
        let unavailable = stage.max_unavailable.map(|amount| short(amount.of(total)));
        (short(stage.max_concurrency.of(total)), unavailable)
    }

    /// How many hold a place of that kind, but the suspects that a person went on past.
    fn taken(&self, flag: Flag, past: Past) -> u32 {
        let gone = past.suspects.min(self.tally.of(Flag::Suspect));
        self.tally.of(flag).saturating_sub(gone)
    }

    fn fits(&self, cost: Cost, past: Past) -> bool {
        let (moving_max, unavailable_max) = self.budgets();
        let moving_max = moving_max.min(unavailable_max.unwrap_or(u32::MAX));
        let taken = |flag| self.taken(flag, past);
        match cost {
            Cost::OwnPlace => true,
            Cost::Again => taken(Flag::Underway) <= moving_max,
            // Budgets may have shrunk since it got its place: what is new to it is bounded all the same.
            Cost::Redirected => taken(Flag::Underway) < moving_max,
            Cost::Broken => taken(Flag::Moving) < moving_max,
            Cost::Serving => {
                taken(Flag::Moving) < moving_max
                    && unavailable_max.is_none_or(|max| taken(Flag::Unavailable) < max)
            }
        }
    }

    /// Why there is no place, by the state of the budgets.
    pub(super) fn denial(&self, past: Past) -> Because {
        let (moving_max, unavailable_max) = self.budgets();
        let stage = self.divided.stage.name.clone();
        match unavailable_max {
            Some(max) if self.taken(Flag::Moving, past) < moving_max => Because::Unavailable {
                stage,
                unavailable: self.taken(Flag::Unavailable, past),
                max: usize::try_from(max).unwrap_or(usize::MAX),
            },
            _ => Because::Concurrency {
                stage,
                moving: self.taken(Flag::Moving, past),
                max: usize::try_from(moving_max).unwrap_or(usize::MAX),
            },
        }
    }
}

impl Rollout {
    /// Gives every order for which there is a place.
    pub(super) fn give(
        &mut self,
        ledgers: &mut Ledgers,
        elders: &Elders<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) {
        if self.context.motion == Motion::Frozen {
            return;
        }
        for seat in std::mem::take(&mut self.at_once) {
            self.order(&seat.name, ledgers, elders, now, touched);
        }
        self.give_back(ledgers, elders, now, touched);
        self.let_go(ledgers, elders, now, touched);
        if self.context.motion == Motion::Any {
            for place in 0..self.stages.len() {
                self.give_forward(place, ledgers, elders, now, touched);
            }
        }
    }

    /// Those that go back: broken ones first. One that is silent costs no place: it acts when it returns.
    fn give_back(
        &mut self,
        ledgers: &mut Ledgers,
        elders: &Elders<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) {
        if self.back.is_empty() {
            return;
        }
        let total = self.total();
        let members = usize::try_from(total.of(Flag::Member)).unwrap_or(usize::MAX);
        let max = self.deployment.policy.rollback_max_concurrency.of(members);
        let mut free =
            max.saturating_sub(usize::try_from(total.of(Flag::GoingBack)).unwrap_or(max));
        let waiting: Vec<Seat> = self.back.iter().cloned().collect();
        for seat in waiting {
            let heard = self
                .targets
                .get(&seat.name)
                .is_some_and(|kept| kept.judged.class.has(Flag::Heard));
            if heard && free == 0 {
                continue;
            }
            free -= usize::from(heard);
            self.order(&seat.name, ledgers, elders, now, touched);
        }
    }

    /// Those that left the placement.
    fn let_go(
        &mut self,
        ledgers: &mut Ledgers,
        elders: &Elders<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) {
        if self.leave.is_empty() {
            return;
        }
        let max = removal_budget(&self.deployment.policy, self.targets.len());
        let removing = usize::try_from(self.outside.of(Flag::Removing)).unwrap_or(max);
        let mut free = max.saturating_sub(removing);
        let waiting: Vec<Seat> = self.leave.iter().cloned().collect();
        for seat in waiting {
            let heard = self
                .targets
                .get(&seat.name)
                .is_some_and(|kept| kept.judged.class.has(Flag::Heard));
            if heard && free == 0 {
                continue;
            }
            free -= usize::from(heard);
            self.order(&seat.name, ledgers, elders, now, touched);
        }
    }

    fn give_forward(
        &mut self,
        place: usize,
        ledgers: &mut Ledgers,
        elders: &Elders<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) {
        for cost in Cost::ALL {
            loop {
                let Some(group) = self.stages.get(place) else {
                    return;
                };
                let past = self.context.past(place);
                let next = group.forward.next(cost).filter(|_| group.fits(cost, past));
                let Some(name) = next.cloned() else {
                    break;
                };
                self.order(&name, ledgers, elders, now, touched);
                // Whatever became of it, it must not be looked at again for the same reason.
                if let Some(group) = self.stages.get_mut(place) {
                    group.forward.remove(cost, &name);
                }
            }
        }
    }

    /// Gives one target its next order, or notes why it is refused alone.
    fn order(
        &mut self,
        name: &ClusterName,
        ledgers: &mut Ledgers,
        elders: &Elders<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) {
        let grace = self.grace_seconds();
        let (Some(ledger), Some(kept)) = (ledgers.get_mut(name), self.targets.get_mut(name)) else {
            return;
        };
        let next = {
            let facts = ledger.facts(grace, now);
            let sight = Sight {
                target: &kept.target,
                facts,
            };
            let goal = self.context.goal(&self.deployment, &sight);
            match goal {
                Goal::Keep => return,
                Goal::Run(to) | Goal::Back(to) => Some((to.clone(), matches!(goal, Goal::Back(_)))),
                Goal::Leave | Goal::Gone => None,
            }
        };
        let entry = match next {
            Some((to, back)) => {
                let standing = kept.target.order.as_ref().map(|order| &order.entry);
                let mut entry = run(
                    &self.deployment,
                    &self.context,
                    &to,
                    kept.target.place,
                    &self.stages,
                    standing,
                );
                let wanted = &self.deployment.endpoint_name;
                let bytes = entry_bytes(&self.deployment, &to);
                let elder = elders.of(&self.key, self.deployment.created, wanted, name);
                if ledger.refusal(&self.key, wanted, bytes, elder).is_some() {
                    match standing {
                        // Nothing ever blocks going back: it keeps the name that it has.
                        Some(standing) if back => {
                            entry.endpoint_name = standing.endpoint_name.clone();
                        }
                        _ => {
                            touched.any |= self.note_refusal(name, ledgers, elders, now);
                            self.judge(name, ledgers, now);
                            return;
                        }
                    }
                }
                Some(entry)
            }
            None => kept.target.order.as_ref().and_then(|order| {
                let confirmed = {
                    let facts = ledger.facts(grace, now);
                    Sight {
                        target: &kept.target,
                        facts,
                    }
                    .removal_confirmed()
                };
                let gone = order.entry.action == Action::Remove && confirmed;
                (!gone).then(|| Entry {
                    action: Action::Remove,
                    ..order.entry.clone()
                })
            }),
        };
        self.place_order(name, entry, ledgers, elders, now, touched);
    }

    /// Notes an order as given: from now on it may have left.
    pub(super) fn place_order(
        &mut self,
        name: &ClusterName,
        entry: Option<Entry>,
        ledgers: &mut Ledgers,
        elders: &Elders<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) {
        let (Some(ledger), Some(kept)) = (ledgers.get_mut(name), self.targets.get_mut(name)) else {
            return;
        };
        let target = &mut kept.target;
        let before = target.order.take();
        let standing = before.as_ref().map(|order| &order.entry);
        if target.told.is_none() {
            target.told = Some(standing.cloned().map(Box::new));
        }
        let since = match (&before, &entry) {
            // What changed beside the order takes effect by itself; reports speak of it as before.
            (Some(before), Some(entry)) if before.entry.same_order(entry) => before.since,
            _ => None,
        };
        let size = entry
            .as_ref()
            .map_or(0, |entry| entry_bytes(&self.deployment, &entry.revision));
        if ledger.claim(&self.key, entry.as_ref(), size) {
            let others = ledger.refused.iter().filter(|other| **other != self.key);
            touched
                .freed
                .extend(others.map(|other| (other.clone(), name.clone())));
        }
        // Whoever wants a name that was taken or set free looks again.
        let names = [
            standing.map(|it| &it.endpoint_name),
            entry.as_ref().map(|it| &it.endpoint_name),
        ];
        if names[0] != names[1] {
            for other in names
                .into_iter()
                .flatten()
                .flat_map(|name| elders.wanting(name))
            {
                if other != &self.key {
                    touched.freed.push((other.clone(), name.clone()));
                }
            }
        }
        if ledger.is_tight() {
            touched.tight.insert(name.clone());
        }
        target.order = entry.map(|entry| Order { entry, since });
        let told = target.told.as_ref().and_then(|told| told.as_deref());
        if told == target.order.as_ref().map(|order| &order.entry) {
            target.told = None;
            ledger.untold.remove(&self.key);
        } else {
            ledger.untold.insert(self.key.clone());
        }
        touched.any = true;
        touched.clusters.insert(name.clone());
        self.note_refusal(name, ledgers, elders, now);
        self.judge(name, ledgers, now);
    }

    /// Notes whether the target alone is refused what it should have: a function of what stands, and of nothing
    /// that was tried. Says whether that changed.
    fn note_refusal(
        &mut self,
        name: &ClusterName,
        ledgers: &mut Ledgers,
        elders: &Elders<'_>,
        now: Timestamp,
    ) -> bool {
        let grace = self.grace_seconds();
        let (Some(ledger), Some(kept)) = (ledgers.get_mut(name), self.targets.get_mut(name)) else {
            return false;
        };
        let sight = Sight {
            target: &kept.target,
            facts: ledger.facts(grace, now),
        };
        let goal = self.context.goal(&self.deployment, &sight);
        let wanted = &self.deployment.endpoint_name;
        let refused = match (goal, sight.running()) {
            (Goal::Leave | Goal::Gone, _) | (Goal::Keep, None) => None,
            (Goal::Run(to) | Goal::Back(to), running) if running != Some(to) => {
                let bytes = entry_bytes(&self.deployment, to);
                let elder = elders.of(&self.key, self.deployment.created, wanted, name);
                ledger.refusal(&self.key, wanted, bytes, elder)
            }
            // It stays on its revision, under the name that it has until the wanted one is free.
            _ if sight.entry().is_some_and(|it| &it.endpoint_name == wanted) => None,
            _ => ledger
                .holder(&self.key, wanted)
                .map(|by| Refused::NameTaken(by.clone())),
        };
        if refused == kept.target.refused {
            return false;
        }
        if refused.is_some() {
            ledger.refused.insert(self.key.clone());
        } else {
            ledger.refused.remove(&self.key);
        }
        kept.target.refused = refused;
        true
    }

    /// Targets that are not, in every respect, what the spec says: the others need not be looked at.
    pub(super) fn out_of_step(&self) -> Vec<ClusterName> {
        let wanted = &self.deployment.endpoint_name;
        let stands = |kept: &Kept| {
            let target = &kept.target;
            let order = target.order.as_ref().filter(|_| target.refused.is_none());
            order.is_some_and(|Order { entry, .. }| {
                entry.action == Action::Run
                    && Some(&entry.revision) == self.context.update.as_ref()
                    && &entry.endpoint_name == wanted
                    && same_beside(&self.deployment, &self.stages, entry)
            })
        };
        let others = self.targets.iter().filter(|(_, kept)| !stands(kept));
        others.map(|(name, _)| name.clone()).collect()
    }

    /// Looks again whether targets are refused alone.
    pub(super) fn reconsider(
        &mut self,
        names: &[ClusterName],
        ledgers: &mut Ledgers,
        elders: &Elders<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) {
        for name in names {
            if self.note_refusal(name, ledgers, elders, now) {
                touched.any = true;
                self.judge(name, ledgers, now);
            }
        }
    }

    /// Entries that stay on their revision follow what the spec says beside it. Their stage stays the one that
    /// gave them, so that stages may be redrawn without a write to every cluster.
    pub(super) fn refresh(
        &mut self,
        names: &[ClusterName],
        ledgers: &mut Ledgers,
        elders: &Elders<'_>,
        now: Timestamp,
        touched: &mut Touched,
    ) {
        if self.deployment.paused {
            return;
        }
        for name in names {
            let (Some(ledger), Some(kept)) = (ledgers.get_mut(name), self.targets.get_mut(name))
            else {
                continue;
            };
            let Some(order) = &kept.target.order else {
                continue;
            };
            let runs = order.entry.action == Action::Run && kept.target.place.is_some();
            if !runs || ledger.paused {
                continue;
            }
            let wanted = &self.deployment.endpoint_name;
            if &order.entry.endpoint_name == wanted
                && same_beside(&self.deployment, &self.stages, &order.entry)
            {
                continue;
            }
            let free = ledger.has(&self.key, wanted) || ledger.holder(&self.key, wanted).is_none();
            let entry = beside(&self.deployment, &self.stages, &order.entry, free);
            if order.entry != entry {
                self.place_order(name, Some(entry), ledgers, elders, now, touched);
            }
        }
    }
}
