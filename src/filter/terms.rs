//! What a term consists of: a presence, a comparison or a call, with their keys and values. What
//! only the extended dialect has is read in `extended.rs`.

use super::ast::{Expr, Field, Predicate, Test};
use super::error::{ParseError, ParseErrorKind as Kind};
use super::parse::Parser;
use super::slips;
use super::text::is_white_space;

impl Parser<'_> {
    /// `attributes:KEY` or a comparison; the cursor stands on the word.
    pub(super) fn attribute(&mut self) -> Result<Expr, ParseError> {
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
}

pub(super) const ATTRIBUTES: &str = "attributes";
pub(super) const HAS_PREFIX: &str = "hasPrefix";
pub(super) const MESSAGE: &str = "message";
