//! What changed since the hub's loop last looked: names only, each once.
//!
//! Owns the wake-up of the loop. Bounded: where too many names pile up (on a replica that stands by), the answer is
//! "everything". Must never hold an object.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::objects::ObjectKey;

/// Names that are kept before they become "everything": some megabytes, and more than one look at everything costs.
const KEYS_MAX: usize = 65_536;

/// Which objects the loop has to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dirty {
    /// Each one that is there, or that the loop knows of and that may be gone.
    Everything,
    /// These. One that is not in its cache is gone.
    Keys(BTreeSet<ObjectKey>),
}

/// Collects what changed.
#[derive(Debug)]
pub(crate) struct Feed {
    news: Mutex<News>,
    changed: Notify,
}

#[derive(Debug)]
struct News {
    dirty: Dirty,
    /// Something of it is what people ask for.
    asked: bool,
}

impl Default for Feed {
    /// Whoever looks first has to look at everything.
    fn default() -> Self {
        Self {
            news: Mutex::new(News {
                dirty: Dirty::Everything,
                asked: false,
            }),
            changed: Notify::new(),
        }
    }
}

impl Feed {
    /// Notes objects that changed, and wakes the loop if there are any.
    pub(crate) fn mark(&self, keys: impl IntoIterator<Item = ObjectKey>) {
        self.note(keys, false);
    }

    /// The same. `asked`: by them people ask for something else than before, which no long step keeps waiting.
    pub(crate) fn note(&self, keys: impl IntoIterator<Item = ObjectKey>, asked: bool) {
        let mut keys = keys.into_iter().peekable();
        if keys.peek().is_none() {
            return;
        }
        let mut news = self.lock();
        news.asked |= asked;
        if let Dirty::Keys(known) = &mut news.dirty {
            known.extend(keys);
            if known.len() > KEYS_MAX {
                news.dirty = Dirty::Everything;
            }
        }
        drop(news);
        self.changed.notify_one();
    }

    /// A new leader knows nothing.
    pub(crate) fn mark_everything(&self) {
        self.lock().dirty = Dirty::Everything;
        self.changed.notify_one();
    }

    /// Whether people asked for something since the feed was last taken.
    pub(crate) fn is_asked(&self) -> bool {
        self.lock().asked
    }

    /// Takes what changed since this was last asked.
    pub(crate) fn take(&self) -> Dirty {
        let mut news = self.lock();
        news.asked = false;
        std::mem::replace(&mut news.dirty, Dirty::Keys(BTreeSet::new()))
    }

    fn lock(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns once something changed since the last call. One waiter; changes coalesce.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::{Dirty, Feed, KEYS_MAX};
    use crate::metrics::Kind;
    use crate::objects::ObjectKey;

    fn key(nth: usize) -> ObjectKey {
        ObjectKey {
            kind: Kind::Model,
            namespace: Some("a".to_owned()),
            name: nth.to_string(),
        }
    }

    #[test]
    fn what_changed_often_is_named_once_and_wakes_once() {
        let feed = Feed::default();
        assert_eq!(feed.take(), Dirty::Everything, "at first");
        feed.mark([]);
        assert_eq!(feed.changed().now_or_never(), None, "nothing changed");
        for nth in [1, 2, 1, 1] {
            feed.mark([key(nth)]);
        }
        assert_eq!(feed.changed().now_or_never(), Some(()));
        assert_eq!(feed.changed().now_or_never(), None);
        assert_eq!(feed.take(), Dirty::Keys([key(1), key(2)].into()));
        assert_eq!(feed.take(), Dirty::Keys([].into()));
    }

    #[test]
    fn what_people_ask_for_is_known_until_it_is_taken() {
        let feed = Feed::default();
        feed.take();
        feed.mark([key(1)]);
        assert!(!feed.is_asked());
        feed.note([key(2)], true);
        feed.mark([key(3)]);
        assert!(feed.is_asked());
        assert_eq!(feed.take(), Dirty::Keys([key(1), key(2), key(3)].into()));
        assert!(!feed.is_asked());
    }

    #[test]
    fn too_many_names_are_everything() {
        let feed = Feed::default();
        feed.take();
        feed.mark((0..KEYS_MAX).map(key));
        assert!(matches!(feed.take(), Dirty::Keys(keys) if keys.len() == KEYS_MAX));
        feed.mark((0..=KEYS_MAX).map(key));
        feed.mark([key(0)]);
        assert_eq!(feed.take(), Dirty::Everything);
    }
}
