//! Nasty filters, one by one, each with the sentence of the language's description it tests.
//!
//! "R n" is a rule of the strict dialect (escapes, white space, negation, size …), "X" an addition
//! of the extended one; what both mean stands in `docs/semantics.md` (FIL-1, FIL-4, LIB-203).

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use siftbus::filter::{Dialect, ParseErrorKind as Kind, ParseLimits};
use siftbus::{Filter, Message};

/// Valid in both dialects, with the same canonical text.
fn valid(rule: &str, source: &str, canonical: &str) -> Filter {
    let filter = Filter::parse(source).unwrap_or_else(|e| panic!("{rule}: {source:?}\n{e:#}"));
    assert_eq!(filter.to_string(), canonical, "{rule}: {source:?}");
    assert_eq!(filter.source(), source, "{rule}");
    assert_eq!(filter.dialect(), Dialect::Strict, "{rule}: {source:?}");
    let extended = Filter::parse_extended(source).unwrap();
    assert_eq!((&extended, extended.to_string().as_str()), (&filter, canonical), "{rule}");
    filter
}

/// Invalid in the strict dialect; the error is about `found`.
fn invalid(rule: &str, source: &str, kind: Kind, found: &str) {
    let error = Filter::parse(source).expect_err(&format!("{rule}: {source:?}"));
    assert_eq!(error.kind(), kind, "{rule}: {source:?}");
    assert_eq!(source.get(error.span()), Some(found), "{rule}: {source:?}");
    assert_eq!(error.code(), siftbus::Code::InvalidArgument, "{rule}");
    assert!(!error.to_string().contains(char::is_control), "{rule}: one line");
}

fn extended(source: &str) -> Filter {
    let filter = Filter::parse_extended(source).unwrap_or_else(|e| panic!("{source:?}\n{e:#}"));
    let again = Filter::parse_extended(&filter.to_string()).unwrap();
    assert_eq!((&again, again.to_string()), (&filter, filter.to_string()), "X: {source:?}");
    filter
}

fn k(value: &str) -> Message {
    Message::new("").with_attribute("k", value)
}

/// Whether an extended filter matches a message with these values of `k`.
fn matches(source: &str, yes: &[&str], no: &[&str]) {
    let filter = extended(source);
    yes.iter().for_each(|v| assert!(filter.matches(&k(v)), "X: {source} on {v:?}"));
    no.iter().for_each(|v| assert!(!filter.matches(&k(v)), "X: {source} on {v:?}"));
    let not = extended(&format!("NOT ({source})"));
    yes.iter().for_each(|v| assert!(!not.matches(&k(v)), "X: NOT {source} on {v:?}"));
    no.iter().for_each(|v| assert!(not.matches(&k(v)), "X: NOT {source} on {v:?}"));
}

#[test]
fn fil_4_keywords_exist_in_upper_case_only_and_are_keys_where_a_key_stands() {
    valid("R 1", "attributes:AND", "attributes:\"AND\"");
    valid("R 5", "attributes.OR=\"OR\"", "attributes.\"OR\" = \"OR\"");
    valid("R 5", "NOT attributes:NOT", "NOT attributes:\"NOT\"");
    valid("R 5", "attributes:attributes", "attributes:attributes");
    valid("R 5", "attributes.hasPrefix != \"hasPrefix\"", "attributes.hasPrefix != \"hasPrefix\"");
    valid("R 5", "attributes:and AND attributes:or", "attributes:and AND attributes:or");
    valid(
        "R 5",
        "attributes:AND AND attributes:OR AND NOT attributes:AND",
        "attributes:\"AND\" AND attributes:\"OR\" AND NOT attributes:\"AND\"",
    );
    invalid("R 1", "attributes:a And attributes:b", Kind::Case, "And");
    invalid("R 1", "attributes:a oR attributes:b", Kind::Case, "oR");
    invalid("R 1", "nOT attributes:a", Kind::Case, "nOT");
    invalid("R 1", "Attributes:a", Kind::UnknownName, "Attributes");
    invalid("R 1", "hasprefix(attributes.a, \"b\")", Kind::UnknownName, "hasprefix");
    invalid("R 1", "HASPREFIX(attributes.a, \"b\")", Kind::UnknownName, "HASPREFIX");
    invalid("R 9", "AND", Kind::MissingOperand, "AND");
    invalid("R 9", "attributes:a AND", Kind::MissingOperand, "");
    invalid("R 9", "OR attributes:a", Kind::MissingOperand, "OR");
    invalid("R 9", "attributes:a AND OR attributes:b", Kind::MissingOperand, "OR");
    invalid("R 9", "NOT", Kind::MissingOperand, "");
    invalid("R 9", "-", Kind::MissingOperand, "");
}

