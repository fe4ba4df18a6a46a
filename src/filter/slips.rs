//! Diagnoses: which mistake was made where the grammar has no way on.
//!
//! Each function is asked by the parser at one kind of place, after everything valid there has
//! been ruled out, and names the mistake people most likely made. Nothing here accepts input, so
//! a wrong guess costs a worse message, never a wrong verdict. Looks ahead at most to the end of
//! the next token, once per filter.

use super::ast::Key;
use super::error::{ParseError, ParseErrorKind as Kind, shorten};
use super::text::{Cursor, is_key_char, is_white_space, quote};

/// No term begins here. `group` tells whether a parenthesis is open, and `fresh` whether nothing
/// stands between it, or the beginning of the filter, and this place.
pub(super) fn term(cursor: &Cursor<'_>, group: bool, fresh: bool) -> ParseError {
    let error = |kind| cursor.error(kind, cursor.token(), TERM);
    match cursor.peek() {
        None => error(Kind::MissingOperand),
        Some(')') if group && fresh => error(Kind::EmptyParentheses),
        Some(')') if fresh => error(Kind::UnopenedParenthesis),
        Some(')') => error(Kind::MissingOperand),
        Some('"' | '\'') => {
            error(Kind::ValueFirst).with_hint("write attributes.KEY = \"value\", key first")
        }
        Some('!' | '&' | '|') => symbol(cursor, TERM),
        Some(c) if is_key_char(c) => name(cursor),
        Some(_) => error(Kind::UnexpectedText),
    }
}

/// A term begins with a word that is not one of the language's.
fn name(cursor: &Cursor<'_>) -> ParseError {
    let word = cursor.word();
    let mut next = *cursor;
    next.advance(word.len());
    let called = next.after_white_space().peek() == Some('(');
    let field = next.peek() == Some('.') || next.after_white_space().peek() == Some(':');
    let error = |kind| cursor.error(kind, cursor.token(), "attributes, hasPrefix, NOT or (");
    if matches!(word, "AND" | "OR") {
        return cursor.error(Kind::MissingOperand, cursor.token(), TERM);
    }
    if is_operator_in_other_case(word) {
        return error(Kind::Case).with_hint(UPPER_CASE);
    }
    if let Some(operator) = glued_operator(word) {
        return error(Kind::UnknownName).with_hint(format!("put a space after {operator}"));
    }
    if let Some(known) = ["attributes", "hasPrefix"].iter().find(|k| k.eq_ignore_ascii_case(word)) {
        return error(Kind::UnknownName).with_hint(format!("write {known}; names mind the case"));
    }
    let extended = (called && EXTENDED_FUNCTIONS.contains(&word))
        || (field && word == "message" && is_extended_field(next))
        || matches!(word, "true" | "false");
    if extended {
        return error(Kind::ExtendedOnly).with_hint(EXTENDED);
    }
    let hint = match next.after_white_space().peek() {
        Some('(') => "the only function is hasPrefix".to_owned(),
        Some('.') => "write attributes.KEY; nothing else can be filtered".to_owned(),
        Some(':') => format!("write attributes:{}", shorten(word)),
        _ => format!("write attributes.{}", shorten(word)),
    };
    error(Kind::UnknownName).with_hint(hint)
}

/// `attributes` is followed by neither `.` nor `:`. `spaced` stands right behind the word.
pub(super) fn attribute(spaced: &Cursor<'_>) -> ParseError {
    let here = spaced.after_white_space();
    if here.peek() == Some('.') {
        return space_around_dot(spaced);
    }
    let error = here.error(Kind::MissingKey, here.token(), "`.` or `:` and a key");
    match here.peek() {
        Some('[') => error.with_hint("write attributes.KEY"),
        _ => error,
    }
}

/// White space stands at the cursor, before or behind a dot.
pub(super) fn space_around_dot(cursor: &Cursor<'_>) -> ParseError {
    let span = cursor.span(cursor.run(is_white_space).len());
    cursor.error(Kind::SpaceAroundDot, span, "attributes.KEY without white space")
}

