use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use rimward_core::fleet::Decided;
use rimward_core::ids::DeploymentKey;
use serde_json::{Value, json};

use super::{Sweep, statuses};
use crate::election::Leadership;
use crate::hub::apply::Writer;
use crate::hub::index::Work;
use crate::hub::observe::Caches;
use crate::metrics::{Kind, Metrics};
use crate::testing;

const HOUR: Duration = Duration::from_secs(3_600);

/// What was asked of the server, which takes everything.
type Asked = Arc<Mutex<Vec<String>>>;

fn world() -> (Arc<Caches>, Writer, Asked) {
    let log = Asked::default();
    let asked = log.clone();
    let uri = testing::serve(move |it| {
        let name = it.path.split('/').nth(7).unwrap_or_default().to_owned();
        let message = it.body["status"]["message"].as_str().unwrap_or_default();
        let line = format!("{} {name} {message}", it.method);
        asked.lock().unwrap().push(line.trim_end().to_owned());
        async move { Some((200, action(&name, "6", &it.body["status"]))) }.boxed()
    });
    let caches = Arc::new(Caches::unwatched());
    let (metrics, leadership) = (Arc::new(Metrics::default()), Leadership::endless());
    let writer = Writer::new(testing::client(&uri), metrics, caches.clone(), leadership);
    (caches, writer, log)
}

fn action(name: &str, version: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "RolloutAction",
        "metadata": {"name": name, "namespace": "team", "uid": name, "resourceVersion": version},
        "spec": {"deploymentName": "digits", "action": "Retry", "by": "anna"}, "status": status,
    })
}

fn wrote(caches: &Caches, name: &str, status: &Value) {
    let object = serde_json::from_value(action(name, "5", status)).unwrap();
    caches.wrote(Kind::RolloutAction, object);
}

fn work(names: &[&str]) -> Work {
    let named = |name: &&str| ("team".to_owned(), (*name).to_owned());
    Work {
        actions: names.iter().map(named).collect::<BTreeSet<_>>(),
        ..Work::default()
    }
}

#[tokio::test]
async fn an_action_is_told_what_was_decided_or_that_nothing_ever_will_be() {
    let (caches, writer, asked) = world();
    for name in ["decided", "orphan", "elsewhere"] {
        wrote(&caches, name, &Value::Null);
    }
    let key = DeploymentKey::parse("team", "digits").unwrap();
    let decided = |name: &str, uid: &str| Decided {
        uid: uid.to_owned(),
        name: name.to_owned(),
        applied: true,
        message: "done".to_owned(),
    };
    let decisions = [
        decided("decided", "decided"),
        decided("elsewhere", "another"),
    ];
    let decisions = decisions.iter().map(|it| (&key, it));
    statuses(&writer, &caches, decisions, &work(&["decided", "orphan"])).await;
    let mut told = asked.lock().unwrap().clone();
    told.sort();
    assert_eq!(
        told,
        [
            "PATCH decided done",
            "PATCH orphan there is no ModelDeployment digits in namespace team"
        ]
    );
}

#[tokio::test]
async fn finished_actions_are_looked_through_when_it_is_time_and_not_at_each_turn() {
    let (caches, writer, asked) = world();
    let finished = |time: &str| json!({"outcome": "Applied", "completedTime": time});
    let (old, never) = (
        finished("2001-01-01T00:00:00Z"),
        finished("2999-01-01T00:00:00Z"),
    );
    let mut sweep = Sweep::default();
    let nothing = Work::default();
    assert_eq!(
        sweep.turn(&writer, &caches, &nothing, HOUR).await,
        None,
        "there is none"
    );
    wrote(&caches, "old", &old);
    wrote(&caches, "young", &never);
    assert_eq!(sweep.turn(&writer, &caches, &nothing, HOUR).await, None);
    assert!(asked.lock().unwrap().is_empty(), "it is not time");
    let next = sweep.turn(&writer, &caches, &work(&["old"]), HOUR).await;
    assert!(
        next.is_some_and(|next| next <= Duration::from_secs(600)),
        "a change is news"
    );
    // A new leader looks at once.
    let mut sweep = Sweep::default();
    let next = sweep.turn(&writer, &caches, &nothing, HOUR).await;
    assert_eq!(*asked.lock().unwrap(), ["DELETE old"]);
    assert!(next.is_some(), "one is kept");
}