#[test]
fn fil_4_keys() {
    valid("R 5", "attributes:0", "attributes:0");
    valid("R 5", "attributes:-", "attributes:\"-\"");
    valid("R 5", "attributes:--a", "attributes:\"--a\"");
    valid("R 5", "attributes.-a = \"-\"", "attributes.\"-a\" = \"-\"");
    valid("R 5", "attributes:a-", "attributes:a-");
    valid("R 5", "attributes:_", "attributes:_");
    valid("R 5", "attributes.\"plain\" = \"\"", "attributes.plain = \"\"");
    valid("R 5", "attributes:\"\"", "attributes:\"\"");
    valid("R 5", "attributes:\"a.b\"", "attributes:\"a.b\"");
    valid("R 7", "attributes:\"\\x61\\142\\u0063\"", "attributes:abc");
    valid("R 7", "attributes.\"\\u00e9\" = \"\"", "attributes.\"é\" = \"\"");
    invalid("R 5", "attributes:é", Kind::KeyNeedsQuotes, "é");
    invalid("R 5", "attributes.a.b = \"c\"", Kind::KeyNeedsQuotes, "a.b");
    invalid("R 5", "attributes.a..b = \"c\"", Kind::KeyNeedsQuotes, "a..b");
    invalid("R 5", "attributes:a/b", Kind::KeyNeedsQuotes, "a/b");
    invalid("R 5", "attributes:*", Kind::KeyNeedsQuotes, "*");
    invalid("R 5", "attributes.\"a\"b = \"c\"", Kind::KeyNeedsQuotes, "b");
    invalid("R 6", "attributes:'a'", Kind::SingleQuotes, "'a'");
    invalid("R 7", "attributes:a\\u0062", Kind::KeyNeedsQuotes, "a\\u0062");
    invalid("R 8", "attributes .a = \"b\"", Kind::SpaceAroundDot, " ");
    invalid("R 8", "attributes.\ta = \"b\"", Kind::SpaceAroundDot, "\t");
    invalid("R 8", "hasPrefix(attributes. a, \"b\")", Kind::SpaceAroundDot, " ");
    invalid("R 5", "attributes.", Kind::MissingKey, "");
    invalid("R 5", "attributes:", Kind::MissingKey, "");
    invalid("R 5", "attributes", Kind::MissingKey, "");
    invalid("R 5", "attributes.=\"a\"", Kind::MissingKey, "=");
}

#[test]
fn fil_4_white_space() {
    let spaced = "\n\tattributes\r:\na \r\n AND\t( \n attributes.b\t!=\r\"c\" )\n";
    valid("R 8", spaced, "attributes:a AND attributes.b != \"c\"");
    valid("R 8", "attributes :a", "attributes:a");
    valid("R 8", "hasPrefix ( attributes.a , \"b\" )", "hasPrefix(attributes.a, \"b\")");
    valid("R 8", "NOT(attributes:a)", "NOT attributes:a");
    valid(
        "R 8",
        "(attributes:a)AND(attributes:b)AND attributes.c=\"\"AND attributes:d",
        "attributes:a AND attributes:b AND attributes.c = \"\" AND attributes:d",
    );
    valid("R 8", "attributes:\"a\"OR(attributes:b)", "attributes:a OR attributes:b");
    valid("R 10", "", "");
    valid("R 10", " \t\r\n", "");
    invalid("R 8", "NOTattributes:a", Kind::UnknownName, "NOTattributes");
    invalid("R 8", "attributes:a ANDattributes:b", Kind::MissingOperator, "ANDattributes");
    invalid("R 8", "attributes:a AND-attributes:b", Kind::MissingOperator, "AND-attributes");
    invalid("R 8", "NOT-attributes:a", Kind::UnknownName, "NOT-attributes");
    invalid("R 8", "attributes:a\u{a0}AND attributes:b", Kind::UnexpectedText, "\u{a0}");
    invalid("R 8", "\u{feff}attributes:a", Kind::UnexpectedText, "\u{feff}");
    invalid("R 8", "attributes:a\u{b}", Kind::UnexpectedText, "\u{b}");
    invalid("R 8", "attributes:a\u{2028}", Kind::UnexpectedText, "\u{2028}");
    invalid("R 9", "attributes:a;", Kind::UnexpectedText, ";");
    invalid("R 9", "attributes:a,", Kind::UnexpectedText, ",");
    invalid("R 9", "attributes:a # comment", Kind::UnexpectedText, "#");
    invalid("R 9", "attributes:a // comment", Kind::UnexpectedText, "/");
    invalid("R 9", "attributes:a -- comment", Kind::MissingOperator, "--");
    invalid("R 9", "attributes:a attributes:b", Kind::MissingOperator, "attributes");
    invalid("R 9", "attributes:a (attributes:b)", Kind::MissingOperator, "(");
    invalid("R 9", "(attributes:a)(attributes:b)", Kind::MissingOperator, "(");
    invalid("R 9", "attributes:a NOT attributes:b", Kind::MissingOperator, "NOT");
    invalid("R 9", "attributes:a -attributes:b", Kind::MissingOperator, "-attributes");
}

