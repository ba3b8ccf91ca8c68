use std::sync::Arc;

use futures::FutureExt as _;
use kube::core::DeserializeGuard;

use super::*;
use crate::edge::liveness::Sight;
use crate::edge::observe::{Assignment, Node};
use crate::testing;

const SECOND: Duration = Duration::from_secs(1);

/// An edge cluster of two nodes whose API server answers writes of n1 as told, and takes all others.
struct World {
    /// The code that a write of n1 is answered with.
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
                200 => answer,
                code => testing::refusal(code, "refused"),
            };
            async move { Some(answer) }.boxed()
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
        let mut liveness = world.liveness.lock().unwrap();
        for name in ["n1", "n2"] {
            for (beat, sight) in [("1", Sight::Listed), ("2", Sight::Watched)] {
                liveness.saw(name, Some(beat.to_owned()), sight, Instant::now());
            }
        }
        drop(liveness);
        world
    }

    fn reconciler(&self) -> Reconciler<'_> {
        let surroundings = Surroundings {
            cluster: &self.cluster,
            metrics: &self.metrics,
            leadership: &self.leadership,
            hub_away: &self.away,
            patience: SECOND,
            retry_max: SECOND,
        };
        Reconciler::new(self.client.clone(), self.client.clone(), surroundings)
    }

    /// One round; gives the nodes that were written in it.
    async fn round(&self, reconciler: &mut Reconciler<'_>) -> Vec<String> {
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
        reconciler.reconcile(observed, &facts, &self.liveness).await;
        std::mem::take(&mut *self.written.lock().unwrap())
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
    let mut reconciler = world.reconciler();
    assert_eq!(world.round(&mut reconciler).await, ["n1"]);
    // It is tried again after its pause; nobody else gets the only place.
    for _ in 0..4 {
        tokio::time::sleep(SECOND / 2).await;
        let written = world.round(&mut reconciler).await;
        assert!(!written.contains(&"n2".to_owned()), "{written:?}");
    }
    assert_eq!(reconciler.unsettled.may_be("n1").len(), 1);
    // It was not taken: n1 has another version, without an entry. So its place is free, for itself again.
    world.nodes.lock().unwrap()[0] = node("n1", "12");
    *world.n1.lock().unwrap() = 200;
    tokio::time::sleep(SECOND).await;
    assert_eq!(world.round(&mut reconciler).await, ["n1"]);
    assert!(reconciler.unsettled.may_be("n1").is_empty());
}

#[tokio::test]
async fn a_node_whose_write_is_refused_keeps_no_other_waiting() {
    let world = World::new(403);
    let mut reconciler = world.reconciler();
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
        ..world.reconciler().surroundings
    };
    let mut reconciler = Reconciler::new(world.client.clone(), world.client.clone(), surroundings);
    assert_eq!(world.round(&mut reconciler).await, [""; 0]);
}
