//! Any text, in both dialects: no panic, errors that hold together, and a strict filter means the
//! same in the extended dialect.

#![no_main]

use libfuzzer_sys::fuzz_target;
use siftbus::Filter;
use siftbus::filter::ParseLimits;

fuzz_target!(|source: &str| {
    let strict = Filter::parse_with(source, ParseLimits::EMBEDDED);
    let extended = Filter::parse_with(source, ParseLimits::EXTENDED);
    if let Ok(strict) = &strict {
        assert_eq!(extended.as_ref(), Ok(strict));
    }
    for error in [strict.err(), extended.err()].into_iter().flatten() {
        assert!(source.get(error.span()).is_some());
        assert!(!error.to_string().contains(char::is_control));
        assert_eq!(format!("{error:#}").lines().count(), 4);
    }
});
