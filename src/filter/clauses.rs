//! A filter taken apart into clauses with their places, for explanations and lints.
//!
//! A clause is a term of the outermost AND; a filter without one is a single clause. The text is
//! parsed anew, so nothing of this is kept with a filter.

use std::ops::Range;

use super::ast::{Expr, Field, Operator, Predicate};
use super::limits::ParseLimits;
use super::parse;
use super::program::{Program, Value};
use super::{Dialect, Filter, Normal};
use crate::explain::{FailedClause, FilterLint};
use crate::message::Message;

/// A term that has to be true for the filter to be.
struct Clause {
    expr: Expr,
    span: Range<usize>,
}

impl Filter {
    /// The first clause that is false for a message; `None` if it matches.
    ///
    /// ```
    /// use siftbus::{Filter, Message};
    ///
    /// let filter = Filter::parse("attributes:a AND attributes:b")?;
    /// let failed = filter.explain(&Message::new("x").with_attribute("a", "")).unwrap();
    /// assert_eq!((failed.text.as_str(), failed.span), ("attributes:b", 17..29));
    /// # Ok::<(), siftbus::filter::ParseError>(())
    /// ```
    pub fn explain(&self, message: &Message) -> Option<FailedClause> {
        if self.matches(message) {
            return None;
        }
        let failed = self.clauses().into_iter().find(|clause| {
            !Program::compile(Some(&clause.expr)).run(|field| value_of(field, message))
        })?;
        let mut fields = Vec::new();
        collect_fields(&failed.expr, &mut fields);
        let found = fields.iter().map(|field| {
            let value = value_of(field, message).map(|value| match value {
                Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Value::Number(number) => number.to_string(),
            });
            (field.to_string(), value)
        });
        let text = self.source().get(failed.span.clone()).unwrap_or_default().to_owned();
        Some(FailedClause { text, span: failed.span, found: found.collect() })
    }

    /// What is probably not meant: the filter never or always matches, or a clause has no effect.
    ///
    /// Finds what is plain, not everything.
    ///
    /// ```
    /// use siftbus::{Filter, FilterLint};
    ///
    /// let filter = Filter::parse(r#"attributes.a = "1" AND attributes.a = "2""#)?;
    /// assert_eq!(filter.lint(), [FilterLint::NeverMatches]);
    /// # Ok::<(), siftbus::filter::ParseError>(())
    /// ```
    pub fn lint(&self) -> Vec<FilterLint> {
        let whole = self.normal();
        match (&whole, self.is_all()) {
            (_, true) => return Vec::new(),
            (Normal::Constant(true), _) => return vec![FilterLint::AlwaysMatches],
            (Normal::Constant(false), _) => return vec![FilterLint::NeverMatches],
            _ => {}
        }
        let clauses = self.clauses();
        let no_effect = (0..clauses.len()).filter(|&nth| {
            let others = clauses.iter().enumerate().filter(|(at, _)| *at != nth);
            let others: Vec<Expr> = others.map(|(_, clause)| clause.expr.clone()).collect();
            !others.is_empty() && Normal::of(Some(&Expr::group(Operator::And, others))) == whole
        });
        let lint = |nth: usize| {
            let span = clauses.get(nth).map(|clause| clause.span.clone())?;
            let text = self.source().get(span.clone())?.to_owned();
            Some(FilterLint::NoEffect { text, span })
        };
        no_effect.filter_map(lint).collect()
    }

    /// The keys of the attributes that the filter asks about, each once, in their order in it.
    pub(crate) fn keys(&self) -> Vec<String> {
        let mut fields = Vec::new();
        if let Some(expr) = &self.inner.expr {
            collect_fields(expr, &mut fields);
        }
        let keys = fields.into_iter().filter_map(|field| match field {
            Field::Attribute(key) => Some(key.to_string()),
            _ => None,
        });
        keys.collect()
    }

    fn clauses(&self) -> Vec<Clause> {
        // It was parsed before or is canonical, so no limit can be in the way but the source's own.
        let limits = ParseLimits {
            max_bytes: usize::MAX,
            max_depth: usize::MAX,
            max_predicates: usize::MAX,
            dialect: Dialect::Extended,
        };
        let clauses = parse::clauses(self.source(), limits).unwrap_or_default();
        clauses.into_iter().map(|(expr, span)| Clause { expr, span }).collect()
    }
}

fn value_of<'m>(field: &Field, message: &'m Message) -> Option<Value<'m>> {
    match field {
        Field::Attribute(key) => message.attribute(key).map(|value| Value::Text(value.as_bytes())),
        Field::OrderingKey => {
            let key = message.ordering_key();
            (!key.is_empty()).then_some(Value::Text(key.as_bytes()))
        }
        Field::DataSize => Some(Value::Number(message.data().len() as u64)),
        Field::AttributeCount => Some(Value::Number(message.attributes().len() as u64)),
    }
}

fn collect_fields(expr: &Expr, fields: &mut Vec<Field>) {
    match expr {
        Expr::Constant(_) => {}
        Expr::Predicate(Predicate { field, .. }) => {
            if !fields.contains(field) {
                fields.push(field.clone());
            }
        }
        Expr::Not(inner) => collect_fields(inner, fields),
        Expr::Group(_, terms) => terms.iter().for_each(|term| collect_fields(term, fields)),
    }
}
