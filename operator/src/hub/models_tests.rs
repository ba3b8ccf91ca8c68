use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rimward_artifact::registry::ClientOptions;
use rimward_crds::Model;
use rimward_crds::reasons::HubReason;
use tokio::net::TcpListener;

use super::{HOST_RUNNING_MAX, ModelId, NAMESPACE_RUNNING_MAX, RUNNING_MAX, Resolution, Resolver};
use crate::hub::feed::Feed;
use crate::metrics::Metrics;
use crate::testing;

/// Refused before anything is asked of a registry.
const NO_IMAGE: &str = "not an image";

fn object(namespace: &str, name: &str, image: &str) -> Model {
    serde_yaml::from_str(&format!(
        "{{apiVersion: rimward.dev/v1alpha1, kind: Model,
           metadata: {{namespace: {namespace}, name: {name}, generation: 1}},
           spec: {{family: digits, version: 1.0.0, image: '{image}'}}}}"
    ))
    .unwrap()
}

fn resolver(plain_http: &str) -> (Resolver, Arc<Feed>) {
    let feed = Arc::new(Feed::default());
    let options = ClientOptions {
        plain_http: [plain_http.to_owned()].into(),
        internal_only_if_named: true,
        ..ClientOptions::default()
    };
    let client = testing::client("http://127.0.0.1:1");
    let metrics = Arc::new(Metrics::default());
    (Resolver::new(client, options, metrics, feed.clone()), feed)
}

fn failure(resolver: &Resolver, model: &Model) -> Option<HubReason> {
    match resolver.result(&ModelId::of(model))? {
        Resolution::Failed { reason, .. } => Some(*reason),
        Resolution::Resolved { .. } => None,
    }
}

/// Takes turns at `now` until it is `enough`.
async fn until(
    resolver: &mut Resolver,
    feed: &Feed,
    now: Instant,
    enough: impl Fn(&Resolver) -> bool,
) {
    loop {
        resolver.turn(now);
        if enough(resolver) {
            return;
        }
        tokio::time::timeout(Duration::from_secs(10), feed.changed())
            .await
            .expect("what runs says when it ended");
    }
}

#[tokio::test]
async fn a_panic_is_a_failed_try_that_is_tried_again_and_holds_no_place() {
    let (mut resolver, feed) = resolver("localhost");
    let names = (0..RUNNING_MAX).map(|nth| format!("m{nth}"));
    let models: Vec<_> = names.map(|name| object("a", &name, NO_IMAGE)).collect();
    resolver.saw_all(models.iter());
    for model in &models {
        let work = async { panic!("in a resolve task") };
        resolver.start(ModelId::of(model), String::new(), work);
    }
    let now = Instant::now();
    until(&mut resolver, &feed, now, |it| it.running.is_empty()).await;
    for model in &models {
        assert_eq!(
            failure(&resolver, model),
            Some(HubReason::RegistryUnavailable)
        );
    }
    assert!(resolver.next_try(now).is_some(), "they wait for their turn");

    let later = now + Duration::from_secs(2);
    until(&mut resolver, &feed, later, |it| it.running.is_empty()).await;
    for model in &models {
        assert_eq!(failure(&resolver, model), Some(HubReason::ImageInvalid));
    }
}

/// A registry that takes every connection and never answers; counts them.
async fn black_hole() -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok(connection) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            open.push(connection);
        }
    });
    (host, taken)
}

#[tokio::test]
async fn a_registry_that_swallows_requests_delays_no_namespace_that_does_not_name_it() {
    let (host, taken) = black_hole().await;
    let (mut resolver, feed) = resolver(&host);
    let image = format!("{host}/digits:1");
    // First by name, and more than there are places.
    let dark = (0..5 * RUNNING_MAX).map(|nth| {
        let namespace = format!("dark-{}", nth % 5);
        object(&namespace, &format!("m{nth}"), &image)
    });
    let mut models: Vec<_> = dark.collect();
    let light: Vec<_> = (0..9)
        .map(|nth| object("light", &format!("m{nth}"), NO_IMAGE))
        .collect();
    models.extend(light.iter().cloned());
    resolver.saw_all(models.iter());
    let now = Instant::now();
    let all = |it: &Resolver| light.iter().all(|model| failure(it, model).is_some());
    until(&mut resolver, &feed, now, all).await;
    assert!(
        now.elapsed() < Duration::from_secs(5),
        "{:?}",
        now.elapsed()
    );
    let running = resolver.running.values().filter(|it| **it == host);
    assert_eq!(running.count(), HOST_RUNNING_MAX);
    assert!(taken.load(Ordering::SeqCst) <= HOST_RUNNING_MAX);
}

#[tokio::test]
async fn namespaces_take_turns_and_a_registry_that_was_silent_is_tried_one_by_one() {
    let (host, _) = black_hole().await;
    let (mut resolver, _) = resolver(&host);
    let now = Instant::now();
    let image = |nth: usize| format!("r{nth}.invalid/digits:1");
    let many = (0..20).map(|nth| object("a", &format!("m{nth}"), &image(nth)));
    let mut models: Vec<_> = many.collect();
    models.push(object("b", "m", &image(20)));
    resolver.saw_all(models.iter());
    let mut order = Vec::new();
    while let Some((id, wanted)) = resolver.next(now) {
        let host = wanted.host.clone();
        order.push(id.namespace.clone());
        resolver.start(id, host, std::future::pending());
    }
    assert_eq!(order, ["a", "b", "a"]);
    assert_eq!(
        order.iter().filter(|it| **it == "a").count(),
        NAMESPACE_RUNNING_MAX
    );

    resolver.running.clear();
    resolver.silent_hosts.insert(host.clone());
    let image = format!("{host}/digits:1");
    let dark: Vec<_> = ["a", "b"]
        .map(|namespace| object(namespace, "m", &image))
        .into();
    resolver.saw_all(dark.iter());
    let (id, _) = resolver.next(now).unwrap();
    resolver.running.insert(id, host);
    assert!(resolver.next(now).is_none());
}

#[tokio::test]
async fn one_model_at_a_time_comes_changes_and_goes() {
    let (mut resolver, feed) = resolver("localhost");
    let now = Instant::now();
    let mut model = object("a", "m", NO_IMAGE);
    resolver.saw("a", "m", Some(&model));
    until(&mut resolver, &feed, now, |it| {
        failure(it, &model).is_some()
    })
    .await;
    model.metadata.generation = Some(2);
    resolver.saw("a", "m", Some(&model));
    assert_eq!(
        failure(&resolver, &object("a", "m", NO_IMAGE)),
        None,
        "of another spec"
    );
    until(&mut resolver, &feed, now, |it| {
        failure(it, &model).is_some()
    })
    .await;
    resolver.saw("a", "m", None);
    assert!(resolver.wanted.is_empty());
    assert!(resolver.results.is_empty());
    assert_eq!(resolver.next_try(now), None);
}
