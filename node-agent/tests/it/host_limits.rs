//! What holds when a module or a client asks for too much: the one is stopped, the others served.

use http::StatusCode;
use rimward_node_agent::proto::{FromHost, HostLimits, ToHost};

use crate::host_client::{Client, held_out, request};
use crate::host_support::{Host, PATIENCE, Package};

/// One digit that triggers the fixtures, one that does not.
async fn good_and_bad() -> (serde_json::Value, serde_json::Value) {
    let (mut host, _) = Host::serving(&Package::fixture("flaky").config("trigger", "some")).await;
    let mut client = Client::new(host.address);
    let (mut good, mut bad) = (None, None);
    for (image, _) in held_out() {
        match client.label(&image).await {
            Ok(_) => good = Some(image),
            Err(_) => bad = Some(image),
        }
        if let (Some(good), Some(bad)) = (&good, &bad) {
            let _ = host.process.child.kill().await;
            return (good.clone(), bad.clone());
        }
    }
    panic!("no digit triggers");
}

#[tokio::test]
async fn misbehaving_modules_are_stopped_and_others_are_served_meanwhile() {
    let (good, bad) = good_and_bad().await;
    let mut host = Host::start().await;
    let healthy = host.load(&Package::good()).await;
    host.tell(ToHost::Route {
        endpoint: "healthy".to_owned(),
        current: Some(healthy),
        candidate: None,
    })
    .await;
    assert!(matches!(
        host.told().await,
        FromHost::Routed { done: true, .. }
    ));
    let cases = [
        (
            "trap",
            ("", ""),
            StatusCode::INTERNAL_SERVER_ERROR,
            "trapped",
        ),
        (
            "hang",
            ("in", "guest"),
            StatusCode::GATEWAY_TIMEOUT,
            "no answer within",
        ),
        (
            "hang",
            ("in", "host"),
            StatusCode::INTERNAL_SERVER_ERROR,
            "calls into the host",
        ),
        (
            "greedy",
            ("of", "guest"),
            StatusCode::INTERNAL_SERVER_ERROR,
            "bytes of memory",
        ),
        (
            "greedy",
            ("of", "host"),
            StatusCode::INTERNAL_SERVER_ERROR,
            "tensors of",
        ),
    ];
    for (fixture, (key, value), wanted, words) in cases {
        let package = Package::fixture(fixture)
            .config("trigger", "some")
            .config(key, value);
        // Only the one in the guest runs until its time is over.
        let timeout_milliseconds = if value == "guest" && fixture == "hang" {
            1_500
        } else {
            120_000
        };
        let slot = host
            .load(&package.limits(|limits| limits.timeout_milliseconds = timeout_milliseconds))
            .await;
        host.route(Some(slot), None).await;
        let (mut victim, mut bystander) = (Client::new(host.address), Client::new(host.address));
        let body = request(&bad);
        let stopped = victim.infer(&body);
        let served = bystander.post("/v2/models/healthy/infer", request(&good).to_string());
        let (stopped, served) = tokio::join!(stopped, served);
        assert_eq!(stopped.status(), wanted, "{fixture}: {stopped:?}");
        let error = stopped.body()["error"].as_str().unwrap();
        assert!(error.contains(words), "{fixture}: {error}");
        assert_eq!(served.status(), StatusCode::OK, "{fixture}: {served:?}");
        // The same slot serves the next request: nothing of the stopped one is left in it.
        victim.label(&good).await.unwrap();
        let stats = &host.stats().await[&slot];
        assert_eq!(
            (stats.requests, stats.errors, stats.inflight),
            (2, 1, 0),
            "{fixture}"
        );
        assert!(
            stats.last_error.as_ref().unwrap().contains(words),
            "{fixture}: {stats:?}"
        );
        host.route(None, None).await;
        host.unload(slot).await;
    }
}

#[tokio::test]
async fn a_full_queue_is_answered_at_once_with_when_to_come_back() {
    let (good, bad) = good_and_bad().await;
    let package = Package::fixture("hang")
        .config("trigger", "some")
        .limits(|limits| {
            limits.timeout_milliseconds = 4_000;
            limits.concurrency = 1;
            limits.queue = 1;
        });
    let (host, _) = Host::serving(&package).await;
    let body = request(&bad);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::new(host.address)).collect();
    let answers =
        futures::future::join_all(clients.iter_mut().map(|client| client.infer(&body))).await;
    let count = |code: StatusCode| {
        answers
            .iter()
            .filter(|answer| answer.status() == code)
            .count()
    };
    assert_eq!(
        (
            count(StatusCode::SERVICE_UNAVAILABLE),
            count(StatusCode::GATEWAY_TIMEOUT)
        ),
        (2, 2),
        "{answers:?}"
    );
    let refused = answers
        .iter()
        .find(|answer| answer.status() == StatusCode::SERVICE_UNAVAILABLE)
        .unwrap();
    assert_eq!(refused.headers()["retry-after"], "1");
    clients[0].label(&good).await.unwrap();
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let limits = HostLimits {
        body_bytes_max: 10_000,
        ..HostLimits::default()
    };
    let mut host = Host::start_with(limits).await;
    let slot = host.load(&Package::good()).await;
    host.route(Some(slot), None).await;
    let mut client = Client::new(host.address);
    let answer = client
        .post("/v2/models/digits/infer", vec![b' '; 10_001])
        .await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{answer:?}");
    Client::new(host.address)
        .label(&held_out()[0].0)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_client_that_never_reads_loses_its_connection_and_another_gets_its_place() {
    use tokio::io::AsyncWriteExt;
    let limits = HostLimits {
        connections_max: 1,
        write_stall_milliseconds: 200,
        ..HostLimits::default()
    };
    let host = Host::start_with(limits).await;
    let mut stalled = tokio::net::TcpStream::connect(host.address).await.unwrap();
    // Answers fill the kernel's buffers, then the host's write waits, and then so does this one.
    let requests = "GET /v2 HTTP/1.1\r\nhost: test\r\n\r\n".repeat(1000);
    let stopped = tokio::time::timeout(PATIENCE, async {
        while stalled.write_all(requests.as_bytes()).await.is_ok() {}
    });
    stopped
        .await
        .expect("the host keeps a client that never reads");
    let answer = Client::new(host.address).get("/v2/health/live").await;
    assert_eq!(answer.status(), StatusCode::OK);
}

