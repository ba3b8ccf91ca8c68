//! The Go toolchain: is there one, is it new enough, and what do its errors mean.
//!
//! Owns the command lines given to `go`. Never changes Go's own settings (proxy, checksum database,
//! caches): those are the user's.

use std::process::Command;

use anyhow::{Context, Result, bail};

use super::found::which;
use super::packages::{self, Package};
use super::table::{Source, Tool};

const C_COMPILER: &[Package] = &[
    Package {
        name: "gcc",
        provides: "/usr/bin/gcc",
    },
    Package {
        name: "libc6-dev",
        provides: "/usr/include/stdlib.h",
    },
];

/// Makes sure that Go, and a C compiler where one is needed, can build all of these.
pub(crate) fn require<'a>(tools: impl Iterator<Item = &'a Tool> + Clone) -> Result<()> {
    let needed = tools
        .clone()
        .map(|tool| tool.go_min)
        .max()
        .unwrap_or((1, 0));
    let names: Vec<&str> = tools.clone().map(|tool| tool.name).collect();
    let what = names.join(", ");
    let Some(go) = which("go") else {
        bail!(
            "Go {}.{} or newer is needed to build {what}, and there is no `go` on the PATH. \
             Debian's `golang` is too old: install one from https://go.dev/dl/",
            needed.0,
            needed.1
        );
    };
    let [version, toolchain] = settings()?;
    let have = parse_go_version(&version)
        .with_context(|| format!("{} says its version is {version:?}", go.display()))?;
    // A Go since 1.21 fetches a newer one by itself, unless it is told not to.
    let fetches = have >= (1, 21) && !toolchain.starts_with("local") && toolchain != "path";
    if have < needed && !fetches {
        bail!(
            "Go {}.{} or newer is needed to build {what}, and {} is {version} (GOTOOLCHAIN={toolchain}). \
             Install a newer one from https://go.dev/dl/, or set GOTOOLCHAIN=auto for a Go since 1.21",
            needed.0,
            needed.1,
            go.display()
        );
    }
    let mut cgo = tools.filter(|tool| tool.is_cgo).peekable();
    let compiler = std::env::var_os("CC").is_some() || which("clang").is_some();
    if cgo.peek().is_some() && !compiler {
        let names: Vec<&str> = cgo.map(|tool| tool.name).collect();
        packages::require(&format!("build {} (cgo)", names.join(", ")), C_COMPILER)?;
    }
    Ok(())
}

fn settings() -> Result<[String; 2]> {
    let output = Command::new("go")
        .args(["env", "GOVERSION", "GOTOOLCHAIN"])
        .current_dir(std::env::temp_dir()) // a go.mod here must not choose the toolchain
        .output()
        .context("cannot run go")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut lines = text.lines().map(str::to_owned);
    Ok([
        lines.next().unwrap_or_default(),
        lines.next().unwrap_or_default(),
    ])
}

fn parse_go_version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.strip_prefix("go")?.split(['.', ' ', 'r', 'b', '-']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Puts together what builds a part into `folder`: the program's arguments, then its environment.
pub(crate) fn build_command(
    tool: &Tool,
    tags: &[String],
    folder: &std::path::Path,
) -> Result<Command> {
    let version = tool.version()?;
    let link_flags = format!("-s -w {}", tool.link_flags.replace("{version}", version));
    let tags: Vec<&str> = tool
        .tags
        .iter()
        .copied()
        .chain(tags.iter().map(String::as_str))
        .collect();
    let mut command = Command::new("go");
    match tool.source {
        Source::Module { package } => {
            command.arg("install");
            common(&mut command, link_flags.trim(), &tags);
            command.arg(format!("{package}@v{version}"));
            command.env("GOBIN", folder).current_dir(folder);
        }
        Source::Folder { path } => {
            command.arg("build");
            common(&mut command, link_flags.trim(), &tags);
            command.arg("-o").arg(folder.join(tool.built_name)).arg(".");
            command.current_dir(super::cache::repository_root().join(path));
        }
        Source::Pinned { path, package, .. } => {
            command.arg("build");
            common(&mut command, link_flags.trim(), &tags);
            command.arg("-o").arg(folder.join(tool.built_name));
            command.arg(package);
            command.current_dir(super::cache::repository_root().join(path));
        }
    }
    command.env("CGO_ENABLED", if tool.is_cgo { "1" } else { "0" });
    // A go.work above the checkout, or flags for the user's own projects, must not change the build.
    command
        .env("GOWORK", "off")
        .env_remove("GOFLAGS")
        .env_remove("GOOS")
        .env_remove("GOARCH");
    Ok(command)
}

/// Where a module that a folder of ours requires lies on this machine, once it was built from.
pub(crate) fn module_folder(path: &str, module: &str) -> Result<std::path::PathBuf> {
    let output = Command::new("go")
        .args(["list", "-m", "-f", "{{.Dir}}", module])
        .current_dir(super::cache::repository_root().join(path))
        .env("GOWORK", "off")
        .output()
        .context("cannot run go")?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if folder.is_empty() {
        bail!(
            "go does not say where {module} lies: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(folder.into())
}

fn common(command: &mut Command, link_flags: &str, tags: &[&str]) {
    command.args(["-v", "-trimpath", "-buildvcs=false", "-ldflags", link_flags]);
    if !tags.is_empty() {
        command.arg("-tags").arg(tags.join(","));
    }
}

/// Finds the module that could not be downloaded in what `go` printed, as `(module, the line)`.
pub(crate) fn refused_download(log: &str) -> Option<(&str, &str)> {
    const SIGNS: &[&str] = &[
        "reading http",
        "Get \"http",
        "dial tcp",
        "404 Not Found",
        "403 Forbidden",
        "410 Gone",
        "verifying module",
        "unknown revision",
        "module lookup disabled",
        "i/o timeout",
    ];
    let line = log
        .lines()
        .find(|line| SIGNS.iter().any(|sign| line.contains(sign)))?;
    let module = line
        .split_whitespace()
        .map(|word| word.trim_end_matches([':', ',']))
        .find(|word| word.contains("@v") && !word.contains("://"))
        .unwrap_or("a module");
    Some((module, line.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_are_read() {
        assert_eq!(parse_go_version("go1.26.8"), Some((1, 26)));
        assert_eq!(parse_go_version("go1.27rc1"), Some((1, 27)));
        assert_eq!(parse_go_version("devel"), None);
    }

    #[test]
    fn a_refused_download_names_the_module() {
        let log = "go: downloading a.example/b v1.2.3\n\
            go: a.example/c@v1.0.0: reading https://proxy.example/c/@v/v1.0.0.mod: 404 Not Found\n";
        let (module, line) = refused_download(log).unwrap();
        assert_eq!(module, "a.example/c@v1.0.0");
        assert!(line.ends_with("404 Not Found"));
        let log = "../x/main.go:7:2: k8s.io/api@v0.36.3: Get \"https://proxy.example/\": dial tcp: refused\n";
        assert_eq!(refused_download(log).unwrap().0, "k8s.io/api@v0.36.3");
        assert!(refused_download("main.go:3:1: syntax error\n").is_none());
    }
}
