//! Judges plans by the truth of the simulated fleet.
//!
//! Owns the laws that hold at every moment. Who counts is the truth's to say: a site that may run the revision and
//! has not truly done with it counts, silent or dead. Of the planner it takes which stage a cluster is in, and past how
//! many suspects a person went.

use rimward_core::fleet::{
    Action, AfterUpdate, Entry, Outcome, PassedBecause, Plan, StageGroup, Transition,
};
use rimward_core::ids::{ClusterName, DeploymentKey, RevisionName};
use rimward_core::lint::{self, Checked, Violation};
use rimward_core::time::Timestamp;

use crate::leader::Leader;
use crate::outpost::Kind;
use crate::world::World;

pub(crate) fn judge(world: &World, leader: &Leader, plan: &Plan, now: Timestamp) {
    let mut whole = plan.clone();
    for name in world.objects.keys() {
        whole
            .clusters
            .insert(name.clone(), leader.fleet.entries(name));
    }
    let mut broken = lint::check(Checked {
        desired: &leader.desired,
        observed: &leader.observed,
        fleet: &leader.fleet,
        plan: &whole,
        now,
    });
    // Of these two it asks the generation of the whole assignment, which other deployments move on: the truth
    // is asked below.
    broken.retain(|it| !matches!(it, Violation::Exposed { .. } | Violation::Vanished { .. }));
    assert!(broken.is_empty(), "lint: {}", broken[0]);
    for (name, cluster) in &leader.observed.clusters {
        for key in cluster
            .entries
            .keys()
            .filter(|key| !whole.clusters[name].contains_key(*key))
        {
            assert!(
                !world.sites[name].has(key),
                "{key}: the entry of {name} vanishes while it is there"
            );
        }
    }
    for (key, answer) in &plan.deployments {
        for counts in [answer.clusters, answer.nodes] {
            assert_eq!(
                counts.columns(),
                counts.desired,
                "{key}: columns do not add up: {counts:?}"
            );
        }
        for (revision, change) in &answer.outcomes {
            let condemned = world
                .sites
                .values()
                .any(|site| site.condemned.contains(revision));
            assert!(
                change.outcome != Outcome::Failed || condemned,
                "{key}: {revision} failed, and no device condemned it: {}",
                change.message
            );
        }
        for transition in &answer.transitions {
            transitions(world, leader, key, transition);
        }
    }
    for key in leader.desired.deployments.keys() {
        exposed(world, leader, key, &whole);
    }
}

fn transitions(world: &World, leader: &Leader, key: &DeploymentKey, transition: &Transition) {
    match transition {
        Transition::StagePassed {
            stage,
            revision,
            because: PassedBecause::Done,
        } => {
            let groups = leader.fleet.stages(key);
            let group = groups.iter().find(|group| &group.name == stage);
            let living =
                group.is_some_and(|group| living(world, leader, key, revision, &group.members));
            let members = group.map(|it| it.members.clone()).unwrap_or_default();
            assert!(
                living,
                "{key}: stage {stage} passed {revision} on no living evidence{}",
                describe(world, leader, key, &members)
            );
        }
        Transition::Promoted { revision } => {
            let all: Vec<ClusterName> = world.sites.keys().cloned().collect();
            assert!(
                living(world, leader, key, revision, &all),
                "{key}: {revision} is promoted on no living evidence"
            );
            assert_ne!(
                world.kinds.get(revision),
                Some(&Kind::Condemned),
                "{key}: promoted {revision}, which every device condemns"
            );
        }
        _ => {}
    }
}

/// A site truly runs the revision, and this leader heard it within the grace.
fn living(
    world: &World,
    leader: &Leader,
    key: &DeploymentKey,
    revision: &RevisionName,
    members: &[ClusterName],
) -> bool {
    let grace = leader.desired.deployments[key].policy.offline.grace_seconds;
    members.iter().any(|name| {
        let heard = leader.heard_at.get(name);
        let heard = heard.is_some_and(|at| world.elapsed_seconds - at < i64::from(grace));
        heard && world.sites[name].ran(key, revision)
    })
}

