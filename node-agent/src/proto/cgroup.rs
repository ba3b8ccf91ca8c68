//! A memory cgroup for a preflight, where the agent may make one.
//!
//! Best effort by nature: many devices let nobody make cgroups. Never an error, only absent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What the folders are named, before the child's pid.
const PREFIX: &str = "rimward-";

/// A cgroup that is removed on drop, if its process is gone by then; else when the next is made.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

impl Cgroup {
    /// Whether the kernel killed a process of this group because the group was at its own limit. It counts kills
    /// for want of the whole machine's memory in the same place; then the limit was not reached.
    #[must_use]
    pub fn killed_at_own_limit(&self) -> bool {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let (events, oom, failures) = (
            read("memory.events"),
            read("memory.oom_control"),
            read("memory.failcnt"),
        );
        at_own_limit(&events, &oom, &failures)
    }
}

/// Judges by `memory.events` (version 2), or by `memory.oom_control` and `memory.failcnt` (version 1); what is not
/// there is empty.
fn at_own_limit(events: &str, oom_control: &str, failures: &str) -> bool {
    let counts = |text: &str, key: &str| {
        let value = text.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == key).then(|| value.trim().parse::<u64>().ok())?
        });
        value.is_some_and(|value| value > 0)
    };
    let failed = failures
        .trim()
        .parse::<u64>()
        .is_ok_and(|failures| failures > 0);
    counts(events, "oom_kill") && counts(events, "oom") || counts(oom_control, "oom_kill") && failed
}

/// Puts a process under a memory limit of its own; `None` where the machine does not let us, as in most containers,
/// which is told once.
pub fn limit(pid: Option<u32>, memory_bytes_max: u64) -> Option<Cgroup> {
    static TOLD: std::sync::Once = std::sync::Once::new();
    let pid = pid?;
    match make(pid, memory_bytes_max) {
        Ok(group) => Some(group),
        Err(why) => {
            TOLD.call_once(|| {
                tracing::info!(
                    why,
                    "preflights get no memory cgroup of their own; their own limit holds (RLIMIT_DATA)"
                );
            });
            None
        }
    }
}

fn make(pid: u32, memory_bytes_max: u64) -> Result<Cgroup, String> {
    let own = fs::read_to_string("/proc/self/cgroup")
        .map_err(|error| format!("/proc/self/cgroup: {error}"))?;
    let (parent, file) = own
        .lines()
        .find_map(memory_controller)
        .ok_or("no memory controller is delegated to this agent")?;
    sweep(&parent);
    let group = Cgroup {
        folder: parent.join(format!("{PREFIX}{pid}")),
    };
    let at = |error: io::Error| format!("{}: {error}", group.folder.display());
    fs::create_dir(&group.folder).map_err(at)?;
    fs::write(group.folder.join(file), memory_bytes_max.to_string()).map_err(at)?;
    fs::write(group.folder.join("cgroup.procs"), pid.to_string()).map_err(at)?;
    Ok(group)
}

/// Folder and limit file of the memory controller, from one line of `/proc/self/cgroup`.
fn memory_controller(line: &str) -> Option<(PathBuf, &'static str)> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let path = path.trim_start_matches('/');
    if controllers.split(',').any(|name| name == "memory") {
        let folder = Path::new("/sys/fs/cgroup/memory").join(path);
        return Some((folder, "memory.limit_in_bytes"));
    }
    let folder = Path::new("/sys/fs/cgroup").join(path);
    let delegated = || {
        fs::read_to_string(folder.join("cgroup.subtree_control"))
            .is_ok_and(|names| names.split_whitespace().any(|name| name == "memory"))
    };
    (controllers.is_empty() && delegated()).then_some((folder, "memory.max"))
}

/// Removes what children left that are dead by now: a cgroup cannot go before its last process.
fn sweep(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let pid = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if let Some(pid) = pid.and_then(|pid| pid.parse::<u32>().ok())
            && !Path::new("/proc").join(pid.to_string()).exists()
        {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_controller_is_found_in_its_own_hierarchy() {
        let (folder, file) = memory_controller("4:memory:/a/b").unwrap();
        assert_eq!(folder, Path::new("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(file, "memory.limit_in_bytes");
        assert!(memory_controller("8:pids:/a").is_none());
        assert!(memory_controller("").is_none());
    }

    #[test]
    fn a_kill_counts_as_the_groups_own_only_if_it_was_at_its_limit() {
        let events = |oom, kill| format!("low 0\nhigh 0\nmax 9\noom {oom}\noom_kill {kill}\n");
        assert!(at_own_limit(&events(1, 1), "", ""));
        assert!(!at_own_limit(&events(0, 1), "", ""), "the machine's");
        assert!(!at_own_limit(&events(1, 0), "", ""), "not killed");
        let first = "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n";
        assert!(at_own_limit("", first, "12\n"));
        assert!(!at_own_limit("", first, "0\n"), "the machine's");
        assert!(!at_own_limit(
            "",
            "oom_kill_disable 0\nunder_oom 0\n",
            "12\n"
        ));
        assert!(!at_own_limit("", "", ""));
    }
}
