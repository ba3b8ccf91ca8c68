//! A memory cgroup for a child, where the agent may make one.

use std::fs;
use std::path::{Path, PathBuf};

/// A cgroup that is removed on drop, when its process is gone.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.folder);
    }
}

/// Puts a process under a memory limit of its own; `None` where the machine does not let us.
pub fn limit(pid: Option<u32>, memory_bytes_max: u64) -> Option<Cgroup> {
    let pid = pid?;
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let (parent, file) = own.lines().find_map(parent)?;
    let group = Cgroup {
        folder: parent.join(format!("rimward-{pid}")),
    };
    fs::create_dir(&group.folder).ok()?;
    fs::write(group.folder.join(file), memory_bytes_max.to_string()).ok()?;
    fs::write(group.folder.join("cgroup.procs"), pid.to_string()).ok()?;
    Some(group)
}

/// Folder and limit file of the memory controller, from one line of `/proc/self/cgroup`.
fn parent(line: &str) -> Option<(PathBuf, &'static str)> {
    let mut parts = line.splitn(3, ':');
    let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
    let path = path.trim_start_matches('/');
    if controllers.split(',').any(|name| name == "memory") {
        return Some((
            Path::new("/sys/fs/cgroup/memory").join(path),
            "memory.limit_in_bytes",
        ));
    }
    let unified = Path::new("/sys/fs/cgroup").join(path);
    let has_memory = fs::read_to_string(unified.join("cgroup.subtree_control"))
        .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "memory"));
    (controllers.is_empty() && has_memory).then_some((unified, "memory.max"))
}
