//! What is generated and committed equals what the source gives.

use std::path::Path;

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
