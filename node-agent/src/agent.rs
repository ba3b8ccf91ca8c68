//! Puts the agent together: supervisor, the source of orders, the report, the probes.
//!
//! Owns start and stop. Must never decide: it only connects.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rimward_artifact::Limits;
use rimward_artifact::registry::{Client, ClientOptions, Credentials};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::Run;
use crate::proto::HostLimits;
use crate::proto::spawn::Program;
use crate::store::{Lock, OpenError};
use crate::supervisor::{
    Config, Event, Handles, PreflightLimits, Standby, Supervisor, watch_trust,
};
use crate::{manifests, probes, report};

/// How often small local files are read for changes.
const FILE_PERIOD: Duration = Duration::from_secs(1);
/// How long what an earlier agent used may stay in use; no orphan takes that long to die.
const IN_USE_WITHIN: Duration = Duration::from_secs(10);
/// How long an orderly end may take once nobody is waited for any more.
const HURRY_WITHIN: Duration = Duration::from_secs(2);
/// Between two attempts.
const IN_USE_PAUSE: Duration = Duration::from_millis(20);
/// Longest reason of a hold.
const HOLD_BYTES_MAX: u64 = 256;
/// Longest file of registry settings.
const SETTINGS_BYTES_MAX: u64 = 1 << 20;

/// How this agent begins.
enum Role {
    /// The folder is its own.
    Holder(Box<Supervisor>),
    /// Another agent holds the folder.
    Standby(Box<Standby>),
}

/// Runs the agent until SIGTERM or SIGINT.
///
/// # Errors
/// When it cannot start, or when the durable state is not known any more.
pub async fn run(flags: Run) -> anyhow::Result<()> {
    // First of all: to the first process of a container a signal that nobody waits for is none.
    let mut stops = Stops::listen()?;
    let client = Client::new(client_options(&flags)?).context("registry client")?;
    let begun = tokio::select! {
        begun = begin(&flags, client) => begun?,
        () = stops.next() => return Ok(()),
    };
    let (role, handles) = begun;
    let Handles {
        events,
        picture,
        numbers,
        hurry,
    } = handles.clone();
    let mut tasks = JoinSet::new();
    let trust_events = events.clone();
    tasks.spawn(watch_trust(
        flags.trust.clone(),
        FILE_PERIOD,
        async move |source| {
            let _ = trust_events.send(Event::Trust(source)).await;
        },
    ));
    if let Some(listen) = flags.metrics_listen {
        // In one network with its holder, a standby comes to its own probes once that is gone.
        let patient = matches!(role, Role::Standby(_));
        let probes = probes::bind(listen, patient, picture, numbers)
            .await
            .with_context(|| format!("listen on {listen} (--metrics-listen)"))?;
        tasks.spawn(probes);
    }
    tasks.spawn(watch_registry(flags.clone(), events.clone()));
    tasks.spawn(replace_on_signal(events.clone())?);
    tasks.spawn(crate::orphans::reap());
    tasks.spawn(stop_on_signal(
        stops,
        Duration::from_secs(flags.drain_seconds.into()),
        events,
        hurry,
    ));
    let supervisor = match role {
        Role::Holder(supervisor) => Some(*supervisor),
        Role::Standby(standby) => standby.run().await?,
    };
    let result = match supervisor {
        Some(supervisor) => {
            // Whoever holds the folder reads the orders and reports; nobody else does.
            spawn_centre(&mut tasks, &flags, handles);
            supervisor.run().await
        }
        None => Ok(()),
    };
    tasks.shutdown().await;
    result
}

/// Takes the data folder, or stands by where another agent has it and that is wanted.
async fn begin(flags: &Run, client: Client) -> anyhow::Result<(Role, Handles)> {
    let folder = &flags.data_dir;
    let at = || format!("store {}", folder.display());
    let taken = match flags.standby {
        true => match Lock::take_over(folder) {
            Err(OpenError::Io(error)) if error.kind() == ErrorKind::NotFound => {
                Some(Lock::take(folder).with_context(at)?)
            }
            Err(OpenError::Locked) => {
                let config = config(flags, flags.listen);
                let (standby, handles) = Standby::open(config, client)?;
                tracing::info!(
                    node = flags.node_name,
                    folder = %folder.display(),
                    "standing by: another agent holds the data folder"
                );
                return Ok((Role::Standby(Box::new(standby)), handles));
            }
            taken => Some(taken.with_context(at)?),
        },
        false => None,
    };
    let listener = once_free(
        || TcpListener::bind(flags.listen),
        |error| error.kind() == ErrorKind::AddrInUse,
    )
    .await
    .with_context(|| format!("listen on {} (--listen)", flags.listen))?;
    let address = listener.local_addr().context("listening socket")?;
    let lock = match taken {
        Some(lock) => lock,
        None => Lock::take(folder).with_context(at)?,
    };
    let config = config(flags, address);
    let (supervisor, handles) = Supervisor::open(config, client, Arc::new(lock), listener)?;
    tracing::info!(node = flags.node_name, %address, "agent started");
    Ok((Role::Holder(Box::new(supervisor)), handles))
}

fn config(flags: &Run, listen: SocketAddr) -> Config {
    let advertise = flags.advertise.clone();
    Config {
        data_folder: flags.data_dir.clone(),
        trust_file: flags.trust.clone(),
        listen,
        advertise: advertise.unwrap_or_else(|| listen.to_string()),
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
    }
}

