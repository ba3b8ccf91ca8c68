//! The course of one release, put together from what was seen.

use anyhow::{Context, Result};
use k8s_openapi::jiff::Timestamp;
use rimward_e2e::system::{Node, System};
use serde_json::Value;

use super::watching::{Place, Sight, Watching};

/// What follows what; each ends at the moment that it names.
pub(super) const PARTS: [&str; 13] = [
    "`kubectl apply` → ModelDeployment changed on the hub",
    "→ ModelRevision made (tag resolved, config read)",
    "→ ClusterAssignment of the hub has it",
    "→ mirrored into the edge cluster",
    "→ EdgeNode.spec of the first node has the go-ahead",
    "→ staged: fetched and verified, in preflight",
    "→ preflight passed, loaded, in trial",
    "→ first prediction by it on the first node",
    "→ committed (probation over)",
    "→ EdgeNode.spec of the last node has the go-ahead",
    "→ staged there",
    "→ in trial there",
    "→ first prediction by it on the last node",
];

/// When each part ended.
#[derive(Debug)]
pub(super) struct Course {
    began: f64,
    ends: [f64; PARTS.len()],
}

impl Course {
    /// Puts one release together.
    pub(super) fn of(
        watching: &Watching,
        system: &System,
        revision: &str,
        began: f64,
    ) -> Result<Self> {
        let seen = |what: &str, is_it: &dyn Fn(&Sight) -> bool| {
            let first = watching.first(|sight| sight.at >= began && is_it(sight));
            first.with_context(|| format!("{revision}: never saw {what}"))
        };
        let has = |models: &Value| {
            let mut models = models.as_array().into_iter().flatten();
            models.any(|model| model["revision"] == revision)
        };
        let at = |place: Place, what: &str| {
            seen(what, &|sight| {
                sight.place == place && has(&sight.object["spec"]["models"])
            })
        };
        let changed = seen("the deployment", &|sight| {
            sight.place == Place::HubDeployment
        })?;
        let made = seen("the revision", &|sight| {
            sight.place == Place::HubRevision && sight.name == revision
        })?;
        let assigned = at(Place::HubAssignment, "it in the hub's assignment")?;
        let mirrored = at(Place::EdgeAssignment, "it in the mirrored assignment")?;
        let mut nodes = system
            .nodes()
            .map(|node| {
                let go_ahead = seen("the go-ahead", &|sight| {
                    sight.place == Place::EdgeNode
                        && sight.name == node.name
                        && has(&sight.object["spec"]["models"])
                })?;
                Ok((go_ahead, node))
            })
            .collect::<Result<Vec<_>>>()?;
        nodes.sort_by(|one, other| one.0.total_cmp(&other.0));
        let [(first_go, first), (last_go, last)] = nodes.as_slice() else {
            anyhow::bail!("{} nodes, not 2", nodes.len());
        };
        let answered = |node: &Node| {
            let answer = watching.first_answer(&node.name, revision);
            answer.with_context(|| format!("{revision}: {} never answered by it", node.name))
        };
        Ok(Self {
            began,
            ends: [
                changed,
                made,
                assigned,
                mirrored,
                *first_go,
                turned(first, revision, "Preflight")?,
                turned(first, revision, "Trial")?,
                answered(first)?,
                turned(first, revision, "Ready")?,
                *last_go,
                turned(last, revision, "Preflight")?,
                turned(last, revision, "Trial")?,
                answered(last)?,
            ],
        })
    }

    /// Microseconds from the end of the part before.
    pub(super) fn own(&self, part: usize) -> f64 {
        let before = part
            .checked_sub(1)
            .map_or(self.began, |before| self.ends[before]);
        self.ends[part] - before
    }

    /// Microseconds since `kubectl apply` was started.
    pub(super) fn since(&self, part: usize) -> f64 {
        self.ends[part] - self.began
    }

    /// To the last node's first prediction.
    pub(super) fn total(&self) -> f64 {
        self.since(PARTS.len() - 1)
    }

    /// From the first node's go-ahead to its first prediction.
    pub(super) fn on_the_first_node(&self) -> f64 {
        self.own(5) + self.own(6) + self.own(7)
    }
}

/// When an agent's log says that a revision turned so.
fn turned(node: &Node, revision: &str, standing: &str) -> Result<f64> {
    let path = node.agent.log();
    let log =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let line = log.lines().find(|line| {
        line.contains("turned")
            && line.contains(&format!("revision=\"{revision}\""))
            && line.contains(&format!("standing={standing}"))
    });
    let line = line.with_context(|| {
        format!(
            "{} does not say that {revision} turned {standing}",
            path.display()
        )
    })?;
    let stamp = line.split_whitespace().next().unwrap_or_default();
    let stamp: Timestamp = stamp
        .parse()
        .with_context(|| format!("the time in {line:?}"))?;
    Ok(stamp.as_microsecond() as f64)
}
