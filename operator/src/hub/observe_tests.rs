use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt as _;
use kube::ResourceExt;
use rimward_crds::EdgeCluster;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::Caches;
use crate::answers::PAGE_OBJECTS_MAX;
use crate::definitions::Gate;
use crate::hub::feed::Dirty;
use crate::metrics::{Kind, Metrics};
use crate::testing;

fn cluster(nth: u32) -> Value {
    json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "EdgeCluster",
        "metadata": {
            "name": format!("c{nth}"), "uid": nth.to_string(), "resourceVersion": "5",
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": if nth == 0 { json!({"connection": {"mode": "Sideways"}}) } else { json!({"connection": {"mode": "Pull"}}) },
    })
}

#[tokio::test]
async fn lists_come_in_short_pages_and_what_is_kept_is_stripped_and_named_once() {
    let asked = Arc::new(Mutex::new(BTreeSet::new()));
    let log = asked.clone();
    let uri = testing::serve(move |asked| {
        let log = log.clone();
        async move {
            if asked.query.contains("watch=true") {
                return None;
            }
            log.lock().unwrap().insert(asked.query.clone());
            let (mut items, mut token) = (Vec::new(), "");
            if asked.path.ends_with("/edgeclusters") {
                let second = asked.query.contains("continue=more");
                let page = if second { 2..4 } else { 0..2 };
                items = page.map(cluster).collect();
                token = if second { "" } else { "more" };
            }
            let metadata = json!({"resourceVersion": "7", "continue": token});
            Some((200, json!({"metadata": metadata, "items": items})))
        }
        .boxed()
    });
    let mut tasks = JoinSet::new();
    let metrics = Arc::new(Metrics::default());
    let caches = Caches::start(
        &testing::client(&uri),
        &Gate::open(),
        300,
        &metrics,
        &mut tasks,
    );
    let ready = tokio::time::timeout(Duration::from_secs(20), caches.wait_until_ready());
    ready.await.expect("it lists").unwrap();

    let seen = caches.all::<EdgeCluster>();
    let valid: Vec<_> = seen.valid().map(ResourceExt::name_any).collect();
    assert_eq!(valid, ["c1", "c2", "c3"]);
    let invalid = seen.0.iter().find_map(|it| it.0.as_ref().err()).unwrap();
    assert_eq!(invalid.metadata.name.as_deref(), Some("c0"));
    for object in &caches.all::<EdgeCluster>().0 {
        assert_eq!(kube::Resource::meta(&**object).managed_fields, None);
    }
    assert_eq!(caches.feed.take(), Dirty::Everything, "at first");
    let limit = format!("limit={PAGE_OBJECTS_MAX}");
    for query in &*asked.lock().unwrap() {
        assert!(query.contains(&limit), "{query}");
    }
    caches.feed.mark([super::lease("c1".to_owned())]);
    let Dirty::Keys(keys) = caches.feed.take() else {
        panic!("everything again");
    };
    assert_eq!(keys.len(), 1);
    assert!(keys.iter().all(|key| key.kind == Kind::Lease));
}
/// An etcd whose limit was raised takes objects of which even a page of 32 is too long an answer.
#[tokio::test]
async fn a_list_that_is_too_long_is_asked_for_again_in_shorter_pages() {
    let pages = Arc::new(Mutex::new(Vec::new()));
    let log = pages.clone();
    let (watched, mut watches) = tokio::sync::mpsc::unbounded_channel();
    let uri = testing::serve(move |asked| {
        let (log, watched) = (log.clone(), watched.clone());
        async move {
            if asked.query.contains("watch=true") {
                let _ = watched.send(asked.query);
                return None;
            }
            let mut items = Vec::new();
            if asked.path.ends_with("/edgeclusters") {
                let limit = asked
                    .query
                    .split('&')
                    .find_map(|it| it.strip_prefix("limit="));
                let limit: u32 = limit.unwrap().parse().unwrap();
                log.lock().unwrap().push(limit);
                items = (1..=limit).map(cluster).collect();
                if limit > 4 {
                    items[0]["metadata"]["annotations"] = json!({"long": "x".repeat(65 << 20)});
                }
            }
            let metadata = json!({"resourceVersion": "7"});
            Some((200, json!({"metadata": metadata, "items": items})))
        }
        .boxed()
    });
    let mut tasks = JoinSet::new();
    let metrics = Arc::new(Metrics::default());
    let caches = Caches::start(
        &testing::client(&uri),
        &Gate::open(),
        300,
        &metrics,
        &mut tasks,
    );
    let ready = tokio::time::timeout(Duration::from_secs(60), caches.wait_until_ready());
    ready.await.expect("it lists").unwrap();
    assert_eq!(caches.all::<EdgeCluster>().valid().count(), 4);
    assert_eq!(*pages.lock().unwrap(), [32, 16, 8, 4]);
    // What is not heard of for longer than that is begun anew.
    let watch = tokio::time::timeout(Duration::from_secs(20), watches.recv()).await;
    let watch = watch.expect("it watches").unwrap();
    assert!(watch.contains("timeoutSeconds=60"), "{watch}");
}
