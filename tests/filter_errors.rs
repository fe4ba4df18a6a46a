//! What the parser says about mistakes: kinds and hints of the frequent slips, the shape of the
//! excerpt, and both sides of every size limit.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use siftbus::Filter;
use siftbus::filter::{
    CombineError, DEPTH_CEILING, EMBEDDED_MAX_PREDICATES, MAX_DEPTH, ParseError,
    ParseErrorKind as Kind, ParseLimits,
};

fn error(source: &str) -> ParseError {
    Filter::parse(source).expect_err(source)
}

#[test]
fn frequent_slips_are_named_and_answered() {
    const EXTENDED: &str = "available in the extended dialect";
    const UPPER_CASE: &str = "operators are written in upper case";
    let slips = [
        ("attributes:a and attributes:b", Kind::Case, "and", UPPER_CASE),
        ("attributes:a Or attributes:b", Kind::Case, "Or", UPPER_CASE),
        ("not attributes:a", Kind::Case, "not", UPPER_CASE),
        ("attributes:a && attributes:b", Kind::UnknownOperator, "&&", "write AND"),
        ("attributes:a || attributes:b", Kind::UnknownOperator, "||", "write OR"),
        ("!attributes:a", Kind::UnknownOperator, "!", "write NOT"),
        ("attributes.a <> \"x\"", Kind::UnknownOperator, "<>", "write !="),
        ("attributes.a ! = \"x\"", Kind::UnknownOperator, "!", "write = or !="),
        ("attributes.a = com", Kind::UnquotedValue, "com", "write \"com\""),
        ("attributes.a = 1", Kind::UnquotedValue, "1", "write \"1\""),
        ("attributes.a = com\"", Kind::UnquotedValue, "com\"", "write \"com\""),
        ("hasPrefix(attributes.a, b)", Kind::UnquotedValue, "b", "write \"b\""),
        (
            "attributes.a = 'com'",
            Kind::SingleQuotes,
            "'com'",
            "use double quotes (or the extended dialect)",
        ),
        ("attributes.a.b = \"x\"", Kind::KeyNeedsQuotes, "a.b", "write attributes.\"a.b\""),
        ("attributes.a/b = \"x\"", Kind::KeyNeedsQuotes, "a/b", "write attributes.\"a/b\""),
        ("attributes:a.b", Kind::KeyNeedsQuotes, "a.b", "write attributes:\"a.b\""),
        ("attributes:\\u307F", Kind::KeyNeedsQuotes, "\\u307F", "write attributes:\"\\u307F\""),
        ("attributes.a b = \"x\"", Kind::KeyNeedsQuotes, "b", "write attributes.\"a b\""),
        ("name = \"x\"", Kind::UnknownName, "name", "write attributes.name"),
        ("name:x", Kind::UnknownName, "name", "write attributes:name"),
        ("NOTattributes:a", Kind::UnknownName, "NOTattributes", "put a space after NOT"),
        ("NOT-attributes:a", Kind::UnknownName, "NOT-attributes", "put a space after NOT"),
        ("attributes.a < \"1\"", Kind::ExtendedOnly, "<", EXTENDED),
        ("attributes.a >= 1", Kind::ExtendedOnly, ">=", EXTENDED),
        ("attributes.a IN (\"x\")", Kind::ExtendedOnly, "IN", EXTENDED),
        ("hasSuffix(attributes.a, \"x\")", Kind::ExtendedOnly, "hasSuffix", EXTENDED),
        ("message.ordering_key = \"x\"", Kind::ExtendedOnly, "message", EXTENDED),
        ("message : ordering_key", Kind::ExtendedOnly, "message", EXTENDED),
        ("true", Kind::ExtendedOnly, "true", EXTENDED),
        ("attributes.a == \"x\"", Kind::ExtendedOnly, "==", "write ="),
        ("attributes:a attributes:b", Kind::MissingOperator, "attributes", "put AND or OR between"),
        ("attributes:a (attributes:b)", Kind::MissingOperator, "(", "put AND or OR between"),
        (
            "attributes:a ANDattributes:b",
            Kind::MissingOperator,
            "ANDattributes",
            "put a space after AND",
        ),
    ];
    for (source, kind, found, hint) in slips {
        let error = error(source);
        assert_eq!((error.kind(), error.found()), (kind, found), "{source}");
        assert_eq!(error.hint(), Some(hint), "{source}");
        assert_eq!(&source[error.span()], found, "{source}");
    }
    let like = error("attributes.a LIKE \"x%\"");
    assert_eq!((like.kind(), like.found()), (Kind::ExtendedOnly, "LIKE"));
    assert!(like.hint().unwrap().starts_with(EXTENDED));
}

