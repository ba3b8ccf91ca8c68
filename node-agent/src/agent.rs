//! Puts the agent together: supervisor, the source of orders, the report, the probes.
//!
//! Owns start and stop. Must never decide: it only connects.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rimward_artifact::Limits;
use rimward_artifact::registry::{Client, ClientOptions, Credentials};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::cli::Run;
use crate::proto::HostLimits;
use crate::proto::spawn::Program;
use crate::supervisor::{Config, Event, Handles, PreflightLimits, Supervisor, watch_trust};
use crate::{manifests, probes, report};

/// How often small local files are read for changes.
const FILE_PERIOD: Duration = Duration::from_secs(1);
/// Longest reason of a hold.
const HOLD_BYTES_MAX: u64 = 256;
/// Longest file of registry settings.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or when the durable state is not known any more.
pub async fn run(flags: Run) -> anyhow::Result<()> {
    let client = Client::new(client_options(&flags)?).context("registry client")?;
    let listener = TcpListener::bind(flags.listen)
        .with_context(|| format!("listen on {} (--listen)", flags.listen))?;
    let address = listener.local_addr().context("listening socket")?;
    let resync = Duration::from_secs(flags.resync_seconds.into());
    let config = Config {
        data_folder: flags.data_dir.clone(),
        trust_file: flags.trust.clone(),
        listener,
        advertise: flags
            .advertise
            .clone()
            .unwrap_or_else(|| address.to_string()),
        limits: Limits::default(),
        host_limits: HostLimits {
            memory_bytes_max: flags.host_memory_bytes,
            ..HostLimits::default()
        },
        preflight_limits: PreflightLimits {
            timeout_milliseconds: u64::from(flags.preflight_seconds) * 1000,
            memory_bytes_max: flags.preflight_memory_bytes,
        },
        program: Program::this(),
    };
    let (supervisor, handles) = Supervisor::open(config, client)?;
    tracing::info!(node = flags.node_name, %address, "agent started");

    let mut tasks = JoinSet::new();
    let Handles {
        events,
        picture,
        numbers,
    } = handles;
    let trust_events = events.clone();
    tasks.spawn(watch_trust(
        flags.trust.clone(),
        FILE_PERIOD,
        async move |source| {
            let _ = trust_events.send(Event::Trust(source)).await;
        },
    ));
    if let Some(listen) = flags.metrics_listen {
        let probes = probes::bind(listen, picture.clone(), numbers.clone())
            .await
            .with_context(|| format!("listen on {listen} (--metrics-listen)"))?;
        tasks.spawn(probes);
    }
    match &flags.manifests {
        Some(folder) => {
            tasks.spawn(manifests::watch(
                folder.clone(),
                FILE_PERIOD,
                events.clone(),
            ));
            let path = flags.data_dir.join("status.yaml");
            tasks.spawn(report::file::run(path, picture.clone()));
        }
        None => {
            let cluster = report::Cluster {
                node_name: flags.node_name.clone(),
                labels: flags.labels(),
                kubeconfig: flags.kubeconfig.clone(),
                lease_seconds: flags.lease_seconds,
                resync,
            };
            tasks.spawn(report::cluster::run(
                cluster,
                picture.clone(),
                events.clone(),
            ));
        }
    }
    tasks.spawn(watch_hold(flags.data_dir.join("hold"), events.clone()));
    tasks.spawn(replace_on_signal(events.clone())?);
    tasks.spawn(stop_on_signal(events)?);
    let result = supervisor.run().await;
    tasks.shutdown().await;
    result
}

/// Watches the file by which an application or a person on the device holds updates back; what it
/// says is the reason.
async fn watch_hold(path: PathBuf, events: mpsc::Sender<Event>) {
    let mut last = None;
    loop {
        let now = read_hold(&path);
        if now != last {
            last = now.clone();
            if events.send(Event::LocalHold(now)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(FILE_PERIOD).await;
    }
}

fn read_hold(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).ok()?;
    file.take(HOLD_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    Some(if text.is_empty() {
        "held on the device".to_owned()
    } else {
        text
    })
}

/// SIGHUP: replace the host, as for a library that was updated beneath it.
fn replace_on_signal(
    events: mpsc::Sender<Event>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut hangup = signal(SignalKind::hangup()).context("SIGHUP")?;
    Ok(async move {
        while hangup.recv().await.is_some() {
            if events.send(Event::ReplaceHost).await.is_err() {
                return;
            }
        }
    })
}

fn stop_on_signal(
    events: mpsc::Sender<Event>,
) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        let _ = events.send(Event::Stop).await;
    })
}

fn client_options(flags: &Run) -> anyhow::Result<ClientOptions> {
    let read = |path: &std::path::Path| -> anyhow::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file =
            std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
        file.take(SETTINGS_BYTES_MAX)
            .read_to_end(&mut bytes)
            .with_context(|| format!("cannot read {}", path.display()))?;
        Ok(bytes)
    };
    let mut options = ClientOptions {
        plain_http: flags.plain_http.iter().cloned().collect::<BTreeSet<_>>(),
        ..ClientOptions::default()
    };
    if let Some(path) = &flags.registry_config {
        options.credentials = Credentials::from_docker_config(&read(path)?)
            .with_context(|| format!("{} (--registry-config)", path.display()))?;
    }
    if let Some(path) = &flags.registry_ca {
        options.extra_roots_pem = read(path)?;
    }
    Ok(options)
}
