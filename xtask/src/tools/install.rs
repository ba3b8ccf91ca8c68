//! Installing one part: build into a temporary folder, then one rename.
//!
//! Owns the layout of an installed part, `NAME-VERSION/`: its binaries, and `recipe`, the text of all that
//! decided what was built. A folder whose recipe differs from today's is stale and is replaced.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::cache::{Cache, repository_root};
use super::progress::Progress;
use super::table::{Source, Tool};
use super::{found, go};
use crate::side_by_side::Stop;

/// What names of unfinished folders begin with.
const BUILDING: &str = ".building-";

/// The folder with definitions of a peer's kinds, beside its binary.
const KINDS: &str = "kinds";

/// Lines of a failed build's log that are shown.
const LOG_LINES_SHOWN: usize = 25;

/// One part, and what of it the machine has already.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) tool: &'static Tool,
    pub(crate) found: Vec<(&'static str, PathBuf)>,
    recipe: String,
}

impl Job {
    /// Chooses what to take from the machine: what the user named, else a whole part that was built before, else
    /// what is on the PATH.
    pub(crate) fn choose(tool: &'static Tool, cache: &Cache) -> Result<Self> {
        let named = found::named_by_the_user(tool);
        if !named.is_empty() {
            return Self::new(tool, named);
        }
        let whole = Self::new(tool, Vec::new())?;
        if whole.is_done(cache)? {
            return Ok(whole);
        }
        Self::new(tool, found::on_the_path(tool))
    }

    /// Puts the recipe together.
    pub(crate) fn new(tool: &'static Tool, found: Vec<(&'static str, PathBuf)>) -> Result<Self> {
        let mut job = Self {
            tool,
            found,
            recipe: String::new(),
        };
        let command = go::build_command(tool, &job.tags(), Path::new("."))?;
        job.recipe = recipe(tool, &command)?;
        Ok(job)
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_done(&self, cache: &Cache) -> Result<bool> {
        if self.missing().next().is_none() {
            return Ok(true);
        }
        let folder = self.folder(cache)?;
        let recorded = fs::read_to_string(folder.join("recipe")).unwrap_or_default();
        Ok(recorded == self.recipe && self.missing().all(|name| folder.join(name).is_file()))
    }

    /// Every binary of the part, once it is done.
    pub(crate) fn binaries(&self, cache: &Cache) -> Vec<(&'static str, PathBuf)> {
        let built = self.missing().filter_map(|name| {
            self.folder(cache)
                .ok()
                .map(|folder| (name, folder.join(name)))
        });
        self.found.iter().cloned().chain(built).collect()
    }

    /// Builds and puts in place what is missing, as the first number of the second.
    pub(crate) fn install(
        &self,
        cache: &Cache,
        (index, total): (usize, usize),
        stop: &Stop,
    ) -> Result<()> {
        let _lock = cache.lock(stop)?;
        if self.is_done(cache)? {
            return Ok(()); // by the run that held the lock
        }
        let tool = self.tool;
        let folder = self.folder(cache)?;
        remove_leftovers(cache)?;
        // A name of its own: the `go` of a run that was killed may still be writing to that run's folder.
        let building = cache
            .root()
            .join(format!("{BUILDING}{}", std::process::id()));
        fs::create_dir_all(&building)
            .with_context(|| format!("cannot make {}", building.display()))?;

        let mut progress = Progress::start(
            format!("[{index}/{total}] {} {}", tool.name, tool.version()?),
            &format!(
                "building from source, up to {} min the first time",
                tool.cold_minutes
            ),
        );
        let log = cache.root().join(format!("{}.log", tool.name));
        let outcome = self.build(&building, &log, &mut progress, stop);
        progress.end(match outcome {
            Ok(()) => "built",
            Err(_) if stop.is_set() => "stopped",
            Err(_) => "failed",
        });
        outcome?;

        self.name_binaries(&building)?;
        if let Source::Pinned {
            path,
            module,
            kinds,
            ..
        } = tool.source
        {
            let from = go::module_folder(path, module)?.join(kinds);
            copy_kinds(&from, &building.join(KINDS))?;
        }
        fs::write(building.join("recipe"), &self.recipe).context("cannot write the recipe")?;
        remove(&folder)?;
        fs::rename(&building, &folder)
            .with_context(|| format!("cannot put {} in place", folder.display()))?;
        remove(&log)
    }

    fn build(
        &self,
        building: &Path,
        log: &Path,
        progress: &mut Progress,
        stop: &Stop,
    ) -> Result<()> {
        let name = self.tool.name;
        let output =
            File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut child = go::build_command(self.tool, &self.tags(), building)?
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot run go to build {name}"))?;
        let status = stop.wait(&mut child, || {
            progress.tick(|| how_far(&fs::read_to_string(log).unwrap_or_default()));
        })?;
        if status.success() {
            return Ok(());
        }
        let text = fs::read_to_string(log).unwrap_or_default();
        if let Some((module, line)) = go::refused_download(&text) {
            bail!("cannot build {name}: the download of {module} failed: {line}");
        }
        let lines: Vec<&str> = text.lines().collect();
        let end = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
        bail!(
            "cannot build {name}; the end of {}:\n{}",
            log.display(),
            end.join("\n")
        )
    }

    /// Gives the binary the names that its parts are run by.
    fn name_binaries(&self, folder: &Path) -> Result<()> {
        let built = self.tool.built_name;
        for name in self.missing().filter(|name| *name != built) {
            let outcome = match self.tool.binaries {
                [_] => fs::rename(folder.join(built), folder.join(name)),
                _ => symlink(built, folder.join(name)),
            };
            outcome.with_context(|| format!("cannot name {built} {name}"))?;
        }
        Ok(())
    }

    fn missing(&self) -> impl Iterator<Item = &'static str> {
        let is_found = |name: &str| self.found.iter().any(|(found, _)| *found == name);
        self.tool
            .binaries
            .iter()
            .copied()
            .filter(move |name| !is_found(name))
    }

    /// Build tags that leave out what was found: `without_apiserver`, as the Go files spell it.
    fn tags(&self) -> Vec<String> {
        let short = |name: &str| name.trim_start_matches("kube-").to_owned();
        self.found
            .iter()
            .map(|(name, _)| format!("without_{}", short(name)))
            .collect()
    }

    /// A build that left parts out lies beside the whole one, so that neither drives the other out.
    fn folder(&self, cache: &Cache) -> Result<PathBuf> {
        let mut name = format!("{}-{}", self.tool.name, self.tool.version()?);
        for tag in self.tags() {
            name += &format!("-{tag}");
        }
        Ok(cache.root().join(name))
    }
}

