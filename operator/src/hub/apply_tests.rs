use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::Method;
use futures::FutureExt as _;
use kube::ResourceExt as _;
use rimward_crds::{ClusterAssignment, ClusterAssignmentSpec};
use serde_json::{Value, json};

use super::{Outcome, Stands, Target, Writer};
use crate::election::Leadership;
use crate::hub::feed::Dirty;
use crate::hub::observe::Caches;
use crate::metrics::{Kind, Metrics};
use crate::objects::ObjectKey;
use crate::testing::{self, refusal};

/// One assignment on a server. A PATCH answers the next of `codes` (0: never), and is taken if `taken` says so.
#[derive(Default)]
struct Server {
    version: AtomicU64,
    code: AtomicU16,
    asked: Mutex<Vec<String>>,
}

const OK: u16 = 200;
/// Takes the write, and never answers.
const TAKEN: u16 = 1;
const GONE: u16 = 2;

impl Server {
    fn object(&self) -> Value {
        let version = self.version.load(Ordering::SeqCst);
        json!({
            "apiVersion": "rimward.dev/v1alpha1", "kind": "ClusterAssignment",
            "metadata": {
                "name": "a", "uid": "1", "resourceVersion": version.to_string(), "generation": 3,
                "managedFields": [{"manager": "rimward-hub"}],
            },
            "spec": {"models": []},
        })
    }

    fn start(version: u64) -> (Arc<Self>, Arc<Caches>, Arc<Writer>) {
        let server = Arc::new(Self::default());
        server.version.store(version, Ordering::SeqCst);
        server.code.store(OK, Ordering::SeqCst);
        let answers = server.clone();
        let uri = testing::serve(move |asked| {
            let server = answers.clone();
            async move {
                let code = server.code.load(Ordering::SeqCst);
                let mut log = server.asked.lock().unwrap();
                log.push(format!("{} {}?{}", asked.method, asked.path, asked.query));
                match code {
                    GONE => return Some(refusal(404, "NotFound")),
                    OK | TAKEN if asked.method != Method::GET => {
                        server.version.fetch_add(1, Ordering::SeqCst);
                    }
                    _ => {}
                }
                match code {
                    _ if asked.method == Method::GET => Some((200, server.object())),
                    OK => Some((200, server.object())),
                    TAKEN => None,
                    code => Some(refusal(code, "Because")),
                }
            }
            .boxed()
        });
        let caches = Arc::new(Caches::unwatched());
        let client = testing::client(&uri);
        let (metrics, leadership) = (Arc::new(Metrics::default()), Leadership::endless());
        let writer = Writer::new(client, metrics, caches.clone(), leadership);
        let object = serde_json::from_value(server.object()).unwrap();
        caches.wrote(Kind::ClusterAssignment, object);
        caches.feed.take();
        (server, caches, Arc::new(writer))
    }
}

fn key() -> ObjectKey {
    ObjectKey {
        kind: Kind::ClusterAssignment,
        namespace: None,
        name: "a".to_owned(),
    }
}

async fn write(writer: &Writer, caches: &Caches) -> Outcome {
    let seen = caches.get::<ClusterAssignment>(&key()).unwrap();
    let target = Target::of(Kind::ClusterAssignment, &*seen);
    writer
        .entries(&target, &ClusterAssignmentSpec::default())
        .await
}

#[tokio::test]
async fn what_was_written_is_seen_at_once_and_nobody_waits_for_a_watch() {
    let (_server, caches, writer) = Server::start(5);
    let stands = Stands {
        version: Some(6),
        generation: Some(3),
    };
    assert_eq!(write(&writer, &caches).await, Outcome::Done(stands));
    let seen = caches.get::<ClusterAssignment>(&key()).unwrap();
    assert_eq!(seen.resource_version().as_deref(), Some("6"));
    assert_eq!(seen.0.as_ref().unwrap().metadata.managed_fields, None);
    assert_eq!(caches.feed.take(), Dirty::Keys([key()].into()));
}

