//! The host's main loop: does what the supervisor says, one message after the other.
//!
//! Loading and unloading happen beside it, so that it always answers a ping. When the control socket
//! closes, the supervisor is gone, and so is this process.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::backend::Workers;
use super::engine::lock;
use super::routes::{Route, Routes};
use super::sandbox::Sandbox;
use super::serve::Server;
use super::slot::{LoadFailed, Means, Slot};
use super::watch;
use crate::proto::channel::{Channel, ChannelError, Fds};
use crate::proto::flight::Recorder;
use crate::proto::spawn::{SelfLimits, harden, limit_self};
use crate::proto::{
    DeploymentSpec, EXIT_OVER_MEMORY, FailReason, FdRole, FromHost, HostLimits, NativeCodeId,
    SlotId, ToHost,
};

/// Threads that serve requests and run guests; engines have their own.
const RUNTIME_THREADS: usize = 2;
/// How long the supervisor may take to read a message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an unloading slot is looked at.
const UNLOAD_PERIOD: Duration = Duration::from_millis(5);
/// What this process reserves without using it: stacks of its own threads.
const RESERVED_BYTES: u64 = 128 << 20;
/// The same for each instance: its worker's stack, and malloc's arena for that thread.
const INSTANCE_RESERVED_BYTES: u64 = 12 << 20;
/// Descriptors beside connections and slots.
const FILES_SPARE: u64 = 128;

/// The child's whole life. The control socket is its standard input.
pub fn main() -> ExitCode {
    let socket = match harden() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("host: {error}");
            return ExitCode::FAILURE;
        }
    };
    crate::child::log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .max_blocking_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "runtime cannot be started");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(run(socket));
    // Written-off inference threads must not hold the process back.
    runtime.shutdown_background();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "host ends");
            match error.downcast_ref::<watch::OverMemory>() {
                Some(_) => ExitCode::from(EXIT_OVER_MEMORY),
                None => ExitCode::FAILURE,
            }
        }
    }
}

async fn run(socket: OwnedFd) -> anyhow::Result<()> {
    let channel = Arc::new(Channel::new(socket)?);
    let (first, mut fds) = match channel.recv::<ToHost>().await {
        Err(ChannelError::Closed) => return Ok(()),
        received => received?,
    };
    let ToHost::Start { limits } = first else {
        anyhow::bail!("the first message is not start");
    };
    let flight = Recorder::new(fds.take_optional(FdRole::FlightRecorder));
    let host = Host::start(limits, Arc::clone(&channel), flight)?;
    host.tell(FromHost::Ready {}).await?;
    let watching = watch::watch(host.clone());
    let loop_ended = host.clone().serve(channel);
    tokio::select! {
        ended = loop_ended => ended,
        error = watching => Err(error),
    }
}

/// Everything that this process holds.
#[derive(Clone, Debug)]
pub(super) struct Host {
    pub(super) limits: HostLimits,
    pub(super) workers: Workers,
    server: Server,
    routes: Routes,
    sandbox: Sandbox,
    sandboxes: Arc<Semaphore>,
    slots: Arc<Mutex<BTreeMap<SlotId, SlotState>>>,
    channel: Arc<Channel>,
    flight: Recorder,
}

#[derive(Clone, Debug)]
enum SlotState {
    Loading,
    /// Unloaded while it was being loaded: its loader drops it, and says so.
    Unwanted,
    Loaded(Arc<Slot>),
}