#[test]
fn hints_can_be_followed() {
    for source in ["attributes.a.b = \"x\"", "attributes:a.b", "attributes:\\u307F"] {
        let error = error(source);
        let key_start = error.span().start - "attributes.".len();
        let advice = error.hint().unwrap().strip_prefix("write ").unwrap();
        let fixed = format!("{}{advice}{}", &source[..key_start], &source[error.span().end..]);
        assert!(Filter::parse(&fixed).is_ok(), "{fixed}");
    }
}

#[test]
fn what_is_missing_is_named() {
    let cases = [
        ("attributes", Kind::MissingKey, 10),
        ("attributes.", Kind::MissingKey, 11),
        ("attributes. ", Kind::MissingKey, 11),
        ("attributes. a = \"\"", Kind::SpaceAroundDot, 11),
        ("hasPrefix(attributes .a, \"\")", Kind::SpaceAroundDot, 20),
        ("attributes.a", Kind::MissingComparison, 12),
        ("attributes.a AND attributes:b", Kind::MissingComparison, 13),
        ("attributes.a =", Kind::MissingValue, 14),
        ("(attributes.a = )", Kind::MissingValue, 16),
        ("NOT", Kind::MissingOperand, 3),
        ("(", Kind::MissingOperand, 1),
        ("(NOT )", Kind::MissingOperand, 5),
        ("( )", Kind::EmptyParentheses, 2),
        ("((attributes:a)", Kind::UnclosedParenthesis, 0),
        ("attributes:a)", Kind::UnopenedParenthesis, 12),
        ("\"com\" = attributes.a", Kind::ValueFirst, 0),
        ("attributes:a = \"x\"", Kind::UnexpectedText, 13),
        ("attributes:a, attributes:b", Kind::UnexpectedText, 12),
        ("attributes:a !attributes:b", Kind::MissingOperator, 13),
        ("hasPrefix(attributes:a, \"b\")", Kind::MalformedCall, 20),
        ("attributes.a = \"b", Kind::UnterminatedString, 15),
        ("attributes.a = \"b\\q\"", Kind::InvalidEscape, 17),
        ("attributes.a = \"\t\"", Kind::ControlCharacter, 16),
    ];
    for (source, kind, at) in cases {
        let error = error(source);
        assert_eq!((error.kind(), error.span().start), (kind, at), "{source}");
    }
    assert_eq!(error("attributes.a =").found(), "end of filter");
}

#[test]
fn the_alternate_form_shows_the_place() {
    let shown = [
        (
            "attributes:a AND attributes:b OR attributes:c",
            "\
invalid filter at byte 30: AND and OR need parentheses when combined
  attributes:a AND attributes:b OR attributes:c
                                ^^
  expected AND or end of filter; write (… AND …) OR … or … AND (… OR …)",
        ),
        (
            "(attributes:a OR attributes:b AND attributes:c)",
            "\
invalid filter at byte 30: AND and OR need parentheses when combined
  (attributes:a OR attributes:b AND attributes:c)
                                ^^^
  expected OR or ); write (… OR …) AND … or … OR (… AND …)",
        ),
        // Columns count characters; tabs stay tabs, line breaks become visible.
        (
            "attributes:\"é\"\tAND\nname",
            "\
invalid filter at byte 20: unknown name `name`
  attributes:\"é\"\tAND␊name
                \t    ^^^^
  expected attributes, hasPrefix, NOT or (; write attributes.name",
        ),
        (
            "attributes.name =",
            "\
invalid filter at byte 17: the value is missing
  attributes.name =
                   ^
  expected a string in double quotes",
        ),
    ];
    for (source, text) in shown {
        assert_eq!(format!("{:#}", error(source)), text);
    }
}

