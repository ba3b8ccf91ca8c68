//! A small request through REST, guest and wasi-nn, beside a bare axum echo of the same sizes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rimward_e2e::device::{Device, Source, Wanted};
use rimward_e2e::ports::free_port;
use rimward_e2e::service::{Recipe, Service};
use rimward_e2e::{Scratch, digits};
use serde_json::{Value, json};

use crate::client::{Client, Target, closed_loop};
use crate::processes::{host_of, processor_microseconds};
use crate::report::{Row, Section};
use crate::stats::{count, median, quantile, spread, time};

const REPEATS: usize = 7;
const BLOCK: Duration = Duration::from_millis(600);
const BUSY_CONNECTIONS: usize = 4;

const WHY_SLOWER: &str = "A request changes threads twice, to its worker and back, where the echo answers in place: where the \
    cores are idle between requests each change is a wake-up, which costs about as much as the whole echo. \
    Of the host's processor time the worker takes two thirds (perf, in another run): 40 points in the engine, \
    the module and wasmtime, 7 in the two mprotects of a module that grows its memory, 2 in the scan for the \
    pages to restore, most of the rest in waking and being woken. An instance that is used again, for which \
    the aim is meant, does not exist yet.";

/// One side: where its requests go, and which process answers them.
struct Side {
    name: &'static str,
    target: Target,
    answer_bytes: usize,
    process: u32,
}

/// What one side did in one repeat.
#[derive(Default)]
struct Series {
    p50: Vec<f64>,
    p99: Vec<f64>,
    rate: Vec<f64>,
    processor: Vec<f64>,
}

pub(crate) async fn run() -> Result<Section> {
    let scratch = Scratch::new("bench-request")?;
    let source = Source::start(&scratch).await?;
    let device = Device::start("alone", scratch.folder("device")?, &source)?;
    let packages = [
        (
            "digits",
            source
                .release("examples/packages/digits-1.0.0", "digits", "1.0.0")
                .await?,
        ),
        (
            "raw",
            source
                .release("wasm-models/fixtures/passthrough", "raw", "1.0.0")
                .await?,
        ),
    ];
    let wanted: Vec<_> = packages
        .iter()
        .map(|(name, package)| Wanted {
            name,
            revision: "first",
            package,
            health: json!({"probationSeconds": 0}),
        })
        .collect();
    device.order(&wanted)?;
    for (name, _) in &packages {
        device.wait(name, "first", "Committed").await?;
    }
    let (echo, echo_address) = start_echo(&scratch).await?;
    let supervisor = device.agent.id().context("the agent does not run")?;
    let host = host_of(supervisor).context("the agent has no host")?;
    let echo_id = echo.id().context("the echo does not run")?;
    let digit = digits::held_out()?.first().cloned().context("no digits")?;
    let raw: Vec<f64> = digit
        .image
        .iter()
        .map(|pixel| f64::from(*pixel) / 16.0)
        .collect();
    let input = json!({"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": raw});
    let bodies = [
        ("digits", digits::request(&digit)),
        ("raw", json!({"inputs": [input]})),
    ];
    let mut sides = Vec::new();
    for (name, body) in bodies {
        let ours = side(
            name,
            &device.host(),
            &format!("/v2/models/{name}/infer"),
            &body,
            host,
        )
        .await?;
        let path = format!("/{}", ours.answer_bytes);
        let theirs = side("echo", &echo_address, &path, &body, echo_id).await?;
        ensure!(
            theirs.answer_bytes == ours.answer_bytes,
            "the echo's answer has another size"
        );
        sides.extend([theirs, ours]);
    }
    let series = measure(&sides).await?;
    Ok(section(&sides, &series))
}

async fn start_echo(scratch: &Scratch) -> Result<(Service, String)> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let echo = Service::start(Recipe {
        name: "echo".to_owned(),
        program: std::env::current_exe()?,
        arguments: vec!["--serve-echo".to_owned(), address.clone()],
        environment: Vec::new(),
        folder: scratch.folder("echo")?,
    })?;
    rimward_e2e::wait_for("the echo", Duration::from_secs(60), async || {
        echo.check_running()?;
        Client::connect(&address).await?;
        Ok(rimward_e2e::Seen::Done(()))
    })
    .await?;
    Ok((echo, address))
}

