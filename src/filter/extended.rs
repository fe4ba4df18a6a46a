//! What the parser reads of the extended dialect beyond the strict one.
//!
//! Asked where the strict grammar has a choice, and only if the dialect is on. `None` means that
//! nothing extended stands there, and the strict grammar decides.

use super::ast::{Expr, Field, Operand, Predicate, Test};
use super::error::{ParseError, ParseErrorKind as Kind};
use super::number::{MAX_NUMBER_BYTES, Number, Relation, number_length};
use super::parse::Parser;
use super::pattern::{Glob, MAX_GLOB_RUN, Network, is_subject};
use super::terms::MESSAGE;
use super::text::is_key_char;

impl Parser<'_> {
    /// A term that begins with a word that only this dialect has.
    pub(super) fn extended_term(&mut self, word: &str) -> Result<Option<Expr>, ParseError> {
        match word {
            "true" | "false" => {
                self.count_predicate()?;
                self.cursor.advance(word.len());
                Ok(Some(Expr::Constant(word == "true")))
            }
            MESSAGE => self.message().map(Some),
            _ => match FUNCTIONS.iter().find(|function| **function == word) {
                Some(function) => self.call(function).map(Some),
                None => Ok(None),
            },
        }
    }

    /// `message:FIELD` or a comparison; the cursor stands on the word.
    fn message(&mut self) -> Result<Expr, ParseError> {
        self.count_predicate()?;
        self.cursor.advance(MESSAGE.len());
        if self.cursor.peek() == Some('.') {
            let field = self.message_field()?;
            return self.compare(field);
        }
        self.cursor.skip_white_space();
        if !self.cursor.eat(':') {
            let token = self.cursor.token();
            return Err(self.cursor.error(Kind::InvalidField, token, "`.` or `:` and a field"));
        }
        self.cursor.skip_white_space();
        if self.cursor.word() != ORDERING_KEY {
            let token = self.cursor.token();
            return Err(self.cursor.error(Kind::InvalidField, token, ORDERING_KEY));
        }
        self.cursor.advance(ORDERING_KEY.len());
        Ok(Expr::Predicate(Predicate { field: Field::OrderingKey, test: Test::Has }))
    }

    /// `.FIELD`; the cursor stands on the dot.
    fn message_field(&mut self) -> Result<Field, ParseError> {
        self.cursor.advance(1);
        let word = self.cursor.word();
        let field = match word {
            ORDERING_KEY => Field::OrderingKey,
            "data_size" => Field::DataSize,
            "attribute_count" => Field::AttributeCount,
            _ => {
                let expected = "ordering_key, data_size or attribute_count";
                return Err(self.cursor.error(Kind::InvalidField, self.cursor.token(), expected));
            }
        };
        self.cursor.advance(word.len());
        Ok(field)
    }

    /// `message.FIELD` as the argument of a function; only texts can be.
    pub(super) fn message_text(&mut self) -> Result<Field, ParseError> {
        self.cursor.advance(MESSAGE.len());
        if self.cursor.peek() != Some('.') {
            return Err(self.malformed_call("attributes.KEY or message.ordering_key"));
        }
        let mut field = self.cursor;
        field.advance(1);
        match self.message_field()? {
            Field::OrderingKey => Ok(Field::OrderingKey),
            _ => Err(field.error(Kind::InvalidField, field.token(), ORDERING_KEY)),
        }
    }

    /// A comparison that only this dialect has; `symbol` stands at the cursor.
    pub(super) fn extended_test(
        &mut self,
        field: &Field,
        symbol: &str,
    ) -> Result<Option<Test>, ParseError> {
        let is_number = matches!(field, Field::DataSize | Field::AttributeCount);
        if symbol.is_empty() {
            return self.list(is_number);
        }
        let relation = match symbol {
            "=" => Relation::Equal,
            "!=" => Relation::NotEqual,
            "<" => Relation::Less,
            "<=" => Relation::LessOrEqual,
            ">" => Relation::Greater,
            ">=" => Relation::GreaterOrEqual,
            _ => return Ok(None),
        };
        let mut behind = self.cursor;
        behind.advance(symbol.len());
        behind.skip_white_space();
        let orders = !matches!(relation, Relation::Equal | Relation::NotEqual);
        if !is_number && !orders && number_length(behind.rest().as_bytes()).is_none() {
            return Ok(None);
        }
        self.cursor = behind;
        self.number().map(|number| Some(Test::Number(relation, number)))
    }

    /// `IN (…)`.
    fn list(&mut self, only_numbers: bool) -> Result<Option<Test>, ParseError> {
        let word = self.cursor.word();
        if word != "IN" {
            if word.eq_ignore_ascii_case("IN") {
                let error = self.cursor.error(Kind::Case, self.cursor.token(), "IN");
                return Err(error.with_hint("operators are written in upper case"));
            }
            return Ok(None);
        }
        self.cursor.advance(word.len());
        self.cursor.skip_white_space();
        if !self.cursor.eat('(') {
            let token = self.cursor.token();
            return Err(self.cursor.error(Kind::MalformedList, token, "( and values"));
        }
        let mut operands = Vec::new();
        loop {
            self.cursor.skip_white_space();
            if operands.len() == MAX_LIST_VALUES {
                let max = MAX_LIST_VALUES;
                let expected = format!("at most {max} values");
                let token = self.cursor.token();
                return Err(self.cursor.error(Kind::TooManyValues { max }, token, expected));
            }
            operands.push(if self.is_at_string() && !only_numbers {
                Operand::Text(self.cursor.string()?.into())
            } else if only_numbers || number_length(self.cursor.rest().as_bytes()).is_some() {
                Operand::Number(self.number()?)
            } else {
                Operand::Text(self.value()?.into())
            });
            self.cursor.skip_white_space();
            if self.cursor.eat(')') {
                return Ok(Some(Test::In(operands)));
            }
            if !self.cursor.eat(',') {
                let token = self.cursor.token();
                return Err(self.cursor.error(Kind::MalformedList, token, "a comma or )"));
            }
        }
    }

    /// A number, and nothing behind it that would make it a longer word.
    fn number(&mut self) -> Result<Number, ParseError> {
        let text = self.cursor.run(|c| is_key_char(c) || matches!(c, '.' | '+'));
        match Number::read(text.as_bytes()) {
            Some(number) => {
                self.cursor.advance(text.len());
                Ok(number)
            }
            None => {
                let span = match text.len() {
                    0 => self.cursor.token(),
                    length => self.cursor.span(length),
                };
                let expected = format!("a decimal number of at most {MAX_NUMBER_BYTES} bytes");
                Err(self.cursor.error(Kind::InvalidNumber, span, expected))
            }
        }
    }

    /// The test of a function; its text began at `start` and ends here.
    pub(super) fn extended_call(
        &self,
        function: &str,
        text: &str,
        start: usize,
    ) -> Result<Test, ParseError> {
        let wrong = |expected: String| {
            self.cursor.error(Kind::InvalidPattern, start..self.cursor.at(), expected)
        };
        Ok(match function {
            "hasSuffix" => Test::Suffix(text.into()),
            "contains" => Test::Contains(text.into()),
            "equalsIgnoreCase" => Test::IgnoreCase(text.into()),
            "matchesGlob" => {
                let expected = || format!("at most {MAX_GLOB_RUN} characters between two stars");
                Test::Glob(Glob::new(text).ok_or_else(|| wrong(expected() + " around a ?"))?)
            }
            "matchesSubject" if is_subject(text) => Test::Subject(text.into()),
            "matchesSubject" => return Err(wrong("> only as the last token".to_owned())),
            _ => {
                let expected = || "an address, / and a number of bits".to_owned();
                Test::Network(Network::new(text).ok_or_else(|| wrong(expected()))?)
            }
        })
    }
}

/// The values of one `IN`.
pub const MAX_LIST_VALUES: usize = 256;

const ORDERING_KEY: &str = "ordering_key";

/// What this dialect can call besides `hasPrefix`.
const FUNCTIONS: [&str; 6] =
    ["hasSuffix", "contains", "equalsIgnoreCase", "matchesGlob", "matchesSubject", "inCidr"];
