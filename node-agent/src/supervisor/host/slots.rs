//! What one host has loaded and routes, and the messages that bring it to what is wanted.
//!
//! Owns the difference between is and wanted. Must never wait: answers come back as news.

use std::collections::{BTreeMap, BTreeSet};

use rimward_core::node::{Serving, Version};

use crate::parse::Key;
use crate::proto::{SlotId, SlotStats, ToHost, WhatRuns};
use crate::supervisor::native::ModuleId;

/// What a deployment wants of every host.
#[derive(Debug, Clone)]
pub(crate) struct Want {
    /// Which deployment.
    pub key: Key,
    /// What should be loaded and who answers.
    pub serving: Serving,
}

/// How far a slot is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Stage {
    /// Its files are being verified.
    Preparing,
    /// The host was told to load it.
    Loading,
    /// It can answer.
    Loaded(WhatRuns),
    /// The host was told to drop it, and will say when it did and what it had counted.
    Unloading,
}

/// One version in one host.
#[derive(Debug, Clone)]
pub(crate) struct Slot {
    /// Which deployment.
    pub key: Key,
    /// Which version.
    pub version: Version,
    /// How far it is.
    pub stage: Stage,
    /// The endpoint's name, once known.
    pub endpoint: Option<String>,
    /// The variant, once known.
    pub variant: Option<String>,
    /// The module, once known.
    pub module: Option<ModuleId>,
    /// Counters at the last look.
    pub seen: SlotStats,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Route {
    current: Option<SlotId>,
    candidate: Option<SlotId>,
}

/// A slot whose files must be verified and handed over.
#[derive(Debug, Clone)]
pub(crate) struct Prepare {
    /// The slot.
    pub slot: SlotId,
    /// Which deployment.
    pub key: Key,
    /// Which version.
    pub version: Version,
}

/// The slots and routes of one host.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: BTreeMap<SlotId, Slot>,
    /// Routes as last sent; the answer may still be on its way.
    routes: BTreeMap<String, Route>,
    /// Route messages that were not answered yet.
    unanswered: usize,
    last_id: u64,
}

