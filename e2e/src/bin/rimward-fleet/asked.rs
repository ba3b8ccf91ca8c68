//! The flags of `cargo xtask fleet`.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rimward_e2e::simulated::{Faults, Plan};

pub(crate) const USAGE: &str = "usage: cargo xtask fleet N [FLAG]...

  --clusters-only          the hub knows N clusters, no session runs
  --nodes N                nodes of each site [1]
  --canaries N             sites with the label ring=canary [1]
  --deployments N          deployments to begin with, on all sites [1]
  --heartbeat-seconds N    between two heartbeats of a site [30]
  --staging-ms N           from a node's go-ahead to its trial [500]
  --trial-ms N             how long its trial takes [500]
  --silences-site TEXT     releases that kill each site they reach
  --silences-node TEXT     releases that kill each node they reach
  --rejected TEXT          releases that nodes reject
  --blocked TEXT           releases that nodes cannot get
  --silent PERCENT         sites whose line is cut from the start [0]
  --flap PERCENT           sites whose line comes and goes [0]
  --flap-seconds N         how long it does either [20]
  --hub-flag FLAG          a flag of `rimward-operator hub`, as one word";

/// What was asked for.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) plan: Plan,
    pub(crate) faults: Faults,
    pub(crate) clusters_only: bool,
    pub(crate) deployments: usize,
    pub(crate) silent_percent: usize,
    pub(crate) flap_percent: usize,
    pub(crate) flap_every: Duration,
    pub(crate) hub_flags: Vec<String>,
}

impl Asked {
    /// None when help is wanted.
    pub(crate) fn parse(arguments: &[String]) -> Result<Option<Self>> {
        let mut asked = Self {
            plan: Plan::default(),
            faults: Faults::default(),
            clusters_only: false,
            deployments: 1,
            silent_percent: 0,
            flap_percent: 0,
            flap_every: Duration::from_secs(20),
            hub_flags: Vec::new(),
        };
        asked.plan.timing.staging = Duration::from_millis(500);
        asked.plan.timing.trial = Duration::from_millis(500);
        let mut sites = None;
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || {
                let value = arguments.next().cloned();
                value.with_context(|| format!("{argument} needs a value\n{USAGE}"))
            };
            let mut number = || {
                let value = value()?;
                let number = value.parse::<usize>();
                number.with_context(|| format!("{argument} {value}: no number\n{USAGE}"))
            };
            let time = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
            let timing = &mut asked.plan.timing;
            match argument.as_str() {
                "-h" | "--help" => return Ok(None),
                "--clusters-only" => asked.clusters_only = true,
                "--nodes" => asked.plan.nodes = number()?,
                "--canaries" => asked.plan.canaries = number()?,
                "--deployments" => asked.deployments = number()?,
                "--heartbeat-seconds" => {
                    timing.heartbeat = Duration::from_secs(time(number()?).max(1));
                }
                "--staging-ms" => timing.staging = Duration::from_millis(time(number()?)),
                "--trial-ms" => timing.trial = Duration::from_millis(time(number()?)),
                "--silences-site" => asked.faults.silences_site.push(value()?),
                "--silences-node" => asked.faults.silences_node.push(value()?),
                "--rejected" => asked.faults.rejected.push(value()?),
                "--blocked" => asked.faults.blocked.push(value()?),
                "--silent" => asked.silent_percent = number()?,
                "--flap" => asked.flap_percent = number()?,
                "--flap-seconds" => {
                    asked.flap_every = Duration::from_secs(time(number()?).max(1));
                }
                "--hub-flag" => asked.hub_flags.push(value()?),
                other => match other.parse() {
                    Ok(number) if sites.is_none() => sites = Some(number),
                    _ => bail!("unknown argument {other:?}\n{USAGE}"),
                },
            }
        }
        asked.plan.sites = sites.with_context(|| format!("how many sites?\n{USAGE}"))?;
        Ok(Some(asked))
    }
}
