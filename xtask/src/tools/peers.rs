//! Programs of others that Rimward is measured beside: built for `cargo xtask bench` alone.
//!
//! Owns which they are. Each has a folder with a go.mod and a go.sum and no code: `go install` refuses a module whose
//! own go.mod replaces others, and such replacements count only in the module that is built.

use super::table::{Source, Tool};

/// Every peer.
pub(crate) const TABLE: &[Tool] = &[Tool {
    name: "cert-manager",
    about: "cert-manager's controller, to measure beside",
    source: Source::Pinned {
        path: "e2e/tools/peers/cert-manager",
        package: "github.com/cert-manager/cert-manager/cmd/controller",
        module: "github.com/cert-manager/cert-manager",
        kinds: "deploy/crds",
    },
    is_cgo: false,
    go_min: (1, 26),
    tags: &[],
    link_flags: "",
    built_name: "controller",
    binaries: &["cert-manager-controller"],
    cold_minutes: 6,
}];
