//! Parses the command line and hands over to [`backscroll::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    backscroll::cli::main()
}
