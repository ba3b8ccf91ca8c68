//! kill -9 of the hub operator, the edge operator and the agents at random points of rollouts, of good and of
//! flaky releases: every rollout ends as it would have, and every node that was not itself killed answers rightly
//! all the time. `RIMWARD_SEED=7` replays one seed; `RIMWARD_SEED=21-120` looks further than the usual ones.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::control_plane::Options;
use rimward_e2e::digits;
use rimward_e2e::system::{Mode, SiteSpec, System};
use rimward_e2e::{Seen, Story, story, wait_for};

use crate::prober::Prober;
use crate::releases::{self, BETTER, End, FLAKY, GOOD, Order, Release, WITHIN};

const SITE: SiteSpec = SiteSpec {
    name: "north",
    mode: Mode::Pull,
    labels: "ring=main",
    nodes: 2,
};
const SEEDS: std::ops::RangeInclusive<u64> = 1..=20;
/// How long a rollout to two nodes, one after the other, takes about.
const KILLS_WITHIN_MILLISECONDS: u64 = 4_500;
/// How long a flaky one takes, which comes no further than the first node.
const FLAKY_WITHIN_MILLISECONDS: u64 = 2_500;
/// A candidate whose agent dies at every start of its trial is taken back, rightly: so many deaths must not do that.
const KILLS_MAX: u64 = 3;
/// Two seconds of the prober's requests, of which the flaky release fails three in ten: of any 40 held-out digits in a
/// row at least 5. Of 20 in a row it fails at most 1, which is allowed, in 14 places of 360: it would pass there.
const MIN_SAMPLES: u32 = 40;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Hub,
    Edge,
    /// The agent of the node at this place.
    Agent(usize),
}

/// What a seed means.
#[derive(Debug)]
struct Plan {
    release: Release,
    /// When, after the deployment was applied, and who; in that order.
    kills: Vec<(Duration, Victim)>,
}

impl Plan {
    fn of(seed: u64) -> Self {
        let mut random = Random(seed);
        let release = match seed % 4 {
            0 => FLAKY,
            1 | 3 => GOOD,
            _ => BETTER,
        };
        let within = match release {
            FLAKY => FLAKY_WITHIN_MILLISECONDS,
            _ => KILLS_WITHIN_MILLISECONDS,
        };
        let mut kills: Vec<_> = (0..1 + random.below(KILLS_MAX))
            .map(|_| {
                let victim = match random.below(4) {
                    0 => Victim::Hub,
                    1 => Victim::Edge,
                    2 => Victim::Agent(0),
                    _ => Victim::Agent(1),
                };
                (Duration::from_millis(random.below(within)), victim)
            })
            .collect();
        kills.sort_by_key(|(when, _)| *when);
        Self { release, kills }
    }
}

/// SplitMix64: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[test]
fn whoever_is_killed_in_a_rollout_it_ends_the_same_and_the_others_answer_all_the_time() {
    story("killed-at-random", async |_: &Story| {
        let seeds = seeds()?;
        let releases = [GOOD, BETTER, FLAKY];
        let system = releases::start(
            "killed-at-random-fleet",
            &[SITE],
            Options::default(),
            &releases,
        )
        .await?;
        let mut good = releases::settle_on_clear_digits(&system, "digits").await?;
        let nodes = &system.sites[0].nodes;
        let probers: Vec<Prober> = nodes
            .iter()
            .map(|node| Prober::start(&node.host, "digits", releases::clear_digits()))
            .collect::<Result<_>>()?;
        for seed in seeds {
            let plan = Plan::of(seed);
            let started = Instant::now();
            good = play(&system, &probers, seed, &plan, &good)
                .await
                .with_context(|| format!("RIMWARD_SEED={seed}: {plan:?}"))?;
            println!(
                "seed {seed}: {:.1} s, {plan:?}, on {good}",
                started.elapsed().as_secs_f64()
            );
        }
        for (node, prober) in nodes.iter().zip(&probers) {
            let seen = prober.seen();
            println!(
                "{}: {} right answers, {} failures while it was down itself, for {:?} at most",
                node.name, seen.answers, seen.excused, seen.longest_down
            );
        }
        Ok(())
    });
}

fn seeds() -> Result<std::ops::RangeInclusive<u64>> {
    let Ok(text) = std::env::var("RIMWARD_SEED") else {
        return Ok(SEEDS);
    };
    let (first, last) = text.split_once('-').unwrap_or((&text, &text));
    let parse = |seed: &str| -> Result<u64> {
        let seed = seed.parse();
        seed.with_context(|| format!("RIMWARD_SEED={text} is neither a number nor two with a dash"))
    };
    Ok(parse(first)?..=parse(last)?)
}

/// One rollout with its kills; gives the revision that is right at its end.
async fn play(
    system: &System,
    probers: &[Prober],
    seed: u64,
    plan: &Plan,
    before: &str,
) -> Result<String> {
    let number = 1_000 + u32::try_from(seed)?;
    let began = Instant::now();
    releases::deploy(
        system,
        "digits",
        Order::new(plan.release, number, MIN_SAMPLES),
    )
    .await?;
    for (when, victim) in &plan.kills {
        tokio::time::sleep(when.saturating_sub(began.elapsed())).await;
        kill(system, probers, *victim)?;
    }
    let end = releases::end_of_rollout(system, "digits").await?;
    let good = match end {
        End::Promoted(revision) if plan.release != FLAKY => revision,
        End::RolledBack {
            back_on: Some(revision),
            ..
        } if plan.release == FLAKY => {
            ensure!(revision == before, "back on {revision} instead of {before}");
            revision
        }
        end => anyhow::bail!("ended otherwise: {end:?}"),
    };
    ensure!(plan.release == FLAKY || good != before, "still {before}");
    for (node, prober) in system.nodes().zip(probers) {
        answers_with(&node.host, &good).await?;
        let failures = prober.seen().failures;
        ensure!(
            failures.is_empty(),
            "{} was not killed, yet: {failures:#?}",
            node.name
        );
    }
    Ok(good)
}

fn kill(system: &System, probers: &[Prober], victim: Victim) -> Result<()> {
    let site = &system.sites[0];
    let service = match victim {
        Victim::Agent(place) => return probers[place].kill(&site.nodes[place].agent),
        Victim::Hub => system.hub[0].service(),
        Victim::Edge => site.operators[0].service(),
    };
    service.kill();
    service.resume()
}

/// A node that was killed late may still be starting.
async fn answers_with(host: &str, revision: &str) -> Result<()> {
    let client = rimward_e2e::http::client()?;
    let digit = releases::clear_digits().first().context("no digits")?;
    wait_for(
        &format!("{host} to answer with {revision}"),
        WITHIN,
        async || {
            let answer = digits::ask(&client, host, "digits", digit).await?;
            Ok(if answer.revision == revision {
                Seen::Done(())
            } else {
                Seen::NotYet(answer.revision)
            })
        },
    )
    .await
}
