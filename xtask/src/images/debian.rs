//! Debian packages, by name and architecture, unpacked into a folder.
//!
//! Owns a private apt state, so that the machine's own is neither changed nor asked for a foreign architecture. The
//! machine's sources and keyrings are used, so what is fetched is as trustworthy as what it installs itself.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::Arch;
use crate::tools::cache_root;

/// One package that was fetched and unpacked.
#[derive(Debug, Clone)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) version: String,
    /// Of the `.deb`, in hexadecimal digits.
    pub(super) sha256: String,
    /// The package's own description of itself, as dpkg keeps it.
    pub(super) control: String,
    /// Where its files were unpacked.
    pub(super) files: PathBuf,
}

/// Fetches packages, once; with `update` the newest that the machine's sources have.
///
/// # Errors
/// Where apt is missing, refuses or fails.
pub(super) fn fetch(arch: Arch, names: &[&str], update: bool) -> Result<Vec<Package>> {
    let folder = cache_root()?.join("images").join(arch.name());
    if update && folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let complete = folder.join("complete");
    let wanted = names.join(" ");
    if fs::read_to_string(&complete).unwrap_or_default() != wanted {
        download(arch, names, &folder)?;
        fs::write(&complete, &wanted).with_context(|| format!("writing {}", complete.display()))?;
    }
    names.iter().map(|name| unpack(name, &folder)).collect()
}

fn download(arch: Arch, names: &[&str], folder: &Path) -> Result<()> {
    eprintln!(
        "fetching {} for {} with apt-get",
        names.join(", "),
        arch.name()
    );
    // Of another list of packages, or of other versions: what is found by name must be what is fetched now.
    for stale in ["debs", "files"] {
        let path = folder.join(stale);
        if path.exists() {
            fs::remove_dir_all(&path).with_context(|| format!("removing {}", path.display()))?;
        }
    }
    for part in ["state/lists/partial", "cache/archives/partial", "debs"] {
        let path = folder.join(part);
        fs::create_dir_all(&path).with_context(|| format!("making {}", path.display()))?;
    }
    fs::write(folder.join("state/status"), "").context("writing an empty dpkg status")?;
    apt(arch, folder, &["update"])?;
    apt(arch, folder, &[&["download"], names].concat())
}

fn apt(arch: Arch, folder: &Path, arguments: &[&str]) -> Result<()> {
    let path = |name: &str| folder.join(name).display().to_string();
    let settings = [
        format!("Dir::State={}", path("state")),
        format!("Dir::State::status={}", path("state/status")),
        format!("Dir::Cache={}", path("cache")),
        format!("APT::Architecture={}", arch.name()),
        format!("APT::Architectures={}", arch.name()),
        // Its own user cannot write into a folder of ours.
        "APT::Sandbox::User=".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ];
    let mut command = Command::new("apt-get");
    command.arg("-q");
    for setting in settings {
        command.arg("-o").arg(setting);
    }
    let output = command
        .args(arguments)
        .current_dir(folder.join("debs"))
        .output()
        .context("apt-get, which fetches the base's packages, cannot be run: images are built on Debian and its kin")?;
    if !output.status.success() {
        bail!(
            "apt-get {} for {} failed: {}",
            arguments.join(" "),
            arch.name(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn unpack(name: &str, folder: &Path) -> Result<Package> {
    let prefix = format!("{name}_");
    let debs = folder.join("debs");
    let deb = fs::read_dir(&debs)
        .with_context(|| format!("reading {}", debs.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(&prefix) && file.ends_with(".deb")
        })
        .with_context(|| format!("apt-get downloaded no package {name}"))?;
    let files = folder.join("files").join(name);
    if !files.is_dir() {
        let partial = folder.join("files").join(format!(".{name}"));
        let _ = fs::remove_dir_all(&partial);
        fs::create_dir_all(&partial).with_context(|| format!("making {}", partial.display()))?;
        dpkg_deb(&["--extract"], &deb, Some(&partial))?;
        fs::rename(&partial, &files).with_context(|| format!("making {}", files.display()))?;
    }
    let control = dpkg_deb(&["--field"], &deb, None)?;
    let version = control
        .lines()
        .find_map(|line| line.strip_prefix("Version: "))
        .with_context(|| format!("{name} names no version"))?
        .to_owned();
    let bytes = fs::read(&deb).with_context(|| format!("reading {}", deb.display()))?;
    Ok(Package {
        name: name.to_owned(),
        version,
        sha256: super::layer::sha256_hex(&bytes),
        control,
        files,
    })
}

fn dpkg_deb(arguments: &[&str], deb: &Path, to: Option<&Path>) -> Result<String> {
    let mut command = Command::new("dpkg-deb");
    command.args(arguments).arg(deb).args(to);
    let output = command.output().context("running dpkg-deb")?;
    if !output.status.success() {
        bail!(
            "dpkg-deb {} {} failed: {}",
            arguments.join(" "),
            deb.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).context("what dpkg-deb printed is not UTF-8")
}
