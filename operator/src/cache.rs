//! Objects of one kind as a watch shows them, with our own writes laid over until the watch shows those too.
//!
//! Owns what is newest: a plan made from a cache that lags behind our own writes would spend one budget twice. An
//! object that does not parse is kept as invalid and stops no other. Must never fetch or write.
//!
//! An object that we wrote and that was deleted before the watch showed the write is never shown again: whoever
//! wrote has to ask for [`Cache::unshown`] ones after a while, and to tell [`Cache::asked`] what was answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::Event;
use tokio::sync::watch;

use crate::metrics::Kind;
use crate::objects::{self, ObjectKey};

/// An object, parsed or not.
pub(crate) type Guarded<K> = Arc<DeserializeGuard<K>>;

/// One kind's objects.
#[derive(Debug)]
pub(crate) struct Cache<K> {
    kind: Kind,
    inner: Mutex<Inner<K>>,
}

#[derive(Debug)]
struct Inner<K> {
    objects: BTreeMap<ObjectKey, Guarded<K>>,
    /// The list that is under way, when the watch begins anew.
    listed: Option<BTreeMap<ObjectKey, Guarded<K>>>,
    /// Versions of our own writes that the watch did not show yet.
    unshown: BTreeMap<ObjectKey, u128>,
    /// Who is told of one object.
    followers: BTreeMap<ObjectKey, watch::Sender<Option<Guarded<K>>>>,
}

