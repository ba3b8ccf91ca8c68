//! The pinned parts: what each is, and how it is built.
//!
//! Owns every name, module path and build flag. The versions stand in `e2e/tools/versions.txt`, which
//! the harness reads too. Never runs anything.

use anyhow::{Context, Result};

/// `NAME VERSION` lines and `#` comments.
const VERSIONS: &str = include_str!("../../../e2e/tools/versions.txt");

/// One part: a Go program, or several in one binary.
#[derive(Debug)]
pub(crate) struct Tool {
    /// Name in `versions.txt`, in the cache and for `--only`.
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) source: Source,
    /// Whether it needs a C compiler (cgo).
    pub(crate) is_cgo: bool,
    /// The oldest Go that builds it, as (major, minor).
    pub(crate) go_min: (u32, u32),
    /// Build tags: they choose among the files of a folder of ours.
    pub(crate) tags: &'static [&'static str],
    /// Flags for the linker beside `-s -w`; `{version}` stands for the version without a `v`.
    pub(crate) link_flags: &'static str,
    /// What the Go tool calls the binary that it makes.
    pub(crate) built_name: &'static str,
    /// The names by which the parts inside are run: links to the binary, or its new name.
    pub(crate) binaries: &'static [&'static str],
    /// How long a build takes with nothing in Go's caches on two cores, in minutes: said to the user.
    pub(crate) cold_minutes: u32,
}

/// Where a part's main package comes from.
#[derive(Debug)]
pub(crate) enum Source {
    /// A package of a published module, built at the pinned version with its own go.sum.
    Module {
        /// Path of the main package.
        package: &'static str,
    },
    /// A main of ours that puts published modules together, with its own committed go.sum.
    Folder {
        /// Path below the repository's root.
        path: &'static str,
    },
    /// A main package of others, and definitions of its kinds, by a committed go.mod and go.sum of ours without any code.
    Pinned {
        /// Path of that folder, below the repository's root.
        path: &'static str,
        /// Path of the main package.
        package: &'static str,
        /// The module that it is of.
        module: &'static str,
        /// The folder of that module with the definitions of its kinds, which go beside the binary.
        kinds: &'static str,
    },
}

impl Tool {
    /// The pinned version, without a `v`.
    pub(crate) fn version(&self) -> Result<&'static str> {
        VERSIONS
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(' '))
            .find_map(|(name, version)| (name == self.name).then_some(version.trim()))
            .with_context(|| format!("e2e/tools/versions.txt names no version of {}", self.name))
    }
}

/// Without its version a server calls itself v0.0.0-master, and clients refuse that.
const KUBERNETES_VERSION: &str = "-X k8s.io/component-base/version.gitVersion=v{version} \
    -X k8s.io/component-base/version.gitMajor=1 \
    -X k8s.io/component-base/version.gitMinor=36";