impl Host {
    fn start(limits: HostLimits, channel: Arc<Channel>, flight: Recorder) -> anyhow::Result<Self> {
        limit_self(&SelfLimits {
            // This limit counts what is reserved too, such as threads' stacks and the pool's; the
            // watch on resident memory is the finer one.
            memory_bytes_max: limits
                .memory_bytes_max
                .saturating_mul(2)
                .saturating_add(RESERVED_BYTES)
                .saturating_add(u64::from(limits.instances_max) * INSTANCE_RESERVED_BYTES),
            cpu_seconds_max: None,
            files_max: u64::from(limits.connections_max)
                + u64::from(limits.slots_max) * 2
                + FILES_SPARE,
        })?;
        let routes = Routes::default();
        let server = Server::new(routes.clone(), &limits);
        Ok(Self {
            limits,
            workers: Workers::default(),
            server,
            routes,
            sandbox: Sandbox::new(limits.instances_max)
                .map_err(|error| anyhow::anyhow!("sandbox: {error:#}"))?,
            sandboxes: Arc::new(Semaphore::new(limits.instances_max.max(1) as usize)),
            slots: Arc::default(),
            channel,
            flight,
        })
    }

    /// Sends one message; a supervisor that does not read for long is as good as gone.
    pub(super) async fn tell(&self, message: FromHost) -> anyhow::Result<()> {
        Ok(tokio::time::timeout(SEND_TIMEOUT, self.channel.send(&message, &[])).await??)
    }

    async fn serve(self, channel: Arc<Channel>) -> anyhow::Result<()> {
        loop {
            let (message, mut fds) = match channel.recv::<ToHost>().await {
                Err(ChannelError::Closed) => return Ok(()),
                received => received?,
            };
            match message {
                ToHost::Start { .. } => anyhow::bail!("a second start"),
                ToHost::Listen {} => {
                    while let Some(listener) = fds.take_optional(FdRole::RestListener) {
                        self.server.listen(TcpListener::from(listener))?;
                    }
                }
                ToHost::Load { slot, spec, native } => self.load(slot, *spec, native, fds).await?,
                ToHost::Route {
                    endpoint,
                    current,
                    candidate,
                } => {
                    let done = self.route(&endpoint, current, candidate);
                    self.tell(FromHost::Routed { endpoint, done }).await?;
                }
                ToHost::Unload { slot } => self.unload(slot),
                ToHost::Stats {} => self.stats().await?,
                ToHost::Drain {} => self.server.drain(),
                ToHost::Ping {} => self.tell(FromHost::Pong {}).await?,
                ToHost::LameDuck { grace_milliseconds } => {
                    let leaving = self.clone();
                    tokio::spawn(async move {
                        let stayed = leaving
                            .server
                            .lame_duck(Duration::from_millis(grace_milliseconds))
                            .await;
                        // What it answered since it was last asked counts too.
                        let _ = leaving.stats().await;
                        let abandoned_connections = stayed as u64;
                        let _ = leaving
                            .tell(FromHost::Drained {
                                abandoned_connections,
                            })
                            .await;
                        std::process::exit(0);
                    });
                }
            }
        }
    }

    async fn load(
        &self,
        id: SlotId,
        spec: DeploymentSpec,
        native: NativeCodeId,
        mut fds: Fds,
    ) -> anyhow::Result<()> {
        let (code, model) = (fds.take(FdRole::NativeCode)?, fds.take(FdRole::Model)?);
        {
            let mut slots = lock(&self.slots);
            anyhow::ensure!(!slots.contains_key(&id), "{id} is used twice");
            if slots.len() < self.limits.slots_max as usize {
                slots.insert(id, SlotState::Loading);
            }
        }
        if !lock(&self.slots).contains_key(&id) {
            let message = format!("this host has {} slots already", self.limits.slots_max);
            return self
                .tell(FromHost::LoadFailed {
                    slot: id,
                    reason: FailReason::Internal,
                    message,
                })
                .await;
        }
        let host = self.clone();
        tokio::spawn(async move {
            let loader = host.clone();
            let loaded = tokio::task::spawn_blocking(move || {
                // Loads wait for a thread here: one overtaken meanwhile is not worth beginning.
                if !loader.is_loading(id) {
                    return Err(LoadFailed {
                        reason: FailReason::Internal,
                        message: "unloaded before it was loaded".to_owned(),
                    });
                }
                Slot::load(
                    spec,
                    &native,
                    &code,
                    model,
                    Means {
                        sandbox: &loader.sandbox,
                        workers: &loader.workers,
                        sandboxes: Arc::clone(&loader.sandboxes),
                        flight: loader.flight.row(id),
                    },
                )
            });
            let loaded = loaded.await.unwrap_or_else(|panic| {
                Err(LoadFailed {
                    reason: FailReason::Internal,
                    message: format!("loading failed: {panic}"),
                })
            });
            let message = host.settle(id, loaded);
            let _ = host.tell(message).await;
        });
        Ok(())
    }

