//! Building from a folder: reproducible, and refused with file, field, limit and value.

use std::path::Path;

use rimward_artifact::Limits;
use rimward_artifact::package;
use serde_json::Value;

use crate::support::{GOLDEN, YAML, bytes, package as sample, write_folder};

/// What building says of a folder after a change to it.
fn refused(change: impl FnOnce(&Path)) -> String {
    let dir = tempfile::tempdir().unwrap();
    write_folder(dir.path());
    change(dir.path());
    let error = package::build(dir.path(), &Limits::default()).unwrap_err();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn refused_yaml(from: &str, to: &str) -> String {
    assert!(YAML.contains(from), "{from}");
    refused(|dir| std::fs::write(dir.join("rimward.yaml"), YAML.replace(from, to)).unwrap())
}

fn refused_golden(from: &str, to: &str) -> String {
    assert!(GOLDEN.contains(from), "{from}");
    refused(|dir| std::fs::write(dir.join("golden.json"), GOLDEN.replace(from, to)).unwrap())
}

#[test]
fn the_same_folder_gives_the_same_digest_anywhere() {
    let (first_dir, first) = sample();
    let (second_dir, second) = sample();
    assert_ne!(first_dir.path(), second_dir.path());
    assert_eq!(first.digest, second.digest);
    assert_eq!(first.manifest_bytes, second.manifest_bytes);
    std::fs::write(second_dir.path().join("weights/model.onnx"), b"other").unwrap();
    let changed = package::build(second_dir.path(), &Limits::default()).unwrap();
    assert_ne!(changed.digest, first.digest);
}

#[test]
fn the_config_is_one_of_modelpack() {
    let (_dir, built) = sample();
    let config: Value = serde_json::from_slice(&bytes(&built.blobs[0].source)).unwrap();
    assert_eq!(config["descriptor"]["version"], "1.0.0");
    assert_eq!(config["descriptor"]["family"], "digits");
    assert_eq!(config["config"]["format"], "onnx");
    assert_eq!(config["modelfs"]["type"], "layers");
    let layers: Vec<String> = built.blobs[1..]
        .iter()
        .map(|blob| blob.digest.to_string())
        .collect();
    let diff_ids: Vec<&str> = config["modelfs"]["diffIds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap())
        .collect();
    assert_eq!(diff_ids, layers);
}

#[test]
fn a_layout_holds_every_blob_under_its_digest() {
    let (_dir, built) = sample();
    let out = tempfile::tempdir().unwrap();
    built.write_layout(out.path()).unwrap();
    let index: Value =
        serde_json::from_slice(&std::fs::read(out.path().join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"][0]["digest"], built.digest.to_string());
    for blob in &built.blobs {
        let stored =
            std::fs::read(out.path().join("blobs/sha256").join(blob.digest.hex())).unwrap();
        assert_eq!(rimward_artifact::hash::sha256(&stored), blob.digest);
    }
    assert!(
        built.write_layout(out.path()).is_err(),
        "into a folder that is not empty"
    );
}

#[test]
fn a_file_outside_the_folder_missing_linked_empty_or_no_file_is_refused_by_name() {
    let error = refused_yaml("file: weights/model.onnx", "file: ../model.onnx");
    assert!(
        error.contains("variants[0].file") && error.contains("../model.onnx"),
        "{error}"
    );
    let error = refused_yaml("file: weights/model.onnx", "file: /etc/passwd");
    assert!(error.contains("variants[0].file"), "{error}");
    let error = refused(|dir| std::fs::remove_file(dir.join("weights/model.onnx")).unwrap());
    assert!(
        error.starts_with("weights/model.onnx: cannot be read: No such file"),
        "{error}"
    );
    let error = refused(|dir| std::fs::write(dir.join("weights/model.onnx"), b"").unwrap());
    assert!(error.contains("weights/model.onnx: is empty"), "{error}");
    let error = refused_yaml("file: weights/model.onnx", "file: weights");
    assert!(error.contains("no plain file"), "{error}");
    for link in [
        "weights/model.onnx",
        "module.wasm",
        "golden.json",
        "rimward.yaml",
    ] {
        let error = refused(|dir| {
            let place = dir.join(link);
            std::fs::rename(&place, dir.join("elsewhere")).unwrap();
            std::os::unix::fs::symlink(dir.join("elsewhere"), place).unwrap();
        });
        assert!(
            error.contains(link) && error.contains("symbolic link"),
            "{error}"
        );
    }
    let error = refused(|dir| {
        std::fs::rename(dir.join("weights"), dir.join("real")).unwrap();
        std::os::unix::fs::symlink(dir.join("real"), dir.join("weights")).unwrap();
    });
    assert!(error.contains("\"weights\" is a symbolic link"), "{error}");
}

#[test]
fn a_module_that_is_no_webassembly_is_refused() {
    let error = refused(|dir| std::fs::write(dir.join("module.wasm"), b"MZ--").unwrap());
    assert!(error.contains("module.wasm: is no WebAssembly"), "{error}");
    let error = refused(|dir| std::fs::write(dir.join("module.wasm"), b"\0a").unwrap());
    assert!(error.contains("module.wasm: is no WebAssembly"), "{error}");
}

#[test]
fn a_file_over_the_limit_is_refused_with_limit_and_value() {
    let dir = tempfile::tempdir().unwrap();
    write_folder(dir.path());
    let limits = Limits {
        weight_bytes_max: 1000,
        ..Limits::default()
    };
    let error = package::build(dir.path(), &limits).unwrap_err().to_string();
    assert_eq!(
        error,
        "weights/model.onnx: has 400000 bytes, at most 1000 are accepted"
    );
}

#[test]
fn every_wrong_field_of_the_source_is_named() {
    for (from, to, expected) in [
        ("family: digits", "family: Digits", "family"),
        ("version: 1.0.0", "version: \"1.0\"", "version"),
        ("releaseCounter: 3", "releaseCounter: -3", "releaseCounter"),
        (
            "releaseCounter: 3",
            "releaseCount: 3",
            "unknown field `releaseCount`",
        ),
        ("kind: Package", "kind: Model", "kind: is \"Model\""),
        ("[-1, 2]", "[-2, 2]", "inputs[0].shape"),
        ("[-1, 2]", "[0]", "inputs[0].shape"),
        ("datatype: UINT8", "datatype: uint8", "inputs[0].datatype"),
        (
            "backends: [rten]",
            "backends: []",
            "variants[0].requires.backends",
        ),
        ("\"0.981\"", "\"good\"", "metrics[0].value"),
        ("\"0.981\"", "\"NaN\"", "metrics[0].value"),
        ("RetrainedFrom", "CopiedFrom", "lineage.relation"),
        (
            "file: golden.json",
            "file: none.json",
            "none.json: cannot be read",
        ),
    ] {
        let error = refused_yaml(from, to);
        assert!(error.contains(expected), "{from} -> {to}: {error}");
    }
}

#[test]
fn golden_vectors_that_do_not_fit_the_declared_tensors_are_refused() {
    for (from, to, expected) in [
        (
            "\"shape\":[1,2]",
            "\"shape\":[1,3]",
            "inputs[0].shape: \"image\" is [1, 3]",
        ),
        (
            "\"shape\":[1,2]",
            "\"shape\":[2,2]",
            "has 2 elements, its shape asks for 4",
        ),
        ("[0,255]", "[0,256]", "inputs[0].data[1]: 256 is no UINT8"),
        (
            "\"name\":\"label\"",
            "\"name\":\"class\"",
            "\"class\" is not declared",
        ),
        (
            "\"datatype\":\"INT64\"",
            "\"datatype\":\"INT32\"",
            "declares INT64",
        ),
        ("\"data\":[7]", "\"data\":[7],\"tolerance\":-1", "tolerance"),
        (
            "\"data\":[7]",
            "\"data\":[7],\"tolerence\":1",
            "unknown field `tolerence`",
        ),
        (
            "\"shape\":[1,2]",
            "\"shape\":[18446744073709551615,2]",
            "its shape asks for",
        ),
    ] {
        let error = refused_golden(from, to);
        assert!(error.starts_with("golden.json: golden vectors"), "{error}");
        assert!(error.contains(expected), "{from} -> {to}: {error}");
    }
    let error =
        refused(|dir| std::fs::write(dir.join("golden.json"), r#"{"vectors":[]}"#).unwrap());
    assert!(error.contains("has 0 entries"), "{error}");
}
