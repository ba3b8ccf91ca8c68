//! One story of the end-to-end tests.
//!
//! Owns the frame: a runtime, a scratch folder, a deadline, the report of a failure with the place of its logs, and
//! how long it took, for whoever asks by `RIMWARD_STORIES_LOG`.

use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::guard;
use crate::scratch::{self, Scratch};

/// A story that takes longer than this hangs.
const WITHIN: Duration = Duration::from_secs(900);

/// Names the file that each story adds a line to: how many milliseconds it took, and its name.
const LOG: &str = "RIMWARD_STORIES_LOG";

/// What a story is given.
#[derive(Debug)]
pub struct Story {
    name: String,
    scratch: Scratch,
}

impl Story {
    /// Its name, fit for a Kubernetes object or namespace: what a shared fleet is told apart by.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own folder.
    #[must_use]
    pub fn scratch(&self) -> &Scratch {
        &self.scratch
    }
}

/// Runs a story to its end; `name` is a DNS label, unique among the stories.
///
/// # Panics
/// When the story fails or takes longer than fifteen minutes: that is how a test fails. Every scratch
/// folder that exists then is kept and named.
#[track_caller]
#[allow(clippy::panic, reason = "a failed test panics")]
pub fn story(name: &str, body: impl AsyncFnOnce(&Story) -> Result<()>) {
    guard::install();
    let run = || -> Result<()> {
        let story = Story {
            name: name.to_owned(),
            scratch: Scratch::new(name)?,
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        scratch::hold();
        let outcome = runtime.block_on(async {
            match tokio::time::timeout(WITHIN, body(&story)).await {
                Ok(outcome) => outcome,
                Err(_) => Err(anyhow!(
                    "the story did not end within {} s",
                    WITHIN.as_secs()
                )),
            }
        });
        if outcome.is_err() {
            guard::keep_all_folders();
        }
        scratch::release();
        outcome
            .map_err(|error| error.context(format!("logs in {}", story.scratch.path().display())))
    };
    let began = Instant::now();
    let outcome = run();
    if let Err(error) = note(name, began.elapsed()) {
        eprintln!("story {name}: its time is not on record: {error}");
    }
    if let Err(error) = outcome {
        panic!("story {name}: {error:#}");
    }
}

/// Adds a line to the log of stories, if there is one. One write: stories run at once.
fn note(name: &str, took: Duration) -> std::io::Result<()> {
    let Some(path) = std::env::var_os(LOG) else {
        return Ok(());
    };
    let line = format!("{} {name}\n", took.as_millis());
    let mut file = std::fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)?;
    file.write_all(line.as_bytes())
}
