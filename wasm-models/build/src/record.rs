//! The record beside the modules: toolchain, sizes and digests, and what differs from it.

use std::fs;
use std::path::Path;

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// `modules/modules.json`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// What compiled the modules, as [`crate::toolchain::Toolchain::name`] says it.
    toolchain: String,
    /// Sorted by name.
    modules: Vec<Module>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Module {
    name: String,
    bytes: usize,
    /// Lower-case hexadecimal.
    sha256: String,
}

impl Record {
    /// Describes modules, given by name in order.
    pub(crate) fn new(toolchain: &str, built: &[(&str, Vec<u8>)]) -> Self {
        let modules = built
            .iter()
            .map(|(name, bytes)| Module {
                name: (*name).to_owned(),
                bytes: bytes.len(),
                sha256: sha256(bytes),
            })
            .collect();
        Self {
            toolchain: toolchain.to_owned(),
            modules,
        }
    }

    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        Ok(serde_json::from_str(text)?)
    }

    pub(crate) fn to_json(&self) -> anyhow::Result<String> {
        Ok(serde_json::to_string_pretty(self).context("writing the record")? + "\n")
    }

    /// Says in which modules a new build differs from this record, and the likely reason.
    pub(crate) fn differences_from(&self, built: &Self) -> Vec<String> {
        let mut findings = Vec::new();
        for new in &built.modules {
            match self.modules.iter().find(|old| old.name == new.name) {
                None => findings.push(format!("{}: built, but not recorded", new.name)),
                Some(old) if old != new => findings.push(format!(
                    "{}: recorded {} bytes, sha256 {}; built {} bytes, sha256 {}",
                    new.name, old.bytes, old.sha256, new.bytes, new.sha256
                )),
                Some(_) => {}
            }
        }
        for old in &self.modules {
            if !built.modules.iter().any(|new| new.name == old.name) {
                findings.push(format!("{}: recorded, but not built any more", old.name));
            }
        }
        if !findings.is_empty() && self.toolchain != built.toolchain {
            findings.push(format!(
                "the toolchains differ, so the bytes may: recorded {}; built with {}",
                self.toolchain, built.toolchain
            ));
        }
        findings
    }

    /// Says which files in `modules` are not what this record says.
    pub(crate) fn differences_from_files(&self, modules: &Path) -> Vec<String> {
        self.modules
            .iter()
            .filter_map(|module| {
                let path = modules.join(format!("{}.wasm", module.name));
                match fs::read(&path) {
                    Err(error) => Some(format!("{}: {error}", path.display())),
                    Ok(bytes) if sha256(&bytes) != module.sha256 => Some(format!(
                        "{}: is not the file that was recorded",
                        path.display()
                    )),
                    Ok(_) => None,
                }
            })
            .collect()
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_build_differs_in_nothing_whatever_the_toolchain() {
        let one = Record::new("one", &[("a", vec![1]), ("b", vec![2])]);
        let two = Record::new("two", &[("a", vec![1]), ("b", vec![2])]);
        assert_eq!(one.differences_from(&two), Vec::<String>::new());
    }

    #[test]
    fn changed_missing_and_new_modules_are_named_with_the_toolchains() {
        let old = Record::new("one", &[("a", vec![1]), ("b", vec![2])]);
        let new = Record::new("two", &[("a", vec![9]), ("c", vec![2])]);
        let findings = old.differences_from(&new);
        assert_eq!(findings.len(), 4, "{findings:?}");
        assert!(findings[0].starts_with("a: recorded 1 bytes"));
        assert!(findings[1].starts_with("c: built, but not recorded"));
        assert!(findings[2].starts_with("b: recorded, but not built"));
        assert!(findings[3].contains("recorded one; built with two"));
    }

    #[test]
    fn the_committed_modules_are_those_recorded() {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../modules");
        let text = fs::read_to_string(modules.join("modules.json")).unwrap();
        let record = Record::parse(&text).unwrap();
        assert_eq!(
            record.differences_from_files(&modules),
            Vec::<String>::new()
        );
        let names: Vec<_> = record
            .modules
            .iter()
            .map(|module| module.name.as_str())
            .collect();
        assert_eq!(names, crate::MODULES);
    }
}
