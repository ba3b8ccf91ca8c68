//! Our binaries for one architecture, stripped, in a folder.
//!
//! Owns which compiler builds them: the rustup target where there is one, else Debian's compiler with the standard
//! library built from its source. Paths of the checkout stay out of what is released.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::{Arch, IMAGES};
use crate::step;
use crate::tools::packages::{self, Package};

/// Debian's cross toolchain for boards.
const CROSS: &[Package] = &[
    Package {
        name: "gcc-aarch64-linux-gnu",
        provides: "/usr/bin/aarch64-linux-gnu-gcc",
    },
    Package {
        name: "libc6-dev-arm64-cross",
        provides: "/usr/aarch64-linux-gnu/include/stdio.h",
    },
];

/// Debian's Rust, with the source of its standard library.
const DEBIAN_RUST: &[Package] = &[
    Package {
        name: "rustc-web",
        provides: "/usr/bin/rustc",
    },
    Package {
        name: "cargo-web",
        provides: "/usr/bin/cargo",
    },
    Package {
        name: "rust-web-src",
        provides: "/usr/src/rustc",
    },
];

/// Builds all of them, and gives the folder where they are, stripped.
///
/// # Errors
/// Where a toolchain is missing, or cargo fails; it has said why.
pub(super) fn build(arch: Arch, profile: &str) -> Result<PathBuf> {
    let of_here = arch == Arch::here()?;
    let built = if of_here && profile == "dev" {
        // Those of the tests and the demo, with the same flags: nothing is compiled twice.
        let mut cargo = step::cargo(&["build", "--locked", "--workspace", "--bins"]);
        step::run("binaries", &mut cargo)?;
        step::target_folder()?.join("debug")
    } else if of_here && profile == super::OF_BENCH {
        // As they are released but for the names of folders in them, which would be half an hour of its own.
        let mut cargo = step::cargo(&["build", "--locked", "--workspace", "--release"]);
        for image in IMAGES {
            cargo.args(["--bin", image.binary]);
        }
        step::run("binaries", &mut cargo)?;
        step::target_folder()?.join("release")
    } else {
        released(arch, profile)?
    };
    strip(arch, profile, &built)
}

