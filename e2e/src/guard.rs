//! What happens when this process ends: every process that it started is killed, every folder removed.
//!
//! Owns the list of both. It covers a normal exit, a failed test, Ctrl-C, SIGTERM and SIGHUP. For kill -9
//! of the harness itself the kernel kills its children ([`crate::process`] asks for that); folders stay.
//!
//! Never call [`clean_up`] while a story still runs: it is for the end of the process.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, WaitOptions};

/// How long killed processes may take to be gone; one in an uninterruptible wait must not hold the exit.
const DEATHS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
struct State {
    /// Leaders of the process groups that were started and not yet ended.
    groups: BTreeSet<i32>,
    /// Folders, and whether each is to be kept.
    folders: BTreeMap<PathBuf, bool>,
    /// Names of control groups.
    control_groups: BTreeSet<String>,
    has_ended: bool,
}

static STATE: Mutex<State> = Mutex::new(State {
    groups: BTreeSet::new(),
    folders: BTreeMap::new(),
    control_groups: BTreeSet::new(),
    has_ended: false,
});

fn state() -> MutexGuard<'static, State> {
    // A thread that panicked while holding it left no half-made entry: each change is one call.
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sets the guard up, once; every other part of the harness calls it.
pub fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // reqwest and kube take the process's default; a second installation changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // Orphans of killed processes become children of this one, so that the sweep finds them.
        if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
            eprintln!("cannot adopt orphans, some may stay behind: {error}");
        }
        at_exit();
        std::thread::spawn(watch_signals);
    });
}

/// Registers [`clean_up`] for a normal exit: statics are not dropped in Rust, and a test binary ends by
/// `exit`.
#[allow(unsafe_code, reason = "atexit has no safe wrapper")]
fn at_exit() {
    extern "C" fn end() {
        clean_up();
    }
    // SAFETY: `end` is a plain function that lives as long as the program; it does not unwind, since
    // `clean_up` only makes system calls and prints.
    unsafe {
        libc::atexit(end);
    }
}

fn watch_signals() {
    use tokio::signal::unix::{SignalKind, signal};
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    else {
        eprintln!("cannot watch for Ctrl-C");
        return;
    };
    let code = runtime.block_on(async {
        let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
            signal(SignalKind::hangup()),
        ) else {
            eprintln!("cannot watch for Ctrl-C");
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => 128 + libc::SIGINT,
            _ = terminate.recv() => 128 + libc::SIGTERM,
            _ = hangup.recv() => 128 + libc::SIGHUP,
        }
    });
    eprintln!("\ninterrupted: ending every process and removing every file");
    clean_up();
    std::process::exit(code);
}

/// Runs `spawn`, which starts a process in a group of its own and returns its id, and notes the group,
/// unless the end has begun.
pub(crate) fn spawn_noted<T>(spawn: impl FnOnce() -> Result<(T, u32)>) -> Result<T> {
    let mut state = state();
    if state.has_ended {
        bail!("the harness is ending: nothing is started any more");
    }
    let (child, id) = spawn()?;
    state.groups.insert(id.cast_signed());
    Ok(child)
}

/// Kills a group and forgets it.
pub(crate) fn end_group(id: u32) {
    kill_group(id.cast_signed());
    state().groups.remove(&id.cast_signed());
}

fn kill_group(id: i32) {
    if let Some(pid) = Pid::from_raw(id) {
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
    }
}

/// Notes a folder that is to go at the end.
pub(crate) fn note_folder(path: &Path) {
    state().folders.insert(path.to_path_buf(), false);
}

/// Removes a folder now, or names it if it is to be kept.
pub(crate) fn end_folder(path: &Path) {
    if let Some(is_kept) = state().folders.remove(path) {
        remove_or_name(path, is_kept);
    }
}

/// Notes a control group that is to go at the end.
pub(crate) fn note_group(name: &str) {
    state().control_groups.insert(name.to_owned());
}

/// Forgets a control group: it is gone.
pub(crate) fn forget_group(name: &str) {
    state().control_groups.remove(name);
}

/// Keeps one folder beyond the end.
pub(crate) fn keep_folder(path: &Path) {
    if let Some(is_kept) = state().folders.get_mut(path) {
        *is_kept = true;
    }
}

/// Keeps every folder that there is: a story failed, and any of them may tell why.
pub fn keep_all_folders() {
    state()
        .folders
        .values_mut()
        .for_each(|is_kept| *is_kept = true);
}

/// Kills everything that this process started, and removes the folders that are not to be kept.
///
/// A second caller waits for the first: what fails because its processes are gone ends the program while the
/// folders are still being removed, and the end must not overtake that.
pub fn clean_up() {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (groups, control_groups, folders) = {
        let mut state = state();
        state.has_ended = true;
        (
            std::mem::take(&mut state.groups),
            std::mem::take(&mut state.control_groups),
            std::mem::take(&mut state.folders),
        )
    };
    groups.into_iter().for_each(kill_group);
    let started = Instant::now();
    // Again and again: what a killed process had started is ours from then on.
    while started.elapsed() < DEATHS_WITHIN {
        let children = children_of(std::process::id());
        if children.is_empty() {
            break;
        }
        for child in children.iter().filter_map(|id| Pid::from_raw(*id)) {
            let _ = rustix::process::kill_process(child, Signal::KILL);
            let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for name in control_groups {
        crate::node::cgroups::remove(&name);
    }
    for (path, is_kept) in folders {
        remove_or_name(&path, is_kept);
    }
}

fn remove_or_name(path: &Path, is_kept: bool) {
    if is_kept {
        eprintln!("kept: {}", path.display());
    } else if let Err(error) = std::fs::remove_dir_all(path) {
        eprintln!("cannot remove {}: {error}", path.display());
    }
}

/// Buries what this process adopted out of other process namespaces: whoever started it there was killed with it. Its
/// namespace would not end before. What this process starts itself is in its own namespace, and left alone.
pub(crate) fn bury_adopted() {
    let here = namespaces_of(std::process::id().cast_signed());
    for child in children_of(std::process::id()) {
        if namespaces_of(child) > here
            && let Some(child) = Pid::from_raw(child)
        {
            let _ = rustix::process::waitpid(Some(child), WaitOptions::NOHANG);
        }
    }
}

/// How many process namespaces deep a process is.
fn namespaces_of(id: i32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let mut lines = status.lines();
    let ids = lines.find_map(|line| line.strip_prefix("NSpid:"));
    ids.map_or(0, |ids| ids.split_whitespace().count())
}

/// Lists a process's direct children, by what /proc says their parent is.
pub(crate) fn children_of(parent: u32) -> Vec<i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|id| parent_of(*id) == Some(parent))
        .collect()
}

/// Reads the fourth field of /proc/ID/stat; the second is a name in parentheses that may hold anything.
fn parent_of(id: i32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    text.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(1)?
        .parse()
        .ok()
}
