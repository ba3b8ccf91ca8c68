//! Resident memory of an agent: supervisor and host, idle and with a model.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use rimward_e2e::device::{Device, Source, Wanted};
use rimward_e2e::{Scratch, Seen, digits, wait_for};
use serde_json::json;

use crate::client::Client;
use crate::processes::{Memory, host_of, memory};
use crate::report::{Row, Section};
use crate::stats::{median, megabytes, spread};

/// Takes one number out of the three.
type Pick = fn(&Memory) -> f64;

const REPEATS: usize = 5;
const REQUESTS: usize = 100;
/// Buffers of a start or of a load are given back by then.
const SETTLE: Duration = Duration::from_secs(2);

const WHY_PSS: &str = "All but the anonymous part are pages of the one binary, which holds the compiler and the engine \
    as well, is built without LTO, and is shared by both processes; the kernel may drop them at any \
    time.";
const WHY_ANONYMOUS: &str = "By little: heap and stacks of two processes, each about half of it. Which allocations they are \
    is not broken down yet.";

pub(crate) async fn run() -> Result<Section> {
    let scratch = Scratch::new("bench-memory")?;
    let source = Source::start(&scratch).await?;
    let package = source
        .release("examples/packages/digits-1.0.0", "digits", "1.0.0")
        .await?;
    let digit = digits::held_out()?.first().cloned().context("no digits")?;
    let body = Bytes::from(digits::request(&digit).to_string());
    let (mut idle, mut loaded) = (Vec::new(), Vec::new());
    for repeat in 0..REPEATS {
        let folder = scratch.folder(&format!("device-{repeat}"))?;
        let device = Device::start("alone", folder, &source)?;
        wait_for("the host", Duration::from_secs(60), async || {
            let host = device.agent.id().and_then(host_of);
            Ok(host.map_or_else(|| Seen::NotYet("no host".to_owned()), Seen::Done))
        })
        .await?;
        tokio::time::sleep(SETTLE).await;
        idle.push(look(&device)?);
        device.order(&[Wanted {
            name: "digits",
            revision: "first",
            package: &package,
            health: json!({"probationSeconds": 0}),
        }])?;
        device.wait("digits", "first", "Committed").await?;
        let mut client = Client::connect(&device.host()).await?;
        for _ in 0..REQUESTS {
            let reply = client.post("/v2/models/digits/infer", &body).await?;
            ensure!(reply.status.is_success(), "answered {}", reply.status);
        }
        tokio::time::sleep(SETTLE).await;
        loaded.push(look(&device)?);
    }
    Ok(section(&idle, &loaded))
}

/// Supervisor and host.
fn look(device: &Device) -> Result<(Memory, Memory)> {
    let supervisor = device.agent.id().context("the agent does not run")?;
    let host = host_of(supervisor).context("the agent has no host")?;
    Ok((memory(supervisor)?, memory(host)?))
}

fn section(idle: &[(Memory, Memory)], loaded: &[(Memory, Memory)]) -> Section {
    let mut rows = Vec::new();
    let states = [
        ("idle, no model", idle),
        ("one model, after 100 requests", loaded),
    ];
    for (state, looks) in states {
        let pick = |pick: Pick| -> [Vec<f64>; 3] {
            [
                looks
                    .iter()
                    .map(|(one, other)| pick(&(*one + *other)))
                    .collect(),
                looks
                    .iter()
                    .map(|(supervisor, _)| pick(supervisor))
                    .collect(),
                looks.iter().map(|(_, host)| pick(host)).collect(),
            ]
        };
        let kinds: [(&str, Pick); 3] = [
            ("PSS", |memory| memory.proportional),
            ("anonymous", |memory| memory.anonymous),
            ("RSS", |memory| memory.resident),
        ];
        for (kind, picker) in kinds {
            let [both, supervisor, host] = pick(picker);
            let parts = format!(
                "{} + {}",
                megabytes(median(&supervisor)),
                megabytes(median(&host))
            );
            let row =
                Row::new(format!("{state}: {kind}"), spread(&both, megabytes)).beside(parts, None);
            rows.push(match kind {
                "PSS" => row.aim("≤ 16 MB", median(&both) <= 16e6, WHY_PSS),
                "anonymous" => row.aim("≤ 4 MB", median(&both) <= 4e6, WHY_ANONYMOUS),
                _ => row,
            });
        }
    }
    Section {
        title: "Memory of the agent",
        how: format!(
            "Sums over supervisor and host from `/proc/PID/smaps_rollup`, {} s after the start without a model, and \
             {} s after {REQUESTS} requests to digits 1.0.0; {REPEATS} agents one after the other, each with an empty \
             store, so that its preflight compiled the module in a child that is gone by then. MB are 10⁶ bytes.",
            SETTLE.as_secs(),
            SETTLE.as_secs()
        ),
        beside: "of it supervisor + host",
        rows,
        notes: vec![
            "Others report, by their own words and as RSS: a KubeFleet member agent 33 MB, KubeEdge's edgecore 70 MB, \
             Greengrass nucleus lite 5 to 15 MB. None of them holds an inference runtime, and none was measured here."
                .to_owned(),
        ],
    }
}