/// All that decides what is built: the command, and our own source where there is any.
fn recipe(tool: &Tool, command: &Command) -> Result<String> {
    let mut words: Vec<String> = command
        .get_args()
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    for (name, value) in command.get_envs() {
        let value = value.unwrap_or_default();
        words.push(format!(
            "{}={}",
            name.to_string_lossy(),
            value.to_string_lossy()
        ));
    }
    let mut text = words.join("\n") + "\n";
    if let Source::Folder { path } | Source::Pinned { path, .. } = tool.source {
        let folder = repository_root().join(path);
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .with_context(|| format!("cannot list {}", folder.display()))?;
        files.sort();
        for file in files {
            text += &fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
        }
    }
    Ok(text)
}

/// Copies the YAML files of a folder. Lines that are templates of the peer's chart, labels all of them, are left out.
fn copy_kinds(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let entries = fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))?;
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name() else {
            continue;
        };
        // kustomize's own file beside them is no object.
        let is_object =
            path.extension().is_some_and(|it| it == "yaml") && name != "kustomization.yaml";
        if !is_object {
            continue;
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text.lines().filter(|line| !line.contains("{{"));
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        fs::write(to.join(name), text).with_context(|| format!("cannot write {}", to.display()))?;
    }
    Ok(())
}

fn how_far(log: &str) -> String {
    let downloads = log
        .lines()
        .filter(|line| line.starts_with("go: downloading "))
        .count();
    let packages = log.lines().filter(|line| !line.starts_with("go: ")).count();
    format!("{downloads} modules downloaded, {packages} packages compiled")
}

/// Removes what runs that were killed left behind; called under the lock.
fn remove_leftovers(cache: &Cache) -> Result<()> {
    let entries = fs::read_dir(cache.root())
        .with_context(|| format!("cannot list {}", cache.root().display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(BUILDING) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    let outcome = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match outcome {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
