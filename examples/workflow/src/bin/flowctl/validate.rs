//! `flowctl validate FILE`: all errors and warnings of a definition, as text or JSON.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use serde_json::json;
use workflow::language::{Checked, Definition, LanguageLimits};

/// The arguments of the subcommand.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The definition, YAML or JSON; `-` reads standard input.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How errors and warnings are printed.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// A line for each, `FILE:LINE:COLUMN: CODE PATH: MESSAGE (HINT)`.
    Text,
    /// One object for each file, with `valid`, `errors` and `warnings`.
    Json,
}

/// Exit code 0 when every file is a definition, warnings or not; 2 when one is not.
pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let mut is_valid = true;
    for file in &arguments.files {
        let text = match read(file) {
            Ok(text) => text,
            Err(message) => return crate::usage_error(&message),
        };
        let checked = Definition::check(&text, &LanguageLimits::default());
        is_valid &= checked.definition.is_some();
        match arguments.format {
            Format::Text => print_text(file, &checked),
            Format::Json => print_json(file, &checked),
        }
    }
    ExitCode::from(if is_valid { 0 } else { crate::DEFINITION })
}

/// The text of a definition; bytes that are not UTF-8 are a mistake of the definition.
pub(crate) fn read(file: &Path) -> Result<String, String> {
    let bytes = if file.as_os_str() == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
    } else {
        fs::read(file)
    };
    let bytes = bytes.map_err(|error| format!("{}: {error}", file.display()))?;
    // The replacement characters are refused or reported where they stand.
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn print_text(file: &Path, checked: &Checked) {
    let file = file.display();
    let mut all: Vec<_> = checked.errors.iter().chain(&checked.warnings).collect();
    all.sort();
    for problem in &all {
        let severity = if problem.code.is_warning() { "warning" } else { "error" };
        print!("{file}:{}: {severity} {} ", problem.position, problem.code);
        print!("{}: {}", problem.path, problem.message);
        println!("{}", problem.hint.iter().map(|hint| format!(" ({hint})")).collect::<String>());
    }
    if checked.definition.is_some() {
        let count = checked.warnings.len();
        println!(
            "{file}: valid{}",
            if count == 0 { String::new() } else { format!(", {count} warnings") }
        );
    } else {
        println!("{file}: invalid, {} errors", checked.errors.len());
    }
}

fn print_json(file: &Path, checked: &Checked) {
    let report = json!({
        "file": file.display().to_string(),
        "valid": checked.definition.is_some(),
        "errors": checked.errors,
        "warnings": checked.warnings,
    });
    println!("{report}");
}