/// Asks once, to know how large the answer is.
async fn side(
    name: &'static str,
    authority: &str,
    path: &str,
    body: &Value,
    process: u32,
) -> Result<Side> {
    let target = Target {
        authority: authority.to_owned(),
        path: path.to_owned(),
        body: Bytes::from(body.to_string()),
    };
    let reply = Client::connect(authority)
        .await?
        .post(path, &target.body)
        .await?;
    ensure!(
        reply.status.is_success(),
        "{path} answered {}: {}",
        reply.status,
        String::from_utf8_lossy(&reply.body)
    );
    Ok(Side {
        name,
        target,
        answer_bytes: reply.body.len(),
        process,
    })
}

/// All sides in turn, again and again; the first round warms up.
async fn measure(sides: &[Side]) -> Result<Vec<Series>> {
    let mut series: Vec<Series> = sides.iter().map(|_| Series::default()).collect();
    for repeat in 0..=REPEATS {
        for (side, series) in sides.iter().zip(&mut series) {
            let alone = closed_loop(&side.target, 1, BLOCK).await?;
            let before = processor_microseconds(side.process)?;
            let busy = closed_loop(&side.target, BUSY_CONNECTIONS, BLOCK).await?;
            let used = processor_microseconds(side.process)? - before;
            if repeat == 0 {
                continue;
            }
            series.p50.push(quantile(&alone, 500));
            series.p99.push(quantile(&alone, 990));
            series.rate.push(busy.len() as f64 / BLOCK.as_secs_f64());
            series.processor.push(used / busy.len().max(1) as f64);
        }
    }
    Ok(series)
}

fn section(sides: &[Side], series: &[Series]) -> Section {
    let mut rows = Vec::new();
    for (pair, sides) in series.chunks(2).zip(sides.chunks(2)) {
        let ([echo, ours], [_, side]) = (pair, sides) else {
            continue;
        };
        let ratios = |pick: fn(&Series) -> &Vec<f64>| -> f64 {
            let each = pick(ours).iter().zip(pick(echo));
            median(&each.map(|(ours, echo)| ours / echo).collect::<Vec<_>>())
        };
        let p50 = ratios(|series| &series.p50);
        let name = side.name;
        rows.push(
            Row::new(
                format!("{name}: p50, 1 connection"),
                spread(&ours.p50, time),
            )
            .beside(spread(&echo.p50, time), Some(p50))
            .aim("≤ 2 × the echo's p50", p50 <= 2.0, WHY_SLOWER),
        );
        rows.push(
            Row::new(
                format!("{name}: p99, 1 connection"),
                spread(&ours.p99, time),
            )
            .beside(spread(&echo.p99, time), Some(ratios(|series| &series.p99))),
        );
        rows.push(
            Row::new(
                format!("{name}: requests per second, {BUSY_CONNECTIONS} connections"),
                spread(&ours.rate, count),
            )
            .beside(
                spread(&echo.rate, count),
                Some(ratios(|series| &series.rate)),
            ),
        );
        rows.push(
            Row::new(
                format!("{name}: processor time per request, {BUSY_CONNECTIONS} connections"),
                spread(&ours.processor, time),
            )
            .beside(
                spread(&echo.processor, time),
                Some(ratios(|series| &series.processor)),
            ),
        );
    }
    let sizes: Vec<String> = sides
        .iter()
        .filter(|side| side.name != "echo")
        .map(|side| {
            format!(
                "`{}` {} bytes in, {} out",
                side.name,
                side.target.body.len(),
                side.answer_bytes
            )
        })
        .collect();
    Section {
        title: "Small request",
        how: format!(
            "An agent by itself (`--manifests`) with two models: `digits` is digits 1.0.0 with its own guest (64 \
             pixels as UINT8 in; probabilities and label out), `raw` the same network behind the built-in \
             module (64 floats in, 10 out); there is no model of 4 floats yet. Each request is JSON over a kept \
             connection and goes through REST, a fresh guest instance, wasi-nn and rten. Beside it a bare axum \
             server (0.8) with as many threads in a process of its own, which reads the same body and answers \
             with as many bytes. Closed loop, blocks of {} ms in turn, {REPEATS} repeats after one that warms up; \
             the ratio is the median of the repeats' ratios. Sizes: {}.",
            BLOCK.as_millis(),
            sizes.join("; ")
        ),
        beside: "bare axum echo",
        rows,
        notes: vec![
            "Client and server share the machine's cores, so requests per second with several connections are \
             bounded by both; processor time per request is the server's alone."
                .to_owned(),
        ],
    }
}
