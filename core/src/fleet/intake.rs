//! What the planner is told, and which deployments each of it touches.
//!
//! Owns the planner's belief: what was ordered counts as given until what stands on the hub is seen.

use std::collections::BTreeMap;

use super::entry::entry_bytes;
use super::ledger::{ENTRY_BYTES_UNKNOWN, Ledger, side_by_side};
use super::planner::Fleet;
use super::rollout::{Kept, Rollout};
use super::target::News;
use super::types::{Cluster, Deployment, Entry, ModelReport};
use crate::ids::{ClusterName, DeploymentKey, EndpointName};

impl Fleet {
    /// Takes in a deployment as it stands: its spec, and what its status persists.
    pub fn set_deployment(&mut self, key: &DeploymentKey, deployment: Deployment) {
        let grace = deployment.policy.offline.grace_seconds;
        self.watch_grace(grace);
        if let Some(rollout) = self.rollouts.get_mut(key) {
            let before = &rollout.deployment;
            if *before == deployment {
                return;
            }
            let bytes = |it: &Deployment| -> Vec<u32> {
                it.revisions
                    .values()
                    .map(|known| known.entry_bytes)
                    .collect()
            };
            let resized = bytes(before) != bytes(&deployment);
            let same_members = before.placement == deployment.placement;
            let renamed = before.endpoint_name != deployment.endpoint_name;
            let rival = renamed
                || before.created != deployment.created
                || before.deleting != deployment.deleting;
            let old_name = before.endpoint_name.clone();
            rollout.redivide |= !same_members
                || before.policy != deployment.policy
                || before.effective_update() != deployment.effective_update();
            rollout.deployment = deployment;
            rollout.rejudge = true;
            if renamed {
                self.unname(key, &old_name);
            }
            if rival {
                self.touch_rivals(key);
            }
            if !same_members {
                self.match_all(key);
            }
            if resized {
                self.resize(key);
            }
        } else {
            let mut rollout = Rollout::new(key.clone(), deployment);
            if let Some(strays) = self.strays.remove(key) {
                rollout.targets = strays.targets;
            }
            self.rollouts.insert(key.clone(), rollout);
            self.match_all(key);
            self.touch_rivals(key);
            self.resize(key);
        }
        if let Some(rollout) = self.rollouts.get(key) {
            let name = rollout.deployment.endpoint_name.clone();
            self.names.entry(name).or_default().insert(key.clone());
        }
        self.find_doubting_grace();
        self.touch_all(key);
    }

    /// What its entries take of their assignments is known now, or another.
    pub(super) fn resize(&mut self, key: &DeploymentKey) {
        let Some(rollout) = self.rollouts.get(key) else {
            return;
        };
        let mut freed = Vec::new();
        let walk = side_by_side(rollout.targets.iter(), self.ledgers.iter_mut());
        for (name, kept, ledger) in walk {
            let (Some(order), Some(ledger)) = (&kept.target.order, ledger) else {
                continue;
            };
            let bytes = entry_bytes(&rollout.deployment, &order.entry.revision);
            let free = ledger.resize(key, bytes) && !ledger.refused.is_empty();
            if free || ledger.is_tight() {
                freed.push(name.clone());
            }
        }
        for name in freed {
            for other in self.targets_of(&name) {
                self.touch(&other, &name);
            }
        }
    }

    /// Whoever else wants the deployment's name looks again.
    pub(super) fn touch_rivals(&mut self, key: &DeploymentKey) {
        let name = self
            .rollouts
            .get(key)
            .map(|it| &it.deployment.endpoint_name);
        let wanting = name
            .and_then(|name| self.names.get(name))
            .into_iter()
            .flatten();
        let others: Vec<_> = wanting.filter(|other| *other != key).cloned().collect();
        for other in others {
            self.touch_all(&other);
        }
    }

    pub(super) fn unname(&mut self, key: &DeploymentKey, name: &EndpointName) {
        if let Some(wanting) = self.names.get_mut(name) {
            wanting.remove(key);
            let others: Vec<_> = wanting.iter().cloned().collect();
            if wanting.is_empty() {
                self.names.remove(name);
            }
            for other in others {
                self.touch_all(&other);
            }
        }
    }

