//! Which version answers at which endpoint.
//!
//! One writer (the control loop) swaps a pointer; each request takes the table as it is and keeps it
//! to its end, so a request never sees half a change. During a trial two versions may be asked: [`super::trial`].

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use super::slot::{NoAnswer, Question, Slot, Tensors};
use super::tensor::TensorBudget;
use super::trial;

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
    /// The version in trial that failed or refused the request, or was slower.
    pub(super) instead_of: Option<Arc<Slot>>,
}

/// No answer, and from whom.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) why: NoAnswer,
    pub(super) by: Arc<Slot>,
}

/// The wall time that a version's requests may take.
pub(super) fn time_limit(slot: &Slot) -> Duration {
    Duration::from_millis(slot.spec.limits.timeout_milliseconds)
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

    /// Answers a request with what serves; in a trial, with whichever of the two versions answers first. `None`
    /// where nothing serves.
    pub(super) async fn answer<T, E>(
        self,
        inputs: Tensors,
        budget: Arc<TensorBudget>,
        began: Instant,
        encode: E,
    ) -> Option<Result<Answered<T>, Unanswered>>
    where
        T: Send + 'static,
        E: Fn(&Slot, &Tensors) -> Result<T, NoAnswer> + Clone + Send + Sync + 'static,
    {
        let by = match (self.candidate, self.current) {
            (Some(candidate), Some(previous)) => {
                let answered =
                    trial::answer(candidate, previous, inputs, budget, began, encode).await;
                return Some(answered);
            }
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => return None,
        };
        let question = Question {
            inputs,
            budget,
            began,
            deadline: began + time_limit(&by),
            begun: Arc::default(),
            beside: false,
        };
        let answer = by.answer(question, |outputs| encode(&by, outputs)).await;
        by.count(answer.as_ref().err(), None, began.elapsed());
        Some(match answer {
            Ok(answer) => Ok(Answered {
                answer,
                by,
                instead_of: None,
            }),
            Err(why) => Err(Unanswered { why, by }),
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
