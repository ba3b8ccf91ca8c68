//! The contract between the supervisor and its children, the host and the preflight.
//!
//! Owns the messages and nothing else; [`channel`] carries them, [`spawn`] starts the children.
//! Both ends are the same binary, so there are no versions here. Each message is one JSON packet of
//! at most [`PACKET_BYTES_MAX`] on a `SOCK_SEQPACKET` Unix socket that the child has as its standard
//! input, with file descriptors beside it (`SCM_RIGHTS`). The host holds no credential, so nothing
//! here may carry one.

pub mod cgroup;
pub mod channel;
pub mod flight;
mod histogram;
pub mod processor;
pub mod spawn;
mod spec;

use serde::{Deserialize, Serialize};

pub use histogram::Histogram;
pub use spec::{
    Backend, Datatype, DeploymentSpec, ModelVariant, NativeCodeId, RuntimeLimits, TensorSpec,
    WhatRuns,
};

/// The longest packet that either side sends or accepts.
pub const PACKET_BYTES_MAX: usize = 64 * 1024;

/// The most file descriptors in one packet.
pub const PACKET_FDS_MAX: usize = 16;

/// Names one loaded version in a host. Chosen by the supervisor, never used twice in one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SlotId(pub u64);

impl std::fmt::Display for SlotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// How a host ends that held more memory than it may.
pub const EXIT_OVER_MEMORY: u8 = 17;

/// What a file descriptor beside a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FdRole {
    /// A listening TCP socket for the REST endpoint.
    RestListener,
    /// Native code that the supervisor has checked ([`crate::host::native::open`]).
    NativeCode,
    /// A model file that the supervisor has verified.
    Model,
    /// A module (`.wasm`) that the supervisor has verified.
    Module,
    /// The package's golden vectors (JSON).
    GoldenVectors,
    /// An empty file, open for writing, that takes the compiled native code.
    NativeCodeOutput,
    /// What the host is at, for when it dies ([`flight`]).
    FlightRecorder,
}

/// Supervisor to host.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum ToHost {
    /// Always first, once; beside it [`FdRole::FlightRecorder`] (may be absent). Answered by [`FromHost::Ready`]: the host takes loads and routes, but
    /// accepts no connection before [`ToHost::Listen`].
    Start {
        /// Bounds for the whole host.
        limits: HostLimits,
    },
    /// Once, beside it the listeners ([`FdRole::RestListener`]): the host accepts connections from
    /// then on. Sent when the versions that serve are loaded and routed, so that a connection that
    /// waited in the kernel's queue while a host was replaced finds its model, not a 404.
    Listen {},
    /// Loads one version into a new slot; it gets no traffic before a [`ToHost::Route`]. Beside it
    /// [`FdRole::NativeCode`] and [`FdRole::Model`]. Answered by [`FromHost::Loaded`] or
    /// [`FromHost::LoadFailed`].
    Load {
        /// The new slot.
        slot: SlotId,
        /// What to load.
        spec: Box<DeploymentSpec>,
        /// The native code that the file descriptor holds.
        native: NativeCodeId,
    },
    /// Gives one endpoint its versions, in one atomic swap. With a candidate, requests go to it and
    /// those it fails are answered by `current`. With neither, the endpoint is gone (404). Slots
    /// that lose their traffic finish what they have begun. Answered by [`FromHost::Routed`].
    Route {
        /// The endpoint's name: the model's name in requests.
        endpoint: String,
        /// The version that serves, or answers for the candidate.
        current: Option<SlotId>,
        /// The version in trial.
        candidate: Option<SlotId>,
    },
    /// Drops a slot after its requests in flight (or their deadlines) are over. It must not be
    /// routed. Answered by its last [`FromHost::SlotStats`], if it was loaded, and
    /// [`FromHost::Unloaded`].
    Unload {
        /// The slot.
        slot: SlotId,
    },
    /// Asks for counters: answered by one [`FromHost::SlotStats`] per slot, then one
    /// [`FromHost::HostStats`].
    Stats {},
    /// The agent will leave soon: tell whoever asks for readiness so, and serve on. Comes at any time after
    /// [`ToHost::Start`].
    Drain {},
    /// Stop accepting; answer the next request of each connection with `Connection: close`; when no
    /// connection is left or the grace is over, send what answers [`ToHost::Stats`], then
    /// [`FromHost::Drained`], and exit.
    LameDuck {
        /// Longer than clients keep idle connections for reuse.
        grace_milliseconds: u64,
    },
    /// Answered by [`FromHost::Pong`]: shows that the host's loop turns.
    Ping {},
}

