//! The binary `lb`: the node agent and its command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_userspace::cli::main()
}
