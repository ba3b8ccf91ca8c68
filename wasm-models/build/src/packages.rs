//! The package folders: which module and model each one holds a copy of.
//!
//! A package folder is self-contained (a path in `rimward.yaml` never leaves it), so the same
//! module or model lies in several. Each copy has one source, listed here; `rimward.yaml` is
//! written by hand, and the models and golden vectors of the examples by `train/train.py`.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

const GOOD: &str = "examples/packages/digits-1.1.0";
const FIRST: &str = "examples/packages/digits-1.0.0";

/// A file, and the file that it is a copy of, both from the repository's root.
type Copy = (String, String);

/// Every copy, in order.
fn copies() -> Vec<Copy> {
    let module = |folder: &str, name: &str| {
        (
            format!("{folder}/module.wasm"),
            format!("wasm-models/modules/{name}.wasm"),
        )
    };
    let mut copies = vec![module(FIRST, "digits"), module(GOOD, "digits")];
    for fixture in ["wrong", "flaky", "trap", "hang", "greedy"] {
        let folder = format!("wasm-models/fixtures/{fixture}");
        copies.push(module(&folder, fixture));
        for file in ["model.onnx", "golden.json"] {
            copies.push((format!("{folder}/{file}"), format!("{GOOD}/{file}")));
        }
    }
    let passthrough = "wasm-models/fixtures/passthrough/model.onnx".to_owned();
    copies.push((passthrough, format!("{FIRST}/model.onnx")));
    copies
}

/// Makes every copy again.
///
/// # Errors
/// Where a source or a folder is missing.
pub(crate) fn assemble(root: &Path) -> anyhow::Result<usize> {
    let copies = copies();
    for (copy, source) in &copies {
        fs::copy(root.join(source), root.join(copy))
            .with_context(|| format!("copying {source} to {copy}"))?;
    }
    Ok(copies.len())
}

/// Says which copies are not what their source is.
pub(crate) fn differences(root: &Path) -> Vec<String> {
    copies()
        .into_iter()
        .filter_map(|(copy, source)| {
            let read =
                |path: &str| fs::read(root.join(path)).map_err(|error| format!("{path}: {error}"));
            match (read(&copy), read(&source)) {
                (Err(finding), _) | (_, Err(finding)) => Some(finding),
                (Ok(old), Ok(new)) if old != new => Some(format!("{copy}: differs from {source}")),
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use rimward_guests::trigger::Trigger;
    use serde_json::Value;

    use super::*;

    fn root() -> &'static Path {
        Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
    }

    fn json(path: &str) -> Value {
        let text = fs::read_to_string(root().join(path)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    fn bytes(data: &Value) -> Vec<u8> {
        data.as_array()
            .unwrap()
            .iter()
            .map(|n| u8::try_from(n.as_u64().unwrap()).unwrap())
            .collect()
    }

    #[test]
    fn every_copy_in_a_package_folder_is_what_its_source_is() {
        assert_eq!(differences(root()), Vec::<String>::new());
    }

    #[test]
    fn golden_vectors_never_trigger_the_fixtures_so_that_they_pass_preflight() {
        let golden = json("wasm-models/fixtures/flaky/golden.json");
        let vectors = golden["vectors"].as_array().unwrap();
        assert_eq!(vectors.len(), 10);
        for (index, vector) in vectors.iter().enumerate() {
            let pixels = bytes(&vector["inputs"][0]["data"]);
            assert!(
                !Trigger::Some.fires(&pixels),
                "golden vector {index}: choose another SALT"
            );
            assert!(Trigger::Always.fires(&pixels));
            assert!(!Trigger::Never.fires(&pixels));
        }
    }

    #[test]
    fn about_three_in_ten_held_out_digits_trigger_the_fixtures() {
        let held_out = json("examples/data/digits-heldout.json");
        let digits = held_out["digits"].as_array().unwrap();
        let hits = digits
            .iter()
            .filter(|digit| Trigger::Some.fires(&bytes(&digit["image"])))
            .count();
        let percent = hits * 100 / digits.len();
        assert!((25..=35).contains(&percent), "{hits} of {}", digits.len());
    }
}
