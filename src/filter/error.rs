//! What is wrong with a filter: the parser's error and that of the combinators.
//!
//! A [`ParseError`] describes the first mistake of a text: its kind, where it is, what was
//! expected and found, and often a hint. It owns everything it shows, and that is bounded: of a
//! long filter it keeps a window around the mistake. Deciding what is a mistake is not done
//! here; rendering it is.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use super::text::write_control;

/// Why a text is not a filter.
///
/// `Display` is one line, fit for a status message. The alternate form `{:#}` adds the place in
/// the filter and what to write instead.
///
/// ```
/// use siftbus::Filter;
///
/// let error = Filter::parse("attributes:a AND attributes:b OR attributes:c").unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "invalid filter at byte 30: AND and OR need parentheses when combined",
/// );
/// assert_eq!(
///     format!("{error:#}"),
///     "\
/// invalid filter at byte 30: AND and OR need parentheses when combined
///   attributes:a AND attributes:b OR attributes:c
///                                 ^^
///   expected AND or end of filter; write (… AND …) OR … or … AND (… OR …)"
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError(Box<Details>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Details {
    kind: ParseErrorKind,
    span: Range<usize>,
    expected: Cow<'static, str>,
    found: String,
    hint: Option<Cow<'static, str>>,
    excerpt: Excerpt,
}

/// The kinds of mistakes in a filter.
///
/// ```
/// use siftbus::Filter;
/// use siftbus::filter::ParseErrorKind;
///
/// let error = Filter::parse("attributes.size < 5").unwrap_err();
/// assert_eq!(error.kind(), ParseErrorKind::ExtendedOnly);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ParseErrorKind {
    /// The text has more bytes than allowed.
    TooLong {
        /// The bytes of the text as it was given.
        len: usize,
        /// The most bytes a filter may have.
        max: usize,
    },
    /// Parentheses and negations are nested deeper than allowed.
    TooDeep {
        /// The deepest nesting allowed.
        max: usize,
    },
    /// There are more predicates than allowed.
    TooManyPredicates {
        /// The most predicates a filter may have.
        max: usize,
    },
    /// AND and OR meet on one level, as in `a AND b OR c`.
    MixedOperators,
    /// An operator is not written in upper case, as in `a and b`.
    Case,
    /// An operator the language does not have, as in `a && b`.
    UnknownOperator,
    /// A value is not written as a string, as in `attributes.a = 1`.
    UnquotedValue,
    /// A string stands in single quotes.
    SingleQuotes,
    /// A key has characters that only a quoted key may have, as in `attributes.a.b`.
    KeyNeedsQuotes,
    /// A term begins with a name other than `attributes` or `hasPrefix`.
    UnknownName,
    /// Something that the strict dialect lacks, as in `attributes.a < 5`.
    ExtendedOnly,
    /// Two terms stand side by side without AND or OR.
    MissingOperator,
    /// AND, OR, NOT or an open parenthesis has no term behind it, or AND or OR none before it.
    MissingOperand,
    /// `attributes` without `.KEY` or `:KEY`.
    MissingKey,
    /// `attributes.KEY` without `=` or `!=`.
    MissingComparison,
    /// `=`, `!=` or a call without the value.
    MissingValue,
    /// A string stands where a term must begin, as in `"com" = attributes.a`.
    ValueFirst,
    /// Nothing stands between two parentheses.
    EmptyParentheses,
    /// An opening parenthesis without its closing one.
    UnclosedParenthesis,
    /// A closing parenthesis without its opening one.
    UnopenedParenthesis,
    /// A string without its closing quote.
    UnterminatedString,
    /// An unknown or incomplete escape, or one that names no character.
    InvalidEscape,
    /// A control character stands in a string as itself.
    ControlCharacter,
    /// White space stands around the dot of `attributes.KEY`.
    SpaceAroundDot,
    /// A call of `hasPrefix` that is not `hasPrefix(attributes.KEY, "…")`.
    MalformedCall,
    /// A complete term is followed by something that cannot continue it.
    UnexpectedText,
    /// No number stands where one must, or one that is too long or too large.
    InvalidNumber,
    /// A glob, subject pattern or network that is none.
    InvalidPattern,
    /// A field of the message that does not exist, or that cannot be asked this.
    InvalidField,
    /// `IN` without a list in parentheses.
    MalformedList,
    /// A list has more values than allowed.
    TooManyValues {
        /// The most values a list may have.
        max: usize,
    },
}

impl ParseError {
    /// The gRPC code: always `InvalidArgument` (FIL-4, ERR-12).
    pub fn code(&self) -> crate::Code {
        crate::Code::InvalidArgument
    }

