//! A request while a version is in trial: the candidate, and the previous version beside it.
//!
//! Owns the two pieces of work and what becomes of the one that was not needed. What is next is decided by
//! [`rimward_core::sample`]; here it is only waited for. Nothing runs longer than its own version's time limit, and
//! no more at one time than that version's concurrency allows, answered clients or not.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rimward_core::sample::{Ending, Next, Previous, Who, next};

use super::routes::{Answered, Unanswered, time_limit};
use super::slot::{NoAnswer, Question, Slot, Tensors, ending};
use super::tensor::{OverBudget, TensorBudget};

/// A request that a version was asked.
struct Asked<T> {
    by: Arc<Slot>,
    began: Instant,
    /// It has its place: from here on it cannot be called back.
    begun: Arc<AtomicBool>,
    answer: Pin<Box<dyn Future<Output = Result<T, NoAnswer>> + Send>>,
}

impl<T: Send + 'static> Asked<T> {
    fn new<E>(by: &Arc<Slot>, question: Question, encode: E) -> Self
    where
        E: Fn(&Slot, &Tensors) -> Result<T, NoAnswer> + Send + Sync + 'static,
    {
        let (began, begun) = (question.began, Arc::clone(&question.begun));
        let slot = Arc::clone(by);
        Self {
            by: Arc::clone(by),
            began,
            begun,
            answer: Box::pin(async move {
                slot.answer(question, |outputs| encode(&slot, outputs))
                    .await
            }),
        }
    }
}

/// Waits for the answer; for ever where nobody was asked.
async fn answer_of<T>(asked: &mut Option<Asked<T>>) -> Result<T, NoAnswer> {
    match asked {
        Some(asked) => (&mut asked.answer).await,
        None => pending().await,
    }
}

/// Answers a request with whichever version answers first; the candidate has its whole time limit, and the previous
/// version one of its own from when it is asked.
pub(super) async fn answer<T, E>(
    candidate: Arc<Slot>,
    previous: Arc<Slot>,
    inputs: Tensors,
    budget: Arc<TensorBudget>,
    began: Instant,
    encode: E,
) -> Result<Answered<T>, Unanswered>
where
    T: Send + 'static,
    E: Fn(&Slot, &Tensors) -> Result<T, NoAnswer> + Clone + Send + Sync + 'static,
{
    let limit = time_limit(&candidate);
    let half = began + limit / 2;
    let kept = inputs.clone();
    let question = Question {
        inputs,
        budget,
        began,
        deadline: began + limit,
        begun: Arc::default(),
        beside: false,
    };
    let mut first = candidate
        .takes_in_trial()
        .then(|| Asked::new(&candidate, question, encode.clone()));
    let mut by_candidate = first.is_none().then_some(Err(NoAnswer::QueueFull));
    let mut took = Duration::ZERO;
    let mut second: Option<Asked<T>> = None;
    let mut by_previous: Option<Result<T, NoAnswer>> = None;
    let who = loop {
        let state = match (&by_previous, &second) {
            (Some(answer), _) => Previous::Ended(ending(answer)),
            (None, Some(_)) => Previous::Asked,
            (None, None) => Previous::NotAsked,
        };
        let half_is_over = Instant::now() >= half;
        match next(by_candidate.as_ref().map(ending), state, half_is_over) {
            Next::Answer(who) | Next::NoAnswer(who) => break who,
            Next::AskPrevious => match ask_previous(&previous, &kept, by_candidate.is_none()) {
                Ok(question) => second = Some(Asked::new(&previous, question, encode.clone())),
                Err(over) => by_previous = Some(Err(NoAnswer::TooLarge(over.to_string()))),
            },
            Next::Wait => tokio::select! {
                // A candidate that answers at the same moment was not slower.
                biased;
                answer = answer_of(&mut first) => {
                    first = None;
                    took = began.elapsed();
                    by_candidate = Some(answer);
                }
                answer = answer_of(&mut second) => {
                    count_previous(&second, &answer);
                    second = None;
                    by_previous = Some(answer);
                }
                () = tokio::time::sleep_until(half.into()), if !half_is_over => {}
            },
        }
    };
    match &by_candidate {
        Some(answer) => {
            let witness = by_previous.as_ref().map(ending);
            candidate.count(answer.as_ref().err(), witness, took);
        }
        None => finish_candidate(first),
    }
    finish_previous(second);
    match (who, by_candidate, by_previous) {
        (Who::Candidate, Some(answer), _) => told(answer, candidate, None),
        (Who::Previous, _, Some(answer)) => told(answer, previous, Some(candidate)),
        (Who::Candidate, None, _) | (Who::Previous, _, None) => Err(Unanswered {
            why: NoAnswer::Failed("no version answered".to_owned()),
            by: candidate,
        }),
    }
}

fn told<T>(
    answer: Result<T, NoAnswer>,
    by: Arc<Slot>,
    instead_of: Option<Arc<Slot>>,
) -> Result<Answered<T>, Unanswered> {
    match answer {
        Ok(answer) => Ok(Answered {
            answer,
            by,
            instead_of,
        }),
        Err(why) => Err(Unanswered { why, by }),
    }
}

/// The same request for the previous version, on its own time and on its own budget: what the candidate still
/// holds, how little it may hold and how late it is, is not its.
fn ask_previous(
    previous: &Slot,
    inputs: &Tensors,
    candidate_is_at_work: bool,
) -> Result<Question, OverBudget> {
    let began = Instant::now();
    let budget = TensorBudget::new(previous.spec.limits.tensor_bytes_max);
    let inputs = inputs
        .iter()
        .map(|(name, tensor)| Ok((name.clone(), tensor.charged_to(&budget)?)))
        .collect::<Result<Tensors, OverBudget>>()?;
    Ok(Question {
        inputs,
        budget,
        began,
        deadline: began + time_limit(previous),
        begun: Arc::default(),
        beside: candidate_is_at_work,
    })
}

fn count_previous<T>(asked: &Option<Asked<T>>, answer: &Result<T, NoAnswer>) {
    if let Some(asked) = asked {
        let took = asked.began.elapsed();
        asked.by.count(answer.as_ref().err(), None, took);
    }
}

/// Lets the candidate finish what the previous version has answered, and counts it: a good answer within the limit
/// is good, whoever was first.
fn finish_candidate<T: Send + 'static>(asked: Option<Asked<T>>) {
    let Some(Asked {
        by, began, answer, ..
    }) = asked
    else {
        return;
    };
    let left_over = by.leave_over();
    tokio::spawn(async move {
        let answer = answer.await;
        let witness = Some(Ending::Answered);
        by.count(answer.as_ref().err(), witness, began.elapsed());
        drop(left_over);
    });
}

/// Lets the previous version finish what it has begun, so that its place stays taken for as long; what it has not
/// begun is not wanted any more.
fn finish_previous<T: Send + 'static>(asked: Option<Asked<T>>) {
    if let Some(asked) = asked.filter(|asked| asked.begun.load(Ordering::Relaxed)) {
        tokio::spawn(async move {
            let Asked {
                by, began, answer, ..
            } = asked;
            let answer = answer.await;
            by.count(answer.as_ref().err(), None, began.elapsed());
        });
    }
}
