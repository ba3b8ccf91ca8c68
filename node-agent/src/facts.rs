//! Facts about this device, read once at start.
//!
//! Owns reading them. Must never guess: what cannot be read is absent.

use std::path::Path;

use rimward_core::variant::{Backend, Device};
use rimward_crds::BackendStatus;

/// Release of the built-in engine; the crate does not tell it.
const RTEN_VERSION: &str = "0.27";

/// What this device is.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Processor, engines, accelerators: what variants are chosen by.
    pub device: Device,
    /// The same engines as status shows them.
    pub backends: Vec<BackendStatus>,
    /// All memory.
    pub memory_bytes: Option<u64>,
    /// Size of the file system that holds the store.
    pub disk_bytes: Option<u64>,
    /// Identity of this boot.
    pub boot_id: String,
}

impl Facts {
    /// Reads the facts.
    #[must_use]
    pub fn read(data_folder: &Path) -> Self {
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
        let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let disk = rustix::fs::statvfs(data_folder).ok();
        Self {
            device: Device {
                architecture: architecture().to_owned(),
                backends: vec![Backend {
                    name: "rten".to_owned(),
                    formats: vec!["onnx".to_owned()],
                }],
                accelerators: Vec::new(),
            },
            backends: vec![BackendStatus {
                name: "rten".to_owned(),
                version: RTEN_VERSION.to_owned(),
                devices: vec!["cpu".to_owned()],
            }],
            memory_bytes: memory_total(&memory),
            disk_bytes: disk.map(|it| it.f_blocks.saturating_mul(it.f_frsize)),
            boot_id: boot_id.map_or_else(|_| "unknown".to_owned(), |it| it.trim().to_owned()),
        }
    }
}

/// The architecture in Kubernetes' spelling.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes_and_absent_when_it_is_not_there() {
        let text = "MemTotal:       24567890 kB\nMemFree: 1 kB\n";
        assert_eq!(memory_total(text), Some(24_567_890 * 1024));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
        assert_eq!(memory_total("MemTotal: many kB\n"), None);
    }
}
