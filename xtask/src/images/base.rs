//! The base that all images share: the C library, certificate authorities, and the files that name a user.
//!
//! Owns the list of packages and of the files taken from them: a list of what is wanted, so that nothing comes along
//! by accident. What scanners look for (`os-release`, dpkg's `status.d`) is there.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::debian::{self, Package};
use super::layer::{self, Layer, USER};
use super::{Arch, elf};

/// Packages by name, and what of each is taken: sonames of libraries, below the architecture's library folder.
const LIBRARIES: &[(&str, &[&str])] = &[
    (
        "libc6",
        &[
            "libc.so.6",
            "libm.so.6",
            // Empty since glibc 2.34, and asked for by what was linked before.
            "libdl.so.2",
            "libpthread.so.0",
            "librt.so.1",
            "libresolv.so.2",
            "libnss_dns.so.2",
            "libnss_files.so.2",
        ],
    ),
    ("libgcc-s1", &["libgcc_s.so.1"]),
];

/// Every package.
const PACKAGES: &[&str] = &["base-files", "ca-certificates", "libc6", "libgcc-s1"];

/// A base for one architecture.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) layer: Layer,
    pub(super) packages: Vec<Package>,
    /// Whose packages they are, as its `os-release` says.
    pub(super) system: String,
    libraries: Vec<String>,
}

impl Base {
    /// Puts it together.
    ///
    /// # Errors
    /// Where a package cannot be had, or lacks a file that it must have.
    pub(super) fn of(arch: Arch, update: bool) -> Result<Self> {
        let packages = debian::fetch(arch, PACKAGES, update)?;
        let mut builder = layer::Builder::new();
        let libraries = add_libraries(&mut builder, arch, &packages)?;
        add_authorities(&mut builder, package(&packages, "ca-certificates")?)?;
        let system = add_names(&mut builder, package(&packages, "base-files")?)?;
        for package in &packages {
            describe(&mut builder, package)?;
        }
        Ok(Self {
            layer: builder.finish()?,
            packages,
            system,
            libraries,
        })
    }

    /// Refuses a binary that would not start on this base.
    pub(super) fn check_has_libraries_of(&self, binary: &Path) -> Result<()> {
        for needed in elf::needed_libraries(binary)? {
            if !self.libraries.contains(&needed) {
                bail!(
                    "{} needs {needed}, which the base does not have (xtask/src/images/base.rs)",
                    binary.display()
                );
            }
        }
        Ok(())
    }
}

fn package<'packages>(packages: &'packages [Package], name: &str) -> Result<&'packages Package> {
    let found = packages.iter().find(|package| package.name == name);
    found.with_context(|| format!("package {name} was not fetched"))
}

fn add_libraries(
    builder: &mut layer::Builder,
    arch: Arch,
    packages: &[Package],
) -> Result<Vec<String>> {
    let folder = format!("usr/lib/{}", arch.triplet());
    builder.folders_to(&folder)?;
    builder.link("lib", "usr/lib")?;
    let mut names = Vec::new();
    for (name, sonames) in LIBRARIES {
        let package = package(packages, name)?;
        for soname in *sonames {
            let bytes = library(package, arch, soname)?;
            builder.file(&format!("{folder}/{soname}"), 0o755, &bytes)?;
            names.push((*soname).to_owned());
        }
    }
    // The loader, under the path that every binary names.
    let loader = match arch {
        Arch::Amd64 => "ld-linux-x86-64.so.2",
        Arch::Arm64 => "ld-linux-aarch64.so.1",
    };
    let bytes = library(package(packages, "libc6")?, arch, loader)?;
    builder.file(&format!("{folder}/{loader}"), 0o755, &bytes)?;
    names.push(loader.to_owned());
    match arch {
        Arch::Amd64 => {
            builder.folders_to("usr/lib64")?;
            builder.link("lib64", "usr/lib64")?;
            builder.link(
                "usr/lib64/ld-linux-x86-64.so.2",
                "../lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
            )?;
        }
        Arch::Arm64 => builder.link(
            "usr/lib/ld-linux-aarch64.so.1",
            "aarch64-linux-gnu/ld-linux-aarch64.so.1",
        )?,
    }
    Ok(names)
}

/// A library's bytes, from below `/lib` or, where the distribution has merged them, `/usr/lib`.
fn library(package: &Package, arch: Arch, soname: &str) -> Result<Vec<u8>> {
    let below = |root: &str| {
        let folder = package.files.join(root).join(arch.triplet());
        fs::read(folder.join(soname))
    };
    below("lib")
        .or_else(|_| below("usr/lib"))
        .with_context(|| format!("package {} has no {soname}", package.name))
}

/// The bundle that TLS libraries look for, as the package's own script would make it: every authority, by name.
fn add_authorities(builder: &mut layer::Builder, package: &Package) -> Result<()> {
    let folder = package.files.join("usr/share/ca-certificates/mozilla");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<Result<_, _>>()
        })
        .with_context(|| format!("reading {}", folder.display()))?;
    files.sort();
    ensure!(!files.is_empty(), "ca-certificates has no authority in it");
    let mut bundle = String::new();
    for file in files {
        let text =
            fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        bundle += text.trim_end();
        bundle.push('\n');
    }
    builder.folders_to("etc/ssl/certs")?;
    builder.file(
        "etc/ssl/certs/ca-certificates.crt",
        0o644,
        bundle.as_bytes(),
    )
}

/// Gives the system's own name.
fn add_names(builder: &mut layer::Builder, package: &Package) -> Result<String> {
    let release = package.files.join("usr/lib/os-release");
    let release =
        fs::read_to_string(&release).with_context(|| format!("reading {}", release.display()))?;
    builder.file("usr/lib/os-release", 0o644, release.as_bytes())?;
    let system = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))
        .context("os-release has no PRETTY_NAME")?;
    builder.link("etc/os-release", "../usr/lib/os-release")?;
    let passwd = format!(
        "root:x:0:0:root:/:/none\nnonroot:x:{USER}:{USER}:nonroot:/:/none\nnobody:x:65534:65534:nobody:/:/none\n"
    );
    builder.file("etc/passwd", 0o644, passwd.as_bytes())?;
    let group = format!("root:x:0:\nnonroot:x:{USER}:\nnogroup:x:65534:\n");
    builder.file("etc/group", 0o644, group.as_bytes())?;
    builder.file("etc/nsswitch.conf", 0o644, b"hosts: files dns\n")?;
    builder.folder("tmp", 0o1777, 0)?;
    Ok(system.trim_matches('"').to_owned())
}

/// What a scanner reads to know the package, and its licence.
fn describe(builder: &mut layer::Builder, package: &Package) -> Result<()> {
    builder.folders_to("var/lib/dpkg/status.d")?;
    let status = format!("var/lib/dpkg/status.d/{}", package.name);
    builder.file(&status, 0o644, package.control.as_bytes())?;
    // A link to another package's folder where they share one source.
    let folder = package.files.join("usr/share/doc").join(&package.name);
    if let Ok(copyright) = fs::read(folder.join("copyright")) {
        let folder = format!("usr/share/doc/{}", package.name);
        builder.folders_to(&folder)?;
        builder.file(&format!("{folder}/copyright"), 0o644, &copyright)?;
    }
    Ok(())
}
