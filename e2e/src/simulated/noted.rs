//! When which order came to a site: noted while somebody asks, so that nothing grows for ever.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rimward_core::ids::{ModelKey, RevisionName};
use rimward_crds::{AssignedModel, ClusterAssignment};

/// What came to a site.
#[derive(Clone, Debug)]
pub struct SeenOrder {
    /// The site's place.
    pub site: usize,
    /// Where it came to.
    pub came: Came,
    /// Namespace, name and revision of each entry.
    pub entries: Vec<(String, String, String)>,
    /// When.
    pub at: Instant,
}

/// Where an order came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The session's watch has shown it.
    ToSession,
    /// It is in the spec of a node: the go-ahead.
    ToNode,
}

/// What is noted; none while nobody asks.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Option<Vec<SeenOrder>>>);

/// Each order is noted as it comes, until this is dropped.
#[derive(Debug)]
pub struct Noted<'a>(&'a Notes);

impl Noted<'_> {
    /// What was noted since it was last asked for.
    #[must_use]
    pub fn take(&self) -> Vec<SeenOrder> {
        self.0.lock().replace(Vec::new()).unwrap_or_default()
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        *self.0.lock() = None;
    }
}

impl Notes {
    pub(super) fn begin(&self) -> Noted<'_> {
        *self.lock() = Some(Vec::new());
        Noted(self)
    }

    pub(super) fn saw(&self, site: usize, assignment: &ClusterAssignment) {
        let entry = |model: &AssignedModel| {
            let (namespace, name) = (model.namespace.clone(), model.name.clone());
            (namespace, name, model.revision.clone())
        };
        let models = assignment.spec.models.iter();
        self.note(site, Came::ToSession, || models.map(entry).collect());
    }

    pub(super) fn gave(&self, site: usize, given: &[(ModelKey, RevisionName)]) {
        if given.is_empty() {
            return;
        }
        let entry = |(key, revision): &(ModelKey, RevisionName)| {
            let (namespace, name) = (key.namespace.to_string(), key.name.to_string());
            (namespace, name, revision.to_string())
        };
        self.note(site, Came::ToNode, || given.iter().map(entry).collect());
    }

    fn note(
        &self,
        site: usize,
        came: Came,
        entries: impl FnOnce() -> Vec<(String, String, String)>,
    ) {
        let at = Instant::now();
        if let Some(seen) = self.lock().as_mut() {
            let entries = entries();
            seen.push(SeenOrder {
                site,
                came,
                entries,
                at,
            });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Vec<SeenOrder>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
