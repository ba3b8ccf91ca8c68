//! Entries without a readable deployment.
//!
//! Owns that those of a deployment that is gone are removed, cluster by confirmed cluster, and that those of one
//! that exists but cannot be read stay as they are.

use super::give::Touched;
use super::ledger::{ENTRY_BYTES_UNKNOWN, Ledgers};
use super::rollout::Targets;
use super::target::{Facts, Order, Shared, Sight};
use super::types::{Action, Entry, Hearing};
use crate::ids::DeploymentKey;

/// Targets of a deployment that is gone or cannot be read.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// The deployment exists: what clusters run of it stays as it is.
    pub(super) unreadable: bool,
    pub(super) targets: Targets,
    pub(super) shared: Shared,
}

impl Strays {
    /// Orders what is left of a deployment that is gone to be removed, and lets go of what is confirmed.
    pub(super) fn sweep(
        &mut self,
        key: &DeploymentKey,
        ledgers: &mut Ledgers,
        touched: &mut Touched,
    ) {
        if self.unreadable {
            return;
        }
        let mut targets = std::mem::take(&mut self.targets).into_tuple_vec();
        targets.retain_mut(|(name, kept)| {
            let target = &mut kept.target;
            let Some(ledger) = ledgers.get_mut(name) else {
                return false;
            };
            let Some(order) = target.order.clone() else {
                return target.told.is_some() || target.report.is_some();
            };
            if ledger.paused {
                return true;
            }
            let facts = Facts {
                hearing: Hearing::Unheard,
                paused: false,
                held: None,
                reported: ledger.reported,
            };
            let confirmed = Sight { target, facts }.removal_confirmed();
            let next = match (order.entry.action, confirmed) {
                (Action::Remove, false) => return true,
                (Action::Remove, true) => None,
                (Action::Run, _) => Some(Entry {
                    action: Action::Remove,
                    ..order.entry.clone()
                }),
            };
            if target.told.is_none() {
                target.told = Some(Some(Box::new(order.entry)));
            }
            ledger.claim(key, next.as_ref(), ENTRY_BYTES_UNKNOWN);
            ledger.untold.insert(key.clone());
            let others = ledger.refused.iter().cloned();
            touched
                .freed
                .extend(others.map(|other| (other, name.clone())));
            target.order = next.map(|entry| Order { entry, since: None });
            touched.clusters.insert(name.clone());
            true
        });
        self.targets = targets.into_iter().collect();
    }
}
