//! The syntax tree of a filter and its canonical text.
//!
//! Normal form, kept by [`Expr::group`]: a group has at least two terms and never directly
//! contains a group of the same operator. Nothing else is rewritten: no double negation removed,
//! nothing sorted or merged. Simplifying is the business of the index.
//!
//! Trees come from the parser or from `Filter`'s combinators, which both bound the nesting; so
//! the recursion here, and that of clone and drop, is bounded too.

use std::fmt;

use smol_str::SmolStr;

use super::Dialect;
use super::number::{Number, Relation};
use super::pattern::{Glob, Network};
use super::text::{Quoted, is_key_char};

/// A filter that is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Expr {
    /// `true` or `false`.
    Constant(bool),
    /// A test of one field.
    Predicate(Predicate),
    /// `NOT x`.
    Not(Box<Expr>),
    /// `x AND y …` or `x OR y …`, two terms or more.
    Group(Operator, Vec<Expr>),
}

/// What joins the terms of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Operator {
    And,
    Or,
}

/// A test of one field.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Predicate {
    pub(super) field: Field,
    pub(super) test: Test,
}

/// What of a message is tested.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Field {
    Attribute(SmolStr),
    /// Absent if it is empty.
    OrderingKey,
    /// A number: bytes of payload.
    DataSize,
    /// A number.
    AttributeCount,
}

/// What a predicate asks of the value of its field. Except for the negative ones, a test fails
/// where the field is absent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Test {
    /// Present, possibly empty.
    Has,
    /// Present and equal, byte for byte.
    Eq(SmolStr),
    /// Absent, or present and different.
    Ne(SmolStr),
    /// Present and beginning with this.
    Prefix(SmolStr),
    /// A number in this relation; [`Relation::NotEqual`] also where there is no number.
    Number(Relation, Number),
    /// Equal to one of these.
    In(Vec<Operand>),
    Suffix(SmolStr),
    Contains(SmolStr),
    /// Equal but for the case of ASCII letters.
    IgnoreCase(SmolStr),
    Glob(Glob),
    Subject(SmolStr),
    Network(Network),
}

/// What a value is compared with.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Operand {
    Text(SmolStr),
    Number(Number),
}

/// The measures of a tree that are limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    /// How many predicates there are.
    pub(super) predicates: usize,
    /// How deep parentheses and negations nest in the canonical text.
    pub(super) nesting: usize,
}

impl Expr {
    /// A test of an attribute.
    pub(super) fn predicate(key: &str, test: Test) -> Self {
        Self::Predicate(Predicate { field: Field::Attribute(key.into()), test })
    }

    /// `terms` joined by `operator`, in normal form. One term stays as it is.
    pub(super) fn group(operator: Operator, mut terms: Vec<Expr>) -> Self {
        if terms.len() == 1
            && let Some(only) = terms.pop()
        {
            return only;
        }
        let is_nested = |term: &Expr| matches!(term, Expr::Group(inner, _) if *inner == operator);
        if !terms.iter().any(is_nested) {
            return Self::Group(operator, terms);
        }
        let mut flat = Vec::with_capacity(terms.len() + 1);
        for term in terms {
            match term {
                Expr::Group(inner, nested) if inner == operator => flat.extend(nested),
                other => flat.push(other),
            }
        }
        Self::Group(operator, flat)
    }

    /// The tree under `count` negations.
    pub(super) fn negated(self, count: usize) -> Self {
        (0..count).fold(self, |inner, _| Self::Not(Box::new(inner)))
    }

    pub(super) fn size(&self) -> Size {
        match self {
            Self::Constant(_) | Self::Predicate(_) => Size { predicates: 1, nesting: 0 },
            Self::Not(inner) => {
                let size = inner.size();
                let parentheses = usize::from(inner.needs_parentheses_under_not());
                Size { nesting: size.nesting + parentheses + 1, ..size }
            }
            Self::Group(_, terms) => {
                terms.iter().fold(Size { predicates: 0, nesting: 0 }, |sum, term| {
                    let size = term.size();
                    let nesting = size.nesting + usize::from(term.is_group());
                    Size {
                        predicates: sum.predicates + size.predicates,
                        nesting: sum.nesting.max(nesting),
                    }
                })
            }
        }
    }

    /// The smallest dialect that has everything in it.
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Constant(_) => Dialect::Extended,
            Self::Predicate(Predicate { field: Field::Attribute(_), test }) => match test {
                Test::Has | Test::Eq(_) | Test::Ne(_) | Test::Prefix(_) => Dialect::Strict,
                _ => Dialect::Extended,
            },
            Self::Predicate(_) => Dialect::Extended,
            Self::Not(inner) => inner.dialect(),
            Self::Group(_, terms) => {
                terms.iter().map(Self::dialect).max().unwrap_or(Dialect::Strict)
            }
        }
    }

    fn is_group(&self) -> bool {
        matches!(self, Self::Group(..))
    }

    fn needs_parentheses_under_not(&self) -> bool {
        !matches!(self, Self::Predicate(_) | Self::Constant(_))
    }
}

