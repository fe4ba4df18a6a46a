//! From text to syntax tree: terms joined by operators, negations and parentheses, within the
//! limits of size. What a term consists of is read in `terms.rs`.
//!
//! The parser has no lexer (see `text.rs`) and does not recurse: open parentheses are levels on
//! a list of its own. It looks at each character a bounded number of times. Where the grammar
//! has no way on, `slips.rs` says what is wrong; the first mistake is the only one reported.

use std::ops::Range;

use super::Dialect;
use super::ast::{Expr, Operator};
use super::error::{END_OF_FILTER, ParseError, ParseErrorKind as Kind};
use super::limits::{DEPTH_CEILING, ParseLimits};
use super::slips;
use super::terms::{ATTRIBUTES, HAS_PREFIX};
use super::text::Cursor;

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
