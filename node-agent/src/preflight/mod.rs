//! The preflight child: compiles a module, loads a model, runs golden vectors, reports, exits.
//!
//! Everything that could go wrong with a package goes wrong here, under hard limits on memory,
//! processor time and wall time, while the current version serves. It has no credentials, no network
//! and no files but those it was handed. It decides nothing: the report is all it leaves, and native
//! code in the file that it was given for it.

mod golden;
mod module;

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rimward_artifact::package::golden::GoldenVectors;
use rimward_core::node::used_its_time;
use wasmtime::component::Component;

pub use module::MODULE_BYTES_MAX;

use crate::host::backend::{self, LoadedModel, MODEL_BYTES_MAX, Workers};
use crate::host::engine::compatibility_hash;
use crate::host::native::{NATIVE_CODE_BYTES_MAX, sha256};
use crate::host::sandbox::{GuestChannel, GuestFailure, GuestModule, GuestWorld, Sandbox};
use crate::host::tensor::TensorBudget;
use crate::host::{PASS_THROUGH, contract};
use crate::proto::channel::{self, Fds};
use crate::proto::processor;
use crate::proto::spawn::{SelfLimits, harden, limit_self, out_of_time};
use crate::proto::{
    DeploymentSpec, FailReason, FdRole, NativeCodeId, PreflightJob, PreflightReport,
};

/// Samples that the measured latency rests on, where time allows.
const SAMPLES: usize = 50;
/// The share of the whole time that measuring may take.
const MEASURE_SHARE: u32 = 4;
/// A first inference is slower than later ones; a vector gets at least this long.
const VECTOR_MILLISECONDS_MIN: u64 = 2_000;

struct Failed {
    reason: FailReason,
    message: String,
}

fn failed(reason: FailReason, message: impl Into<String>) -> Failed {
    Failed {
        reason,
        message: message.into(),
    }
}

fn internal(what: &str, error: impl std::fmt::Display) -> Failed {
    failed(FailReason::Internal, format!("{what}: {error}"))
}

