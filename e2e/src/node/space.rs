//! Namespaces of their own: network, mounts and processes, held open by one process.
//!
//! Owns their lifetime. Nothing here has a name in the machine's tables: once the holder is gone the kernel
//! kills every process inside, and takes mounts and network devices with it, however the harness ended.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::command::Line;
use crate::guard;
use crate::process::Process;
use crate::wait::{Seen, wait_for};

/// Where Debian keeps what needs root; not on everybody's PATH.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

const READY_WITHIN: Duration = Duration::from_secs(60);
/// A process in an uninterruptible wait must not hold a story for ever.
const GONE_WITHIN: Duration = Duration::from_secs(20);

/// The first process in there: makes the place ready, says so, and buries whatever is orphaned.
const HOLDER: &str = r#"
set -e
cd "$1"
eval "$2"
: >ready
while :; do sleep 86400 & wait $!; done
"#;

/// Namespaces and their holder. Dropping it kills whatever runs inside, and waits until that is dead.
#[derive(Debug)]
pub(crate) struct Space {
    holder: Process,
    folder: PathBuf,
    /// The holder's child, which is process 1 inside; its id out here.
    first: u32,
}

impl Space {
    /// Makes them, and runs a shell script in there first, with `folder` as its working directory.
    ///
    /// # Errors
    /// When this is not allowed, or the script fails: quotes it.
    pub(crate) async fn start(name: &str, folder: &Path, script: &str) -> Result<Self> {
        let ready = folder.join("ready");
        let log = folder.join("space.log");
        let mut command = Command::new("unshare");
        command
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "--", "/bin/sh", "-c", HOLDER, "holder"])
            .arg(folder)
            .arg(script)
            .env("PATH", PATH);
        let mut holder = Process::start(&format!("the namespaces of {name}"), command, &log)?;
        wait_for(
            holder.name().to_owned().as_str(),
            READY_WITHIN,
            async || {
                if let Err(error) = holder.check_running() {
                    return Ok(Seen::Never(format!("{error:#}")));
                }
                Ok(if ready.exists() {
                    Seen::Done(())
                } else {
                    Seen::NotYet("it is not ready".to_owned())
                })
            },
        )
        .await?;
        let children = guard::children_of(holder.id());
        let first = children.first().context("the holder has no child")?;
        Ok(Self {
            first: first.cast_unsigned(),
            folder: folder.to_path_buf(),
            holder,
        })
    }

    /// Process 1 in there, by its id out here.
    pub(crate) const fn id(&self) -> u32 {
        self.first
    }

    /// The program and arguments that run a program in there.
    pub(crate) fn enter(&self) -> [String; 6] {
        [
            "nsenter",
            "--target",
            &self.first.to_string(),
            "--net",
            "--mount",
            "--pid",
        ]
        .map(str::to_owned)
    }

    /// A short command in there.
    pub(crate) fn line(&self, program: &str) -> Line {
        let [enter, arguments @ ..] = self.enter();
        Line::new(Path::new(&enter))
            .args(arguments)
            .args(["--", program])
            .env("PATH", PATH)
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Some(first) = rustix::process::Pid::from_raw(self.first.cast_signed()) {
            let _ = rustix::process::kill_process(first, rustix::process::Signal::KILL);
        }
        // The kernel lets process 1 end only once everything in there has.
        let started = Instant::now();
        while self.holder.ended().is_none() && started.elapsed() < GONE_WITHIN {
            guard::bury_adopted();
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
