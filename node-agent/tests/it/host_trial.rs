//! A version in trial beside the one before it: who answers, and whose error it is.

use std::time::Duration;

use http::StatusCode;
use rimward_node_agent::proto::SlotStats;

use crate::host_client::{Client, held_out, request};
use crate::host_support::{Host, Package};

#[tokio::test]
async fn what_a_version_in_trial_fails_the_previous_one_answers() {
    let mut host = Host::start().await;
    let good = host.load(&Package::good()).await;
    let flaky = host.load(&Package::fixture("flaky")).await;
    host.route(Some(good), Some(flaky)).await;
    let mut client = Client::new(host.address);
    let (mut by_flaky, mut by_good) = (0u64, 0u64);
    for (image, _) in held_out() {
        let answer = client.infer(&request(&image)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
        let version = answer.headers()["rimward-model-version"].to_str().unwrap();
        assert_eq!(answer.body()["model_version"], version);
        match version {
            "flaky" => by_flaky += 1,
            "digits-1.0.0" => {
                assert_eq!(answer.headers()["rimward-fallback-from"], "flaky");
                by_good += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((by_flaky, by_good), (252, 108));
    let stats = host.stats().await;
    let (candidate, previous) = (&stats[&flaky], &stats[&good]);
    assert_eq!(
        (candidate.requests, candidate.errors, candidate.fallbacks),
        (360, 108, 108)
    );
    assert_eq!((previous.requests, previous.errors), (108, 0));
    assert_eq!(candidate.latency.count(), 360);
    assert!(
        candidate
            .last_error
            .as_ref()
            .unwrap()
            .contains("flaky module fails")
    );
}

#[tokio::test]
async fn a_version_in_trial_that_hangs_costs_no_answer_and_each_is_its_error() {
    let mut host = Host::start().await;
    let good = host.load(&Package::good()).await;
    let hang = Package::fixture("hang")
        .config("trigger", "some")
        .limits(|limits| limits.timeout_milliseconds = 2_000);
    let hang = host.load(&hang).await;
    host.route(Some(good), Some(hang)).await;
    let mut client = Client::new(host.address);
    for (image, _) in held_out().into_iter().take(16) {
        assert_eq!(
            client.infer(&request(&image)).await.status(),
            StatusCode::OK
        );
    }
    let stats = host.stats_when_idle().await;
    let (candidate, previous) = (&stats[&hang], &stats[&good]);
    assert!(candidate.errors > 0);
    assert_eq!(candidate.errors, candidate.fallbacks);
    // While it is still at work on what was answered long ago, the next request does not wait behind that.
    assert_eq!(candidate.requests + candidate.rejected, 16);
    assert_eq!(candidate.errors + candidate.rejected, previous.requests);
    // The client's own mistakes, which both refuse, are not held against anyone.
    let wrong = serde_json::json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8], "data": vec![99; 64]}]});
    assert_eq!(client.infer(&wrong).await.status(), StatusCode::BAD_REQUEST);
    let after = host.stats_when_idle().await;
    assert_eq!(
        (after[&hang].errors, after[&good].errors),
        (candidate.errors, 0)
    );
    assert_eq!(
        (after[&hang].client_errors, after[&good].client_errors),
        (1, 1)
    );
}

/// An image of which the hanging module makes something, or nothing until it is stopped.
async fn image_that(host: &mut Host, hangs: bool) -> serde_json::Value {
    let probe = Package::fixture("hang")
        .config("trigger", "some")
        .limits(|limits| limits.timeout_milliseconds = 500);
    let slot = host.load(&probe).await;
    host.route(Some(slot), None).await;
    let mut client = Client::new(host.address);
    for (image, _) in held_out() {
        let answered = client.infer(&request(&image)).await.status() == StatusCode::OK;
        if answered != hangs {
            host.route(None, None).await;
            host.unload(slot).await;
            return image;
        }
    }
    panic!("all images are alike");
}

