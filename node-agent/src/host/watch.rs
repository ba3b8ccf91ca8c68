//! Watches this process's own memory and stuck threads.
//!
//! Reports before the limit holds, so that the supervisor can replace the host in time; ends the
//! process where it is over for good, because a device that swaps is worse than a host that restarts.

use std::time::Duration;

use super::control::Host;
use crate::proto::FromHost;

/// The host held more than it may for good.
#[derive(Debug, thiserror::Error)]
#[error("{resident_bytes} bytes resident, {bytes_max} are allowed")]
pub(super) struct OverMemory {
    resident_bytes: u64,
    bytes_max: u64,
}

const PERIOD: Duration = Duration::from_millis(500);

/// Runs as long as the host; gives why the process must end.
pub(super) async fn watch(host: Host) -> anyhow::Error {
    let mut reported = false;
    loop {
        tokio::time::sleep(PERIOD).await;
        let resident = resident_bytes().unwrap_or(0);
        let memory_max = host.limits.memory_bytes_max;
        if resident > memory_max.saturating_add(memory_max / 4) {
            return anyhow::Error::new(OverMemory {
                resident_bytes: resident,
                bytes_max: memory_max,
            });
        }
        let stuck = host.workers.written_off();
        let reason = if resident > memory_max {
            Some(format!(
                "{resident} bytes resident, {memory_max} are allowed"
            ))
        } else if stuck >= host.limits.written_off_threads_max as usize {
            Some(format!("{stuck} inference threads do not end"))
        } else {
            None
        };
        match reason {
            Some(reason) if !reported => {
                reported = true;
                if let Err(error) = host.tell(FromHost::Unhealthy { reason }).await {
                    return error;
                }
            }
            Some(_) => {}
            None => reported = false,
        }
    }
}

/// Resident memory of this process.
pub(super) fn resident_bytes() -> Option<u64> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: u64 = statm.split_whitespace().nth(1)?.parse().ok()?;
    Some(pages * rustix::param::page_size() as u64)
}
