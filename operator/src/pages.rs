//! How every watch asks: for how long, and for how many objects in one page of its list.
//!
//! Owns the two bounds. Must never watch by itself.

use std::error::Error;

use kube::runtime::watcher;

use crate::answers::{self, PAGE_OBJECTS_MAX};

/// How long an API server keeps a watch open. One of which nothing is heard for longer, by what kube adds, is taken for
/// dead: kube drops it and goes on from the version that it saw last, without a list. So for this long at most a
/// connection that lost its other end may hide what changes.
pub(crate) const WATCH_SECONDS: u32 = 60;

/// How one watch asks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pages {
    objects: u32,
}

impl Default for Pages {
    fn default() -> Self {
        Self {
            objects: PAGE_OBJECTS_MAX,
        }
    }
}

impl Pages {
    /// What to begin a watch with.
    pub(crate) fn config(self, config: watcher::Config) -> watcher::Config {
        config.page_size(self.objects).timeout(WATCH_SECONDS)
    }

    /// Takes an error of the watch. Says whether it is to be begun anew with shorter pages: an API server whose etcd
    /// takes longer objects than usual would otherwise never get through its list.
    pub(crate) fn halved(&mut self, error: &(dyn Error + 'static)) -> bool {
        let halve = self.objects > 1 && answers::is_over_limit(error);
        if halve {
            self.objects /= 2;
        }
        halve
    }
}
