//! `cargo xtask fleet N`: a real hub with N simulated sites, until it is told to end.
//!
//! Owns the terminal: flags, and commands on standard input. What sites are is `rimward_e2e::simulated`'s.

mod asked;
mod orders;

use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use rimward_e2e::control_plane::Options;
use rimward_e2e::simulated::{Hub, Plan, Sites, TEAM, object};
use serde_json::json;
use tokio::sync::mpsc;

use asked::Asked;

/// Sites may wait a whole heartbeat before their first one.
const JOIN_WITHIN: Duration = Duration::from_secs(600);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = Asked::parse(&arguments).and_then(|asked| match asked {
        Some(asked) => run(&asked),
        None => {
            println!("{}\n{}", asked::USAGE, orders::HELP);
            Ok(())
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nError: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: &Asked) -> Result<()> {
    rimward_e2e::guard::install();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(tell(asked))
}

/// Lines of standard input, by a thread that ends with the process: reading a terminal cannot be called off.
fn typed() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

async fn tell(asked: &Asked) -> Result<()> {
    eprintln!("==> a hub");
    let flags: Vec<&str> = asked.hub_flags.iter().map(String::as_str).collect();
    let options = Options {
        controllers: false,
        ..Options::default()
    };
    let hub = Hub::start("fleet", options, &flags).await?;
    eprintln!(
        "==> {} sites of {} nodes",
        asked.plan.sites, asked.plan.nodes
    );
    let plan: &Plan = &asked.plan;
    let sites = if asked.clusters_only {
        Sites::declare_only(&hub.plane, plan).await?
    } else {
        let sites = Sites::start(&hub.plane, plan).await?;
        sites.change_faults(|faults| *faults = asked.faults.clone());
        sites.wait_until_joined(JOIN_WITHIN).await?;
        sites
    };
    let policy = json!({"stages": [
        {"name": "canary", "clusters": {"selector": {"matchLabels": {"ring": "canary"}}}},
        {"name": "everyone", "clusters": {"percent": 100}, "maxConcurrency": "25%", "maxUnavailable": "25%"},
    ]});
    hub.apply(&object("RolloutPolicy", "canary-first", &policy))
        .await?;
    for number in 0..asked.deployments {
        let more = json!({"rolloutPolicyRef": {"name": "canary-first"}});
        hub.deploy(&format!("model-{number}"), "first", &more)
            .await?;
    }
    println!(
        "ready. In another terminal:\n  export KUBECONFIG={}\n  kubectl get edgeclusters; kubectl -n {TEAM} get mdep\n\
         Commands here:\n{}",
        hub.kubectl.kubeconfig().display(),
        orders::HELP
    );
    orders::silence(&sites, asked.silent_percent);
    let mut lines = typed();
    let mut flap = tokio::time::interval(asked.flap_every);
    let mut away = false;
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                Some(line) if line.trim() == "quit" => return Ok(()),
                Some(line) => println!("{}", orders::obey(&sites, &line)),
                // No terminal: until it is killed.
                None => std::future::pending().await,
            },
            _ = flap.tick(), if asked.flap_percent > 0 => {
                away = !away;
                orders::flap(&sites, asked.flap_percent, away);
            }
        }
        if let Err(error) = hub.operator.service().check_running() {
            eprintln!("the hub operator ended: {error:#}");
        }
        let failures = sites.counted().failures.load(Ordering::Relaxed);
        if failures > 0 {
            eprintln!(
                "{failures} requests failed so far; the last: {}",
                sites.last_failure()
            );
        }
    }
}
