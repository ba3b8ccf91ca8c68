//! Which version answers at which endpoint.
//!
//! One writer (the control loop) swaps a pointer; each request takes the table as it is and keeps it
//! to its end, so a request never sees half a change.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use super::slot::{NoAnswer, Slot, Tensors};
use super::tensor::{OverBudget, TensorBudget};

/// The versions at one endpoint.
#[derive(Clone, Debug, Default)]
pub(super) struct Route {
    /// Serves, or answers what the candidate fails.
    pub(super) current: Option<Arc<Slot>>,
    /// In trial.
    pub(super) candidate: Option<Arc<Slot>>,
}

/// An answer and who gave it.
#[derive(Debug)]
pub(super) struct Answered<T> {
    pub(super) answer: T,
    /// The version that answered.
    pub(super) by: Arc<Slot>,
    /// The version in trial that failed the request first.
    pub(super) instead_of: Option<Arc<Slot>>,
}

/// No answer, and from whom.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) why: NoAnswer,
    pub(super) by: Arc<Slot>,
}

impl Route {
    /// The version that a client is told of.
    pub(super) fn serving(&self) -> Option<&Arc<Slot>> {
        self.candidate.as_ref().or(self.current.as_ref())
    }

    /// The version that answers what the one in trial does not.
    pub(super) fn previous(&self) -> Option<&Arc<Slot>> {
        self.candidate.as_ref().and(self.current.as_ref())
    }

    /// The version of that revision, if it is here.
    pub(super) fn revision(&self, revision: &str) -> Option<&Arc<Slot>> {
        [&self.candidate, &self.current]
            .into_iter()
            .flatten()
            .find(|slot| slot.spec.revision == revision)
    }

    /// Only that version, for a client that names one: what it fails stays failed.
    pub(super) fn pinned(slot: Arc<Slot>) -> Self {
        Self {
            current: Some(slot),
            candidate: None,
        }
    }

    /// Answers a request with the version in trial, and where that fails, with the previous one.
    /// `None` where nothing serves.
    pub(super) async fn answer<T>(
        self,
        inputs: Tensors,
        budget: Arc<TensorBudget>,
        began: Instant,
        encode: impl Fn(&Slot, &Tensors) -> Result<T, String>,
    ) -> Option<Result<Answered<T>, Unanswered>> {
        let timeout = |slot: &Slot| Duration::from_millis(slot.spec.limits.timeout_milliseconds);
        let (slot, previous) = match (self.candidate, self.current) {
            (Some(candidate), previous) => (candidate, previous),
            (None, Some(current)) => (current, None),
            (None, None) => return None,
        };
        let whole = timeout(&slot).max(previous.as_deref().map_or(Duration::ZERO, timeout));
        let first = if previous.is_some() { whole / 2 } else { whole };
        let kept = if previous.is_some() {
            inputs.clone()
        } else {
            Vec::new()
        };
        let why = match slot
            .answer(inputs, budget, began, began + first, |outputs| {
                encode(&slot, outputs)
            })
            .await
        {
            Ok(answer) => {
                return Some(Ok(Answered {
                    answer,
                    by: slot,
                    instead_of: None,
                }));
            }
            Err(why) => why,
        };
        let Some(previous) = previous else {
            return Some(Err(Unanswered { why, by: slot }));
        };
        // What the client got wrong is wrong for the previous version too, unless it declares others.
        if matches!(why, NoAnswer::ClientMistake(_)) && previous.spec.inputs == slot.spec.inputs {
            return Some(Err(Unanswered { why, by: slot }));
        }
        // Its own budget too: what the candidate still holds, and how little it may hold, is not its.
        let budget = TensorBudget::new(previous.spec.limits.tensor_bytes_max);
        let recharged: Result<Tensors, _> = kept
            .into_iter()
            .map(|(name, tensor)| Ok((name, tensor.charged_to(&budget)?)))
            .collect();
        let Ok(kept) = recharged.map_err(|_: OverBudget| ()) else {
            return Some(Err(Unanswered { why, by: slot }));
        };
        let failed = matches!(why, NoAnswer::Failed(_) | NoAnswer::TimedOut(_));
        // Its own time, so that the candidate's does not look like the previous version's.
        let second = previous
            .answer(kept, budget, Instant::now(), began + whole, |outputs| {
                encode(&previous, outputs)
            })
            .await;
        Some(match second {
            Ok(answer) => {
                if failed {
                    slot.fell_back();
                }
                Ok(Answered {
                    answer,
                    by: previous,
                    instead_of: Some(slot),
                })
            }
            Err(why) => Err(Unanswered { why, by: previous }),
        })
    }
}

/// All endpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes(Arc<RwLock<Arc<BTreeMap<String, Route>>>>);

impl Routes {
    /// The table as it is now.
    pub(super) fn table(&self) -> Arc<BTreeMap<String, Route>> {
        match self.0.read() {
            Ok(table) => Arc::clone(&table),
            Err(poisoned) => Arc::clone(&poisoned.into_inner()),
        }
    }

    /// Swaps one endpoint's route; an empty one goes away.
    pub(super) fn set(&self, endpoint: String, route: Route) {
        let mut table = (*self.table()).clone();
        if route.serving().is_some() {
            table.insert(endpoint, route);
        } else {
            table.remove(&endpoint);
        }
        let table = Arc::new(table);
        match self.0.write() {
            Ok(mut current) => *current = table,
            Err(poisoned) => *poisoned.into_inner() = table,
        }
    }
}
