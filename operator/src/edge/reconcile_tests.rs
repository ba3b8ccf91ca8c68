use std::sync::Arc;

use futures::FutureExt as _;
use kube::core::DeserializeGuard;
use rimward_core::cluster::Hearing;

use super::*;
use crate::edge::liveness::Sight;
use crate::edge::observe::{Assignment, Node};
use crate::testing;

const SECOND: Duration = Duration::from_secs(1);
const NEVER: u16 = 0;

/// An edge cluster of two nodes whose API server answers writes of n1 as told, and takes all others.
struct World {
    /// The code that a request about n1 is answered with; [`NEVER`] is no answer.
    n1: Arc<Mutex<u16>>,
    /// Writes of nodes, by name.
    written: Arc<Mutex<Vec<String>>>,
    nodes: Mutex<Vec<Value>>,
    assignment: Value,
    client: Client,
    metrics: Metrics,
    leadership: Leadership,
    away: AtomicBool,
    liveness: Mutex<Liveness>,
    cluster: ClusterName,
}

impl World {
    /// `r-2` shall run on both, one at a time.
    fn new(answer: u16) -> Self {
        let n1 = Arc::new(Mutex::new(answer));
        let written = Arc::new(Mutex::new(Vec::new()));
        let assignment = json!({
            "apiVersion": "rimward.dev/v1alpha1", "kind": "ClusterAssignment",
            "metadata": {"name": "west", "uid": "a", "resourceVersion": "5", "generation": 1},
            "spec": {"models": [{
                "namespace": "team", "name": "digits", "endpointName": "digits", "revision": "r-2",
                "package": {"repository": "r", "digest": format!("sha256:{}", "0".repeat(64))},
                "runtime": {}, "health": {}, "maxUnavailable": 1, "action": "Run",
                "progressDeadlineSeconds": 600,
            }]},
        });
        let (its, log, stands) = (n1.clone(), written.clone(), assignment.clone());
        let uri = testing::serve(move |asked| {
            let name = asked.path.rsplit('/').next().unwrap_or_default().to_owned();
            let code = if name == "n1" {
                *its.lock().unwrap()
            } else {
                200
            };
            let answer = if asked.path.contains("/edgenodes/") {
                log.lock().unwrap().push(name.clone());
                let mut node = node(&name, "11");
                node["spec"] = asked.body["spec"].clone();
                (code, node)
            } else {
                (200, stands.clone())
            };
            let answer = match answer.0 {
                NEVER => None,
                200 => Some(answer),
                code => Some(testing::refusal(code, "refused")),
            };
            async move { answer }.boxed()
        });
        let world = Self {
            n1,
            written,
            nodes: Mutex::new(vec![node("n1", "10"), node("n2", "10")]),
            assignment,
            client: testing::client(&uri),
            metrics: Metrics::default(),
            leadership: Leadership::endless(),
            away: AtomicBool::new(true),
            liveness: Mutex::new(Liveness::new(SECOND * 60, Instant::now())),
            cluster: "west".parse().unwrap(),
        };
        world.hears(&["n1", "n2"]);
        world
    }

    /// Listens anew, and hears these.
    fn hears(&self, names: &[&str]) {
        let now = Instant::now();
        let mut liveness = Liveness::new(SECOND * 60, now);
        for name in names {
            for (beat, sight) in [("1", Sight::Listed), ("2", Sight::Watched)] {
                liveness.saw(name, Some(beat.to_owned()), sight, now);
            }
        }
        *self.liveness.lock().unwrap() = liveness;
    }

    fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            cluster: &self.cluster,
            metrics: &self.metrics,
            leadership: &self.leadership,
            hub_away: &self.away,
            patience: SECOND,
            retry_max: SECOND,
        }
    }

    /// Of a session that begins with this.
    fn reconciler<'a>(&'a self, unsettled: &'a mut Unsettled) -> Reconciler<'a> {
        let (hub, edge) = (self.client.clone(), self.client.clone());
        Reconciler::new(hub, edge, self.surroundings(), unsettled)
    }

    /// One round; gives the nodes that were written in it.
    async fn round(&self, reconciler: &mut Reconciler<'_>) -> Vec<String> {
        self.turn(reconciler).await;
        std::mem::take(&mut *self.written.lock().unwrap())
    }

    /// One round; gives when the next is due.
    async fn turn(&self, reconciler: &mut Reconciler<'_>) -> Option<Duration> {
        let parse = |value: &Value| serde_json::from_value(value.clone()).unwrap();
        let assignment: Assignment = DeserializeGuard(Ok(parse(&self.assignment)));
        let nodes = self.nodes.lock().unwrap().clone();
        let nodes = nodes.into_iter().map(|value| {
            let node: Node = serde_json::from_value(value).unwrap();
            Arc::new(node)
        });
        let observed = Observed {
            hub: None,
            edge: Some(Arc::new(assignment)),
            nodes: nodes.collect(),
        };
        let facts = Facts::default();
        reconciler.reconcile(observed, &facts, &self.liveness).await
    }
}

