//! `cargo xtask demo`: the whole story on real parts, each step checked, with the commands that a user types.
//!
//! Owns the order of the story. It ends in bounded time and leaves nothing behind, after Ctrl-C too, unless
//! `--keep` asks for it.

mod away;
mod bad;
mod first;
mod narrate;
mod pods;
mod stage;
mod upgrade;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::narrate::Narrator;
use crate::stage::Stage;

/// A demo that takes longer than this hangs.
const WITHIN: Duration = Duration::from_secs(1200);

const USAGE: &str = "usage: cargo xtask demo [--pods] [--short] [--keep]

  --pods   on real pods: images, charts, helm, two clusters of a real node each; needs root
  --short  up to the first bad model that is stopped
  --keep   leave everything running when the story is told, until Ctrl-C";

/// What is asked for.
#[derive(Debug, Default)]
struct Asked {
    pods: bool,
    short: bool,
    keep: bool,
}

fn main() -> ExitCode {
    match arguments().and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nError: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn arguments() -> Result<Asked> {
    let mut asked = Asked::default();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--pods" => asked.pods = true,
            "--short" => asked.short = true,
            "--keep" => asked.keep = true,
            "-h" | "--help" => {
                println!("{USAGE}");
                std::process::exit(0);
            }
            other => bail!("unknown argument {other:?}; {USAGE}"),
        }
    }
    Ok(asked)
}

fn run(asked: Asked) -> Result<()> {
    rimward_e2e::guard::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(async {
        match tokio::time::timeout(WITHIN, tell(&asked)).await {
            Ok(outcome) => rest(outcome?, asked.keep).await,
            Err(_) => bail!("the demo did not end within {} s", WITHIN.as_secs()),
        }
    });
    if outcome.is_err() {
        rimward_e2e::guard::keep_all_folders();
    }
    outcome
}

async fn tell(asked: &Asked) -> Result<Stage> {
    let narrator = Narrator::new();
    let mut stage = if asked.pods {
        Stage::set_pods(&narrator).await?
    } else {
        Stage::set(&narrator).await?
    };
    first::clusters_join(&narrator, &mut stage).await?;
    first::a_model_is_packed_and_signed(&narrator, &stage).await?;
    first::the_model_reaches_every_node(&narrator, &stage).await?;
    upgrade::a_better_release_rolls_out_under_load(&narrator, &stage).await?;
    bad::a_wrong_release_stops_in_preflight(&narrator, &stage).await?;
    if asked.short {
        narrator.chapter("So far in short");
        return Ok(stage);
    }
    bad::a_flaky_release_is_taken_back_by_the_nodes(&narrator, &stage).await?;
    bad::an_unsigned_release_is_refused(&narrator, &stage).await?;
    away::the_hub_goes_away(&narrator, &stage).await?;
    narrator.chapter("That was Rimward");
    Ok(stage)
}

/// Ends, or leaves everything running until Ctrl-C.
async fn rest(stage: Stage, keep: bool) -> Result<()> {
    if !keep {
        return Ok(());
    }
    stage.explain_how_to_reach(&Narrator::new())?;
    // Ctrl-C ends the process by way of the guard, which cleans up; a second handler would race with it.
    std::future::pending().await
}
