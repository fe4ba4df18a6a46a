//! `flowctl`: definitions and cases of flows on the command line.
//!
//! Reads the arguments and leaves the rest to one module for each subcommand. Exit codes: 0 good,
//! 1 failed, 2 errors in a definition, 3 timed out or stopped, 64 bad usage.

mod bad;
mod case;
mod run;
mod validate;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Bad usage, or a file that cannot be read: `EX_USAGE` of sysexits.
const USAGE: u8 = 64;

/// Errors in a definition.
const DEFINITION: u8 = 2;

#[derive(Debug, Parser)]
#[command(name = "flowctl", version, about = "Checks and runs flows")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Checks a definition and prints all its errors and warnings.
    Validate(validate::Arguments),
    /// Runs one execution with doubles of its workers and draws its history.
    Run(run::Arguments),
    /// Runs folders of cases.
    Case(case::Arguments),
}

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help and version are no mistakes; printing may only fail when nobody listens.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    match arguments.command {
        Command::Validate(arguments) => validate::run(&arguments),
        Command::Run(arguments) => run::run(&arguments),
        Command::Case(arguments) => case::run(&arguments),
    }
}

/// Says on standard error why the command could not begin.
fn usage_error(message: &str) -> ExitCode {
    eprintln!("flowctl: {message}");
    ExitCode::from(USAGE)
}