fn runs(entry: Option<&Entry>, revision: &RevisionName) -> bool {
    entry.is_some_and(|it| it.action == Action::Run && &it.revision == revision)
}

/// An order names one revision that it replaced. Of several that a site never acted on the first is forgotten: a
/// known gap, for a spec that goes back to just that one while the site is silent.
fn remembered(entry: Option<&Entry>, revision: &RevisionName) -> bool {
    entry.is_some_and(|it| &it.revision == revision || it.replaces.as_ref() == Some(revision))
}

/// Whenever another site is exposed: those that may run the revision and are not done with it are within the
/// stage's budgets.
fn exposed(world: &World, leader: &Leader, key: &DeploymentKey, plan: &Plan) {
    let deployment = &leader.desired.deployments[key];
    if deployment.policy.offline.after_update == AfterUpdate::Ignore {
        return;
    }
    let Some(standing) = plan.deployments.get(key).map(|it| &it.standing) else {
        return;
    };
    let undone = standing.undo.is_some();
    let Some(update) = deployment.update.as_ref().filter(|it| {
        !undone
            && standing.current.as_ref() != Some(*it)
            && deployment.standing.current.as_ref() != Some(*it)
    }) else {
        return;
    };
    for StageGroup {
        name: stage,
        members,
        moving_max,
        unavailable_max,
    } in leader.fleet.stages(key)
    {
        let mut passed = standing.stage.iter().flat_map(|record| &record.passed);
        // A person went on past so many. (A known gap: that is a number. One of them that returns, and another one that
        // falls silent, between two looks of the hub are taken for the same.)
        let past = passed
            .find(|it| it.stage == stage)
            .map_or(0, |it| it.suspects);
        let max = moving_max.min(unavailable_max.unwrap_or(usize::MAX));
        let max = max.min(lint::most(&deployment.policy, &stage, members.len()));
        let max = max.saturating_add(usize::try_from(past).unwrap());
        let (mut added, mut exposed) = (false, Vec::new());
        for name in &members {
            let before = leader.observed.clusters[name].entries.get(key);
            let after = plan.clusters[name].get(key);
            added |= runs(after, update) && !runs(before, update);
            let (object, site) = (&world.objects[name], &world.sites[name]);
            let late = object.late.as_ref().and_then(|late| late.entries.get(key));
            let may = runs(after, update)
                || runs(object.now.entries.get(key), update)
                || runs(late, update)
                || site.truly_told(key, update) && (site.answers() || remembered(after, update));
            if may && !site.nobody_got(key) && !site.truly_over(key, update) {
                exposed.push(name);
            }
        }
        assert!(
            !added || exposed.len() <= max,
            "{key}: stage {stage}: {exposed:?} are exposed to {update} and not done, {max} allowed{}",
            describe(world, leader, key, &members)
        );
    }
}

fn describe(
    world: &World,
    leader: &Leader,
    key: &DeploymentKey,
    members: &[ClusterName],
) -> String {
    let decisions = leader.fleet.decisions(key);
    let line = |name: &ClusterName| {
        let (object, site) = (&world.objects[name], &world.sites[name]);
        let report = leader.observed.clusters[name].report.as_ref();
        format!(
            "\n{name} alive {} heard {:?} of {}: decided {:?}\n  stands {} {:?}\n  said {:?} {:?}\n  is {:?}",
            site.alive,
            leader.heard_at.get(name),
            world.elapsed_seconds,
            decisions.get(name),
            object.now.generation,
            object.now.entries.get(key),
            report.map(|it| it.observed_generation),
            report.and_then(|it| it.models.get(key)),
            site.work_on(key),
        )
    };
    members.iter().map(line).collect()
}