/// The child's whole life. The control socket is its standard input.
pub fn main() -> ExitCode {
    let socket = match harden() {
        Ok(socket) => socket,
        Err(error) => {
            eprintln!("preflight: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (job, fds) = match channel::recv_blocking::<PreflightJob>(&socket) {
        Ok(received) => received,
        Err(error) => {
            eprintln!("preflight: {error}");
            return ExitCode::FAILURE;
        }
    };
    let deadline = Instant::now() + Duration::from_millis(job.timeout_milliseconds);
    let report = prepare(&socket, &job)
        .and_then(|()| run(&job, fds, deadline))
        .unwrap_or_else(|Failed { reason, message }| PreflightReport::Failed {
            reason,
            message: message.chars().take(1024).collect(),
        });
    match channel::send_blocking(&socket, &report, &[]) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("preflight: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Limits this process and starts its own watchdog: compiling and loading cannot be interrupted
/// from within.
fn prepare(socket: &OwnedFd, job: &PreflightJob) -> Result<(), Failed> {
    let seconds = job.timeout_milliseconds.div_ceil(1000).saturating_add(1);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get) as u64;
    limit_self(&SelfLimits {
        memory_bytes_max: job.memory_bytes_max,
        cpu_seconds_max: Some(seconds.saturating_mul(cores)),
        files_max: 64,
    })
    .map_err(|error| internal("limits cannot be set", error))?;
    let socket = socket
        .try_clone()
        .map_err(|error| internal("control socket", error))?;
    let milliseconds = job.timeout_milliseconds;
    std::thread::Builder::new()
        .name("watchdog".to_owned())
        .spawn(move || {
            std::thread::sleep(Duration::from_millis(milliseconds));
            let report = out_of_time(milliseconds, processor::milliseconds(None));
            let _ = channel::send_blocking(&socket, &report, &[]);
            std::process::exit(1);
        })
        .map_err(|error| internal("watchdog cannot be started", error))?;
    Ok(())
}

fn run(job: &PreflightJob, mut fds: Fds, deadline: Instant) -> Result<PreflightReport, Failed> {
    let spec = &job.spec;
    let missing = |error: channel::ChannelError| internal("job", error);
    let golden = fds
        .take_optional(FdRole::GoldenVectors)
        .map(|fd| golden::read(&mut File::from(fd), &spec.inputs, &spec.outputs))
        .transpose()
        .map_err(|message| failed(FailReason::GoldenVectorsInvalid, message))?;
    let sandbox = Sandbox::new(1).map_err(|error| internal("engine", format!("{error:#}")))?;
    let wasm = match fds.take_optional(FdRole::Module) {
        Some(fd) => read(fd, "module", MODULE_BYTES_MAX, FailReason::CompileFailed)?,
        None => PASS_THROUGH.to_vec(),
    };
    let output = File::from(fds.take(FdRole::NativeCodeOutput).map_err(missing)?);
    let (guest, native) = compile(&sandbox, &wasm, output)?;
    if let Some(wanted) = &job.module_digest
        && *wanted != native.module_digest
    {
        return Err(failed(
            FailReason::CompileFailed,
            format!(
                "module has digest {}, expected is {wanted}",
                native.module_digest
            ),
        ));
    }
    drop(wasm);
    let file = read(
        fds.take(FdRole::Model).map_err(missing)?,
        "model",
        MODEL_BYTES_MAX,
        FailReason::ModelRefused,
    )?;
    let model =
        backend::load(&spec.variant, file).map_err(|error| failed(error.reason, error.message))?;
    let mut trial = Trial::new(spec, guest, &model)?;
    let (latencies, golden_vectors) = match &golden {
        Some(golden) => (trial.golden(golden, deadline)?, golden.vectors.len()),
        None => (Vec::new(), 0),
    };
    Ok(PreflightReport::Passed {
        runs: model.what_runs(),
        latency_p50_microseconds: quantile(&latencies, 500),
        latency_p99_microseconds: quantile(&latencies, 990),
        golden_vectors: u32::try_from(golden_vectors).unwrap_or(u32::MAX),
        native,
    })
}

fn read(fd: OwnedFd, what: &str, bytes_max: u64, reason: FailReason) -> Result<Vec<u8>, Failed> {
    let file = File::from(fd);
    let length = file
        .metadata()
        .map_err(|error| internal(what, error))?
        .len();
    if length > bytes_max {
        return Err(failed(
            reason,
            format!("{what} has {length} bytes, at most {bytes_max}"),
        ));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(bytes_max)
        .read_to_end(&mut bytes)
        .map_err(|error| internal(what, error))?;
    Ok(bytes)
}

/// Compiles a module and writes its native code.
fn compile(
    sandbox: &Sandbox,
    wasm: &[u8],
    mut output: File,
) -> Result<(GuestModule, NativeCodeId), Failed> {
    module::check(wasm).map_err(|refused| failed(refused.reason, refused.message))?;
    let compiled = backend::catch_panic(|| Component::from_binary(sandbox.engine(), wasm))
        .map_err(|words| {
            // The compiler's threads need stacks: under a tight limit they cannot be had.
            let reason = if words.contains("thread pool") {
                FailReason::MemoryExceeded
            } else {
                FailReason::CompileFailed
            };
            failed(reason, format!("the compiler panicked: {words}"))
        })?;
    let component = compiled.map_err(|error| {
        failed(
            FailReason::CompileFailed,
            format!("module does not compile: {error:#}"),
        )
    })?;
    let guest = sandbox
        .link(&component)
        .map_err(|error| failed(FailReason::ImportRefused, error.to_string()))?;
    let code = component
        .serialize()
        .map_err(|error| internal("native code", format!("{error:#}")))?;
    if code.len() as u64 > NATIVE_CODE_BYTES_MAX {
        let message = format!(
            "module compiles to {} bytes, at most {NATIVE_CODE_BYTES_MAX}",
            code.len()
        );
        return Err(failed(FailReason::CompileFailed, message));
    }
    output
        .write_all(&code)
        .and_then(|()| output.sync_all())
        .map_err(|error| internal("native code output", error))?;
    let id = NativeCodeId {
        module_digest: sha256(wasm),
        engine_hash: compatibility_hash(sandbox.engine()),
        code_digest: sha256(&code),
    };
    Ok((guest, id))
}

/// One version, ready to answer in this process.
struct Trial<'a> {
    spec: &'a DeploymentSpec,
    guest: GuestModule,
    world: Arc<GuestWorld>,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Trial<'a> {
    fn new(
        spec: &'a DeploymentSpec,
        guest: GuestModule,
        model: &Arc<dyn LoadedModel>,
    ) -> Result<Self, Failed> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        let runtime = runtime.map_err(|error| internal("runtime", error))?;
        let world = Arc::new(GuestWorld {
            model: Arc::clone(model),
            variant_name: spec.variant.name.clone(),
            workers: Workers::default(),
            config: spec.config.clone(),
            channel: GuestChannel::new(&spec.deployment, &spec.revision),
            guest_memory_bytes_max: spec.limits.guest_memory_bytes_max,
            tensor_bytes_max: spec.limits.tensor_bytes_max,
        });
        Ok(Self {
            spec,
            guest,
            world,
            runtime,
        })
    }

    /// Runs every vector once and compares, then again while time allows, to measure. Gives the
    /// latencies, first round left out where there are others.
    fn golden(
        &mut self,
        golden: &GoldenVectors,
        deadline: Instant,
    ) -> Result<Vec<Duration>, Failed> {
        let began = Instant::now();
        let mut latencies = Vec::new();
        for (index, vector) in golden.vectors.iter().enumerate() {
            latencies.push(self.vector(index, vector, deadline)?);
        }
        let measure_until = began + deadline.saturating_duration_since(began) / MEASURE_SHARE;
        let mut warm = Vec::new();
        for (index, vector) in golden.vectors.iter().enumerate().cycle().take(SAMPLES) {
            if Instant::now() >= measure_until {
                break;
            }
            warm.push(self.vector(index, vector, deadline)?);
        }
        Ok(if warm.is_empty() { latencies } else { warm })
    }

    fn vector(
        &mut self,
        index: usize,
        vector: &rimward_artifact::package::golden::GoldenVector,
        deadline: Instant,
    ) -> Result<Duration, Failed> {
        let at = |message: String| format!("golden vector {index}: {message}");
        let limit_milliseconds = self
            .spec
            .limits
            .timeout_milliseconds
            .max(VECTOR_MILLISECONDS_MIN);
        let mut patience = Duration::from_millis(limit_milliseconds);
        let (outputs, latency) = loop {
            let budget = TensorBudget::new(self.spec.limits.tensor_bytes_max);
            let inputs = golden::inputs(vector, &self.spec.inputs, &budget)
                .map_err(|message| failed(FailReason::GoldenVectorsInvalid, at(message)))?;
            let (began, used_before) = (Instant::now(), processor::milliseconds(None));
            let until = deadline.min(began + patience);
            let answer = self
                .guest
                .infer(&self.world, inputs, budget, until, false, ());
            let failure = match self.runtime.block_on(answer) {
                Ok(outputs) => break (outputs, began.elapsed()),
                Err(failure) => failure,
            };
            let reason = match &failure {
                GuestFailure::Returned { .. } => FailReason::InferenceFailed,
                GuestFailure::Trapped(_) => FailReason::GuestTrapped,
                GuestFailure::TimedOut => {
                    let used = processor::milliseconds(None)
                        .zip(used_before)
                        .map(|(now, before)| now.saturating_sub(before));
                    let own = used.is_none_or(|used| used_its_time(limit_milliseconds, used));
                    match (own, Instant::now() < deadline) {
                        (true, _) => FailReason::TimedOut,
                        // The machine did not let it run: once more, with more time.
                        (false, true) => {
                            patience *= 2;
                            continue;
                        }
                        // The time of the whole is over: the watchdog, which is due, says whose fault that is.
                        (false, false) => loop {
                            std::thread::park();
                        },
                    }
                }
                GuestFailure::MemoryExceeded(_) => FailReason::MemoryExceeded,
                GuestFailure::NoRoom | GuestFailure::Lost(_) => FailReason::Internal,
            };
            return Err(failed(reason, at(failure.to_string())));
        };
        contract::check_outputs(&self.spec.outputs, &outputs)
            .map_err(|mismatch| failed(FailReason::TensorMismatch, at(mismatch.to_string())))?;
        golden::compare(index, vector, &outputs)
            .map_err(|message| failed(FailReason::GoldenVectorMismatch, message))?;
        Ok(latency)
    }
}

fn quantile(latencies: &[Duration], permille: usize) -> u64 {
    let mut sorted = latencies.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * permille).div_ceil(1000).saturating_sub(1);
    sorted.get(rank).map_or(0, |latency| {
        u64::try_from(latency.as_micros()).unwrap_or(u64::MAX)
    })
}