    fn is_loading(&self, id: SlotId) -> bool {
        matches!(lock(&self.slots).get(&id), Some(SlotState::Loading))
    }

    /// Ends a load: takes up what was loaded, unless it was unloaded meanwhile.
    fn settle(&self, id: SlotId, loaded: Result<Slot, LoadFailed>) -> FromHost {
        let mut slots = lock(&self.slots);
        if !matches!(slots.get(&id), Some(SlotState::Loading)) {
            slots.remove(&id);
            drop(slots);
            // Its memory is free before the supervisor is told so.
            drop(loaded);
            return FromHost::Unloaded { slot: id };
        }
        match loaded {
            Ok(slot) => {
                let runs = slot.runs.clone();
                slots.insert(id, SlotState::Loaded(Arc::new(slot)));
                FromHost::Loaded { slot: id, runs }
            }
            Err(LoadFailed { reason, message }) => {
                slots.remove(&id);
                FromHost::LoadFailed {
                    slot: id,
                    reason,
                    message: message.chars().take(1024).collect(),
                }
            }
        }
    }

    /// False, with nothing changed, where a slot is not loaded.
    fn route(&self, endpoint: &str, current: Option<SlotId>, candidate: Option<SlotId>) -> bool {
        let slots = lock(&self.slots);
        let find = |id: Option<SlotId>| match id.map(|id| slots.get(&id)) {
            None => Some(None),
            Some(Some(SlotState::Loaded(slot))) => Some(Some(Arc::clone(slot))),
            Some(Some(SlotState::Loading | SlotState::Unwanted) | None) => None,
        };
        let (Some(current), Some(candidate)) = (find(current), find(candidate)) else {
            return false;
        };
        self.routes
            .set(endpoint.to_owned(), Route { current, candidate });
        true
    }

    /// Waits until no request holds the slot: each has a deadline, so that comes. One that is being
    /// loaded keeps its entry, and with it its place among the slots, until its loader is done.
    fn unload(&self, id: SlotId) {
        let removed = {
            let mut slots = lock(&self.slots);
            if let Some(state @ (SlotState::Loading | SlotState::Unwanted)) = slots.get_mut(&id) {
                *state = SlotState::Unwanted;
                return;
            }
            slots.remove(&id)
        };
        let host = self.clone();
        tokio::spawn(async move {
            if let Some(SlotState::Loaded(slot)) = removed {
                while slot.busy() > 0 || Arc::strong_count(&slot) > 1 {
                    tokio::time::sleep(UNLOAD_PERIOD).await;
                }
                let _ = host.tell_stats(id, &slot).await;
            }
            let _ = host.tell(FromHost::Unloaded { slot: id }).await;
        });
    }

    /// Tells one slot's counters; gives its requests in flight.
    async fn tell_stats(&self, slot: SlotId, loaded: &Slot) -> anyhow::Result<u64> {
        let stats = loaded.stats();
        let inflight = stats.inflight;
        let stats = Box::new(stats);
        self.tell(FromHost::SlotStats { slot, stats }).await?;
        Ok(inflight)
    }

    async fn stats(&self) -> anyhow::Result<()> {
        let slots = lock(&self.slots).clone();
        let mut inflight = 0;
        for (id, state) in slots {
            if let SlotState::Loaded(slot) = state {
                inflight += self.tell_stats(id, &slot).await?;
            }
        }
        self.tell(FromHost::HostStats {
            inflight,
            connections: self.server.connections() as u64,
            written_off_threads: self.workers.written_off() as u64,
            resident_bytes: watch::resident_bytes().unwrap_or(0),
        })
        .await
    }
}
