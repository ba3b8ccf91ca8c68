//! The way from a stored version to a preflight's report, or to files that a host can load.
//!
//! Owns the order: offline check, then compile in the bounded child, then hand over. Must never
//! compile or hand over what was not verified just now.

use std::fs::File;

use rimward_core::node::{Problem, Reason, Version};
use rimward_crds::GoldenVectors;

use super::check::{Checker, Files, Papers, words};
use super::host::Prepared;
use super::native::{ModuleId, NativeCache};
use crate::parse::Key;
use crate::proto::spawn::{PreflightFiles, Program, run_preflight};
use crate::proto::{DeploymentSpec, FailReason, NativeCodeId, PreflightJob, PreflightReport};

/// Bounds of one preflight.
#[derive(Debug, Clone, Copy)]
pub struct PreflightLimits {
    /// Wall-clock time.
    pub timeout_milliseconds: u64,
    /// Memory.
    pub memory_bytes_max: u64,
}

impl Default for PreflightLimits {
    fn default() -> Self {
        Self {
            timeout_milliseconds: 300_000,
            memory_bytes_max: 2 << 30,
        }
    }
}

/// What activation works with.
#[derive(Debug, Clone)]
pub(super) struct Activate {
    /// Store and trust.
    pub checker: Checker,
    /// Native code.
    pub cache: NativeCache,
    /// The program that the child is.
    pub program: Program,
    /// Bounds of the child.
    pub limits: PreflightLimits,
    /// Which deployment.
    pub key: Key,
    /// Which version.
    pub version: Version,
}

/// Why a version was not activated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotActivated {
    /// It may not run at the moment: bytes, signatures, revocation, floors.
    Unsound(Problem),
    /// It is no good.
    Failed(Problem),
    /// The device could not try it.
    Unavailable(Problem),
    /// The device began to try it, and did not let it end.
    Interrupted(Problem),
}

impl Activate {
    /// Verifies the version offline and runs its preflight; afterwards its native code is cached.
    ///
    /// # Errors
    /// [`NotActivated`].
    pub(super) async fn preflight(self) -> Result<(), NotActivated> {
        let (papers, files, spec) = self.verified().await?;
        let policy = papers.install.entry.health.golden_vectors;
        match (policy, &files.golden_vectors) {
            (GoldenVectors::Require, None) => Err(failed(
                "GoldenVectorsMissing",
                "the package has no golden vectors, and health.goldenVectors is Require",
            )),
            (GoldenVectors::Require, Some(_)) => {
                let (module, report) = self.run(&spec, files).await?;
                self.keep(module, report)
            }
            (GoldenVectors::Report, _) => {
                let (module, mut report) = self.run(&spec, files).await?;
                if let Err(NotActivated::Failed(problem)) = &report.1
                    && problem.reason.as_str() == reason(FailReason::GoldenVectorMismatch)
                {
                    tracing::warn!(deployment = %self.key, problem = problem.message, "golden vectors differ; the policy says to go on");
                    let (_, files, _) = self.verified().await?;
                    let without = Files {
                        golden_vectors: None,
                        ..files
                    };
                    report = self.run(&spec, without).await?.1;
                }
                self.keep(module, report)
            }
            (GoldenVectors::Ignore, _) => {
                let without = Files {
                    golden_vectors: None,
                    ..files
                };
                let (module, report) = self.run(&spec, without).await?;
                self.keep(module, report)
            }
        }
    }

    /// Verifies the version offline and gives what a host loads; compiles it in the child when its
    /// native code is not there, or not of this agent.
    ///
    /// # Errors
    /// [`NotActivated`].
    pub(super) async fn prepare(self) -> Result<Prepared, NotActivated> {
        let (papers, files, spec) = self.verified().await?;
        let module = ModuleId(files.module.as_ref().map(|(digest, _)| *digest));
        if let Ok((native, code)) = self.cache.get(module) {
            return Ok(Prepared {
                module,
                spec,
                native,
                code,
                model: files.model,
            });
        }
        let without = Files {
            golden_vectors: None,
            ..files
        };
        let (module, report) = self.run(&spec, without).await?;
        self.keep(module, report)?;
        let (native, code) = self
            .cache
            .get(module)
            .map_err(|error| unavailable(words(&error)))?;
        // The model's descriptor went to the child; its bytes are checked again for the host.
        let (checker, papers) = (self.checker.clone(), papers);
        let files = blocking(move || checker.files(&papers)).await?;
        Ok(Prepared {
            module,
            spec,
            native,
            code,
            model: files.model,
        })
    }