fn node(name: &str, version: &str) -> Value {
    json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "EdgeNode",
        "metadata": {"name": name, "uid": name, "resourceVersion": version, "generation": 1},
        "spec": {}, "status": {"observedGeneration": 1},
    })
}

#[tokio::test]
async fn a_go_ahead_without_an_answer_holds_its_place_until_a_later_version_tells() {
    let world = World::new(504);
    let mut unsettled = Unsettled::new();
    let mut reconciler = world.reconciler(&mut unsettled);
    assert_eq!(world.round(&mut reconciler).await, ["n1"]);
    // It is tried again after its pause; nobody else gets the only place.
    for _ in 0..4 {
        tokio::time::sleep(SECOND / 2).await;
        let written = world.round(&mut reconciler).await;
        assert!(!written.contains(&"n2".to_owned()), "{written:?}");
    }
    let may_be = |it: &Reconciler<'_>| it.unsettled.may_be("n1", Hearing::Heard).len();
    assert_eq!(may_be(&reconciler), 1);
    // It was not taken: n1 has another version, without an entry. So its place is free, for itself again.
    world.nodes.lock().unwrap()[0] = node("n1", "12");
    *world.n1.lock().unwrap() = 200;
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.round(&mut reconciler).await, ["n1"]);
    assert_eq!(may_be(&reconciler), 0);
}

#[tokio::test]
async fn a_session_that_begins_anew_holds_what_the_one_before_was_writing() {
    let world = World::new(NEVER);
    let mut unsettled = Unsettled::new();
    let mut first = world.reconciler(&mut unsettled);
    // It ends in the middle of its write.
    let cut_off = tokio::time::timeout(SECOND, world.round(&mut first)).await;
    assert!(cut_off.is_err(), "{cut_off:?}");
    drop(first);
    assert_eq!(std::mem::take(&mut *world.written.lock().unwrap()), ["n1"]);
    // The next one hears n2 before n1.
    world.hears(&["n2"]);
    *world.n1.lock().unwrap() = 200;
    let mut second = world.reconciler(&mut unsettled);
    for _ in 0..3 {
        assert_eq!(world.round(&mut second).await, [""; 0]);
    }
    world.hears(&["n1", "n2"]);
    assert_eq!(world.round(&mut second).await, ["n1"]);
}

#[tokio::test]
async fn a_process_that_takes_over_presumes_that_a_node_it_has_not_heard_was_given_the_place() {
    let world = World::new(200);
    world.hears(&["n2"]);
    let mut unsettled = Unsettled::new();
    let mut reconciler = world.reconciler(&mut unsettled);
    for _ in 0..3 {
        assert_eq!(world.round(&mut reconciler).await, [""; 0]);
    }
    world.hears(&["n1", "n2"]);
    assert_eq!(world.round(&mut reconciler).await, ["n1"]);
    // Where nobody was before, the first that is heard gets it.
    world.hears(&["n2"]);
    let mut unsettled = Unsettled::new();
    unsettled.inherits();
    let mut alone = world.reconciler(&mut unsettled);
    assert_eq!(world.round(&mut alone).await, ["n2"]);
}

#[tokio::test]
async fn a_read_that_is_due_and_refused_does_not_make_the_rounds_race() {
    let world = World::new(403);
    let mut unsettled = Unsettled::new();
    let long_ago = Instant::now().checked_sub(SECOND * 71).unwrap();
    let n1 = testing::edge_node("n1", "10");
    unsettled.begin(&n1, Vec::new(), long_ago);
    let mut reconciler = world.reconciler(&mut unsettled);
    let mut rounds = 0;
    let end = Instant::now() + SECOND * 2;
    while Instant::now() < end {
        let next = world.turn(&mut reconciler).await;
        tokio::time::sleep(next.unwrap_or(SECOND)).await;
        rounds += 1;
    }
    assert!(rounds < 15, "{rounds} rounds in 2 s");
    assert!(!reconciler.unsettled.to_read(end).is_empty());
}

#[tokio::test]
async fn a_node_whose_write_is_refused_keeps_no_other_waiting() {
    let world = World::new(403);
    let mut unsettled = Unsettled::new();
    let mut reconciler = world.reconciler(&mut unsettled);
    assert_eq!(world.round(&mut reconciler).await, ["n1"]);
    assert_eq!(
        world.round(&mut reconciler).await,
        ["n2"],
        "its place is free"
    );
    tokio::time::sleep(SECOND).await;
    assert_eq!(
        world.round(&mut reconciler).await,
        [""; 0],
        "n2 has the place"
    );
}

#[tokio::test]
async fn a_replica_that_may_lead_no_more_writes_nothing() {
    let world = World::new(200);
    let ended = Leadership::ended();
    let surroundings = Surroundings {
        leadership: &ended,
        ..world.surroundings()
    };
    let (client, mut unsettled) = (world.client.clone(), Unsettled::new());
    let mut reconciler = Reconciler::new(client.clone(), client, surroundings, &mut unsettled);
    assert_eq!(world.round(&mut reconciler).await, [""; 0]);
}
