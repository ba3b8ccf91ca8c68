use super::{Candidate, lead};
use crate::definitions::Gate;
use crate::metrics::Metrics;
use crate::testing::{self, refusal};
use axum::http::Method;
use futures::FutureExt as _;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

type Stands = Arc<Mutex<Option<Value>>>;

/// Serves the Lease, and the guard.
fn servers() -> (String, [Stands; 2]) {
    let leases = [Stands::default(), Stands::default()];
    let stands = leases.clone();
    let uri = testing::serve(move |asked| {
        let guard = asked.path.contains("/namespaces/system/");
        let mut stands = stands[usize::from(guard)].lock().unwrap();
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
    (uri, leases)
}

fn server() -> (String, Stands) {
    let (uri, [lease, _]) = servers();
    (uri, lease)
}

fn candidate(identity: &str) -> Candidate {
    Candidate {
        lease: ("clusters", "leader"),
        guard: "guard",
        installation: "system".to_owned(),
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
            Gate::open(),
            &metrics,
            |_| {},
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
        Gate::open(),
        &metrics,
        |_| {},
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
    let standing_by = move |_: &super::Holder| {
        // The other dies.
        standing.lock().unwrap().as_mut().unwrap()["spec"]["holderIdentity"] = json!("");
    };
    let election = lead(
        client(&uri),
        candidate,
        Gate::open(),
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

/// Leads on `uri` as soon as it can; says when it does, and ends once `stop` is told.
async fn lead_once(
    uri: &str,
    identity: &str,
    stop: &CancellationToken,
    leads: &Mutex<Vec<String>>,
) {
    let metrics = Arc::new(Metrics::default());
    let begun = |term: super::Leadership| {
        leads.lock().unwrap().push(identity.to_owned());
        async move {
            term.stop.cancelled().await;
            Ok(())
        }
    };
    let (client, candidate) = (client(uri), candidate(identity));
    let election = lead(
        client,
        candidate,
        Gate::open(),
        &metrics,
        |_| {},
        stop,
        begun,
    );
    election.await.unwrap();
}

async fn until(what: &str, done: impl Fn() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < Duration::from_secs(30), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn spec(lease: &Stands) -> Value {
    lease.lock().unwrap().clone().unwrap_or_default()["spec"].clone()
}

#[tokio::test]
async fn while_an_operator_of_the_version_before_leads_nobody_else_does_and_it_is_kept_out_afterwards()
 {
    let (uri, [lease, guard]) = servers();
    let old = |holder: &str, version: &str| {
        json!({"metadata": {"name": "guard", "resourceVersion": version},
               "spec": {"holderIdentity": holder, "leaseDurationSeconds": 60}})
    };
    *guard.lock().unwrap() = Some(old("old", "1"));
    let (stop, leads) = (CancellationToken::new(), Mutex::new(Vec::new()));
    let steps = async {
        until("stands", || spec(&lease)["holderIdentity"] == "me").await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(leads.lock().unwrap().is_empty(), "two versions lead");
        // It is asked to stop.
        *guard.lock().unwrap() = Some(old("", "2"));
        until("leads", || !leads.lock().unwrap().is_empty()).await;
        assert_eq!(spec(&guard)["holderIdentity"], "me");
        stop.cancel();
    };
    tokio::join!(lead_once(&uri, "me", &stop, &leads), steps);
    // Both are given back: whichever version comes next need not wait.
    assert_eq!(spec(&lease)["holderIdentity"], "");
    assert_eq!(spec(&guard)["holderIdentity"], "");
}

#[tokio::test]
async fn a_guard_of_a_leader_that_died_goes_to_the_next_leader_and_is_not_waited_out() {
    let (uri, [lease, guard]) = servers();
    *guard.lock().unwrap() = Some(json!({
        "metadata": {"name": "guard", "resourceVersion": "1",
                     "annotations": {"rimward.dev/guarded-by": "dead"}},
        "spec": {"holderIdentity": "dead", "leaseDurationSeconds": 3600},
    }));
    let (stop, leads) = (CancellationToken::new(), Mutex::new(Vec::new()));
    let steps = async {
        until("leads", || !leads.lock().unwrap().is_empty()).await;
        stop.cancel();
    };
    tokio::join!(lead_once(&uri, "me", &stop, &leads), steps);
    assert_eq!(spec(&lease)["holderIdentity"], "");
}

#[tokio::test]
async fn the_next_leads_at_once_when_the_first_is_asked_to_stop() {
    let (uri, _) = servers();
    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let leads = Mutex::new(Vec::new());
    let gap = Mutex::new(Duration::MAX);
    let steps = async {
        until("first leads", || leads.lock().unwrap().len() == 1).await;
        let began = Instant::now();
        let next = lead_once(&uri, "second", &second, &leads);
        let watch = async {
            first.cancel();
            until("second leads", || leads.lock().unwrap().len() == 2).await;
            *gap.lock().unwrap() = began.elapsed();
            second.cancel();
        };
        tokio::join!(next, watch);
    };
    tokio::join!(lead_once(&uri, "first", &first, &leads), steps);
    // Less than the Lease lasts.
    assert!(
        *gap.lock().unwrap() < Duration::from_millis(2500),
        "{gap:?}"
    );
}
