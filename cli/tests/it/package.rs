//! `package` and `verify`, as far as they need no registry.

use std::path::Path;
use std::process::{Command, Output};

const YAML: &str = "apiVersion: rimward.dev/v1alpha1
kind: Package
family: digits
version: 1.0.0
releaseCounter: 1
variants:
- {name: fp32, file: model.onnx, format: onnx, precision: fp32, requires: {backends: [rten]}}
inputs: [{name: x, datatype: FP32, shape: [-1]}]
outputs: [{name: y, datatype: FP32, shape: [-1]}]
";

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-rimward"))
        .args(arguments)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Nothing on stdout, one `Error:` line that holds `expected`, exit code 1.
fn refused(arguments: &[&str], expected: &str) {
    let output = run(arguments);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert_eq!(text(&output.stdout), "");
    assert!(
        error.starts_with("Error: ") && error.lines().count() == 1,
        "{error}"
    );
    assert!(error.contains(expected), "{error}");
}

fn folder(yaml: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("rimward.yaml"), yaml).unwrap();
    std::fs::write(dir.path().join("model.onnx"), b"weights").unwrap();
    dir
}

fn path(dir: &Path) -> &str {
    dir.to_str().unwrap()
}

#[test]
fn the_digest_is_all_that_package_prints_and_it_is_the_layouts() {
    let (first, second, out) = (folder(YAML), folder(YAML), tempfile::tempdir().unwrap());
    let layout = out.path().join("layout");
    let printed = run(&["package", path(first.path()), "-o", path(&layout)]);
    assert!(printed.status.success(), "{}", text(&printed.stderr));
    let digest = text(&printed.stdout);
    assert_eq!(digest, text(&run(&["package", path(second.path())]).stdout));
    let hex = digest.trim().strip_prefix("sha256:").unwrap();
    assert!(layout.join("blobs/sha256").join(hex).is_file());
}

#[test]
fn a_folder_that_is_no_package_is_refused_in_one_line_with_file_and_field() {
    let dir = folder(&YAML.replace("family: digits", "family: Digits"));
    refused(
        &["package", path(dir.path())],
        "rimward.yaml: field family: \"Digits\" must be",
    );
    let dir = folder(&YAML.replace("file: model.onnx", "file: other.onnx"));
    refused(
        &["package", path(dir.path())],
        "other.onnx: cannot be read: No such file",
    );
    refused(
        &["package", "/nowhere"],
        "rimward.yaml: cannot be read: No such file",
    );
}

#[test]
fn a_trust_file_that_does_not_parse_is_refused_before_anything_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("trust.yaml");
    std::fs::write(
        &file,
        "apiVersion: rimward.dev/v1alpha1\nkind: TrustFile\nauthoritys: []\n",
    )
    .unwrap();
    let reference = "127.0.0.1:1/models/digits:v1";
    refused(
        &["verify", reference, "--trust", path(&file)],
        "trust.yaml: field authoritys: unknown field",
    );
    let missing = dir.path().join("none.yaml");
    refused(
        &["verify", reference, "--trust", path(&missing)],
        "none.yaml: No such file",
    );
}
