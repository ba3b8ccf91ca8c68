//! The control group that a node's pods live below.
//!
//! Owns making it and removing it again, in every hierarchy that the machine has: kubelets here run with
//! version 1, where there is one per controller, or with version 2, where there is one.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Members that are dead leave a moment later.
const EMPTY_WITHIN: Duration = Duration::from_secs(10);

/// Makes a group of that name.
///
/// # Errors
/// When the machine has no control groups, or they cannot be written.
pub(crate) fn make(name: &str) -> Result<()> {
    let roots = roots()?;
    ensure!(!roots.is_empty(), "no control groups are mounted here");
    for root in roots {
        let group = root.join(name);
        fs::create_dir_all(&group).with_context(|| format!("cannot make {}", group.display()))?;
        // Of version 1: a group has no processors and no memory until it is given some.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = fs::read_to_string(root.join(file))
                && root.ends_with("cpuset")
            {
                fs::write(group.join(file), value.trim())
                    .with_context(|| format!("cannot write {file} of {}", group.display()))?;
            }
        }
    }
    Ok(())
}

/// Removes a group and those below it, once what was in them is dead. What cannot be removed is said.
pub(crate) fn remove(name: &str) {
    let started = Instant::now();
    for root in roots().unwrap_or_default() {
        let group = root.join(name);
        while let Err(error) = remove_below(&group) {
            if started.elapsed() > EMPTY_WITHIN {
                eprintln!("cannot remove {}: {error}", group.display());
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The processes in groups whose path holds this, as `/rimward-0-0/` or a pod's `uid`, by their ids out here.
pub(crate) fn members(part: &str) -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    ids.filter(|id: &u32| {
        let groups = fs::read_to_string(format!("/proc/{id}/cgroup")).unwrap_or_default();
        groups.contains(part)
    })
    .collect()
}

fn remove_below(group: &Path) -> std::io::Result<()> {
    let entries = match fs::read_dir(group) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

fn roots() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("reading /proc/self/mounts")?;
    let fields = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>());
    Ok(fields
        .filter(|fields| matches!(fields.get(2), Some(&("cgroup" | "cgroup2"))))
        .map(|fields| PathBuf::from(fields[1]))
        .collect())
}
