//! The extended dialect: what it adds, what it refuses, and that it changes nothing strict.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use siftbus::filter::{
    Dialect, MAX_GLOB_RUN, MAX_LIST_VALUES, MAX_NUMBER_BYTES, ParseErrorKind as Kind, ParseLimits,
};
use siftbus::{Filter, Message};

/// Whether a filter matches a message whose attribute `k` has a value, or is absent.
fn matches(text: &str, value: Option<&str>) -> bool {
    let filter = Filter::parse_extended(text).unwrap_or_else(|error| panic!("{text}\n{error:#}"));
    // Printing reads back, is stable, and uses no more of the language than needed.
    let printed = filter.to_string();
    let mut limits = ParseLimits::EXTENDED;
    limits.dialect = filter.dialect();
    let again = Filter::parse_with(&printed, limits).unwrap();
    assert_eq!((&again, again.to_string()), (&filter, printed), "{text}");
    let message = Message::new("12345");
    let message = match value {
        Some(value) => message.with_attribute("k", value).with_ordering_key(value),
        None => message,
    };
    filter.matches(&message)
}

/// For each filter the values that match and those that do not; `None` is absent.
fn table(text: &str, yes: &[Option<&str>], no: &[Option<&str>]) {
    yes.iter().for_each(|value| assert!(matches(text, *value), "LIB-203: {text} on {value:?}"));
    no.iter().for_each(|value| assert!(!matches(text, *value), "LIB-203: {text} on {value:?}"));
}

