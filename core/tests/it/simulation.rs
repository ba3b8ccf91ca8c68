//! Whole histories of simulated fleets. A failure prints its seed; `RIMWARD_SEED=n` runs that one
//! alone, `RIMWARD_SEEDS=n` runs so many.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::world::World;

const SEEDS: u64 = 120;
const TROUBLED_STEPS: usize = 120;
const CALM_STEPS_MAX: usize = 600;

#[test]
fn whatever_happens_promises_hold_and_a_good_revision_gets_everywhere_in_the_end() {
    let seeds = match (knob("RIMWARD_SEED"), knob("RIMWARD_SEEDS")) {
        (Some(only), _) => only..only + 1,
        (None, count) => 0..count.unwrap_or(SEEDS),
    };
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| history(seed))) {
            eprintln!("the history of RIMWARD_SEED={seed} broke a promise");
            resume_unwind(panic);
        }
    }
}

#[allow(
    clippy::disallowed_methods,
    reason = "a test's knob, not a decision's input"
)]
fn knob(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|number| number.parse().unwrap())
}

fn history(seed: u64) {
    let mut world = World::new(seed);
    for _ in 0..TROUBLED_STEPS {
        world.step(false);
    }
    world.heal();
    let mut steps = 0;
    while !settled(&world) {
        world.step(true);
        steps += 1;
        assert!(
            steps < CALM_STEPS_MAX,
            "not rolled out in {steps} calm steps: {}",
            stuck(&world)
        );
    }
}

/// By the truth, every device runs what its deployment asks for, and the hub knows.
fn settled(world: &World) -> bool {
    world.desired.deployments.iter().all(|(key, deployment)| {
        deployment.target == deployment.current
            && world.sites.iter().all(|(name, site)| {
                let entry = world.hub_side(name).entries.get(key);
                entry.is_some_and(|entry| Some(&entry.revision) == deployment.target.as_ref())
                    && site
                        .devices
                        .values()
                        .all(|device| device.truly_serves(key) == deployment.target.as_ref())
            })
    })
}

fn stuck(world: &World) -> String {
    let plan = rimward_core::fleet::plan(&world.desired, &world.observed, world.now);
    let said = plan.deployments.iter().map(|(key, answer)| {
        let record = &world.deployment(key).stage;
        format!(
            "{key}: {:?}; {record:?}; {:?}",
            answer.waiting_for(),
            answer.waiting
        )
    });
    said.collect::<Vec<_>>().join("\n")
}
