//! What the kernel says of processes: who started whom, memory, processor time.

use anyhow::{Context, Result, ensure};

/// Memory of one process, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Memory {
    /// Resident.
    pub(crate) resident: f64,
    /// Resident, shared pages divided by how many processes share them.
    pub(crate) proportional: f64,
    /// Resident and of no file: heap, stacks, what was written to.
    pub(crate) anonymous: f64,
}

impl std::ops::Add for Memory {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            resident: self.resident + other.resident,
            proportional: self.proportional + other.proportional,
            anonymous: self.anonymous + other.anonymous,
        }
    }
}

/// Memory of a process.
pub(crate) fn memory(id: u32) -> Result<Memory> {
    let path = format!("/proc/{id}/smaps_rollup");
    let text = std::fs::read_to_string(&path).with_context(|| {
        format!("reading {path} (the host's is its owner's secret: run as root)")
    })?;
    let bytes = |name: &str| -> Result<f64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        let kib = line
            .and_then(|line| line.trim().strip_suffix(" kB"))
            .with_context(|| format!("{path} has no {name}"))?;
        Ok(kib.trim().parse::<f64>()? * 1024.0)
    };
    Ok(Memory {
        resident: bytes("Rss:")?,
        proportional: bytes("Pss:")?,
        anonymous: bytes("Anonymous:")?,
    })
}

/// Processor time that a process has used, in microseconds, to a clock tick.
pub(crate) fn processor_microseconds(id: u32) -> Result<f64> {
    let path = format!("/proc/{id}/stat");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {path}"))?;
    // Fields 14 and 15; the second is a name in parentheses that may hold anything.
    let fields = text.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: Vec<f64> = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse().ok())
        .collect();
    ensure!(ticks.len() == 2, "{path} has no processor time");
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    Ok(ticks.iter().sum::<f64>() / per_second * 1e6)
}

/// The agent's host, as a child of its supervisor; none while it is not there.
pub(crate) fn host_of(supervisor: u32) -> Option<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{supervisor}/task")).ok()?;
    let children = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let ids: Vec<u32> = children
        .flat_map(|text| {
            let ids: Vec<u32> = text
                .split_whitespace()
                .filter_map(|id| id.parse().ok())
                .collect();
            ids
        })
        .collect();
    ids.into_iter().find(|id| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).nth(1) == Some(b"host")
    })
}