    async fn verified(&self) -> Result<(Papers, Files, DeploymentSpec), NotActivated> {
        let (checker, key, version) =
            (self.checker.clone(), self.key.clone(), self.version.clone());
        let (papers, files) = blocking(move || {
            let papers = checker.papers(&key, &version)?;
            let files = checker.files(&papers)?;
            Ok((papers, files))
        })
        .await?;
        let spec = self
            .checker
            .spec(&self.key, &papers)
            .map_err(NotActivated::Failed)?;
        Ok((papers, files, spec))
    }

    async fn run(
        &self,
        spec: &DeploymentSpec,
        files: Files,
    ) -> Result<(ModuleId, Outcome), NotActivated> {
        let Files {
            module,
            model,
            golden_vectors,
        } = files;
        let output = self
            .cache
            .output()
            .map_err(|error| unavailable(words(&error)))?;
        let theirs = output
            .try_clone()
            .map_err(|error| unavailable(words(&error)))?;
        let id = ModuleId(module.as_ref().map(|(digest, _)| *digest));
        let job = PreflightJob {
            spec: spec.clone(),
            module_digest: module.as_ref().map(|(digest, _)| digest.to_string()),
            timeout_milliseconds: self.limits.timeout_milliseconds,
            memory_bytes_max: self.limits.memory_bytes_max,
        };
        let files = PreflightFiles {
            module: module.map(|(_, file)| file),
            model,
            golden_vectors,
            native_code_output: theirs.into(),
        };
        let report = run_preflight(&self.program, &job, files).await;
        Ok((id, outcome(output, report)))
    }

    fn keep(&self, module: ModuleId, (mut output, report): Outcome) -> Result<(), NotActivated> {
        let native = report?;
        self.cache
            .keep(module, &native, &mut output)
            .map_err(|error| unavailable(words(&error)))
    }
}

/// The file that native code was written into, and what came of it.
type Outcome = (File, Result<NativeCodeId, NotActivated>);

fn outcome(output: File, report: PreflightReport) -> Outcome {
    let result = match report {
        PreflightReport::Passed {
            runs,
            latency_p50_microseconds,
            latency_p99_microseconds,
            golden_vectors,
            native,
        } => {
            tracing::info!(
                backend = runs.backend,
                latency_p50_microseconds,
                latency_p99_microseconds,
                golden_vectors,
                "preflight passed"
            );
            Ok(native)
        }
        PreflightReport::Failed {
            reason: FailReason::Internal,
            message,
        } => Err(unavailable(message)),
        PreflightReport::Failed {
            reason: FailReason::PreflightInterrupted,
            message,
        } => Err(NotActivated::Interrupted(Problem::new(
            Reason::new(reason(FailReason::PreflightInterrupted)),
            message,
        ))),
        PreflightReport::Failed {
            reason: failed_by,
            message,
        } => Err(failed(reason(failed_by), message)),
    };
    (output, result)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Problem> + Send + 'static,
) -> Result<T, NotActivated> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(NotActivated::Unsound),
        Err(error) => Err(unavailable(words(&error))),
    }
}

fn failed(reason: &'static str, message: impl AsRef<str>) -> NotActivated {
    NotActivated::Failed(Problem::new(Reason::new(reason), message))
}

fn unavailable(message: impl AsRef<str>) -> NotActivated {
    NotActivated::Unavailable(Problem::new(Reason::PREFLIGHT_UNAVAILABLE, message))
}

/// The word of a failure in the children's closed list.
#[must_use]
pub(super) fn reason(reason: FailReason) -> &'static str {
    match reason {
        FailReason::CompileFailed => "CompileFailed",
        FailReason::ImportRefused => "ImportRefused",
        FailReason::ExportMissing => "ExportMissing",
        FailReason::ModelRefused => "ModelRefused",
        FailReason::BackendUnavailable => "BackendUnavailable",
        FailReason::TensorMismatch => "TensorMismatch",
        FailReason::GoldenVectorsInvalid => "GoldenVectorsInvalid",
        FailReason::GoldenVectorMismatch => "GoldenVectorMismatch",
        FailReason::GuestTrapped => "GuestTrapped",
        FailReason::InferenceFailed => "InferenceFailed",
        FailReason::TimedOut => "TimedOut",
        FailReason::MemoryExceeded => "MemoryExceeded",
        FailReason::Crashed => "Crashed",
        FailReason::NativeCodeRefused => "NativeCodeRefused",
        FailReason::PreflightInterrupted => "PreflightInterrupted",
        FailReason::Internal => "Internal",
    }
}
