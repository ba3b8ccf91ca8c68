//! How the story looks on the terminal: chapters, the commands that a user would type, what came of them.
//!
//! Owns the look only. Each check is a real one: a line with a tick is printed after it held.

use std::io::{IsTerminal, Write};
use std::time::Instant;

use anyhow::Result;
use rimward_e2e::command::{Line, Output};

/// Prints the story.
#[derive(Debug)]
pub(crate) struct Narrator {
    started: Instant,
    is_coloured: bool,
    chapter: std::cell::Cell<u32>,
}

impl Narrator {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            is_coloured: std::io::stdout().is_terminal(),
            chapter: 0.into(),
        }
    }

    /// Begins a chapter.
    pub(crate) fn chapter(&self, title: &str) {
        self.chapter.set(self.chapter.get() + 1);
        let seconds = self.started.elapsed().as_secs();
        self.print(
            &format!("\n{}. {title}", self.chapter.get()),
            "1",
            &format!("  [{seconds} s]"),
        );
    }

    /// Says something in plain words.
    pub(crate) fn say(&self, words: &str) {
        self.print(&format!("   {words}"), "0", "");
    }

    /// Says that a check held.
    pub(crate) fn held(&self, words: &str) {
        self.print(&format!("   ✓ {words}"), "32", "");
    }

    /// Shows a command as a user would type it, runs it, shows what it printed, and fails when it failed.
    pub(crate) async fn run(&self, line: Line) -> Result<String> {
        let output = self.show(line).await?;
        output.success()
    }

    /// Shows and runs a command whose exit code the story looks at itself.
    pub(crate) async fn show(&self, line: Line) -> Result<Output> {
        self.print(&format!("   $ {line}"), "36", "");
        let output = line.output().await?;
        for text in [&output.stdout, &output.stderr] {
            for line in text.lines() {
                self.say(&format!("  {line}"));
            }
        }
        Ok(output)
    }

    /// Shows and runs two commands, the second of which reads what the first prints; fails when either does.
    pub(crate) async fn pipe(&self, first: Line, second: Line) -> Result<()> {
        self.print(&format!("   $ {first} | {second}"), "36", "");
        let text = second.input(first.run().await?).run().await?;
        for line in text.lines() {
            self.say(&format!("  {line}"));
        }
        Ok(())
    }

    fn print(&self, words: &str, style: &str, after: &str) {
        let mut out = std::io::stdout().lock();
        // Nobody reading any more is no reason to break off half-way through a clean-up.
        let _ = if self.is_coloured {
            writeln!(out, "\x1b[{style}m{words}\x1b[0m{after}")
        } else {
            writeln!(out, "{words}{after}")
        };
    }
}
