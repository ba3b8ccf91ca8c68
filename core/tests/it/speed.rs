//! How long the planner takes at the size of a fleet. By hand, in release mode:
//! `cargo test --release -p rimward-core --test it speed -- --ignored --nocapture`.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::cast_precision_loss,
    reason = "it measures"
)]

use rimward_core::fleet::{
    Amount, Cluster, ConnectionState, Deployment, DoubtLimits, Entry, Fleet, Members, ModelReport,
    Policy, Report, Revision,
};
use rimward_core::ids::{ClusterName, DeploymentKey, RevisionName};
use rimward_core::time::Timestamp;

use crate::fixtures::{NOW, all_on, cluster, deployment, entry, key, named, persist, stage};

const DEPLOYMENTS: usize = 50;

fn model(number: usize) -> DeploymentKey {
    key(&format!("model-{number:03}"))
}

fn release(model: usize, number: u32) -> RevisionName {
    format!("model-{model:03}-r{number}").parse().unwrap()
}

fn site(number: usize) -> ClusterName {
    named(&format!("site-{number:05}"))
}

fn settled() -> Cluster {
    let mut it = cluster();
    let mut report = Report {
        observed_generation: 1,
        ..Report::default()
    };
    for number in 0..DEPLOYMENTS {
        let revision = release(number, 1);
        let endpoint_name = format!("model-{number:03}").parse().unwrap();
        it.entries.insert(
            model(number),
            Entry {
                endpoint_name,
                ..entry(revision.as_str())
            },
        );
        let says = ModelReport {
            last_good: Some(revision.clone()),
            ..all_on(revision.as_str())
        };
        report.models.insert(model(number), says);
    }
    it.report = Some(report);
    it
}

fn rolled_out(number: usize) -> Deployment {
    let name = release(number, 1);
    let mut it = deployment(name.as_str(), Some(name.as_str()));
    it.endpoint_name = format!("model-{number:03}").parse().unwrap();
    let mut stage = stage("everyone", Members::Percent(100));
    stage.max_concurrency = Amount::Count(10);
    stage.bake_seconds = 3600;
    it.policy = Policy {
        stages: vec![stage],
        ..Policy::default()
    };
    it
}

/// Processor time of this thread, in seconds: other programs may run beside.
fn used() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split_whitespace()
        .next()
        .unwrap()
        .parse::<f64>()
        .unwrap()
        / 1e9
}

fn resident_bytes() -> f64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    text.split_whitespace()
        .nth(1)
        .unwrap()
        .parse::<f64>()
        .unwrap()
        * 4096.0
}

#[test]
#[ignore = "it measures"]
fn planner_speed() {
    for clusters in [100, 1000, 10_000] {
        measure(clusters);
    }
}

fn measure(clusters: usize) {
    let before = resident_bytes();
    let mut fleet = Fleet::new(300, DoubtLimits::default());
    let mut parts = [0.0; 3];
    for number in 0..clusters {
        let told = settled();
        let began = used();
        fleet.set_cluster(&site(number), told);
        parts[0] += (used() - began);
    }
    let mut deployments: Vec<_> = (0..DEPLOYMENTS).map(rolled_out).collect();
    for (number, told) in deployments.iter().enumerate() {
        let told = told.clone();
        let began = used();
        fleet.set_deployment(&model(number), told);
        parts[1] += (used() - began);
    }
    let began = used();
    let plan = fleet.plan(NOW);
    parts[2] = (used() - began);
    assert!(plan.clusters.is_empty());
    for (key, answer) in &plan.deployments {
        let number: usize = key.name.as_str()[6..].parse().unwrap();
        persist(&mut deployments[number], answer);
        fleet.set_deployment(key, deployments[number].clone());
    }
    fleet.plan(NOW);
    let bytes = (resident_bytes() - before) / (clusters * DEPLOYMENTS) as f64;

    let mut spec = deployments[0].clone();
    spec.revisions.insert(
        release(0, 2),
        Revision {
            entry_bytes: 700,
            ..Revision::default()
        },
    );
    spec.update = Some(release(0, 2));
    let began = used();
    fleet.set_deployment(&model(0), spec.clone());
    let plan = fleet.plan(NOW);
    let spec_seconds = (used() - began);
    persist(&mut spec, &plan.deployments[&model(0)]);
    fleet.set_deployment(&model(0), spec.clone());
    let mut told: Vec<(ClusterName, Cluster)> = Vec::new();
    for (name, entries) in plan.clusters {
        told.push((
            name,
            Cluster {
                entries,
                generation: 2,
                ..settled()
            },
        ));
    }
    for (name, it) in &told {
        fleet.set_cluster(name, it.clone());
    }
    fleet.plan(NOW);
    let (mut took, mut written) = (Vec::new(), Vec::new());
    while let Some((name, mut it)) = told.pop() {
        let report = it.report.get_or_insert_default();
        report.observed_generation = it.generation;
        report
            .models
            .insert(model(0), all_on(release(0, 2).as_str()));
        let began = used();
        fleet.set_cluster(&name, it);
        let plan = fleet.plan(NOW);
        took.push((used() - began) * 1e6);
        for (key, answer) in &plan.deployments {
            assert_eq!(key, &model(0));
            persist(&mut spec, answer);
            let began = used();
            fleet.set_deployment(key, spec.clone());
            fleet.plan(NOW);
            written.push((used() - began) * 1e6);
        }
        for (name, entries) in plan.clusters {
            let it = Cluster {
                entries,
                generation: 2,
                ..settled()
            };
            fleet.set_cluster(&name, it.clone());
            told.insert(0, (name, it));
        }
        if took.len() >= 200 {
            break;
        }
    }
    let began = used();
    for number in 0..clusters {
        fleet.hear(
            &site(number),
            ConnectionState::Heard {
                at: Timestamp(NOW.0 + 30),
            },
        );
    }
    let beat = (used() - began) * 1e6 / clusters as f64;
    took.sort_by(f64::total_cmp);
    written.sort_by(f64::total_cmp);
    eprintln!(
        "{clusters} x {DEPLOYMENTS}: start {:.3} s ({:.3} clusters, {:.3} deployments, {:.3} plan), spec {:.1} ms, report p50 {:.0} p99 {:.0} µs, status written p50 {:.0} µs, beat {:.2} µs, {:.0} bytes each",
        parts.iter().sum::<f64>(),
        parts[0],
        parts[1],
        parts[2],
        spec_seconds * 1e3,
        took[took.len() / 2],
        took[took.len() * 99 / 100],
        written[written.len() / 2],
        beat,
        bytes
    );
}
