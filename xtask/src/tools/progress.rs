//! Progress of long builds, for a person: one line that is rewritten on a terminal, and a line every half
//! a minute elsewhere. Builds that run side by side share the terminal's line.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

const ON_TERMINAL: Duration = Duration::from_secs(1);
const ELSEWHERE: Duration = Duration::from_secs(30);

/// What goes on at this moment: a line for each build, in the order of their start.
static GOING_ON: Mutex<Vec<(u32, String)>> = Mutex::new(Vec::new());

/// Shows what is being done since when.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    number: u32,
    started: Instant,
    shown: Instant,
    is_terminal: bool,
}

impl Progress {
    /// Starts the clock and says what begins.
    pub(crate) fn start(what: String, note: &str) -> Self {
        let mut going_on = GOING_ON.lock().unwrap_or_else(PoisonError::into_inner);
        let number = going_on.last().map_or(0, |(last, _)| last + 1);
        going_on.push((number, what.clone()));
        let is_terminal = std::io::stderr().is_terminal();
        write_line(is_terminal, &format!("{what}: {note}"));
        let started = Instant::now();
        Self {
            what,
            number,
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
        let line = format!("{what}: {note}, {seconds} s");
        if !self.is_terminal {
            return eprintln!("{line}");
        }
        let mut going_on = GOING_ON.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, shown)) = going_on.iter_mut().find(|(it, _)| *it == self.number) {
            *shown = line;
        }
        let lines: Vec<&str> = going_on.iter().map(|(_, line)| line.as_str()).collect();
        eprint!("\r\x1b[K{}", lines.join("  |  "));
        let _ = std::io::stderr().flush();
    }

    /// Says how it ended and how long it took.
    pub(crate) fn end(self, outcome: &str) {
        let mut going_on = GOING_ON.lock().unwrap_or_else(PoisonError::into_inner);
        going_on.retain(|(number, _)| *number != self.number);
        let seconds = self.started.elapsed().as_secs();
        write_line(
            self.is_terminal,
            &format!("{}: {outcome} after {seconds} s", self.what),
        );
    }
}

/// Says something that stays, whatever is going on.
pub(crate) fn say(words: &str) {
    let _going_on = GOING_ON.lock().unwrap_or_else(PoisonError::into_inner);
    write_line(std::io::stderr().is_terminal(), words);
}

/// A line that stays, in place of the one that is rewritten.
fn write_line(is_terminal: bool, line: &str) {
    let clear = if is_terminal { "\r\x1b[K" } else { "" };
    eprintln!("{clear}{line}");
}
