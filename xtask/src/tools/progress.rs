//! Progress of one long build, for a person: one line that is rewritten on a terminal, and a line every
//! half a minute elsewhere.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(30);

/// Shows what is being done since when.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    started: Instant,
    shown: Instant,
    is_terminal: bool,
}

impl Progress {
    /// Starts the clock and says what begins.
    pub(crate) fn start(what: String, note: &str) -> Self {
        let is_terminal = std::io::stderr().is_terminal();
        eprintln!("{what}: {note}");
        let started = Instant::now();
        Self {
            what,
            started,
            shown: started,
            is_terminal,
        }
    }

    /// Shows a note if it is time to.
    pub(crate) fn tick(&mut self, note: impl FnOnce() -> String) {
        let every = if self.is_terminal {
            ON_TERMINAL
        } else {
            ELSEWHERE
        };
        if self.shown.elapsed() < every {
            return;
        }
        self.shown = Instant::now();
        let (what, seconds, note) = (&self.what, self.started.elapsed().as_secs(), note());
        if self.is_terminal {
            eprint!("\r\x1b[K{what}: {note}, {seconds} s");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{what}: {note}, {seconds} s");
        }
    }

    /// Says how it ended and how long it took.
    pub(crate) fn end(self, outcome: &str) {
        let clear = if self.is_terminal { "\r\x1b[K" } else { "" };
        eprintln!(
            "{clear}{}: {outcome} after {} s",
            self.what,
            self.started.elapsed().as_secs()
        );
    }
}
