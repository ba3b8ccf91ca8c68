//! `cargo xtask bench [NAME]...`: measures, each side beside its peer or limit, in one run.
//!
//! Owns the order, and the page `docs/benchmarks.md`, which a run of all benchmarks writes whole. A run of some
//! prints what it found; with `--into-page` it puts its sections in their place there, each with its own date and
//! load, since the rest of the page is of another run.

mod client;
mod echo;
mod fault;
mod fleet;
mod install;
mod machine;
mod memory;
mod paced;
mod peer;
mod processes;
mod report;
mod request;
mod rest;
mod rollout;
mod stats;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::report::Section;

/// A run that takes longer than this hangs.
const WITHIN: Duration = Duration::from_secs(2400);
/// The same with the big fleets.
const LONG_WITHIN: Duration = Duration::from_secs(5400);

/// Each benchmark by name, with what it measures.
const BENCHMARKS: &[(&str, &str)] = &[
    ("request", "a small request beside a bare axum echo"),
    ("memory", "resident memory of supervisor and host"),
    (
        "rollout",
        "kubectl apply to the last node's first prediction, by part",
    ),
    (
        "fault",
        "a flaky release and a killed host, to good answers",
    ),
    (
        "rest",
        "requests to API servers per minute while nothing happens",
    ),
    (
        "install",
        "helm install to the first prediction on a real node, by part; needs root",
    ),
    (
        "fleet",
        "the fleet's planner by itself; a hub with 100 simulated sites, with --long 1,000 too",
    ),
];

fn main() -> ExitCode {
    match arguments().and_then(|asked| asked.map_or(Ok(()), |asked| run(&asked))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nError: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is asked for.
#[derive(Debug, Default)]
struct Asked {
    /// All if there are none.
    names: Vec<&'static str>,
    /// Big fleets too.
    long: bool,
    /// The sections go into the page though the others are not measured.
    into_page: bool,
}

/// The benchmarks that are asked for; none when the process was started for something else, which is done.
fn arguments() -> Result<Option<Asked>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, address] = arguments.as_slice()
        && flag == "--serve-echo"
    {
        echo::serve(address)?;
        return Ok(None);
    }
    if let [flag, clusters, deployments] = arguments.as_slice()
        && flag == fleet::planner::FLAG
    {
        fleet::planner::child(clusters, deployments)?;
        return Ok(None);
    }
    let mut asked = Asked::default();
    for argument in &arguments {
        match argument.as_str() {
            "--long" => asked.long = true,
            "--into-page" => asked.into_page = true,
            _ => {}
        }
        if argument.starts_with("--") && argument != "--help" {
            let known = ["--long", "--into-page"].contains(&argument.as_str());
            ensure!(known, "unknown flag {argument}\n{}", usage());
            continue;
        }
        if matches!(argument.as_str(), "-h" | "--help") {
            println!("{}", usage());
            return Ok(None);
        }
        match BENCHMARKS.iter().find(|(name, _)| name == argument) {
            Some((name, _)) => asked.names.push(*name),
            None => bail!("there is no benchmark {argument:?}\n{}", usage()),
        }
    }
    Ok(Some(asked))
}

fn usage() -> String {
    let mut text = "usage: cargo xtask bench [--long] [--into-page] [NAME]...\n\nAll of them, into docs/benchmarks.md, or some, onto the terminal:\n".to_owned();
    for (name, about) in BENCHMARKS {
        text += &format!("  {name:<8} {about}\n");
    }
    text
}

fn run(asked: &Asked) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!("this binary is not optimised: `cargo xtask bench` builds the right one");
    }
    rimward_e2e::guard::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        let within = if asked.long { LONG_WITHIN } else { WITHIN };
        match tokio::time::timeout(within, measure(asked)).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the benchmarks did not end within {} s", within.as_secs()),
        }
    });
    if outcome.is_err() {
        rimward_e2e::guard::keep_all_folders();
    }
    outcome
}

async fn measure(asked: &Asked) -> Result<()> {
    let names = &asked.names;
    let facts = machine::facts().await?;
    let mut sections = Vec::new();
    for (name, about) in BENCHMARKS {
        if !names.is_empty() && !names.contains(name) {
            continue;
        }
        if *name == "install" && names.is_empty() && !rimward_e2e::node::is_root() {
            eprintln!("==> {name} is left out: real nodes need root");
            continue;
        }
        eprintln!("==> {name}: {about}");
        let started = Instant::now();
        let found = one(name, asked.long)
            .await
            .with_context(|| format!("benchmark {name}"))?;
        eprintln!("    {name}: {} s", started.elapsed().as_secs());
        sections.extend(found);
    }
    let path = rimward_e2e::digits::repository().join("docs/benchmarks.md");
    let page = if names.is_empty() {
        report::page(&facts, &sections)
    } else if asked.into_page {
        let before = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        report::merged(&before, &facts, &sections)
    } else {
        print!("{}", report::page(&facts, &sections));
        return Ok(());
    };
    std::fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("==> wrote docs/benchmarks.md");
    Ok(())
}

async fn one(name: &str, long: bool) -> Result<Vec<Section>> {
    let section = match name {
        "request" => request::run().await,
        "memory" => memory::run().await,
        "rollout" => rollout::run().await,
        "fault" => fault::run().await,
        "rest" => rest::run().await,
        "install" => install::run().await,
        "fleet" => return fleet::run(long).await,
        other => bail!("there is no benchmark {other:?}"),
    };
    Ok(vec![section?])
}
