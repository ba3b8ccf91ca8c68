//! Whichever way the harness ends, what it started ends too.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rimward_e2e::{Process, Scratch};
use rustix::process::{Pid, Signal};

/// What the program under test does: it starts a process, which starts another in a session of its own,
/// and a folder; it says where, and waits to be ended.
#[test]
#[ignore = "run by the tests below, as a process of its own"]
fn waits_to_be_ended() {
    let scratch = Scratch::new("guard").unwrap();
    let (child, grandchild) = (
        scratch.path().join("child"),
        scratch.path().join("grandchild"),
    );
    let script = "trap '' TERM INT; setsid sh -c 'echo $$ >grandchild.new; mv grandchild.new grandchild; \
                  exec sleep 600' & echo $$ >child.new; mv child.new child; wait";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).current_dir(scratch.path());
    let _process = Process::start("child", command, &scratch.path().join("log")).unwrap();
    let id = |path: &Path| {
        until(|| path.exists());
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    };
    println!(
        "ready {} {} {}",
        scratch.path().display(),
        id(&child),
        id(&grandchild)
    );
    if std::env::var_os("RIMWARD_GUARD_RETURNS").is_some() {
        std::mem::forget((scratch, _process)); // as a static is: nothing drops it
        return;
    }
    std::thread::sleep(Duration::from_secs(600));
}

struct Program {
    process: std::process::Child,
    /// Kept open: a test binary that cannot print panics.
    _output: BufReader<ChildStdout>,
    folder: PathBuf,
    child: i32,
    grandchild: i32,
}

fn start(returns: bool) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([
            "--exact",
            "guard::waits_to_be_ended",
            "--ignored",
            "--nocapture",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    if returns {
        command.env("RIMWARD_GUARD_RETURNS", "1");
    }
    let mut process = command.spawn().unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("ready ") {
        line.clear();
        assert_ne!(output.read_line(&mut line).unwrap(), 0, "it ended");
    }
    let line = line.trim().split_once("ready ").unwrap().1;
    let words: Vec<&str> = line.split(' ').collect();
    Program {
        process,
        _output: output,
        folder: PathBuf::from(words[0]),
        child: words[1].parse().unwrap(),
        grandchild: words[2].parse().unwrap(),
    }
}

fn is_alive(id: i32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // A zombie is dead; who ought to bury it is another matter.
    state
        .rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn until(is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "it did not come to be"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn send(program: &Program, signal: Signal) {
    let id = Pid::from_raw(program.process.id().cast_signed()).unwrap();
    rustix::process::kill_process(id, signal).unwrap();
}

#[test]
fn a_signal_ends_every_process_and_removes_every_file() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut program = start(false);
        assert!(is_alive(program.child) && is_alive(program.grandchild));
        send(&program, signal);
        assert_eq!(program.process.wait().unwrap().code(), Some(code));
        assert!(!is_alive(program.child) && !is_alive(program.grandchild));
        assert!(!program.folder.exists(), "{}", program.folder.display());
    }
}

#[test]
fn what_nothing_drops_is_ended_at_a_normal_exit() {
    let mut program = start(true);
    assert!(program.process.wait().unwrap().success());
    assert!(!is_alive(program.child) && !is_alive(program.grandchild));
    assert!(!program.folder.exists(), "{}", program.folder.display());
}

#[test]
fn a_harness_that_is_killed_takes_what_it_started_with_it() {
    let mut program = start(false);
    send(&program, Signal::KILL);
    program.process.wait().unwrap();
    until(|| !is_alive(program.child));
    // Beyond the kernel's promise: a grandchild in a session of its own, and the folder.
    if let Some(id) = Pid::from_raw(program.grandchild) {
        let _ = rustix::process::kill_process(id, Signal::KILL);
    }
    std::fs::remove_dir_all(&program.folder).unwrap();
}
