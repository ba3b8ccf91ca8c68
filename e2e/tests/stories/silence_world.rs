//! What the stories of silence share: simulated sites on a real hub, policies with short graces, actions, and the
//! words of a status.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::simulated::{Hub, Plan, Reach, Sites, TEAM, Timing, object};
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::{Value, json};

pub(crate) const WITHIN: Duration = Duration::from_secs(120);
/// Longer than a grace and the plans after it: what has not happened by then does not happen by itself.
pub(crate) const CALM: Duration = Duration::from_secs(16);
/// As the policies of these stories have it.
pub(crate) const GRACE: Duration = Duration::from_secs(10);

/// A deployment on sites of its own.
pub(crate) struct Scene<'a> {
    pub(crate) hub: &'a Hub,
    pub(crate) sites: Sites,
    /// Of the deployment, its policy and its sites.
    pub(crate) name: &'static str,
    /// How many actions were asked for: each has a name of its own.
    acted: AtomicUsize,
}

/// Tells `body` on `count` sites of `nodes` nodes, of which the first is the canary, that run a first release. In the
/// end they leave the fleet before their sessions stop: a hub that others share must not take that for silence.
pub(crate) async fn scene(
    hub: &Hub,
    name: &'static str,
    shape: (usize, usize),
    policy: &Value,
    body: impl AsyncFnOnce(&Scene<'_>) -> Result<()>,
) -> Result<()> {
    let scene = Scene::open(hub, name, shape).await?;
    let told = async {
        scene.first(shape.0, policy).await?;
        body(&scene).await
    };
    let outcome = told.await;
    let left = scene.leave().await;
    outcome.and(left)
}

/// A story of a scene on the hub that the stories of silence share.
pub(crate) fn on_the_shared_hub(
    name: &'static str,
    shape: (usize, usize),
    policy: &Value,
    body: impl AsyncFnOnce(&Scene<'_>) -> Result<()>,
) {
    story(name, async |_: &Story| {
        let hub = Hub::shared().await?;
        scene(&hub, name, shape, policy, body).await
    });
}

impl<'a> Scene<'a> {
    async fn open(
        hub: &'a Hub,
        name: &'static str,
        (count, nodes): (usize, usize),
    ) -> Result<Self> {
        let plan = Plan {
            sites: count,
            prefix: format!("{name}-"),
            nodes,
            timing: Timing {
                heartbeat: Duration::from_secs(1),
                retry_max: Duration::from_secs(1),
                staging: Duration::from_millis(200),
                trial: Duration::from_millis(200),
                node_silence: Duration::from_secs(4),
                ..Timing::default()
            },
            ..Plan::default()
        };
        let sites = Sites::start(&hub.plane, &plan).await?;
        sites.wait_until_joined(WITHIN).await?;
        Ok(Self {
            hub,
            sites,
            name,
            acted: AtomicUsize::new(0),
        })
    }

    /// The first release goes everywhere without a bake; then the policy stands as it is meant.
    async fn first(&self, count: usize, policy: &Value) -> Result<()> {
        let mut quick = policy.clone();
        for stage in quick["stages"].as_array_mut().into_iter().flatten() {
            stage["bakeSeconds"] = json!(0);
        }
        let policies = [&quick, policy].map(|spec| object("RolloutPolicy", self.name, spec));
        self.hub.apply(&policies[0]).await?;
        self.release("first").await?;
        self.promoted(count).await?;
        self.hub.apply(&policies[1]).await
    }

    async fn leave(&self) -> Result<()> {
        let kubectl = &self.hub.kubectl;
        kubectl
            .run(["delete", "modeldeployment", self.name, "-n", TEAM])
            .await?;
        let mine = format!("fleet={}", self.name);
        kubectl.run(["delete", "edgeclusters", "-l", &mine]).await?;
        Ok(())
    }

    /// Asks for another release.
    pub(crate) async fn release(&self, release: &str) -> Result<()> {
        let more = json!({
            "placement": {"clusterSelector": {"matchLabels": {"fleet": self.name}}},
            "rolloutPolicyRef": {"name": self.name},
            "progressDeadlineSeconds": 10,
        });
        self.hub.deploy(self.name, release, &more).await
    }

    /// Waits until what is asked for is promoted, and on so many sites.
    pub(crate) async fn promoted(&self, updated: usize) -> Result<String> {
        wait_for(
            &format!("{} to be promoted", self.name),
            WITHIN,
            async || {
                let object = self.object().await?;
                let status = &object["status"];
                let current = status["currentRevision"].as_str().unwrap_or_default();
                let done = status["observedGeneration"] == object["metadata"]["generation"]
                    && !current.is_empty()
                    && status["currentRevision"] == status["updateRevision"]
                    && status["clusters"]["updated"] == updated;
                Ok(if done {
                    Seen::Done(current.to_owned())
                } else {
                    Seen::NotYet(status.to_string())
                })
            },
        )
        .await
    }

    /// Waits until the status says what `is` looks for. Every status on the way adds up.
    pub(crate) async fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        wait_for(&format!("{}: {what}", self.name), WITHIN, async || {
            let object = self.object().await?;
            let status = object["status"].clone();
            if let Err(error) = adds_up(&status) {
                return Ok(Seen::Never(format!("{error:#}")));
            }
            let seen = status["observedGeneration"] == object["metadata"]["generation"];
            Ok(if seen && is(&status) {
                Seen::Done(status)
            } else {
                Seen::NotYet(status.to_string())
            })
        })
        .await
    }

    pub(crate) async fn status(&self) -> Result<Value> {
        Ok(self.object().await?["status"].clone())
    }

    async fn object(&self) -> Result<Value> {
        let get = ["modeldeployment", self.name, "-n", TEAM];
        self.hub.kubectl.get_json(get).await
    }

    /// The revision that is being rolled out, once there is one beside the promoted one.
    pub(crate) async fn update(&self) -> Result<String> {
        let status = self
            .wait("the next revision", |status| {
                status["updateRevision"].is_string()
                    && status["updateRevision"] != status["currentRevision"]
            })
            .await?;
        let revision = status["updateRevision"].as_str();
        Ok(revision.context("no revision")?.to_owned())
    }

    /// Waits until these sites serve a revision, by what their nodes do.
    pub(crate) async fn served(&self, sites: &[usize], revision: &str) -> Result<()> {
        wait_for(&format!("sites {sites:?} to serve"), WITHIN, async || {
            for site in sites {
                let serves = self.sites.serves(*site, TEAM, self.name)?;
                if serves.as_deref() != Some(revision) {
                    return Ok(Seen::NotYet(format!("site {site} serves {serves:?}")));
                }
            }
            Ok(Seen::Done(()))
        })
        .await
    }

    /// Sites that the hub has ordered to run a revision, by what stands in their assignments: what they know of it or
    /// not.
    pub(crate) async fn ordered(&self, revision: &str) -> Result<Vec<usize>> {
        let list = self.hub.kubectl.get_json(["clusterassignments"]).await?;
        let items = list["items"].as_array().context("no list")?;
        let told = |assignment: &Value| {
            let models = assignment["spec"]["models"].as_array();
            let mut models = models.into_iter().flatten();
            models.any(|it| {
                it["name"] == self.name && it["revision"] == revision && it["action"] == "Run"
            })
        };
        let mut sites = Vec::new();
        for index in 0..self.sites.len() {
            let name = self.sites.name(index)?;
            let mut its = items.iter().filter(|it| it["metadata"]["name"] == name);
            if its.any(told) {
                sites.push(index);
            }
        }
        Ok(sites)
    }

    /// Nobody but these was ordered to run a revision, nor came to run it.
    pub(crate) async fn only(&self, sites: &[usize], revision: &str) -> Result<()> {
        let ordered = self.ordered(revision).await?;
        ensure!(ordered == sites, "sites that are ordered it: {ordered:?}");
        let exposed = self.sites.exposed_to(revision);
        ensure!(exposed == sites, "sites that were told it: {exposed:?}");
        Ok(())
    }

    /// What became of a revision.
    pub(crate) async fn outcome(&self, revision: &str) -> Result<String> {
        let get = ["modelrevision", revision, "-n", TEAM];
        let status = self.hub.kubectl.get_json(get).await?["status"].clone();
        Ok(status["outcome"].as_str().unwrap_or_default().to_owned())
    }

    /// Asks for an action as a person does, and waits for its outcome.
    pub(crate) async fn act(&self, action: &str, more: &Value) -> Result<Value> {
        let number = self.acted.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{}-{number}", self.name, action.to_lowercase());
        let mut spec = json!({"deploymentName": self.name, "action": action, "by": "admin"});
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        self.hub
            .apply(&object("RolloutAction", &name, &spec))
            .await?;
        wait_for(&format!("the outcome of {name}"), WITHIN, async || {
            let get = ["rolloutaction", &name, "-n", TEAM];
            let status = self.hub.kubectl.get_json(get).await?["status"].clone();
            Ok(if status["outcome"].is_string() {
                Seen::Done(status)
            } else {
                Seen::NotYet(status.to_string())
            })
        })
        .await
    }

    /// Cuts the line of one site.
    pub(crate) fn cut(&self, site: usize) {
        self.sites.reach(|index| index == site, Reach::Offline);
    }

    /// All sites are back.
    pub(crate) fn back(&self) {
        self.sites.reach(|_| true, Reach::Connected);
    }
}

/// How many nodes or clusters of a rollout are not heard, whatever they are taken for.
pub(crate) fn unheard(status: &Value, kind: &str) -> u64 {
    let column = |column: &str| status[kind][column].as_u64().unwrap_or(0);
    column("silent") + column("suspect")
}

/// Two stages: the canary, then everyone, one at a time. `canary` says which clusters the first has.
pub(crate) fn canary_first(canary: &Value, bake_seconds: u32) -> Value {
    json!({
        "stages": [
            {"name": "canary", "clusters": canary, "maxFailures": 0, "maxUnavailable": 1, "bakeSeconds": bake_seconds},
            {"name": "everyone", "clusters": {"percent": 100}, "maxFailures": 0, "maxUnavailable": 1},
        ],
        "offline": {"graceSeconds": GRACE.as_secs()},
    })
}

/// The canary by its label.
pub(crate) fn by_label() -> Value {
    json!({"selector": {"matchLabels": {"ring": "canary"}}})
}

/// Each desired cluster, and each desired node, is in exactly one column.
fn adds_up(status: &Value) -> Result<()> {
    const COLUMNS: [&str; 7] = [
        "updated",
        "pending",
        "held",
        "silent",
        "suspect",
        "failed",
        "rolledBack",
    ];
    for kind in ["clusters", "nodes"] {
        let counts = &status[kind];
        if counts.is_null() {
            continue;
        }
        let columns = COLUMNS.map(|column| counts[column].as_u64().unwrap_or(0));
        let sum: u64 = columns.iter().sum();
        ensure!(counts["desired"] == sum, "{kind} do not add up: {counts}");
    }
    Ok(())
}
