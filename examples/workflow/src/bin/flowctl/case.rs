//! `flowctl case`: folders of cases, good and bad.
//!
//! Bad definitions (`--bad`) are judged in `bad.rs`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

/// The arguments of the subcommand.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Folders of bad definitions: each must be refused as its `expected.json` says.
    #[arg(long, value_name = "DIR", num_args = 1.., required = true)]
    bad: Vec<PathBuf>,
}

/// Exit code 0 when every case is as expected, 1 when one is not.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    crate::bad::run(&arguments.bad)
}