#[tokio::test]
async fn tensors_over_a_requests_budget_are_refused() {
    let package = Package::good().limits(|limits| limits.tensor_bytes_max = 50_000);
    let (host, _) = Host::serving(&package).await;
    let mut client = Client::new(host.address);
    let data = vec![0; 1000 * 64];
    let body = serde_json::json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1000, 8, 8], "data": data}]});
    let answer = client.infer(&body).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE, "{answer:?}");
    client.label(&held_out()[0].0).await.unwrap();
}

#[tokio::test]
async fn a_host_dies_with_its_supervisor() {
    let (host, _) = Host::serving(&Package::good()).await;
    let mut process = host.process;
    drop(process.channel);
    let status = tokio::time::timeout(PATIENCE, process.child.wait())
        .await
        .unwrap()
        .unwrap();
    assert!(status.success(), "{status}");
}

#[tokio::test]
async fn native_code_that_is_not_sealed_memory_or_of_another_engine_is_refused() {
    use rimward_node_agent::proto::{FdRole, NativeCodeId, SlotId};
    use std::os::fd::AsFd;
    let mut host = Host::start().await;
    let package = Package::good();
    let id = NativeCodeId {
        module_digest: "m".to_owned(),
        engine_hash: "e".to_owned(),
        code_digest: "c".to_owned(),
    };
    let (code, model) = (
        crate::host_support::file(b"code"),
        crate::host_support::file(&package.bytes("model.onnx")),
    );
    let load = ToHost::Load {
        slot: SlotId(9),
        spec: Box::new(package.spec.clone()),
        native: id,
    };
    let fds = [
        (FdRole::NativeCode, code.as_fd()),
        (FdRole::Model, model.as_fd()),
    ];
    host.process.channel.send(&load, &fds).await.unwrap();
    let told = host.told().await;
    let FromHost::LoadFailed {
        reason, message, ..
    } = told
    else {
        panic!("{told:?}")
    };
    assert_eq!(
        reason,
        rimward_node_agent::proto::FailReason::NativeCodeRefused
    );
    assert!(message.contains("another engine"), "{message}");
}

#[tokio::test]
async fn a_host_over_its_memory_says_so_and_goes_on_serving() {
    // So little that being there is too much; a quarter more, and it would end itself.
    let probe = Host::start().await;
    let resident = resident_bytes(&probe);
    drop(probe);
    let limits = HostLimits {
        memory_bytes_max: resident * 9 / 10,
        ..HostLimits::default()
    };
    let mut host = Host::start_with(limits).await;
    let told = host.told().await;
    let FromHost::Unhealthy { reason } = told else {
        panic!("{told:?}")
    };
    assert!(reason.contains("bytes resident"), "{reason}");
    let answer = Client::new(host.address).get("/v2/health/live").await;
    assert_eq!(answer.status(), StatusCode::OK);
}

fn resident_bytes(host: &Host) -> u64 {
    let pid = host.process.child.id().unwrap();
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    statm
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<u64>()
        .unwrap()
        * rustix::param::page_size() as u64
}

#[tokio::test]
async fn a_child_sees_no_environment_and_no_other_descriptor() {
    let host = Host::start().await;
    let pid = host.process.child.id().unwrap();
    let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let names: Vec<String> = environment
        .split(|byte| *byte == 0)
        .filter(|entry| !entry.is_empty())
        .map(|entry| {
            String::from_utf8_lossy(entry)
                .split('=')
                .next()
                .unwrap()
                .to_owned()
        })
        .collect();
    let allowed = ["MALLOC_ARENA_MAX", "RTEN_NUM_THREADS", "RUST_LOG"];
    assert!(
        names.iter().all(|name| allowed.contains(&name.as_str())),
        "{names:?}"
    );
    // Its own written pages, from which the pool restores memory in place.
    let own_pages = format!("/proc/{pid}/pagemap");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
        let link = std::fs::read_link(entry.unwrap().path()).unwrap();
        let link = link.to_str().unwrap().to_owned();
        // A regular file other than what it was born with would be a leak.
        if link.starts_with('/') && !link.starts_with("/dev/") && link != own_pages {
            files.push(link);
        }
    }
    let log = std::fs::read_link("/proc/self/fd/2").unwrap();
    files.retain(|file| std::path::Path::new(file) != log);
    // Handed to it by its supervisor, to write down whom it is at work for.
    assert_eq!(files, ["/memfd:flight (deleted)"]);
}
