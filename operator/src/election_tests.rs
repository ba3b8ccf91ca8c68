use super::{Candidate, Lease, LeaseSpec, MicroTime, Seen, Step, Timestamp, lead};
use crate::metrics::Metrics;
use crate::testing::{self, refusal};
use axum::http::Method;
use futures::FutureExt as _;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Serves one Lease.
fn server() -> (String, Arc<Mutex<Option<Value>>>) {
    let lease = Arc::new(Mutex::new(None::<Value>));
    let stands = lease.clone();
    let uri = testing::serve(move |asked| {
        let mut stands = stands.lock().unwrap();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let mut next = asked.body;
        let answer = match (asked.method, &*stands) {
            (Method::GET, Some(lease)) => (200, lease.clone()),
            (Method::GET, None) => refusal(404, "NotFound"),
            (Method::PUT, Some(lease)) if version(lease) != version(&next) => {
                refusal(409, "Conflict")
            }
            (Method::POST, Some(_)) => refusal(409, "AlreadyExists"),
            (_, before) => {
                let before = before
                    .as_ref()
                    .and_then(|it| version(it).as_str()?.parse().ok());
                let now = before.unwrap_or(0_u64) + 1;
                next["metadata"]["resourceVersion"] = json!(now.to_string());
                *stands = Some(next.clone());
                (200, next)
            }
        };
        async move { Some(answer) }.boxed()
    });
    (uri, lease)
}

fn candidate(identity: &str) -> Candidate {
    Candidate {
        namespace: "system".to_owned(),
        lease: "leader".to_owned(),
        identity: identity.to_owned(),
        lease_seconds: 3,
    }
}

/// Stands for election on a runtime of its own, and leads until `stop`.
fn rival(uri: &str, stop: &CancellationToken) -> std::thread::JoinHandle<()> {
    let client = client(uri);
    let stop = stop.clone();
    std::thread::spawn(move || {
        let metrics = Arc::new(Metrics::default());
        let candidate = candidate("rival");
        let election = lead(
            client,
            candidate,
            &metrics,
            || {},
            &stop,
            |term| async move {
                term.stop.cancelled().await;
                Ok(())
            },
        );
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.unwrap().block_on(election).unwrap();
    })
}

fn client(uri: &str) -> impl Future<Output = anyhow::Result<kube::Client>> + Send + use<> {
    let uri = uri.to_owned();
    async move { Ok(testing::client(&uri)) }
}

#[tokio::test]
async fn work_that_keeps_its_thread_longer_than_the_lease_lasts_keeps_the_lead() {
    let (uri, lease) = server();
    let metrics = Arc::new(Metrics::default());
    let (shutdown, stop) = (CancellationToken::new(), CancellationToken::new());
    let mut rivals = Vec::new();
    let work = lead(
        client(&uri),
        candidate("me"),
        &metrics,
        || {},
        &shutdown,
        |term| {
            rivals.push(rival(&uri, &stop));
            async move {
                let began = Instant::now();
                while began.elapsed() < Duration::from_secs(8) {
                    std::thread::sleep(Duration::from_millis(500));
                    assert!(term.holds(), "after {:?}", began.elapsed());
                }
                Ok(())
            }
        },
    );
    work.await.unwrap();
    let spec = lease.lock().unwrap().clone().unwrap()["spec"].clone();
    assert_eq!(spec["leaseTransitions"], 1, "nobody else led: {spec}");
    assert_eq!(spec["holderIdentity"], "", "it was given back");
    stop.cancel();
    for rival in rivals {
        rival.join().unwrap();
    }
}

#[tokio::test]
async fn a_leader_that_is_overtaken_stops_and_does_not_hold_what_it_had() {
    let (uri, lease) = server();
    let metrics = Arc::new(Metrics::default());
    let (shutdown, terms) = (CancellationToken::new(), Mutex::new(Vec::new()));
    let work = |term: super::Leadership| {
        assert!(term.holds());
        let mut terms = terms.lock().unwrap();
        terms.push(term.clone());
        if terms.len() == 2 {
            shutdown.cancel();
        }
        let mut lease = lease.lock().unwrap();
        let lease = lease.as_mut().unwrap();
        let first = terms.len() == 1;
        if first {
            lease["spec"]["holderIdentity"] = json!("other");
            lease["metadata"]["resourceVersion"] = json!("99");
        }
        async move {
            if first {
                std::future::pending::<()>().await;
            }
            Ok(())
        }
    };
    let (candidate, standing) = (candidate("me"), lease.clone());
    let standing_by = move || {
        // The other dies.
        standing.lock().unwrap().as_mut().unwrap()["spec"]["holderIdentity"] = json!("");
    };
    let election = lead(
        client(&uri),
        candidate,
        &metrics,
        standing_by,
        &shutdown,
        work,
    );
    let ended = tokio::time::timeout(Duration::from_secs(30), election).await;
    ended.expect("it leads again").unwrap();
    let terms = terms.lock().unwrap();
    assert_eq!(terms.len(), 2);
    assert!(terms.iter().all(|term| !term.holds()));
}

const LASTS: Duration = Duration::from_secs(15);

fn held(by: &str, renewed: i64) -> Lease {
    Lease {
        spec: Some(LeaseSpec {
            holder_identity: Some(by.to_owned()),
            lease_duration_seconds: Some(15),
            renew_time: Timestamp::from_second(renewed).ok().map(MicroTime),
            ..LeaseSpec::default()
        }),
        ..Lease::default()
    }
}

#[test]
fn a_missing_released_or_own_lease_is_taken_at_once() {
    let now = Instant::now();
    let step = |lease: Option<&Lease>| Seen::default().step(lease, "me", LASTS, now);
    assert_eq!(step(None), Step::Create);
    assert_eq!(step(Some(&held("", 5))), Step::Write);
    assert_eq!(step(Some(&held("me", 5))), Step::Write);
    assert_eq!(step(Some(&Lease::default())), Step::Write);
}

#[test]
fn a_holder_is_silent_by_our_own_time_whatever_its_clock_says() {
    let start = Instant::now();
    let after = |seconds| start + Duration::from_secs(seconds);
    // Its clock stands in 1970 and in 2100; neither matters.
    for clock in [0, 4_102_444_800] {
        let mut seen = Seen::default();
        let mut step = |lease: &Lease, at| seen.step(Some(lease), "me", LASTS, at);
        assert_eq!(step(&held("other", clock), after(0)), Step::Wait);
        assert_eq!(step(&held("other", clock), after(15)), Step::Wait);
        assert_eq!(step(&held("other", clock + 1), after(16)), Step::Wait);
        assert_eq!(step(&held("other", clock + 1), after(31)), Step::Wait);
        assert_eq!(step(&held("other", clock + 1), after(32)), Step::Write);
    }
}

#[test]
fn a_holder_with_a_longer_lease_is_given_its_own_time() {
    let start = Instant::now();
    let mut lease = held("other", 0);
    if let Some(spec) = lease.spec.as_mut() {
        spec.lease_duration_seconds = Some(60);
    }
    let mut seen = Seen::default();
    assert_eq!(seen.step(Some(&lease), "me", LASTS, start), Step::Wait);
    let later = start + Duration::from_secs(59);
    assert_eq!(seen.step(Some(&lease), "me", LASTS, later), Step::Wait);
    let later = start + Duration::from_secs(61);
    assert_eq!(seen.step(Some(&lease), "me", LASTS, later), Step::Write);
}