impl Operator {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::And => "AND",
            Self::Or => "OR",
        }
    }
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Constant(value) => value.fmt(f),
            Self::Predicate(predicate) => predicate.fmt(f),
            Self::Not(inner) => {
                f.write_str("NOT ")?;
                write_term(inner, inner.needs_parentheses_under_not(), f)
            }
            Self::Group(operator, terms) => {
                for (i, term) in terms.iter().enumerate() {
                    if i > 0 {
                        write!(f, " {} ", operator.word())?;
                    }
                    write_term(term, term.is_group(), f)?;
                }
                Ok(())
            }
        }
    }
}

fn write_term(term: &Expr, parentheses: bool, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if parentheses { write!(f, "({term})") } else { write!(f, "{term}") }
}

impl fmt::Display for Predicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = &self.field;
        let (function, text) = match &self.test {
            Test::Has => return field.write(':', f),
            Test::Eq(value) => return write!(f, "{field} = {}", Quoted(value)),
            Test::Ne(value) => return write!(f, "{field} != {}", Quoted(value)),
            Test::Number(relation, number) => {
                return write!(f, "{field} {} {number}", relation.symbol());
            }
            Test::In(operands) => {
                write!(f, "{field} IN (")?;
                for (i, operand) in operands.iter().enumerate() {
                    write!(f, "{}{operand}", if i > 0 { ", " } else { "" })?;
                }
                return f.write_str(")");
            }
            Test::Prefix(prefix) => ("hasPrefix", prefix),
            Test::Suffix(suffix) => ("hasSuffix", suffix),
            Test::Contains(part) => ("contains", part),
            Test::IgnoreCase(value) => ("equalsIgnoreCase", value),
            Test::Glob(glob) => ("matchesGlob", glob.pattern()),
            Test::Subject(pattern) => ("matchesSubject", pattern),
            Test::Network(network) => ("inCidr", network.text()),
        };
        write!(f, "{function}({field}, {})", Quoted(text))
    }
}

impl Field {
    /// Writes the field with `separator` between its root and its name.
    fn write(&self, separator: char, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Attribute(key) => write!(f, "attributes{separator}{}", Key(key)),
            Self::OrderingKey => write!(f, "message{separator}ordering_key"),
            Self::DataSize => write!(f, "message{separator}data_size"),
            Self::AttributeCount => write!(f, "message{separator}attribute_count"),
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write('.', f)
    }
}

impl fmt::Display for Operand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => Quoted(text).fmt(f),
            Self::Number(number) => number.fmt(f),
        }
    }
}

/// Prints a key bare where that is canonical, else as a string.
pub(super) struct Key<'k>(pub(super) &'k str);

impl fmt::Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bare = !self.0.is_empty()
            && self.0.chars().all(is_key_char)
            && !self.0.starts_with('-')
            && !matches!(self.0, "AND" | "OR" | "NOT");
        if bare { f.write_str(self.0) } else { Quoted(self.0).fmt(f) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(key: &str) -> Expr {
        Expr::predicate(key, Test::Has)
    }

    #[test]
    fn groups_of_one_operator_are_flat_and_keep_their_order() {
        let inner = Expr::group(Operator::And, vec![has("b"), has("c")]);
        let outer = Expr::group(Operator::And, vec![has("a"), inner.clone(), has("d")]);
        let flat = Expr::Group(Operator::And, vec![has("a"), has("b"), has("c"), has("d")]);
        assert_eq!(outer, flat);
        let mixed = Expr::group(Operator::Or, vec![has("a"), inner.clone()]);
        assert_eq!(mixed, Expr::Group(Operator::Or, vec![has("a"), inner.clone()]));
        assert_eq!(Expr::group(Operator::Or, vec![inner.clone()]), inner);
    }

    #[test]
    fn size_counts_what_the_canonical_text_nests() {
        let group = Expr::group(Operator::Or, vec![has("a"), has("b")]);
        assert_eq!(group.size(), Size { predicates: 2, nesting: 0 });
        let nested = Expr::group(Operator::And, vec![group.negated(2), has("c")]);
        assert_eq!(nested.to_string(), "NOT (NOT (attributes:a OR attributes:b)) AND attributes:c");
        assert_eq!(nested.size(), Size { predicates: 3, nesting: 4 });
    }
}