impl<K: Resource> Cache<K> {
    /// Makes an empty cache of a kind.
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            inner: Mutex::new(Inner {
                objects: BTreeMap::new(),
                listed: None,
                unshown: BTreeMap::new(),
                followers: BTreeMap::new(),
            }),
        }
    }

    /// Takes an event of the watch; returns which objects are other than before.
    pub(crate) fn apply(&self, event: Event<DeserializeGuard<K>>) -> Vec<ObjectKey> {
        let mut inner = self.lock();
        let changed = match event {
            Event::Apply(object) => self.seen(&mut inner, object).into_iter().collect(),
            Event::Delete(object) => {
                let key = ObjectKey::of(self.kind, &object);
                if inner.is_outdated(&key, &object) {
                    return Vec::new();
                }
                inner.unshown.remove(&key);
                let gone = inner.objects.remove(&key);
                gone.map(|_| key).into_iter().collect()
            }
            Event::Init => {
                inner.listed = Some(BTreeMap::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let key = ObjectKey::of(self.kind, &object);
                // What did not change is not held twice while the list is under way.
                let same = inner.objects.get(&key).filter(|it| same(it, &object));
                let object = same.cloned().unwrap_or_else(|| stripped(object));
                if let Some(listed) = &mut inner.listed {
                    listed.insert(key, object);
                }
                Vec::new()
            }
            Event::InitDone => inner.relisted(),
        };
        inner.tell(&changed);
        changed
    }

    /// Whether by an event people ask for something else than before: its object's generation is another one.
    pub(crate) fn is_asked(&self, event: &Event<DeserializeGuard<K>>) -> bool {
        let Event::Apply(object) = event else {
            return false;
        };
        let inner = self.lock();
        let known = inner.objects.get(&ObjectKey::of(self.kind, object));
        self.kind.is_of_people()
            && known.is_none_or(|it| it.meta().generation != object.meta().generation)
    }

    /// Takes an object of the watch.
    fn seen(&self, inner: &mut Inner<K>, object: DeserializeGuard<K>) -> Option<ObjectKey> {
        let key = ObjectKey::of(self.kind, &object);
        if inner.is_outdated(&key, &object) {
            return None;
        }
        inner.unshown.remove(&key);
        if inner.objects.get(&key).is_some_and(|it| same(it, &object)) {
            return None;
        }
        inner.objects.insert(key.clone(), stripped(object));
        Some(key)
    }

    /// Lays what a write of ours was answered with over what is seen, unless something newer is seen already.
    pub(crate) fn wrote(&self, object: DeserializeGuard<K>) -> Option<ObjectKey> {
        let key = ObjectKey::of(self.kind, &object);
        let mut inner = self.lock();
        let version = objects::version(&object)?;
        let seen = inner
            .objects
            .get(&key)
            .and_then(|it| objects::version(&**it));
        if seen.is_some_and(|seen| seen >= version) {
            return None;
        }
        inner.unshown.insert(key.clone(), version);
        inner.objects.insert(key.clone(), stripped(object));
        inner.tell([&key]);
        Some(key)
    }

    /// Names of all objects.
    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        self.lock().objects.keys().cloned().collect()
    }

    /// Our own writes that the watch did not show yet, and the versions they left.
    pub(crate) fn unshown(&self) -> Vec<(ObjectKey, u128)> {
        let inner = self.lock();
        let unshown = inner.unshown.iter();
        unshown
            .map(|(key, version)| (key.clone(), *version))
            .collect()
    }

    /// Takes the answer of an API server that was asked for an object after the write that left `version` was
    /// answered: it is the truth, if the object is still not shown and was not written again. What is there goes on
    /// standing over a watch that lags.
    pub(crate) fn asked(
        &self,
        key: &ObjectKey,
        version: u128,
        answer: Option<DeserializeGuard<K>>,
    ) -> Option<ObjectKey> {
        let mut inner = self.lock();
        if inner.unshown.get(key) != Some(&version) {
            return None;
        }
        inner.unshown.remove(key);
        let now = answer.as_ref().and_then(objects::version);
        if let Some(now) = now.filter(|now| *now >= version) {
            inner.unshown.insert(key.clone(), now);
        }
        match answer {
            Some(object) if inner.objects.get(key).is_some_and(|it| same(it, &object)) => {
                return None;
            }
            Some(object) => {
                inner.objects.insert(key.clone(), stripped(object));
            }
            None => {
                inner.objects.remove(key)?;
            }
        }
        inner.tell([key]);
        Some(key.clone())
    }

    /// Follows one object: how it stands now, and each time that it is another; none while it is not there.
    pub(crate) fn follow(&self, key: &ObjectKey) -> watch::Receiver<Option<Guarded<K>>> {
        let mut inner = self.lock();
        inner.followers.retain(|_, says| says.receiver_count() > 0);
        let now = inner.objects.get(key).cloned();
        let says = inner.followers.entry(key.clone());
        says.or_insert_with(|| watch::channel(now).0).subscribe()
    }

    /// One object.
    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Guarded<K>> {
        self.lock().objects.get(key).cloned()
    }

    /// All objects, by name.
    pub(crate) fn all(&self) -> Vec<Guarded<K>> {
        self.lock().objects.values().cloned().collect()
    }

    /// The version in which an object stands here.
    pub(crate) fn version(&self, key: &ObjectKey) -> Option<u128> {
        objects::version(&**self.lock().objects.get(key)?)
    }

    fn lock(&self) -> MutexGuard<'_, Inner<K>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Resource> Inner<K> {
    /// Says whether an own write that was not shown yet is newer than `shown`. Versions of one kind grow, also from an
    /// object to the one that is made anew under its name.
    fn is_outdated(&self, key: &ObjectKey, shown: &DeserializeGuard<K>) -> bool {
        let mine = self.unshown.get(key);
        matches!((mine, objects::version(shown)), (Some(mine), Some(shown)) if shown < *mine)
    }

    fn tell<'a>(&self, changed: impl IntoIterator<Item = &'a ObjectKey>) {
        if self.followers.is_empty() {
            return;
        }
        for key in changed {
            if let Some(says) = self.followers.get(key) {
                says.send_replace(self.objects.get(key).cloned());
            }
        }
    }

    /// Puts a whole list in place, and keeps the writes that are newer than it.
    fn relisted(&mut self) -> Vec<ObjectKey> {
        let Some(mut listed) = self.listed.take() else {
            return Vec::new();
        };
        let unshown = std::mem::take(&mut self.unshown);
        for (key, version) in unshown {
            let shown = listed.get(&key).and_then(|it| objects::version(&**it));
            if shown.is_none_or(|shown| shown < version)
                && let Some(mine) = self.objects.get(&key)
            {
                listed.insert(key.clone(), mine.clone());
                self.unshown.insert(key, version);
            }
        }
        let before = std::mem::replace(&mut self.objects, listed);
        let after = &self.objects;
        let gone = before.keys().filter(|key| !after.contains_key(*key));
        let other = after.iter().filter(|(key, object)| {
            let unchanged = before.get(*key).is_some_and(|old| same(old, object));
            !unchanged
        });
        gone.chain(other.map(|(key, _)| key)).cloned().collect()
    }
}

