//! Writes of one step of a turn: side by side, and for so long only that planning is never far.
//!
//! Owns how many are under way at once, and for how long a step begins further ones. Must never drop one that is
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

/// For so long a step of many orders begins further ones, at least: what is news meanwhile waits for that.
const ORDERS_STEP: Duration = Duration::from_secs(1);
/// So many times as long as it took to prepare them: what is prepared anew each turn is a small part of it then.
const PREPARED_TIMES: u32 = 4;

/// Carries writes out. Those that were not begun in time are not among the answers, and are looked at again at once.
pub(super) async fn side_by_side<F: Future>(
    feed: &Feed,
    writes: impl IntoIterator<Item = (ObjectKey, F)>,
) -> Vec<F::Output> {
    within(STEP, feed, usize::MAX, writes).await
}

/// Carries orders out, of which there may be as many as clusters; `prepared` is how long the turn took up to here. The
/// planner still has those that were not begun in time: another turn is all that they need.
pub(super) async fn orders<F: Future>(
    feed: &Feed,
    prepared: Duration,
    writes: impl IntoIterator<Item = (ObjectKey, F)>,
) -> Vec<F::Output> {
    let step = prepared.saturating_mul(PREPARED_TIMES);
    within(step.clamp(ORDERS_STEP, STEP), feed, 1, writes).await
}

/// `marks`: so many of those that were not begun are looked at again.
async fn within<F: Future>(
    step: Duration,
    feed: &Feed,
    marks: usize,
    writes: impl IntoIterator<Item = (ObjectKey, F)>,
) -> Vec<F::Output> {
    let began = Instant::now();
    let mut writes = writes.into_iter();
    let begun = std::iter::from_fn(|| {
        let in_time = began.elapsed() < step;
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

    use super::{WRITES_MAX, within};
    use crate::hub::feed::{Dirty, Feed};
    use crate::metrics::Kind;
    use crate::objects::ObjectKey;

    /// Writes so many that take a while each.
    async fn check(step: Duration, many: usize) -> (usize, usize) {
        let feed = Feed::default();
        feed.take();
        let writes = (0..many).map(|nth| {
            let key = ObjectKey {
                kind: Kind::EdgeCluster,
                namespace: None,
                name: nth.to_string(),
            };
            (key, tokio::time::sleep(Duration::from_millis(100)))
        });
        let done = within(step, &feed, usize::MAX, writes).await.len();
        let Dirty::Keys(left) = feed.take() else {
            panic!("everything");
        };
        (done, left.len())
    }

    #[tokio::test]
    async fn a_step_whose_writes_hang_ends_after_a_round_and_leaves_the_others_to_the_next_turn() {
        let many = 3 * WRITES_MAX;
        let short = Duration::from_millis(50);
        assert_eq!(check(short, many).await, (WRITES_MAX, many - WRITES_MAX));
        assert_eq!(check(Duration::from_secs(60), many).await, (many, 0));
    }
}
