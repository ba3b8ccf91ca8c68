//! The mirror: the hub's ClusterAssignment as it stands in the edge cluster.
//!
//! Owns what the mirror shall be, and whether hub and edge are one cluster. A hub's object that is
//! away changes nothing: absence is never an order.

use kube::ResourceExt as _;
use rimward_crds::ClusterAssignment;
use serde_json::{Value, json};

use super::progress;

/// Generation of the hub's object that the mirror was made from.
pub(crate) const HUB_GENERATION: &str = "rimward.dev/hub-generation";

/// How hub's object and the edge's stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// The hub's object was not seen since this session began: the mirror stands for it.
    HubUnseen,
    /// Two clusters: the edge's object is our mirror, or is to be made.
    Apart,
    /// One object, so one cluster: there is no mirror.
    OneCluster,
}

/// Compares by the objects' own UIDs, which differ between clusters even for one name. (The pull
/// account may not read the hub's kube-system.)
pub(crate) fn relation(
    hub: Option<&ClusterAssignment>,
    edge: Option<&ClusterAssignment>,
) -> Relation {
    let Some(hub) = hub else {
        return Relation::HubUnseen;
    };
    let same = edge
        .is_some_and(|edge| edge.metadata.uid.is_some() && edge.metadata.uid == hub.metadata.uid);
    if same {
        Relation::OneCluster
    } else {
        Relation::Apart
    }
}

/// An annotation of an assignment.
pub(crate) fn annotation<'a>(object: &'a ClusterAssignment, key: &str) -> Option<&'a str> {
    let annotations = object.metadata.annotations.as_ref()?;
    annotations.get(key).map(String::as_str)
}

/// Generation of the hub's object that the mirror stands for.
pub(crate) fn hub_generation(mirror: &ClusterAssignment) -> Option<i64> {
    annotation(mirror, HUB_GENERATION)?.parse().ok()
}

/// Whether the mirror says what the hub's object says.
pub(crate) fn is_current(hub: &ClusterAssignment, mirror: &ClusterAssignment) -> bool {
    mirror.spec == hub.spec && hub_generation(mirror) == hub.metadata.generation
}

/// A mirror of `hub` that is not there yet.
pub(crate) fn to_create(hub: &ClusterAssignment) -> ClusterAssignment {
    let generation = hub.metadata.generation.unwrap_or_default();
    let mut mirror = ClusterAssignment::new(&hub.name_any(), hub.spec.clone());
    mirror.metadata.annotations =
        Some([(HUB_GENERATION.to_owned(), generation.to_string())].into());
    mirror
}

/// What brings `mirror` up to `hub`, and with it what is to be kept of progress, so that no crash parts the
/// two. A merge patch, since a server-side apply that empties a list leaves a null that the schema refuses
/// (docs/adr/0033). It names the version that it was planned on: a stale writer loses.
pub(crate) fn to_update(
    hub: &ClusterAssignment,
    mirror: &ClusterAssignment,
    ledger: Option<&progress::Ledger>,
) -> Value {
    let generation = hub.metadata.generation.unwrap_or_default();
    let mut annotations = json!({ HUB_GENERATION: generation.to_string() });
    if let Some(ledger) = ledger {
        annotations[progress::ANNOTATION] = json!(progress::write(ledger));
    }
    json!({
        "metadata": {
            "uid": mirror.metadata.uid,
            "resourceVersion": mirror.metadata.resource_version,
            "annotations": annotations,
        },
        "spec": { "models": hub.spec.models },
    })
}

/// What writes the ledger: on the mirror, or on the hub's own object where there is none.
pub(crate) fn to_keep(object: &ClusterAssignment, ledger: &progress::Ledger) -> Value {
    json!({
        "metadata": {
            "uid": object.metadata.uid,
            "resourceVersion": object.metadata.resource_version,
            "annotations": { progress::ANNOTATION: progress::write(ledger) },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimward_crds::ClusterAssignmentSpec;

    fn object(uid: &str, generation: i64) -> ClusterAssignment {
        let mut object = ClusterAssignment::new("site", ClusterAssignmentSpec::default());
        object.metadata.uid = Some(uid.to_owned());
        object.metadata.generation = Some(generation);
        object
    }

    #[test]
    fn one_object_is_one_cluster_and_an_unseen_hub_orders_nothing() {
        let (a, b) = (object("a", 1), object("b", 1));
        assert_eq!(relation(Some(&a), Some(&a)), Relation::OneCluster);
        assert_eq!(relation(Some(&a), Some(&b)), Relation::Apart);
        assert_eq!(relation(Some(&a), None), Relation::Apart);
        assert_eq!(relation(None, Some(&b)), Relation::HubUnseen);
    }

    #[test]
    fn a_mirror_is_current_when_it_carries_the_hubs_generation() {
        let hub = object("a", 7);
        let mut mirror = to_create(&hub);
        assert!(is_current(&hub, &mirror));
        assert_eq!(hub_generation(&mirror), Some(7));
        mirror.metadata.annotations = None;
        assert!(!is_current(&hub, &mirror));
    }
}
