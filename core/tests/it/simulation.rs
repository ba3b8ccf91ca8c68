//! Whole histories of simulated fleets, every plan of which is judged by the truth.
//!
//! A failure prints its seed. `RIMWARD_SEED=n` runs that one alone, `RIMWARD_SEEDS=n` so many from
//! `RIMWARD_SEED_FIRST` on, and `RIMWARD_LAWS_MINUTES=n` without them fresh ones for so long.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use crate::world::World;

const SEEDS: u64 = 60;
const TROUBLED_STEPS: usize = 150;
const CALM_STEPS_MAX: usize = 700;
const HELP_AFTER_STEPS: usize = 12;

#[test]
fn whatever_happens_promises_hold_and_a_good_revision_gets_everywhere_in_the_end() {
    over_seeds(SEEDS, history);
}

/// Runs a history for each seed that is asked for, and prints the planner's steps.
pub(crate) fn over_seeds(usual: u64, run: impl Fn(u64) -> u64) {
    counted_over_seeds(usual, "planner steps", run);
}

/// The same, of steps that are not the fleet planner's.
pub(crate) fn counted_over_seeds(usual: u64, unit: &str, run: impl Fn(u64) -> u64) {
    let guarded = |seed: u64| match catch_unwind(AssertUnwindSafe(|| run(seed))) {
        Ok(steps) => steps,
        Err(panic) => {
            eprintln!("the history of RIMWARD_SEED={seed} broke a promise");
            resume_unwind(panic);
        }
    };
    let seeds = knob("RIMWARD_SEEDS");
    let steps: u64 = match (knob("RIMWARD_SEED"), knob("RIMWARD_LAWS_MINUTES")) {
        (Some(only), _) => guarded(only),
        (None, Some(minutes)) if seeds.is_none() => for_minutes(minutes, guarded),
        (None, _) => {
            let first = knob("RIMWARD_SEED_FIRST").unwrap_or(0);
            let seeds = 0..seeds.unwrap_or(usual);
            seeds.map(|seed| guarded(first.wrapping_add(seed))).sum()
        }
    };
    eprintln!("{unit}: {steps}");
}

#[allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how long a test runs, and fresh seeds for it"
)]
fn for_minutes(minutes: u64, run: impl Fn(u64) -> u64) -> u64 {
    let begun = std::time::Instant::now();
    let fresh = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = fresh.map_or(1, |it| it.as_secs() * 1_000_000);
    let (mut steps, mut seed) = (0, fresh);
    while begun.elapsed() < Duration::from_secs(minutes * 60) {
        steps += run(seed);
        seed += 1;
    }
    eprintln!("{} histories from seed {fresh}", seed - fresh);
    steps
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test's knob, not a decision's input"
)]
pub(crate) fn knob(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|number| number.parse().unwrap())
}

fn history(seed: u64) -> u64 {
    let mut world = World::any(seed);
    for _ in 0..TROUBLED_STEPS {
        world.trouble();
        let seconds = match world.hub_away_steps {
            6 => 200_000,
            _ => 1 + world.choices.small(50),
        };
        world.step(seconds);
    }
    world.calm_down();
    let mut steps = 0;
    while !world.settled() {
        if steps % HELP_AFTER_STEPS == HELP_AFTER_STEPS - 1 {
            world.help(steps / HELP_AFTER_STEPS);
        }
        let seconds = 1 + world.choices.small(50);
        world.step(seconds);
        steps += 1;
        let nobody = !world
            .sites
            .values()
            .any(crate::outpost::Outpost::has_living_nodes);
        if nobody {
            break;
        }
        assert!(
            steps < CALM_STEPS_MAX,
            "not rolled out in {steps} calm steps: {}",
            stuck(&world)
        );
    }
    world.planner_steps
}

pub(crate) fn stuck(world: &World) -> String {
    let mut lines = Vec::new();
    let Some(leader) = &world.leader else {
        return "no hub".to_owned();
    };
    lines.push(format!("doubt {:?}", leader.fleet.doubt()));
    for (key, (deployment, _)) in &world.deployments {
        lines.push(format!(
            "{key}: update {:?} {:#?}",
            deployment.update, deployment.standing
        ));
        for (name, decision) in leader.fleet.decisions(key) {
            let site = &world.sites[&name];
            lines.push(format!(
                "{name} alive {} runs {}: {:?}",
                site.has_living_nodes(),
                deployment
                    .update
                    .as_ref()
                    .is_some_and(|it| site.truly_runs(key, it)),
                decision.because.map(|it| it.to_string())
            ));
        }
    }
    lines.join("\n")
}