/// Starts what gives orders and takes reports.
fn spawn_centre(tasks: &mut JoinSet<()>, flags: &Run, handles: Handles) {
    let Handles {
        events, picture, ..
    } = handles;
    tasks.spawn(watch_hold(flags.data_dir.join("hold"), events.clone()));
    match &flags.manifests {
        Some(folder) => {
            tasks.spawn(manifests::watch(folder.clone(), FILE_PERIOD, events));
            let path = flags.data_dir.join("status.yaml");
            tasks.spawn(report::file::run(path, picture));
        }
        None => {
            let cluster = report::Cluster {
                node_name: flags.node_name.clone(),
                labels: flags.labels(),
                kubeconfig: flags.kubeconfig.clone(),
                lease_seconds: flags.lease_seconds,
            };
            tasks.spawn(report::cluster::run(cluster, picture, events));
        }
    }
}

/// Tries again for a while as long as something is in use: the host of an agent that was killed dies a moment after
/// it, and has its listening socket until then. (The lock of the store needs no such wait: children have it no longer
/// than the listener.)
async fn once_free<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    is_in_use: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(error) if is_in_use(&error) && started.elapsed() < IN_USE_WITHIN => {
                tokio::time::sleep(IN_USE_PAUSE).await;
            }
            outcome => return outcome,
        }
    }
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

/// The signals that tell the agent to stop.
struct Stops {
    terminate: Signal,
    interrupt: Signal,
}

impl Stops {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("SIGINT")?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// At the first signal the agent is told as not ready, serves on for `drain` and then stops; at a second one it stops
/// without waiting for anybody.
async fn stop_on_signal(
    mut stops: Stops,
    drain: Duration,
    events: mpsc::Sender<Event>,
    hurry: CancellationToken,
) {
    stops.next().await;
    if !drain.is_zero() {
        tracing::info!(seconds = drain.as_secs(), "serving on, not ready");
    }
    let _ = events.send(Event::Drain).await;
    let hurried = tokio::select! {
        () = tokio::time::sleep(drain) => false,
        () = stops.next() => true,
    };
    let _ = events.send(Event::Stop).await;
    if !hurried {
        stops.next().await;
    }
    hurry.cancel();
    // A loop that does not come round must not hold back who asks twice. Its children die with it.
    tokio::time::sleep(HURRY_WITHIN).await;
    tracing::error!("the agent does not come to its end; it is cut short");
    std::process::exit(1);
}

/// Watches the files that the registry client is made from, and makes it anew when they say something else. While
/// what they say cannot be used, the last client goes on.
async fn watch_registry(flags: Run, events: mpsc::Sender<Event>) {
    let files: Vec<&Path> = [&flags.registry_config, &flags.registry_ca]
        .into_iter()
        .flatten()
        .map(PathBuf::as_path)
        .collect();
    let contents = || -> Vec<_> {
        let read = |path: &&Path| read_settings(path).map_err(|error| format!("{error:#}"));
        files.iter().map(read).collect()
    };
    let mut last = contents();
    loop {
        tokio::time::sleep(FILE_PERIOD).await;
        let now = contents();
        if now == last {
            continue;
        }
        last = now;
        let made = client_options(&flags).and_then(|options| Ok(Client::new(options)?));
        match made {
            Ok(client) => {
                tracing::info!("registry credentials changed");
                if events.send(Event::Registry(client)).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                tracing::error!(
                    error = format!("{error:#}"),
                    "registry credentials changed; the ones before stay in use"
                );
            }
        }
    }
}

fn read_settings(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file =
        std::fs::File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    file.take(SETTINGS_BYTES_MAX)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {}", path.display()))?;
    Ok(bytes)
}

fn client_options(flags: &Run) -> anyhow::Result<ClientOptions> {
    let mut options = ClientOptions {
        plain_http: flags.plain_http.iter().cloned().collect::<BTreeSet<_>>(),
        ..ClientOptions::default()
    };
    if let Some(path) = &flags.registry_config {
        options.credentials = Credentials::from_docker_config(&read_settings(path)?)
            .with_context(|| format!("{} (--registry-config)", path.display()))?;
    }
    if let Some(path) = &flags.registry_ca {
        options.extra_roots_pem = read_settings(path)?;
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_a_dying_host_still_has_is_waited_for() {
        let before = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = before.local_addr().unwrap();
        let mut before = Some(before);
        let mut attempts = 0;
        let bind = || {
            attempts += 1;
            if attempts == 3 {
                before = None;
            }
            TcpListener::bind(address)
        };
        let bound = once_free(bind, |error| error.kind() == ErrorKind::AddrInUse).await;
        assert_eq!(bound.unwrap().local_addr().unwrap(), address);
        assert_eq!(attempts, 3);
    }

    #[tokio::test]
    async fn what_waiting_does_not_mend_is_told_at_once() {
        let mut attempts = 0;
        let attempt = || {
            attempts += 1;
            Err::<(), _>("refused")
        };
        assert_eq!(
            once_free(attempt, |error| *error == "in use").await,
            Err("refused")
        );
        assert_eq!(attempts, 1);
    }
}