/// No key stands here, or a bare one that goes on with characters only a string may have.
/// `separator` is the `.` or `:` before it.
pub(super) fn key(cursor: &Cursor<'_>, separator: char) -> ParseError {
    if cursor.peek() == Some('\'') {
        return single_quotes(cursor);
    }
    let text = cursor.run(|c| is_key_char(c) || breaks_key(c));
    if text.is_empty() {
        return cursor.error(Kind::MissingKey, cursor.token(), "a key");
    }
    let mut next = *cursor;
    if let Some(at) = text.find(is_foreign_space) {
        next.advance(at);
        return next
            .error(Kind::UnexpectedText, next.token(), KEY)
            .with_hint("only space, tab, CR and LF separate words");
    }
    next.advance(text.len());
    let error = cursor.error(Kind::KeyNeedsQuotes, cursor.span(text.len()), KEY);
    if next.peek() == Some('(') {
        return error.with_hint("the only function is hasPrefix");
    }
    // A backslash can only mean an escape, which is right inside of the quotes.
    let quoted = if text.contains('\\') { format!("\"{}\"", shorten(text)) } else { quoted(text) };
    error.with_hint(format!("write attributes{separator}{quoted}"))
}

/// Whether a bare key cannot end before `c`: no token begins with it.
pub(super) fn breaks_key(c: char) -> bool {
    !is_key_char(c) && !is_white_space(c) && !"=!<>~&|(),;:\"'#[]".contains(c)
}

/// Neither `=` nor `!=` follows a key; `key` is its text.
pub(super) fn comparison(cursor: &Cursor<'_>, key: &str) -> ParseError {
    let run = cursor.run(is_comparison_char);
    let error = |kind| cursor.error(kind, cursor.span(run.len()), COMPARISON);
    match run {
        "" => word_after_key(cursor, key),
        // Not in the extended dialect either, so its hint would mislead.
        "==" => error(Kind::ExtendedOnly).with_hint("write ="),
        "<" | "<=" | ">" | ">=" => error(Kind::ExtendedOnly).with_hint(EXTENDED),
        "<>" => error(Kind::UnknownOperator).with_hint("write !="),
        _ => error(Kind::UnknownOperator).with_hint("write = or !="),
    }
}

/// A key is followed by something that does not even look like a comparison.
fn word_after_key(cursor: &Cursor<'_>, key: &str) -> ParseError {
    let error = |kind| cursor.error(kind, cursor.token(), COMPARISON);
    let word = cursor.word();
    if word.eq_ignore_ascii_case("IN") {
        return error(Kind::ExtendedOnly).with_hint(EXTENDED);
    }
    if word.eq_ignore_ascii_case("LIKE") {
        let hint = format!("{EXTENDED} as matchesGlob(attributes.KEY, \"…\")");
        return error(Kind::ExtendedOnly).with_hint(hint);
    }
    let mut next = *cursor;
    next.advance(word.len());
    let compared = next.after_white_space().peek().is_some_and(is_comparison_char);
    if compared && !word.is_empty() {
        let hint = format!("write attributes.{}", quoted(&format!("{key} {word}")));
        return error(Kind::KeyNeedsQuotes).with_hint(hint);
    }
    let colon = cursor.peek() == Some(':');
    let kind = if colon { Kind::UnknownOperator } else { Kind::MissingComparison };
    let key = shorten(&Key(key).to_string());
    error(kind).with_hint(format!("write attributes:{key} to test presence"))
}

/// No string in double quotes stands where a value must.
pub(super) fn value(cursor: &Cursor<'_>) -> ParseError {
    let error = |kind, span| cursor.error(kind, span, STRING);
    match cursor.peek() {
        None | Some(')' | ',') => error(Kind::MissingValue, cursor.token()),
        Some('\'') => single_quotes(cursor),
        Some('(') => error(Kind::UnquotedValue, cursor.token())
            .with_hint("compare with each value: (attributes.KEY = \"a\" OR …)"),
        Some(_) => {
            let text = cursor.run(|c| !is_white_space(c) && !matches!(c, '(' | ')' | ','));
            let error = error(Kind::UnquotedValue, cursor.span(text.len()));
            if text.starts_with("attributes") {
                return error.with_hint("an attribute cannot be compared with another");
            }
            error.with_hint(format!("write {}", quoted(text.trim_matches('"'))))
        }
    }
}