    /// An error about `span` of `source`, which must lie on character boundaries.
    pub(super) fn new(
        source: &str,
        kind: ParseErrorKind,
        span: Range<usize>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        let found = match source.get(span.clone()) {
            None | Some("") => END_OF_FILTER.to_owned(),
            Some(text) => shorten(text),
        };
        let excerpt = Excerpt::new(source, &span);
        Self(Box::new(Details {
            kind,
            span,
            expected: expected.into(),
            found,
            hint: None,
            excerpt,
        }))
    }

    pub(super) fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// What kind of mistake it is.
    pub fn kind(&self) -> ParseErrorKind {
        self.0.kind
    }

    /// The bytes of the filter the error is about; empty at its end where something is missing.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// let source = "attributes.name = com";
    /// let error = Filter::parse(source).unwrap_err();
    /// assert_eq!(&source[error.span()], "com");
    /// ```
    pub fn span(&self) -> Range<usize> {
        self.0.span.clone()
    }

    /// What could have stood there instead, in words.
    pub fn expected(&self) -> &str {
        &self.0.expected
    }

    /// What stood there: at most 32 characters, the unprintable ones escaped, or the words
    /// `end of filter`.
    pub fn found(&self) -> &str {
        &self.0.found
    }

    /// How to write what was probably meant.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// let error = Filter::parse("attributes.name = com").unwrap_err();
    /// assert_eq!(error.hint(), Some(r#"write "com""#));
    /// assert_eq!((error.expected(), error.found()), ("a string in double quotes", "com"));
    /// ```
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    fn write_summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use ParseErrorKind as Kind;
        let found = &self.0.found;
        match self.0.kind {
            Kind::TooLong { len, max } => write!(f, "the filter has {len} bytes, more than {max}"),
            Kind::TooDeep { max } => {
                write!(f, "parentheses and negations are nested deeper than {max}")
            }
            Kind::TooManyPredicates { max } => write!(f, "there are more than {max} predicates"),
            Kind::MixedOperators => f.write_str("AND and OR need parentheses when combined"),
            Kind::Case | Kind::UnknownOperator => write!(f, "`{found}` is not an operator"),
            Kind::UnquotedValue => write!(f, "the value `{found}` is not quoted"),
            Kind::SingleQuotes => f.write_str("single quotes do not make a string"),
            Kind::KeyNeedsQuotes => write!(f, "the key `{found}` needs quotes"),
            Kind::UnknownName => write!(f, "unknown name `{found}`"),
            Kind::ExtendedOnly => write!(f, "`{found}` is not part of the strict dialect"),
            Kind::MissingOperator => write!(f, "no operator stands before `{found}`"),
            Kind::MissingOperand => f.write_str("a term is missing"),
            Kind::MissingKey => f.write_str("the key of an attribute is missing"),
            Kind::MissingComparison => f.write_str("the comparison is missing"),
            Kind::MissingValue => f.write_str("the value is missing"),
            Kind::ValueFirst => f.write_str("a term cannot begin with a value"),
            Kind::EmptyParentheses => f.write_str("the parentheses are empty"),
            Kind::UnclosedParenthesis => f.write_str("the parenthesis is not closed"),
            Kind::UnopenedParenthesis => f.write_str("the parenthesis was not opened"),
            Kind::UnterminatedString => f.write_str("the string is not closed"),
            Kind::InvalidEscape => write!(f, "invalid escape `{found}`"),
            Kind::ControlCharacter => f.write_str("control characters must be escaped"),
            Kind::SpaceAroundDot => f.write_str("no white space may stand around the dot"),
            Kind::MalformedCall => f.write_str("hasPrefix takes a key and a prefix"),
            Kind::UnexpectedText => write!(f, "unexpected `{found}`"),
            Kind::InvalidNumber => write!(f, "`{found}` is not a number"),
            Kind::InvalidPattern => write!(f, "`{found}` is not such a pattern"),
            Kind::InvalidField => write!(f, "`{found}` is no such field of a message"),
            Kind::MalformedList => f.write_str("IN takes a list of values in parentheses"),
            Kind::TooManyValues { max } => write!(f, "the list has more than {max} values"),
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid filter at byte {}: ", self.0.span.start)?;
        self.write_summary(f)?;
        if f.alternate() {
            let Excerpt { text, carets } = &self.0.excerpt;
            write!(f, "\n  {text}\n  {carets}\n  expected {}", self.0.expected)?;
            if let Some(hint) = &self.0.hint {
                write!(f, "; {hint}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for ParseError {}

/// Why filters could not be combined.
///
/// ```
/// use siftbus::Filter;
/// use siftbus::filter::CombineError;
///
/// assert_eq!(Filter::all().not(), Err(CombineError::MatchesNothing));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CombineError {
    /// The result would nest parentheses and negations deeper than allowed.
    #[error("the combined filter nests deeper than {max}")]
    TooDeep {
        /// The deepest nesting allowed.
        max: usize,
    },
    /// The result would have more predicates than allowed.
    #[error("the combined filter has {len} predicates, more than {max}")]
    TooManyPredicates {
        /// The predicates of the result.
        len: usize,
        /// The most predicates a filter may have.
        max: usize,
    },
    /// The filter that matches everything was negated; the language cannot say that.
    #[error("no filter matches nothing")]
    MatchesNothing,
}

impl CombineError {
    /// The gRPC code: always `InvalidArgument`.
    pub fn code(&self) -> crate::Code {
        crate::Code::InvalidArgument
    }
}

/// The line of the filter that an error shows, and the carets below it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Excerpt {
    text: String,
    carets: String,
}

impl Excerpt {
    /// Looks only at the characters it shows, however long the source is.
    fn new(source: &str, span: &Range<usize>) -> Self {
        let before = source.get(..span.start).unwrap_or(source);
        let inside = source.get(span.clone()).unwrap_or_default();
        let after = source.get(span.end..).unwrap_or_default();
        if source.chars().nth(WHOLE_EXCERPT_CHARS).is_none() {
            return Self::render(before, inside, after, false, false);
        }
        let left = before.char_indices().rev().nth(WINDOW_CHARS - 1).map_or(0, |(at, _)| at);
        let shown = prefix(inside, WINDOW_CHARS);
        let right = if shown.len() == inside.len() { prefix(after, WINDOW_CHARS) } else { "" };
        let cut = shown.len() < inside.len() || right.len() < after.len();
        Self::render(before.get(left..).unwrap_or_default(), shown, right, left > 0, cut)
    }

    fn render(before: &str, inside: &str, after: &str, cut_left: bool, cut_right: bool) -> Self {
        let mut text = String::from(if cut_left { "…" } else { "" });
        let mut carets = String::from(if cut_left { " " } else { "" });
        carets.extend(before.chars().map(|c| if c == '\t' { '\t' } else { ' ' }));
        carets.extend(inside.chars().map(|_| '^'));
        if inside.is_empty() {
            carets.push('^');
        }
        text.extend([before, inside, after].into_iter().flat_map(str::chars).map(one_column));
        if cut_right {
            text.push('…');
        }
        Self { text, carets }
    }
}

/// The first `count` characters of `text`.
fn prefix(text: &str, count: usize) -> &str {
    let end = text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
    text.get(..end).unwrap_or_default()
}

/// What an excerpt shows for a character: one column, no line break, nothing invisible.
fn one_column(c: char) -> char {
    match c {
        '\t' => c,
        '\0'..='\u{1F}' => char::from_u32(0x2400 + u32::from(c)).unwrap_or('\u{FFFD}'),
        '\u{7F}' => '\u{2421}',
        c if is_printable(c) => c,
        _ => '\u{FFFD}',
    }
}

/// `text` in at most [`FOUND_CHARS`] characters, those that cannot be seen as escapes.
pub(super) fn shorten(text: &str) -> String {
    let mut short = String::new();
    let mut len = 0;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let mut piece = String::new();
        if is_printable(c) {
            piece.push(c);
        } else {
            // Writing to a string cannot fail.
            let _ = write_control(c, &mut piece);
        }
        len += piece.chars().count();
        // The last column is kept for the sign that something is missing.
        if len > FOUND_CHARS || (len == FOUND_CHARS && chars.peek().is_some()) {
            short.push('…');
            break;
        }
        short.push_str(&piece);
    }
    short
}

/// Whether a character shows as itself. Quotes and backslashes do, although Rust escapes them.
fn is_printable(c: char) -> bool {
    matches!(c, '"' | '\'' | '\\') || c.escape_debug().len() == 1
}

/// The most characters of the source that an error names as found.
const FOUND_CHARS: usize = 32;

/// Filters of at most so many characters are shown whole.
const WHOLE_EXCERPT_CHARS: usize = 100;

/// How much of a longer filter is shown on either side of the mistake.
const WINDOW_CHARS: usize = 40;

/// Found where the filter ends too early.
pub(super) const END_OF_FILTER: &str = "end of filter";
