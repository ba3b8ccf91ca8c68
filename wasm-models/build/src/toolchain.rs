//! Finds a toolchain for `wasm32-unknown-unknown` and compiles the guests with it.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

const TARGET: &str = "wasm32-unknown-unknown";

/// Stack of a guest. The default mebibyte would be most of its memory; the deepest call here, a
/// formatted error, takes a few hundred bytes.
const STACK_BYTES: u32 = 64 * 1024;

/// Debian's toolchain: its packages and where they put things.
const DEBIAN_PACKAGES: &str = "rustc-web cargo-web rust-web-src lld-19";
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CARGO: &str = "/usr/bin/cargo";
const DEBIAN_LINKER: &str = "/usr/bin/wasm-ld-19";

/// A compiler, and whether the standard library must be built with it.
#[derive(Debug)]
pub(crate) struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    sysroot: PathBuf,
    build_std: bool,
    name: String,
}

impl Toolchain {
    /// Takes the `rustc` on the PATH if it has the target installed, else Debian's.
    ///
    /// # Errors
    /// Where neither is there: says what to install.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let on_path = PathBuf::from("rustc");
        if let Ok(libraries) = output(&on_path, &["--print", "target-libdir", "--target", TARGET])
            && Path::new(&libraries).is_dir()
        {
            return Self::describe("cargo".into(), on_path, false);
        }
        let debian = PathBuf::from(DEBIAN_RUSTC);
        let has_source = |rustc: &Path| {
            output(rustc, &["--print", "sysroot"])
                .is_ok_and(|root| standard_library(Path::new(&root)).is_dir())
        };
        if Path::new(DEBIAN_CARGO).is_file()
            && Path::new(DEBIAN_LINKER).is_file()
            && has_source(&debian)
        {
            return Self::describe(DEBIAN_CARGO.into(), debian, true);
        }
        bail!(
            "no toolchain for {TARGET}: run `rustup target add {TARGET}`, \
             or on Debian `apt-get install {DEBIAN_PACKAGES}`"
        )
    }

    fn describe(cargo: PathBuf, rustc: PathBuf, build_std: bool) -> anyhow::Result<Self> {
        let version = output(&rustc, &["--version"])?;
        let sysroot = output(&rustc, &["--print", "sysroot"])?.into();
        let std = if build_std {
            "standard library built from source"
        } else {
            "installed target"
        };
        Ok(Self {
            cargo,
            rustc,
            sysroot,
            build_std,
            name: format!("{version}, {std}"),
        })
    }

    /// The version and the kind of standard library: what decides the bytes.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Compiles every guest and gives the folder with the core modules.
    ///
    /// # Errors
    /// Where cargo fails; it has said why.
    pub(crate) fn compile(&self, workspace: &Path) -> anyhow::Result<PathBuf> {
        let target = match std::env::var_os("CARGO_TARGET_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => workspace.join("target"),
        }
        .join("modules");
        let mut command = Command::new(&self.cargo);
        command
            .current_dir(workspace)
            .args([
                "build",
                "--release",
                "--locked",
                "--package",
                "rimward-guests",
                "--examples",
            ])
            .args(["--target", TARGET, "--target-dir"])
            .arg(&target)
            .env("RUSTC", &self.rustc)
            .env("CARGO_ENCODED_RUSTFLAGS", self.flags(workspace)?);
        if self.build_std {
            command
                .arg("-Zbuild-std=std,panic_abort")
                .env("RUSTC_BOOTSTRAP", "1")
                .env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER", DEBIAN_LINKER);
            // The cargo that runs this program sets these for its own toolchain.
            for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "LD_LIBRARY_PATH"] {
                command.env_remove(variable);
            }
        }
        let status = command
            .status()
            .with_context(|| format!("running {}", self.cargo.display()))?;
        if !status.success() {
            bail!("{} build failed: {status}", self.cargo.display());
        }
        Ok(target.join(TARGET).join("release/examples"))
    }

    /// Flags that keep this machine's paths out of the modules (panic messages name files).
    fn flags(&self, workspace: &Path) -> anyhow::Result<OsString> {
        let mut remaps = vec![
            (workspace.to_owned(), "/wasm-models".to_owned()),
            (standard_library(&self.sysroot), "/std".to_owned()),
        ];
        for registry in registries()? {
            remaps.push((registry, "/crates".to_owned()));
        }
        let mut flags = OsString::from(format!("-Clink-arg=-zstack-size={STACK_BYTES}"));
        for (from, to) in remaps {
            flags.push("\x1f--remap-path-prefix=");
            flags.push(from);
            flags.push("=");
            flags.push(to);
        }
        Ok(flags)
    }
}

/// Where a toolchain keeps the standard library's source.
fn standard_library(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

/// The folders into which cargo unpacks crates: one per registry or mirror, each its own name.
fn registries() -> anyhow::Result<Vec<PathBuf>> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir()
            .context("no home folder")?
            .join(".cargo"),
    };
    let sources = home.join("registry/src");
    let entries = match fs::read_dir(&sources) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(error).with_context(|| format!("reading {}", sources.display()));
        }
    };
    let mut folders = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()
        .with_context(|| format!("reading {}", sources.display()))?;
    folders.sort();
    Ok(folders)
}

/// Runs a compiler with arguments and gives its first line.
fn output(program: &Path, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} {}: {}",
            program.display(),
            arguments.join(" "),
            output.status
        );
    }
    let text = String::from_utf8(output.stdout).context("its output is not UTF-8")?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}
