//! The published vectors of the strict dialect against the parser, the printer and evaluation.
//!
//! Binding are acceptance, verdicts and canonical text. Where the reference stopped and what it
//! called the mistake is informative; it is compared all the same, with every difference listed,
//! so that a change of diagnosis is seen.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use serde::Deserialize;
use siftbus::Filter;
use siftbus::filter::{ParseErrorKind as Kind, ParseLimits};

#[derive(Deserialize)]
struct Vectors {
    valid: Vec<Valid>,
    invalid: Vec<Invalid>,
}

#[derive(Deserialize)]
struct Valid {
    filter: String,
    cases: Vec<Case>,
    canonical: String,
}

#[derive(Deserialize)]
struct Case {
    attributes: BTreeMap<String, String>,
    matches: bool,
}

#[derive(Deserialize)]
struct Invalid {
    filter: String,
    why: String,
    code: String,
    at: usize,
}

fn vectors() -> Vectors {
    serde_json::from_str(include_str!("data/filter-vectors.json")).unwrap()
}

#[test]
fn the_file_is_complete() {
    let vectors = vectors();
    assert_eq!((vectors.valid.len(), vectors.invalid.len()), (103, 141));
}

#[test]
fn valid_filters_parse_and_evaluate() {
    for Valid { filter: source, cases, .. } in vectors().valid {
        let filter = Filter::parse(&source).unwrap_or_else(|e| panic!("{e:#}"));
        assert_eq!(filter.source(), source);
        for Case { attributes, matches } in cases {
            let verdict = filter.matches_with(|key| attributes.get(key).map(String::as_str));
            assert_eq!(verdict, matches, "{source} on {attributes:?}");
        }
    }
}

#[test]
fn printing_is_canonical_and_reads_back() {
    for Valid { filter: source, canonical, .. } in vectors().valid {
        let filter = Filter::parse(&source).unwrap();
        assert_eq!(filter.to_string(), canonical, "{source}");
        let again = Filter::parse_with(&canonical, ParseLimits::EMBEDDED).unwrap();
        assert_eq!((&again, again.to_string()), (&filter, canonical), "{source}");
    }
}

#[test]
fn filters_are_data() {
    for Valid { filter: source, .. } in vectors().valid {
        let filter = Filter::parse(&source).unwrap();
        let text = serde_json::to_string(&filter).unwrap();
        assert_eq!(text, serde_json::to_string(&source).unwrap());
        let back: Filter = serde_json::from_str(&text).unwrap();
        assert_eq!((&back, back.source()), (&filter, source.as_str()));
    }
    let error = serde_json::from_str::<Filter>(r#""x""#).unwrap_err();
    assert!(error.to_string().starts_with("invalid filter at byte 0: "), "{error}");
}

#[test]
fn invalid_filters_are_rejected() {
    for Invalid { filter: source, why, .. } in vectors().invalid {
        let error = Filter::parse(&source).expect_err(&format!("{why}: {source}"));
        assert!(source.get(error.span()).is_some(), "{source}");
        assert!(!error.expected().is_empty(), "{source}");
        assert!(error.found().chars().count() <= 32, "{source}");
        assert!(!error.to_string().contains('\n'), "{source}");
        assert_eq!(format!("{error:#}").lines().count(), 4, "{source}");
    }
}

#[test]
fn diagnoses_follow_the_reference() {
    let mut differences = Vec::new();
    for Invalid { filter: source, code, at, .. } in vectors().invalid {
        let error = Filter::parse(&source).unwrap_err();
        let (kind, start) = (plain(error.kind()), error.span().start);
        if start != at || !kinds_of(&code).contains(&kind) {
            differences.push((source, kind, start));
        }
    }
    let differences: Vec<_> = differences.iter().map(|(s, k, at)| (s.as_str(), *k, *at)).collect();
    assert_eq!(differences, DIFFERENCES);
}

/// Where we know better than the reference, or point to the whole key where it points to the
/// first character that is wrong.
const DIFFERENCES: [(&str, Kind, usize); 22] = [
    ("attributes.name == \"com\"", Kind::ExtendedOnly, 16),
    ("attributes.iana.org/language_tag = \"en\"", Kind::KeyNeedsQuotes, 11),
    ("attributes:iana.org/language_tag", Kind::KeyNeedsQuotes, 11),
    ("attributes.a.b = \"c\"", Kind::KeyNeedsQuotes, 11),
    ("attributes.two words = \"x\"", Kind::KeyNeedsQuotes, 15),
    ("attributes.a@b = \"x\"", Kind::KeyNeedsQuotes, 11),
    ("not attributes:a", Kind::Case, 0),
    ("Not attributes:a", Kind::Case, 0),
    ("!attributes:a", Kind::UnknownOperator, 0),
    ("! attributes:a", Kind::UnknownOperator, 0),
    (")attributes:a(", Kind::UnopenedParenthesis, 0),
    ("[attributes:a]", Kind::UnexpectedText, 0),
    ("hasPrefix(attributes.a,)", Kind::MissingValue, 23),
    ("hasSuffix(attributes.a, \"b\")", Kind::ExtendedOnly, 0),
    ("contains(attributes.a, \"b\")", Kind::ExtendedOnly, 0),
    ("attributes.a.startsWith(\"b\")", Kind::KeyNeedsQuotes, 11),
    ("true", Kind::ExtendedOnly, 0),
    ("*", Kind::UnexpectedText, 0),
    ("/* c */ attributes:a", Kind::UnexpectedText, 0),
    ("attributes.café = \"x\"", Kind::KeyNeedsQuotes, 11),
    ("attributes:a\u{a0}AND attributes:b", Kind::UnexpectedText, 12),
    ("\u{feff}attributes:a", Kind::UnexpectedText, 0),
];

/// A kind without its numbers.
fn plain(kind: Kind) -> Kind {
    match kind {
        Kind::TooLong { .. } => Kind::TooLong { len: 0, max: 0 },
        Kind::TooDeep { .. } => Kind::TooDeep { max: 0 },
        other => other,
    }
}

/// The kinds that a code of the reference, which is coarser, can stand for.
fn kinds_of(code: &str) -> &'static [Kind] {
    match code {
        "bad-operator" => {
            &[Kind::MissingComparison, Kind::UnknownOperator, Kind::ExtendedOnly, Kind::MissingKey]
        }
        "bad-key" => &[Kind::MissingKey, Kind::KeyNeedsQuotes],
        "missing-value" => &[Kind::MissingValue],
        "unquoted-value" => &[Kind::UnquotedValue],
        "unterminated" => &[Kind::UnterminatedString],
        "trailing" => &[Kind::MissingOperator, Kind::UnexpectedText, Kind::UnknownOperator],
        "value-first" => &[Kind::ValueFirst],
        "unknown" => &[Kind::UnknownName],
        "case" => &[Kind::Case],
        "mixed" => &[Kind::MixedOperators],
        "missing-operand" => &[Kind::MissingOperand],
        "unbalanced" => &[Kind::UnclosedParenthesis, Kind::UnopenedParenthesis],
        "empty-parens" => &[Kind::EmptyParentheses],
        "bad-call" => &[Kind::MalformedCall],
        "too-long" => &[Kind::TooLong { len: 0, max: 0 }],
        "too-deep" => &[Kind::TooDeep { max: 0 }],
        "single-quote" => &[Kind::SingleQuotes],
        "space-dot" => &[Kind::SpaceAroundDot],
        "bad-escape" => &[Kind::InvalidEscape],
        "control" => &[Kind::ControlCharacter],
        other => panic!("unknown code {other}"),
    }
}
