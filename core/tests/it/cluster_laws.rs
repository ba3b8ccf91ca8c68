//! Laws of silence.md about the nodes of one cluster, over generated sites and histories.
//!
//! What died stays dead. Seeds are asked for as for whole fleets (see `simulation`).

use std::collections::BTreeSet;

use rimward_core::cluster::Assigned;
use rimward_core::fleet::ModelReport;
use rimward_core::ids::{NodeName, RevisionName};
use rimward_core::summary::Phase;
use rimward_core::time::Timestamp;

use crate::choices::Choices;
use crate::fixtures::{NOW, key, rev};
use crate::simulation::counted_over_seeds;
use crate::site::{SILENCE_SECONDS, Site, order};

const SEEDS: u64 = 40;
/// Steps take 10 s on average; a node needs at most some tens of them for a release.
const STEPS_PER_NODE: usize = 60;

fn law(check: impl Fn(u64) -> Scene) {
    counted_over_seeds(SEEDS, "session steps", |seed| check(seed).steps);
}

/// One site, its clock, and the release that it is at.
#[derive(Clone, Debug)]
struct Scene {
    site: Site,
    now: Timestamp,
    choices: Choices,
    generation: u64,
    entry: Assigned<String>,
    bad: BTreeSet<RevisionName>,
    /// Devices whose link comes and goes.
    flapping: BTreeSet<NodeName>,
    restart_percent: usize,
    calm: bool,
    /// How often its session planned.
    steps: u64,
}

impl Scene {
    /// A site on which every node committed `r1`.
    fn on_r1(seed: u64) -> Self {
        let mut choices = Choices::new(seed);
        let nodes = 1 + choices.below(8);
        let max_unavailable = 1 + choices.small(3);
        let mut scene = Self {
            site: Site::with_nodes(nodes),
            now: NOW,
            choices,
            generation: 0,
            entry: order(&rev("r1"), 1, max_unavailable, 0),
            bad: BTreeSet::new(),
            flapping: BTreeSet::new(),
            restart_percent: 0,
            calm: true,
            steps: 0,
        };
        scene.assign();
        scene.until("r1 runs everywhere", |scene| scene.there().len() == nodes);
        scene.calm = false;
        scene
    }

    fn assign(&mut self) {
        self.generation += 1;
        let entries = [(key("digits"), self.entry.clone())].into();
        self.site.assign(self.generation, entries);
    }

    fn release(&mut self, revision: &str, max_failures: u32) {
        let max = self.max_unavailable();
        self.entry = order(&rev(revision), 1, u32::try_from(max).unwrap(), max_failures);
        self.assign();
    }

    fn max_unavailable(&self) -> usize {
        self.entry.max_unavailable.of(self.site.devices.len())
    }

    fn step(&mut self) {
        self.now = Timestamp(self.now.0 + 1 + i64::from(self.choices.small(19)));
        if self.choices.chance(self.restart_percent) {
            if self.choices.chance(50) {
                self.site.restart();
            } else {
                self.site.forget();
            }
        }
        for (name, device) in &mut self.site.devices {
            if self.flapping.contains(name) && self.choices.chance(10) {
                device.silent = !device.silent;
            }
            device.step(&self.bad, self.calm, &mut self.choices);
        }
        self.site.pace(self.now);
        self.steps += 1;
    }

