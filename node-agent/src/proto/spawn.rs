//! Starts the children and bounds them from outside.
//!
//! A child gets an empty environment, the control socket as its standard input, the parent's
//! standard error for its log, and no other descriptor: all of ours are close-on-exec. It limits
//! itself before it reads the first packet's content ([`harden`]); to a preflight the parent adds a memory
//! cgroup, where it may, and a wall-clock kill.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal};
use tokio::process::{Child, Command};

use rimward_core::node::used_its_time;

use super::cgroup::{self, Cgroup};
use super::channel::{Channel, ChannelError, pair};
use super::{FailReason, FdRole, PreflightJob, PreflightReport, processor};

/// How much longer than its own deadline a preflight may live.
const PREFLIGHT_GRACE: Duration = Duration::from_secs(2);
/// How much of a preflight's standard error is kept to explain its death.
const STDERR_BYTES_MAX: u64 = 4096;

/// Which program the children are: this one, as a rule.
#[derive(Clone, Debug)]
pub struct Program(PathBuf);

impl Program {
    /// The running program itself, also when its file has been replaced since.
    pub fn this() -> Self {
        Self(PathBuf::from("/proc/self/exe"))
    }

    /// Another program that has the hidden subcommands `host` and `preflight`.
    pub fn at(path: impl AsRef<Path>) -> Self {
        Self(path.as_ref().to_owned())
    }

    fn command(&self, subcommand: &str) -> Command {
        let mut command = Command::new(&self.0);
        command
            .arg0("rimward-node-agent")
            .arg(subcommand)
            .env_clear()
            .current_dir("/")
            // glibc keeps a pool of memory per thread otherwise, which a child never gives back.
            .env("MALLOC_ARENA_MAX", "2")
            // rten starts a pool for the whole process that nobody uses: each worker has its own.
            .env("RTEN_NUM_THREADS", "1")
            // Ctrl-C on a terminal is for the supervisor: it decides when its children go.
            .process_group(0)
            .kill_on_drop(true);
        // The log filter is the one thing of the environment that a child may see.
        if let Some(filter) = std::env::var_os("RUST_LOG") {
            command.env("RUST_LOG", filter);
        }
        command
    }
}

/// A running host. Dropping it kills the process.
#[derive(Debug)]
pub struct HostProcess {
    /// The control socket.
    pub channel: Channel,
    /// The process, to wait for or to kill. It is in no memory cgroup of its own: its watch ends it a quarter above what it may
    /// hold, and says so, where a kernel's kill would not tell whose fault it was.
    pub child: Child,
}

/// Starts a host. It does nothing before [`super::ToHost::Start`] arrives.
///
/// The calling thread must outlive the host: the kernel kills the host when the thread that started
/// it ends (a tokio worker or the main thread will do, a `spawn_blocking` thread will not).
pub fn spawn_host(program: &Program) -> io::Result<HostProcess> {
    let (ours, theirs) = pair()?;
    let child = program
        .command("host")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .spawn()?;
    Ok(HostProcess {
        channel: Channel::new(ours)?,
        child,
    })
}

/// The files that a preflight needs beside its job.
#[derive(Debug)]
pub struct PreflightFiles {
    /// The module; `None` for the built-in pass-through.
    pub module: Option<OwnedFd>,
    /// The model.
    pub model: OwnedFd,
    /// The golden vectors, if the package has any.
    pub golden_vectors: Option<OwnedFd>,
    /// An empty file open for writing, for the native code.
    pub native_code_output: OwnedFd,
}

/// Runs one preflight to its end and says how it went. However the child ends, there is a report:
/// a crash, a kill or a silence is a failure with its reason. Dropping the future kills the child.
/// The bound on threads of [`spawn_host`] holds here too.
pub async fn run_preflight(
    program: &Program,
    job: &PreflightJob,
    files: PreflightFiles,
) -> PreflightReport {
    match preflight(program, job, files).await {
        Ok(report) => report,
        Err(error) => PreflightReport::Failed {
            reason: FailReason::Internal,
            message: format!(
                "the preflight process could not be run: {:#}",
                anyhow::Error::from(error)
            ),
        },
    }
}