/// Builds in a target folder of its own: the flags that hide paths would make cargo build everything anew each time.
fn released(arch: Arch, profile: &str) -> Result<PathBuf> {
    let target = step::target_folder()?.join("images-build");
    let toolchain = Toolchain::of(arch)?;
    let mut cargo = toolchain.cargo();
    cargo.args(["build", "--locked", "--bins", "--profile", profile]);
    for image in IMAGES {
        cargo.args(["--package", image.package]);
    }
    cargo
        .args(["--target", arch.target(), "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(&target)?);
    let name = format!(
        "binaries for {}, {profile}, some 10 to 20 min the first time",
        arch.name()
    );
    step::run(&name, &mut cargo)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let built = target.join(arch.target()).join(folder);
    for image in IMAGES {
        refuse_paths(&built.join(image.binary))?;
    }
    Ok(built)
}

/// A cargo, and whether it builds the standard library.
struct Toolchain {
    has_target: bool,
    arch: Arch,
}

impl Toolchain {
    fn of(arch: Arch) -> Result<Self> {
        if arch != Arch::here()? {
            ensure!(
                arch == Arch::Arm64,
                "{} images are built on a machine of that kind: there is no cross compiler for it here",
                arch.name()
            );
            packages::require("build for arm64", CROSS)?;
        }
        let libraries = Command::new("rustc")
            .args(["--print", "target-libdir", "--target", arch.target()])
            .current_dir(step::root())
            .output()
            .context("running rustc")?;
        let libraries = String::from_utf8_lossy(&libraries.stdout).trim().to_owned();
        let has_target = !libraries.is_empty() && Path::new(&libraries).is_dir();
        if !has_target {
            let target = arch.target();
            eprintln!(
                "the rustc here has no {target} (`rustup target add {target}` gives it one): taking Debian's, with its standard library from source"
            );
            packages::require("build the standard library", DEBIAN_RUST)?;
        }
        Ok(Self { has_target, arch })
    }

    fn cargo(&self) -> Command {
        let mut cargo = if self.has_target {
            step::cargo(&[])
        } else {
            let mut cargo = step::with_cargo("/usr/bin/cargo");
            cargo
                .arg("-Zbuild-std=std")
                .env("RUSTC", "/usr/bin/rustc")
                .env("RUSTC_BOOTSTRAP", "1");
            // Set by the cargo that runs this program, for its own toolchain.
            for variable in ["RUSTUP_TOOLCHAIN", "CARGO", "LD_LIBRARY_PATH"] {
                cargo.env_remove(variable);
            }
            cargo
        };
        if self.arch == Arch::Arm64 {
            cargo.env(
                "CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER",
                "aarch64-linux-gnu-gcc",
            );
        }
        cargo
    }
}

/// Flags that write `/rimward` and `/crates` where panics and logs would name folders of the builder.
fn flags(target: &Path) -> Result<OsString> {
    let mut flags = OsString::new();
    for (from, to) in hidden_paths(target)? {
        if !flags.is_empty() {
            flags.push("\x1f");
        }
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push("=");
        flags.push(to);
    }
    Ok(flags)
}

/// The folders of this machine that a compiler sees, and what stands for them. Later ones win.
fn hidden_paths(target: &Path) -> Result<Vec<(PathBuf, &'static str)>> {
    let root = std::fs::canonicalize(step::root()).context("the checkout's folder")?;
    let cargo_home = match std::env::var_os("CARGO_HOME").filter(|home| !home.is_empty()) {
        Some(home) => PathBuf::from(home),
        None => std::env::home_dir()
            .context("there is no home folder")?
            .join(".cargo"),
    };
    Ok(vec![
        (cargo_home, "/cargo"),
        (root, "/rimward"),
        (target.to_owned(), "/target"),
    ])
}

/// A binary that names the checkout would differ from one that was built in another.
fn refuse_paths(binary: &Path) -> Result<()> {
    let bytes = std::fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    let root = std::fs::canonicalize(step::root()).context("the checkout's folder")?;
    let root = root.display().to_string();
    let named = bytes
        .windows(root.len())
        .any(|window| window == root.as_bytes());
    ensure!(
        !named,
        "{} names the checkout's folder: its bytes depend on where it was built",
        binary.display()
    );
    Ok(())
}

/// Copies the binaries without what only a debugger reads.
fn strip(arch: Arch, profile: &str, built: &Path) -> Result<PathBuf> {
    let folder = step::target_folder()?
        .join("images-stripped")
        .join(format!("{}-{profile}", arch.name()));
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let program = if arch == Arch::here()? {
        "strip".to_owned()
    } else {
        format!("{}-strip", arch.triplet())
    };
    for image in IMAGES {
        strip_one(
            &program,
            &built.join(image.binary),
            &folder.join(image.binary),
        )?;
    }
    Ok(folder)
}

fn strip_one(program: &str, from: &Path, to: &Path) -> Result<()> {
    let output = Command::new(program)
        // The linker's build ID is a checksum of what it wrote, notes for debuggers with the builder's folders in them included:
        // all that two checkouts' programs differed in.
        .args(["--strip-debug", "--remove-section=.note.gnu.build-id", "-o"])
        .args([to, from])
        .output()
        .with_context(|| format!("running {program}, which comes with a C compiler"))?;
    if !output.status.success() {
        bail!(
            "{program} {}: {}",
            from.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(binary: &Path) -> String {
        let output = Command::new("readelf").arg("-n").arg(binary).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    }

    #[test]
    fn nothing_that_depends_on_the_builders_folders_is_left_and_the_program_runs() {
        let own = std::env::current_exe().unwrap();
        assert!(notes(&own).contains("Build ID"), "this shows nothing here");
        let stripped = std::env::temp_dir().join(format!("rimward-strip-{}", std::process::id()));
        strip_one("strip", &own, &stripped).unwrap();
        assert!(!notes(&stripped).contains("Build ID"));
        let listed = Command::new(&stripped).arg("--list").output().unwrap();
        assert!(listed.status.success());
        std::fs::remove_file(&stripped).unwrap();
    }
}
