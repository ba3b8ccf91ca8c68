//! What both roles know of objects beside their kinds: where heartbeats are, and which of two versions is older.
//!
//! Pure. Must never fetch or write.

use kube::Resource;

/// Namespace of the clusters' heartbeat Leases on the hub.
pub(crate) const CLUSTERS_NAMESPACE: &str = "rimward-clusters";

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
    fn versions_are_compared_as_numbers_and_what_is_none_is_never_older() {
        assert!(check("9", "10"));
        assert!(check("18446744073709551615", "18446744073709551616"));
        assert!(!check("10", "10"));
        assert!(!check("11", "10"));
        assert!(!check("a", "b"));
        assert!(!check("1", "b"));
    }
}
