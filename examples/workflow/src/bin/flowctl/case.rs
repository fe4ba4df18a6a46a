//! `flowctl case`: folders of cases, good and bad.
//!
//! Prints a line for each case and a closing count. Bad definitions (`--bad`) are judged in
//! `bad.rs`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use workflow::cases::{Case, CaseOptions, CaseStore, run as play};

/// The arguments of the subcommand.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Folders of bad definitions: each must be refused as its `expected.json` says.
    #[arg(long, value_name = "DIR", num_args = 1.., required_unless_present = "folders")]
    bad: Vec<PathBuf>,
    /// Where the journal is kept.
    #[arg(long, value_enum, default_value_t = StoreKind::Memory)]
    store: StoreKind,
    /// Drops engine and bus after every commit and opens the store again.
    #[arg(long)]
    crash_after_every_commit: bool,
    /// Folders of cases, or folders of such folders.
    #[arg(value_name = "DIR")]
    folders: Vec<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum StoreKind {
    Memory,
    Redb,
}

/// Exit code 0 when every case is as expected, 1 when one is not.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if !arguments.bad.is_empty() {
        return crate::bad::run(&arguments.bad);
    }
    let store = match arguments.store {
        StoreKind::Memory => CaseStore::Memory,
        StoreKind::Redb => {
            let folder = std::env::temp_dir().join(format!("flowctl-{}", std::process::id()));
            if let Err(error) = std::fs::create_dir_all(&folder) {
                return crate::usage_error(&format!("{}: {error}", folder.display()));
            }
            CaseStore::Redb(folder)
        }
    };
    let options = CaseOptions {
        store,
        crash_after_every_commit: arguments.crash_after_every_commit,
        ..CaseOptions::default()
    };
    let (mut passed, mut failed) = (0, 0);
    for folder in arguments.folders.iter().flat_map(|folder| cases_in(folder)) {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match judge(&folder, &options) {
            Ok(()) => {
                passed += 1;
                println!("PASS {name}");
            }
            Err(why) => {
                failed += 1;
                println!("FAIL {name}: {}", why.replace('\n', " "));
            }
        }
    }
    if let CaseStore::Redb(folder) = &options.store {
        // What is left in the folder for temporary files harms nobody.
        let _ = std::fs::remove_dir_all(folder);
    }
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// The folder itself if it is a case, otherwise the cases in it, by name.
fn cases_in(folder: &Path) -> Vec<PathBuf> {
    let is_case = |folder: &Path| folder.join("flow.yaml").is_file();
    if is_case(folder) {
        return vec![folder.to_owned()];
    }
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut cases: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| is_case(path)).collect();
    cases.sort();
    match cases.is_empty() {
        // Judging it says what is missing.
        true => vec![folder.to_owned()],
        false => cases,
    }
}

fn judge(folder: &Path, options: &CaseOptions) -> Result<(), String> {
    // A relative path such as `.` has no name of its own.
    let folder = folder.canonicalize().map_err(|error| error.to_string())?;
    let case = Case::read(&folder).map_err(|error| error.to_string())?;
    case.notes.iter().for_each(|note| eprintln!("flowctl: {}: {note}", case.name));
    let outcome = play(&case, options)?;
    match outcome.differences.is_empty() {
        true => Ok(()),
        false => Err(outcome.differences.join("; ")),
    }
}
