//! `cargo xtask test`: everything that CI checks, in order of how soon it can fail.

use anyhow::{Result, bail};

use crate::{layers, step, tools};

const USAGE: &str = "usage: cargo xtask test [--unit] [-- FILTER]...

  --unit   leave out the end-to-end stories and the real parts that they need
  FILTER   run only the stories whose names contain it";

/// Runs `cargo xtask test`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (options, filters) = match arguments.iter().position(|argument| argument == "--") {
        Some(dashes) => (&arguments[..dashes], &arguments[dashes + 1..]),
        None => (arguments, &[][..]),
    };
    let mut stories = true;
    for option in options {
        match option.as_str() {
            "--unit" => stories = false,
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => bail!("unknown argument {other:?}; {USAGE}"),
        }
    }
    check()?;
    step::run(
        "unit and property tests",
        // The whole workspace each time: another choice of packages means other features, and every
        // dependency built once more.
        &mut step::cargo(&[
            "test",
            "--workspace",
            "--locked",
            "--lib",
            "--bins",
            "--test",
            "it",
        ]),
    )?;
    guests()?;
    if stories {
        self::stories(filters)?;
    }
    Ok(())
}

/// The workspace of the guest modules: its native parts, for which no wasm toolchain is needed.
fn guests() -> Result<()> {
    let manifest = ["--manifest-path", "wasm-models/Cargo.toml"];
    step::run(
        "format of wasm-models",
        step::cargo(&["fmt", "--all", "--check"]).args(manifest),
    )?;
    let target = step::target_folder()?.join("wasm-models");
    step::run(
        "clippy of wasm-models",
        step::cargo(&["clippy", "--quiet", "--all-targets", "--locked"])
            .args(manifest)
            .args(["--", "-D", "warnings"])
            .env("CARGO_TARGET_DIR", &target),
    )?;
    step::run(
        "unit tests of wasm-models",
        step::cargo(&["test", "--quiet", "--locked"])
            .args(manifest)
            .env("CARGO_TARGET_DIR", &target),
    )
}

/// What needs no running part: format, lints, import edges. Generated files are compared by a unit test.
fn check() -> Result<()> {
    step::run("format", &mut step::cargo(&["fmt", "--all", "--check"]))?;
    layers::run(&[])?;
    step::run(
        "clippy",
        &mut step::cargo(&[
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--locked",
            "--",
            "-D",
            "warnings",
        ]),
    )
}

fn stories(filters: &[String]) -> Result<()> {
    let parts = tools::ensure(tools::FOR_TESTS)?;
    step::run(
        "binaries",
        &mut step::cargo(&["build", "--quiet", "--workspace", "--locked", "--bins"]),
    )?;
    let mut command = step::cargo(&["test", "--workspace", "--locked", "--test", "stories", "--"]);
    // Two cores: more stories at once only wait for each other.
    command
        .arg("--test-threads=2")
        .args(filters)
        .envs(parts.environment());
    step::run("end-to-end stories", &mut command)
}
