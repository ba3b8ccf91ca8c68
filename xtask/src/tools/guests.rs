//! The toolchain for guest modules, wanted only where `wasm-models/` is built again.
//!
//! Owns the choice between an installed `wasm32-unknown-unknown` target and Debian's Rust, which brings
//! the standard library's source instead. Never adds a target to the user's toolchain.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::packages::{self, Package};

pub(crate) const NAME: &str = "guests";
pub(crate) const ABOUT: &str = "toolchain for wasm-models (asked for by name only)";

const TARGET: &str = "wasm32-unknown-unknown";

const DEBIAN: &[Package] = &[
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
        provides: "/usr/lib/rustlib/src/rust/library",
    },
    Package {
        name: "lld-19",
        provides: "/usr/bin/wasm-ld-19",
    },
];

/// How to build a guest: which cargo, with which variables and further arguments.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// `CARGO` and `CARGO_ARGUMENTS` among them: what to run, and what to add to `cargo build`.
    pub(crate) environment: Vec<(&'static str, String)>,
}

/// Finds the toolchain, or installs Debian's.
pub(crate) fn toolchain() -> Result<Toolchain> {
    if has_installed_target() {
        let environment = vec![
            ("CARGO", "cargo".to_owned()),
            ("CARGO_ARGUMENTS", format!("--target {TARGET}")),
        ];
        return Ok(Toolchain { environment });
    }
    packages::require(&format!("build for {TARGET}"), DEBIAN)?;
    Ok(Toolchain {
        environment: vec![
            ("CARGO", "/usr/bin/cargo".to_owned()),
            ("RUSTC", "/usr/bin/rustc".to_owned()),
            // Building the standard library is an unstable flag, and Debian's compiler a stable one.
            ("RUSTC_BOOTSTRAP", "1".to_owned()),
            (
                "CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER",
                "/usr/bin/wasm-ld-19".to_owned(),
            ),
            (
                "CARGO_ARGUMENTS",
                format!("-Zbuild-std=std,panic_abort --target {TARGET}"),
            ),
        ],
    })
}

fn has_installed_target() -> bool {
    let output = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", TARGET])
        .output();
    output.is_ok_and(|output| {
        output.status.success()
            && Path::new(String::from_utf8_lossy(&output.stdout).trim()).is_dir()
    })
}
