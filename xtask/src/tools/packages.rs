//! Debian packages that a step needs.
//!
//! Owns the one call of `apt-get`. As root it installs what is missing; without root it names the
//! packages and the command, and stops: it never asks for rights.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::found::which;

/// A package, and a file that is there once it is installed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Package {
    pub(crate) name: &'static str,
    pub(crate) provides: &'static str,
}

/// What a machine that runs pods has beside Kubernetes' own parts.
pub(crate) const FOR_PODS: &[Package] = &[
    Package {
        name: "containerd",
        provides: "/usr/bin/containerd",
    },
    Package {
        name: "runc",
        provides: "/usr/sbin/runc",
    },
    Package {
        name: "containernetworking-plugins",
        provides: "/usr/lib/cni/ptp",
    },
    Package {
        name: "iptables",
        provides: "/usr/sbin/iptables",
    },
    Package {
        name: "conntrack",
        provides: "/usr/sbin/conntrack",
    },
    Package {
        name: "iproute2",
        provides: "/sbin/ip",
    },
    Package {
        name: "procps",
        provides: "/usr/bin/ps",
    },
];

/// Makes sure that the packages are there; `to` says what for, as in "build kine".
pub(crate) fn require(to: &str, packages: &[Package]) -> Result<()> {
    let missing: Vec<&str> = packages
        .iter()
        .filter(|package| !Path::new(package.provides).exists())
        .map(|package| package.name)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if which("apt-get").is_none() {
        bail!(
            "to {to}, install what Debian calls {list}: this machine has no apt-get to do it with"
        );
    }
    if !is_root()? {
        bail!(
            "to {to}, packages are missing; as root run: apt-get update && apt-get install {list}"
        );
    }
    eprintln!("installing {list} with apt-get, to {to}");
    let install =
        || apt_get(&[&["install", "-y", "--no-install-recommends"], &missing[..]].concat());
    // Lists that are old or absent make the first try fail.
    if install().is_err() {
        apt_get(&["update"])?;
        install()?;
    }
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .output()
        .context("cannot run apt-get")?;
    if !output.status.success() {
        bail!(
            "apt-get {} failed: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

/// Whether this process is root.
pub(crate) fn is_root() -> Result<bool> {
    Ok(std::fs::metadata("/proc/self")
        .context("cannot read /proc/self")?
        .uid()
        == 0)
}
