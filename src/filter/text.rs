//! The characters of a filter: a cursor over the source, the character classes of the grammar,
//! and string literals in both directions (reading with escapes, writing canonically).
//!
//! There is no lexer: whether `AND` is an operator or a key depends on where it stands, so the
//! parser asks the cursor for what it needs at each place. The cursor only moves forward, over
//! whole characters, which keeps parsing linear and every slice on a character boundary.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::ops::Range;

use super::error::{ParseError, ParseErrorKind};

/// Writes `text` as a string literal of the filter language, with the surrounding quotes.
///
/// Use it when a filter has to be put together as text; [`Filter::eq`](super::Filter::eq) and
/// its siblings are simpler where they suffice. Without it a hostile value can close the string
/// and add terms of its own.
///
/// ```
/// use siftbus::Filter;
/// use siftbus::filter::quote;
///
/// let name = r#"x" OR attributes:a OR attributes.b = ""#;
/// let filter = Filter::parse(&format!("attributes.name = {}", quote(name)))?;
/// assert_eq!(filter, Filter::eq("name", name));
/// assert_eq!(quote("two\nlines"), r#""two\nlines""#);
/// # Ok::<(), siftbus::filter::ParseError>(())
/// ```
pub fn quote(text: &str) -> String {
    Quoted(text).to_string()
}

/// Prints its text as a canonical string literal.
pub(super) struct Quoted<'t>(pub(super) &'t str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            match c {
                '"' => f.write_str("\\\"")?,
                '\\' => f.write_str("\\\\")?,
                c if is_control(c) => write_control(c, f)?,
                c => f.write_char(c)?,
            }
        }
        f.write_char('"')
    }
}

/// Writes a character that cannot be shown as itself as the escape the language has for it.
pub(super) fn write_control(c: char, f: &mut impl Write) -> fmt::Result {
    match c {
        '\n' => f.write_str("\\n"),
        '\r' => f.write_str("\\r"),
        '\t' => f.write_str("\\t"),
        c if u32::from(c) > 0xFFFF => write!(f, "\\U{:08X}", u32::from(c)),
        c => write!(f, "\\u{:04X}", u32::from(c)),
    }
}

/// A position in the source of a filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'s> {
    source: &'s str,
    at: usize,
}

impl<'s> Cursor<'s> {
    pub(super) fn new(source: &'s str) -> Self {
        Self { source, at: 0 }
    }

    /// The byte offset of the next character.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// Everything from here on.
    pub(super) fn rest(&self) -> &'s str {
        self.source.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.at >= self.source.len()
    }

    /// Moves over `bytes` bytes, which must be whole characters just looked at.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.at += bytes;
        debug_assert!(self.source.is_char_boundary(self.at), "the cursor left a character early");
    }

    /// Moves over `expected` if it is next.
    pub(super) fn eat(&mut self, expected: char) -> bool {
        let found = self.peek() == Some(expected);
        if found {
            self.advance(expected.len_utf8());
        }
        found
    }

    pub(super) fn skip_white_space(&mut self) {
        self.advance(self.run(is_white_space).len());
    }

    /// The same position behind any white space.
    pub(super) fn after_white_space(mut self) -> Self {
        self.skip_white_space();
        self
    }

    /// The longest run of `member` characters from here; the cursor stays.
    pub(super) fn run(&self, member: impl Fn(char) -> bool) -> &'s str {
        let rest = self.rest();
        let end = rest.find(|c| !member(c)).unwrap_or(rest.len());
        rest.get(..end).unwrap_or_default()
    }

    /// The word from here: key characters, possibly none.
    pub(super) fn word(&self) -> &'s str {
        self.run(is_key_char)
    }

    /// What an error at this place points to: a word, one other character, or the end.
    pub(super) fn token(&self) -> Range<usize> {
        let len = match self.word().len() {
            0 => self.peek().map_or(0, char::len_utf8),
            len => len,
        };
        self.span(len)
    }

    /// The next `len` bytes as a span.
    pub(super) fn span(&self, len: usize) -> Range<usize> {
        self.at..self.at + len
    }

    /// An error about `span` of this source.
    pub(super) fn error(
        &self,
        kind: ParseErrorKind,
        span: Range<usize>,
        expected: impl Into<Cow<'static, str>>,
    ) -> ParseError {
        ParseError::new(self.source, kind, span, expected)
    }

    /// Reads a string literal; the cursor stands on its opening quote, single or double.
    pub(super) fn string(&mut self) -> Result<String, ParseError> {
        let open = self.at;
        let quote = self.peek().unwrap_or('"');
        let mut text = String::new();
        self.advance(1);
        loop {
            let plain = self.run(|c| c != quote && is_plain(c));
            text.push_str(plain);
            self.advance(plain.len());
            match self.peek() {
                Some(c) if c == quote => {
                    self.advance(1);
                    return Ok(text);
                }
                Some('\\') => text.push(self.escape(open)?),
                Some(control) => return Err(self.control_character(control)),
                None => return Err(self.unterminated(open)),
            }
        }
    }

    /// Reads an escape; the cursor stands on its backslash, its string began at `open`.
    fn escape(&mut self, open: usize) -> Result<char, ParseError> {
        let letter = self.rest().chars().nth(1).ok_or_else(|| self.unterminated(open))?;
        let (len, value) = match letter {
            'x' => (4, self.code_point(2, 2, 16)),
            'u' => (6, self.code_point(2, 4, 16)),
            'U' => (10, self.code_point(2, 8, 16)),
            '0'..='7' => (4, self.code_point(1, 3, 8).filter(|&c| c <= MAX_OCTAL)),
            _ => (1 + letter.len_utf8(), simple_escape(letter)),
        };
        let value = value.ok_or_else(|| self.invalid_escape(letter, len))?;
        self.advance(len);
        Ok(value)
    }

    /// The character named by exactly `count` digits, `skip` bytes from here.
    fn code_point(&self, skip: usize, count: usize, radix: u32) -> Option<char> {
        let digits = self.rest().get(skip..skip + count)?;
        if !digits.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        u32::from_str_radix(digits, radix).ok().and_then(char::from_u32)
    }

    fn invalid_escape(&self, letter: char, len: usize) -> ParseError {
        let head = 1 + letter.len_utf8();
        let digits = self.rest().chars().skip(2).take_while(char::is_ascii_hexdigit).count();
        let shown = head + digits.min(len.saturating_sub(head));
        let hint = match letter {
            'x' => "\\x takes two hexadecimal digits",
            'u' => "\\u takes four hexadecimal digits and no surrogates; use \\U above FFFF",
            'U' => "\\U takes eight hexadecimal digits, at most 0010FFFF and no surrogates",
            '0'..='9' => "octal escapes have three digits, 000 to 377",
            _ => "write \\\\ for a backslash",
        };
        self.error(ParseErrorKind::InvalidEscape, self.span(shown), EXPECTED_ESCAPE).with_hint(hint)
    }

    fn control_character(&self, control: char) -> ParseError {
        let mut hint = String::from("write ");
        // Writing to a string cannot fail.
        let _ = write_control(control, &mut hint);
        let span = self.span(control.len_utf8());
        self.error(ParseErrorKind::ControlCharacter, span, "an escape").with_hint(hint)
    }

    fn unterminated(&self, open: usize) -> ParseError {
        let span = open..self.source.len();
        let single = self.source.get(open..).is_some_and(|text| text.starts_with('\''));
        let expected = if single { "a closing '" } else { "a closing \"" };
        self.error(ParseErrorKind::UnterminatedString, span, expected)
    }
}

