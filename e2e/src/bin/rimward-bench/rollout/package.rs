//! Releases that differ in every file, and answer the same.

use std::path::Path;

use anyhow::{Context, Result};
use rimward_e2e::command::Line;
use rimward_e2e::digits::repository;
use rimward_e2e::system::System;

/// Packs, pushes and signs release `number`; the image's name by tag.
pub(super) async fn release(system: &System, number: u32) -> Result<String> {
    let folder = system
        .fleet
        .scratch
        .folder(&format!("digits-1.0.{number}"))?;
    copy(
        &repository().join("examples/packages/digits-1.0.0"),
        &folder,
        number,
    )?;
    let (registry, tag) = (
        system.fleet.registry.host(),
        format!("models/digits:1.0.{number}"),
    );
    let typed = async |line: Line| line.run().await;
    let reference = system.package(&folder, &registry, &tag, typed).await?;
    system.fleet.cosign.sign(&reference).await?;
    Ok(format!("{registry}/{tag}"))
}

fn copy(from: &Path, to: &Path, number: u32) -> Result<()> {
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        let mut bytes = std::fs::read(entry.path())?;
        let name = entry.file_name();
        match name.to_str() {
            Some("rimward.yaml") => {
                bytes = numbered(&String::from_utf8(bytes)?, number).into_bytes();
            }
            Some("module.wasm") => bytes.extend(custom_section(number)),
            Some("model.onnx") => bytes.extend(doc_string(number)),
            _ => {}
        }
        std::fs::write(to.join(name), bytes)?;
    }
    Ok(())
}

fn numbered(text: &str, number: u32) -> String {
    let line = |line: &str| match line.split_once(':') {
        Some(("version", _)) => format!("version: 1.0.{number}\n"),
        Some(("releaseCounter", _)) => format!("releaseCounter: {}\n", number + 1),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A section of WebAssembly that means nothing.
fn custom_section(number: u32) -> Vec<u8> {
    let mut section = vec![0, 10, 5];
    section.extend(b"bench");
    section.extend(number.to_le_bytes());
    section
}

/// The field of ONNX's ModelProto that holds a comment.
fn doc_string(number: u32) -> Vec<u8> {
    let text = format!("release {number:05}");
    let mut field = vec![0x32, text.len() as u8];
    field.extend(text.as_bytes());
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_fields_say_their_own_length() {
        let section = custom_section(7);
        assert_eq!(usize::from(section[1]), section.len() - 2);
        let field = doc_string(7);
        assert_eq!(usize::from(field[1]), field.len() - 2);
    }
}