#[test]
fn long_filters_show_a_window() {
    let limits = ParseLimits::EMBEDDED;
    let long = |left: usize, right: usize| {
        let (left, right) = ("x".repeat(left), "y".repeat(right));
        let source = format!("attributes.a = \"{left}\" or attributes.b = \"{right}\"");
        let error = Filter::parse_with(&source, limits).unwrap_err();
        let text = format!("{error:#}");
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        (source, lines)
    };
    // 100 characters are shown whole, 101 are not.
    let (source, lines) = long(40, 22);
    assert_eq!((source.len(), &lines[1][2..]), (100, source.as_str()));
    let (source, lines) = long(40, 23);
    assert_eq!(source.len(), 101);
    assert_eq!(lines[1], format!("  …{}…", &source[18..100]));
    assert_eq!(lines[2], format!("  {}^^", " ".repeat(41)));
    // The line is as long for any length of the filter.
    let (_, lines) = long(1_000, 1_000);
    assert_eq!(lines[1].chars().count(), 2 + 1 + 40 + 2 + 40 + 1);
    // A long mistake is cut as well.
    let source = format!("attributes.a = \"{}", "é".repeat(1_000));
    let text = format!("{:#}", Filter::parse_with(&source, limits).unwrap_err());
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], format!("  attributes.a = \"{}…", "é".repeat(39)));
    assert_eq!(lines[2], format!("  {}{}", " ".repeat(15), "^".repeat(40)));
}

#[test]
fn what_is_shown_is_short_and_printable() {
    let error = error(&format!("attributes.a = {}", "x".repeat(200)));
    assert_eq!(error.found(), format!("{}…", "x".repeat(31)));
    assert_eq!(error.hint().unwrap(), format!("write \"{}…\"", "x".repeat(31)));
    let exact = "x".repeat(32);
    assert_eq!(Filter::parse(&format!("attributes.a = {exact}")).unwrap_err().found(), exact);

    let error = Filter::parse("attributes.a = b\u{0}\u{202E}\u{A0}\u{E0001}").unwrap_err();
    assert_eq!(error.found(), r"b\u0000\u202E\u00A0\U000E0001");
    assert_eq!(format!("{error:#}").lines().nth(1), Some("  attributes.a = b␀���"));
}

#[test]
fn the_byte_limit_counts_what_was_given() {
    let sized = |len: usize| format!("attributes.a = \"{}\"", "x".repeat(len - 17));
    assert!(Filter::parse(&sized(256)).is_ok());
    let error = error(&sized(257));
    assert_eq!((error.kind(), error.span()), (Kind::TooLong { len: 257, max: 256 }, 256..257));
    assert_eq!(error.hint(), None);

    assert!(Filter::parse(&" ".repeat(256)).unwrap().is_all());
    assert!(Filter::parse(&" ".repeat(257)).is_err());
    assert!(Filter::parse_with(&sized(4_096), ParseLimits::EMBEDDED).is_ok());
    assert!(Filter::parse_with(&sized(4_097), ParseLimits::EMBEDDED).is_err());
    // The limit may fall into a character.
    assert_eq!(Filter::parse(&"é€".repeat(60)).unwrap_err().span(), 255..300);
}

#[test]
fn the_predicate_limit_counts_predicates() {
    let mut limits = ParseLimits::EMBEDDED;
    limits.max_predicates = ParseLimits::STRICT.max_predicates;
    let sized = |count: usize| vec!["attributes:a"; count].join(" OR ");
    assert!(Filter::parse_with(&sized(64), limits).is_ok());
    let error = Filter::parse_with(&sized(65), limits).unwrap_err();
    assert_eq!((error.kind(), error.span().start), (Kind::TooManyPredicates { max: 64 }, 64 * 16));
}

