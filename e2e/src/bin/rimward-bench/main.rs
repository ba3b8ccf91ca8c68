//! `cargo xtask bench [NAME]...`: measures, each side beside its peer or limit, in one run.
//!
//! Owns the order, and the page `docs/benchmarks.md`, which a run of all benchmarks writes whole. A run of
//! some prints what it found and writes nothing, so that the page is always of one run on one machine.

mod client;
mod echo;
mod fault;
mod machine;
mod memory;
mod paced;
mod processes;
mod report;
mod request;
mod rollout;
mod stats;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::report::Section;

/// A run that takes longer than this hangs.
const WITHIN: Duration = Duration::from_secs(1200);

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
];

fn main() -> ExitCode {
    match arguments().and_then(|asked| asked.map_or(Ok(()), |names| run(&names))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nError: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The benchmarks that are asked for; none when the process was started for something else, which is done.
fn arguments() -> Result<Option<Vec<&'static str>>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, address] = arguments.as_slice()
        && flag == "--serve-echo"
    {
        echo::serve(address)?;
        return Ok(None);
    }
    let mut names = Vec::new();
    for argument in &arguments {
        if matches!(argument.as_str(), "-h" | "--help") {
            println!("{}", usage());
            return Ok(None);
        }
        match BENCHMARKS.iter().find(|(name, _)| name == argument) {
            Some((name, _)) => names.push(*name),
            None => bail!("there is no benchmark {argument:?}\n{}", usage()),
        }
    }
    Ok(Some(names))
}

fn usage() -> String {
    let mut text = "usage: cargo xtask bench [NAME]...\n\nAll of them, into docs/benchmarks.md, or some, onto the terminal:\n".to_owned();
    for (name, about) in BENCHMARKS {
        text += &format!("  {name:<8} {about}\n");
    }
    text
}

fn run(names: &[&str]) -> Result<()> {
    if cfg!(debug_assertions) {
        bail!("this binary is not optimised: `cargo xtask bench` builds the right one");
    }
    rimward_e2e::guard::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match tokio::time::timeout(WITHIN, measure(names)).await {
            Ok(outcome) => outcome,
            Err(_) => bail!("the benchmarks did not end within {} s", WITHIN.as_secs()),
        }
    });
    if outcome.is_err() {
        rimward_e2e::guard::keep_all_folders();
    }
    outcome
}

async fn measure(names: &[&str]) -> Result<()> {
    let facts = machine::facts().await?;
    let mut sections = Vec::new();
    for (name, about) in BENCHMARKS {
        if !names.is_empty() && !names.contains(name) {
            continue;
        }
        eprintln!("==> {name}: {about}");
        let started = Instant::now();
        let section = one(name)
            .await
            .with_context(|| format!("benchmark {name}"))?;
        eprintln!("    {name}: {} s", started.elapsed().as_secs());
        sections.push(section);
    }
    let page = report::page(&facts, &sections);
    if !names.is_empty() {
        print!("{page}");
        return Ok(());
    }
    let path = rimward_e2e::digits::repository().join("docs/benchmarks.md");
    std::fs::write(&path, page).with_context(|| format!("writing {}", path.display()))?;
    eprintln!("==> wrote docs/benchmarks.md");
    Ok(())
}

async fn one(name: &str) -> Result<Section> {
    match name {
        "request" => request::run().await,
        "memory" => memory::run().await,
        "rollout" => rollout::run().await,
        "fault" => fault::run().await,
        other => bail!("there is no benchmark {other:?}"),
    }
}
