//! A program that a story starts, kills and starts again with the same command line.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::Signal;

use crate::http;
use crate::process::Process;
use crate::wait::{Seen, wait_for};

/// How a program is started, each time.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// What messages and its log file call it.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Environment variables beside the harness's own.
    pub environment: Vec<(String, OsString)>,
    /// Where its log goes, `NAME.log`; every start appends to it.
    pub folder: PathBuf,
}

/// A program by its recipe, running or not. Dropping it kills it and all that it started.
#[derive(Debug)]
pub struct Service {
    recipe: Recipe,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: Option<Process>,
    /// Killed by themselves only: what they had started may live on, as after a crash. Kept so that their
    /// groups end with the service.
    crashed: Vec<Process>,
}

impl Service {
    /// Starts it.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(recipe: Recipe) -> Result<Self> {
        let service = Self::idle(recipe)?;
        service.resume()?;
        Ok(service)
    }

    /// One that [`Service::resume`] starts.
    ///
    /// # Errors
    /// When its folder cannot be made.
    pub fn idle(recipe: Recipe) -> Result<Self> {
        std::fs::create_dir_all(&recipe.folder)
            .with_context(|| format!("cannot make {}", recipe.folder.display()))?;
        Ok(Self {
            recipe,
            state: Mutex::default(),
        })
    }

    /// Starts it again after it was stopped or killed; one that runs is killed first, with its group.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn resume(&self) -> Result<()> {
        let mut command = Command::new(&self.recipe.program);
        command
            .args(&self.recipe.arguments)
            .envs(
                self.recipe
                    .environment
                    .iter()
                    .map(|(name, value)| (name, value)),
            )
            .current_dir(&self.recipe.folder);
        let mut state = self.state();
        state.running = None;
        state.running = Some(Process::start(&self.recipe.name, command, &self.log())?);
        Ok(())
    }

    /// kill -9 of the process alone: children that it had live on, or not, as after a crash.
    pub fn kill(&self) {
        let mut state = self.state();
        if let Some(mut process) = state.running.take() {
            process.kill();
            state.crashed.push(process);
        }
    }

    /// kill -9 of it and everything that it and its earlier lives started, at once: a power cut.
    pub fn power_cut(&self) {
        let mut state = self.state();
        state.running = None;
        state.crashed.clear();
    }

    /// SIGTERM, then kill -9 once `grace` is over; how it ended, if it ran. Blocks.
    pub fn stop(&self, grace: Duration) -> Option<ExitStatus> {
        let process = self.state().running.take();
        process.map(|mut process| process.stop(grace))
    }

    /// Sends a signal to the process alone.
    pub fn signal(&self, signal: Signal) {
        if let Some(process) = &self.state().running {
            process.signal(signal);
        }
    }

    /// Its process id, if it runs.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        let mut state = self.state();
        let process = state.running.as_mut()?;
        process.ended().is_none().then(|| process.id())
    }

    /// An error that quotes its log if it ended by itself.
    ///
    /// # Errors
    /// Then.
    pub fn check_running(&self) -> Result<()> {
        self.state()
            .running
            .as_mut()
            .map_or(Ok(()), Process::check_running)
    }

    /// The name in its recipe.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.recipe.name
    }

    /// The file with its output, of all its lives.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.recipe.folder.join(format!("{}.log", self.recipe.name))
    }

    /// The folder of its recipe.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.recipe.folder
    }

    /// Waits until a URL of it answers with a 2xx.
    ///
    /// # Errors
    /// When it ends by itself, or the time passes: quotes its log.
    pub async fn wait_until_answers(&self, url: &str, within: Duration) -> Result<()> {
        let what = format!("{} at {url}", self.name());
        let outcome = wait_for(&what, within, async || {
            if let Err(error) = self.check_running() {
                return Ok(Seen::Never(format!("{error:#}")));
            }
            let answer = http::client()?.get(url).send().await?;
            Ok(if answer.status().is_success() {
                Seen::Done(())
            } else {
                Seen::NotYet(answer.status().to_string())
            })
        });
        outcome
            .await
            .with_context(|| format!("its log is {}", self.log().display()))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
