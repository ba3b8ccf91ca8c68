//! Builds the committed guest modules again, or checks that building gives the same bytes.
//!
//! Owns: which toolchain compiles the guests, with which flags, `modules/`, and the copies in package
//! folders. Never edits a
//! module by other means, and never falls back to another toolchain without saying so.

mod component;
mod packages;
mod record;
mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail};

use crate::record::Record;
use crate::toolchain::Toolchain;

/// Every module: an `[[example]]` of the guests' crate.
const MODULES: [&str; 7] = [
    "digits",
    "flaky",
    "greedy",
    "hang",
    "passthrough",
    "trap",
    "wrong",
];

fn main() -> anyhow::Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let (check, build) = match (arguments.next().as_deref(), arguments.next()) {
        (None, _) => (false, true),
        (Some("--check"), None) => (true, true),
        (Some("--packages"), None) => (false, false),
        _ => bail!("usage: rimward-build-modules [--check | --packages]"),
    };
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the builder's folder has no parent")?
        .to_owned();
    let root = workspace
        .parent()
        .context("the workspace's folder has no parent")?;
    if !build {
        println!(
            "{} files copied into package folders",
            packages::assemble(root)?
        );
        return Ok(ExitCode::SUCCESS);
    }
    let toolchain = Toolchain::find()?;
    eprintln!(
        "building {} modules with {}",
        MODULES.len(),
        toolchain.name()
    );
    let folder = toolchain.compile(&workspace)?;
    let built = MODULES
        .iter()
        .map(|&name| {
            let path = folder.join(format!("{name}.wasm"));
            let core = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let component = component::encode(&core).with_context(|| format!("module {name}"))?;
            Ok((name, component))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;

    let modules = workspace.join("modules");
    let record = Record::new(toolchain.name(), &built);
    if check {
        let mut findings = compare(&modules, &record)?;
        findings.extend(packages::differences(root));
        return Ok(report(&findings));
    }
    write(&modules, &record, &built)?;
    println!(
        "{} files copied into package folders",
        packages::assemble(root)?
    );
    Ok(ExitCode::SUCCESS)
}

/// Writes the modules and the record of how they were made.
fn write(modules: &Path, record: &Record, built: &[(&str, Vec<u8>)]) -> anyhow::Result<()> {
    fs::create_dir_all(modules).with_context(|| format!("making {}", modules.display()))?;
    for (name, bytes) in built {
        put(&modules.join(format!("{name}.wasm")), bytes)?;
        println!("{name}.wasm: {} bytes", bytes.len());
    }
    put(&record_path(modules), record.to_json()?.as_bytes())
}

/// Compares what was built with what is committed and says what differs.
fn compare(modules: &Path, built: &Record) -> anyhow::Result<Vec<String>> {
    let path = record_path(modules);
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let recorded = Record::parse(&text).with_context(|| format!("parsing {}", path.display()))?;
    let mut findings = recorded.differences_from_files(modules);
    findings.extend(recorded.differences_from(built));
    Ok(findings)
}

fn report(findings: &[String]) -> ExitCode {
    for finding in findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        println!(
            "{} modules and their copies: the same, byte for byte",
            MODULES.len()
        );
        return ExitCode::SUCCESS;
    }
    ExitCode::FAILURE
}

fn record_path(modules: &Path) -> PathBuf {
    modules.join("modules.json")
}

fn put(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    fs::write(path, bytes).with_context(|| format!("writing {}", path.display()))
}