/// Host to supervisor.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum FromHost {
    /// The host listens.
    Ready {},
    /// A slot is loaded.
    Loaded {
        /// The slot.
        slot: SlotId,
        /// What really runs, as the backend reports it.
        runs: WhatRuns,
    },
    /// A slot could not be loaded and does not exist.
    LoadFailed {
        /// The slot.
        slot: SlotId,
        /// From the closed list, CamelCase.
        reason: FailReason,
        /// What and where, in words.
        message: String,
    },
    /// The swap is done: requests accepted from now on go to the named slots.
    Routed {
        /// The endpoint's name.
        endpoint: String,
        /// False, with nothing changed, where a slot is not loaded.
        done: bool,
    },
    /// The slot is gone and its memory given back.
    Unloaded {
        /// The slot.
        slot: SlotId,
    },
    /// One slot's counters since it was loaded.
    SlotStats {
        /// The slot.
        slot: SlotId,
        /// The counters.
        stats: Box<SlotStats>,
    },
    /// The host's own counters; ends the answer to [`ToHost::Stats`].
    HostStats {
        /// Requests in flight in all slots.
        inflight: u64,
        /// Open client connections.
        connections: u64,
        /// Inference threads given up on because their engine would not stop.
        written_off_threads: u64,
        /// Resident memory of the host.
        resident_bytes: u64,
    },
    /// The lame duck is done and exits now.
    Drained {
        /// Connections still open when the grace ended (0 where all left).
        abandoned_connections: u64,
    },
    /// The host asks to be replaced: memory near its limit, or too many written-off threads.
    /// It goes on serving.
    Unhealthy {
        /// Why, in words.
        reason: String,
    },
    /// Answer to [`ToHost::Ping`].
    Pong {},
}

/// Bounds for the whole host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostLimits {
    /// Resident memory at which the host reports [`FromHost::Unhealthy`]; a quarter more and it exits.
    pub memory_bytes_max: u64,
    /// The largest request body, and the largest answer.
    pub body_bytes_max: u64,
    /// Bytes of bodies and answers that may be here at one time, from all clients. (Tensors are bounded
    /// for each request.)
    pub inflight_bytes_max: u64,
    /// Open client connections.
    pub connections_max: u32,
    /// How long a client may take nothing of an answer that is being written to it.
    pub write_stall_milliseconds: u64,
    /// Loaded slots.
    pub slots_max: u32,
    /// Component instances alive at one time, over all slots.
    pub instances_max: u32,
    /// Written-off threads at which the host reports [`FromHost::Unhealthy`].
    pub written_off_threads_max: u32,
}

impl Default for HostLimits {
    fn default() -> Self {
        Self {
            memory_bytes_max: 2 << 30,
            body_bytes_max: 64 << 20,
            inflight_bytes_max: 256 << 20,
            connections_max: 1024,
            write_stall_milliseconds: 30_000,
            slots_max: 512,
            instances_max: 64,
            written_off_threads_max: 4,
        }
    }
}

/// One slot's counters since it was loaded. They only grow, `inflight` and `queued` aside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SlotStats {
    /// Requests that this slot was asked to answer, whatever came of them; rejected ones excluded.
    pub requests: u64,
    /// Requests that this slot failed through no fault of the client: traps, engine errors,
    /// deadlines, wrong outputs, and a candidate's refusals of what the previous version answered
    /// ([`rimward_core::sample::weigh`]).
    pub errors: u64,
    /// Requests that were the client's mistake: they say nothing about this slot.
    pub client_errors: u64,
    /// Requests that the previous version answered instead (part of `errors`).
    pub fallbacks: u64,
    /// Requests turned away because the queue was full.
    pub rejected: u64,
    /// Sum of the latencies in `latency`.
    pub latency_sum_microseconds: u64,
    /// Time in this slot, queue included, of requests answered or failed by it, not of refused ones.
    pub latency: Histogram,
    /// The last error in words; at most 1 KiB.
    pub last_error: Option<String>,
    /// Requests being answered now.
    pub inflight: u64,
    /// Requests waiting now.
    pub queued: u64,
    /// The module's own metrics, at most 16.
    pub metrics: std::collections::BTreeMap<String, GuestMetric>,
}

