//! One short command that a person would type: run to its end, within a time, its output taken.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// A command may take this long unless it is said otherwise: generous, the machine may be busy.
pub const WITHIN: Duration = Duration::from_secs(120);

/// A command line to run.
#[derive(Debug, Clone)]
pub struct Line {
    program: PathBuf,
    shown_as: Option<&'static str>,
    arguments: Vec<String>,
    environment: Vec<(String, std::ffi::OsString)>,
    input: Option<Vec<u8>>,
    folder: Option<PathBuf>,
    within: Duration,
}

/// What a command printed, and how it ended.
#[derive(Debug, Clone)]
pub struct Output {
    /// The line that was run, for messages.
    pub line: String,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

impl Line {
    /// A command line of a program and nothing else yet.
    #[must_use]
    pub fn new(program: &Path) -> Self {
        Self {
            program: program.to_path_buf(),
            shown_as: None,
            arguments: Vec::new(),
            environment: Vec::new(),
            input: None,
            folder: None,
            within: WITHIN,
        }
    }

    /// Shows it as other words than the program's name: those that a person types to run it.
    #[must_use]
    pub fn shown_as(mut self, words: &'static str) -> Self {
        self.shown_as = Some(words);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<str>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Gives it this as standard input; without, it has none.
    #[must_use]
    pub fn input(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// Runs it in a folder.
    #[must_use]
    pub fn folder(mut self, folder: &Path) -> Self {
        self.folder = Some(folder.to_path_buf());
        self
    }

    /// Gives it another time than [`WITHIN`].
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Runs it to its end, whichever that is.
    ///
    /// # Errors
    /// When it cannot be started, or does not end in time (it is killed then).
    pub async fn output(&self) -> Result<Output> {
        crate::guard::install();
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(if self.input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        for variable in crate::http::PROXY_VARIABLES {
            command.env_remove(variable);
        }
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot run {}", self.program.display()))?;
        let pipe = child.stdin.take().zip(self.input.clone());
        let feed = async move {
            if let Some((mut pipe, input)) = pipe {
                use tokio::io::AsyncWriteExt;
                // A program that does not read all of it says why by how it ends.
                let _ = pipe.write_all(&input).await;
            }
        };
        let run = async { tokio::join!(feed, child.wait_with_output()).1 };
        let output = match tokio::time::timeout(self.within, run).await {
            Ok(output) => output.with_context(|| format!("cannot wait for {self}"))?,
            Err(_) => bail!("{self} did not end within {} s", self.within.as_secs()),
        };
        Ok(Output {
            line: self.to_string(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            status: output.status,
        })
    }

    /// Runs it, and returns standard output.
    ///
    /// # Errors
    /// Also when it ends with another code than 0: quotes what it printed.
    pub async fn run(&self) -> Result<String> {
        self.output().await?.success()
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shown_as {
            Some(words) => write!(f, "{words}")?,
            None => {
                let program = self.program.file_name().unwrap_or(self.program.as_os_str());
                write!(f, "{}", program.display())?;
            }
        }
        for argument in &self.arguments {
            let is_plain = argument
                .chars()
                .all(|c| c.is_alphanumeric() || "-_=/.:,@%+".contains(c));
            if is_plain && !argument.is_empty() {
                write!(f, " {argument}")?;
            } else {
                write!(f, " '{}'", argument.replace('\'', r"'\''"))?;
            }
        }
        Ok(())
    }
}

impl Output {
    /// Standard output of a command that succeeded.
    ///
    /// # Errors
    /// When it ended with another code than 0: quotes what it printed.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!(
                "`{}` ended with {}: {}{}",
                self.line,
                self.status,
                self.stdout,
                self.stderr.trim_end()
            );
        }
        Ok(self.stdout)
    }

    /// Standard error of a command that was refused.
    ///
    /// # Errors
    /// When it succeeded: quotes what it printed.
    pub fn refusal(self) -> Result<String> {
        if self.status.success() {
            bail!(
                "`{}` succeeded, and should not have: {}",
                self.line,
                self.stdout.trim_end()
            );
        }
        Ok(self.stderr)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_as_one_would_type_it() {
        let line = Line::new(Path::new("/x/kubectl")).args(["get", "-o", "jsonpath={.a b}", ""]);
        assert_eq!(line.to_string(), "kubectl get -o 'jsonpath={.a b}' ''");
        let line = Line::new(Path::new("/x/xtask")).shown_as("cargo xtask");
        assert_eq!(line.args(["demo"]).to_string(), "cargo xtask demo");
    }

    #[tokio::test]
    async fn a_command_that_does_not_end_is_killed() {
        let line = Line::new(Path::new("/bin/sleep")).args(["600"]);
        let error = line
            .within(Duration::from_millis(50))
            .output()
            .await
            .unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }

    #[tokio::test]
    async fn input_reaches_the_command_and_its_code_is_told() {
        let cat = Line::new(Path::new("/bin/cat"))
            .input("abc")
            .run()
            .await
            .unwrap();
        assert_eq!(cat, "abc");
        let sh = Line::new(Path::new("/bin/sh")).args(["-c", "echo no >&2; exit 3"]);
        let error = sh.run().await.unwrap_err().to_string();
        assert!(
            error.contains("exit status: 3") && error.ends_with("no"),
            "{error}"
        );
    }
}
