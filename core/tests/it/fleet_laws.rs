//! The laws of silence, time and blame for clusters, one test each, over fleets and histories of any seed.
//!
//! That a stage passes on living evidence only, that nobody fails who was not condemned, and that columns add
//! up, is judged at every plan of every history here (see `truth`).

use rimward_core::fleet::{AfterUpdate, Amount, BeforeUpdate, HoldMode, Members, Policy, Stage};
use rimward_core::ids::{DeploymentKey, RevisionName};
use rimward_core::selector::Selector;

use crate::choices::Choices;
use crate::fixtures::{labels, named, stage};
use crate::outpost::Kind;
use crate::simulation::over_seeds;
use crate::world::{Trouble, World};

const SEEDS: u64 = 40;
const STEP_SECONDS: u32 = 30;

/// Canary sites, then everybody else, at any pace.
fn policy(choices: &mut Choices) -> Policy {
    let canary = match choices.below(3) {
        0 => Members::Selector(Selector::label("tier", "canary")),
        1 => Members::Count(1 + choices.small(3)),
        _ => Members::Percent(10 + choices.small(40)),
    };
    let mut stages = vec![stage("first", canary), stage("rest", Members::Percent(100))];
    for stage in &mut stages {
        stage.max_concurrency = Amount::Count(1 + choices.small(3));
        stage.max_unavailable = choices
            .chance(50)
            .then(|| Amount::Count(1 + choices.small(2)));
    }
    stages[0].bake_seconds = choices.pick(&[0, 0, 120, 600]);
    let mut policy = Policy {
        stages,
        ..Policy::default()
    };
    policy.offline.grace_seconds = choices.pick(&[300, 120]);
    policy
}

fn budget(stage: &Stage, of: usize) -> usize {
    let unavailable = stage.max_unavailable.map_or(usize::MAX, |it| it.of(of));
    stage.max_concurrency.of(of).min(unavailable)
}

/// A fleet on a good release, with at least one canary.
fn fleet(seed: u64, change: impl FnOnce(&mut Policy)) -> (World, DeploymentKey) {
    let clusters = 4 + Choices::new(seed).below(9);
    let mut world = World::new(seed, clusters);
    let canary = world.objects.get_mut(&named("c0")).unwrap();
    canary.change(|it| it.labels = labels(&[("tier", "canary")]));
    let mut policy = policy(&mut world.choices);
    change(&mut policy);
    let key = world.deploy("a", policy);
    world.edit(&key, |it| it.progress_deadline_seconds = 600);
    world.release(&key, Kind::Good);
    run(&mut world, 400, World::settled);
    assert!(world.settled(), "the first release is not everywhere");
    (world, key)
}

fn run(world: &mut World, steps: usize, until: impl Fn(&World) -> bool) -> usize {
    for step in 0..steps {
        if until(world) {
            return step;
        }
        world.step(STEP_SECONDS);
    }
    steps
}

fn troubled(seed: u64) -> Trouble {
    let choices = &mut Choices::new(seed ^ 0x55);
    Trouble {
        writes: choices.pick(&[0, 10, 25]),
        crashes: choices.pick(&[0, 2, 5]),
        late: choices.pick(&[0, 10, 30]),
    }
}

fn promoted(world: &World, key: &DeploymentKey, revision: &RevisionName) -> bool {
    world.deployment(key).standing.current.as_ref() == Some(revision)
}

#[test]
fn a_release_that_silences_every_site_it_reaches_stops_within_the_budget_of_its_first_stage() {
    over_seeds(SEEDS, |seed| {
        let after = [AfterUpdate::Wait, AfterUpdate::Fail][usize::from(seed % 2 == 1)];
        let (mut world, key) = fleet(seed, |it| it.offline.after_update = after);
        for site in world.sites.values_mut() {
            if world.choices.chance(20) {
                site.flaps_seconds = Some(200 + world.choices.small(900));
            }
        }
        world.trouble = troubled(seed);
        let killer = world.release(&key, Kind::Killer);
        run(&mut world, 300, |_| false);
        let stages = &world.deployment(&key).policy.stages;
        let max = budget(&stages[0], world.sites.len());
        let exposed = world.exposed(&killer);
        assert!(exposed > 0, "nothing was tried");
        assert!(exposed <= max, "{exposed} sites of at most {max} got it");
        assert!(!promoted(&world, &key, &killer));
        world.planner_steps
    });
}

#[test]
fn sites_that_are_dead_from_the_start_delay_nobody_and_condemn_nothing() {
    over_seeds(SEEDS, |seed| {
        let mut steps = [0; 2];
        let mut planned = 0;
        for dead in [false, true] {
            let (mut world, key) = fleet(seed, |_| {});
            let names: Vec<_> = world.sites.keys().cloned().collect();
            // The canary that has the label lives; of the others anybody may be dead, for ever.
            for name in names.iter().skip(1).filter(|_| dead) {
                if world.choices.chance(40) {
                    world.sites.get_mut(name).unwrap().alive = false;
                    let object = world.objects.get_mut(name).unwrap();
                    // Since long before, whoever leads.
                    (object.called_silent, object.beat_at) = (true, None);
                }
            }
            world.kill_hub();
            run(&mut world, 25, |_| false);
            let good = world.release(&key, Kind::Good);
            // A stage of which nobody lives waits, and is then the only thing that is left to do.
            let everywhere = |world: &World| world.everywhere(&key, &good, &Selector::everything());
            steps[usize::from(dead)] = run(&mut world, 600, everywhere);
            assert!(
                everywhere(&world),
                "it did not reach the living: {}",
                crate::simulation::stuck(&world)
            );
            planned += world.planner_steps;
        }
        assert!(
            steps[1] <= steps[0] + 3,
            "{} steps became {}",
            steps[0],
            steps[1]
        );
        planned
    });
}

