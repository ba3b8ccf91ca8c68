//! The CustomResourceDefinitions as they are installed: derived, then completed.
//!
//! kube's derive leaves out what the status contract needs (the default `status.observedGeneration: -1`), writes formats
//! that the API server does not know (`uint32`), cannot bound types of upstream (Condition), and says of no list how it
//! is merged. All of that is patched here, once, so that no kind can forget it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use crate::revision;

/// Every CustomResourceDefinition, completed, in the order in which docs list them.
///
/// # Errors
/// When a derived schema does not convert; a defect of this crate that its tests find.
pub fn crds() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    [
        crate::EdgeCluster::crd(),
        crate::Model::crd(),
        crate::ModelDeployment::crd(),
        crate::RolloutPolicy::crd(),
        crate::ModelRevision::crd(),
        crate::RolloutAction::crd(),
        crate::ClusterAssignment::crd(),
        crate::EdgeNode::crd(),
    ]
    .iter()
    .map(complete)
    .collect()
}

fn complete(crd: &CustomResourceDefinition) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut value = serde_json::to_value(crd)?;
    value["metadata"]["annotations"] =
        json!({ revision::ANNOTATION: revision::REVISION.to_string() });
    if let Some(versions) = value
        .pointer_mut("/spec/versions")
        .and_then(Value::as_array_mut)
    {
        for version in versions {
            if let Some(schema) = version.pointer_mut("/schema/openAPIV3Schema") {
                complete_schema(schema);
            }
        }
    }
    serde_json::from_value(value)
}

fn complete_schema(schema: &mut Value) {
    walk(schema);
    if let Some(status) = schema
        .pointer_mut("/properties/status")
        .and_then(Value::as_object_mut)
    {
        // An object whose status was never written must not look finished to Helm and Flux.
        status.insert("default".into(), json!({"observedGeneration": -1}));
        status.remove("required");
    }
}

fn walk(node: &mut Value) {
    match node {
        Value::Object(map) => {
            // A null where the Rust type takes none would pass the schema and then not parse.
            map.remove("nullable");
            bound_integer(map);
            bound_conditions(map);
            say_list_type(map);
            map.values_mut().for_each(walk);
        }
        Value::Array(items) => items.iter_mut().for_each(walk),
        _ => {}
    }
}

/// Replaces formats unknown to the API server, and writes the bounds that the Rust type has.
fn bound_integer(map: &mut Map<String, Value>) {
    let Some(format) = map.get("format").and_then(Value::as_str) else {
        return;
    };
    let (known, maximum) = match format {
        "uint8" => ("int32", u64::from(u8::MAX)),
        "uint16" => ("int32", u64::from(u16::MAX)),
        "uint32" => ("int64", u64::from(u32::MAX)),
        "uint64" | "uint" => ("int64", i64::MAX as u64),
        _ => return,
    };
    map.insert("format".into(), json!(known));
    map.entry("minimum").or_insert(json!(0));
    map.entry("maximum").or_insert(json!(maximum));
}

/// Gives a list of conditions its map key and upstream's own bounds; but for messages: 16 of upstream's 32,768
/// characters would not be stored beside a large spec, and nobody here writes more than 1 KiB.
fn bound_conditions(map: &mut Map<String, Value>) {
    let is_conditions = map.get("type").and_then(Value::as_str) == Some("array")
        && map
            .get("items")
            .and_then(|items| items.pointer("/properties/lastTransitionTime"))
            .is_some();
    if !is_conditions {
        return;
    }
    map.insert("maxItems".into(), json!(16));
    map.insert("x-kubernetes-list-type".into(), json!("map"));
    map.insert("x-kubernetes-list-map-keys".into(), json!(["type"]));
    for (field, bounds) in [
        ("type", json!({"maxLength": 316})),
        ("status", json!({"enum": ["True", "False", "Unknown"]})),
        (
            "reason",
            json!({"minLength": 1, "maxLength": 1024, "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"}),
        ),
        ("message", json!({"maxLength": 4096})),
        ("observedGeneration", json!({"minimum": 0})),
    ] {
        let Some(property) = map
            .get_mut("items")
            .and_then(|items| items.pointer_mut(&format!("/properties/{field}")))
            .and_then(Value::as_object_mut)
        else {
            continue;
        };
        if let Value::Object(bounds) = bounds {
            property.extend(bounds);
        }
    }
}

/// A list that does not say how it is merged is replaced as a whole. That is what the API server does with silence too,
/// but said, so that nobody has to know.
fn say_list_type(map: &mut Map<String, Value>) {
    if map.get("type").and_then(Value::as_str) == Some("array") && map.contains_key("items") {
        map.entry("x-kubernetes-list-type")
            .or_insert(json!("atomic"));
    }
}

/// One definition as the YAML that is committed and installed.
///
/// # Errors
/// When it cannot be written as YAML; a defect of this crate that its tests find.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_yaml::Error> {
    Ok(format!(
        "# Generated by `cargo xtask gen` from crds/src; do not edit.\n{}",
        serde_yaml::to_string(crd)?
    ))
}
