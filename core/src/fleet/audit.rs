//! Whether what the planner keeps up incrementally is what it would be from nothing.
//!
//! For tests: must never be called per event, since its cost grows with the fleet.

use super::context::Course;
use super::planner::Fleet;
use super::rollout::Rollout;

impl Fleet {
    /// Counts and queues anew, and names the first deployment for which they differ from what is kept.
    ///
    /// # Errors
    /// The deployment's key, with what differs.
    pub fn audit(&mut self) -> Result<(), String> {
        let now = self.now();
        for (key, rollout) in &mut self.rollouts {
            let (kept, before) = (Counted::of(rollout), places(rollout));
            // Membership sticks: once anybody has the revision, or it goes back, it depends on what went before.
            let forward = rollout.context.course == Course::Forward && rollout.named() == 0;
            if forward && rollout.membership_follows_hearing() {
                rollout.divide(&self.ledgers, now);
            }
            if before != places(rollout) {
                return Err(format!("{key}: membership is not what it would be"));
            }
            rollout.judge_all(&self.ledgers, now);
            let anew = Counted::of(rollout);
            if kept != anew {
                return Err(format!("{key}:\n kept {}\n anew {}", kept.0, anew.0));
            }
        }
        for (name, ledger) in &self.ledgers {
            for (key, claim) in &ledger.claims {
                let order = self.order(key, name);
                if order.is_none_or(|entry| entry.endpoint_name != claim.endpoint) {
                    return Err(format!("{key} on {name}: claim without its order"));
                }
            }
        }
        Ok(())
    }
}

/// The stage of each target.
fn places(rollout: &Rollout) -> Vec<Option<usize>> {
    let targets = rollout.targets.values();
    targets.map(|kept| kept.target.place).collect()
}

/// Everything that a rollout counts.
#[derive(Debug, PartialEq)]
struct Counted(String);

impl Counted {
    fn of(rollout: &Rollout) -> Self {
        Self(format!(
            "{:?} {:?} {:?} {:?} {:?} {:?} {:?}",
            rollout.stages,
            rollout.outside,
            rollout.back,
            rollout.leave,
            rollout.at_once,
            rollout.open,
            rollout.nodes
        ))
    }
}
