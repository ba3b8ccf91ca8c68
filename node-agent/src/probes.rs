//! The agent's own listener: /healthz, /readyz and /metrics.
//!
//! Owns Prometheus' text and the bounds on connections: how many, how long a head may take. Labels come from closed sets: deployments of this node and their revisions.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::report::Picture;
use crate::supervisor::{Numbers, Readiness};

/// The supervisor's loop comes round twice a second, or after the slowest write to a disk; one that has not for this
/// long is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(60);

/// How long a connection may be idle, or take to send a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept, such as for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Between two tries to get an address that another agent has.
const BIND_PAUSE: Duration = Duration::from_millis(100);

/// A counter of time.
type Seconds = Counter<f64, AtomicU64>;

#[derive(Clone)]
struct Seen {
    picture: watch::Receiver<Picture>,
    numbers: watch::Receiver<Numbers>,
}

/// Binds the listener and gives the task that serves it; a patient one waits for an address that is in use.
///
/// # Errors
/// When the address cannot be bound.
pub(crate) async fn bind(
    listen: SocketAddr,
    patient: bool,
    picture: watch::Receiver<Picture>,
    numbers: watch::Receiver<Numbers>,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let bound = match TcpListener::bind(listen).await {
        Err(error) if patient && error.kind() == ErrorKind::AddrInUse => {
            tracing::info!(%listen, "the probes' address is in use: they are served once it is free");
            None
        }
        bound => Some(bound?),
    };
    let app = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(Seen { picture, numbers });
    Ok(async move {
        let listener = match bound {
            Some(listener) => listener,
            None => once_free(listen).await,
        };
        accept(listener, app).await;
    })
}

async fn once_free(listen: SocketAddr) -> TcpListener {
    loop {
        tokio::time::sleep(BIND_PAUSE).await;
        match TcpListener::bind(listen).await {
            Ok(listener) => return listener,
            Err(error) if error.kind() == ErrorKind::AddrInUse => {}
            Err(error) => tracing::warn!(%listen, %error, "the probes' address"),
        }
    }
}

/// Accepts for ever. Dropping it ends its connections at once: nothing waits for them.
async fn accept(listener: TcpListener, app: Router) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, app.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection to the probes could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, app: Router) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(app))
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to the probes broke off");
    }
}

/// Whether the supervisor's loop comes round; answered at once, from when it last did.
async fn healthz(State(seen): State<Seen>) -> impl IntoResponse {
    let turned = seen.numbers.borrow().turned;
    health(
        turned.map(|at| at.elapsed()),
        seen.numbers.has_changed().is_ok(),
    )
}

/// `since`: when the loop last came round; none before its first time, when it recovers, for as long as that takes.
fn health(since: Option<Duration>, runs: bool) -> (StatusCode, &'static str) {
    if runs && since.is_none_or(|since| since < STUCK_AFTER) {
        (StatusCode::OK, "ok\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "the supervisor does not turn\n",
        )
    }
}

/// Whether requests are answered here: from when what is committed answers until the agent is gone. What is not committed
/// yet is told, but is no reason to take the agent out of service; nor is a node without models, nor that the agent will
/// leave: Kubernetes takes a pod that ends out of Services by itself, and falls back on it, as long as it is ready, where
/// a node has no other yet. (Load balancers that poll are told at `/v2/health/ready`.)
async fn readyz(State(seen): State<Seen>) -> impl IntoResponse {
    ready(
        &seen.numbers.borrow().readiness,
        &seen.picture.borrow().ready,
    )
}

fn ready(readiness: &Readiness, committed: &Result<(), (String, String)>) -> (StatusCode, String) {
    let not = StatusCode::SERVICE_UNAVAILABLE;
    match (readiness, committed) {
        (Readiness::Starting, _) => (not, "starting: what is committed is being loaded\n".into()),
        (Readiness::Draining, _) => (
            StatusCode::OK,
            "ok, draining: the agent will leave soon\n".into(),
        ),
        (Readiness::Standby(true, words), _) => (StatusCode::OK, format!("ok, {words}\n")),
        (Readiness::Standby(false, words), _) => (not, format!("{words}\n")),
        (Readiness::Ready, Ok(())) => (StatusCode::OK, "ok\n".into()),
        (Readiness::Ready, Err((reason, message))) => {
            (StatusCode::OK, format!("ok, but {reason}: {message}\n"))
        }
    }
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ModelLabels {
    deployment: String,
    revision: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    deployment: String,
    state: String,
    reason: String,
}

async fn metrics(State(seen): State<Seen>) -> impl IntoResponse {
    let text = render(&seen.picture.borrow(), &seen.numbers.borrow());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text)
}

