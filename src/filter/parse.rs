//! From text to syntax tree: the grammar of both dialects and the size limits. What only the
//! extended dialect has is read in `extended.rs`.
//!
//! The parser has no lexer (see `text.rs`) and does not recurse: open parentheses are levels on
//! a list of its own. It looks at each character a bounded number of times. Where the grammar
//! has no way on, `slips.rs` says what is wrong; the first mistake is the only one reported.

use std::ops::Range;

use super::Dialect;
use super::ast::{Expr, Field, Operator, Predicate, Test};
use super::error::{END_OF_FILTER, ParseError, ParseErrorKind as Kind};
use super::slips;
use super::text::{Cursor, is_white_space};

/// How large a filter may be. All counts are inclusive.
///
/// ```
/// use siftbus::Filter;
/// use siftbus::filter::ParseLimits;
///
/// let long = format!("attributes.a = \"{}\"", "x".repeat(300));
/// assert!(Filter::parse(&long).is_err());
/// assert!(Filter::parse_with(&long, ParseLimits::EMBEDDED).is_ok());
///
/// let mut limits = ParseLimits::STRICT;
/// limits.max_predicates = 1;
/// assert!(Filter::parse_with("attributes:a OR attributes:b", limits).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ParseLimits {
    /// Bytes of the text as given, white space included.
    pub max_bytes: usize,
    /// How deep parentheses and negations may nest. Above [`DEPTH_CEILING`] that counts instead.
    pub max_depth: usize,
    /// How many predicates there may be.
    pub max_predicates: usize,
    /// How much of the language may be used.
    pub dialect: Dialect,
}

impl ParseLimits {
    /// What the service allows: 256 bytes; and 128 levels and 64 predicates, which no useful
    /// filter of that size reaches. The default.
    pub const STRICT: Self = Self {
        max_bytes: STRICT_MAX_BYTES,
        max_depth: MAX_DEPTH,
        max_predicates: STRICT_MAX_PREDICATES,
        dialect: Dialect::Strict,
    };

    /// For filters that never leave the process: 4,096 bytes, 128 levels, 512 predicates.
    pub const EMBEDDED: Self = Self {
        max_bytes: EMBEDDED_MAX_BYTES,
        max_depth: MAX_DEPTH,
        max_predicates: EMBEDDED_MAX_PREDICATES,
        dialect: Dialect::Strict,
    };

    /// As [`EMBEDDED`](Self::EMBEDDED), in the extended dialect.
    pub const EXTENDED: Self = Self { dialect: Dialect::Extended, ..Self::EMBEDDED };
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self::STRICT
    }
}

/// Parses a filter; `None` is the empty one.
pub(super) fn parse(source: &str, limits: ParseLimits) -> Result<Option<Expr>, ParseError> {
    let parser = parser(source, limits)?;
    if parser.cursor.is_at_end() { Ok(None) } else { parser.run().map(|top| Some(top.into_expr())) }
}

/// Parses a filter into the terms that must all be true, each with its bytes in the source.
pub(super) fn clauses(
    source: &str,
    limits: ParseLimits,
) -> Result<Vec<(Expr, Range<usize>)>, ParseError> {
    let parser = parser(source, limits)?;
    if parser.cursor.is_at_end() {
        return Ok(Vec::new());
    }
    let top = parser.run()?;
    if top.operator == Some(Operator::Or) {
        let (first, last) = (top.spans.first().cloned(), top.spans.last().cloned());
        let span = first.map_or(0, |span| span.start)..last.map_or(0, |span| span.end);
        return Ok(vec![(top.into_expr(), span)]);
    }
    Ok(top.terms.into_iter().zip(top.spans).collect())
}

/// A parser that stands behind leading white space.
fn parser(source: &str, limits: ParseLimits) -> Result<Parser<'_>, ParseError> {
    let ParseLimits { max_bytes: max, .. } = limits;
    if source.len() > max {
        let kind = Kind::TooLong { len: source.len(), max };
        let span = source.floor_char_boundary(max)..source.len();
        return Err(ParseError::new(source, kind, span, format!("at most {max} bytes")));
    }
    Ok(Parser {
        cursor: Cursor::new(source).after_white_space(),
        max_depth: limits.max_depth.min(DEPTH_CEILING),
        max_predicates: limits.max_predicates,
        is_extended: limits.dialect == Dialect::Extended,
        depth: 0,
        predicates: 0,
        level: Level::default(),
        outer: Vec::new(),
    })
}

