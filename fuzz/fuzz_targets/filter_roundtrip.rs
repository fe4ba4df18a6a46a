//! Printing a filter and parsing that gives the same filter, which prints the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use siftbus::Filter;
use siftbus::filter::ParseLimits;

fuzz_target!(|source: &str| {
    let Ok(filter) = Filter::parse_extended(source) else { return };
    let printed = filter.to_string();
    let mut limits = ParseLimits::EXTENDED;
    limits.max_bytes = usize::MAX;
    limits.max_depth = usize::MAX;
    // No more of the language than the filter needs.
    limits.dialect = filter.dialect();
    let again = Filter::parse_with(&printed, limits).expect("canonical text parses");
    assert_eq!(again, filter);
    assert_eq!(again.to_string(), printed);
    let _ = filter.lint();
});
