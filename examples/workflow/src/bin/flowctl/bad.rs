//! `flowctl case --bad DIR`: prints what came of every bad definition of a folder.

use std::path::PathBuf;
use std::process::ExitCode;

use workflow::bad_cases::run_bad_cases;

/// Exit code 0 when every definition is refused as expected, 1 when one is not, 64 when a folder
/// cannot be judged.
pub(crate) fn run(folders: &[PathBuf]) -> ExitCode {
    let (mut passed, mut failed) = (0, 0);
    for folder in folders {
        let cases = match run_bad_cases(folder) {
            Ok(cases) => cases,
            Err(message) => return crate::usage_error(&message),
        };
        for case in cases {
            if case.failures.is_empty() {
                passed += 1;
                println!("PASS {}", case.name);
                continue;
            }
            failed += 1;
            println!("FAIL {}: {}", case.name, case.failures.join("; ").replace('\n', " "));
            case.reported.iter().for_each(|error| eprintln!("     reported: {error}"));
        }
    }
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}
