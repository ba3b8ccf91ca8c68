use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Gate, OF_AN_EDGE, while_fit};
use crate::probes::Readiness;
use crate::testing::{self, refusal};

const WITHIN: Duration = Duration::from_secs(30);
/// So rarely that no test sees it.
const AT_REST: Duration = Duration::from_secs(3600);

/// An API server with definitions that are all alike.
struct Server {
    uri: String,
    stands: Arc<Mutex<Option<(u16, Value)>>>,
    looks: Arc<AtomicUsize>,
}

impl Server {
    fn new() -> Self {
        let stands = Arc::new(Mutex::new(None));
        let looks = Arc::new(AtomicUsize::new(0));
        let (answer, count) = (stands.clone(), looks.clone());
        let uri = testing::serve(move |asked| {
            assert!(asked.path.contains("/customresourcedefinitions/"));
            if asked.path.ends_with(OF_AN_EDGE[0]) {
                count.fetch_add(1, Ordering::SeqCst);
            }
            let answer = answer.lock().unwrap().clone();
            async move { answer }.boxed()
        });
        let server = Self { uri, stands, looks };
        server.has("1", &current());
        server
    }

    fn has(&self, uid: &str, revision: &str) {
        let annotations = json!({"rimward.dev/crd-revision": revision});
        let metadata = json!({"name": "a", "uid": uid, "annotations": annotations});
        let object = json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata});
        *self.stands.lock().unwrap() = Some((200, object));
    }

    fn lacks(&self, code: u16) {
        *self.stands.lock().unwrap() = Some(refusal(code, "Because"));
    }

    fn gate(&self) -> Gate {
        Gate::start(&testing::client(&self.uri), OF_AN_EDGE, AT_REST)
    }

    fn looks(&self) -> usize {
        self.looks.load(Ordering::SeqCst)
    }
}

fn current() -> String {
    rimward_crds::revision::REVISION.to_string()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(WITHIN, future).await.expect("in time")
}

#[tokio::test]
async fn many_writes_in_a_row_need_one_look_and_rest_needs_none() {
    let server = Server::new();
    let gate = server.gate();
    for _ in 0..100 {
        within(gate.pass()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The first, and one that the first write asked for while that was under way.
    assert!(server.looks() <= 2, "{} looks", server.looks());
}

#[tokio::test]
async fn what_follows_from_something_that_vanished_waits_for_a_look_that_began_later() {
    let server = Server::new();
    let gate = server.gate();
    within(gate.pass()).await.unwrap();
    server.lacks(404);
    gate.doubt();
    let words = within(gate.pass()).await.unwrap_err();
    assert!(
        words.contains("edgenodes.rimward.dev is missing"),
        "{words}"
    );
    // Deleted by somebody after all.
    server.has("1", &current());
    within(gate.fits(|_| ())).await;
    gate.doubt();
    within(gate.pass()).await.unwrap();
}

#[tokio::test]
async fn an_account_that_may_not_look_goes_on_and_a_server_that_does_not_answer_lets_nothing_pass()
{
    let server = Server::new();
    server.lacks(403);
    let gate = server.gate();
    within(gate.pass()).await.unwrap();
    server.lacks(500);
    gate.doubt();
    let words = within(gate.pass()).await.unwrap_err();
    assert!(words.contains("refused: Because"), "{words}");
}

#[tokio::test]
async fn work_ends_with_the_definitions_and_begins_anew_once_they_are_there() {
    let server = Server::new();
    let (gate, readiness) = (server.gate(), Readiness::default());
    let shutdown = CancellationToken::new();
    let begun = AtomicUsize::new(0);
    let work = while_fit(&gate, &readiness, &shutdown, |stop| {
        begun.fetch_add(1, Ordering::SeqCst);
        readiness.set();
        async move {
            stop.cancelled().await;
            Ok(())
        }
    });
    let until = |times: usize, ready: bool| {
        let (begun, readiness) = (&begun, &readiness);
        async move {
            while begun.load(Ordering::SeqCst) != times || readiness.is_ready() != ready {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    let steps = async {
        within(until(1, true)).await;
        server.has("1", "0");
        gate.doubt();
        within(until(1, false)).await;
        assert!(
            readiness.words().contains("has revision 0"),
            "{}",
            readiness.words()
        );
        server.has("1", "99");
        within(until(2, true)).await;
        // Made anew between two looks: what it had went with it.
        server.has("2", &current());
        gate.doubt();
        within(until(3, true)).await;
        shutdown.cancel();
    };
    let (result, ()) = tokio::join!(work, steps);
    result.unwrap();
}
