//! When each site's own watch saw its order.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rimward_e2e::simulated::{SeenOrder, Sites};

use super::rig::WITHIN;

/// Between two looks; what was seen when is noted by the sessions themselves.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What is collected of one deployment.
pub(super) struct Orders<'a> {
    sites: &'a Sites,
    deployment: &'a str,
    /// The revision that is no news.
    before: &'a str,
    seen: BTreeMap<usize, Instant>,
}

impl<'a> Orders<'a> {
    /// Begins to collect.
    pub(super) fn of(sites: &'a Sites, deployment: &'a str, before: &'a str) -> Self {
        drop(sites.take_seen());
        Self {
            sites,
            deployment,
            before,
            seen: BTreeMap::new(),
        }
    }

    /// Waits until so many sites saw another revision; when each did.
    pub(super) async fn until(mut self, count: usize) -> Result<Vec<Instant>> {
        let ends = Instant::now() + WITHIN;
        while self.seen.len() < count {
            if Instant::now() > ends {
                bail!("{} of {count} sites saw their order", self.seen.len());
            }
            tokio::time::sleep(LOOK_EVERY).await;
            for order in self.sites.take_seen() {
                if self.is_news(&order) {
                    self.seen.entry(order.site).or_insert(order.at);
                }
            }
        }
        Ok(self.seen.into_values().collect())
    }

    fn is_news(&self, order: &SeenOrder) -> bool {
        let mut entries = order.entries.iter();
        entries.any(|(_, name, revision)| name == self.deployment && revision != self.before)
    }
}
