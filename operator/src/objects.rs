//! What both roles know of objects beside their kinds: their names, where heartbeats are, which of two versions is
//! older, and what of an object nobody reads.
//!
//! Pure. Must never fetch or write.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt as _};

use crate::metrics::Kind;

/// Namespace of the clusters' heartbeat Leases on the hub.
pub(crate) const CLUSTERS_NAMESPACE: &str = "rimward-clusters";
/// The Lease of the leading hub, among them.
pub(crate) const HUB_LEADER: &str = "rimward.dev.hub-leader";
/// Namespace of the nodes' Leases in an edge cluster.
pub(crate) const NODES_NAMESPACE: &str = "rimward-nodes";
/// The Lease of the leading edge operator, among them.
pub(crate) const EDGE_LEADER: &str = "rimward.dev.edge-leader";

/// Where `kubectl apply` keeps the whole object a second time.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Names one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace; none where the kind has none.
    pub(crate) namespace: Option<String>,
    /// Its name.
    pub(crate) name: String,
}

impl ObjectKey {
    /// Names an object.
    pub(crate) fn of<K: Resource>(kind: Kind, object: &K) -> Self {
        Self {
            kind,
            namespace: object.meta().namespace.clone(),
            name: object.name_any(),
        }
    }
}

/// Drops what nobody reads and what may be longer than all the rest: who owns which field, and the object's second
/// copy.
pub(crate) fn strip(meta: &mut ObjectMeta) {
    meta.managed_fields = None;
    if let Some(annotations) = &mut meta.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// The version of an object as a number; none when it has none, or one that is no number.
///
/// Versions of one object grow: Kubernetes promises it since 1.35, and every server that Rimward knows did
/// it before.
pub(crate) fn version<K: Resource>(object: &K) -> Option<u128> {
    object.meta().resource_version.as_ref()?.parse().ok()
}

/// Is `left` an earlier version of the same object than `right`? Where that cannot be told, it is not.
pub(crate) fn is_older<K: Resource>(left: &K, right: &K) -> bool {
    matches!((version(left), version(right)), (Some(left), Some(right)) if left < right)
}

#[cfg(test)]
mod tests {
    use super::is_older;
    use k8s_openapi::api::coordination::v1::Lease;

    fn check(left: &str, right: &str) -> bool {
        let lease = |version: &str| {
            let mut lease = Lease::default();
            lease.metadata.resource_version = Some(version.to_owned());
            lease
        };
        is_older(&lease(left), &lease(right))
    }

    #[test]
    fn what_nobody_reads_is_dropped_and_other_annotations_stay() {
        let mut lease = Lease::default();
        let meta = &mut lease.metadata;
        meta.managed_fields = Some(Vec::new());
        let annotations = [(super::LAST_APPLIED, "{}"), ("rimward.dev/hold", "snow")];
        let owned = annotations.map(|(key, value)| (key.to_owned(), value.to_owned()));
        meta.annotations = Some(owned.into());
        super::strip(meta);
        assert_eq!(meta.managed_fields, None);
        let left: Vec<_> = meta.annotations.iter().flatten().collect();
        assert_eq!(left, [(&"rimward.dev/hold".to_owned(), &"snow".to_owned())]);
    }

    #[test]
    fn versions_are_compared_as_numbers_and_what_is_none_is_never_older() {
        assert!(check("9", "10"));
        assert!(check("18446744073709551615", "18446744073709551616"));
        assert!(!check("10", "10"));
        assert!(!check("11", "10"));
        assert!(!check("a", "b"));
        assert!(!check("1", "b"));
    }
}
