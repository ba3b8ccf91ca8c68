//! What people and surroundings do to the simulated fleet.

use rimward_core::fleet::{ActionKind, ActionRequest, Amount, BeforeUpdate, HoldMode};
use rimward_core::ids::DeploymentKey;
use rimward_core::selector::Selector;
use rimward_core::time::Timestamp;

use crate::fixtures::{key, labels};
use crate::laws::policy;
use crate::outpost::Kind;
use crate::world::{Trouble, World};

const KINDS: [Kind; 12] = [
    Kind::Good,
    Kind::Good,
    Kind::Good,
    Kind::Good,
    Kind::Good,
    Kind::Condemned,
    Kind::Condemned,
    Kind::Killer,
    Kind::LateKiller,
    Kind::Slow,
    Kind::Slow,
    Kind::Endless,
];
const TIERS: [&str; 3] = ["canary", "main", "late"];

impl World {
    /// A fleet of which everything is drawn by chance.
    pub(crate) fn any(seed: u64) -> Self {
        let mut world = Self::new(seed, 0);
        let most = if world.choices.chance(30) { 14 } else { 7 };
        let clusters = 1 + world.choices.below(most);
        world = Self::new(seed, clusters);
        world.trouble = Trouble {
            writes: world.choices.pick(&[0, 5, 20]),
            crashes: world.choices.pick(&[0, 1, 4]),
            late: world.choices.pick(&[10, 30]),
        };
        for site in world.sites.values_mut() {
            if world.choices.chance(8) {
                site.alive = false;
            }
            if world.choices.chance(10) {
                site.flaps_seconds = Some(100 + world.choices.small(900));
            }
        }
        let names = ["a", "b", "c"];
        for name in names.iter().take(1 + world.choices.below(3)) {
            let policy = policy(&mut world.choices);
            let key = world.deploy(name, policy);
            if world.choices.chance(10) {
                world.edit(&key, |it| it.endpoint_name = "a".parse().unwrap());
            }
            let deadline = 120 + world.choices.small(600);
            world.edit(&key, |it| it.progress_deadline_seconds = deadline);
            world.release(&key, Kind::Good);
        }
        world
    }

    /// Links break, sites die, people change their minds.
    pub(crate) fn trouble(&mut self) {
        self.surroundings();
        let keys: Vec<_> = self.deployments.keys().cloned().collect();
        for key in keys {
            self.people(&key);
        }
    }

    fn surroundings(&mut self) {
        let choices = &mut self.choices;
        if choices.chance(2) {
            self.registry_away = !self.registry_away;
        }
        let mass = choices.chance(1);
        for (name, site) in &mut self.sites {
            let object = self.objects.get_mut(name).unwrap();
            if choices.chance(3) {
                site.cut = !site.cut;
            }
            if mass && choices.chance(60) {
                site.cut = true;
            }
            if choices.below(400) == 0 {
                site.alive = false;
            }
            if choices.below(300) == 0 {
                site.lose_a_node();
            }
            if choices.chance(3) {
                site.restart();
            }
            if choices.chance(1) {
                object.change(|it| it.paused = !it.paused);
            }
            if choices.chance(1) {
                object.change(|it| it.held = it.held.is_none().then(|| "harvest".to_owned()));
            }
            if choices.chance(1) {
                let tier = choices.pick(&TIERS);
                object.change(|it| it.labels = labels(&[("tier", tier)]));
            }
        }
        if self.choices.below(300) == 0 {
            // A weekend without a hub.
            self.hub_away_steps = 6;
        }
        if self.choices.below(300) == 0 {
            self.hub_away_steps = 1 + self.choices.small(20);
        }
    }

    fn people(&mut self, key: &DeploymentKey) {
        match self.choices.below(110) {
            0 | 1 => {
                let kind = self.choices.pick(&KINDS);
                self.release(key, kind);
            }
            2 => {
                let known: Vec<_> = self.deployment(key).revisions.keys().cloned().collect();
                let to = self.choices.pick(&known);
                self.edit(key, |it| it.update = Some(to));
            }
            3 => self.edit(key, |it| it.paused = !it.paused),
            4 => {
                let edited = policy(&mut self.choices);
                self.edit(key, |it| it.policy = edited);
            }
            5 => {
                let max = self.choices.chance(50).then(|| 1 + self.choices.small(4));
                self.edit(key, |it| it.placement.max_clusters = max);
            }
            6 => {
                let clusters = match self.choices.below(4) {
                    0 => Selector::label("tier", self.choices.pick(&TIERS)),
                    _ => Selector::everything(),
                };
                self.edit(key, |it| it.placement.clusters = clusters);
            }
            7..13 => {
                let kind = self.any_action();
                self.ask(key, kind);
            }
            _ => {}
        }
    }

    fn any_action(&mut self) -> ActionKind {
        match self.choices.below(8) {
            0..3 => ActionKind::Retry {
                forget_verdicts: self.choices.chance(30),
            },
            3..6 => ActionKind::Promote { stage: None },
            6 => ActionKind::Abort,
            _ => ActionKind::Undo,
        }
    }

    /// A person asks for something.
    pub(crate) fn ask(&mut self, key: &DeploymentKey, kind: ActionKind) {
        if self.deployment(key).actions.len() >= 4 {
            return;
        }
        self.requests += 1;
        let name = format!("u{}", self.requests);
        let request = ActionRequest {
            uid: name.clone(),
            name,
            created: Timestamp(self.elapsed_seconds),
            kind,
            revision: None,
            attempt: None,
        };
        self.edit(key, |it| it.actions.push(request));
    }

    /// Links hold, holds are over, writes arrive, and people ask for a good revision. What died stays dead.
    pub(crate) fn calm_down(&mut self) {
        self.trouble = Trouble::default();
        self.registry_away = false;
        self.hub_away_steps = 0;
        for (name, site) in &mut self.sites {
            site.cut = false;
            site.flaps_seconds = None;
            let object = self.objects.get_mut(name).unwrap();
            object.change(|it| {
                it.paused = false;
                it.held = None;
            });
        }
        let keys: Vec<_> = self.deployments.keys().cloned().collect();
        for name in keys {
            self.release(&name, Kind::Good);
            self.edit(&name, |it| {
                it.paused = false;
                it.placement.max_clusters = None;
                it.placement.clusters = Selector::everything();
                it.endpoint_name = name.name.as_str().parse().unwrap();
                it.policy.offline.before_update = BeforeUpdate::Skip;
                it.policy.hold.mode = HoldMode::Respect;
                it.policy.rollback_max_concurrency = Amount::ALL;
                it.actions.clear();
            });
        }
        debug_assert!(self.deployments.contains_key(&key("a")));
    }

    /// Somebody who sees a rollout stand does what its words say.
    pub(crate) fn help(&mut self, turn: usize) {
        let keys: Vec<_> = self.deployments.keys().cloned().collect();
        for key in keys {
            let kind = match turn % 3 {
                2 => ActionKind::Retry {
                    forget_verdicts: false,
                },
                _ => ActionKind::Promote { stage: None },
            };
            self.ask(&key, kind);
        }
    }
}