#[tokio::test]
async fn a_good_answer_within_the_whole_limit_is_good_though_the_previous_version_was_first() {
    let mut host = Host::start().await;
    let (slow, quick) = (
        image_that(&mut host, true).await,
        image_that(&mut host, false).await,
    );
    let good = host.load(&Package::good()).await;
    let limit = Duration::from_secs(6);
    let late = Package::fixture("hang")
        .config("trigger", "some")
        .limits(|limits| limits.timeout_milliseconds = 6_000);
    let late = host.load(&late).await;
    host.route(Some(good), Some(late)).await;
    // Its one place is taken for a whole limit; what comes a quarter later waits three quarters for it.
    let address = host.address;
    let body = request(&slow).to_string();
    let hanging = tokio::spawn(async move {
        let path = "/v2/models/digits/versions/hang/infer";
        Client::new(address).post(path, body).await.status()
    });
    while host.stats().await[&late].inflight == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(limit / 4).await;
    let answer = Client::new(host.address).infer(&request(&quick)).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers()["rimward-model-version"], "digits-1.0.0");
    assert_eq!(answer.headers()["rimward-fallback-from"], "hang");
    assert_eq!(hanging.await.unwrap(), StatusCode::GATEWAY_TIMEOUT);
    let stats = host.stats_when_idle().await;
    let late = &stats[&late];
    assert_eq!((late.requests, late.errors, late.client_errors), (2, 1, 0));
    assert_eq!(stats[&good].requests, 1);
}

#[tokio::test]
async fn what_the_previous_version_fails_too_is_no_error_of_the_candidate() {
    let mut host = Host::start().await;
    let poisoned = |revision: &str| {
        let mut package = Package::fixture("trap").config("trigger", "some");
        package.spec.revision = revision.to_owned();
        package
    };
    let previous = host.load(&poisoned("old")).await;
    let candidate = host.load(&poisoned("new")).await;
    host.route(Some(previous), Some(candidate)).await;
    let mut client = Client::new(host.address);
    let (mut answered, mut failed) = (0, 0);
    for (image, _) in held_out().into_iter().take(40) {
        let answer = client.infer(&request(&image)).await;
        match answer.status() {
            StatusCode::OK => answered += 1,
            StatusCode::INTERNAL_SERVER_ERROR => failed += 1,
            _ => panic!("{answer:?}"),
        }
    }
    assert!(answered > 0 && failed > 0, "{answered} and {failed}");
    let stats = host.stats_when_idle().await;
    let counts = |stats: &SlotStats| (stats.requests, stats.errors, stats.client_errors);
    assert_eq!(counts(&stats[&candidate]), (40, 0, failed));
    // Without a witness the same failures are its own.
    host.route(Some(candidate), None).await;
    for (image, _) in held_out().into_iter().take(40) {
        client.infer(&request(&image)).await;
    }
    let stats = host.stats_when_idle().await;
    assert_eq!(counts(&stats[&candidate]), (80, failed, failed));
}

