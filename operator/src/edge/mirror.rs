//! The mirror: the hub's ClusterAssignment as it stands in the edge cluster.
//!
//! Owns what the mirror shall be, and whether hub and edge are one cluster. A hub's object that is
//! away changes nothing: absence is never an order.

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

/// The whole of what a session applies to the mirror, with the spec of `source` (the hub's object, or
/// the mirror itself while the hub is away). What it leaves out, the API server takes away, so the
/// ledger is always in it.
pub(crate) fn to_apply(
    source: &ClusterAssignment,
    hub_generation: i64,
    ledger: &progress::Ledger,
) -> Value {
    let mut annotations = json!({ HUB_GENERATION: hub_generation.to_string() });
    if let Some(text) = progress::write(ledger) {
        annotations[progress::ANNOTATION] = Value::String(text);
    }
    json!({
        "apiVersion": "rimward.dev/v1alpha1",
        "kind": "ClusterAssignment",
        "metadata": { "name": source.metadata.name, "annotations": annotations },
        "spec": { "models": source.spec.models },
    })
}

/// What a session applies to the hub's own object where there is no mirror: the ledger alone.
pub(crate) fn ledger_to_apply(object: &ClusterAssignment, ledger: &progress::Ledger) -> Value {
    let mut annotations = json!({});
    if let Some(text) = progress::write(ledger) {
        annotations[progress::ANNOTATION] = Value::String(text);
    }
    json!({
        "apiVersion": "rimward.dev/v1alpha1",
        "kind": "ClusterAssignment",
        "metadata": {
            "name": object.metadata.name,
            "uid": object.metadata.uid,
            "annotations": annotations,
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
        let mut mirror: ClusterAssignment =
            serde_json::from_value(to_apply(&hub, 7, &progress::Ledger::new())).unwrap();
        assert!(is_current(&hub, &mirror));
        assert_eq!(hub_generation(&mirror), Some(7));
        mirror.metadata.annotations = None;
        assert!(!is_current(&hub, &mirror));
    }
}
