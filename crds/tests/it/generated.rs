//! What is generated and committed equals what the source gives.

use std::path::Path;

use rimward_crds::revision::{ANNOTATION, REVISION, REVISIONS};

#[test]
fn the_committed_definitions_equal_what_the_types_give() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    let mut expected = Vec::new();
    for crd in rimward_crds::schema::crds().unwrap() {
        let name = format!("{}.yaml", crd.spec.names.plural);
        let committed = std::fs::read_to_string(folder.join(&name)).unwrap_or_default();
        let generated = rimward_crds::schema::to_yaml(&crd).unwrap();
        assert!(
            committed == generated,
            "crds/yaml/{name} differs from the types: run `cargo xtask gen`"
        );
        expected.push(name);
    }
    let mut found: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "crds/yaml holds a file of no kind");
}

#[test]
fn the_committed_reference_equals_what_the_source_gives() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference");
    for (name, generated) in rimward_crds::reference::pages().unwrap() {
        let committed = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            committed == generated,
            "docs/reference/{name} differs from the source: run `cargo xtask gen`"
        );
    }
}

/// Whoever changes a definition gives it another number: operators and agents tell by it whether an API server knows
/// what they write.
#[test]
fn a_definition_that_changed_has_another_revision() {
    let mut all = ring::digest::Context::new(&ring::digest::SHA256);
    for mut crd in rimward_crds::schema::crds().unwrap() {
        let annotations = crd.metadata.annotations.take().unwrap();
        let revision = REVISION.to_string();
        assert_eq!(annotations, [(ANNOTATION.to_owned(), revision)].into());
        let yaml = rimward_crds::schema::to_yaml(&crd).unwrap();
        all.update(yaml.as_bytes());
    }
    let hash: String = all
        .finish()
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let (last, committed) = REVISIONS.last().unwrap();
    assert!(
        hash == *committed,
        "the definitions are others than those of revision {last}: add ({}, \"{hash}\") to REVISIONS in \
         crds/src/revision.rs, then run `cargo xtask gen`",
        last + 1
    );
    assert!(REVISIONS.is_sorted_by(|one, other| one.0 < other.0));
}