fn single_quotes(cursor: &Cursor<'_>) -> ParseError {
    let rest = cursor.rest();
    let end = rest.char_indices().skip(1).find(|(_, c)| *c == '\'').map_or(1, |(at, _)| at + 1);
    cursor
        .error(Kind::SingleQuotes, cursor.span(end), STRING)
        .with_hint("use double quotes (or the extended dialect)")
}

/// A complete term is followed by something other than AND, OR, `)` or the end.
pub(super) fn connective(cursor: &Cursor<'_>, expected: String) -> ParseError {
    let word = cursor.word();
    let error = |kind, len| cursor.error(kind, cursor.span(len), expected.clone());
    if is_operator_in_other_case(word) && word != "NOT" {
        return error(Kind::Case, word.len()).with_hint(UPPER_CASE);
    }
    match cursor.peek() {
        Some('!') if cursor.run(is_comparison_char) == "!" => {
            error(Kind::MissingOperator, 1).with_hint("put AND or OR between; write NOT")
        }
        Some('&' | '|') => symbol(cursor, expected),
        Some('"' | '\'' | '(') => {
            error(Kind::MissingOperator, 1).with_hint("put AND or OR between")
        }
        Some(c) if is_key_char(c) => {
            let hint = match glued_operator(word) {
                Some(operator) => format!("put a space after {operator}"),
                None => "put AND or OR between".to_owned(),
            };
            error(Kind::MissingOperator, word.len()).with_hint(hint)
        }
        Some(c) if is_comparison_char(c) => {
            let error = error(Kind::UnexpectedText, cursor.run(is_comparison_char).len());
            error.with_hint("only attributes.KEY can be compared")
        }
        _ => cursor.error(Kind::UnexpectedText, cursor.token(), expected),
    }
}

/// Operators as other languages write them.
fn symbol(cursor: &Cursor<'_>, expected: impl Into<std::borrow::Cow<'static, str>>) -> ParseError {
    let run = cursor.run(|c| matches!(c, '&' | '|'));
    let (len, hint) = match cursor.peek() {
        Some('&') => (run.len(), "write AND"),
        Some('|') => (run.len(), "write OR"),
        _ => (1, "write NOT"),
    };
    cursor.error(Kind::UnknownOperator, cursor.span(len), expected).with_hint(hint)
}

/// A key or value as a string, cut so that hints stay short.
fn quoted(text: &str) -> String {
    let short = shorten(text);
    // What was escaped for showing must not be escaped again.
    if short == text { quote(text) } else { format!("\"{}\"", short.replace('"', "\\\"")) }
}

/// White space that separates words elsewhere, but not here.
fn is_foreign_space(c: char) -> bool {
    c.is_whitespace() || c == '\u{FEFF}'
}

fn is_comparison_char(c: char) -> bool {
    matches!(c, '=' | '!' | '<' | '>' | '~')
}

fn is_operator_in_other_case(word: &str) -> bool {
    ["AND", "OR", "NOT"].iter().any(|operator| operator.eq_ignore_ascii_case(word))
}

/// The operator that runs into what follows it, as in `NOTattributes`.
fn glued_operator(word: &str) -> Option<&'static str> {
    ["AND", "OR", "NOT"].into_iter().find(|operator| {
        word.strip_prefix(operator).is_some_and(|rest| {
            ["attributes", "hasPrefix", "NOT", "-"].iter().any(|next| rest.starts_with(next))
        })
    })
}

/// Whether `.` or `:` and a field of the extended dialect stand here.
fn is_extended_field(mut cursor: Cursor<'_>) -> bool {
    cursor.skip_white_space();
    cursor.advance(1);
    EXTENDED_FIELDS.contains(&cursor.after_white_space().word())
}

const COMPARISON: &str = "= or !=";
const TERM: &str = "a term";
const STRING: &str = "a string in double quotes";
const KEY: &str = "a key of letters, digits, - and _, or a string";
const UPPER_CASE: &str = "operators are written in upper case";
const EXTENDED: &str = "available in the extended dialect";

const EXTENDED_FIELDS: [&str; 3] = ["ordering_key", "data_size", "attribute_count"];

const EXTENDED_FUNCTIONS: [&str; 6] =
    ["hasSuffix", "contains", "equalsIgnoreCase", "matchesGlob", "matchesSubject", "inCidr"];
