//! `flowctl case --bad DIR`: prints what came of every bad definition of a folder.

use std::path::PathBuf;
use std::process::ExitCode;

use workflow::bad_cases::run_bad_cases;

/// Exit code 0 when every definition is refused as expected, 1 when one is not.
pub(crate) fn run(folders: &[PathBuf]) -> ExitCode {
    let (mut total, mut failed) = (0, 0);
    for folder in folders {
        let cases = match run_bad_cases(folder) {
            Ok(cases) => cases,
            Err(message) => return crate::usage_error(&message),
        };
        for case in cases {
            total += 1;
            let file = case.file.display();
            if case.failures.is_empty() {
                println!("ok   {file}");
                continue;
            }
            failed += 1;
            println!("FAIL {file}");
            case.failures.iter().for_each(|failure| println!("     {failure}"));
            case.reported.iter().for_each(|error| println!("     reported: {error}"));
        }
    }
    println!("{total} bad definitions, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
