//! When each site's own watch saw its order, and when its node got it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rimward_e2e::simulated::{Came, Noted, SeenOrder, Sites};

use super::rig::WITHIN;

/// Between two looks; what was seen when is noted by the sessions themselves.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// What is collected of one deployment.
pub(super) struct Orders<'a> {
    noted: Noted<'a>,
    deployment: &'a str,
    /// The revision that is no news.
    before: &'a str,
    seen: BTreeMap<usize, Instant>,
    given: BTreeMap<usize, Instant>,
}

/// How one site's order went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    /// Its session's watch had shown it.
    pub(super) seen: Instant,
    /// Its node had it in its spec.
    pub(super) given: Instant,
}

impl<'a> Orders<'a> {
    /// Begins to collect.
    pub(super) fn of(sites: &'a Sites, deployment: &'a str, before: &'a str) -> Self {
        Self {
            noted: sites.note_orders(),
            deployment,
            before,
            seen: BTreeMap::new(),
            given: BTreeMap::new(),
        }
    }

    /// Waits until so many sites saw another revision; when each did.
    pub(super) async fn until(mut self, count: usize) -> Result<Vec<Instant>> {
        self.look_until(|it| it.seen.len(), count).await?;
        Ok(self.seen.into_values().collect())
    }

    /// Waits until nodes of so many sites got another revision.
    pub(super) async fn through(mut self, count: usize) -> Result<Vec<Way>> {
        self.look_until(|it| it.given.len().min(it.seen.len()), count)
            .await?;
        let ways = self.seen.iter().filter_map(|(site, seen)| {
            let given = self.given.get(site)?;
            Some(Way {
                seen: *seen,
                given: *given,
            })
        });
        Ok(ways.collect())
    }

    async fn look_until(&mut self, come: impl Fn(&Self) -> usize, count: usize) -> Result<()> {
        let ends = Instant::now() + WITHIN;
        while come(self) < count {
            if Instant::now() > ends {
                bail!("{} of {count} sites got their order", come(self));
            }
            tokio::time::sleep(LOOK_EVERY).await;
            for order in self.noted.take() {
                if self.is_news(&order) {
                    let came = match order.came {
                        Came::ToSession => &mut self.seen,
                        Came::ToNode => &mut self.given,
                    };
                    came.entry(order.site).or_insert(order.at);
                }
            }
        }
        Ok(())
    }

    fn is_news(&self, order: &SeenOrder) -> bool {
        let mut entries = order.entries.iter();
        entries.any(|(_, name, revision)| name == self.deployment && revision != self.before)
    }
}
