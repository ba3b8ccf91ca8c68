//! Two builds at once: the first that fails is told at once, and ends the other.
//!
//! Owns how one learns of the other's failure. Never knows what is built.

use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How often a build is looked at.
pub(crate) const LOOK_PERIOD: Duration = Duration::from_millis(200);
/// What an interrupted build has to put its things away: a linker that runs is waited for.
const INTERRUPTED_WITHIN: Duration = Duration::from_secs(30);

/// Whether the work beside this one has failed, so that nothing needs this one any more.
#[derive(Debug, Default)]
pub(crate) struct Stop(AtomicBool);

impl Stop {
    /// Whether to end.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// Waits for a program to end, and calls `each` meanwhile. Interrupts it when the other work has failed.
    ///
    /// # Errors
    /// When it was interrupted, or cannot be waited for.
    pub(crate) fn wait(&self, child: &mut Child, mut each: impl FnMut()) -> Result<ExitStatus> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if self.is_set() {
                interrupt(child)?;
                bail!("interrupted, because the build beside it failed");
            }
            each();
            std::thread::sleep(LOOK_PERIOD);
        }
    }
}

/// As Ctrl-C does: `go` starts nothing more, lets its compilers end, and removes its temporary folder.
fn interrupt(child: &mut Child) -> Result<()> {
    let _ = kill_process(Pid::from_child(child), Signal::INT);
    let since = Instant::now();
    while child.try_wait()?.is_none() {
        if since.elapsed() > INTERRUPTED_WITHIN {
            child.kill()?;
            child.wait()?;
            break;
        }
        std::thread::sleep(LOOK_PERIOD);
    }
    Ok(())
}

/// Does both, `there` in a thread of its own. An error is given to `tell` before anything is waited for.
///
/// # Errors
/// When one failed: what it was has been told.
pub(crate) fn run<There: Send>(
    here: impl FnOnce(&Stop) -> Result<()>,
    there: impl FnOnce(&Stop) -> Result<There> + Send,
    tell: impl Fn(&str) + Sync,
) -> Result<There> {
    let stop = Stop::default();
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| first(there(&stop), &stop, &tell));
        let here = first(here(&stop), &stop, &tell);
        let there = match thread.join() {
            Ok(there) => there,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        match (here, there) {
            (Some(()), Some(there)) => Ok(there),
            _ => bail!("not everything could be built: the reason stands above"),
        }
    })
}

/// Tells what failed first. What fails after that was stopped.
fn first<Made>(outcome: Result<Made>, stop: &Stop, tell: impl Fn(&str)) -> Option<Made> {
    match outcome {
        Ok(made) => Some(made),
        Err(error) => {
            if !stop.0.swap(true, Ordering::SeqCst) {
                tell(&format!("Error: {error:#}"));
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::sync::Mutex;

    use super::*;

    const LONG: &str = "600";

    fn sleep(stop: &Stop) -> Result<()> {
        let mut child = Command::new("sleep").arg(LONG).spawn()?;
        stop.wait(&mut child, || {})?;
        Ok(())
    }

    #[test]
    fn what_fails_is_told_before_the_other_has_ended_and_ends_it() {
        let told = Mutex::new(Vec::new());
        let told_first = Mutex::new(false);
        let began = Instant::now();
        let outcome = run(
            |_| bail!("error[E0425]: no such thing"),
            |stop| {
                let outcome = sleep(stop);
                *told_first.lock().unwrap() = !told.lock().unwrap().is_empty();
                outcome
            },
            |words| told.lock().unwrap().push(words.to_owned()),
        );
        assert!(began.elapsed() < Duration::from_secs(60), "waited for");
        assert!(*told_first.lock().unwrap(), "told only at the end");
        assert_eq!(
            *told.lock().unwrap(),
            ["Error: error[E0425]: no such thing"]
        );
        assert!(outcome.unwrap_err().to_string().contains("above"));
    }

    #[test]
    fn it_is_so_whichever_of_the_two_fails() {
        let told = Mutex::new(Vec::new());
        let outcome: Result<()> = run(
            sleep,
            |_| bail!("a module is refused"),
            |words| told.lock().unwrap().push(words.to_owned()),
        );
        assert!(outcome.is_err());
        assert_eq!(*told.lock().unwrap(), ["Error: a module is refused"]);
    }

    #[test]
    fn two_that_go_well_are_both_waited_for() {
        let tell = |words: &str| unreachable!("{words}");
        let one = |stop: &Stop| {
            let mut child = Command::new("sleep").arg("0.3").spawn()?;
            let status = stop.wait(&mut child, || {})?;
            anyhow::ensure!(status.success());
            Ok(())
        };
        run(one, |stop| one(stop), tell).unwrap();
    }
}