/// The white space of the language; no other character separates words.
pub(super) fn is_white_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// What an unquoted key, and any other word, consists of.
pub(super) fn is_key_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// The control characters a string must escape. C1 controls are not among them.
pub(super) fn is_control(c: char) -> bool {
    c.is_ascii_control()
}

fn is_plain(c: char) -> bool {
    c != '\\' && !is_control(c)
}

fn simple_escape(letter: char) -> Option<char> {
    Some(match letter {
        '\\' | '"' | '\'' | '?' | '/' => letter,
        'a' => '\u{07}',
        'b' => '\u{08}',
        'f' => '\u{0C}',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\u{0B}',
        _ => return None,
    })
}

/// Three octal digits reach further than one byte; the language stops at `\377`.
const MAX_OCTAL: char = '\u{FF}';

const EXPECTED_ESCAPE: &str = "one of \\\\ \\\" \\' \\? \\/ \\a \\b \\f \\n \\r \\t \\v, \
                               \\xHH, \\OOO, \\uXXXX or \\UXXXXXXXX";

#[cfg(test)]
mod tests {
    use super::*;

    fn read(source: &str) -> Result<String, ParseErrorKind> {
        Cursor::new(source).string().map_err(|e| e.kind())
    }

    #[test]
    fn escapes_name_code_points() {
        assert_eq!(
            read(r#""\\\"\'\?\/\a\b\f\n\r\t\v""#).as_deref(),
            Ok("\\\"'?/\x07\x08\x0C\n\r\t\x0B")
        );
        assert_eq!(read(r#""\xe9\351\u00E9\U000000e9""#).as_deref(), Ok("éééé"));
        assert_eq!(read(r#""\1011""#).as_deref(), Ok("A1"));
    }

    #[test]
    fn escapes_are_exact() {
        let bad = [r#""\q""#, r#""\é""#, r#""\x+1""#, r#""\u12é4""#, r#""\8""#, r#""\400""#];
        for source in bad {
            assert_eq!(read(source), Err(ParseErrorKind::InvalidEscape), "{source}");
        }
        for source in [r#"""#, r#""a"#, r#""\"#, r#""\""#] {
            assert_eq!(read(source), Err(ParseErrorKind::UnterminatedString), "{source}");
        }
        for source in ["\"\n\"", "\"\u{7F}\"", "\"\0\""] {
            assert_eq!(read(source), Err(ParseErrorKind::ControlCharacter), "{source:?}");
        }
        assert_eq!(read("\"\u{80}\u{A0}\"").as_deref(), Ok("\u{80}\u{A0}"));
    }

    #[test]
    fn quoting_reads_back() {
        for c in (0..0x300).chain([0x2028, 0xFEFF, 0x1F600]).filter_map(char::from_u32) {
            let text = format!("a{c}\"\\");
            assert_eq!(read(&quote(&text)), Ok(text));
        }
    }
}
