//! `flowctl run`: one execution with its history drawn.
//!
//! Workers are doubles, as in cases; the script is that of cases too. In real time each event is
//! printed on standard error as it happens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use workflow::cases::{
    Case, CaseClock, CaseOptions, CaseStore, Expected, flow_name, read_script, read_workers,
    run as play,
};
use workflow::draw;
use workflow::engine::{Event, Status};

/// The arguments of the subcommand.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The definition.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The Input of the execution: JSON text, or `@` and a file of it.
    #[arg(long, value_name = "JSON", default_value = "{}")]
    input: String,
    /// Doubles of workers, as `workers.json` of a case.
    #[arg(long, value_name = "FILE")]
    workers: Option<PathBuf>,
    /// What is done at which time, as `script.json` of a case.
    #[arg(long, value_name = "FILE")]
    script: Option<PathBuf>,
    /// In virtual time, which jumps to what comes next, instead of real time.
    #[arg(long = "virtual")]
    virtual_time: bool,
    /// The file of the journal; in memory without.
    #[arg(long, value_name = "FILE")]
    store: Option<PathBuf>,
}

/// Exit code 0 when the execution succeeded, 1 when it failed or is not over, 3 when it timed out
/// or was stopped.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let case = match case_of(arguments) {
        Ok(case) => case,
        Err(why) => return crate::usage_error(&why),
    };
    case.notes.iter().for_each(|note| eprintln!("flowctl: {note}"));
    let store = match &arguments.store {
        Some(file) => CaseStore::File(file.clone()),
        None => CaseStore::Memory,
    };
    let clock = match arguments.virtual_time {
        true => CaseClock::Virtual,
        false => CaseClock::System(tell),
    };
    let outcome = match play(&case, &CaseOptions { store, clock, ..CaseOptions::default() }) {
        Ok(outcome) => outcome,
        Err(why) => {
            eprintln!("flowctl: {why}");
            return ExitCode::from(crate::DEFINITION);
        }
    };
    let description = &outcome.description;
    let last = outcome.events.last().map(|event| event.time).unwrap_or_default();
    print!("{}", draw::history(&outcome.events, &description.name));
    println!();
    print!("{}", draw::timeline(&outcome.events, description.ended.unwrap_or(last)));
    println!();
    println!("{}", description.view());
    for difference in &outcome.differences {
        eprintln!("flowctl: {difference}");
    }
    ExitCode::from(match description.status {
        Status::Succeeded if outcome.differences.is_empty() => 0,
        Status::TimedOut | Status::Stopped => STOPPED,
        Status::Succeeded | Status::Failed | Status::Running | Status::Starting => 1,
    })
}

/// A line for an event that has just happened.
fn tell(event: &Event) {
    eprintln!("{} {} {}", event.time, event.kind.name(), event.step);
}

fn case_of(arguments: &Arguments) -> Result<Case, String> {
    let read = |path: &Path| {
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let json = |text: &str, what: &str| -> Result<serde_json::Value, String> {
        serde_json::from_str(text).map_err(|error| format!("{what}: {error}"))
    };
    let input = match arguments.input.strip_prefix('@') {
        Some(file) => read(Path::new(file))?,
        None => arguments.input.clone(),
    };
    let mut notes = Vec::new();
    let file = |path: &Path| json(&read(path)?, &path.display().to_string());
    let workers = match &arguments.workers {
        Some(path) => read_workers(file(path)?, &mut notes)?,
        None => BTreeMap::new(),
    };
    let script = match &arguments.script {
        Some(path) => read_script(file(path)?, &mut notes)?,
        None => Vec::new(),
    };
    let name = arguments.file.file_stem().unwrap_or_default().to_string_lossy();
    Ok(Case {
        name: flow_name(&name),
        definition: read(&arguments.file)?,
        input: json(&input, "--input")?,
        workers,
        script,
        expected: Expected::default(),
        subflows: BTreeMap::new(),
        notes,
    })
}

/// The execution timed out or was stopped.
const STOPPED: u8 = 3;
