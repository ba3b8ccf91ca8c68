//! Looks at a module before it is compiled: is it a component, and what does it ask for?
//!
//! Refuses by name whatever is not part of the world of a module, so that a module that would like a
//! clock or a socket says so, and a million imports cost nothing.

use wasmparser::{Encoding, Parser, Payload};

use crate::proto::FailReason;

/// The largest module.
pub const MODULE_BYTES_MAX: u64 = 16 << 20;

/// All that a module may import.
const IMPORTS: [&str; 7] = [
    "wasi:nn/tensor@0.2.0-rc-2024-10-28",
    "wasi:nn/errors@0.2.0-rc-2024-10-28",
    "wasi:nn/inference@0.2.0-rc-2024-10-28",
    "wasi:nn/graph@0.2.0-rc-2024-10-28",
    "rimward:inference/errors@0.1.0",
    "rimward:inference/tensors@0.1.0",
    "rimward:inference/host@0.1.0",
];

/// What a module must export.
const EXPORT: &str = "rimward:inference/handler@0.1.0";

/// What a module must not be, with the reason to report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(super) struct Refused {
    /// From the closed list.
    pub reason: FailReason,
    /// What and where.
    pub message: String,
}

fn refused(reason: FailReason, message: impl Into<String>) -> Refused {
    Refused {
        reason,
        message: message.into(),
    }
}

/// Checks form, imports and exports; reads the file once, in place.
pub(super) fn check(module: &[u8]) -> Result<(), Refused> {
    let unreadable = |error: wasmparser::BinaryReaderError| {
        refused(FailReason::CompileFailed, format!("module: {error}"))
    };
    let (mut depth, mut exported) = (0usize, false);
    for payload in Parser::new(0).parse_all(module) {
        match payload.map_err(unreadable)? {
            Payload::Version {
                encoding: Encoding::Module,
                ..
            } if depth == 0 => {
                return Err(refused(
                    FailReason::CompileFailed,
                    "module is a core module, not a component",
                ));
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(imports) if depth == 0 => {
                for import in imports {
                    let name = import.map_err(unreadable)?.name.name;
                    if !IMPORTS.contains(&name) {
                        let name: String = name.chars().take(128).collect();
                        return Err(refused(
                            FailReason::ImportRefused,
                            format!("module imports {name}, which no module is given"),
                        ));
                    }
                }
            }
            Payload::ComponentExportSection(exports) if depth == 0 => {
                for export in exports {
                    exported |= export.map_err(unreadable)?.name.name == EXPORT;
                }
            }
            _ => {}
        }
    }
    if exported {
        return Ok(());
    }
    Err(refused(
        FailReason::ExportMissing,
        format!("module does not export {EXPORT}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component with one section, hand-assembled: id and body.
    fn component(section: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        bytes.push(section);
        bytes.push(body.len() as u8);
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn an_import_outside_the_world_is_refused_by_name() {
        // One import of an instance type (index 0), as `wasi:cli/environment@0.2.0`.
        let name = b"wasi:cli/environment@0.2.0";
        let mut body = vec![1, 0, name.len() as u8];
        body.extend_from_slice(name);
        body.extend_from_slice(&[5, 0]);
        let error = check(&component(10, &body)).unwrap_err();
        assert_eq!(error.reason, FailReason::ImportRefused);
        assert!(
            error.message.contains("wasi:cli/environment@0.2.0"),
            "{error}"
        );
    }

    #[test]
    fn a_core_module_an_empty_component_and_noise_are_told_apart() {
        assert_eq!(
            check(b"\0asm\x01\0\0\0").unwrap_err().reason,
            FailReason::CompileFailed
        );
        assert_eq!(
            check(b"\0asm\x0d\0\x01\0").unwrap_err().reason,
            FailReason::ExportMissing
        );
        assert_eq!(
            check(b"#!/bin/sh").unwrap_err().reason,
            FailReason::CompileFailed
        );
        assert_eq!(check(b"").unwrap_err().reason, FailReason::CompileFailed);
    }

    #[test]
    fn the_built_in_module_passes() {
        check(crate::host::PASS_THROUGH).unwrap();
    }

    #[test]
    fn every_truncation_of_a_real_module_is_refused_without_a_panic() {
        let module = crate::host::PASS_THROUGH;
        for length in (0..module.len()).step_by(97) {
            let _ = check(&module[..length]);
        }
    }
}
