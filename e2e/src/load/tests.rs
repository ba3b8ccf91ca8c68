//! The load's counting, against a server that misbehaves on purpose.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;

use super::*;

/// A server that answers the n-th request of all as `answer` says, and closes the connection where that
/// is none. Threads of it end with the test binary.
fn serve(answer: impl Fn(u64) -> Option<&'static str> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!(
        "http://{}/v2/models/m/infer",
        listener.local_addr().unwrap()
    );
    let shared = Arc::new((answer, std::sync::atomic::AtomicU64::new(0)));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let mut length = 0;
                    loop {
                        let mut line = String::new();
                        if reader.read_line(&mut line).unwrap_or(0) == 0 {
                            return;
                        }
                        let line = line.trim().to_lowercase();
                        if let Some(value) = line.strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        if line.is_empty() {
                            break;
                        }
                    }
                    reader.read_exact(&mut vec![0; length]).unwrap();
                    let Some(text) = (shared.0)(shared.1.fetch_add(1, Ordering::SeqCst)) else {
                        return;
                    };
                    if stream.write_all(text.as_bytes()).is_err() {
                        return;
                    }
                    if text.contains("connection: close") {
                        return;
                    }
                }
            });
        }
    });
    url
}

const GOOD: &str = "HTTP/1.1 200 OK\r\ncontent-length: 21\r\n\r\n{\"model_version\":\"a\"}";
const LAST: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 21\r\n\r\n\
                    {\"model_version\":\"b\"}";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";

fn run(url: String) -> Report {
    let load = Load::start(Plan {
        url,
        bodies: vec![Bytes::from_static(b"{}")],
        rate_per_second: 500,
        connections: 4,
        timeout: Duration::from_secs(30),
        judge: any_inference,
    })
    .unwrap();
    std::thread::sleep(Duration::from_millis(500));
    load.stop().unwrap()
}

#[test]
fn connections_are_kept_alive_and_every_request_is_counted_once() {
    let report = run(serve(|_| Some(GOOD)));
    report.check_none_failed().unwrap();
    assert!(report.total > 10, "{}", report.total);
    assert_eq!(
        report.answered_by,
        BTreeMap::from([("a".to_owned(), report.total)])
    );
    assert!(report.connects <= 4, "{}", report.connects);
    assert!(report.latency_microseconds(500) <= report.latency_microseconds(990));
}

#[test]
fn an_announced_close_is_no_failure() {
    let report = run(serve(|n| Some(if n % 5 == 4 { LAST } else { GOOD })));
    report.check_none_failed().unwrap();
    assert_eq!(report.answered_by["b"], report.total / 5);
    assert!(report.connects >= report.total / 5, "{}", report.connects);
}

#[test]
fn a_refusal_and_a_cut_connection_are_failures_and_nothing_is_retried() {
    let report = run(serve(|n| match n % 10 {
        3 => Some(BUSY),
        7 => None,
        _ => Some(GOOD),
    }));
    // Request 3 and 7 of each ten, as the server counted them: no request came twice.
    let (tens, rest) = (report.total / 10, report.total % 10);
    assert_eq!(
        report.failed,
        tens * 2 + u64::from(rest > 3) + u64::from(rest > 7)
    );
    assert_eq!(report.failed + report.answered_by["a"], report.total);
    report.check_none_failed().unwrap_err();
}

#[test]
fn nobody_there_is_a_failure_for_each_request() {
    let port = crate::ports::free_port().unwrap();
    let report = run(format!("http://127.0.0.1:{port}/"));
    assert!(report.total > 10 && report.failed == report.total);
}