    /// Notes for every cluster whether the placement takes it.
    pub(super) fn match_all(&mut self, key: &DeploymentKey) {
        let Some(rollout) = self.rollouts.get_mut(key) else {
            return;
        };
        let selector = &rollout.deployment.placement.clusters;
        let mut fresh = Vec::new();
        for (name, ledger, kept) in side_by_side(self.ledgers.iter(), rollout.targets.iter_mut()) {
            let matches = selector.matches(&ledger.labels);
            match kept {
                Some(kept) => kept.target.matches = matches,
                None if matches => {
                    fresh.push((name.clone(), Kept::matching()));
                }
                None => {}
            }
        }
        rollout.targets.extend(fresh);
        rollout.redivide = true;
    }

    /// Takes in that a deployment is gone, or (`unreadable`) exists and cannot be read.
    pub fn remove_deployment(&mut self, key: &DeploymentKey, unreadable: bool) {
        if let Some(rollout) = self.rollouts.remove(key) {
            self.find_doubting_grace();
            let name = rollout.deployment.endpoint_name.clone();
            self.unname(key, &name);
            let mut targets = rollout.targets;
            for (_, kept) in &mut targets {
                kept.target.matches = false;
                kept.target.place = None;
            }
            let strays = self.strays.entry(key.clone()).or_default();
            strays.targets = targets;
        }
        if unreadable || self.strays.contains_key(key) {
            self.strays.entry(key.clone()).or_default().unreadable = unreadable;
        }
        self.touch_all(key);
    }

    /// Takes in a cluster as it stands, with its assignment.
    ///
    /// Must be told states in the order in which the server made them, the hub's own writes laid over a cache
    /// that lags.
    pub fn set_cluster(&mut self, name: &ClusterName, cluster: Cluster) {
        let Cluster {
            labels,
            connection,
            paused,
            held,
            generation,
            entries,
            report,
        } = cluster;
        let known = self.ledgers.contains_key(name);
        let ledger = self
            .ledgers
            .entry(name.clone())
            .or_insert_with(|| Ledger::new(labels.clone(), connection));
        let relabelled = !known || ledger.labels != labels;
        let turned = ledger.paused != paused || ledger.held != held;
        ledger.labels = labels;
        ledger.paused = paused;
        ledger.held = held;
        ledger.generation = generation;
        let reported = report.as_ref().map(|report| report.observed_generation);
        let before = std::mem::replace(&mut ledger.reported, reported);
        if !known {
            self.listen(name, connection);
        } else {
            self.hear(name, connection);
        }
        let models = report.map(|report| report.models).unwrap_or_default();
        let mut gone: Vec<DeploymentKey> = Vec::new();
        if let Some(ledger) = self.ledgers.get(name).filter(|_| known) {
            let there =
                |key: &&DeploymentKey| !entries.contains_key(*key) && !models.contains_key(*key);
            gone.extend(ledger.claims.keys().filter(there).cloned());
            let untold = ledger.untold.iter().filter(there);
            gone.extend(
                untold
                    .filter(|key| !ledger.claims.contains_key(*key))
                    .cloned(),
            );
        }
        let matched = self.set_targets(name, merged(entries, models), before, relabelled);
        if relabelled {
            self.match_cluster(name, &matched);
        }
        let gone = gone.into_iter().map(|key| (key, None, None));
        self.set_targets(name, gone, before, false);
        if turned {
            let keys: Vec<_> = self.targets_of(name);
            for key in keys {
                self.touch(&key, name);
            }
        }
    }