#[tokio::test]
async fn a_dead_host_says_what_it_was_at_work_for() {
    let mut host = Host::start().await;
    let image = image_that(&mut host, true).await;
    let good = host.load(&Package::good()).await;
    let hang = Package::fixture("hang").config("trigger", "some");
    let hang = host.load(&hang).await;
    host.route(Some(good), Some(hang)).await;
    assert_eq!(host.at_work(), []);
    let path = "/v2/models/digits/versions/hang/infer";
    let body = request(&image).to_string();
    let address = host.address;
    let hanging = tokio::spawn(async move {
        let request = http::Request::post(path).header("host", "test");
        let request = request
            .body(http_body_util::Full::new(body.into()))
            .unwrap();
        Client::new(address).send(request).await.is_ok()
    });
    while host.at_work() != [hang] {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.process.child.kill().await.unwrap();
    assert_eq!(host.at_work(), [hang]);
    assert!(!hanging.await.unwrap());
}

#[tokio::test]
async fn what_a_version_in_trial_refuses_alone_is_its_error_and_what_both_refuse_is_nobodys() {
    let mut host = Host::start().await;
    let good = host.load(&Package::good()).await;
    let mut picky = Package::good();
    picky.spec.revision = "picky".to_owned();
    picky.spec.inputs[0].shape = vec![-1, 16, 16];
    let picky = host.load_as(&Package::good(), &picky).await;
    host.route(Some(good), Some(picky)).await;
    let mut client = Client::new(host.address);
    for (image, _) in held_out().into_iter().take(3) {
        let answer = client.infer(&request(&image)).await;
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
        assert_eq!(answer.headers()["rimward-fallback-from"], "picky");
    }
    let counts = |stats: &SlotStats| (stats.requests, stats.errors, stats.client_errors);
    let stats = host.stats().await;
    assert_eq!(counts(&stats[&picky]), (3, 3, 0));
    assert_eq!(stats[&picky].fallbacks, 3);
    assert_eq!(counts(&stats[&good]), (3, 0, 0));
    let words = stats[&picky].last_error.as_ref().unwrap();
    assert!(words.contains("[-1, 16, 16]"), "{words}");

    // The version that the client is told of says why.
    let nobodys = serde_json::json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 4, 4], "data": vec![0; 16]}]});
    let answer = client.infer(&nobodys).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{answer:?}");
    assert_eq!(answer.headers()["rimward-model-version"], "picky");
    // Nor has a client that asks for this version a previous one to compare with.
    let path = "/v2/models/digits/versions/picky/infer";
    let answer = client
        .post(path, request(&held_out()[0].0).to_string())
        .await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{answer:?}");
    let stats = host.stats().await;
    assert_eq!(counts(&stats[&picky]), (5, 3, 2));
    assert_eq!(counts(&stats[&good]), (4, 0, 1));
}

#[tokio::test]
async fn what_only_the_previous_version_declares_it_answers() {
    let mut host = Host::start().await;
    let good = host.load(&Package::good()).await;
    let mut renamed = Package::good();
    renamed.spec.revision = "renamed".to_owned();
    renamed.spec.outputs[1].name = "digit".parse().unwrap();
    let renamed = host.load_as(&Package::good(), &renamed).await;
    let mut small = Package::good().limits(|limits| limits.tensor_bytes_max = 5_000);
    small.spec.revision = "small".to_owned();
    let small = host.load_as(&Package::good(), &small).await;
    let mut client = Client::new(host.address);

    let mut labels = request(&held_out()[0].0);
    labels["outputs"] = serde_json::json!([{"name": "label"}]);
    let many = serde_json::json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [100, 8, 8], "data": vec![0; 6_400]}]});
    for (candidate, revision, body) in [(renamed, "renamed", &labels), (small, "small", &many)] {
        host.route(Some(good), Some(candidate)).await;
        let answer = client.infer(body).await;
        assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
        assert_eq!(answer.headers()["rimward-model-version"], "digits-1.0.0");
        assert_eq!(answer.headers()["rimward-fallback-from"], revision);
        // A client that was served before, and would not be after.
        let stats = &host.stats().await[&candidate];
        assert_eq!(
            (stats.client_errors, stats.errors, stats.fallbacks),
            (0, 1, 1)
        );
    }
    // What no version declares stays the client's mistake, and nobody's request.
    labels["outputs"] = serde_json::json!([{"name": "colour"}]);
    let answer = client.infer(&labels).await;
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST, "{answer:?}");
    let stats = host.stats().await;
    assert_eq!((stats[&small].requests, stats[&good].requests), (1, 2));
}

#[tokio::test]
async fn a_candidates_small_budget_does_not_bind_the_version_that_answers_instead() {
    let mut host = Host::start().await;
    let good = host.load(&Package::good()).await;
    // Room for the request, not for what the module makes of it.
    let mut tight = Package::good().limits(|limits| limits.tensor_bytes_max = 8_000);
    tight.spec.revision = "tight".to_owned();
    let tight = host.load_as(&Package::good(), &tight).await;
    host.route(Some(good), Some(tight)).await;
    let many = serde_json::json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [100, 8, 8], "data": vec![0; 6_400]}]});
    let answer = Client::new(host.address).infer(&many).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers()["rimward-fallback-from"], "tight");
    let stats = host.stats().await;
    assert_eq!((stats[&tight].errors, stats[&tight].fallbacks), (1, 1));
}
