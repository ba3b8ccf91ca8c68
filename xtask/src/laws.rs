//! `cargo xtask laws`: core's law tests in release mode, on fresh seeds, again and again for so many minutes.
//!
//! Owns the time and the seeds; the laws are core's own tests. What it agrees on with them (core/tests/it):
//!
//! - `RIMWARD_SEED_FIRST` and `RIMWARD_SEEDS` say which histories a run plays: so many from that one on.
//!   `RIMWARD_SEED` plays that one alone. `RIMWARD_LAWS_MINUTES` is the time that is left, for tests that go by it.
//! - A test that plans prints `planner steps: N` at its end.
//! - A test that fails prints `RIMWARD_SEED=N`, which replays it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

use crate::step;

const USAGE: &str = "usage: cargo xtask laws [--minutes N] [--seeds N] [--first SEED]

  --minutes N    how long; 10 by default
  --seeds N      histories in each run of the tests; 500 by default
  --first SEED   the first seed; by default one that no run had before";

/// Lines of a failed run that are shown.
const LINES_SHOWN: usize = 60;

/// What was asked for.
struct Asked {
    minutes: u64,
    seeds: u64,
    first: u64,
}

/// Runs `cargo xtask laws`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    let Some(asked) = parse(arguments)? else {
        println!("{USAGE}");
        return Ok(());
    };
    let program = build()?;
    let ends = Instant::now() + Duration::from_secs(asked.minutes.saturating_mul(60));
    let (mut steps, mut runs, mut first) = (0_u64, 0_u64, asked.first);
    eprintln!("==> laws: {} minutes from seed {first} on", asked.minutes);
    while runs == 0 || Instant::now() < ends {
        let left = ends.saturating_duration_since(Instant::now()).as_secs() / 60;
        let output = Command::new(&program)
            .arg("--nocapture")
            .current_dir(step::root().join("core"))
            .env_remove("RIMWARD_SEED")
            .env("RIMWARD_SEED_FIRST", first.to_string())
            .env("RIMWARD_SEEDS", asked.seeds.to_string())
            .env("RIMWARD_LAWS_MINUTES", left.to_string())
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("starting {program}"))?;
        let said =
            [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
        let said = said.join("\n");
        steps = steps.saturating_add(steps_in(&said));
        runs += 1;
        if !output.status.success() {
            bail!("{}", told(&said, steps));
        }
        first = first.saturating_add(asked.seeds);
        eprintln!("    {runs} runs, {steps} planner steps, seeds up to {first}");
    }
    println!(
        "laws hold: {steps} planner steps in {runs} runs, seeds {} to {first}",
        asked.first
    );
    Ok(())
}

fn parse(arguments: &[String]) -> Result<Option<Asked>> {
    let mut asked = Asked {
        minutes: 10,
        seeds: 500,
        first: fresh(),
    };
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let field = match argument.as_str() {
            "--minutes" => &mut asked.minutes,
            "--seeds" => &mut asked.seeds,
            "--first" => &mut asked.first,
            "-h" | "--help" => return Ok(None),
            other => bail!("unknown argument {other:?}; {USAGE}"),
        };
        let number = arguments.next().and_then(|number| number.parse().ok());
        *field = number.with_context(|| format!("{argument} needs a number; {USAGE}"))?;
    }
    Ok(Some(asked))
}

/// A seed that no earlier run had: nanoseconds, so that even runs in one second differ.
fn fresh() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let nanoseconds = since.map_or(0, |since| since.as_nanos());
    u64::try_from(nanoseconds / 1000).unwrap_or(0)
}

/// Builds the tests and says where they are.
fn build() -> Result<String> {
    eprintln!("==> building core's tests");
    let mut command = step::cargo(&[
        "test",
        "--release",
        "--locked",
        "-p",
        "rimward-core",
        "--test",
        "it",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ]);
    let output = command
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("core's tests do not build");
    }
    let said = String::from_utf8_lossy(&output.stdout);
    executable(&said).context("cargo does not say where it put core's tests")
}

/// The last program that cargo says it made.
fn executable(said: &str) -> Option<String> {
    let after = |line: &str| -> Option<String> {
        let (_, rest) = line.split_once("\"executable\":\"")?;
        rest.split_once('"').map(|(path, _)| path.to_owned())
    };
    said.lines().filter_map(after).next_back()
}

/// What the tests say they planned, summed.
fn steps_in(said: &str) -> u64 {
    said.lines()
        .filter_map(|line| line.trim().split_once("planner steps: "))
        .filter_map(|(_, number)| number.trim().parse::<u64>().ok())
        .sum()
}

/// A failed run in short: its end, and how to see it again.
fn told(said: &str, steps: u64) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let end = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
    let mut seeds: Vec<&str> = said
        .match_indices("RIMWARD_SEED=")
        .filter_map(|(at, _)| {
            said[at..]
                .split(|c: char| c.is_whitespace() || c == '`')
                .next()
        })
        .collect();
    seeds.sort_unstable();
    seeds.dedup();
    let replay = if seeds.is_empty() {
        "no seed was printed; the input above replays it".to_owned()
    } else {
        let each = seeds.iter().map(|seed| {
            format!("replay: {seed} cargo test --release -p rimward-core --test it -- --nocapture")
        });
        each.collect::<Vec<_>>().join("\n")
    };
    format!("a law was broken after {steps} planner steps\n\n{end}\n\n{replay}")
}

#[cfg(test)]
mod tests {
    use super::{executable, steps_in, told};

    #[test]
    fn planner_steps_are_summed_over_tests() {
        let said = "running 2 tests\nplanner steps: 120\ntest a ... planner steps: 30\nok\nplanner steps: x\n";
        assert_eq!(steps_in(said), 150);
    }

    #[test]
    fn a_failure_says_which_seed_replays_it_once() {
        let said = "the history of RIMWARD_SEED=42 broke a promise\nagain: `RIMWARD_SEED=42`\n";
        let told = told(said, 7);
        assert_eq!(
            told.matches("replay: RIMWARD_SEED=42 cargo test").count(),
            1,
            "{told}"
        );
        assert!(told.starts_with("a law was broken after 7 planner steps"));
    }

    #[test]
    fn the_program_is_found_in_what_cargo_says() {
        let said = "{\"reason\":\"compiler-artifact\",\"executable\":null}\n{\"executable\":\"/t/it-1\",\"fresh\":true}\n";
        assert_eq!(executable(said).as_deref(), Some("/t/it-1"));
    }
}
