//! An object that passes the schema parses: values are made from the schema itself.

use proptest::prelude::*;
use proptest::strategy::BoxedStrategy;
use proptest::string::string_regex;
use serde_json::{Map, Value, json};

/// Values that the schema admits, leaning to its edges. Knows just the keywords that our schemas use.
fn admitted(schema: &Value) -> BoxedStrategy<Value> {
    if let Some(values) = schema["enum"].as_array() {
        return proptest::sample::select(values.clone()).boxed();
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return prop_oneof![integer(schema), text(schema)].boxed();
    }
    match schema["type"].as_str() {
        Some("integer") => integer(schema),
        Some("boolean") => any::<bool>().prop_map(Value::from).boxed(),
        Some("array") => {
            let most = schema["maxItems"].as_u64().unwrap().min(3) as usize;
            proptest::collection::vec(admitted(&schema["items"]), 0..=most)
                .prop_map(Value::from)
                .boxed()
        }
        Some("object") if schema["additionalProperties"].is_object() => {
            proptest::collection::btree_map(
                "[a-z]{1,8}",
                admitted(&schema["additionalProperties"]),
                0..3,
            )
            .prop_map(|map| json!(map))
            .boxed()
        }
        Some("object") => object(schema),
        _ => text(schema),
    }
}

fn integer(schema: &Value) -> BoxedStrategy<Value> {
    let bound = |name: &str, otherwise: i64| schema[name].as_f64().map_or(otherwise, |n| n as i64);
    let (low, high) = (bound("minimum", i64::MIN), bound("maximum", i64::MAX));
    prop_oneof![Just(low), Just(high), low..=high]
        .prop_map(Value::from)
        .boxed()
}

fn text(schema: &Value) -> BoxedStrategy<Value> {
    if schema["format"] == "date-time" {
        return Just(json!("2026-01-31T23:59:59Z")).boxed();
    }
    let least = schema["minLength"].as_u64().unwrap_or(0) as usize;
    let most = schema["maxLength"].as_u64().unwrap() as usize;
    let pattern = match schema["pattern"].as_str() {
        Some(pattern) => pattern
            .trim_start_matches('^')
            .trim_end_matches('$')
            .to_owned(),
        None => format!("[ -~]{{{least},{}}}", most.min(40)),
    };
    string_regex(&pattern)
        .unwrap()
        .prop_filter("within the length", move |text| {
            (least..=most).contains(&text.len())
        })
        .prop_map(Value::from)
        .boxed()
}

fn object(schema: &Value) -> BoxedStrategy<Value> {
    let required: Vec<&str> = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let fields: Vec<BoxedStrategy<Option<(String, Value)>>> = schema["properties"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, property)| {
            let name = name.clone();
            let value = admitted(property).prop_map(move |value| (name.clone(), value));
            match required.contains(&property_name(schema, property)) {
                true => value.prop_map(Some).boxed(),
                false => proptest::option::of(value).boxed(),
            }
        })
        .collect();
    fields
        .prop_map(|fields| Value::Object(fields.into_iter().flatten().collect::<Map<_, _>>()))
        .boxed()
}

fn property_name<'a>(schema: &'a Value, property: &Value) -> &'a str {
    let properties = schema["properties"].as_object().unwrap();
    properties
        .iter()
        .find(|(_, value)| std::ptr::eq(*value, property))
        .map_or("", |(name, _)| name)
}

/// Makes objects from the schema of a kind and parses each half into its type.
fn check<S, T>(kind: &str)
where
    S: serde::de::DeserializeOwned,
    T: serde::de::DeserializeOwned,
{
    let crd = rimward_crds::schema::crds()
        .unwrap()
        .into_iter()
        .find(|crd| crd.spec.names.kind == kind)
        .unwrap();
    let crd = serde_json::to_value(&crd).unwrap();
    let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let halves = (admitted(&root["spec"]), admitted(&root["status"]));
    proptest!(ProptestConfig::with_cases(64), |((spec, status) in halves)| {
        let parsed = serde_json::from_value::<S>(spec.clone());
        prop_assert!(parsed.is_ok(), "{kind}.spec {spec}: {}", parsed.err().unwrap());
        let parsed = serde_json::from_value::<T>(status.clone());
        prop_assert!(parsed.is_ok(), "{kind}.status {status}: {}", parsed.err().unwrap());
    });
}

macro_rules! kinds {
    ($($name:ident: $kind:literal, $spec:ident, $status:ident;)+) => {
        $(#[test]
        fn $name() {
            check::<rimward_crds::$spec, rimward_crds::$status>($kind);
        })+
    };
}

kinds! {
    an_admitted_edge_cluster_parses: "EdgeCluster", EdgeClusterSpec, EdgeClusterStatus;
    an_admitted_model_parses: "Model", ModelSpec, ModelStatus;
    an_admitted_model_deployment_parses: "ModelDeployment", ModelDeploymentSpec, ModelDeploymentStatus;
    an_admitted_rollout_policy_parses: "RolloutPolicy", RolloutPolicySpec, RolloutPolicyStatus;
    an_admitted_model_revision_parses: "ModelRevision", ModelRevisionSpec, ModelRevisionStatus;
    an_admitted_rollout_action_parses: "RolloutAction", RolloutActionSpec, RolloutActionStatus;
    an_admitted_cluster_assignment_parses: "ClusterAssignment", ClusterAssignmentSpec, ClusterAssignmentStatus;
    an_admitted_edge_node_parses: "EdgeNode", EdgeNodeSpec, EdgeNodeStatus;
}
