//! Trust files: each mistake is refused whole, with line or field.

use rimward_artifact::trust::TrustFile;

use crate::support::Key;

fn file(authority: &str, more: &str) -> String {
    format!("apiVersion: rimward.dev/v1alpha1\nkind: TrustFile\nauthorities:\n{authority}{more}")
}

fn key(name: &str, key: &Key) -> String {
    let mut text = format!("  - name: {name}\n    pem: |\n");
    for line in key.pem.lines() {
        text.push_str(&format!("      {line}\n"));
    }
    text
}

fn authority(threshold: &str, keys: &[(&str, &Key)]) -> String {
    let keys: String = keys.iter().map(|(name, pair)| key(name, pair)).collect();
    format!("- name: acme\n{threshold}  repositories: [r.example.com/**]\n  keys:\n{keys}")
}

fn refused(text: &str) -> String {
    TrustFile::parse(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn a_good_file_parses_and_an_empty_one_trusts_nobody() {
    let pair = Key::new();
    TrustFile::parse(file(&authority("", &[("a", &pair)]), "").as_bytes()).unwrap();
    let nobody = "apiVersion: rimward.dev/v1alpha1\nkind: TrustFile\nauthorities: []\n";
    assert!(
        TrustFile::parse(nobody.as_bytes())
            .unwrap()
            .authorities()
            .is_empty()
    );
}

#[test]
fn a_misspelt_field_is_named_with_its_line() {
    let pair = Key::new();
    let text = file(&authority("  treshold: 2\n", &[("a", &pair)]), "");
    let error = refused(&text);
    assert!(
        error.contains("authorities[0]") && error.contains("treshold"),
        "{error}"
    );
    assert!(error.contains("line 5"), "{error}");
    let error = refused(&file(&authority("", &[("a", &pair)]), "revokedKey: []\n"));
    assert!(error.contains("revokedKey"), "{error}");
}

#[test]
fn a_threshold_out_of_range_is_refused_with_its_value() {
    let pair = Key::new();
    for bad in ["0", "2"] {
        let error = refused(&file(
            &authority(&format!("  threshold: {bad}\n"), &[("a", &pair)]),
            "",
        ));
        assert!(
            error.contains(&format!("authorities[0].threshold: is {bad}")),
            "{error}"
        );
    }
}

#[test]
fn one_key_under_two_names_cannot_meet_a_threshold_of_two() {
    let pair = Key::new();
    let error = refused(&file(
        &authority("  threshold: 2\n", &[("a", &pair), ("b", &pair)]),
        "",
    ));
    assert!(
        error.contains("keys[1].pem: is the same key as \"a\""),
        "{error}"
    );
}

#[test]
fn an_ed25519_key_is_refused_with_the_reason() {
    let pem: String = include_str!("fixtures/ed25519.pub")
        .lines()
        .map(|line| format!("      {line}\n"))
        .collect();
    let text = format!("- name: acme\n  repositories: []\n  keys:\n  - name: a\n    pem: |\n{pem}");
    let error = refused(&file(&text, ""));
    assert!(
        error.contains("keys[0].pem") && error.contains("pre-hashed"),
        "{error}"
    );
}

#[test]
fn wrong_kinds_digests_floors_and_sizes_are_refused() {
    for (text, expected) in [
        ("kind: TrustFile", "missing field"),
        (
            "apiVersion: v1\nkind: TrustFile\nauthorities: []",
            "apiVersion: is \"v1\"",
        ),
        (
            "apiVersion: rimward.dev/v1alpha1\nkind: Secret\nauthorities: []",
            "kind: is \"Secret\"",
        ),
        ("[", "expected a trust file"),
        ("kind: \"\\q\"", "line 1"),
    ] {
        let error = refused(text);
        assert!(error.contains(expected), "{text}: {error}");
    }
    for (more, expected) in [
        ("revokedDigests: [abc]\n", "revokedDigests[0]"),
        (
            "releaseFloors: [{counter: 1}]\n",
            "releaseFloors[0]: needs either",
        ),
        (
            "releaseFloors: [{family: a, repository: r.example.com/a, counter: 1}]\n",
            "needs either",
        ),
        (
            "releaseFloors: [{family: A, counter: 1}]\n",
            "releaseFloors[0].family",
        ),
        (
            "releaseFloors: [{family: a, counter: -1}]\n",
            "releaseFloors[0].counter",
        ),
        ("revokedKeys: []\nrevokedKeys: []\n", "duplicate"),
    ] {
        let error = refused(&file(&authority("", &[("a", &Key::new())]), more));
        assert!(error.contains(expected), "{more}: {error}");
    }
    let long = " ".repeat((512 << 10) + 1);
    assert!(refused(&long).contains("524289 bytes, at most 524288"));
}
