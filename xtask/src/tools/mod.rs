//! `cargo xtask tools`: the real parts that the demo and the tests run.
//!
//! Owns the choice of what to install and what to take from the machine. Every part is the real program
//! at a pinned version, built from source by the Go module proxy into a cache outside the checkout;
//! nothing ever falls back to a stand-in. The harness in `e2e` finds each binary by the environment
//! variable that [`Installed::environment`] names, else in that cache.

mod cache;
mod found;
mod go;
mod install;
pub(crate) mod packages;
mod peers;
pub(crate) mod progress;
mod table;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use self::cache::Cache;
use self::table::{TABLE, Tool};
use crate::side_by_side::Stop;

/// The parts that `cargo xtask demo` starts: a control plane, a registry, and cosign.
pub(crate) const FOR_DEMO: &[&str] = &["registry", "kine", "kubernetes", "cosign"];

/// The parts of a hub without devices: nothing is signed there.
pub(crate) const FOR_HUB: &[&str] = &["registry", "kine", "kubernetes"];

/// The parts that the end-to-end tests start: the demo's, a registry without the referrers API, helm, and what a release is made with.
pub(crate) const FOR_TESTS: &[&str] = &[
    "registry",
    "kine",
    "kubernetes",
    "cosign",
    "docker-registry",
    "helm",
    "oras",
];

/// The parts that a release is made with.
pub(crate) const FOR_RELEASE: &[&str] = &["oras", "cosign", "helm"];

/// The parts that put released charts on a cluster.
pub(crate) const FOR_CHARTS: &[&str] = &["helm", "oras"];

/// The parts of nodes that run pods, for the stories that need them.
pub(crate) const FOR_PODS: &[&str] = &["kubernetes-node", "coredns", "pause"];

/// Programs of others that `cargo xtask bench` measures beside.
pub(crate) const PEERS: &[&str] = &["cert-manager"];

/// Binaries that are ready to run.
#[derive(Debug, Default)]
pub(crate) struct Installed {
    binaries: Vec<(&'static str, PathBuf)>,
}

impl Installed {
    /// Where one of its binaries lies.
    pub(crate) fn path(&self, name: &str) -> Result<&Path> {
        let found = self.binaries.iter().find(|(binary, _)| *binary == name);
        let (_, path) = found.with_context(|| format!("{name} is not among what was installed"))?;
        Ok(path)
    }

    /// Says where each binary lies, as the harness reads it: `kube-apiserver` becomes
    /// `RIMWARD_TOOLS_KUBE_APISERVER=/…/kube-apiserver`.
    pub(crate) fn environment(&self) -> impl Iterator<Item = (String, OsString)> {
        self.binaries.iter().map(|(name, path)| {
            let variable = format!("RIMWARD_TOOLS_{}", name.to_uppercase().replace('-', "_"));
            (variable, path.clone().into_os_string())
        })
    }
}

/// What is there of some parts, and what has to be built.
#[derive(Debug)]
pub(crate) struct Plan {
    cache: Cache,
    installed: Installed,
    missing: Vec<install::Job>,
}

impl Plan {
    /// Looks, and builds nothing. A part of a fitting version that the machine has (`KUBEBUILDER_ASSETS`, the
    /// PATH) is used as it is.
    ///
    /// # Errors
    /// Names what is missing to build the rest: a system package, a newer Go.
    pub(crate) fn new(names: &[&str]) -> Result<Self> {
        let cache = Cache::open()?;
        let mut installed = Installed::default();
        let mut missing = Vec::new();
        for name in names {
            let job = install::Job::choose(lookup(name)?, &cache)?;
            if job.is_done(&cache)? {
                installed.binaries.extend(job.binaries(&cache));
            } else {
                missing.push(job);
            }
        }
        if !missing.is_empty() {
            go::require(missing.iter().map(|job| job.tool))?;
        }
        Ok(Self {
            cache,
            installed,
            missing,
        })
    }

    /// What will be built, a line each: what it is, what for, and how long that takes with nothing in Go's caches.
    pub(crate) fn to_build(&self) -> impl Iterator<Item = String> {
        self.missing.iter().map(|job| {
            let tool = job.tool;
            let minutes = tool.cold_minutes;
            format!("{} ({}), up to {minutes} min", tool.name, tool.about)
        })
    }

    /// Builds what is missing, and says where each binary is. A second run at the same time waits for the first.
    ///
    /// # Errors
    /// Names the part and what to do: a module that the proxy refuses, or the end of the build's log; or it was stopped.
    pub(crate) fn install(mut self, stop: &Stop) -> Result<Installed> {
        let total = self.missing.len();
        for (index, job) in self.missing.iter().enumerate() {
            job.install(&self.cache, (index + 1, total), stop)?;
            self.installed.binaries.extend(job.binaries(&self.cache));
        }
        Ok(self.installed)
    }
}

/// Runs `cargo xtask tools [--for demo|tests|pods|bench] [--only NAME]... [--list]`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    const USAGE: &str =
        "usage: cargo xtask tools [--for demo|tests|pods|bench] [--only NAME]... [--list]";
    let mut only = Vec::new();
    let mut names = FOR_TESTS;
    let mut list = false;
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--list" => list = true,
            "--only" => match arguments.next() {
                Some(name) => only.push(name.as_str()),
                None => bail!("--only needs a name; {USAGE}"),
            },
            "--for" => match arguments.next().map(String::as_str) {
                Some("demo") => names = FOR_DEMO,
                Some("tests") => names = FOR_TESTS,
                Some("pods") => names = FOR_PODS,
                Some("bench") => names = PEERS,
                _ => bail!("--for needs demo, tests, pods or bench; {USAGE}"),
            },
            "-h" | "--help" => {
                println!("{USAGE}");
                return Ok(());
            }
            other => bail!("unknown argument {other:?}; {USAGE}"),
        }
    }
    if list {
        return print_list();
    }
    if !only.is_empty() {
        names = &only;
    }
    for (variable, path) in Plan::new(names)?.install(&Stop::default())?.environment() {
        println!("{variable}={}", path.display());
    }
    Ok(())
}

/// The folder outside of the checkout that every clone on this machine shares.
pub(crate) fn cache_root() -> Result<PathBuf> {
    Ok(Cache::open()?.root().to_owned())
}

fn print_list() -> Result<()> {
    let cache = Cache::open()?;
    println!("cache: {}", cache.root().display());
    for tool in TABLE.iter().chain(peers::TABLE) {
        let job = install::Job::choose(tool, &cache)?;
        let state = if job.is_done(&cache)? {
            "installed"
        } else {
            "missing"
        };
        println!(
            "{:<16} {:<8} {state:<10} {}",
            tool.name,
            tool.version()?,
            tool.about
        );
        for (name, path) in &job.found {
            println!(
                "{:<16} {:<8} {:<10} {name} at {}",
                "",
                "",
                "found",
                path.display()
            );
        }
    }
    Ok(())
}

fn lookup(name: &str) -> Result<&'static Tool> {
    let all = || TABLE.iter().chain(peers::TABLE);
    all().find(|tool| tool.name == name).ok_or_else(|| {
        let names: Vec<&str> = all().map(|tool| tool.name).collect();
        anyhow::anyhow!("there is no tool {name:?}; there are {}", names.join(", "))
    })
}
