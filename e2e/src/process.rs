//! One long-running process: in a group of its own, its output in a file, gone when dropped.
//!
//! Owns starting, signalling and waiting. It never restarts anything by itself: stories say when.

use std::fs::File;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rustix::process::{Pid, Signal};

use crate::guard;
use crate::http::PROXY_VARIABLES;

/// Lines of a log that an error message quotes.
const LOG_LINES_QUOTED: usize = 20;

/// Bytes from a log's end that are looked at for quoting.
const LOG_BYTES_QUOTED: u64 = 64 << 10;

/// A running (or ended) child process.
///
/// Dropping it kills its whole group with SIGKILL and waits for it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command, with standard output and error appended to the file `log`.
    ///
    /// Guarantees: the process leads a group of its own, so that a terminal's Ctrl-C does not reach it
    /// before the harness does; the kernel kills it if the harness dies.
    ///
    /// # Errors
    /// Names the program, when it cannot be started, or the log, when that cannot be written.
    pub fn start(name: &str, command: Command, log: &Path) -> Result<Self> {
        guard::install();
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write {}", log.display()))?;
        let child = spawn(command, output).with_context(|| format!("cannot start {name}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
        })
    }

    /// The name that it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, which is its group's too.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The file that has its output.
    #[must_use]
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The end of its output.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log)
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// An error that says so if it has ended: the way to wait for readiness without waiting for nothing.
    ///
    /// # Errors
    /// Quotes the end of the log.
    pub fn check_running(&mut self) -> Result<()> {
        match self.ended() {
            None => Ok(()),
            Some(status) => Err(anyhow!(
                "{} ended with {status}; the end of {}:\n{}",
                self.name,
                self.log.display(),
                self.log_tail()
            )),
        }
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(pid) = Pid::from_raw(self.id().cast_signed()) {
            let _ = rustix::process::kill_process(pid, signal);
        }
    }

    /// kill -9 of the process alone, and waits for it: what it had started is left as a crash leaves it.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    /// kill -9 of its whole group at once, as a power cut does.
    pub fn kill_group(&mut self) {
        if let Some(pid) = Pid::from_raw(self.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.wait();
    }

    /// Asks it to stop with SIGTERM; kills it once `grace` is over. Blocks.
    pub fn stop(&mut self, grace: Duration) -> ExitStatus {
        self.signal(Signal::TERM);
        let started = Instant::now();
        while started.elapsed() < grace {
            if let Some(status) = self.ended() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.kill();
        self.ended()
            .unwrap_or_else(|| ExitStatus::from_raw(libc::SIGKILL))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        guard::end_group(self.id());
        let _ = self.child.wait();
    }
}

/// Starts the command on a thread that lives as long as the harness: the kernel sends the death signal
/// when the *thread* that started a process ends, and a test's thread ends with its test.
fn spawn(command: Command, output: File) -> Result<Child> {
    type Job = (Command, File, mpsc::SyncSender<Result<Child>>);
    static SPAWNER: OnceLock<mpsc::Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        std::thread::spawn(move || {
            for (command, output, answer) in jobs {
                let _ = answer.send(spawn_here(command, output));
            }
        });
        sender
    });
    let (answer, child) = mpsc::sync_channel(1);
    spawner
        .send((command, output, answer))
        .map_err(|_| anyhow!("the spawning thread is gone"))?;
    child.recv().context("the spawning thread is gone")?
}

#[allow(
    unsafe_code,
    reason = "pre_exec is unsafe; the closure makes two system calls and no more"
)]
fn spawn_here(mut command: Command, output: File) -> Result<Child> {
    let harness = rustix::process::getpid();
    command
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .process_group(0);
    for variable in PROXY_VARIABLES {
        command.env_remove(variable);
    }
    // SAFETY: between fork and exec only prctl and getppid are called, which allocate nothing and take
    // no lock.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            // The harness may have died before the line above.
            if rustix::process::getppid() == Some(harness) {
                Ok(())
            } else {
                Err(std::io::ErrorKind::BrokenPipe.into())
            }
        });
    }
    guard::spawn_noted(|| {
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", command.get_program().display()))?;
        let id = child.id();
        Ok((child, id))
    })
}

/// Reads the last lines of a log; what cannot be read is said instead.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        use std::io::{Read, Seek, SeekFrom};
        let mut file = File::open(log)?;
        let start = file.metadata()?.len().saturating_sub(LOG_BYTES_QUOTED);
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.take(LOG_BYTES_QUOTED).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    match read() {
        Ok(bytes) => {
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(LOG_LINES_QUOTED)..].join("\n")
        }
        Err(error) => format!("({}: {error})", log.display()),
    }
}
