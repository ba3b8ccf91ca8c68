//! `cargo xtask demo`, `cargo xtask bench` and `cargo xtask fleet`: build what they run, then become it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{images, prepare, step, tools};

/// Rimward's own binaries.
const EVERYTHING: &[&str] = &["rimward-operator", "rimward-node-agent", "kubectl-rimward"];

/// Names the folder with a layout of each image, for the harness.
const IMAGES: &str = "RIMWARD_IMAGES";

/// Runs `cargo xtask demo [--pods] [--short] [--keep]`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if arguments.iter().any(|argument| argument == "--pods") {
        return on_pods(arguments).context(
            "`cargo xtask demo`, without --pods, tells the same story and needs none of this",
        );
    }
    become_program(
        "the demo",
        "rimward-demo",
        "dev",
        EVERYTHING,
        tools::FOR_DEMO,
        arguments,
    )
}

/// The demo on real pods: it needs what a node consists of, and images.
fn on_pods(arguments: &[String]) -> Result<()> {
    ensure!(
        tools::packages::is_root()?,
        "--pods starts real nodes, for which it needs root: network and mount namespaces, control groups"
    );
    tools::packages::require("run real pods", tools::packages::FOR_PODS)?;
    let mut namespaces = Command::new("unshare");
    namespaces.args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "--",
        "true",
    ]);
    let outcome = namespaces.output().context("running unshare")?;
    ensure!(
        outcome.status.success(),
        "--pods starts real nodes in namespaces of their own, and this machine allows none: {}",
        String::from_utf8_lossy(&outcome.stderr).trim()
    );
    let mounts =
        std::fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    ensure!(
        mounts.lines().any(|line| line.contains(" cgroup")),
        "--pods starts real nodes, and no control groups are mounted here (/sys/fs/cgroup)"
    );
    let mut build = step::cargo(&["build", "--locked", "--workspace", "--bins"]);
    let parts = [tools::FOR_DEMO, tools::FOR_PODS, tools::FOR_CHARTS].concat();
    let parts = prepare::run("the demo on real pods", &parts, &mut build)?;
    let folder = step::target_folder()?.join("images-test");
    images::build(&images::Options::for_tests(&folder)?)?;
    let mut program = Command::new(program("dev", "rimward-demo")?);
    program.env(IMAGES, &folder);
    become_command(program, arguments, &parts)
}

/// Runs `cargo xtask fleet N`. Thousands of sessions share this machine's cores with the hub: optimised.
pub(crate) fn fleet(arguments: &[String]) -> Result<()> {
    become_program(
        "a simulated fleet",
        "rimward-fleet",
        "release",
        &["rimward-operator", "kubectl-rimward"],
        tools::FOR_HUB,
        arguments,
    )
}

/// Runs `cargo xtask bench [NAME]...`. Speed is measured on optimised binaries.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    let is_all = !arguments.iter().any(|argument| !argument.starts_with("--"));
    let is_named = |name: &str| arguments.iter().any(|argument| argument == name);
    // What needs root is left out where nobody asked for it by name.
    let installs = is_named("install") || is_all && tools::packages::is_root()?;
    let mut parts = tools::FOR_DEMO.to_vec();
    if is_all || is_named("rest") || installs {
        parts.extend(tools::PEERS);
    }
    // xtask makes the release that is installed.
    let needs = [EVERYTHING, &["xtask"]].concat();
    let mut build = build("release", &needs, "rimward-bench");
    let program = program("release", "rimward-bench")?;
    let mut program = Command::new(program);
    if installs {
        tools::packages::require("run real pods", tools::packages::FOR_PODS)?;
        parts.extend(tools::FOR_PODS.iter().chain(tools::FOR_CHARTS));
    }
    let parts = prepare::run("the benchmark", &parts, &mut build)?;
    // Those that somebody names are taken as they are.
    if installs && std::env::var_os(IMAGES).is_none() {
        let folder = step::target_folder()?.join("images-bench");
        images::build(&images::Options::for_bench(&folder)?)?;
        program.env(IMAGES, &folder);
    }
    become_command(program, arguments, &parts)
}

/// Replaces this process, so that Ctrl-C reaches the program and the shell waits for its clean-up.
fn become_program(
    what_for: &str,
    name: &str,
    profile: &str,
    needs: &[&str],
    parts: &[&str],
    arguments: &[String],
) -> Result<()> {
    let mut build = build(profile, needs, name);
    let parts = prepare::run(what_for, parts, &mut build)?;
    become_command(Command::new(program(profile, name)?), arguments, &parts)
}

fn build(profile: &str, needs: &[&str], name: &str) -> Command {
    let mut build = step::cargo(&["build", "--locked", "--workspace", "--profile", profile]);
    // The whole workspace, so that features are those of the tests; these binaries, so that nothing is built in vain.
    for binary in needs.iter().copied().chain([name]) {
        build.args(["--bin", binary]);
    }
    build
}

fn program(profile: &str, name: &str) -> Result<PathBuf> {
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(step::target_folder()?.join(folder).join(name))
}

fn become_command(
    mut program: Command,
    arguments: &[String],
    parts: &tools::Installed,
) -> Result<()> {
    let error = program
        .args(arguments)
        .current_dir(step::root())
        .envs(parts.environment())
        .exec();
    Err(error).with_context(|| format!("starting {}", program.get_program().display()))
}
