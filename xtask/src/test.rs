//! `cargo xtask test`: everything that CI checks, in order of how soon it can fail.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

use crate::images::Arch;
use crate::{emulate, images, layers, prepare, step, tools};

const USAGE: &str = "usage: cargo xtask test [--unit | --arch arm64] [-- FILTER]...

  --unit   leave out the end-to-end stories and the real parts that they need
  --arch   only stories of a device, with the agent of that processor's image in an emulator; not in CI: the release
           build takes 20 min or more, the stories up to 9
  FILTER   run only the stories whose names contain it";

/// Names the file that each story adds how long it took to; the harness knows it too.
const STORIES_LOG: &str = "RIMWARD_STORIES_LOG";
/// Names the folder with a layout of each image, which the harness pushes.
const IMAGES: &str = "RIMWARD_IMAGES";
/// Names another agent than the one that cargo built.
const AGENT: &str = "RIMWARD_BIN_RIMWARD_NODE_AGENT";
/// Stories that are named at the end.
const SLOWEST: usize = 10;

/// Runs `cargo xtask test`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let (options, filters) = match arguments.iter().position(|argument| argument == "--") {
        Some(dashes) => (&arguments[..dashes], &arguments[dashes + 1..]),
        None => (arguments, &[][..]),
    };
    let mut stories = true;
    let mut options = options.iter();
    while let Some(option) = options.next() {
        match option.as_str() {
            "--unit" => stories = false,
            "--arch" => {
                let arch = options.next().context("--arch needs a value: arm64")?;
                return emulated(Arch::parse(arch)?, filters);
            }
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
        self::stories(filters, None)?;
    }
    Ok(())
}

/// The same stories, only that the agent is another processor's. What starts it and asks it is this machine's.
fn emulated(arch: Arch, filters: &[String]) -> Result<()> {
    let agent = emulate::agent(arch)?;
    let all = [emulate::STORIES.to_owned()];
    let filters = if filters.is_empty() { &all } else { filters };
    stories(filters, Some(&agent))
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

/// What names of stories with real pods begin with.
const PODS: &str = "pods";

/// The parts that the stories need; what they need of Debian is installed. Real pods take root: without it their stories say
/// so and are left out, and nothing is built for them.
fn parts(filters: &[String]) -> Result<Vec<&'static str>> {
    let is_asked_for = |filter: &String| filter.contains(PODS) || PODS.contains(filter.as_str());
    let mut names = tools::FOR_TESTS.to_vec();
    if filters.is_empty() || filters.iter().any(is_asked_for) {
        if tools::packages::is_root()? {
            tools::packages::require("run real pods", tools::packages::FOR_PODS)?;
            names.extend(tools::FOR_PODS);
        } else {
            eprintln!("==> this is not root: the stories on real nodes ({PODS}_*) are left out");
        }
    }
    Ok(names)
}

/// Runs the stories, with another agent than cargo's if one is named.
fn stories(filters: &[String], agent: Option<&Path>) -> Result<()> {
    let mut build = step::cargo(&["build", "--workspace", "--locked", "--bins"]);
    let parts = prepare::run("the end-to-end stories", &parts(filters)?, &mut build)?;
    let images = step::target_folder()?.join("images-test");
    images::build(&images::Options::for_tests(&images)?)?;
    let mut command = step::cargo(&["test", "--workspace", "--locked", "--test", "stories", "--"]);
    // Two cores: more stories at once only wait for each other.
    command
        .arg("--test-threads=2")
        .args(filters)
        .envs(parts.environment())
        .env(IMAGES, &images);
    if let Some(agent) = agent {
        command.env(AGENT, agent);
    }
    let log = step::target_folder()?.join("stories.log");
    // Of this run alone.
    std::fs::write(&log, "").with_context(|| format!("writing {}", log.display()))?;
    let outcome = step::run("end-to-end stories", command.env(STORIES_LOG, &log));
    print_slowest(&log)?;
    outcome
}

/// Says which stories took longest, failed ones too.
fn print_slowest(log: &Path) -> Result<()> {
    let text =
        std::fs::read_to_string(log).with_context(|| format!("reading {}", log.display()))?;
    let slowest = slowest(&text);
    eprintln!("==> the {} slowest stories", slowest.len());
    for (milliseconds, name) in slowest {
        let seconds = milliseconds / 1000;
        eprintln!("    {seconds:>4}.{} s  {name}", milliseconds % 1000 / 100);
    }
    Ok(())
}

/// The longest first. A line that says something else is left out.
fn slowest(log: &str) -> Vec<(u64, &str)> {
    let lines = log.lines().filter_map(|line| line.split_once(' '));
    let mut stories: Vec<(u64, &str)> = lines
        .filter_map(|(milliseconds, name)| Some((milliseconds.parse().ok()?, name)))
        .collect();
    stories.sort_by(|one, other| other.cmp(one));
    stories.truncate(SLOWEST);
    stories
}

#[cfg(test)]
mod tests {
    use super::slowest;

    #[test]
    fn the_ten_slowest_stories_come_longest_first() {
        let log: String = (1..=12)
            .map(|number| format!("{number}00 s{number}\n"))
            .collect();
        let slowest = slowest(&log);
        assert_eq!(slowest.len(), 10);
        assert_eq!(slowest[0], (1200, "s12"));
        assert_eq!(slowest[9], (300, "s3"));
    }

    #[test]
    fn a_line_that_is_cut_off_hides_no_other() {
        assert_eq!(slowest("5 a\nnonsense\n7 b\n"), [(7, "b"), (5, "a")]);
    }
}
