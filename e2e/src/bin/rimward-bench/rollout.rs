//! From `kubectl apply` to the first prediction of the new version on the last node, by part.

mod course;
mod package;
mod watching;

use std::time::Duration;

use anyhow::{Context, Result};
use rimward_e2e::command::Line;
use rimward_e2e::control_plane::Options;
use rimward_e2e::system::{Mode, SiteSpec, System, WITHIN};

use crate::report::{Row, Section};
use crate::stats::{median, spread, time};
use course::{Course, PARTS};
pub(crate) use watching::watch_latency;

use watching::Watching;

const REPEATS: u32 = 5;
const LATENCY_SAMPLES: usize = 20;
const SITE: SiteSpec = SiteSpec {
    name: "north",
    mode: Mode::Pull,
    labels: "ring=main",
    nodes: 2,
};
const PROBATION_SECONDS: u32 = 1;

const WHY_SLOW: &str = "The node fetches the package, its signature and its config, verifies them, compiles the \
    module in a child of its own and runs the golden vectors there before the version may answer: work that a \
    watch does not do. The aim is that of an order which needs no new code.";

pub(crate) async fn run() -> Result<Section> {
    let mut system = System::start("bench-rollout", &[SITE], Options::default()).await?;
    system
        .join(SITE, async |line: Line| line.run().await)
        .await?;
    let nodes_ready = ".status.nodes.ready";
    system
        .wait_for_value(&["edgecluster", SITE.name], nodes_ready, "2", WITHIN)
        .await?;
    let client = system.fleet.hub.client().await?;
    let watching = Watching::start(&system).await?;
    let mut courses = Vec::new();
    let mut latency = Vec::new();
    for number in 0..=REPEATS {
        let image = package::release(&system, number).await?;
        let manifest = manifest(number, &image);
        latency.extend(watch_latency(&client, LATENCY_SAMPLES).await?);
        let began = watching::now();
        system.kubectl()?.apply(&manifest).await?;
        let revision = watching.revision_since(began, WITHIN).await?;
        system
            .wait_for_value(
                &["mdep", "digits"],
                ".status.currentRevision",
                &revision,
                WITHIN,
            )
            .await?;
        // The first one has no version before it, and warms up.
        if number > 0 {
            courses.push(Course::of(&watching, &system, &revision, began)?);
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    section(&courses, &latency)
}

fn manifest(number: u32, image: &str) -> String {
    format!(
        "apiVersion: rimward.dev/v1alpha1\nkind: Model\nmetadata: {{name: digits-{number}}}\nspec: {{family: digits, \
         version: 1.0.{number}, image: \"{image}\"}}\n---\napiVersion: rimward.dev/v1alpha1\nkind: ModelDeployment\n\
         metadata: {{name: digits}}\nspec:\n  modelRef: {{name: digits-{number}}}\n  placement: {{clusterSelector: \
         {{}}}}\n  health: {{goldenVectors: Require, probationSeconds: {PROBATION_SECONDS}, minSamples: 0}}\n"
    )
}

fn section(courses: &[Course], latency: &[f64]) -> Result<Section> {
    let raw = median(latency);
    let totals: Vec<f64> = courses.iter().map(Course::total).collect();
    let on_a_node: Vec<f64> = courses.iter().map(Course::on_the_first_node).collect();
    let node = median(&on_a_node);
    let mut rows = vec![
        Row::new(
            "**whole: apply to the last node's first prediction**",
            spread(&totals, time),
        ),
        Row::new(
            "limit: an object written, seen in a watch",
            spread(latency, time),
        ),
        Row::new(
            "go-ahead of a node to its first prediction",
            spread(&on_a_node, time),
        )
        .beside("", Some(node / raw))
        .aim("≤ 100 ms", node <= 1e5, WHY_SLOW),
    ];
    for (index, part) in PARTS.iter().enumerate() {
        let own: Vec<f64> = courses.iter().map(|course| course.own(index)).collect();
        let since: Vec<f64> = courses.iter().map(|course| course.since(index)).collect();
        rows.push(
            Row::new(format!("{}. {part}", index + 1), spread(&own, time))
                .beside(time(median(&since)), Some(median(&own) / raw)),
        );
    }
    courses.first().context("no repeat")?;
    Ok(Section {
        title: "From `kubectl apply` to the last node's first prediction",
        how: format!(
            "A hub, one edge cluster that pulls, two nodes, each with its own agent; no RolloutPolicy, so one node at \
             a time. {REPEATS} releases one after the other, each with another module and model file than the one \
             before, so that nothing is cached; `probationSeconds: {PROBATION_SECONDS}`, `minSamples: 0`. Clients ask each node every \
             {} ms. Times of objects are when a watch of this program saw them, times within a node are from its \
             agent's log. The ratio is to the limit: a ConfigMap written and seen in a watch of the hub's API server, \
             {LATENCY_SAMPLES} times before each release.",
            watching::ASK_PERIOD.as_millis()
        ),
        beside: "since apply began",
        rows,
        notes: Vec::new(),
    })
}
