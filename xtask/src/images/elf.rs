//! What a binary needs to start, as binutils read it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Sonames of the shared libraries that a binary names.
///
/// # Errors
/// Where readelf is missing, or the file is no ELF binary.
pub(super) fn needed_libraries(binary: &Path) -> Result<Vec<String>> {
    let output = Command::new("readelf")
        .args(["--dynamic", "--wide"])
        .arg(binary)
        .env("LC_ALL", "C")
        .output()
        .context("running readelf, which comes with a C compiler")?;
    ensure!(
        output.status.success(),
        "readelf {}: {}",
        binary.display(),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(names(&String::from_utf8_lossy(&output.stdout)))
}

fn names(listing: &str) -> Vec<String> {
    let needed = listing.lines().filter(|line| line.contains("(NEEDED)"));
    needed
        .filter_map(|line| {
            let (_, name) = line.split_once('[')?;
            Some(name.split_once(']')?.0.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_brackets() {
        let listing = " 0x0000000000000001 (NEEDED)  Shared library: [libc.so.6]\n \
                       0x000000000000000e (SONAME)  Library soname: [x.so]\n";
        assert_eq!(names(listing), ["libc.so.6"]);
    }
}
