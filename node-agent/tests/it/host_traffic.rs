//! Versions come and go under traffic, and no request is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::StatusCode;
use rimward_node_agent::proto::{FromHost, ToHost};

use crate::host_client::{Client, held_out, request};
use crate::host_support::{Host, PATIENCE, Package};

/// Clients with one connection each, kept alive, no retries.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    clients: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(address: std::net::SocketAddr, pause: Duration) -> Self {
        let (stop, sent) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU64::new(0)),
        );
        let clients = (0..6)
            .map(|index| {
                let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
                let body = request(&held_out()[index].0).to_string();
                tokio::spawn(async move {
                    let mut client = Client::new(address);
                    let mut failures = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let request =
                            http::Request::post("/v2/models/digits/infer").header("host", "test");
                        let request = request
                            .body(http_body_util::Full::new(body.clone().into()))
                            .unwrap();
                        match client.send(request).await {
                            Ok(answer) if answer.status() == StatusCode::OK => {}
                            other => failures.push(format!("{other:?}")),
                        }
                        sent.fetch_add(1, Ordering::Relaxed);
                        tokio::time::sleep(pause).await;
                    }
                    failures
                })
            })
            .collect();
        Self {
            stop,
            sent,
            clients,
        }
    }

    /// Waits until that many more requests are done.
    async fn more(&self, requests: u64) {
        let goal = self.sent.load(Ordering::Relaxed) + requests;
        while self.sent.load(Ordering::Relaxed) < goal {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.unwrap());
        }
        failures
    }
}

#[tokio::test]
async fn swapping_versions_under_load_loses_no_request() {
    let mut host = Host::start().await;
    let mut current = host.load(&Package::good()).await;
    host.route(Some(current), None).await;
    let mut counted = 0;
    let load = Load::start(host.address, Duration::ZERO);
    for round in 0..6 {
        let folder = if round % 2 == 0 {
            "examples/packages/digits-1.1.0"
        } else {
            "examples/packages/digits-1.0.0"
        };
        let next = host.load(&Package::digits(folder)).await;
        host.route(Some(current), Some(next)).await;
        load.more(30).await;
        host.route(Some(next), None).await;
        counted += host.unload(current).await.requests;
        current = next;
        load.more(10).await;
    }
    let sent = Arc::clone(&load.sent);
    assert_eq!(load.failures().await, Vec::<String>::new());
    counted += host.stats().await[&current].requests;
    assert_eq!(counted, sent.load(Ordering::Relaxed));
}

#[tokio::test]
async fn replacing_the_host_under_keep_alive_load_loses_no_request() {
    let (mut host, _) = Host::serving(&Package::good()).await;
    let mut counted = 0;
    let load = Load::start(host.address, Duration::from_millis(15));
    load.more(30).await;
    for _ in 0..3 {
        let mut next = host.successor().await;
        let slot = next.load(&Package::good()).await;
        next.route(Some(slot), None).await;
        next.listen().await;
        host.tell(ToHost::LameDuck {
            grace_milliseconds: 20_000,
        })
        .await;
        let (stayed, last) = host.drained().await;
        assert_eq!(stayed, 0);
        counted += last.values().map(|stats| stats.requests).sum::<u64>();
        let status = tokio::time::timeout(PATIENCE, host.process.child.wait())
            .await
            .unwrap()
            .unwrap();
        assert!(status.success(), "{status}");
        host = next;
        load.more(30).await;
    }
    let sent = Arc::clone(&load.sent);
    assert_eq!(load.failures().await, Vec::<String>::new());
    let last = host.stats().await;
    counted += last.values().map(|stats| stats.requests).sum::<u64>();
    assert_eq!(counted, sent.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_lame_duck_leaves_when_its_grace_is_over_and_counts_who_stayed() {
    let (mut host, _) = Host::serving(&Package::good()).await;
    let mut idle = Client::new(host.address);
    assert_eq!(idle.get("/v2/health/live").await.status(), StatusCode::OK);
    host.tell(ToHost::LameDuck {
        grace_milliseconds: 300,
    })
    .await;
    assert_eq!(host.drained().await.0, 1);
}

#[tokio::test]
async fn a_connection_that_waits_while_the_host_is_dead_is_served_by_the_next_one() {
    let (mut host, _) = Host::serving(&Package::good()).await;
    host.process.child.kill().await.unwrap();
    let (image, wanted) = held_out().swap_remove(0);
    let address = host.address;
    let waiting = tokio::spawn(async move { Client::new(address).label(&image).await });
    let mut next = host.successor().await;
    let slot = next.load(&Package::good()).await;
    next.route(Some(slot), None).await;
    next.listen().await;
    assert_eq!(waiting.await.unwrap(), Ok(wanted));
}

#[tokio::test]
async fn an_unloaded_version_finishes_what_it_began() {
    let mut host = Host::start().await;
    let package = Package::fixture("hang").config("trigger", "always");
    // Preflight must let it through, so it is told to behave there.
    let slot = host
        .load_as(
            &package.clone().config("trigger", "never"),
            &package.limits(|limits| limits.timeout_milliseconds = 1_500),
        )
        .await;
    host.route(Some(slot), None).await;
    let (address, image) = (host.address, held_out().swap_remove(0).0);
    let hanging = tokio::spawn(async move { Client::new(address).label(&image).await });
    while host.stats().await[&slot].inflight == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    host.route(None, None).await;
    // Its last counters have what it had not finished when it was told to go.
    assert_eq!(host.unload(slot).await.errors, 1);
    assert_eq!(
        hanging.await.unwrap().unwrap_err().0,
        StatusCode::GATEWAY_TIMEOUT
    );
    assert!(host.stats().await.is_empty());
}

#[tokio::test]
async fn a_version_unloaded_while_it_is_loaded_is_gone_once_its_load_is_over() {
    let mut host = Host::start().await;
    let package = Package::good();
    // A load that was over before the host read on shows nothing: then once more.
    let mut overtaken = false;
    for _ in 0..10 {
        let slot = host.begin_load(&package, &package).await;
        host.tell(ToHost::Unload { slot }).await;
        overtaken = match host.told().await {
            FromHost::Loaded { .. } => {
                assert!(matches!(host.told().await, FromHost::SlotStats { .. }));
                assert!(matches!(host.told().await, FromHost::Unloaded { .. }));
                false
            }
            FromHost::Unloaded { slot: gone } => {
                assert_eq!(gone, slot);
                true
            }
            other => panic!("{other:?}"),
        };
        if overtaken {
            break;
        }
    }
    assert!(overtaken, "no load took longer than reading a message");
    // Nothing of it comes later: the next load is the next that the host tells of.
    let next = host.load(&package).await;
    assert_eq!(host.stats().await.into_keys().collect::<Vec<_>>(), [next]);
}
