//! A condition that parses is printed to one of the same structure and the same value.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::json;
use workflow::language::{Condition, Path};

fuzz_target!(|text: &str| {
    if let Ok(path) = Path::parse(text) {
        assert_eq!(Path::parse(&path.to_string()), Ok(path));
    }
    match Condition::parse(text) {
        Err(error) => assert!((1..=text.chars().count() + 1).contains(&error.column), "{error}"),
        Ok(condition) => {
            // The brackets that are printed may be one level more than a condition may have.
            let printed = match Condition::parse(&condition.structure()) {
                Err(error) if error.message.starts_with("nested more than") => return,
                printed => printed.expect("printed conditions parse"),
            };
            assert_eq!(printed.structure(), condition.structure());
            for input in [
                json!({}),
                json!({"a": 1, "b": "x", "c": [1, "x", null], "d": {"a": true}, "e": 1.5}),
            ] {
                assert_eq!(printed.matches(&input), condition.matches(&input));
            }
        }
    }
});