#[test]
fn a_registry_that_is_away_for_longer_than_every_deadline_condemns_nothing_and_after_retry_all_is_well()
 {
    over_seeds(SEEDS, |seed| {
        let (mut world, key) = fleet(seed, |_| {});
        world.trouble = troubled(seed);
        world.registry_away = true;
        let good = world.release(&key, Kind::Good);
        run(&mut world, 200, |_| false);
        assert!(!promoted(&world, &key, &good));
        assert!(
            !world.fates().iter().any(|it| it.ends_with("failed")),
            "{:?}",
            world.fates()
        );
        let known = &world.deployment(&key).revisions[&good];
        let stopped = rimward_core::fleet::Outcome::Stopped;
        assert_eq!(known.outcome, stopped, "no deadline ran out");
        world.registry_away = false;
        world.ask(
            &key,
            rimward_core::fleet::ActionKind::Retry {
                forget_verdicts: false,
            },
        );
        run(&mut world, 900, World::settled);
        assert!(world.settled() && promoted(&world, &key, &good));
        world.planner_steps
    });
}

#[test]
fn a_hub_that_restarts_at_any_moment_with_any_clock_comes_to_the_same_end() {
    over_seeds(SEEDS, |seed| {
        let kinds = [
            Kind::Good,
            Kind::Good,
            Kind::Condemned,
            Kind::Killer,
            Kind::Slow,
            Kind::Endless,
        ];
        let kind = Choices::new(seed ^ 0x77).pick(&kinds);
        let mut ends = Vec::new();
        let mut planned = 0;
        for restarts in [false, true] {
            let (mut world, key) = fleet(seed, |_| {});
            let release = world.release(&key, kind);
            for _ in 0..400 {
                if restarts && world.hub_choices.chance(4) {
                    world.kill_hub();
                    world.hub_away_steps = world.hub_choices.small(12);
                }
                world.step(STEP_SECONDS);
            }
            run(&mut world, 400, |_| false);
            let record = world.deployment(&key).standing.stage.clone().unwrap();
            let outcome = world.deployment(&key).revisions[&release].outcome;
            ends.push((world.fates(), record.name, record.phase, outcome));
            planned += world.planner_steps;
        }
        assert_eq!(ends[0], ends[1], "{kind:?}");
        planned
    });
}

#[test]
fn a_mass_silence_is_not_forgotten_by_the_next_leader() {
    over_seeds(SEEDS, |seed| {
        let (mut world, key) = fleet(seed, |it| it.stages[0].bake_seconds = 600);
        let good = world.release(&key, Kind::Good);
        run(&mut world, 5, |_| false);
        let many = world.sites.len();
        for site in world.sites.values_mut().rev().take(many - 1) {
            site.cut = true;
        }
        if world.sites.values().filter(|it| it.cut).count() < 5 {
            return world.planner_steps;
        }
        for step in 0..120 {
            if step % 20 == 19 {
                world.kill_hub();
            }
            world.step(STEP_SECONDS);
        }
        assert!(!promoted(&world, &key, &good));
        let record = world.deployment(&key).standing.stage.as_ref().unwrap();
        assert_eq!(record.name.as_str(), "first");
        for site in world.sites.values_mut() {
            site.cut = false;
        }
        run(&mut world, 600, World::settled);
        assert!(world.settled());
        world.planner_steps
    });
}

#[test]
fn flapping_sites_expose_no_more_of_them_than_steady_ones() {
    over_seeds(SEEDS, |seed| {
        let mut exposed = Vec::new();
        let mut planned = 0;
        for flaps in [false, true] {
            let (mut world, key) = fleet(seed, |_| {});
            world.edit(&key, |it| it.policy.stages[0].bake_seconds = 1_000_000);
            for site in world.sites.values_mut().filter(|_| flaps) {
                if world.choices.chance(60) {
                    site.flaps_seconds = Some(150 + world.choices.small(1200));
                }
            }
            let kind = [Kind::Good, Kind::Endless][usize::from(seed % 2 == 1)];
            let release = world.release(&key, kind);
            run(&mut world, 300, |_| false);
            exposed.push(world.exposed(&release));
            planned += world.planner_steps;
        }
        assert!(
            exposed[1] <= exposed[0],
            "steady {}, flapping {}",
            exposed[0],
            exposed[1]
        );
        planned
    });
}

#[test]
fn an_empty_or_a_silent_stage_never_passes_by_itself() {
    over_seeds(SEEDS, |seed| {
        let (mut world, key) = fleet(seed, |it| {
            it.stages[0].members = Members::Selector(Selector::label("tier", "canary"));
            it.offline.before_update =
                [BeforeUpdate::Skip, BeforeUpdate::Wait][usize::from(seed % 3 == 0)];
            it.hold.mode = HoldMode::Respect;
        });
        let names: Vec<_> = world.sites.keys().cloned().collect();
        for name in names {
            let object = world.objects.get_mut(&name).unwrap();
            if object.now.labels["tier"] == "canary" {
                match seed % 2 {
                    0 => world.sites.get_mut(&name).unwrap().alive = false,
                    _ => object.change(|it| it.labels = labels(&[("tier", "cannary")])),
                }
            }
        }
        run(&mut world, 20, |_| false);
        world.trouble = troubled(seed);
        let good = world.release(&key, Kind::Good);
        run(&mut world, 300, |_| false);
        assert_eq!(world.exposed(&good), 0);
        assert!(!promoted(&world, &key, &good));
        world.planner_steps
    });
}
