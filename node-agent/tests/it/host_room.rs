//! Memory for bodies and answers: what is not there is refused at once, and the next request is served.

use http::StatusCode;
use rimward_node_agent::proto::{HostLimits, SlotId};
use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::host_client::{Answer, Client, held_out};
use crate::host_support::{Host, Package};

async fn serving(limits: HostLimits, package: &Package) -> (Host, SlotId) {
    let mut host = Host::start_with(limits).await;
    let slot = host.load(package).await;
    host.route(Some(slot), None).await;
    (host, slot)
}

/// Asks in a few bytes for a hundred thousand.
async fn large_answer(host: &Host) -> Answer {
    let request = json!({"inputs": []});
    Client::new(host.address).infer(&request).await
}

fn large() -> Package {
    Package::zeros(25_000)
}

#[tokio::test]
async fn an_answer_within_the_limits_may_be_much_longer_than_its_request() {
    let (host, _) = serving(HostLimits::default(), &large()).await;
    let answer = large_answer(&host).await;
    assert_eq!(answer.status(), StatusCode::OK, "{answer:?}");
    let data = answer.body()["outputs"][0]["data"].as_array().unwrap();
    assert_eq!(data.len(), 25_000);
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_refused_by_its_size() {
    let limits = HostLimits {
        body_bytes_max: 64 << 10,
        ..HostLimits::default()
    };
    let (mut host, slot) = serving(limits, &large()).await;
    let answer = large_answer(&host).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{answer:?}");
    let error = answer.body()["error"].as_str().unwrap();
    assert!(
        error.contains("the answer has more than 65536 bytes"),
        "{error}"
    );
    let stats = &host.stats().await[&slot];
    assert_eq!((stats.errors, stats.client_errors), (0, 1));
}

#[tokio::test]
async fn an_answer_for_which_there_is_no_room_is_turned_away_with_when_to_come_back() {
    let limits = HostLimits {
        inflight_bytes_max: 64 << 10,
        ..HostLimits::default()
    };
    let (mut host, slot) = serving(limits, &large()).await;
    let good = host.load(&Package::good()).await;
    for _ in 0..2 {
        let answer = large_answer(&host).await;
        assert_eq!(
            answer.status(),
            StatusCode::SERVICE_UNAVAILABLE,
            "{answer:?}"
        );
        assert_eq!(answer.headers()["retry-after"], "1");
    }
    let stats = &host.stats().await[&slot];
    assert_eq!((stats.requests, stats.errors, stats.rejected), (0, 0, 2));
    // What it had taken of the room is given back.
    host.route(Some(good), None).await;
    let mut client = Client::new(host.address);
    client.label(&held_out()[0].0).await.unwrap();
}

#[tokio::test]
async fn lengths_that_are_only_claimed_hold_no_room() {
    let limits = HostLimits {
        body_bytes_max: 64 << 10,
        inflight_bytes_max: 64 << 10,
        ..HostLimits::default()
    };
    let (host, _) = serving(limits, &Package::good()).await;
    let mut claims = Vec::new();
    for _ in 0..3 {
        let mut claim = TcpStream::connect(host.address).await.unwrap();
        let head =
            "POST /v2/models/digits/infer HTTP/1.1\r\nhost: test\r\ncontent-length: 65536\r\n\r\n{";
        claim.write_all(head.as_bytes()).await.unwrap();
        claims.push(claim);
    }
    let mut client = Client::new(host.address);
    for (image, _) in held_out().into_iter().take(3) {
        client.label(&image).await.unwrap();
    }
    drop(claims);
}