#[tokio::test]
async fn an_object_that_was_deleted_before_a_watch_showed_our_write_is_found_by_asking() {
    let (server, caches, writer) = Server::start(5);
    assert!(write(&writer, &caches).await.is_done());
    server.code.store(GONE, Ordering::SeqCst);
    caches.feed.take();
    let now = Instant::now();
    writer.settle_once(now).await;
    assert!(
        caches.get::<ClusterAssignment>(&key()).is_some(),
        "the watch will mostly tell"
    );
    writer.settle_once(now + Duration::from_secs(3)).await;
    assert!(caches.get::<ClusterAssignment>(&key()).is_none());
    assert_eq!(caches.feed.take(), Dirty::Keys([key()].into()));
    assert_eq!(caches.unshown(), []);
}

#[tokio::test]
async fn a_write_that_was_taken_without_an_answer_is_held_until_a_read_shows_it() {
    let (server, caches, writer) = Server::start(5);
    server.code.store(TAKEN, Ordering::SeqCst);
    let written = tokio::time::timeout(Duration::from_secs(2), write(&writer, &caches)).await;
    assert!(written.is_err(), "it hangs");
    let unsettled = writer.unsettled(&key()).unwrap();
    assert_eq!(unsettled.writes, 1);
    let now = Instant::now();
    writer.settle_once(now).await;
    writer.settle_once(now + Duration::from_secs(3)).await;
    assert!(writer.unsettled(&key()).is_none());
    assert_eq!(caches.version(&key()), Some(6));
    assert_eq!(caches.feed.take(), Dirty::Keys([key()].into()));
}

#[tokio::test]
async fn a_server_that_fails_tells_nothing_and_one_that_refuses_is_not_asked_again_at_once() {
    for (code, unknown) in [(500, true), (504, true), (403, false), (422, false)] {
        let (server, caches, writer) = Server::start(5);
        server.code.store(code, Ordering::SeqCst);
        let outcome = write(&writer, &caches).await;
        assert_eq!(
            matches!(outcome, Outcome::Unknown(_)),
            unknown,
            "{code}: {outcome:?}"
        );
        assert_eq!(
            matches!(outcome, Outcome::Refused(_)),
            !unknown,
            "{code}: {outcome:?}"
        );
        assert_eq!(writer.unsettled(&key()).is_some(), unknown, "{code}");
        assert_eq!(write(&writer, &caches).await, Outcome::Paused);
        assert_eq!(server.asked.lock().unwrap().len(), 1);
    }
    let (server, caches, writer) = Server::start(5);
    server.code.store(409, Ordering::SeqCst);
    assert_eq!(write(&writer, &caches).await, Outcome::Conflict);
}

/// Else the assignment of a cluster that is new would be taken for an orphan at the first turn.
#[tokio::test]
async fn a_new_leader_sees_clusters_that_its_watch_did_not_show_yet() {
    let uri = testing::serve(|asked| {
        async move {
            let cluster = json!({
                "apiVersion": "rimward.dev/v1alpha1", "kind": "EdgeCluster",
                "metadata": {"name": "new", "uid": "1", "resourceVersion": "9"},
                "spec": {"connection": {"mode": "Pull"}},
            });
            if asked.path.ends_with("/edgeclusters/new") {
                return Some((200, cluster));
            }
            let some = asked.path.ends_with("/edgeclusters");
            let items: Vec<_> = some
                .then(|| json!({"metadata": cluster["metadata"]}))
                .into_iter()
                .collect();
            Some((
                200,
                json!({"metadata": {"resourceVersion": "9"}, "items": items}),
            ))
        }
        .boxed()
    });
    let caches = Arc::new(Caches::unwatched());
    let (metrics, leadership) = (Arc::new(Metrics::default()), Leadership::endless());
    let writer = Writer::new(testing::client(&uri), metrics, caches.clone(), leadership);
    writer.catch_up().await.unwrap();
    let key = ObjectKey {
        kind: Kind::EdgeCluster,
        namespace: None,
        name: "new".to_owned(),
    };
    assert_eq!(caches.version(&key), Some(9));
}