#[test]
fn fil_4_negation_binds_tightest_and_operators_do_not_mix() {
    let a = |text| valid("R 3", text, "NOT attributes:a OR attributes:b");
    for text in [
        "NOT attributes:a OR attributes:b",
        "-attributes:a OR attributes:b",
        "- attributes:a OR attributes:b",
        "(NOT attributes:a) OR attributes:b",
        "-(attributes:a) OR (attributes:b)",
    ] {
        let filter = a(text);
        let has = |key: &'static str| filter.matches_with(|asked| (asked == key).then_some(""));
        assert!(has("b") && has("c") && !has("a"), "R 3: {text}");
    }
    valid("R 3", "NOT (attributes:a OR attributes:b)", "NOT (attributes:a OR attributes:b)");
    valid("R 3", "NOT NOT attributes:a", "NOT (NOT attributes:a)");
    valid("R 3", "--attributes:a", "NOT (NOT attributes:a)");
    valid("R 3", "- - attributes:a", "NOT (NOT attributes:a)");
    valid("R 3", "NOT -attributes:a", "NOT (NOT attributes:a)");
    valid("R 3", "-NOT attributes:a", "NOT (NOT attributes:a)");
    valid("R 3", "-(-(attributes:a))", "NOT (NOT attributes:a)");
    valid(
        "R 2",
        "(attributes:a AND attributes:b) OR attributes:c",
        "(attributes:a AND attributes:b) OR attributes:c",
    );
    valid(
        "2.2",
        "attributes:a AND (attributes:b AND (attributes:c))",
        "attributes:a AND attributes:b AND attributes:c",
    );
    valid("2.2", "((((attributes:a))))", "attributes:a");
    let mixed = Kind::MixedOperators;
    invalid("R 2", "attributes:a AND attributes:b OR attributes:c", mixed, "OR");
    invalid("R 2", "attributes:a OR attributes:b AND attributes:c", mixed, "AND");
    invalid("R 2", "attributes:a OR NOT attributes:b AND attributes:c", mixed, "AND");
    invalid("R 2", "(attributes:a OR attributes:b AND attributes:c) OR attributes:d", mixed, "AND");
    invalid(
        "R 2",
        "attributes:a AND (attributes:b) OR (attributes:c AND attributes:d)",
        mixed,
        "OR",
    );
    invalid("R 9", "()", Kind::EmptyParentheses, ")");
    invalid("R 9", "NOT ()", Kind::EmptyParentheses, ")");
    invalid("R 9", "(attributes:a", Kind::UnclosedParenthesis, "(");
    invalid("R 9", "((attributes:a)", Kind::UnclosedParenthesis, "(");
    invalid("R 9", "attributes:a)", Kind::UnopenedParenthesis, ")");
    invalid("R 9", ")", Kind::UnopenedParenthesis, ")");
    invalid("R 9", "(attributes:a AND )", Kind::MissingOperand, ")");
}