fn same<K: Resource>(one: &DeserializeGuard<K>, other: &DeserializeGuard<K>) -> bool {
    let (one, other) = (one.meta(), other.meta());
    one.resource_version.is_some()
        && one.resource_version == other.resource_version
        && one.uid == other.uid
}

fn stripped<K: Resource>(mut object: DeserializeGuard<K>) -> Guarded<K> {
    objects::strip(object.meta_mut());
    Arc::new(object)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;
    use kube::core::DeserializeGuard;
    use kube::runtime::watcher::Event::{self, Apply, Delete, Init, InitApply, InitDone};

    use super::Cache;
    use crate::metrics::Kind;
    use crate::objects::ObjectKey;

    fn lease(name: &str, uid: &str, version: u128) -> DeserializeGuard<Lease> {
        let mut lease = Lease::default();
        lease.metadata.name = Some(name.to_owned());
        lease.metadata.uid = Some(uid.to_owned());
        lease.metadata.resource_version = Some(version.to_string());
        lease.metadata.managed_fields = Some(Vec::new());
        DeserializeGuard(Ok(lease))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            kind: Kind::Lease,
            namespace: None,
            name: name.to_owned(),
        }
    }

    fn names(keys: impl IntoIterator<Item = ObjectKey>) -> Vec<String> {
        keys.into_iter().map(|key| key.name).collect()
    }

    /// Takes events, then says which objects the last one changed, and how each stands.
    fn check(cache: &Cache<Lease>, events: Vec<Event<DeserializeGuard<Lease>>>) -> String {
        let mut changed = Vec::new();
        for event in events {
            changed = names(cache.apply(event));
        }
        let stands = cache.all();
        let stands = stands.iter().map(|it| {
            let meta = &it.0.as_ref().unwrap().metadata;
            assert_eq!(meta.managed_fields, None);
            let version = meta.resource_version.as_deref().unwrap();
            format!("{}={version}", meta.name.as_deref().unwrap())
        });
        let stands: Vec<_> = stands.collect();
        format!("{} changed; {}", changed.join(" "), stands.join(" "))
    }

    #[test]
    fn another_generation_of_what_people_write_is_asked_for_and_nothing_else_is() {
        let object = |generation, version| {
            let mut object = lease("a", "a", version);
            object.0.as_mut().unwrap().metadata.generation = Some(generation);
            Apply(object)
        };
        let cache = Cache::new(Kind::ModelDeployment);
        for (generation, version, asked) in [(1, 1, true), (1, 2, false), (2, 3, true)] {
            let event = object(generation, version);
            assert_eq!(cache.is_asked(&event), asked, "version {version}");
            cache.apply(event);
        }
        assert!(!cache.is_asked(&Delete(lease("a", "a", 4))));
        let own = Cache::new(Kind::ClusterAssignment);
        assert!(!own.is_asked(&object(1, 1)));
    }

    #[test]
    fn a_new_list_says_only_what_differs() {
        let cache = Cache::new(Kind::Lease);
        let list = |objects: &[(&str, u128)]| {
            let objects = objects
                .iter()
                .map(|(name, version)| InitApply(lease(name, name, *version)));
            [Init]
                .into_iter()
                .chain(objects)
                .chain([InitDone])
                .collect::<Vec<_>>()
        };
        assert_eq!(
            check(&cache, list(&[("a", 1), ("b", 2), ("c", 3)])),
            "a b c changed; a=1 b=2 c=3"
        );
        assert_eq!(
            check(&cache, list(&[("b", 2), ("c", 4), ("d", 5)])),
            "a c d changed; b=2 c=4 d=5"
        );
        assert_eq!(
            check(&cache, list(&[("b", 2), ("c", 4), ("d", 5)])),
            " changed; b=2 c=4 d=5"
        );
        let cut_short = vec![Init, InitApply(lease("b", "b", 2))];
        assert_eq!(
            check(&cache, cut_short),
            " changed; b=2 c=4 d=5",
            "half a list takes nothing away"
        );
    }

    #[test]
    fn an_own_write_stands_until_the_watch_shows_it_or_something_newer() {
        let cache = Cache::new(Kind::Lease);
        check(&cache, vec![Apply(lease("a", "1", 5))]);
        assert_eq!(cache.wrote(lease("a", "1", 9)), Some(key("a")));
        assert_eq!(
            check(&cache, vec![Apply(lease("a", "1", 7))]),
            " changed; a=9",
            "from before our write"
        );
        assert_eq!(cache.unshown(), [(key("a"), 9)]);
        assert_eq!(
            check(&cache, vec![Apply(lease("a", "1", 9))]),
            " changed; a=9",
            "it is ours"
        );
        assert_eq!(cache.unshown(), []);
        assert_eq!(
            check(&cache, vec![Apply(lease("a", "1", 12))]),
            "a changed; a=12"
        );
        assert_eq!(
            cache.wrote(lease("a", "1", 11)),
            None,
            "an answer that came late"
        );
        assert_eq!(check(&cache, vec![]), " changed; a=12");
    }

    #[test]
    fn a_follower_is_told_of_its_object_whoever_changed_it() {
        let cache = Cache::new(Kind::Lease);
        let mut told = cache.follow(&key("a"));
        let mut heard = || {
            let changed = told.has_changed().unwrap();
            let object = told.borrow_and_update().clone();
            (changed, object.and_then(|it| crate::objects::version(&*it)))
        };
        assert_eq!(heard(), (false, None));
        cache.apply(Apply(lease("a", "1", 5)));
        assert_eq!(heard(), (true, Some(5)));
        cache.apply(Apply(lease("b", "2", 6)));
        assert_eq!(heard(), (false, Some(5)), "of another");
        cache.wrote(lease("a", "1", 7));
        assert_eq!(heard(), (true, Some(7)));
        cache.asked(&key("a"), 7, None);
        assert_eq!(heard(), (true, None));
        for event in [Init, InitApply(lease("a", "3", 9)), InitDone] {
            cache.apply(event);
        }
        assert_eq!(heard(), (true, Some(9)));
        drop(told);
        let _ = cache.follow(&key("b"));
        assert_eq!(cache.lock().followers.len(), 1, "who went is forgotten");
    }

    #[test]
    fn a_list_from_before_an_own_write_does_not_undo_it() {
        let cache = Cache::new(Kind::Lease);
        cache.wrote(lease("made", "1", 9));
        cache.wrote(lease("changed", "2", 10));
        let list = vec![Init, InitApply(lease("changed", "2", 8)), InitDone];
        assert_eq!(check(&cache, list), " changed; changed=10 made=9");
    }

    #[test]
    fn what_was_deleted_before_the_watch_showed_our_write_is_found_by_asking() {
        let cache = Cache::new(Kind::Lease);
        // The watch was faster than the answer to our write: it showed the end of the object before.
        check(
            &cache,
            vec![Apply(lease("a", "1", 5)), Delete(lease("a", "1", 10))],
        );
        cache.wrote(lease("a", "1", 9));
        assert_eq!(check(&cache, vec![]), " changed; a=9");
        assert_eq!(
            cache.asked(&key("a"), 8, None),
            None,
            "asked before the last write"
        );
        assert_eq!(cache.asked(&key("a"), 9, None), Some(key("a")));
        assert_eq!(check(&cache, vec![]), " changed; ");

        // Still there: it stands over a watch that lags on.
        cache.wrote(lease("a", "1", 12));
        assert_eq!(cache.asked(&key("a"), 12, Some(lease("a", "1", 12))), None);
        assert_eq!(
            cache.asked(&key("a"), 12, Some(lease("a", "1", 14))),
            Some(key("a"))
        );
        assert_eq!(
            check(&cache, vec![Apply(lease("a", "1", 13))]),
            " changed; a=14"
        );
        assert_eq!(
            check(&cache, vec![Delete(lease("a", "1", 15))]),
            "a changed; "
        );

        // Made anew meanwhile: the end of the one before is not its end.
        cache.wrote(lease("a", "2", 20));
        assert_eq!(
            check(&cache, vec![Delete(lease("a", "1", 15))]),
            " changed; a=20"
        );
        assert_eq!(
            check(&cache, vec![Delete(lease("a", "2", 21))]),
            "a changed; "
        );
        assert_eq!(cache.unshown(), []);
    }
}