/// Supervisor to preflight: the one packet in. Beside it [`FdRole::Module`] (none: the built-in
/// pass-through module), [`FdRole::Model`], [`FdRole::GoldenVectors`] (may be absent) and
/// [`FdRole::NativeCodeOutput`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PreflightJob {
    /// What to try.
    pub spec: DeploymentSpec,
    /// Sha256 of the module, `sha256:<hex>`; ignored for the built-in module.
    pub module_digest: Option<String>,
    /// Wall-clock bound for all of it; the parent kills a little later.
    pub timeout_milliseconds: u64,
    /// Bound on the child's memory.
    pub memory_bytes_max: u64,
}

/// Preflight to supervisor: the one packet out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub enum PreflightReport {
    /// Compiled, loaded, and every golden vector as expected.
    Passed {
        /// What really ran.
        runs: WhatRuns,
        /// Median latency of one inference, guest included; 0 without golden vectors.
        latency_p50_microseconds: u64,
        /// 99th percentile of the same.
        latency_p99_microseconds: u64,
        /// How many golden vectors were run.
        golden_vectors: u32,
        /// The native code that was written to the output.
        native: NativeCodeId,
    },
    /// The version must not serve.
    Failed {
        /// From the closed list.
        reason: FailReason,
        /// What and where, in words: `golden vector 3: expected 7, got 1`.
        message: String,
    },
}

/// Why a version cannot be loaded or served: the closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum FailReason {
    /// The module is not a component, or does not compile.
    CompileFailed,
    /// The module imports what no module is given; the message names it.
    ImportRefused,
    /// The module lacks the export `rimward:inference/handler`.
    ExportMissing,
    /// The model cannot be loaded safely, or uses what the backend does wrongly.
    ModelRefused,
    /// The backend that the variant asks for is not here.
    BackendUnavailable,
    /// The package's declared tensors cannot be served.
    TensorMismatch,
    /// The golden vectors cannot be read.
    GoldenVectorsInvalid,
    /// An answer differs from the golden one.
    GoldenVectorMismatch,
    /// The module trapped.
    GuestTrapped,
    /// The module or the backend returned an error on a golden input.
    InferenceFailed,
    /// A time limit ran out.
    TimedOut,
    /// A memory limit was hit.
    MemoryExceeded,
    /// The child died.
    Crashed,
    /// The machine ended the child, or gave it no processor: nobody's fault but the machine's.
    PreflightInterrupted,
    /// Native code is not what the supervisor sealed, or of another engine.
    NativeCodeRefused,
    /// The machine failed: a file, a socket, a process.
    Internal,
}

impl FailReason {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::CompileFailed,
        Self::ImportRefused,
        Self::ExportMissing,
        Self::ModelRefused,
        Self::BackendUnavailable,
        Self::TensorMismatch,
        Self::GoldenVectorsInvalid,
        Self::GoldenVectorMismatch,
        Self::GuestTrapped,
        Self::InferenceFailed,
        Self::TimedOut,
        Self::MemoryExceeded,
        Self::Crashed,
        Self::PreflightInterrupted,
        Self::NativeCodeRefused,
        Self::Internal,
    ];
}

impl std::fmt::Display for FailReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
}

/// One metric of a module's own, summed since the slot was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GuestMetric {
    /// Samples.
    pub count: u64,
    /// Their sum.
    pub sum: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl GuestMetric {
    /// No samples yet; `first` is about to be added.
    pub fn new(first: f64) -> Self {
        Self {
            count: 0,
            sum: 0.0,
            min: first,
            max: first,
        }
    }

    /// Adds a finite sample.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        // A sum that overflows stays at the largest number, which JSON can carry.
        self.sum = (self.sum + value).clamp(f64::MIN, f64::MAX);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_come_back_from_the_wire_as_they_went() {
        let mut stats = SlotStats {
            requests: 3,
            last_error: Some("e".to_owned()),
            ..SlotStats::default()
        };
        stats.latency.record(7);
        stats.latency.record(123_456);
        stats.metrics.insert("m".to_owned(), GuestMetric::new(1.5));
        let message = FromHost::SlotStats {
            slot: SlotId(4),
            stats: Box::new(stats.clone()),
        };
        let bytes = serde_json::to_vec(&message).unwrap();
        let FromHost::SlotStats { slot, stats: back } = serde_json::from_slice(&bytes).unwrap()
        else {
            panic!("another message")
        };
        assert_eq!((slot, *back), (SlotId(4), stats));
    }
}
