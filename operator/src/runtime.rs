//! What both roles need to run: common flags, logs, an API client, and a stop that is asked for once.
//!
//! Owns the process: its runtime, its signals, its subscriber. Must never hold state of a role.

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::answers::BoundAnswers;
use crate::credentials::{self, Source};
use crate::pages::WATCH_SECONDS;

/// How long a stopped role may take to finish what it is at.
const STOP_SECONDS_MAX: u64 = 20;

/// How long connecting to an API server may take.
const CONNECT_SECONDS_MAX: u64 = 5;

/// How long an API server may be silent in the middle of an answer. A watch may be for as long as it is open, and 5 s
/// more until kube takes it for dead, so this lies above that; all other requests have shorter bounds of their own,
/// and an API server ends them after 60 s.
const READ_SECONDS_MAX: u64 = WATCH_SECONDS as u64 + 10;

/// Flags of both roles.
#[derive(Clone, Debug, Args)]
pub(crate) struct CommonArgs {
    /// Kubeconfig to use; without it the pod's service account, or the usual places.
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The operator's own namespace: its leader Lease and its Secrets are there.
    #[arg(long, default_value = "rimward-system", env = "POD_NAMESPACE")]
    pub(crate) namespace: String,
    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:8080")]
    pub(crate) listen: SocketAddr,
    /// Plan again after this time though nothing was seen to change.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) resync_seconds: u32,
    /// How long the leader's Lease lasts without being renewed.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=3_600))]
    pub(crate) lease_seconds: u32,
    /// Name of this replica in the leader's Lease; by default host name and process id.
    #[arg(long, env = "POD_NAME")]
    pub(crate) identity: Option<String>,
    /// How log lines are written, to standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Json)]
    pub(crate) log_format: LogFormat,
    /// What is logged: a level, or `target=level` pairs.
    #[arg(long, default_value = "info", env = "RIMWARD_LOG")]
    pub(crate) log: String,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl CommonArgs {
    /// The replica's name in Leases: as given, else host name and process id.
    pub(crate) fn identity(&self) -> String {
        self.identity.clone().unwrap_or_else(|| {
            let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
            format!("{}-{}", host.trim(), std::process::id())
        })
    }

    /// Makes the client of the cluster that the operator runs in (or that `--kubeconfig` names). It reads its
    /// credentials again when they change or are refused.
    ///
    /// # Errors
    /// When the kubeconfig does not parse, or no configuration is found.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let source = self.kubeconfig.clone();
        credentials::client(source.map_or(Source::Usual, Source::File)).await
    }
}

/// Makes a client whose every request is bounded in time, and every answer in length. A request is sent once: kube's own
/// retries would send a write ten times to a server that is failing, and hide for how long.
///
/// # Errors
/// [`kube::Error`] when the configuration's certificates cannot be used.
pub(crate) fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.connect_timeout = Some(Duration::from_secs(CONNECT_SECONDS_MAX));
    config.read_timeout = Some(Duration::from_secs(READ_SECONDS_MAX));
    config.write_timeout = Some(Duration::from_secs(READ_SECONDS_MAX));
    // Else the time for which a connection lay idle in the pool would count as the server's silence.
    config.reset_reader_on_write = true;
    config.default_retry = false;
    let bounded = ClientBuilder::try_from(config)?.with_layer(&BoundAnswers);
    Ok(bounded.build())
}

/// Runs a role until it ends by itself or SIGTERM or SIGINT asks for it; a second signal ends it at once.
///
/// # Errors
/// What the role failed with, or that it did not stop in time.
pub(crate) fn run<F, Fut>(args: &CommonArgs, role: F) -> anyhow::Result<()>
where
    F: FnOnce(CancellationToken) -> Fut,
    Fut: Future<Output = anyhow::Result<()>>,
{
    init_log(args)?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider was installed before"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("asynchronous runtime")?;
    let result = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let asked = shutdown.clone();
        let signals = async {
            wait_for_signal().await?;
            tracing::info!("asked to stop");
            asked.cancel();
            tokio::select! {
                second = wait_for_signal() => second.and_then(|()| anyhow::bail!("asked twice to stop")),
                () = tokio::time::sleep(Duration::from_secs(STOP_SECONDS_MAX)) => {
                    anyhow::bail!("did not stop within {STOP_SECONDS_MAX} s")
                }
            }
        };
        tokio::select! {
            result = role(shutdown) => result,
            result = signals => result,
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(error) = &result {
        tracing::error!(error = format!("{error:#}"), "stopped");
    }
    result
}

async fn wait_for_signal() -> anyhow::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM handler")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT handler")?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

fn init_log(args: &CommonArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {}", args.log))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    match args.log_format {
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
        LogFormat::Text => lines.with_ansi(false).try_init(),
    }
    .map_err(|error| anyhow::anyhow!("log: {error}"))
}
