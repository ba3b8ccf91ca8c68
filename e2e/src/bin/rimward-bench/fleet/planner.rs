//! The fleet's planner by itself: no API server, no objects, no I/O.
//!
//! Owns the sizes. Each is measured by a process of its own, several times, all sizes in turn.

mod one;
mod world;

use anyhow::{Context as _, Result, ensure};
use tokio::process::Command;

use crate::report::{Row, Section};
use crate::stats::{median, spread, time};
use one::Found;

/// The argument by which this program measures one size, and prints what it found.
pub(crate) const FLAG: &str = "--plan-fleet";

/// Clusters and deployments.
const SIZES: &[(usize, usize)] = &[
    (100, 10),
    (100, 50),
    (1_000, 10),
    (1_000, 50),
    (10_000, 10),
    (10_000, 50),
];
const REPEATS: usize = 3;
const START_MICROSECONDS_MAX: f64 = 1e6;
const REPORT_MICROSECONDS_MAX: f64 = 1e3;
const GROWTH_MAX: f64 = 2.0;
const BYTES_MAX: f64 = 1024.0;

/// What the first version cost, measured by hand on the machine of the first page with this section.
const BEFORE: &str = "The planner of the first version (commit 876fafb) planned the whole fleet anew at each event. On \
    an idle machine like this one, wall clock, one report took 4.9 ms at 100 × 10, 29 ms at 100 × 50, 70 ms at \
    1,000 × 10, 0.46 s at 1,000 × 50, 1.04 s at 10,000 × 10 and 6.2 s at 10,000 × 50 (medians); a spec as long; and it \
    held about 2,000 bytes per cluster × deployment with its plan. It is not in this tree any more, so it is not \
    measured in turn with the present one.";
const WHY_START: &str = "Half a million targets of some 400 bytes are allocated one by one, and each is visited three \
    times before it is known that nothing is to be done, at the speed of memory; names that are told anew for each \
    cluster are compared and freed again.";
const WHY_REPORT: &str = "A report touches more than its own cluster and deployment.";
const WHY_MEMORY: &str = "A name is a string in more than one map; and what is there once (the allocator's arenas, the \
    tables' first growth) weighs much on few units.";

/// Measures one size and prints it: what the child does.
pub(crate) fn child(clusters: &str, deployments: &str) -> Result<()> {
    let found = one::measure(clusters.parse()?, deployments.parse()?)?;
    println!("{}", serde_json::to_string(&found)?);
    Ok(())
}

pub(crate) async fn run() -> Result<Section> {
    let mut found: Vec<Vec<Found>> = SIZES.iter().map(|_| Vec::new()).collect();
    for _ in 0..REPEATS {
        for (size, found) in SIZES.iter().zip(&mut found) {
            found.push(measure(*size).await?);
        }
    }
    Ok(section(&found))
}

async fn measure((clusters, deployments): (usize, usize)) -> Result<Found> {
    let program = std::env::current_exe().context("this program has no path")?;
    let output = Command::new(program)
        .args([FLAG, &clusters.to_string(), &deployments.to_string()])
        .kill_on_drop(true)
        .output()
        .await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{clusters} × {deployments}: {said}"
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn section(found: &[Vec<Found>]) -> Section {
    let mut rows = Vec::new();
    let mut reports_at = Vec::new();
    for ((clusters, deployments), found) in SIZES.iter().zip(found) {
        let size = format!("{} × {deployments}", thousands(*clusters));
        let each = |pick: fn(&Found) -> f64| found.iter().map(pick).collect::<Vec<f64>>();
        let all = |pick: fn(&Found) -> &Vec<f64>| {
            let all = found.iter().flat_map(pick);
            all.copied().collect::<Vec<f64>>()
        };
        let (reports, specs, whole) = (
            all(|it| &it.reports),
            all(|it| &it.specs),
            all(|it| &it.whole),
        );
        let beats = each(|it| it.beat);
        let start = each(|it| it.start);
        let bytes = each(|it| it.bytes_per_unit);
        reports_at.push((*clusters, *deployments, median(&reports)));
        let anew = || format!("whole fleet anew {}", spread(&whole, time));
        rows.push(
            Row::new(format!("{size}: one report"), spread(&reports, time))
                .beside(anew(), Some(median(&reports) / median(&whole)))
                .aim(
                    "≤ 1 ms",
                    median(&reports) <= REPORT_MICROSECONDS_MAX,
                    WHY_REPORT,
                ),
        );
        rows.push(
            Row::new(format!("{size}: one applied spec"), spread(&specs, time))
                .beside(anew(), Some(median(&specs) / median(&whole))),
        );
        rows.push(Row::new(
            format!("{size}: one heartbeat"),
            spread(&beats, time),
        ));
        let row = Row::new(format!("{size}: full start"), spread(&start, time));
        rows.push(if (*clusters, *deployments) == (10_000, 50) {
            row.aim("≤ 1 s", median(&start) <= START_MICROSECONDS_MAX, WHY_START)
        } else {
            row
        });
        let row = Row::new(
            format!("{size}: memory per cluster × deployment"),
            format!("{:.0} bytes", median(&bytes)),
        );
        rows.push(row.aim("≤ 1 KiB", median(&bytes) <= BYTES_MAX, WHY_MEMORY));
    }
    for deployments in [10, 50] {
        let at = |clusters: usize| {
            let mut all = reports_at.iter();
            let found = all.find(|it| (it.0, it.1) == (clusters, deployments));
            found.map_or(0.0, |it| it.2)
        };
        let growth = at(10_000) / at(100);
        rows.push(
            Row::new(
                format!("one report, 10,000 × {deployments} against 100 × {deployments}"),
                time(at(10_000)),
            )
            .beside(time(at(100)), Some(growth))
            .aim("within 2 ×", growth <= GROWTH_MAX, WHY_REPORT),
        );
    }
    Section {
        title: "The fleet's planner by itself",
        how: format!(
            "Clusters × deployments, all on every cluster. One rollout goes on, ten clusters at once, in one stage of \
             100 %. *One report*: a cluster on its way says that it is done, and the planner plans what that touches; \
             up to 200 in a run. *One applied spec*: a deployment asks for its second release; up to 9. *One heartbeat*: a plain one of a \
             cluster that is heard, and the plan that follows; the mean over all clusters. *Full start*: a \
             planner that knows nothing is told everything, then plans. Processor time of the one thread; memory is \
             anonymous memory before and after the start, in a process that measures one size. {REPEATS} processes for \
             each size, all sizes in turn. Beside it this same planner planning the whole fleet from nothing: what an \
             event would cost without an index; what it cost in the first version is below."
        ),
        beside: "beside",
        rows,
        notes: vec![BEFORE.to_owned()],
    }
}

fn thousands(number: usize) -> String {
    match number {
        0..1_000 => number.to_string(),
        _ => format!("{},{:03}", number / 1_000, number % 1_000),
    }
}