pub(super) struct Parser<'s> {
    pub(super) cursor: Cursor<'s>,
    max_depth: usize,
    max_predicates: usize,
    pub(super) is_extended: bool,
    /// Open parentheses and negations waiting for their operand, on all levels.
    depth: usize,
    predicates: usize,
    /// The innermost level, and those around it.
    level: Level,
    outer: Vec<Level>,
}

/// What has been read of the filter or of one pair of parentheses.
#[derive(Default)]
struct Level {
    /// Where the parenthesis was opened; `None` outside of all.
    open: Option<usize>,
    operator: Option<Operator>,
    terms: Vec<Expr>,
    /// Where each term stands; kept for the outermost level only.
    spans: Vec<Range<usize>>,
    /// Where the term that is being read began.
    start: Option<usize>,
    /// Negations before the operand being read.
    negations: usize,
}

impl Parser<'_> {
    /// Reads everything; answers the outermost level.
    fn run(mut self) -> Result<Level, ParseError> {
        loop {
            let mut term = self.predicate()?;
            loop {
                self.place(term);
                self.cursor.skip_white_space();
                if self.cursor.is_at_end() {
                    return self.finish();
                }
                if self.cursor.peek() != Some(')') {
                    break;
                }
                term = self.close()?;
            }
            self.operator()?;
        }
    }

    /// Reads the next predicate, and the negations and parentheses that open before it.
    fn predicate(&mut self) -> Result<Expr, ParseError> {
        loop {
            self.cursor.skip_white_space();
            self.level.start.get_or_insert(self.cursor.at());
            let negation = match self.cursor.peek() {
                Some('(') => {
                    self.open()?;
                    continue;
                }
                Some('-') => "-",
                _ => match self.cursor.word() {
                    word @ "NOT" => word,
                    ATTRIBUTES => return self.attribute(),
                    HAS_PREFIX => return self.call(HAS_PREFIX),
                    word => {
                        if self.is_extended
                            && let Some(term) = self.extended_term(word)?
                        {
                            return Ok(term);
                        }
                        let fresh = self.level.terms.is_empty() && self.level.negations == 0;
                        return Err(slips::term(&self.cursor, self.level.open.is_some(), fresh));
                    }
                },
            };
            self.deepen(negation.len())?;
            self.level.negations += 1;
            self.cursor.advance(negation.len());
        }
    }

    fn open(&mut self) -> Result<(), ParseError> {
        self.deepen(1)?;
        let inner = Level { open: Some(self.cursor.at()), ..Level::default() };
        self.outer.push(std::mem::replace(&mut self.level, inner));
        self.cursor.advance(1);
        Ok(())
    }

    /// Leaves a level by its closing parenthesis and returns what it held.
    fn close(&mut self) -> Result<Expr, ParseError> {
        let Some(outer) = self.outer.pop() else {
            let expected = self.expected_next();
            let span = self.cursor.token();
            return Err(self.cursor.error(Kind::UnopenedParenthesis, span, expected));
        };
        self.cursor.advance(1);
        self.depth -= 1;
        Ok(std::mem::replace(&mut self.level, outer).into_expr())
    }

    fn finish(self) -> Result<Level, ParseError> {
        match self.level.open {
            None => Ok(self.level),
            Some(at) => {
                Err(self.cursor.error(Kind::UnclosedParenthesis, at..at + 1, "a closing )"))
            }
        }
    }

    /// Makes `term` the next operand of the level, under the negations that wait for it.
    fn place(&mut self, term: Expr) {
        let negations = std::mem::take(&mut self.level.negations);
        self.depth -= negations;
        let start = self.level.start.take();
        if self.outer.is_empty() {
            self.level.spans.push(start.unwrap_or_default()..self.cursor.at());
        }
        self.level.terms.push(term.negated(negations));
    }

    /// Reads the operator behind a term.
    fn operator(&mut self) -> Result<(), ParseError> {
        let word = self.cursor.word();
        let operator = match word {
            "AND" => Operator::And,
            "OR" => Operator::Or,
            _ => return Err(slips::connective(&self.cursor, self.expected_next())),
        };
        if let Some(first) = self.level.operator.filter(|first| *first != operator) {
            let (a, b) = (first.word(), operator.word());
            let span = self.cursor.token();
            return Err(self
                .cursor
                .error(Kind::MixedOperators, span, self.expected_next())
                .with_hint(format!("write (… {a} …) {b} … or … {a} (… {b} …)")));
        }
        self.level.operator = Some(operator);
        self.cursor.advance(word.len());
        Ok(())
    }

    /// What may follow a complete term, in words.
    fn expected_next(&self) -> String {
        let operators = self.level.operator.map_or("AND, OR", Operator::word);
        let end = if self.level.open.is_some() { ")" } else { END_OF_FILTER };
        format!("{operators} or {end}")
    }

    /// `attributes:KEY` or a comparison; the cursor stands on the word.
    fn attribute(&mut self) -> Result<Expr, ParseError> {
        self.count_predicate()?;
        self.cursor.advance(ATTRIBUTES.len());
        if self.cursor.peek() == Some('.') {
            return self.comparison();
        }
        let spaced = self.cursor;
        self.cursor.skip_white_space();
        if !self.cursor.eat(':') {
            return Err(slips::attribute(&spaced));
        }
        self.cursor.skip_white_space();
        Ok(Expr::predicate(&self.key(':')?, Test::Has))
    }

    /// The rest of `attributes.KEY = "…"`, from the dot on.
    fn comparison(&mut self) -> Result<Expr, ParseError> {
        let key = self.dot_key()?;
        self.compare(Field::Attribute(key.into()))
    }

    /// What is asked of a field, from behind it on.
    pub(super) fn compare(&mut self, field: Field) -> Result<Expr, ParseError> {
        self.cursor.skip_white_space();
        let symbol = self.cursor.run(|c| matches!(c, '=' | '!' | '<' | '>' | '~'));
        if self.is_extended
            && let Some(test) = self.extended_test(&field, symbol)?
        {
            return Ok(Expr::Predicate(Predicate { field, test }));
        }
        let test = match symbol {
            "=" => Test::Eq,
            "!=" => Test::Ne,
            _ => {
                let name = match &field {
                    Field::Attribute(key) => key.to_string(),
                    other => other.to_string(),
                };
                return Err(slips::comparison(&self.cursor, &name));
            }
        };
        self.cursor.advance(symbol.len());
        let test = test(self.value()?.into());
        Ok(Expr::Predicate(Predicate { field, test }))
    }

    /// `hasPrefix(attributes.KEY, "…")` and its like; the cursor stands on the word.
    pub(super) fn call(&mut self, name: &'static str) -> Result<Expr, ParseError> {
        self.count_predicate()?;
        self.cursor.advance(name.len());
        self.argument('(', "( after the function")?;
        self.cursor.skip_white_space();
        let field = self.call_field()?;
        self.argument(',', "a comma and the value")?;
        self.cursor.skip_white_space();
        let start = self.cursor.at();
        let text = self.value()?;
        let test = if name == HAS_PREFIX {
            Test::Prefix(text.into())
        } else {
            self.extended_call(name, &text, start)?
        };
        self.argument(')', "a closing )")?;
        Ok(Expr::Predicate(Predicate { field, test }))
    }

    /// The first argument of a call.
    fn call_field(&mut self) -> Result<Field, ParseError> {
        if self.is_extended && self.cursor.word() == MESSAGE {
            return self.message_text();
        }
        if self.cursor.word() != ATTRIBUTES {
            return Err(self.malformed_call("attributes.KEY"));
        }
        self.cursor.advance(ATTRIBUTES.len());
        match self.cursor.peek() {
            Some('.') => Ok(Field::Attribute(self.dot_key()?.into())),
            _ if self.cursor.after_white_space().peek() == Some('.') => {
                Err(slips::space_around_dot(&self.cursor))
            }
            _ => Err(self.malformed_call("attributes.KEY")),
        }
    }

    /// Moves over a punctuation mark of a call.
    pub(super) fn argument(
        &mut self,
        mark: char,
        expected: &'static str,
    ) -> Result<(), ParseError> {
        self.cursor.skip_white_space();
        if self.cursor.eat(mark) { Ok(()) } else { Err(self.malformed_call(expected)) }
    }

    pub(super) fn malformed_call(&self, expected: &'static str) -> ParseError {
        self.cursor
            .error(Kind::MalformedCall, self.cursor.token(), expected)
            .with_hint("write hasPrefix(attributes.KEY, \"prefix\")")
    }

    /// `.KEY`; the cursor stands on the dot.
    fn dot_key(&mut self) -> Result<String, ParseError> {
        self.cursor.advance(1);
        let spaced = self.cursor.peek().is_some_and(is_white_space);
        if spaced && !self.cursor.after_white_space().is_at_end() {
            return Err(slips::space_around_dot(&self.cursor));
        }
        self.key('.')
    }

    /// A key, bare or as a string; `separator` stands before it.
    fn key(&mut self, separator: char) -> Result<String, ParseError> {
        if self.is_at_string() {
            return self.cursor.string();
        }
        let key = self.cursor.word();
        let mut behind = self.cursor;
        behind.advance(key.len());
        if key.is_empty() || behind.peek().is_some_and(slips::breaks_key) {
            return Err(slips::key(&self.cursor, separator));
        }
        self.cursor = behind;
        Ok(key.to_owned())
    }

    pub(super) fn value(&mut self) -> Result<String, ParseError> {
        self.cursor.skip_white_space();
        if self.is_at_string() { self.cursor.string() } else { Err(slips::value(&self.cursor)) }
    }

    pub(super) fn is_at_string(&self) -> bool {
        match self.cursor.peek() {
            Some('"') => true,
            Some('\'') => self.is_extended,
            _ => false,
        }
    }

    /// Enters a parenthesis or negation of `len` bytes.
    fn deepen(&mut self, len: usize) -> Result<(), ParseError> {
        if self.depth >= self.max_depth {
            let max = self.max_depth;
            let expected = format!("at most {max} levels");
            let span = self.cursor.span(len);
            return Err(self.cursor.error(Kind::TooDeep { max }, span, expected));
        }
        self.depth += 1;
        Ok(())
    }

    pub(super) fn count_predicate(&mut self) -> Result<(), ParseError> {
        if self.predicates >= self.max_predicates {
            let max = self.max_predicates;
            let expected = format!("at most {max} predicates");
            let span = self.cursor.token();
            return Err(self.cursor.error(Kind::TooManyPredicates { max }, span, expected));
        }
        self.predicates += 1;
        Ok(())
    }
}

impl Level {
    fn into_expr(self) -> Expr {
        // Without an operator there is one term, and the group of one term is that term.
        Expr::group(self.operator.unwrap_or(Operator::And), self.terms)
    }
}

/// The bytes of a strict filter.
pub const STRICT_MAX_BYTES: usize = 256;

/// The predicates of a strict filter.
pub const STRICT_MAX_PREDICATES: usize = 64;

/// The bytes of a filter that stays in the process.
pub const EMBEDDED_MAX_BYTES: usize = 4_096;

/// The predicates of a filter that stays in the process, parsed or combined.
pub const EMBEDDED_MAX_PREDICATES: usize = 512;

/// How deep parentheses and negations nest at most, unless other limits are asked for.
pub const MAX_DEPTH: usize = 128;

/// The nesting that no limits can exceed, because printing and dropping a filter recurse that
/// deep. The canonical text of every filter within [`MAX_DEPTH`] stays below: it writes each
/// further negation as two levels, `NOT (NOT x)`.
pub const DEPTH_CEILING: usize = 256;

const ATTRIBUTES: &str = "attributes";
const HAS_PREFIX: &str = "hasPrefix";
pub(super) const MESSAGE: &str = "message";
