//! Writes of one step of a turn: side by side, and for so long only that planning is never far.
//!
//! Owns how many are under way at once, and for how long a step begins further ones: less long once people asked for
//! something else, which may be to stop. Must never drop one that is
//! under way: nobody would know what became of it.

use std::time::{Duration, Instant};

use futures::StreamExt as _;

use super::apply::{Outcome, Target, WRITE_SECONDS_MAX, Writer};
use super::feed::Feed;
use crate::objects::ObjectKey;

/// Writes at once within one step.
pub(super) const WRITES_MAX: usize = 8;
/// For so long a step begins further writes: one round of writes that hang. Another turn makes the others, and knows
/// by then which of them not to try; a rollback that is due meanwhile goes with it.
const STEP: Duration = Duration::from_secs(WRITE_SECONDS_MAX);

/// For so long a step of as many writes as there are clusters begins further ones, at least: what is news meanwhile
/// waits for that.
const FLEET_STEP: Duration = Duration::from_secs(1);
/// So many times as long as it took to prepare them: what is prepared anew each turn is a small part of it then.
const PREPARED_TIMES: u32 = 4;
/// For so long, or as long as it took to prepare them, such a step begins further writes though people asked for
/// something: what is under way comes to its end too, however often they ask.
const ASKED_STEP: Duration = Duration::from_millis(100);

/// Carries writes out. Those that were not begun in time are not among the answers, and are looked at again at once.
pub(super) async fn side_by_side<F: Future>(
    feed: &Feed,
    writes: impl IntoIterator<Item = (ObjectKey, F)>,
) -> Vec<F::Output> {
    within(STEP, STEP, feed, usize::MAX, writes).await
}

/// Carries orders out, of which there may be as many as clusters; `prepared` is how long the turn took up to here. The
/// planner still has those that were not begun in time: another turn is all that they need.
pub(super) async fn orders<F: Future>(
    feed: &Feed,
    prepared: Duration,
    writes: impl IntoIterator<Item = (ObjectKey, F)>,
) -> Vec<F::Output> {
    let asked = prepared.max(ASKED_STEP);
    within(fleet_step(prepared), asked, feed, 1, writes).await
}

/// Carries writes out of which there may be as many as clusters; `prepared` is how long it took to find them. Those
/// that were not begun in time, the last ones, are looked at again at once.
pub(super) async fn fleet_wide<F: Future>(
    feed: &Feed,
    prepared: Duration,
    writes: impl IntoIterator<Item = (ObjectKey, F)>,
) -> Vec<F::Output> {
    let asked = prepared.max(ASKED_STEP);
    within(fleet_step(prepared), asked, feed, usize::MAX, writes).await
}

fn fleet_step(prepared: Duration) -> Duration {
    let step = prepared.saturating_mul(PREPARED_TIMES);
    step.clamp(FLEET_STEP, STEP)
}

/// `asked`: how long the step begins further writes though people asked for something. `marks`: so many of those that
/// were not begun are looked at again.
async fn within<F: Future>(
    step: Duration,
    asked: Duration,
    feed: &Feed,
    marks: usize,
    writes: impl IntoIterator<Item = (ObjectKey, F)>,
) -> Vec<F::Output> {
    let began = Instant::now();
    let mut writes = writes.into_iter();
    let begun = std::iter::from_fn(|| {
        let took = began.elapsed();
        let in_time = took < step && (took < asked || !feed.is_asked());
        in_time.then(|| writes.next())?.map(|(_, write)| write)
    });
    let answers = futures::stream::iter(begun)
        .buffer_unordered(WRITES_MAX)
        .collect()
        .await;
    feed.mark(writes.map(|(key, _)| key).take(marks));
    answers
}

/// Deletes objects. One that could not be deleted is found again.
pub(super) async fn delete(writer: &Writer, feed: &Feed, targets: &[Target]) {
    let deletes = targets
        .iter()
        .map(|target| (target.key.clone(), writer.delete(target)));
    let _: Vec<Outcome> = side_by_side(feed, deletes).await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ASKED_STEP, WRITES_MAX, within};
    use crate::hub::feed::{Dirty, Feed};
    use crate::metrics::Kind;
    use crate::objects::ObjectKey;

    fn key(nth: usize) -> ObjectKey {
        ObjectKey {
            kind: Kind::EdgeCluster,
            namespace: None,
            name: nth.to_string(),
        }
    }

    /// Writes so many that take a while each, while people ask for something or do not.
    async fn check(step: Duration, many: usize, asked: bool) -> (usize, usize) {
        let feed = Feed::default();
        feed.take();
        if asked {
            feed.note([key(many)], true);
        }
        let writes = (0..many).map(|nth| (key(nth), tokio::time::sleep(ASKED_STEP)));
        let done = within(step, ASKED_STEP, &feed, usize::MAX, writes)
            .await
            .len();
        let Dirty::Keys(left) = feed.take() else {
            panic!("everything");
        };
        (done, left.len() - usize::from(asked))
    }

    #[tokio::test]
    async fn a_step_whose_writes_hang_ends_after_a_round_and_leaves_the_others_to_the_next_turn() {
        let many = 3 * WRITES_MAX;
        let short = Duration::from_millis(50);
        let left = many - WRITES_MAX;
        assert_eq!(check(short, many, false).await, (WRITES_MAX, left));
        let long = Duration::from_secs(60);
        assert_eq!(check(long, many, false).await, (many, 0));
    }

    #[tokio::test]
    async fn a_long_step_ends_early_where_people_ask_for_something_and_does_some_of_its_work() {
        let many = 3 * WRITES_MAX;
        let long = Duration::from_secs(60);
        let left = many - WRITES_MAX;
        assert_eq!(check(long, many, true).await, (WRITES_MAX, left));
    }
}
