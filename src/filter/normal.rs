//! Simplified filters: negations pushed down to single tests, what decides nothing removed.
//!
//! Equal simplified filters match the same messages, so subscriptions that share one share a view
//! and an entry of the index. The reverse does not hold: simplification finds plain contradictions
//! and repetitions, not all of them. A step in front of the index; the tree that a user sees is
//! that of `ast.rs`.

use super::ast::{Expr, Field, Operand, Operator, Predicate, Test};
use super::number::Relation;
use super::program::{Check, Value};

/// A simplified filter. Terms are sorted and unique, groups have two terms or more.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Normal {
    Constant(bool),
    Literal(Literal),
    All(Vec<Normal>),
    Any(Vec<Normal>),
}

/// A test that must hold, or must not. The test is none of the negative ones.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Literal {
    pub(super) field: Field,
    pub(super) test: Test,
    pub(super) holds: bool,
}

impl Normal {
    /// Simplifies a filter; `None` matches everything.
    pub(super) fn of(expr: Option<&Expr>) -> Self {
        expr.map_or(Self::Constant(true), |expr| simplify(expr, true))
    }

    /// The terms that must all hold.
    pub(super) fn conjuncts(&self) -> &[Normal] {
        match self {
            Self::All(terms) => terms,
            other => std::slice::from_ref(other),
        }
    }

    /// What a single test is about.
    pub(super) fn field(&self) -> Option<&Field> {
        match self {
            Self::Literal(literal) => Some(&literal.field),
            _ => None,
        }
    }

    /// Calls `visit` with each test.
    pub(super) fn literals<'n>(&'n self, visit: &mut impl FnMut(&'n Literal)) {
        match self {
            Self::Constant(_) => {}
            Self::Literal(literal) => visit(literal),
            Self::All(terms) | Self::Any(terms) => {
                terms.iter().for_each(|term| term.literals(visit));
            }
        }
    }

    /// How many tests there are.
    pub(crate) fn tests(&self) -> usize {
        let mut count = 0;
        self.literals(&mut |_| count += 1);
        count
    }

    /// What is left of a conjunction when one of its terms is known to hold.
    pub(super) fn without(&self, term: usize) -> Self {
        let Self::All(terms) = self else { return Self::Constant(true) };
        let mut left = terms.clone();
        left.remove(term);
        if left.len() == 1 { left.remove(0) } else { Self::All(left) }
    }
}

impl Literal {
    fn negated(mut self) -> Self {
        self.holds = !self.holds;
        self
    }
}

fn simplify(expr: &Expr, holds: bool) -> Normal {
    match expr {
        Expr::Constant(value) => Normal::Constant(*value == holds),
        Expr::Predicate(predicate) => literal(predicate, holds),
        Expr::Not(inner) => simplify(inner, !holds),
        Expr::Group(operator, terms) => {
            let terms = terms.iter().map(|term| simplify(term, holds));
            group((*operator == Operator::And) == holds, terms.collect())
        }
    }
}

fn literal(predicate: &Predicate, holds: bool) -> Normal {
    let make =
        |test, holds| Normal::Literal(Literal { field: predicate.field.clone(), test, holds });
    match &predicate.test {
        Test::Ne(value) => make(Test::Eq(value.clone()), !holds),
        Test::Number(Relation::NotEqual, number) => {
            make(Test::Number(Relation::Equal, *number), !holds)
        }
        Test::Prefix(part) | Test::Suffix(part) | Test::Contains(part) if part.is_empty() => {
            make(Test::Has, holds)
        }
        Test::Glob(glob) if glob.is_any() => make(Test::Has, holds),
        Test::In(operands) => {
            let equal = operands.iter().map(|operand| match operand {
                Operand::Text(text) => make(Test::Eq(text.clone()), holds),
                Operand::Number(number) => make(Test::Number(Relation::Equal, *number), holds),
            });
            group(!holds, equal.collect())
        }
        test => make(test.clone(), holds),
    }
}

/// All of `terms` (`all`), or any of them, simplified.
fn group(all: bool, terms: Vec<Normal>) -> Normal {
    let (mut literals, mut groups) = (Vec::new(), Vec::new());
    for term in terms {
        match term {
            // The constant that decides the group, and the one that changes nothing.
            Normal::Constant(value) if value != all => return Normal::Constant(value),
            Normal::Constant(_) => {}
            Normal::Literal(literal) => literals.push(literal),
            Normal::All(inner) if all => split(inner, &mut literals, &mut groups),
            Normal::Any(inner) if !all => split(inner, &mut literals, &mut groups),
            other => groups.push(other),
        }
    }
    // One of several holds unless all of their opposites do.
    let literals = if all {
        conjunction(literals)
    } else {
        let opposites = literals.into_iter().map(Literal::negated).collect();
        conjunction(opposites).map(|left| left.into_iter().map(Literal::negated).collect())
    };
    let Some(mut literals) = literals else { return Normal::Constant(!all) };
    literals.sort_unstable();
    // In (a AND (a OR b)) the second term decides nothing; nor in (a OR (a AND b)).
    let decided = |term: &Normal| match term {
        Normal::Literal(literal) => literals.binary_search(literal).is_ok(),
        _ => false,
    };
    groups.retain(|inner| match inner {
        Normal::All(terms) | Normal::Any(terms) => !terms.iter().any(decided),
        _ => true,
    });
    groups.sort_unstable();
    groups.dedup();
    let mut terms: Vec<Normal> = literals.into_iter().map(Normal::Literal).chain(groups).collect();
    match terms.len() {
        0 => Normal::Constant(all),
        1 => terms.remove(0),
        _ if all => Normal::All(terms),
        _ => Normal::Any(terms),
    }
}

