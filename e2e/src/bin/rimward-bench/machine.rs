//! On what was measured.

use anyhow::{Context, Result};
use rimward_e2e::command::Line;
use std::path::Path;

/// Facts as pairs of name and value.
pub(crate) async fn facts() -> Result<Vec<(&'static str, String)>> {
    let processor = line_of("/proc/cpuinfo", "model name")?;
    let memory_kib: f64 = line_of("/proc/meminfo", "MemTotal")?
        .trim_end_matches(" kB")
        .parse()
        .context("MemTotal of /proc/meminfo")?;
    let cores = std::thread::available_parallelism()?;
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let rustc = command("rustc", &["--version"]).await?;
    let date = command("date", &["-u", "+%Y-%m-%d %H:%M UTC"]).await?;
    Ok(vec![
        ("date", date),
        (
            "processor",
            format!("{processor}, {cores} cores for this machine"),
        ),
        (
            "memory",
            format!("{:.1} GiB", memory_kib / f64::from(1 << 20)),
        ),
        ("kernel", format!("Linux {}", kernel.trim())),
        ("compiler", format!("{rustc}, profile `release`")),
        (
            "parts",
            include_str!("../../../tools/versions.txt")
                .lines()
                .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(", "),
        ),
        (
            "load average at the start",
            load.split_whitespace()
                .take(3)
                .collect::<Vec<_>>()
                .join(" "),
        ),
    ])
}

fn line_of(file: &str, name: &str) -> Result<String> {
    let text = std::fs::read_to_string(file).with_context(|| format!("reading {file}"))?;
    let value = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name);
    let (_, value) = value.with_context(|| format!("{file} has no line {name:?}"))?;
    Ok(value.trim().to_owned())
}

async fn command(program: &str, arguments: &[&str]) -> Result<String> {
    let printed = Line::new(Path::new(program)).args(arguments).run().await?;
    Ok(printed.trim().to_owned())
}