/// Every part, those that build in seconds first.
pub(crate) const TABLE: &[Tool] = &[
    Tool {
        name: "registry",
        about: "OCI registry with the referrers API (go-containerregistry), on disk",
        source: Source::Folder {
            path: "e2e/tools/registry",
        },
        is_cgo: false,
        go_min: (1, 25),
        tags: &[],
        link_flags: "",
        built_name: "registry",
        binaries: &["registry"],
        cold_minutes: 1,
    },
    Tool {
        name: "pause",
        about: "what holds a pod's namespaces, for stories with real pods",
        source: Source::Folder {
            path: "e2e/tools/pause",
        },
        is_cgo: false,
        go_min: (1, 25),
        tags: &[],
        link_flags: "",
        built_name: "pause",
        binaries: &["pause"],
        cold_minutes: 1,
    },
    Tool {
        name: "kine",
        about: "SQLite behind the API server, as K3s has it",
        source: Source::Module {
            package: "github.com/k3s-io/kine",
        },
        is_cgo: true,
        go_min: (1, 26),
        tags: &[],
        link_flags: "",
        built_name: "kine",
        binaries: &["kine"],
        cold_minutes: 5,
    },
    Tool {
        name: "kubernetes",
        about: "kube-apiserver, kube-controller-manager and kubectl in one binary",
        source: Source::Folder {
            path: "e2e/tools/kubernetes",
        },
        is_cgo: false,
        go_min: (1, 26),
        tags: &[],
        link_flags: KUBERNETES_VERSION,
        built_name: "kubernetes",
        binaries: &["kube-apiserver", "kube-controller-manager", "kubectl"],
        cold_minutes: 9,
    },
    Tool {
        name: "kubernetes-node",
        about: "kubelet, kube-proxy and kube-scheduler in one binary, for stories with real pods",
        source: Source::Folder {
            path: "e2e/tools/kubernetes",
        },
        is_cgo: false,
        go_min: (1, 26),
        tags: &["node"],
        link_flags: KUBERNETES_VERSION,
        built_name: "kubernetes",
        binaries: &["kubelet", "kube-proxy", "kube-scheduler"],
        cold_minutes: 9,
    },
    Tool {
        name: "coredns",
        about: "names of Services, for stories with real pods",
        source: Source::Module {
            package: "github.com/coredns/coredns",
        },
        is_cgo: false,
        go_min: (1, 26),
        tags: &[],
        link_flags: "",
        built_name: "coredns",
        binaries: &["coredns"],
        cold_minutes: 4,
    },
    Tool {
        name: "oras",
        about: "copies images and what refers to them into a registry, for releases",
        source: Source::Module {
            package: "oras.land/oras/cmd/oras",
        },
        is_cgo: false,
        go_min: (1, 26),
        tags: &[],
        link_flags: "",
        built_name: "oras",
        binaries: &["oras"],
        cold_minutes: 2,
    },
    Tool {
        name: "cosign",
        about: "signs packages and checks their signatures",
        source: Source::Module {
            package: "github.com/sigstore/cosign/v3/cmd/cosign",
        },
        is_cgo: false,
        go_min: (1, 26),
        tags: &[],
        link_flags: "",
        built_name: "cosign",
        binaries: &["cosign"],
        cold_minutes: 5,
    },
    Tool {
        name: "docker-registry",
        about: "OCI registry without the referrers API (distribution), for tests of the tag scheme",
        source: Source::Module {
            package: "github.com/distribution/distribution/v3/cmd/registry",
        },
        is_cgo: false,
        go_min: (1, 25),
        tags: &[],
        link_flags: "",
        built_name: "registry",
        binaries: &["docker-registry"],
        cold_minutes: 3,
    },
    Tool {
        name: "helm",
        about: "installs the charts, as users do",
        source: Source::Module {
            package: "helm.sh/helm/v4/cmd/helm",
        },
        is_cgo: false,
        go_min: (1, 26),
        tags: &[],
        // Without its version a chart's `kubeVersion` and `helm version` see a development build.
        link_flags: "-X helm.sh/helm/v4/internal/version.version=v{version}",
        built_name: "helm",
        binaries: &["helm"],
        cold_minutes: 4,
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_a_pinned_version() {
        for tool in TABLE {
            let version = tool.version().unwrap();
            assert!(
                version.starts_with(|first: char| first.is_ascii_digit()),
                "{version}"
            );
        }
    }

    #[test]
    fn a_folder_of_ours_requires_the_version_that_is_pinned() {
        for (name, module) in [
            ("kubernetes", "k8s.io/kubernetes"),
            ("kubernetes-node", "k8s.io/kubernetes"),
            ("registry", "go-containerregistry"),
        ] {
            let tool = TABLE.iter().find(|tool| tool.name == name).unwrap();
            let Source::Folder { path } = tool.source else {
                panic!("{name} is no folder")
            };
            let file = crate::tools::cache::repository_root()
                .join(path)
                .join("go.mod");
            let text = std::fs::read_to_string(file).unwrap();
            let wanted = format!("{module} v{}", tool.version().unwrap());
            assert!(
                text.contains(&wanted),
                "{name}: go.mod does not say {wanted}"
            );
        }
        for tool in crate::tools::peers::TABLE {
            let Source::Pinned { path, module, .. } = tool.source else {
                panic!("{} is no folder", tool.name)
            };
            let file = crate::tools::cache::repository_root()
                .join(path)
                .join("go.mod");
            let text = std::fs::read_to_string(file).unwrap();
            let wanted = format!("{module} v{}", tool.version().unwrap());
            let mut words = text
                .lines()
                .map(|line| line.trim().trim_start_matches("require "));
            assert!(
                words.any(|it| it.trim_end_matches(" // indirect") == wanted),
                "{path}/go.mod: no {wanted}"
            );
        }
    }
}