#[test]
fn the_depth_limit_counts_parentheses_and_negations() {
    let nested = |negations: usize, groups: usize| {
        let (open, close) = ("(".repeat(groups), ")".repeat(groups));
        format!("{}{open}attributes:a{close}", "-".repeat(negations))
    };
    assert!(Filter::parse(&nested(128, 0)).is_ok());
    assert_eq!(error(&nested(129, 0)).kind(), Kind::TooDeep { max: 128 });
    assert_eq!(error(&nested(129, 0)).span(), 128..129);
    // The canonical text of the deepest filter nests deeper, but can still be read.
    let mut reading = ParseLimits::EMBEDDED;
    reading.max_depth = DEPTH_CEILING;
    let deepest = Filter::parse(&nested(128, 0)).unwrap();
    assert_eq!(Filter::parse_with(&deepest.to_string(), reading).unwrap(), deepest);

    let limits = ParseLimits::EMBEDDED;
    for (negations, groups) in [(0, 128), (64, 64), (127, 1)] {
        assert!(Filter::parse_with(&nested(negations, groups), limits).is_ok());
        assert!(Filter::parse_with(&nested(negations, groups + 1), limits).is_err());
    }
    // Depth is left again: it is not the number of parentheses.
    let wide = vec!["NOT (attributes:a)"; 150].join(" AND ");
    assert!(Filter::parse_with(&wide, limits).is_ok());
}

#[test]
fn no_limits_reach_beyond_the_ceiling() {
    let mut limits = ParseLimits::EMBEDDED;
    limits.max_bytes = usize::MAX;
    limits.max_depth = usize::MAX;
    limits.max_predicates = usize::MAX;
    let negations = |count: usize| format!("{}attributes:a", "-".repeat(count));
    let deep = Filter::parse_with(&negations(DEPTH_CEILING), limits).unwrap();
    assert!(deep.matches_with(|_| Some("")));
    assert_eq!(deep.to_string().len(), 6 * (DEPTH_CEILING - 1) + 4 + 12);
    let kind = Filter::parse_with(&negations(100_000), limits).unwrap_err().kind();
    assert_eq!(kind, Kind::TooDeep { max: DEPTH_CEILING });

    let alternating = "(attributes:a OR (attributes:b AND ".repeat(DEPTH_CEILING / 2);
    let source = format!("{alternating}attributes:c{}", ")".repeat(DEPTH_CEILING));
    let filter = Filter::parse_with(&source, limits).unwrap();
    assert!(filter.matches_with(|key| (key != "a").then_some("")));
    assert_eq!(Filter::parse_with(&filter.to_string(), limits).unwrap(), filter);
}

#[test]
fn combining_is_limited_too() {
    let mut deep = Filter::has("a");
    // `NOT (…)` is two levels, the innermost `NOT` one.
    for _ in 0..MAX_DEPTH / 2 {
        deep = deep.not().unwrap();
    }
    assert_eq!(deep.not(), Err(CombineError::TooDeep { max: MAX_DEPTH }));
    let mut limits = ParseLimits::EMBEDDED;
    limits.max_depth = MAX_DEPTH;
    assert_eq!(Filter::parse_with(deep.source(), limits).unwrap(), deep);

    let mut wide = Filter::has("a");
    for _ in 1..EMBEDDED_MAX_PREDICATES {
        wide = wide.or(&Filter::has("a")).unwrap();
    }
    let (len, max) = (EMBEDDED_MAX_PREDICATES + 1, EMBEDDED_MAX_PREDICATES);
    assert_eq!(wide.or(&Filter::has("a")), Err(CombineError::TooManyPredicates { len, max }));
}

#[test]
fn everything_combines_with_the_empty_filter() {
    let (all, a) = (Filter::all(), Filter::has("a"));
    assert_eq!(all.and(&a).unwrap(), a);
    assert_eq!(a.and(&all).unwrap(), a);
    assert!(all.or(&a).unwrap().is_all());
    assert!(a.or(&all).unwrap().is_all());
    assert_eq!(all.not(), Err(CombineError::MatchesNothing));
    assert_eq!((all.source(), all.to_string().as_str()), ("", ""));
}

#[test]
fn filters_and_errors_travel_between_threads() {
    fn assert_static<T: Send + Sync + Clone + 'static>() {}
    assert_static::<Filter>();
    assert_static::<ParseError>();
    assert_static::<CombineError>();
}
