//! The device's stories with the agent of another processor's image, in an emulator.
//!
//! Owns the emulator: qemu's user mode, told to the kernel inside a user namespace of the agent's own, so that the
//! machine's list of binary formats stays as it is. What runs is the image's binary on the image's libraries. It shows
//! that the program is right on that processor, never how fast it is.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use flate2::read::GzDecoder;
use serde_json::Value;

use crate::images::{self, Arch, Options};
use crate::step;
use crate::tools::packages::{self, Package};

const AGENT: &str = "rimward-node-agent";
const EMULATOR: &str = "/usr/bin/qemu-aarch64-static";
const PACKAGES: &[Package] = &[
    Package {
        name: "qemu-user-static",
        provides: EMULATOR,
    },
    Package {
        name: "util-linux",
        provides: "/usr/bin/unshare",
    },
];

/// Stories of a device by itself: it verifies, tries, predicts, goes back, starts without a network, is killed.
pub(crate) const STORIES: &str = "agent_alone::";

/// Marks of a 64-bit Arm program, and which of their bits count: the ELF header up to `e_machine`, as qemu registers it.
const MAGIC: &str = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
const MASK: &str =
    r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";

/// Builds the agent's image for `arch`, and gives a program that runs it here.
///
/// # Errors
/// Where the image cannot be built, or this kernel cannot be told of a binary format in a namespace.
pub(crate) fn agent(arch: Arch) -> Result<PathBuf> {
    ensure!(
        arch == Arch::Arm64,
        "there is no emulator for {} here: leave --arch out",
        arch.name()
    );
    packages::require("run programs for arm64", PACKAGES)?;
    let target = step::target_folder()?;
    let layouts = target.join("images-arm64");
    images::build(&Options::released(arch, &layouts))?;
    let folder = target.join("emulated-arm64");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let root = folder.join("root");
    fs::create_dir_all(&root).with_context(|| format!("making {}", root.display()))?;
    unpack(&layouts.join(AGENT), &root)?;
    let program = folder.join(AGENT);
    fs::write(&program, script(&root))
        .and_then(|()| fs::set_permissions(&program, fs::Permissions::from_mode(0o755)))
        .with_context(|| format!("writing {}", program.display()))?;
    check(&program)?;
    Ok(program)
}

/// A script keeps the process: what is signalled, killed and waited for is the emulated agent itself.
fn script(root: &Path) -> String {
    let root = root.display();
    let temporary = std::env::temp_dir();
    let temporary = temporary.display();
    // `F` opens the emulator now. The registered name is of this mount of binfmt_misc alone. The image is the root, as on a
    // node, so that children find its libraries too; folders of stories are below the one for temporary files.
    format!(
        r#"#!/bin/sh
# An agent for 64-bit Arm in an emulator, in user and mount namespaces of its own.
exec unshare --user --map-root-user --mount /bin/sh -c '
set -e
mount -t binfmt_misc none /proc/sys/fs/binfmt_misc
printf %s ":rimward-arm64:M::{MAGIC}:{MASK}:{EMULATOR}:F" > /proc/sys/fs/binfmt_misc/register
for folder in /proc /sys /dev "{temporary}"; do
  mkdir -p "{root}$folder"
  mount --rbind "$folder" "{root}$folder"
done
exec chroot "{root}" /usr/bin/{AGENT} "$@"
' sh "$@"
"#
    )
}

fn check(program: &Path) -> Result<()> {
    let output = Command::new(program)
        .arg("--version")
        .output()
        .with_context(|| format!("running {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the emulated agent does not start ({}): {}; a kernel from 6.7 on and user namespaces are needed",
        output.status,
        said.trim()
    );
    eprintln!(
        "    emulated: {}",
        String::from_utf8_lossy(&output.stdout).trim()
    );
    Ok(())
}

/// Unpacks a layout's one image.
fn unpack(layout: &Path, into: &Path) -> Result<()> {
    let top = document(&layout.join("index.json"))?;
    let index = blob(layout, &top["manifests"][0])?;
    let manifest = blob(layout, &document(&index)?["manifests"][0])?;
    let manifest = document(&manifest)?;
    let layers = manifest["layers"].as_array().cloned().unwrap_or_default();
    ensure!(!layers.is_empty(), "{} has no layers", layout.display());
    for layer in layers {
        let path = blob(layout, &layer)?;
        let file = File::open(&path).with_context(|| format!("opening {}", path.display()))?;
        tar::Archive::new(GzDecoder::new(file))
            .unpack(into)
            .with_context(|| format!("unpacking {}", path.display()))?;
    }
    Ok(())
}

fn document(path: &Path) -> Result<Value> {
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("reading {}", path.display()))
}

fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().unwrap_or_default();
    let hex = digest
        .strip_prefix("sha256:")
        .with_context(|| format!("{} names no blob: {descriptor}", layout.display()))?;
    Ok(layout.join("blobs/sha256").join(hex))
}