async fn preflight(
    program: &Program,
    job: &PreflightJob,
    files: PreflightFiles,
) -> Result<PreflightReport, ChannelError> {
    let (ours, theirs) = pair()?;
    let mut child = program
        .command("preflight")
        .stdin(Stdio::from(theirs))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    let stderr = child.stderr.take();
    // Kept small and read all the time, so that a chatty child neither fills memory nor blocks.
    let said = tokio::spawn(async move {
        let mut tail = String::new();
        if let Some(stderr) = stderr {
            tail = read_tail(stderr).await;
        }
        tail
    });
    let confined = cgroup::limit(child.id(), job.memory_bytes_max);
    let channel = Channel::new(ours)?;
    let deadline = Duration::from_millis(job.timeout_milliseconds).saturating_add(PREFLIGHT_GRACE);
    let mut fds = vec![
        (FdRole::Model, files.model.as_fd()),
        (FdRole::NativeCodeOutput, files.native_code_output.as_fd()),
    ];
    fds.extend(files.module.as_ref().map(|fd| (FdRole::Module, fd.as_fd())));
    fds.extend(
        files
            .golden_vectors
            .as_ref()
            .map(|fd| (FdRole::GoldenVectors, fd.as_fd())),
    );
    let answer = tokio::time::timeout(deadline, async {
        channel.send(job, &fds).await?;
        channel
            .recv::<PreflightReport>()
            .await
            .map(|(report, _)| report)
    })
    .await;
    let report = match answer {
        Ok(Ok(report)) => {
            let _ = tokio::time::timeout(PREFLIGHT_GRACE, child.wait()).await;
            report
        }
        Ok(Err(ChannelError::Closed)) => {
            let status = tokio::time::timeout(PREFLIGHT_GRACE, child.wait()).await;
            let _ = child.start_kill();
            let said = tokio::time::timeout(PREFLIGHT_GRACE, said)
                .await
                .ok()
                .and_then(Result::ok)
                .unwrap_or_default();
            let own_limit = confined.as_ref().is_some_and(Cgroup::killed_at_own_limit);
            died(status.ok().and_then(Result::ok), &said, own_limit)
        }
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            let used = child.id().and_then(|id| processor::milliseconds(Some(id)));
            out_of_time(job.timeout_milliseconds, used)
        }
    };
    let _ = child.kill().await;
    drop(confined);
    Ok(report)
}

async fn read_tail(mut stderr: tokio::process::ChildStderr) -> String {
    use tokio::io::AsyncReadExt;
    let mut tail: Vec<u8> = Vec::new();
    let mut buffer = [0u8; 1024];
    while let Ok(length) = stderr.read(&mut buffer).await {
        if length == 0 {
            break;
        }
        tail.extend_from_slice(&buffer[..length]);
        let over = tail.len().saturating_sub(STDERR_BYTES_MAX as usize);
        tail.drain(..over);
    }
    String::from_utf8_lossy(&tail).into_owned()
}

/// What is said of a preflight that did not end in its time: its own fault only if it had the time. Where it is
/// not known how much processor time it had, it had it.
pub(crate) fn out_of_time(
    limit_milliseconds: u64,
    used_milliseconds: Option<u64>,
) -> PreflightReport {
    let own = used_milliseconds.is_none_or(|used| used_its_time(limit_milliseconds, used));
    let (reason, message) = if own {
        (
            FailReason::TimedOut,
            format!("preflight took longer than {limit_milliseconds} ms"),
        )
    } else {
        (
            FailReason::PreflightInterrupted,
            format!(
                "preflight did not end within {limit_milliseconds} ms, for much of which the machine gave it no processor"
            ),
        )
    };
    PreflightReport::Failed { reason, message }
}

/// Says why a child that sent no report is dead. `own_limit`: its memory cgroup killed it.
fn died(status: Option<std::process::ExitStatus>, said: &str, own_limit: bool) -> PreflightReport {
    use std::os::unix::process::ExitStatusExt;
    let signal = status.and_then(|status| status.signal());
    let allocation = said
        .lines()
        .find(|line| line.contains("memory allocation of"));
    let words = |line: &&str| !line.trim().is_empty() && !line.starts_with("note:");
    let last = allocation.or_else(|| said.lines().rev().find(words));
    let last = last.unwrap_or("").trim();
    let out_of_memory = allocation.is_some() || said.contains("Cannot allocate memory");
    let (reason, message) = match signal {
        _ if out_of_memory => (
            FailReason::MemoryExceeded,
            format!("preflight ran out of memory: {last}"),
        ),
        Some(9) if own_limit => (
            FailReason::MemoryExceeded,
            "preflight was killed at its memory limit".to_owned(),
        ),
        // It limits its private memory itself, and is told when that is used up: nothing of its own kills it.
        Some(9) => (
            FailReason::PreflightInterrupted,
            "preflight was killed from outside, most likely because the machine ran out of memory"
                .to_owned(),
        ),
        Some(24) => (
            FailReason::TimedOut,
            "preflight used up its processor time".to_owned(),
        ),
        Some(signal) => (
            FailReason::Crashed,
            format!("preflight died of signal {signal}: {last}"),
        ),
        None => (
            FailReason::Crashed,
            format!("preflight ended without a report: {last}"),
        ),
    };
    PreflightReport::Failed {
        reason,
        message: message.chars().take(1024).collect(),
    }
}

