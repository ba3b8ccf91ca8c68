//! Turns a core module into a component and checks that it asks for nothing it may not have.

use anyhow::{Context as _, bail};
use wasmparser::{Parser, Payload};
use wit_component::ComponentEncoder;

/// What a module may import: these packages' interfaces, nothing else.
const ALLOWED_IMPORTS: [&str; 2] = ["wasi:nn/", "rimward:inference/"];

/// Wraps a core module as a component of the world that its bindings recorded in it.
///
/// # Errors
/// Where it is no such module, or it imports anything but [`ALLOWED_IMPORTS`].
pub(crate) fn encode(core: &[u8]) -> anyhow::Result<Vec<u8>> {
    let component = ComponentEncoder::default()
        .validate(true)
        .module(core)
        .context("reading the core module")?
        .encode()
        .context("encoding the component")?;
    check_imports(&component)?;
    Ok(component)
}

/// Refuses a component whose own imports go beyond the list. (Core modules within it import only
/// from each other and from what the component itself imports.)
fn check_imports(component: &[u8]) -> anyhow::Result<()> {
    let mut depth = 0u32;
    for payload in Parser::new(0).parse_all(component) {
        match payload.context("parsing the component")? {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let name = import.context("parsing an import")?.name.name;
                    if !ALLOWED_IMPORTS
                        .iter()
                        .any(|allowed| name.starts_with(allowed))
                    {
                        bail!("imports {name:?}, which no device provides");
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_module_are_refused() {
        assert!(encode(b"\0asm").is_err());
        assert!(encode(b"").is_err());
    }

    #[test]
    fn an_import_beyond_the_world_is_refused_by_name() {
        let mut component = wasm_encoder_free_component("wasi:clocks/x@0.2.0");
        let error = check_imports(&component).unwrap_err().to_string();
        assert!(error.contains("wasi:clocks/x@0.2.0"), "{error}");
        component = wasm_encoder_free_component("wasi:nn/x@0.2.0");
        check_imports(&component).unwrap();
    }

    /// A component, put together by hand, that has one empty instance type and imports it.
    fn wasm_encoder_free_component(name: &str) -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        bytes.extend([7, 3, 1, 0x42, 0]);
        let name_length = u8::try_from(name.len()).unwrap();
        bytes.extend([10, name_length + 5, 1, 0, name_length]);
        bytes.extend(name.as_bytes());
        bytes.extend([5, 0]);
        bytes
    }
}
