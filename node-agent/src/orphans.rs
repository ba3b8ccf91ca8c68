//! The agent as the first process of a container: what others leave behind, it takes away.
//!
//! Owns reaping of processes that nobody else waits for. Must never take the end of a child of this agent from
//! whoever waits for it: such a child is reaped within moments, so only what stays dead for longer is an orphan.

use std::collections::BTreeSet;
use std::time::Duration;

use rustix::process::{Pid, WaitOptions, getpid, waitpid};
use tokio::signal::unix::{SignalKind, signal};

/// How long a dead child may wait for its own waiter.
const OWN_WAITER_WITHIN: Duration = Duration::from_secs(10);
/// A container of this agent has a handful of processes.
const PROCESSES_MAX: usize = 4096;

/// Reaps orphans for ever, where this is the first process of its namespace; else there are none to reap.
pub(crate) async fn reap() {
    if !getpid().is_init() {
        return;
    }
    let Ok(mut children) = signal(SignalKind::child()) else {
        tracing::warn!("orphans are not reaped: no signal tells of them");
        return;
    };
    while children.recv().await.is_some() {
        let before = dead_children();
        tokio::time::sleep(OWN_WAITER_WITHIN).await;
        for pid in before.intersection(&dead_children()) {
            if let Some(pid) = Pid::from_raw(*pid) {
                let _ = waitpid(Some(pid), WaitOptions::NOHANG);
                tracing::debug!(%pid, "an orphan is reaped");
            }
        }
    }
}

/// Children of this process that are dead and were not waited for.
fn dead_children() -> BTreeSet<i32> {
    let own = getpid().as_raw_nonzero().get();
    let entries = std::fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .take(PROCESSES_MAX);
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid: &i32| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| is_dead_child_of(&stat, own))
        })
        .collect()
}

/// The name stands in brackets and may hold anything, so what follows the last one is read.
fn is_dead_child_of(stat: &str, parent: i32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else {
        return false;
    };
    let mut fields = rest.split_whitespace();
    fields.next() == Some("Z") && fields.next().and_then(|it| it.parse().ok()) == Some(parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_dead_children_of_ones_own_are_orphans_whatever_their_name() {
        assert!(is_dead_child_of("7 (a) S 1 ) Z) Z 1 7 7 0", 1));
        assert!(!is_dead_child_of("7 (sh) S 1 7 7 0", 1), "alive");
        assert!(!is_dead_child_of("7 (sh) Z 3 7 7 0", 1), "another's");
        assert!(!is_dead_child_of("", 1));
    }

    #[test]
    fn a_child_that_nobody_waited_for_is_seen() {
        let mut child = std::process::Command::new("/proc/self/exe")
            .arg("--list")
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let started = std::time::Instant::now();
        while !dead_children().contains(&pid) {
            assert!(started.elapsed() < Duration::from_secs(20));
            std::thread::sleep(Duration::from_millis(10));
        }
        child.wait().unwrap();
        assert!(!dead_children().contains(&pid));
    }
}