    fn steps(&mut self, count: usize) {
        for _ in 0..count {
            self.step();
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let bound = STEPS_PER_NODE * (1 + self.site.devices.len());
        for _ in 0..bound {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!(
            "not in {bound} steps: {what}: {:?} {:?}",
            self.said(),
            self.site.waiting
        );
    }

    fn said(&self) -> &ModelReport {
        self.site.said(&key("digits")).unwrap()
    }

    /// By the truth, nodes that run the release.
    fn there(&self) -> BTreeSet<NodeName> {
        let all = self.site.devices.iter();
        let there = all.filter(|(_, device)| {
            device.truly_serves(&key("digits")) == Some(&self.entry.revision)
        });
        there.map(|(name, _)| name.clone()).collect()
    }

    /// By the truth, nodes that began to run `revision`.
    fn ran(&self, revision: &str) -> usize {
        let devices = self.site.devices.values();
        devices.filter(|it| it.ran.contains(&rev(revision))).count()
    }

    /// By the truth, nodes that may begin to run `revision`: it stands in their spec.
    fn exposed(&self, revision: &str) -> usize {
        let to_it = |device: &&crate::device::Device| {
            let order = device.spec.get(&key("digits"));
            order.is_some_and(|it| it.revision == rev(revision))
        };
        self.site.devices.values().filter(to_it).count()
    }

    /// Some nodes die; at least one lives.
    fn some_die(&mut self) -> BTreeSet<NodeName> {
        let names: Vec<_> = self.site.devices.keys().cloned().collect();
        let lives = self.choices.pick(&names);
        let mut dead = BTreeSet::new();
        for name in names.into_iter().filter(|name| *name != lives) {
            if self.choices.chance(50) {
                self.site.devices.get_mut(&name).unwrap().dead = true;
                dead.insert(name);
            }
        }
        dead
    }

    fn deadly(&mut self, revision: &str) {
        for device in self.site.devices.values_mut() {
            device.fate.deadly.insert(rev(revision));
        }
    }

    fn registry(&mut self, away: bool) {
        for device in self.site.devices.values_mut() {
            device.fate.registry_away = away;
        }
    }

    fn all_flap(&mut self) {
        self.flapping = self.site.devices.keys().cloned().collect();
    }
}

#[test]
fn a_release_that_silences_every_node_reaches_no_more_than_may_be_unavailable() {
    law(|seed| {
        let mut scene = Scene::on_r1(seed);
        scene.deadly("r2");
        scene.site.lossy_percent = scene.choices.below(40);
        scene.restart_percent = scene.choices.pick(&[0, 0, 5, 30]);
        if scene.choices.chance(40) {
            scene.all_flap();
        }
        let max_failures = scene.choices.small(3);
        scene.release("r2", max_failures);
        let max = scene.max_unavailable();
        for _ in 0..200 {
            scene.step();
            let exposed = scene.exposed("r2");
            assert!(exposed <= max, "{exposed} of {max} exposed");
        }
        assert!(scene.exposed("r2") > 0, "nothing was tried");
        assert_ne!(scene.said().phase, Phase::Passed);
        assert_ne!(
            scene.said().phase,
            Phase::Failed,
            "silence condemns nothing"
        );
        scene
    });
}

#[test]
fn a_release_that_silences_every_node_can_be_taken_back_from_all_that_live() {
    law(|seed| {
        let mut scene = Scene::on_r1(seed);
        scene.deadly("r2");
        // Some died long before: no reason to stop anybody from going back.
        let dead = scene.some_die();
        scene.steps(20);
        scene.release("r2", 0);
        scene.steps(60);
        if scene.choices.chance(30) {
            scene.site.forget();
        }
        scene.release("r1", 0);
        scene.calm = true;
        scene.step();
        scene.until("all that live are back on r1", |scene| {
            let mut living = scene.site.devices.values().filter(|it| !it.dead);
            living.all(|it| {
                it.spec[&key("digits")].revision == rev("r1") && !it.truly_moving(&key("digits"))
            })
        });
        let suspects = scene.said().nodes.suspect;
        assert_eq!(
            suspects, 0,
            "who died before is none of this release: {dead:?}"
        );
        scene
    });
}

#[test]
fn nodes_dead_from_the_start_delay_nobody_and_condemn_nothing() {
    law(|seed| {
        let mut scene = Scene::on_r1(seed);
        let dead = scene.some_die();
        let silent = usize::try_from(SILENCE_SECONDS).unwrap();
        scene.steps(silent / 4);
        scene.release("r2", 0);
        scene.calm = scene.choices.chance(50);
        let living = scene.site.devices.len() - dead.len();
        scene.until("all others run it", |scene| scene.there().len() == living);
        scene.calm = true;
        scene.until("it is said", |scene| scene.said().phase == Phase::Passed);
        // And for ever, past every deadline.
        for _ in 0..200 {
            scene.step();
            let said = scene.said();
            assert_eq!(said.phase, Phase::Passed, "{said:?}");
            assert_eq!(said.nodes.silent, u32::try_from(dead.len()).unwrap());
            assert_eq!(said.nodes.suspect, 0);
        }
        scene
    });
}

#[test]
fn a_bad_release_does_not_march_from_node_to_node() {
    law(|seed| {
        let mut scene = Scene::on_r1(seed);
        scene.bad.insert(rev("r2"));
        scene.restart_percent = scene.choices.pick(&[0, 0, 5]);
        scene.site.lossy_percent = scene.choices.below(40);
        let max_failures = scene.choices.small(3);
        scene.release("r2", max_failures);
        scene.steps(300);
        let most = scene.max_unavailable() + usize::try_from(max_failures).unwrap();
        let (ran, nodes) = (scene.ran("r2"), scene.site.devices.len());
        assert!(ran <= most, "{ran} of {nodes} nodes ran it, {most} may");
        assert!(ran > 0);
        scene
    });
}

#[test]
fn a_registry_that_is_away_longer_than_every_deadline_condemns_nothing() {
    law(|seed| {
        let mut scene = Scene::on_r1(seed);
        scene.registry(true);
        scene.restart_percent = scene.choices.pick(&[0, 3]);
        scene.release("r2", 0);
        let mut timed_out = false;
        for _ in 0..200 {
            scene.step();
            timed_out |= scene.said().phase == Phase::TimedOut;
            assert!(!matches!(scene.said().phase, Phase::Failed | Phase::Passed));
            assert_eq!(scene.said().nodes.rejected(), 0);
        }
        assert!(timed_out || scene.restart_percent > 0, "{:?}", scene.said());
        scene.registry(false);
        scene.restart_percent = 0;
        if scene.choices.chance(50) {
            scene.entry.attempt += 1;
            scene.assign();
        }
        scene.calm = true;
        let nodes = scene.site.devices.len();
        scene.until("as if it had not been", |scene| {
            scene.there().len() == nodes && scene.said().phase == Phase::Passed
        });
        scene
    });
}

#[test]
fn flapping_nodes_expose_no_more_nodes_than_steady_ones_do() {
    law(|seed| {
        let mut scene = Scene::on_r1(seed);
        scene.all_flap();
        // Nobody ever gets there, so that each place that is given stays taken.
        scene.registry(true);
        scene.site.lossy_percent = scene.choices.below(40);
        scene.release("r2", 2);
        let max = scene.max_unavailable();
        for _ in 0..200 {
            scene.step();
            let exposed = scene.exposed("r2");
            assert!(exposed <= max, "{exposed} of {max} exposed");
        }
        let mut steady = Scene::on_r1(seed);
        steady.registry(true);
        steady.release("r2", 2);
        steady.steps(200);
        assert!(scene.exposed("r2") <= steady.exposed("r2"));
        scene
    });
}

#[test]
fn a_restart_of_the_session_neither_passes_nor_fails_anything() {
    law(|seed| {
        let mut scene = Scene::on_r1(seed);
        let slow = scene.choices.chance(50);
        if scene.choices.chance(30) {
            scene.bad.insert(rev("r2"));
        } else if slow {
            scene.registry(true);
        }
        scene.release("r2", 0);
        let steps = scene.choices.below(80);
        scene.steps(steps);
        let mut other = scene.clone();
        other.site.restart();
        // At once it says nothing that it could not say before.
        let before = scene.said().phase;
        other.site.pace(other.now);
        let memory = other.said().phase;
        assert!(
            memory == before || memory == Phase::Pending,
            "{before:?}: {memory:?}"
        );
        for scene in [&mut scene, &mut other] {
            scene.calm = true;
            scene.steps(150);
        }
        assert_eq!(scene.said().phase, other.said().phase);
        assert_eq!(scene.said().nodes.rejected(), other.said().nodes.rejected());
        assert_eq!(scene.there(), other.there());
        scene
    });
}

#[test]
fn a_deadline_lasts_its_heard_seconds_whatever_restarts() {
    law(|seed| {
        let mut scene = Scene::on_r1(seed);
        scene.registry(true);
        scene.release("r2", 0);
        scene.step();
        let given = scene.now;
        let deadline = u64::from(scene.entry.progress_deadline_seconds);
        let mut restarts = 0;
        while scene.said().phase != Phase::TimedOut {
            if scene.choices.chance(2) {
                scene.site.restart();
                restarts += 1;
            }
            scene.step();
            let passed = scene.now.seconds_since(given);
            // Each restart gives back at most an eighth, and listens anew for a beat or two.
            let most = deadline + (restarts + 1) * (deadline / 8 + 60);
            assert!(passed <= most, "{passed} of {most} s, {restarts} restarts");
        }
        assert!(scene.now.seconds_since(given) + 20 >= deadline);
        scene
    });
}

#[test]
fn a_node_that_completes_after_its_deadline_counts() {
    law(|seed| {
        let mut scene = Scene::on_r1(seed);
        scene.registry(true);
        scene.release("r2", 0);
        scene.until("its time runs out", |it| it.said().phase == Phase::TimedOut);
        scene.registry(false);
        scene.calm = true;
        scene.until("it is there", |it| it.said().phase == Phase::Passed);
        scene
    });
}
