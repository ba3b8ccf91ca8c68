//! Which version answers at which endpoint.
//!
//! One writer (the control loop) swaps a pointer; each request takes the table as it is and keeps it
//! to its end, so a request never sees half a change.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use rimward_core::sample::Ending;

use super::slot::{NoAnswer, Slot, Tensors, ending};
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
    /// The version in trial that failed or refused the request first.
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

    /// Answers a request with the version in trial, and where that gives no answer, with the previous one.
    /// `None` where nothing serves.
    pub(super) async fn answer<T>(
        self,
        inputs: Tensors,
        budget: Arc<TensorBudget>,
        began: Instant,
        mut encode: impl FnMut(&Slot, &Tensors) -> Result<T, NoAnswer>,
    ) -> Option<Result<Answered<T>, Unanswered>> {
        let timeout = |slot: &Slot| Duration::from_millis(slot.spec.limits.timeout_milliseconds);
        let (slot, previous) = match (self.candidate, self.current) {
            (Some(candidate), previous) => (candidate, previous),
            (None, Some(current)) => (current, None),
            (None, None) => return None,
        };
        let whole = timeout(&slot).max(previous.as_deref().map_or(Duration::ZERO, timeout));
        let (first, kept) = match previous {
            Some(_) => (whole / 2, inputs.clone()),
            None => (whole, Vec::new()),
        };
        let answer = slot
            .answer(inputs, budget, began, began + first, |outputs| {
                encode(&slot, outputs)
            })
            .await;
        let took = began.elapsed();
        let instead = match (&answer, previous) {
            // Without room for one version's answer there is none for the other's.
            (Ok(_) | Err(NoAnswer::NoRoom), _) | (Err(_), None) => None,
            (Err(_), Some(previous)) => {
                let answer = ask_previous(&previous, kept, began + whole, &mut encode).await;
                Some((answer, previous))
            }
        };
        let by_previous = instead.as_ref().map(|(answer, _)| ending(answer));
        slot.count(answer.as_ref().err(), by_previous, took);
        Some(match (answer, instead) {
            (Ok(answer), _) => Ok(Answered {
                answer,
                by: slot,
                instead_of: None,
            }),
            (Err(_), Some((Ok(answer), previous))) => Ok(Answered {
                answer,
                by: previous,
                instead_of: Some(slot),
            }),
            // Of two that give none, the one that a client is told of says why, if it is the client's mistake.
            (Err(why), Some((Err(_), _)) | None) if why.ending() == Ending::Refused => {
                Err(Unanswered { why, by: slot })
            }
            (Err(_), Some((Err(why), previous))) => Err(Unanswered { why, by: previous }),
            (Err(why), None) => Err(Unanswered { why, by: slot }),
        })
    }
}

/// Asks the previous version for what the one in trial did not answer, and counts it there.
async fn ask_previous<T>(
    previous: &Slot,
    inputs: Tensors,
    deadline: Instant,
    mut encode: impl FnMut(&Slot, &Tensors) -> Result<T, NoAnswer>,
) -> Result<T, NoAnswer> {
    // Its own time, so that the candidate's does not look like its; its own budget too: what the
    // candidate still holds, and how little it may hold, is not its.
    let began = Instant::now();
    let budget = TensorBudget::new(previous.spec.limits.tensor_bytes_max);
    let charged = inputs
        .into_iter()
        .map(|(name, tensor)| Ok((name, tensor.charged_to(&budget)?)))
        .collect::<Result<Tensors, OverBudget>>();
    let answer = match charged {
        Ok(inputs) => {
            previous
                .answer(inputs, budget, began, deadline, |outputs| {
                    encode(previous, outputs)
                })
                .await
        }
        Err(over) => Err(NoAnswer::TooLarge(over.to_string())),
    };
    previous.count(answer.as_ref().err(), None, began.elapsed());
    answer
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
