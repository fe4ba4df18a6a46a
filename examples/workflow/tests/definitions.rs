//! Definitions that are good: the cases of the package, forms of the document, warnings.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::fs;
use std::path::Path;

use workflow::Definition;
use workflow::language::LanguageLimits;

#[test]
fn every_case_is_a_definition() {
    let cases = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut seen = 0;
    for case in fs::read_dir(cases).unwrap() {
        let Ok(files) = fs::read_dir(case.unwrap().path()) else { continue };
        for file in files.map(|file| file.unwrap().path()) {
            if file.extension().is_some_and(|extension| extension == "yaml") {
                let text = fs::read_to_string(&file).unwrap();
                let checked = Definition::check(&text, &LanguageLimits::default());
                assert_eq!(checked.errors, [], "{}", file.display());
                assert_eq!(checked.warnings, [], "{}", file.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 6, "{seen} definitions");
}