    pub(super) fn targets_of(&self, name: &ClusterName) -> Vec<DeploymentKey> {
        self.rollouts
            .iter()
            .filter(|(_, rollout)| rollout.targets.contains_key(name))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Notes for every deployment but those that `matched` (sorted) has whether its placement takes the cluster.
    fn match_cluster(&mut self, name: &ClusterName, matched: &[DeploymentKey]) {
        let Some(ledger) = self.ledgers.get(name) else {
            return;
        };
        let mut touched = Vec::new();
        let others = |key: &DeploymentKey| matched.binary_search(key).is_err();
        for (key, rollout) in self.rollouts.iter_mut().filter(|(key, _)| others(key)) {
            let matches = rollout.takes(ledger);
            let kept = rollout.targets.get_mut(name);
            match kept {
                Some(kept) => kept.target.matches = matches,
                None if matches => {
                    rollout.targets.insert(name.clone(), Kept::matching());
                }
                None => continue,
            }
            rollout.redivide = true;
            touched.push(key.clone());
        }
        for key in touched {
            self.touch_all(&key);
        }
    }

    /// Takes in a cluster's entries and what is said of them. `relabelled`: placements look at it anew, and
    /// those that did are given, in their order.
    fn set_targets(
        &mut self,
        name: &ClusterName,
        told: impl Iterator<Item = Told>,
        reported_before: Option<u64>,
        relabelled: bool,
    ) -> Vec<DeploymentKey> {
        let mut matched = Vec::new();
        let Some(ledger) = self.ledgers.get_mut(name) else {
            return matched;
        };
        let mut news = Vec::new();
        for (key, mut entry, mut report) in told {
            // The key as it is kept already: of one name in ten thousand assignments, one stands in memory.
            let (key, targets, shared, bytes, matches) = match self.rollouts.get_mut(&key) {
                Some(it) => {
                    let entry = entry.as_ref();
                    let bytes = entry.map(|entry| entry_bytes(&it.deployment, &entry.revision));
                    let matches = relabelled.then(|| it.takes(ledger));
                    it.redivide |= relabelled;
                    (
                        it.key.clone(),
                        &mut it.targets,
                        &mut it.shared,
                        bytes,
                        matches,
                    )
                }
                None => {
                    let strays = self.strays.entry(key);
                    let (key, it) = (strays.key().clone(), strays.or_default());
                    let bytes = entry.as_ref().map(|_| ENTRY_BYTES_UNKNOWN);
                    (key, &mut it.targets, &mut it.shared, bytes, None)
                }
            };
            shared.share(entry.as_mut(), report.as_mut());
            // At a start clusters come by name, and each is the last: then nothing is searched.
            let is_last = targets.last().is_none_or(|(last, _)| last < name);
            let mut fresh = is_last.then(Box::<Kept>::default);
            let kept = match &mut fresh {
                Some(fresh) => fresh,
                None => targets.entry(name.clone()).or_default(),
            };
            let target = &mut kept.target;
            let new = target.take_in(&key, entry, report, ledger, reported_before, bytes);
            target.matches = matches.unwrap_or(target.matches);
            if let Some(fresh) = fresh {
                targets.extend([(name.clone(), fresh)]);
            }
            if matches.is_some() {
                matched.push(key.clone());
            }
            news.extend(new.map(|news| (key, news)));
        }
        let tight = ledger.is_tight();
        for key in &matched {
            self.touch_all(key);
        }
        for (key, News { names, reordered }) in news {
            for endpoint in names.into_iter().flatten() {
                self.contend(&key, &endpoint, name);
            }
            if reordered && tight {
                for other in self.targets_of(name) {
                    self.touch(&other, name);
                }
            }
            self.touch(&key, name);
        }
        matched
    }

    /// Takes in that an EdgeCluster is gone.
    pub fn remove_cluster(&mut self, name: &ClusterName) {
        self.ears.forget(name);
        self.heard.remove(name);
        self.unheard.remove(name);
        self.dirty.remove(name);
        if self.ledgers.remove(name).is_none() {
            return;
        }
        let mut touched = Vec::new();
        for (key, rollout) in &mut self.rollouts {
            if rollout.targets.contains_key(name) {
                rollout.drop(name);
                rollout.redivide = true;
                touched.push(key.clone());
            }
        }
        for key in touched {
            self.touch_all(&key);
        }
        for strays in self.strays.values_mut() {
            strays.targets.remove(name);
        }
    }
}

/// What stands of a deployment in a cluster's assignment, and what is said of it there.
type Told = (DeploymentKey, Option<Entry>, Option<ModelReport>);

/// What stands and what is said of each deployment, in the order of keys.
fn merged(
    entries: BTreeMap<DeploymentKey, Entry>,
    models: BTreeMap<DeploymentKey, ModelReport>,
) -> impl Iterator<Item = Told> {
    let mut entries = entries.into_iter().peekable();
    let mut models = models.into_iter().peekable();
    std::iter::from_fn(move || {
        let only_said = match (entries.peek(), models.peek()) {
            (Some((stands, _)), Some((said, _))) => said < stands,
            (stands, _) => stands.is_none(),
        };
        if only_said {
            return models.next().map(|(key, report)| (key, None, Some(report)));
        }
        let (key, entry) = entries.next()?;
        let report = models.next_if(|(said, _)| *said == key);
        Some((key, Some(entry), report.map(|(_, report)| report)))
    })
}
