//! The limit on connections: idle ones make way for new clients, busy ones do not.

use http::StatusCode;
use rimward_node_agent::proto::HostLimits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::host_client::{Client, held_out};
use crate::host_support::{Host, PATIENCE, Package};

async fn host_for(connections_max: u32) -> Host {
    let limits = HostLimits {
        connections_max,
        ..HostLimits::default()
    };
    Host::start_with(limits).await
}

/// A connection that is kept, and that nobody opens anew behind the test's back.
struct Kept(TcpStream);

impl Kept {
    async fn open(host: &Host) -> Self {
        Self(TcpStream::connect(host.address).await.unwrap())
    }

    /// The head of an answer; empty where the host closed instead.
    async fn get(&mut self) -> String {
        let request = b"GET /v2/health/live HTTP/1.1\r\nhost: test\r\n\r\n";
        if self.0.write_all(request).await.is_err() {
            return String::new();
        }
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, self.0.read(&mut bytes));
        let length = read.await.expect("no answer").unwrap_or(0);
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }

    async fn is_closed(&mut self) -> bool {
        let mut bytes = [0; 1];
        let read = tokio::time::timeout(PATIENCE, self.0.read(&mut bytes));
        matches!(read.await.expect("still open"), Ok(0) | Err(_))
    }
}

#[tokio::test]
async fn a_new_client_takes_the_place_of_an_idle_connection_and_of_one_only() {
    let host = host_for(2).await;
    let (mut first, mut second) = (Kept::open(&host).await, Kept::open(&host).await);
    for connection in [&mut first, &mut second] {
        assert!(connection.get().await.starts_with("HTTP/1.1 200"));
    }
    let mut third = Kept::open(&host).await;
    assert!(third.get().await.starts_with("HTTP/1.1 200"));
    let mut left = tokio::select! {
        closed = first.is_closed() => {
            assert!(closed);
            second
        }
        closed = second.is_closed() => {
            assert!(closed);
            first
        }
    };
    assert!(left.get().await.starts_with("HTTP/1.1 200"));
    assert!(third.get().await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn silent_and_half_requests_make_way_the_older_one_first() {
    let host = host_for(2).await;
    let mut silent = Kept::open(&host).await;
    let mut half = Kept::open(&host).await;
    half.0.write_all(b"GET /v2/health/live HTT").await.unwrap();
    let mut clients = Vec::new();
    for closed in [&mut silent, &mut half] {
        let mut client = Kept::open(&host).await;
        assert!(client.get().await.starts_with("HTTP/1.1 200"));
        assert!(closed.is_closed().await);
        clients.push(client);
    }
}

#[tokio::test]
async fn a_connection_with_a_request_in_hand_keeps_its_place_until_it_is_answered() {
    let mut host = host_for(1).await;
    let hang = Package::fixture("hang").config("trigger", "always");
    let slot = host
        .load_as(
            &hang.clone().config("trigger", "never"),
            &hang.limits(|limits| limits.timeout_milliseconds = 1_500),
        )
        .await;
    host.route(Some(slot), None).await;
    let (address, image) = (host.address, held_out().swap_remove(0).0);
    let hanging = tokio::spawn(async move {
        let mut client = Client::new(address);
        (client.label(&image).await, client)
    });
    while host.stats().await[&slot].inflight == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let answer = Client::new(host.address).get("/v2/health/live").await;
    assert_eq!(answer.status(), StatusCode::OK);
    // Answered in full, and its connection, kept open by its client, made way once it was idle.
    let (hung, _kept) = hanging.await.unwrap();
    assert_eq!(hung.unwrap_err().0, StatusCode::GATEWAY_TIMEOUT);
}