/// Counters begin with this process and never fall in it: the supervisor sums over hosts and loads.
fn render(picture: &Picture, numbers: &Numbers) -> String {
    let mut registry = Registry::with_prefix("rimward_agent");
    let hosts = numbers.hosts;
    for (name, help, value) in [
        (
            "host_inflight_requests",
            "Requests in flight in the host",
            hosts.inflight,
        ),
        (
            "host_connections",
            "Open client connections of the host",
            hosts.connections,
        ),
        (
            "host_written_off_threads",
            "Inference threads given up on",
            hosts.written_off_threads,
        ),
        (
            "host_resident_bytes",
            "Resident memory of the host",
            hosts.resident_bytes,
        ),
        (
            "state_sequence",
            "Sequence number of the state record",
            numbers.seq,
        ),
        (
            "standby",
            "1 while another agent holds the data folder and this one stands by",
            u64::from(numbers.is_standby),
        ),
        (
            "draining",
            "1 from when the agent was told to stop",
            u64::from(numbers.readiness == Readiness::Draining),
        ),
    ] {
        let gauge: Gauge = Gauge::default();
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(name, help, gauge);
    }
    for (name, help, value) in [
        (
            "host_deaths",
            "Hosts that ended without being asked to",
            hosts.deaths,
        ),
        (
            "host_replacements",
            "Planned replacements of the host",
            hosts.replacements,
        ),
        (
            "state_writes",
            "Durable writes of the state record",
            numbers.puts,
        ),
    ] {
        let counter: Counter = Counter::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    models(&mut registry, numbers);
    let states = Family::<StateLabels, Gauge>::default();
    for model in &picture.status.models {
        let labels = StateLabels {
            deployment: format!("{}/{}", model.namespace, model.name),
            state: format!("{:?}", model.state),
            reason: model.reason.clone().unwrap_or_default(),
        };
        states.get_or_create(&labels).set(1);
    }
    registry.register("model_state", "Where each deployment stands", states);
    let mut text = String::new();
    match encode(&mut text, &registry) {
        Ok(()) => text,
        Err(_) => String::new(),
    }
}

/// Counters of each version.
fn models(registry: &mut Registry, numbers: &Numbers) {
    let requests = Family::<ModelLabels, Counter>::default();
    let errors = Family::<ModelLabels, Counter>::default();
    let client_errors = Family::<ModelLabels, Counter>::default();
    let rejected = Family::<ModelLabels, Counter>::default();
    let latency = Family::<ModelLabels, Seconds>::default();
    for (deployment, revision, counts) in &numbers.models {
        let labels = ModelLabels {
            deployment: deployment.clone(),
            revision: revision.clone(),
        };
        requests.get_or_create(&labels).inc_by(counts.requests);
        errors.get_or_create(&labels).inc_by(counts.errors);
        client_errors
            .get_or_create(&labels)
            .inc_by(counts.client_errors);
        rejected.get_or_create(&labels).inc_by(counts.rejected);
        latency
            .get_or_create(&labels)
            .inc_by(counts.latency_microseconds as f64 / 1e6);
    }
    registry.register(
        "model_requests",
        "Requests that the version was asked to answer",
        requests,
    );
    registry.register(
        "model_errors",
        "Those that it failed, or that in trial only the previous version answered",
        errors,
    );
    registry.register(
        "model_client_errors",
        "Those that were the client's mistake",
        client_errors,
    );
    registry.register(
        "model_rejected",
        "Requests turned away because too many were there",
        rejected,
    );
    registry.register(
        "model_latency_seconds",
        "Time that the version took for what it answered or failed, queue included",
        latency,
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::{Counts, Gauges};

    fn numbers() -> Numbers {
        let counts = Counts {
            requests: 7,
            errors: 2,
            client_errors: 1,
            rejected: 3,
            latency_microseconds: 1_500_000,
        };
        Numbers {
            hosts: Gauges {
                deaths: 4,
                resident_bytes: 5,
                ..Gauges::default()
            },
            models: vec![("shop/digits".into(), "digits-1".into(), counts)],
            ..Numbers::default()
        }
    }

    #[test]
    fn what_only_grows_is_a_counter_and_what_also_falls_is_a_gauge() {
        let text = render(&Picture::blank(), &numbers());
        let labels = "{deployment=\"shop/digits\",revision=\"digits-1\"}";
        for line in [
            format!("rimward_agent_model_requests_total{labels} 7"),
            format!("rimward_agent_model_errors_total{labels} 2"),
            format!("rimward_agent_model_client_errors_total{labels} 1"),
            format!("rimward_agent_model_rejected_total{labels} 3"),
            format!("rimward_agent_model_latency_seconds_total{labels} 1.5"),
            "rimward_agent_host_deaths_total 4".to_owned(),
            "rimward_agent_host_resident_bytes 5".to_owned(),
            "# TYPE rimward_agent_host_deaths counter".to_owned(),
            "# TYPE rimward_agent_host_resident_bytes gauge".to_owned(),
        ] {
            assert!(text.lines().any(|had| had == line), "{line} in {text}");
        }
    }

    #[test]
    fn an_agent_is_ready_from_when_it_answers_until_it_is_told_to_leave() {
        let blocked = Err(("NoSpace".to_owned(), "disk".to_owned()));
        let code = |readiness, committed| ready(&readiness, committed).0.as_u16();
        assert_eq!(code(Readiness::Starting, &Ok(())), 503);
        assert_eq!(code(Readiness::Ready, &Ok(())), 200);
        assert_eq!(code(Readiness::Ready, &blocked), 200);
        assert_eq!(code(Readiness::Draining, &Ok(())), 200);
        assert_eq!(
            code(Readiness::Standby(false, "words".into()), &Ok(())),
            503
        );
        assert_eq!(code(Readiness::Standby(true, "words".into()), &Ok(())), 200);
        assert!(
            ready(&Readiness::Ready, &blocked)
                .1
                .contains("NoSpace: disk")
        );
    }

    #[test]
    fn only_a_loop_that_is_stuck_or_gone_is_ill() {
        let code = |since, runs| health(since, runs).0.as_u16();
        assert_eq!(code(None, true), 200, "it recovers");
        assert_eq!(
            code(Some(Duration::from_secs(20)), true),
            200,
            "a slow disk"
        );
        assert_eq!(code(Some(STUCK_AFTER), true), 503);
        assert_eq!(code(Some(Duration::ZERO), false), 503);
    }

    #[tokio::test]
    async fn half_a_request_does_not_outlive_the_probes() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};

        /// Less than the bound on heads, which would end it too.
        const WITHIN: Duration = Duration::from_secs(20);
        const _: () = assert!(WITHIN.as_secs() < HEAD_TIMEOUT.as_secs());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = Router::new().route("/", get(async || "ok"));
        let probes = tokio::spawn(accept(listener, app));
        let mut half = TcpStream::connect(address).await.unwrap();
        half.write_all(b"GET / HTTP/1.1\r\nhost: ").await.unwrap();
        // An answer to another connection: the first one was accepted before.
        let mut whole = TcpStream::connect(address).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
        whole.write_all(request).await.unwrap();
        let mut answer = String::new();
        whole.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        probes.abort();
        let ended = tokio::time::timeout(WITHIN, half.read(&mut [0; 1])).await;
        assert!(matches!(ended.expect("it ends"), Ok(0) | Err(_)));
    }

    #[test]
    fn the_reference_page_says_what_this_binary_exposes() {
        use rimward_crds::metrics_page::{WRITE, section, with_section};

        let mut picture = Picture::blank();
        picture
            .status
            .models
            .push(rimward_crds::NodeModelStatus::default());
        let text = render(&picture, &numbers());
        // A family without a sample shows no labels, or is not shown at all.
        let (source, _) = include_str!("probes.rs")
            .split_once("#[cfg(test)]")
            .unwrap();
        let families = source.matches("= Family::<").count();
        let section = section("rimward-node-agent", &text);
        let labelled = section.lines().filter(|row| row.contains(" | `"));
        assert_eq!(labelled.count(), families, "{section}");

        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/reference/metrics.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        let expected = with_section(&page, "rimward-node-agent", &section);
        if std::env::var_os(WRITE).is_some() {
            std::fs::write(path, expected).unwrap();
        } else {
            assert!(
                page == expected,
                "docs/reference/metrics.md differs from the registry: run `cargo xtask gen`"
            );
        }
    }
}