#[test]
fn lib_203_every_addition_means_what_it_says() {
    let absent = None;
    let odd = [None, Some(""), Some("x"), Some(" 5"), Some("0x5"), Some("+5")];
    table("attributes.k < 5", &[Some("4"), Some("-1e3"), Some("4.99")], &[Some("5"), Some("5.0")]);
    table("attributes.k <= 5", &[Some("5"), Some("5.0"), Some("05")], &[Some("5.01")]);
    table("attributes.k > -5", &[Some("-4.9"), Some("0")], &[Some("-5")]);
    table("attributes.k >= 1e2", &[Some("100"), Some("1e2")], &[Some("99.9")]);
    table("attributes.k = 5", &[Some("5"), Some("5.0"), Some("0.5e1")], &odd);
    table("attributes.k != 5", &odd, &[Some("5"), Some("5.0")]);
    for text in ["attributes.k < 5", "attributes.k >= 5"] {
        table(text, &[], &odd);
    }
    let large = "170141183460469231731687303715884105727";
    table(
        &format!("attributes.k = {large}"),
        &[Some(large)],
        &[Some(&large.replace("727", "726"))],
    );
    table(
        "attributes.k IN (\"a\", 'b', 3)",
        &[Some("a"), Some("b"), Some("3.0")],
        &[absent, Some("c")],
    );
    table(
        "hasSuffix(attributes.k, \"s\")",
        &[Some("s"), Some("xs")],
        &[absent, Some("sx"), Some("")],
    );
    table("contains(attributes.k, \"s\")", &[Some("xsx")], &[absent, Some("x")]);
    table(
        "equalsIgnoreCase(attributes.k, \"aBé\")",
        &[Some("AbÉ".replace('É', "é").as_str())],
        &[absent, Some("ABÉ")],
    );
    table(
        "matchesGlob(attributes.k, \"a*b?\")",
        &[Some("abc"), Some("axxbé")],
        &[absent, Some("ab")],
    );
    table(r#"matchesGlob(attributes.k, "a\\*")"#, &[Some("a*")], &[Some("ab")]);
    table(
        "matchesSubject(attributes.k, 'orders.*.>')",
        &[Some("orders.eu.a.b")],
        &[absent, Some("orders.eu")],
    );
    table(
        "inCidr(attributes.k, \"10.0.0.0/8\")",
        &[Some("10.1.2.3")],
        &[absent, Some("11.0.0.1"), Some("::1")],
    );
    table("message:ordering_key", &[Some("k")], &[absent, Some("")]);
    table("message.ordering_key = 'k'", &[Some("k")], &[absent, Some("")]);
    table("message.ordering_key != 'k'", &[absent, Some("")], &[Some("k")]);
    table("hasPrefix(message.ordering_key, \"k\")", &[Some("key")], &[absent]);
    table("message.data_size = 5 AND message.data_size < 6", &[absent], &[]);
    table("message.attribute_count IN (1, 2)", &[Some("x")], &[absent]);
    table("true", &[absent], &[]);
    table("NOT false AND true", &[absent], &[]);
    table("false OR attributes.'k' = 'it\\'s'", &[Some("it's")], &[absent]);
}

#[test]
fn lib_203_what_it_does_not_have_is_refused() {
    for (text, kind) in [
        ("attributes.k < \"5\"", Kind::InvalidNumber),
        ("attributes.k < +5", Kind::InvalidNumber),
        ("attributes.k = 5x", Kind::InvalidNumber),
        ("attributes.k = 1e999", Kind::InvalidNumber),
        ("attributes.k == 5", Kind::ExtendedOnly),
        ("attributes.k in (1)", Kind::Case),
        ("attributes.k IN ()", Kind::MissingValue),
        ("attributes.k IN 1", Kind::MalformedList),
        ("attributes.k IN (1 2)", Kind::MalformedList),
        ("message.data = \"x\"", Kind::InvalidField),
        ("message:data_size", Kind::InvalidField),
        ("message.data_size = \"5\"", Kind::InvalidNumber),
        ("hasPrefix(message.data_size, \"5\")", Kind::InvalidField),
        ("inCidr(attributes.k, \"10.0.0.0\")", Kind::InvalidPattern),
        ("matchesSubject(attributes.k, \"a.>.b\")", Kind::InvalidPattern),
        ("attributes.k = 'x\"", Kind::UnterminatedString),
        ("True", Kind::UnknownName),
        ("true AND false OR true", Kind::MixedOperators),
    ] {
        let error = Filter::parse_extended(text).expect_err(text);
        assert_eq!(error.kind(), kind, "LIB-203: {text}");
        assert!(text.get(error.span()).is_some(), "{text}");
    }
}

#[test]
fn lib_203_white_space_is_needed_only_where_words_would_run_together() {
    for (text, canonical) in [
        ("attributes.k IN(\"a\")", "attributes.k IN (\"a\")"),
        ("attributes.\"k\"IN('a',3)AND true", "attributes.k IN (\"a\", 3) AND true"),
        ("attributes.k<-5", "attributes.k < -5"),
        ("(attributes.k=5)AND(true)", "attributes.k = 5 AND true"),
        ("attributes.k='a'OR message:ordering_key", "attributes.k = \"a\" OR message:ordering_key"),
        ("message : ordering_key", "message:ordering_key"),
        ("attributes.IN IN ('IN')", "attributes.IN IN (\"IN\")"),
        ("contains ( attributes.k , '' )", "contains(attributes.k, \"\")"),
        ("-(-true)", "NOT (NOT true)"),
    ] {
        let filter = Filter::parse_extended(text).unwrap_or_else(|e| panic!("{text}: {e:#}"));
        assert_eq!(filter.to_string(), canonical, "LIB-203: {text}");
        assert_eq!(Filter::parse_extended(canonical).unwrap(), filter, "LIB-203: {text}");
    }
    for (text, kind) in [
        ("attributes.k = 5AND true", Kind::InvalidNumber),
        ("attributes.k > = 5", Kind::InvalidNumber),
        ("attributes.k! = 5", Kind::UnknownOperator),
        ("attributes.kIN (1)", Kind::MissingComparison),
        ("NOTtrue", Kind::UnknownName),
        ("true false", Kind::MissingOperator),
        ("message .ordering_key = 'k'", Kind::InvalidField),
        ("message. ordering_key = 'k'", Kind::InvalidField),
        ("attributes.k IN ('a',)", Kind::MissingValue),
        ("attributes.k IN (1,2", Kind::MalformedList),
        ("attributes.k NOT IN (1)", Kind::MissingComparison),
    ] {
        let error = Filter::parse_extended(text).expect_err(text);
        assert_eq!(error.kind(), kind, "LIB-203: {text}");
    }
}

#[test]
fn lib_203_limits_hold_on_both_sides() {
    let list = |count: usize| {
        let values: Vec<_> = (0..count).map(|n| n.to_string()).collect();
        Filter::parse_extended(&format!("attributes.k IN ({})", values.join(",")))
    };
    assert!(list(MAX_LIST_VALUES).is_ok());
    let error = list(MAX_LIST_VALUES + 1).unwrap_err();
    assert_eq!(error.kind(), Kind::TooManyValues { max: MAX_LIST_VALUES }); // LIB-203
    let number = |digits| Filter::parse_extended(&format!("attributes.k = {}", "1".repeat(digits)));
    assert!(number(MAX_NUMBER_BYTES).is_ok());
    assert_eq!(number(MAX_NUMBER_BYTES + 1).unwrap_err().kind(), Kind::InvalidNumber); // LIB-203
    let glob = |length: usize| {
        let run = "a".repeat(length - 1);
        Filter::parse_extended(&format!("matchesGlob(attributes.k, '*?{run}*')"))
    };
    assert!(glob(MAX_GLOB_RUN).is_ok());
    assert_eq!(glob(MAX_GLOB_RUN + 1).unwrap_err().kind(), Kind::InvalidPattern); // LIB-203
    let long = |bytes: usize| Filter::parse_extended(&format!("{}true", " ".repeat(bytes - 4)));
    assert!(long(4_096).is_ok());
    assert_eq!(long(4_097).unwrap_err().kind(), Kind::TooLong { len: 4_097, max: 4_096 });
    let mut wide = ParseLimits::EXTENDED;
    wide.max_bytes = 10_000;
    let predicates = |count: usize| Filter::parse_with(&vec!["true"; count].join(" OR "), wide);
    assert!(predicates(512).is_ok());
    assert_eq!(predicates(513).unwrap_err().kind(), Kind::TooManyPredicates { max: 512 });
}

#[test]
fn lib_203_strict_filters_mean_the_same() {
    #[derive(serde::Deserialize)]
    struct Vectors {
        valid: Vec<Valid>,
    }
    #[derive(serde::Deserialize)]
    struct Valid {
        filter: String,
        cases: Vec<Case>,
        canonical: String,
    }
    #[derive(serde::Deserialize)]
    struct Case {
        attributes: BTreeMap<String, String>,
        matches: bool,
    }
    let text = include_str!("data/filter-vectors.json");
    for Valid { filter: source, cases, canonical } in
        serde_json::from_str::<Vectors>(text).unwrap().valid
    {
        let filter = Filter::parse_extended(&source).unwrap();
        assert_eq!(filter.dialect(), Dialect::Strict, "LIB-203: {source}");
        assert_eq!(filter.to_string(), canonical, "LIB-203: {source}");
        assert_eq!(filter, Filter::parse(&source).unwrap(), "LIB-203: {source}");
        for Case { attributes, matches } in cases {
            let message = Message::new("").with_attributes(attributes);
            assert_eq!(filter.matches(&message), matches, "LIB-203: {source}");
        }
    }
}