impl Slots {
    /// A slot.
    #[must_use]
    pub(crate) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.slots.get(&id)
    }

    /// A slot, to be changed.
    pub(crate) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.slots.get_mut(&id)
    }

    /// A slot that the host is loading, to be changed: not one that is not wanted any more.
    pub(crate) fn loading(&mut self, id: SlotId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(&id)?;
        (slot.stage == Stage::Loading).then_some(slot)
    }

    /// The slot of a version, if there is one that stays.
    #[must_use]
    pub(crate) fn find(&self, key: &Key, version: &Version) -> Option<(SlotId, &Slot)> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.stage != Stage::Unloading)
            .find(|(_, slot)| &slot.key == key && &slot.version == version)
            .map(|(id, slot)| (*id, slot))
    }

    /// Forgets a slot that the host does not have (any more).
    pub(crate) fn remove(&mut self, id: SlotId) -> Option<Slot> {
        self.slots.remove(&id)
    }

    /// A route message was answered.
    pub(crate) fn routed(&mut self) {
        self.unanswered = self.unanswered.saturating_sub(1);
    }

    /// Compares with what is wanted; gives the slots to prepare and the messages to send.
    pub(crate) fn reconcile(&mut self, wants: &[Want]) -> (Vec<Prepare>, Vec<ToHost>) {
        let mut prepares = Vec::new();
        let mut wanted = BTreeSet::new();
        for Want { key, serving } in wants {
            let Serving {
                active,
                fallback,
                starting,
            } = serving;
            for version in [active, fallback, starting].into_iter().flatten() {
                let id = match self.find(key, version) {
                    Some((id, _)) => id,
                    None => {
                        let prepare = self.add(key, version);
                        prepares.push(prepare.clone());
                        prepare.slot
                    }
                };
                wanted.insert(id);
            }
        }
        let mut messages = self.reroute(wants);
        let routed: BTreeSet<SlotId> = self
            .routes
            .values()
            .flat_map(|route| [route.current, route.candidate])
            .flatten()
            .collect();
        // Only once every route is confirmed is it certain that a slot has no traffic.
        if self.unanswered == 0 {
            self.slots.retain(|id, slot| {
                if wanted.contains(id) || routed.contains(id) {
                    return true;
                }
                match slot.stage {
                    // The host does not know it yet; what is being prepared is dropped on arrival.
                    Stage::Preparing => return false,
                    Stage::Loading | Stage::Loaded(_) => {
                        messages.push(ToHost::Unload { slot: *id });
                        slot.stage = Stage::Unloading;
                    }
                    Stage::Unloading => {}
                }
                true
            });
        }
        (prepares, messages)
    }

    fn add(&mut self, key: &Key, version: &Version) -> Prepare {
        self.last_id += 1;
        let slot = SlotId(self.last_id);
        self.slots.insert(
            slot,
            Slot {
                key: key.clone(),
                version: version.clone(),
                stage: Stage::Preparing,
                endpoint: None,
                variant: None,
                module: None,
                seen: SlotStats::default(),
            },
        );
        Prepare {
            slot,
            key: key.clone(),
            version: version.clone(),
        }
    }

    /// A loaded slot of a version and its endpoint.
    fn loaded(&self, key: &Key, version: Option<&Version>) -> Option<(SlotId, String)> {
        let (id, slot) = self.find(key, version?)?;
        match slot.stage {
            Stage::Loaded(_) => Some((id, slot.endpoint.clone()?)),
            Stage::Preparing | Stage::Loading | Stage::Unloading => None,
        }
    }

    fn reroute(&mut self, wants: &[Want]) -> Vec<ToHost> {
        let mut routes: BTreeMap<String, Route> = BTreeMap::new();
        for Want { key, serving } in wants {
            let active = self.loaded(key, serving.active.as_ref());
            let fallback = self.loaded(key, serving.fallback.as_ref());
            // With a fallback the active version is in trial.
            let on_trial = serving.fallback.is_some();
            if let Some((slot, endpoint)) = fallback {
                routes
                    .entry(endpoint)
                    .or_default()
                    .current
                    .get_or_insert(slot);
            }
            if let Some((slot, endpoint)) = active {
                let route = routes.entry(endpoint).or_default();
                if on_trial {
                    route.candidate.get_or_insert(slot);
                } else {
                    route.current.get_or_insert(slot);
                }
            }
        }
        let mut messages = Vec::new();
        let endpoints: BTreeSet<String> =
            routes.keys().chain(self.routes.keys()).cloned().collect();
        for endpoint in endpoints {
            let route = routes.get(&endpoint).copied().unwrap_or_default();
            let sent = self.routes.get(&endpoint).copied().unwrap_or_default();
            if route == sent {
                continue;
            }
            if route == Route::default() {
                self.routes.remove(&endpoint);
            } else {
                self.routes.insert(endpoint.clone(), route);
            }
            self.unanswered += 1;
            messages.push(ToHost::Route {
                endpoint,
                current: route.current,
                candidate: route.candidate,
            });
        }
        messages
    }

    /// Whether everything that should answer requests does.
    #[must_use]
    pub(crate) fn is_complete(&self, wants: &[Want]) -> bool {
        let answers = |want: &Want| {
            let active = want.serving.active.as_ref();
            active.is_none() || self.loaded(&want.key, active).is_some()
        };
        self.unanswered == 0 && wants.iter().all(answers)
    }

    /// Every slot that stays.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot> {
        let slots = self.slots.values();
        slots.filter(|slot| slot.stage != Stage::Unloading)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimward_core::ids::Digest;

    fn version(name: &str) -> Version {
        Version {
            revision: name.parse().unwrap(),
            package: Digest::from_sha256([1; 32]),
            install: Digest::from_sha256([2; 32]),
        }
    }

    fn want(active: Option<&str>, fallback: Option<&str>, starting: Option<&str>) -> Vec<Want> {
        vec![Want {
            key: "shop/digits".parse().unwrap(),
            serving: Serving {
                active: active.map(version),
                fallback: fallback.map(version),
                starting: starting.map(version),
            },
        }]
    }

    fn load(slots: &mut Slots, id: SlotId) {
        let slot = slots.get_mut(id).unwrap();
        slot.endpoint = Some("digits".into());
        slot.stage = Stage::Loaded(WhatRuns {
            backend: "rten".into(),
            device: "cpu".into(),
            precision: "fp32".into(),
            memory_bytes: 1,
        });
    }

    fn route(message: &ToHost) -> (Option<u64>, Option<u64>) {
        match message {
            ToHost::Route {
                current, candidate, ..
            } => (current.map(|it| it.0), candidate.map(|it| it.0)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_rollout_swaps_routes_without_ever_leaving_the_endpoint_empty() {
        let mut slots = Slots::default();
        let (prepares, messages) = slots.reconcile(&want(Some("v1"), None, None));
        assert_eq!((prepares.len(), messages.len()), (1, 0));
        load(&mut slots, SlotId(1));
        let (_, messages) = slots.reconcile(&want(Some("v1"), None, None));
        assert_eq!(route(&messages[0]), (Some(1), None));
        assert!(!slots.is_complete(&want(Some("v1"), None, None)));
        slots.routed();
        assert!(slots.is_complete(&want(Some("v1"), None, None)));

        let (prepares, messages) = slots.reconcile(&want(Some("v1"), None, Some("v2")));
        assert_eq!((prepares.len(), messages.len()), (1, 0));
        load(&mut slots, SlotId(2));
        let (_, messages) = slots.reconcile(&want(Some("v2"), Some("v1"), None));
        assert_eq!(route(&messages[0]), (Some(1), Some(2)));
        slots.routed();

        let (_, messages) = slots.reconcile(&want(Some("v2"), None, None));
        assert_eq!(messages.len(), 1, "no unload before the route is confirmed");
        assert_eq!(route(&messages[0]), (Some(2), None));
        slots.routed();
        let (_, messages) = slots.reconcile(&want(Some("v2"), None, None));
        assert!(matches!(messages[..], [ToHost::Unload { slot: SlotId(1) }]));
        let (prepares, messages) = slots.reconcile(&want(Some("v2"), None, None));
        assert!(prepares.is_empty() && messages.is_empty());
    }

    #[test]
    fn a_version_wanted_again_while_it_is_unloaded_is_loaded_anew() {
        let mut slots = Slots::default();
        slots.reconcile(&want(Some("v1"), None, None));
        load(&mut slots, SlotId(1));
        slots.reconcile(&want(Some("v1"), None, None));
        slots.routed();
        slots.reconcile(&[]);
        slots.routed();
        let (_, messages) = slots.reconcile(&[]);
        assert!(matches!(messages[..], [ToHost::Unload { slot: SlotId(1) }]));

        let (prepares, _) = slots.reconcile(&want(Some("v1"), None, None));
        assert_eq!(prepares[0].slot, SlotId(2));
        // Its last counters are still to come; what it says of being loaded is too late.
        assert!(slots.get_mut(SlotId(1)).is_some());
        assert!(slots.loading(SlotId(1)).is_none());
        assert_eq!(slots.iter().count(), 1);
    }

    #[test]
    fn a_removed_deployment_loses_its_route_first_and_its_slot_after() {
        let mut slots = Slots::default();
        slots.reconcile(&want(Some("v1"), None, None));
        load(&mut slots, SlotId(1));
        slots.reconcile(&want(Some("v1"), None, None));
        slots.routed();
        let (_, messages) = slots.reconcile(&[]);
        assert_eq!(messages.len(), 1);
        assert_eq!(route(&messages[0]), (None, None));
        slots.routed();
        let (_, messages) = slots.reconcile(&[]);
        assert!(matches!(messages[..], [ToHost::Unload { slot: SlotId(1) }]));
    }

    #[test]
    fn a_slot_that_is_no_longer_wanted_while_it_is_prepared_is_forgotten() {
        let mut slots = Slots::default();
        slots.reconcile(&want(Some("v1"), None, None));
        let (_, messages) = slots.reconcile(&[]);
        assert!(messages.is_empty());
        assert!(slots.get_mut(SlotId(1)).is_none());
    }
}