#[test]
fn fil_4_strings_and_escapes() {
    let value = |literal: &str, text: &str| {
        let filter = Filter::parse(&format!("attributes.k = {literal}")).unwrap();
        assert!(filter.matches(&k(text)), "R 7: {literal} is {text:?}");
        assert_eq!(filter, Filter::eq("k", text), "R 7: {literal}");
    };
    value(r#""\\\"\'\?\/""#, "\\\"'?/");
    value(r#""\a\b\f\n\r\t\v""#, "\u{7}\u{8}\u{c}\n\r\t\u{b}");
    value(r#""\x41\101\u0041\U00000041""#, "AAAA");
    value(r#""\xe9\351\u00E9""#, "ééé");
    value(r#""\x00\000""#, "\0\0");
    value(r#""\x7f\177""#, "\u{7f}\u{7f}");
    value(r#""\xC3\xA9""#, "Ã©");
    value(r#""\0610""#, "10");
    value(r#""\377""#, "ÿ");
    value(r#""\uFFFF\uD7FF\uE000""#, "\u{FFFF}\u{D7FF}\u{E000}");
    value(r#""\U0010FFFF\U0001f600""#, "\u{10FFFF}😀");
    value(r#""\\n""#, "\\n");
    value("\"e\u{301}\"", "e\u{301}");
    value("\" a \"", " a ");
    value("\"'\"", "'");
    value("\"\u{80}\u{a0}\u{feff}\"", "\u{80}\u{a0}\u{feff}");
    value("\"*?%AND(\"", "*?%AND(");
    assert!(!Filter::eq("k", "é").matches(&k("e\u{301}")), "R 6: no normalisation");
    assert!(!Filter::eq("k", "1").matches(&k("01")), "R 6: no numbers");
    assert!(!Filter::eq("k", "a").matches(&k("a ")), "R 6: no trimming");
    let bad = |literal: &str, kind, found: &str| {
        invalid("R 7", &format!("attributes.k = {literal}"), kind, found);
    };
    let escape = Kind::InvalidEscape;
    bad(r#""\x4""#, escape, r"\x4");
    bad(r#""\xg1""#, escape, r"\x");
    bad(r#""\u004""#, escape, r"\u004");
    bad(r#""\u{41}""#, escape, r"\u");
    bad(r#""\U0000004""#, escape, r"\U0000004");
    bad(r#""\U00110000""#, escape, r"\U00110000");
    bad(r#""\ud800""#, escape, r"\ud800");
    bad(r#""\uD83D\uDE00""#, escape, r"\uD83D");
    bad(r#""\U0000DFFF""#, escape, r"\U0000DFFF");
    bad(r#""\8""#, escape, r"\8");
    bad(r#""\01""#, escape, r"\01");
    bad(r#""\400""#, escape, r"\400");
    bad(r#""\e""#, escape, r"\e");
    bad(r#""\N""#, escape, r"\N");
    bad(r#""\X41""#, escape, r"\X");
    bad(r#""\ ""#, escape, r"\ ");
    bad("\"\u{7f}\"", Kind::ControlCharacter, "\u{7f}");
    bad("\"a\nb\"", Kind::ControlCharacter, "\n");
    bad("\"a\0\"", Kind::ControlCharacter, "\0");
    bad("\"a", Kind::UnterminatedString, "\"a");
    bad("\"a\\\"", Kind::UnterminatedString, "\"a\\\"");
    bad("'a'", Kind::SingleQuotes, "'a'");
    bad("a", Kind::UnquotedValue, "a");
    bad("1", Kind::UnquotedValue, "1");
    bad("true", Kind::UnquotedValue, "true");
    bad("attributes.b", Kind::UnquotedValue, "attributes.b");
    bad("\\u0061", Kind::UnquotedValue, "\\u0061");
    bad("(\"a\" OR \"b\")", Kind::UnquotedValue, "(");
    bad("", Kind::MissingValue, "");
    bad("\"a\"\"b\"", Kind::MissingOperator, "\"");
    invalid("R 4", "\"com\" = attributes.k", Kind::ValueFirst, "\"");
}

#[test]
fn fil_4_operators_the_strict_dialect_does_not_have() {
    let only = Kind::ExtendedOnly;
    invalid("2.5", "attributes.a == \"b\"", only, "==");
    invalid("2.5", "attributes.a < \"b\"", only, "<");
    invalid("2.5", "attributes.a >= 5", only, ">=");
    invalid("2.5", "attributes.a IN (\"b\")", only, "IN");
    invalid("2.5", "attributes.a LIKE \"b\"", only, "LIKE");
    invalid("2.5", "hasSuffix(attributes.a, \"b\")", only, "hasSuffix");
    invalid("2.5", "message:ordering_key", only, "message");
    invalid("2.5", "true", only, "true");
    invalid("2.5", "attributes.a <> \"b\"", Kind::UnknownOperator, "<>");
    invalid("2.5", "attributes.a : \"b\"", Kind::UnknownOperator, ":");
    invalid("2.5", "attributes:a && attributes:b", Kind::UnknownOperator, "&&");
    invalid("2.5", "attributes:a || attributes:b", Kind::UnknownOperator, "||");
    invalid("2.5", "!attributes:a", Kind::UnknownOperator, "!");
    invalid("2.5", "attributes.a =! \"b\"", Kind::UnknownOperator, "=!");
    invalid("2.5", "attributes.a ! = \"b\"", Kind::UnknownOperator, "!");
    invalid("2.5", "attributes:a = \"b\"", Kind::UnexpectedText, "=");
    invalid("2.5", "attributes[\"a\"] = \"b\"", Kind::MissingKey, "[");
    invalid("2.5", "attributes.a", Kind::MissingComparison, "");
    invalid("2.5", "data = \"b\"", Kind::UnknownName, "data");
    invalid("2.5", "hasPrefix(attributes:a, \"b\")", Kind::MalformedCall, ":");
    invalid("2.5", "hasPrefix(attributes.a)", Kind::MalformedCall, ")");
    invalid("2.5", "hasPrefix(attributes.a, \"b\", \"c\")", Kind::MalformedCall, ",");
    invalid("2.5", "hasPrefix(\"b\", attributes.a)", Kind::MalformedCall, "\"");
    invalid("2.5", "hasPrefix(attributes.a, b)", Kind::UnquotedValue, "b");
    invalid("2.5", "hasPrefix attributes.a", Kind::MalformedCall, "attributes");
}

#[test]
fn fil_1_presence_equality_and_prefix_of_absent_and_empty() {
    // 2.3: two truth values; the table of the description, each row with its negation.
    let rows: [(&str, [bool; 4]); 7] = [
        ("attributes:k", [false, true, true, true]),
        ("attributes.k = \"com\"", [false, false, true, false]),
        ("attributes.k != \"com\"", [true, true, false, true]),
        ("attributes.k = \"\"", [false, true, false, false]),
        ("attributes.k != \"\"", [true, false, true, true]),
        ("hasPrefix(attributes.k, \"com\")", [false, false, true, true]),
        ("hasPrefix(attributes.k, \"\")", [false, true, true, true]),
    ];
    for (text, expected) in rows {
        for (value, expected) in [None, Some(""), Some("com"), Some("comx")].iter().zip(expected) {
            let lookup = |key: &str| value.filter(|_| key == "k");
            assert_eq!(Filter::parse(text).unwrap().matches_with(lookup), expected, "{text}");
            for not in [format!("NOT {text}"), format!("-({text})"), format!("--{text}")] {
                let verdict = Filter::parse(&not).unwrap().matches_with(lookup);
                assert_eq!(verdict, expected == not.starts_with("--"), "2.3: {not} on {value:?}");
            }
        }
    }
    // A prefix is compared by bytes, and may end inside of a character only in the value.
    assert!(Filter::prefix("k", "é").matches(&k("éa")));
    assert!(!Filter::prefix("k", "e").matches(&k("é")));
}

#[test]
fn lim_21_length_counts_bytes_before_trimming() {
    let long = |bytes: usize, text: &str| format!("{}{text}", " ".repeat(bytes - text.len()));
    let limit = |len| Kind::TooLong { len, max: 256 };
    valid("R 10", &long(256, "attributes:a"), "attributes:a");
    let error = Filter::parse(&long(257, "attributes:a")).unwrap_err();
    assert_eq!(error.kind(), limit(257), "R 10");
    valid("R 10", &" ".repeat(256), "");
    assert_eq!(Filter::parse(&" ".repeat(257)).unwrap_err().kind(), limit(257), "R 10");
    // Two bytes a character: 128 of them fill 256 bytes, quotes and all.
    let wide = |count: usize| format!("attributes.k=\"{}\"", "é".repeat(count));
    assert_eq!(wide(120).len(), 255);
    assert!(Filter::parse(&wide(120)).is_ok(), "R 10: bytes, not characters");
    let error = Filter::parse(&wide(121)).unwrap_err();
    assert_eq!(error.kind(), limit(257), "R 10: bytes, not characters");
    assert!(wide(121).get(error.span()).is_some(), "2.5: a span on character boundaries");
    // The canonical text may be longer than what was given.
    let minus = format!("{}attributes:a", "-".repeat(100));
    assert!(Filter::parse(&minus).unwrap().to_string().len() > 256, "2.4");
}

#[test]
fn lim_21_nesting_and_predicates() {
    let nested = |depth: usize, open: &str, close: &str| {
        format!("{}attributes:a{}", open.repeat(depth), close.repeat(depth))
    };
    let mut wide = ParseLimits::EMBEDDED;
    wide.max_bytes = 100_000;
    for (open, close) in [("(", ")"), ("-", ""), ("NOT ", ""), ("-(", ")")] {
        let per = if open == "-(" { 2 } else { 1 };
        assert!(Filter::parse_with(&nested(128 / per, open, close), wide).is_ok(), "2.6: {open}");
        let error = Filter::parse_with(&nested(128 / per + 1, open, close), wide).unwrap_err();
        assert_eq!(error.kind(), Kind::TooDeep { max: 128 }, "2.6: {open}");
    }
    // Side by side they do not nest.
    let flat = vec!["(-(attributes:a))"; 400].join(" AND ");
    assert!(Filter::parse_with(&flat, wide).is_ok(), "2.6");
    let many = |count: usize| vec!["attributes:a"; count].join(" OR ");
    let mut strict = ParseLimits::STRICT;
    strict.max_bytes = 100_000;
    assert!(Filter::parse_with(&many(64), strict).is_ok(), "2.6");
    let error = Filter::parse_with(&many(65), strict).unwrap_err();
    assert_eq!(error.kind(), Kind::TooManyPredicates { max: 64 }, "2.6");
}

#[test]
fn lib_203_numbers() {
    matches("attributes.k = 0", &["0", "-0", "0.0", "-0.0", "00", "0e5"], &["", ".0", "0.", "+0"]);
    matches("attributes.k < 1", &["0.999", "-1e300", "1e-300"], &["1", "1.0", "NaN", "-inf"]);
    matches("attributes.k > 1", &["1.1", "10", "1e1"], &["inf", "Infinity", "1e999", "٣", "0x2"]);
    matches("attributes.k >= 5", &["5", "5.0", "05"], &[" 5", "5 ", "5\n", "5,0", "5_0", "1E3"]);
    matches("attributes.k = -5", &["-5", "-5.0", "-50e-1"], &["5", "--5", "- 5"]);
    // Two integers that fit 128 bits compare exactly, anything else as floating point.
    matches(
        "attributes.k = 9007199254740993",
        &["9007199254740993", "9007199254740993.0", "9007199254740992.0"],
        &["9007199254740992", "9007199254740994"],
    );
    matches(
        "attributes.k = 170141183460469231731687303715884105727",
        &["170141183460469231731687303715884105727", "170141183460469231731687303715884105728"],
        &["170141183460469231731687303715884105726"],
    );
    matches(
        "attributes.k <= -170141183460469231731687303715884105728",
        &["-170141183460469231731687303715884105728"],
        &["-170141183460469231731687303715884105727"],
    );
    // At most forty characters, in a filter as in a value.
    let digits = |count: usize| "9".repeat(count);
    matches(&format!("attributes.k = {}", digits(40)), &[&digits(40)], &[&digits(41)]);
    matches("attributes.k != 5", &["4", "five", "", "5x"], &["5", "5.0"]);
    assert!(extended("attributes.k != 5").matches(&Message::new("")), "X: absent is not equal");
    assert!(!extended("attributes.k < 5").matches(&Message::new("")), "X: absent is no number");
    matches("attributes.k = \"5\"", &["5"], &["5.0", "05"]);
    matches("attributes.k=5", &["5"], &["6"]);
    matches("attributes.k>=1 AND attributes.k<=5", &["1", "3.5", "5"], &["0.9", "5.1", "x", ""]);
    matches("attributes.k > 5 OR attributes.k < 1", &["6", "0"], &["1", "5", ""]);
    for bad in ["+5", ".5", "5.", "5e", "1E3", "0x5", "5AND", "NaN", "inf", "1e999", "1_0", "--5"] {
        let error = Filter::parse_extended(&format!("attributes.k < {bad}")).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidNumber, "X: {bad}");
    }
}

#[test]
fn lib_203_lists() {
    matches("attributes.k IN(\"a\",'b')", &["a", "b"], &["", "A", "a,b"]);
    matches("attributes.k IN (\"\")", &[""], &["a"]);
    matches("attributes.k IN (1, \"1.0\")", &["1", "1.0", "01", "1e0"], &["\"1\"", "1.01e"]);
    matches("attributes.IN IN (\"x\") OR attributes.k IN (\"y\")", &["y"], &["x"]);
    assert!(!extended("attributes.k IN (\"a\")").matches(&Message::new("")));
    assert!(extended("NOT attributes.k IN (\"a\")").matches(&Message::new("")));
    for (bad, kind) in [
        ("attributes.k IN (\"a\",)", Kind::MissingValue),
        ("attributes.k IN (,\"a\")", Kind::MissingValue),
        ("attributes.k IN (a)", Kind::UnquotedValue),
        ("attributes.k IN \"a\"", Kind::MalformedList),
        ("attributes.k IN (\"a\"", Kind::MalformedList),
        ("attributes.k NOT IN (\"a\")", Kind::MissingComparison),
        ("attributes.k In (\"a\")", Kind::Case),
        ("message.data_size IN (\"1\")", Kind::InvalidNumber),
    ] {
        assert_eq!(Filter::parse_extended(bad).unwrap_err().kind(), kind, "X: {bad}");
    }
}

#[test]
fn lib_203_patterns() {
    matches("matchesGlob(attributes.k, \"**\")", &["", "a"], &[]);
    matches("matchesGlob(attributes.k, \"a**b\")", &["ab", "axb"], &["a", "ba"]);
    matches("matchesGlob(attributes.k, \"\")", &[""], &["a"]);
    matches("matchesGlob(attributes.k, \"?\")", &["a", "é", "😀"], &["", "ab"]);
    matches("matchesGlob(attributes.k, \"??\")", &["éa"], &["é"]);
    matches("matchesGlob(attributes.k, \"*a*a*\")", &["aa", "xaxax"], &["a", "xax"]);
    matches(r#"matchesGlob(attributes.k, "\\*\\?")"#, &["*?"], &["ab", r"\a\b"]);
    matches("matchesGlob(attributes.k, \"[a-z]{1}\")", &["[a-z]{1}"], &["b"]);
    matches("matchesGlob(attributes.k, \"a\\nb*\")", &["a\nb", "a\nbc\n"], &["a b"]);
    matches("hasSuffix(attributes.k, \"é\")", &["é", "aé"], &["", "éa"]);
    matches("hasSuffix(attributes.k, \"\")", &["", "a"], &[]);
    matches("contains(attributes.k, \"\")", &["", "a"], &[]);
    matches("contains(attributes.k, \"aa\")", &["baab"], &["aba"]);
    assert!(!extended("contains(attributes.k, \"\")").matches(&Message::new("")), "X: absent");
    matches("equalsIgnoreCase(attributes.k, \"Straße\")", &["sTRAßE"], &["STRASSE", "straSSe"]);
    matches("equalsIgnoreCase(attributes.k, \"\")", &[""], &["a"]);
    matches("matchesSubject(attributes.k, \"a.*.c\")", &["a.b.c"], &["a.c", "a.b.b.c", "a.b.c.d"]);
    matches("matchesSubject(attributes.k, \"a.>\")", &["a.b", "a.b.c"], &["a", "ab.c", "b.a"]);
    matches("matchesSubject(attributes.k, \"*.*\")", &["a.b"], &["a", "a.b.c"]);
    matches("matchesSubject(attributes.k, \"a*.b\")", &["a*.b"], &["ax.b"]);
    matches("matchesSubject(attributes.k, \"A.b\")", &["A.b"], &["a.b"]);
}

#[test]
fn lib_203_networks() {
    let v4 = "inCidr(attributes.k, \"192.168.4.0/22\")";
    matches(
        v4,
        &["192.168.4.0", "192.168.7.255"],
        &["192.168.3.255", "192.168.8.0", "::ffff:c0a8:401"],
    );
    let odd = ["192.168.4", "192.168.4.0/22", "192.168.04.1", " 192.168.4.1", "192.168.4.1:80", ""];
    matches(v4, &[], &odd);
    matches("inCidr(attributes.k, \"10.1.2.3/32\")", &["10.1.2.3"], &["10.1.2.2", "10.1.2.4"]);
    matches("inCidr(attributes.k, \"10.1.2.3/0\")", &["255.255.255.255", "0.0.0.0"], &["::"]);
    let v6 = "inCidr(attributes.k, \"2001:db8:8000::/33\")";
    matches(
        v6,
        &["2001:db8:8000::1", "2001:DB8:ffff::"],
        &["2001:db8:7fff::", "2001:db9::", "[2001:db8:8000::1]"],
    );
    matches("inCidr(attributes.k, \"::1/128\")", &["::1", "0:0:0:0:0:0:0:1"], &["::2", "::1%lo"]);
    matches("inCidr(attributes.k, \"::/0\")", &["::", "ffff::"], &["0.0.0.0"]);
    for bad in ["::1", "::1/129", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "10.0.0.0/8/8", ""] {
        let error =
            Filter::parse_extended(&format!("inCidr(attributes.k, \"{bad}\")")).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidPattern, "X: {bad}");
    }
}

#[test]
fn lib_203_fields_of_the_message() {
    let message = |key: &str| Message::new("12345").with_ordering_key(key).with_attribute("k", "");
    let check = |text: &str, keyed: bool, plain: bool| {
        let filter = extended(text);
        assert_eq!(filter.dialect(), Dialect::Extended, "X: {text}");
        assert_eq!(filter.matches(&message("key")), keyed, "X: {text}, keyed");
        assert_eq!(filter.matches(&message("")), plain, "X: {text}, plain");
    };
    check("message:ordering_key", true, false);
    check("message : ordering_key", true, false);
    check("NOT message:ordering_key", false, true);
    check("message.ordering_key = \"\"", false, false);
    check("message.ordering_key != \"\"", true, true);
    check("hasPrefix(message.ordering_key, \"\")", true, false);
    check("matchesGlob(message.ordering_key, \"*\")", true, false);
    check("message.ordering_key IN (\"key\", \"\")", true, false);
    check("message.data_size = 5 AND message.data_size = 5.0", true, true);
    check("message.data_size != 5", false, false);
    check("message.attribute_count = 1", true, true);
    // An attribute with the name of a field is an attribute.
    assert!(
        extended("attributes.ordering_key = 'x'")
            .matches(&Message::new("").with_attribute("ordering_key", "x"))
    );
    for bad in
        ["message .ordering_key = 'k'", "message. ordering_key = 'k'", "message.Data_size > 1"]
    {
        assert_eq!(Filter::parse_extended(bad).unwrap_err().kind(), Kind::InvalidField, "X: {bad}");
    }
}

#[test]
fn lib_203_quotes_constants_and_the_smallest_dialect() {
    let strict = |text: &str| assert_eq!(extended(text).dialect(), Dialect::Strict, "X: {text}");
    strict("attributes.k = 'v'");
    strict("attributes.'k' = 'v' AND -attributes:'two words'");
    strict("hasPrefix(attributes.k, 'v')");
    matches(r#"attributes.k = 'a"b\'c'"#, &["a\"b'c"], &["a"]);
    matches(r#"attributes.k = "a'b""#, &["a'b"], &["a"]);
    assert_eq!(extended("attributes.k = 'a\"b'").to_string(), r#"attributes.k = "a\"b""#);
    for text in ["true", "NOT false", "true OR attributes:k", "(true)", "--true"] {
        let filter = extended(text);
        assert_eq!(filter.dialect(), Dialect::Extended, "X: {text}");
        assert!(filter.matches(&Message::new("")), "X: {text}");
    }
    assert_eq!(extended("attributes:true AND attributes.false = \"\"").dialect(), Dialect::Strict);
    let error = |text| Filter::parse_extended(text).unwrap_err().kind();
    assert_eq!(error("TRUE"), Kind::UnknownName);
    assert_eq!(error("true false"), Kind::MissingOperator);
    assert_eq!(error("true AND false OR true"), Kind::MixedOperators, "X: the rule stays");
    assert_eq!(error("attributes.k = 'v\""), Kind::UnterminatedString);
    assert_eq!(error("attributes.k = 'v\n'"), Kind::ControlCharacter);
    assert_eq!(error("contains(attributes.k, 5)"), Kind::UnquotedValue);
}

#[test]
fn fil_4_a_concatenated_name_without_specials_works_and_a_hostile_one_is_quoted() {
    for name in ["plain", "with space", "ünï", "a'b", "AND", "-x", "", "(", "#", "%41"] {
        let text = format!("attributes.correlid = \"{name}\"");
        assert_eq!(Filter::parse(&text).unwrap(), Filter::eq("correlid", name), "R 14: {name}");
    }
    let hostile = "x\" OR attributes:a OR attributes.b = \"";
    let injected = Filter::parse(&format!("attributes.correlid = \"{hostile}\"")).unwrap();
    assert_ne!(injected, Filter::eq("correlid", hostile), "R 14: why quote() is there");
    let quoted = format!("attributes.correlid = {}", siftbus::filter::quote(hostile));
    assert_eq!(Filter::parse(&quoted).unwrap(), Filter::eq("correlid", hostile), "R 14");
}