fn split(terms: Vec<Normal>, literals: &mut Vec<Literal>, groups: &mut Vec<Normal>) {
    for term in terms {
        match term {
            Normal::Literal(literal) => literals.push(literal),
            other => groups.push(other),
        }
    }
}

/// Literals that say the same as all of these together; `None` if they contradict each other.
fn conjunction(mut literals: Vec<Literal>) -> Option<Vec<Literal>> {
    literals.sort_unstable();
    literals.dedup();
    let mut left = Vec::with_capacity(literals.len());
    for about in literals.chunk_by(|a, b| a.field == b.field) {
        about_one_field(about, &mut left)?;
    }
    Some(left)
}

/// Appends what is left of sorted literals about one field.
fn about_one_field(about: &[Literal], left: &mut Vec<Literal>) -> Option<()> {
    let equal = about.iter().find_map(|literal| match &literal.test {
        Test::Eq(value) if literal.holds => Some((literal, value)),
        _ => None,
    });
    if let Some((literal, value)) = equal {
        // The value is known, so everything else about it is.
        let known = |other: &Literal| {
            Check::of(&other.test).holds(Value::Text(value.as_bytes())) == other.holds
        };
        left.push(literal.clone());
        return about.iter().all(known).then_some(());
    }
    let is_presence = |literal: &Literal| literal.test == Test::Has;
    let absent = about.iter().find(|literal| is_presence(literal) && !literal.holds);
    if let Some(absent) = absent {
        // What is absent passes no test, and every negation of one.
        left.push(absent.clone());
        return about.iter().all(|literal| !literal.holds).then_some(());
    }
    // Every test that holds implies presence.
    let implied = about.iter().any(|literal| literal.holds && !is_presence(literal));
    let mut kept = Vec::new();
    for literal in about.iter().filter(|literal| !(implied && is_presence(literal))) {
        // Sorted: the opposite of a literal stands directly before it.
        if kept.last().is_some_and(|last: &Literal| last.test == literal.test) {
            return None;
        }
        kept.push(literal.clone());
    }
    left.extend(interval(kept)?);
    Some(())
}

/// Drops numeric bounds that a closer one implies; `None` if no number is within all.
fn interval(literals: Vec<Literal>) -> Option<Vec<Literal>> {
    let bounds = |lower: bool| {
        literals.iter().enumerate().filter_map(move |(at, literal)| match literal.test {
            Test::Number(relation, number) if literal.holds => match relation {
                Relation::Greater | Relation::GreaterOrEqual if lower => {
                    Some((at, relation, number))
                }
                Relation::Less | Relation::LessOrEqual if !lower => Some((at, relation, number)),
                Relation::Equal => Some((at, relation, number)),
                _ => None,
            },
            _ => None,
        })
    };
    // Beyond what floating point can tell apart, bounds do not compare as values do.
    let inexact = |literal: &Literal| match literal.test {
        Test::Number(_, number) => number.as_f64().abs() >= EXACT_FLOATS,
        _ => false,
    };
    if literals.iter().any(inexact) {
        return Some(literals);
    }
    // The closest bound; of equal ones that which excludes its number.
    let strict = |relation| matches!(relation, Relation::Greater | Relation::Less);
    let lower = bounds(true).reduce(|a, b| match b.2.compare(a.2) {
        std::cmp::Ordering::Greater => b,
        std::cmp::Ordering::Equal if strict(b.1) => b,
        _ => a,
    });
    let upper = bounds(false).reduce(|a, b| match b.2.compare(a.2) {
        std::cmp::Ordering::Less => b,
        std::cmp::Ordering::Equal if strict(b.1) => b,
        _ => a,
    });
    if let (Some(lower), Some(upper)) = (lower, upper) {
        let order = lower.2.compare(upper.2);
        if order.is_gt() || (order.is_eq() && (strict(lower.1) || strict(upper.1))) {
            return None;
        }
    }
    let close = |at: usize| {
        let is = |bound: Option<(usize, _, _)>| bound.is_some_and(|(closest, ..)| closest == at);
        is(lower) || is(upper)
    };
    let is_bound = |literal: &Literal| literal.holds && matches!(literal.test, Test::Number(..));
    let kept = literals.iter().enumerate().filter(|(at, literal)| !is_bound(literal) || close(*at));
    Some(kept.map(|(_, literal)| literal.clone()).collect())
}

/// Every integer below this has a floating-point number of its own.
const EXACT_FLOATS: f64 = 9_007_199_254_740_992.0;
