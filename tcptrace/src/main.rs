//! The `tcptrace` binary: everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    tcptrace::cli::main()
}
