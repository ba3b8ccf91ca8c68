//! From an injected fault to good answers: a flaky release in trial, and a host that is killed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rimward_e2e::device::{Device, Package, Source, Wanted};
use rimward_e2e::{Scratch, Seen, digits, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::client::Client;
use crate::paced::{Exchange, Paced};
use crate::processes::host_of;
use crate::report::{Row, Section};
use crate::stats::{count, spread, time};

const REPEATS: usize = 5;
const RATE_PER_SECOND: u32 = 100;
const CONNECTIONS: u32 = 8;
const SAMPLES_MIN: u32 = 50;
const ERROR_PERMILLE_MAX: u32 = 50;
/// So many failures decide, however well the rest of the least number of samples were answered.
const DECIDING: usize = (SAMPLES_MIN * ERROR_PERMILLE_MAX / 1000 + 1) as usize;
/// Load before an order and after a roll-back, to see what is usual.
const QUIET: Duration = Duration::from_secs(1);
const WITHIN: Duration = Duration::from_secs(60);
/// How finely the status file is looked at.
const LOOK: Duration = Duration::from_millis(2);
const PATH: &str = "/v2/models/digits/infer";

const WHY_LATE: &str = "The supervisor asks the host for its counters at a fixed period while something is in \
    trial, so the failure that decides is seen up to one period after it.";

const WHY_COLD: &str = "A new process is started, it checks the seal of the native code, loads module and model, \
    and only then accepts connections.";

/// One flaky release, from its order to its end.
struct Trial {
    /// First request that it was given to its being rolled back.
    to_decision: f64,
    /// The failure that the verdict needed to its being rolled back.
    after_failure: f64,
    requests: f64,
    failed_inside: f64,
    lost: usize,
    worst: f64,
    worst_before: f64,
}

pub(crate) async fn run() -> Result<Section> {
    let scratch = Scratch::new("bench-fault")?;
    let source = Source::start(&scratch).await?;
    let good = source
        .release("examples/packages/digits-1.0.0", "digits", "good")
        .await?;
    let flaky = source
        .release("wasm-models/fixtures/flaky", "digits", "flaky")
        .await?;
    let device = Device::start("alone", scratch.folder("device")?, &source)?;
    order(&device, "good", &good)?;
    device.wait("digits", "good", "Committed").await?;
    let bodies: Vec<Bytes> = digits::held_out()?
        .iter()
        .map(|digit| digits::request(digit).to_string().into())
        .collect();
    let mut trials = Vec::new();
    for repeat in 0..REPEATS {
        trials.push(flaky_release(&device, &flaky, &format!("flaky-{repeat}"), &bodies).await?);
    }
    order(&device, "good", &good)?;
    let first = bodies.first().context("no digits")?;
    let mut kills = Vec::new();
    for _ in 0..REPEATS {
        kills.push(killed_host(&device, first).await?);
    }
    Ok(section(&trials, &kills))
}

fn order(device: &Device, revision: &str, package: &Package) -> Result<()> {
    let health = json!({
        "probationSeconds": if revision == "good" { 0 } else { 60 },
        "minSamples": if revision == "good" { 0 } else { SAMPLES_MIN },
        "maxErrorPermille": ERROR_PERMILLE_MAX,
    });
    device.order(&[Wanted {
        name: "digits",
        revision,
        package,
        health,
    }])
}

async fn flaky_release(
    device: &Device,
    package: &Package,
    revision: &str,
    bodies: &[Bytes],
) -> Result<Trial> {
    let load = Paced::start(
        device.host(),
        PATH.to_owned(),
        bodies.to_vec(),
        RATE_PER_SECOND,
        CONNECTIONS,
    );
    tokio::time::sleep(QUIET).await;
    let ordered = Instant::now();
    order(device, revision, package)?;
    let decided = loop {
        let status = device.status("digits").unwrap_or_default();
        if status["revision"] == revision && status["state"] == "RolledBack" {
            break Instant::now();
        }
        ensure!(
            ordered.elapsed() < WITHIN,
            "{revision} is not rolled back: {status}"
        );
        tokio::time::sleep(LOOK).await;
    };
    tokio::time::sleep(QUIET).await;
    let exchanges = load.stop().await?;
    trial(&exchanges, revision, ordered, decided)
}

fn trial(
    exchanges: &[Exchange],
    revision: &str,
    ordered: Instant,
    decided: Instant,
) -> Result<Trial> {
    let touched: Vec<&Exchange> = exchanges
        .iter()
        .filter(|exchange| exchange.touched(revision))
        .collect();
    let first = touched.iter().map(|exchange| exchange.due).min();
    let first = first.with_context(|| format!("{revision} was given no request"))?;
    let failed: Vec<&&Exchange> = touched
        .iter()
        .filter(|it| it.fallback == revision)
        .collect();
    let decisive = failed
        .get(DECIDING - 1)
        .with_context(|| format!("{revision} failed {} requests", failed.len()))?;
    let worst = |is_in: &dyn Fn(&Exchange) -> bool| {
        let latencies = exchanges
            .iter()
            .filter(|it| is_in(it))
            .map(Exchange::latency);
        latencies.fold(0.0, f64::max)
    };
    let lost: Vec<&Exchange> = exchanges.iter().filter(|it| it.failure.is_some()).collect();
    if let Some(failure) = lost.first().and_then(|it| it.failure.as_ref()) {
        eprintln!("    a request was lost: {failure}");
    }
    Ok(Trial {
        to_decision: (decided - first).as_secs_f64() * 1e6,
        after_failure: decided
            .saturating_duration_since(decisive.ended)
            .as_secs_f64()
            * 1e6,
        requests: touched.len() as f64,
        failed_inside: failed.len() as f64,
        lost: lost.len(),
        worst: worst(&|it| it.ended >= first && it.due <= decided),
        worst_before: worst(&|it| it.ended < ordered),
    })
}

/// Kills the host of an agent that has just started, and asks until it answers; microseconds.
async fn killed_host(device: &Device, body: &Bytes) -> Result<f64> {
    device.agent.stop(Duration::from_secs(20));
    device.agent.resume()?;
    wait_for("an answer", WITHIN, async || {
        ask(device, body).await?;
        Ok(Seen::Done(()))
    })
    .await?;
    let supervisor = device.agent.id().context("the agent does not run")?;
    let host = host_of(supervisor).context("the agent has no host")?;
    let id = Pid::from_raw(host.cast_signed()).context("process 0")?;
    let killed = Instant::now();
    kill_process(id, Signal::KILL)?;
    // Until the kernel has taken it away it may still answer.
    while host_of(supervisor) == Some(host) && killed.elapsed() < WITHIN {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
    while let Err(error) = ask(device, body).await {
        ensure!(killed.elapsed() < WITHIN, "no good answer since: {error:#}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(killed.elapsed().as_secs_f64() * 1e6)
}

async fn ask(device: &Device, body: &Bytes) -> Result<()> {
    let reply = Client::connect(&device.host())
        .await?
        .post(PATH, body)
        .await?;
    ensure!(reply.status.is_success(), "answered {}", reply.status);
    Ok(())
}

fn section(trials: &[Trial], kills: &[f64]) -> Section {
    let all = |pick: fn(&Trial) -> f64| trials.iter().map(pick).collect::<Vec<f64>>();
    let after_failure = all(|trial| trial.after_failure);
    let late = crate::stats::median(&after_failure);
    let lost: usize = trials.iter().map(|trial| trial.lost).sum();
    let rows = vec![
        Row::new(
            "flaky release: first request in trial to rolled back",
            spread(&all(|trial| trial.to_decision), time),
        )
        .beside("Flagger 2 to 10 min, Mender a reboot", None),
        Row::new(
            format!("flaky release: failure {DECIDING}, which decides, to rolled back"),
            spread(&after_failure, time),
        )
        .aim("≤ 1 s", late <= 1e6, WHY_LATE),
        Row::new(
            "flaky release: requests that clients lost",
            lost.to_string(),
        )
        .aim("0", lost == 0, "See what the run printed."),
        Row::new(
            "flaky release: worst latency that a client saw during the trial",
            spread(&all(|trial| trial.worst), time),
        )
        .beside(
            format!(
                "{} just before",
                spread(&all(|trial| trial.worst_before), time)
            ),
            None,
        ),
        Row::new(
            "flaky release: requests given to it",
            spread(&all(|trial| trial.requests), count),
        )
        .beside(
            format!(
                "{} failed inside",
                spread(&all(|trial| trial.failed_inside), count)
            ),
            None,
        ),
        Row::new(
            "kill -9 of the host: to the next good answer",
            spread(kills, time),
        )
        .aim(
            "≤ 50 ms (cold start, warm file cache)",
            crate::stats::median(kills) <= 5e4,
            WHY_COLD,
        ),
    ];
    Section {
        title: "From a fault to good answers",
        how: format!(
            "An agent by itself serves digits 1.0.0 to {RATE_PER_SECOND} requests per second by the clock on \
             {CONNECTIONS} kept connections that retry nothing. Five times it is ordered the fixture `flaky`, which \
             passes its golden vectors and fails about three in ten real requests (`minSamples: {SAMPLES_MIN}, \
             maxErrorPermille: {ERROR_PERMILLE_MAX}`: failure {DECIDING} decides, whatever the others are). A request that it fails is answered by the previous version at once. Rolled back \
             is when the device's status says so, looked at every {} ms. Then, {REPEATS} times, the host of a fresh \
             agent is killed, and a client asks anew until it is answered; the listening socket is the \
             supervisor's, so that a new connection waits instead of being refused.",
            LOOK.as_millis()
        ),
        beside: "beside",
        rows,
        notes: vec![
            "The times of Flagger and Mender are what their documentation describes, not measured here.".to_owned(),
        ],
    }
}
