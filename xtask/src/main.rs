//! The project's own commands: `cargo xtask COMMAND`.
//!
//! Owns the list of commands and nothing else: each is a module with `run`. Never imports a crate of
//! ours, so that it compiles in seconds on a fresh clone, before anything else does.

mod charts;
mod demo;
mod emulate;
mod generate;
mod images;
mod laws;
mod layers;
mod prepare;
mod release;
mod side_by_side;
mod step;
mod test;
mod tools;

use std::process::ExitCode;

/// One command: its name, one line of help, and what runs it with the arguments after its name.
struct Command {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> anyhow::Result<()>,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        about: "tell the whole story on real parts: rollout, prediction, bad models taken back",
        run: demo::run,
    },
    Command {
        name: "test",
        about: "everything that CI checks",
        run: test::run,
    },
    Command {
        name: "bench",
        about: "measure, side by side with a peer or a limit, into docs/benchmarks.md",
        run: demo::bench,
    },
    Command {
        name: "fleet",
        about: "a real hub with N simulated sites, to try things on",
        run: demo::fleet,
    },
    Command {
        name: "laws",
        about: "the planner's law tests on fresh seeds, for so many minutes",
        run: laws::run,
    },
    Command {
        name: "gen",
        about: "write what is generated: crds/yaml, docs/reference, the charts' copies",
        run: generate::run,
    },
    Command {
        name: "images",
        about: "container images of operator, agent and command line, as OCI layouts",
        run: images::run,
    },
    Command {
        name: "layers",
        about: "refuse an import edge that the architecture does not allow",
        run: layers::run,
    },
    Command {
        name: "release",
        about: "push images and charts into a registry, signed",
        run: release::run,
    },
    Command {
        name: "tools",
        about: "build and cache the real parts that the demo and the tests run",
        run: tools::run,
    },
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let Some((name, rest)) = arguments.split_first() else {
        eprint!("{}", usage());
        return ExitCode::from(2);
    };
    if matches!(name.as_str(), "help" | "-h" | "--help") {
        print!("{}", usage());
        return ExitCode::SUCCESS;
    }
    let Some(command) = COMMANDS.iter().find(|command| command.name == name) else {
        eprint!("Error: there is no command {name:?}\n\n{}", usage());
        return ExitCode::from(2);
    };
    match (command.run)(rest) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let mut text = String::from("Usage: cargo xtask COMMAND [ARGUMENTS]\n\n");
    for command in COMMANDS {
        text += &format!("  {:<8} {}\n", command.name, command.about);
    }
    text
}