/// Limits that a child sets on itself before it handles anything from outside.
#[derive(Clone, Copy, Debug)]
pub struct SelfLimits {
    /// Private writable memory (`RLIMIT_DATA`; address space itself is not limited, the sandbox
    /// reserves much of it).
    pub memory_bytes_max: u64,
    /// Processor time; `None` for a host, which lives on.
    pub cpu_seconds_max: Option<u64>,
    /// Open file descriptors.
    pub files_max: u64,
}

/// No new privileges, no core dumps, die with the parent. First thing in a child; gives its control
/// socket.
///
/// # Errors
/// When a limit cannot be set, standard input is no control socket, or the supervisor is gone already.
pub fn harden() -> io::Result<OwnedFd> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    // The signal comes only if the parent dies from here on; one that died before left its child to
    // another. The kernel knows who made the socket: that one must be the parent still.
    let supervisor = rustix::net::sockopt::socket_peercred(&socket)?.pid;
    if rustix::process::getppid() != Some(supervisor) {
        return Err(io::Error::other("the supervisor is gone"));
    }
    set(Resource::Core, 0)?;
    Ok(socket)
}

/// Applies the limits that the first packet names.
pub fn limit_self(limits: &SelfLimits) -> io::Result<()> {
    set(Resource::Data, limits.memory_bytes_max)?;
    if let Some(seconds) = limits.cpu_seconds_max {
        set(Resource::Cpu, seconds)?;
    }
    set(Resource::Nofile, limits.files_max)
}

fn set(resource: Resource, value: u64) -> io::Result<()> {
    let had = rustix::process::getrlimit(resource);
    let within = |value: u64| had.maximum.map_or(value, |maximum| value.min(maximum));
    // At the hard limit on processor time the kernel kills without saying why; at the soft one it
    // sends a signal of its own.
    let hard = match resource {
        Resource::Cpu => value.saturating_add(2),
        _ => value,
    };
    Ok(rustix::process::setrlimit(
        resource,
        Rlimit {
            current: Some(within(value)),
            maximum: Some(within(hard)),
        },
    )?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    use super::*;

    fn check(status: i32, said: &str, wanted: FailReason, words: &str) {
        check_report(
            &died(Some(ExitStatus::from_raw(status)), said, false),
            wanted,
            words,
        );
    }

    fn check_report(report: &PreflightReport, wanted: FailReason, words: &str) {
        let PreflightReport::Failed { reason, message } = report else {
            panic!("{report:?}")
        };
        assert_eq!(*reason, wanted, "{message}");
        assert!(message.contains(words), "{message}");
    }

    #[test]
    fn a_death_without_a_report_is_told_by_signal_and_last_words() {
        let allocation = "memory allocation of 274877906944 bytes failed\n";
        check(6, allocation, FailReason::MemoryExceeded, "274877906944");
        check(9, "", FailReason::PreflightInterrupted, "from outside");
        let at_its_limit = died(Some(ExitStatus::from_raw(9)), "", true);
        check_report(&at_its_limit, FailReason::MemoryExceeded, "memory limit");
        check(24, "", FailReason::TimedOut, "processor time");
        check(11, "words\n\n", FailReason::Crashed, "signal 11: words");
        check(0, "", FailReason::Crashed, "without a report");
    }

    #[test]
    fn time_without_a_processor_is_the_machines_and_not_the_packages() {
        let own = FailReason::TimedOut;
        check_report(&out_of_time(1_000, Some(900)), own, "longer than 1000 ms");
        check_report(&out_of_time(1_000, None), own, "longer than 1000 ms");
        let machines = FailReason::PreflightInterrupted;
        check_report(&out_of_time(1_000, Some(40)), machines, "no processor");
    }

    #[test]
    fn last_words_are_short() {
        let report = died(None, &"x".repeat(100_000), false);
        let PreflightReport::Failed { message, .. } = report else {
            panic!("{report:?}")
        };
        assert!(message.len() <= 1024);
    }
}
