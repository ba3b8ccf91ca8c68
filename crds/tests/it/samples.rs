//! The valid samples parse into the types that they are samples of, and there is one of each kind.

use std::collections::BTreeSet;
use std::path::Path;

use rimward_crds as crds;
use serde_json::Value;

fn parse_as_kind(kind: &str, value: Value) -> Result<(), String> {
    fn check<T: serde::de::DeserializeOwned>(value: Value) -> Result<(), String> {
        serde_json::from_value::<T>(value)
            .map(drop)
            .map_err(|error| error.to_string())
    }
    match kind {
        "EdgeCluster" => check::<crds::EdgeCluster>(value),
        "Model" => check::<crds::Model>(value),
        "ModelDeployment" => check::<crds::ModelDeployment>(value),
        "RolloutPolicy" => check::<crds::RolloutPolicy>(value),
        "ModelRevision" => check::<crds::ModelRevision>(value),
        "RolloutAction" => check::<crds::RolloutAction>(value),
        "ClusterAssignment" => check::<crds::ClusterAssignment>(value),
        "EdgeNode" => check::<crds::EdgeNode>(value),
        other => Err(format!("no kind {other:?}")),
    }
}

fn samples(folder: &str) -> Vec<(String, Value, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("samples")
        .join(folder);
    let mut samples: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, serde_yaml::from_str(&text).unwrap(), text)
        })
        .collect();
    samples.sort_by(|left, right| left.0.cmp(&right.0));
    samples
}

fn kinds(samples: &[(String, Value, String)]) -> BTreeSet<&str> {
    samples
        .iter()
        .filter_map(|(_, value, _)| value["kind"].as_str())
        .collect()
}

#[test]
fn every_valid_sample_parses_into_its_type() {
    for (name, value, _) in samples("valid") {
        let kind = value["kind"].as_str().unwrap().to_owned();
        parse_as_kind(&kind, value).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

#[test]
fn there_are_valid_and_invalid_samples_of_every_kind() {
    let all: Vec<String> = crds::schema::crds()
        .unwrap()
        .into_iter()
        .map(|crd| crd.spec.names.kind)
        .collect();
    let all: BTreeSet<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(kinds(&samples("valid")), all);
    assert_eq!(kinds(&samples("invalid")), all);
}

#[test]
fn every_invalid_sample_states_the_message_it_is_refused_with() {
    for (name, _, text) in samples("invalid") {
        let message = text
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("# refused: "));
        assert!(message.is_some_and(|message| !message.is_empty()), "{name}");
    }
}
