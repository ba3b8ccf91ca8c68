//! Whole histories of simulated fleets. A failure prints its seed; `RIMWARD_SEED` runs that one alone.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::world::World;

const SEEDS: u64 = 400;
const TROUBLED_STEPS: usize = 120;
const CALM_STEPS_MAX: usize = 600;

#[test]
fn whatever_happens_promises_hold_and_a_good_revision_gets_everywhere_in_the_end() {
    #[allow(
        clippy::disallowed_methods,
        reason = "a test's knob, not a decision's input"
    )]
    let only = std::env::var("RIMWARD_SEED")
        .ok()
        .map(|seed| seed.parse::<u64>().unwrap());
    let seeds = only.map_or(0..SEEDS, |seed| seed..seed + 1);
    for seed in seeds {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| history(seed))) {
            eprintln!("the history of RIMWARD_SEED={seed} broke a promise");
            resume_unwind(panic);
        }
    }
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
