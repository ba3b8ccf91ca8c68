//! The node agent's one binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = rimward_node_agent::child::main() {
        return code;
    }
    ExitCode::FAILURE
}
