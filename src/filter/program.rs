//! Filters compiled for evaluation: one step per predicate, joined by jumps.
//!
//! Each step tests one attribute and names where to go if the test holds and where if not:
//! another step, or a verdict. AND, OR and NOT leave no code behind, they only decide the jumps.
//! Steps are laid out from last to first, so every jump goes to a smaller number. Therefore
//! evaluation ends, runs each test at most once, and needs no stack, recursion or allocation.

use smol_str::SmolStr;

use super::ast::{Expr, Field, Operand, Operator, Test};
use super::normal::Normal;
use super::number::{Number, Relation};
use super::pattern::{Glob, Network, matches_subject};

/// A filter in the form that is evaluated; fields are named by `F`.
#[derive(Debug, Clone)]
pub(super) struct Program<F> {
    steps: Box<[Step<F>]>,
    entry: Jump,
}

#[derive(Debug, Clone)]
struct Step<F> {
    field: F,
    check: Check,
    if_true: Jump,
    if_false: Jump,
}

/// What a field has.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Value<'v> {
    Text(&'v [u8]),
    Number(u64),
}

/// A test of a value that is present; a test fails where it is absent.
#[derive(Debug, Clone)]
pub(super) enum Check {
    Present,
    Equal(SmolStr),
    Prefix(SmolStr),
    Number(Relation, Number),
    In(Box<[Operand]>),
    Suffix(SmolStr),
    Contains(SmolStr),
    IgnoreCase(SmolStr),
    Glob(Glob),
    Subject(SmolStr),
    Network(Box<Network>),
}

/// Where evaluation goes on.
#[derive(Debug, Clone, Copy)]
enum Jump {
    Step(u32),
    Verdict(bool),
}

impl Program<Field> {
    /// Compiles a filter; `None` matches everything.
    pub(super) fn compile(expr: Option<&Expr>) -> Self {
        let mut steps = Vec::new();
        let entry = match expr {
            None => Jump::Verdict(true),
            Some(expr) => emit(expr, Jump::Verdict(true), Jump::Verdict(false), &mut steps),
        };
        Self { steps: steps.into_boxed_slice(), entry }
    }
}

impl<F> Program<F> {
    /// Compiles a simplified filter, whose fields get the names that `name` gives them.
    pub(super) fn of_normal(normal: &Normal, name: &mut impl FnMut(&Field) -> F) -> Self {
        let mut steps = Vec::new();
        let (yes, no) = (Jump::Verdict(true), Jump::Verdict(false));
        let entry = emit_normal(normal, yes, no, name, &mut steps);
        Self { steps: steps.into_boxed_slice(), entry }
    }

    /// Runs the program against the fields that `lookup` finds.
    #[inline]
    pub(super) fn run<'a>(&self, lookup: impl Fn(&F) -> Option<Value<'a>>) -> bool {
        let mut next = self.entry;
        loop {
            let index = match next {
                Jump::Verdict(verdict) => return verdict,
                Jump::Step(index) => index as usize,
            };
            let step = self.steps.get(index).expect("jumps lead to steps that were emitted before");
            let holds = lookup(&step.field).is_some_and(|value| step.check.holds(value));
            next = if holds { step.if_true } else { step.if_false };
        }
    }

    pub(super) fn memory(&self) -> usize {
        size_of_val(&*self.steps)
    }
}

impl Check {
    /// The check of a test that is not one of the negative ones, or of the opposite of one.
    pub(super) fn of(test: &Test) -> Self {
        match test {
            Test::Has => Self::Present,
            Test::Eq(value) | Test::Ne(value) => Self::Equal(value.clone()),
            Test::Prefix(prefix) => Self::Prefix(prefix.clone()),
            Test::Number(Relation::NotEqual, number) => Self::Number(Relation::Equal, *number),
            Test::Number(relation, number) => Self::Number(*relation, *number),
            Test::In(operands) => Self::In(operands.clone().into_boxed_slice()),
            Test::Suffix(suffix) => Self::Suffix(suffix.clone()),
            Test::Contains(part) => Self::Contains(part.clone()),
            Test::IgnoreCase(value) => Self::IgnoreCase(value.clone()),
            Test::Glob(glob) => Self::Glob(glob.clone()),
            Test::Subject(pattern) => Self::Subject(pattern.clone()),
            Test::Network(network) => Self::Network(Box::new(network.clone())),
        }
    }

    #[inline]
    pub(super) fn holds(&self, value: Value<'_>) -> bool {
        match (self, value) {
            (Self::Present, _) => true,
            (Self::Equal(wanted), Value::Text(text)) => text == wanted.as_bytes(),
            (Self::Prefix(prefix), Value::Text(text)) => text.starts_with(prefix.as_bytes()),
            _ => self.holds_extended(value),
        }
    }

    fn holds_extended(&self, value: Value<'_>) -> bool {
        let number = || match value {
            Value::Text(text) => Number::read(text),
            Value::Number(number) => Some(Number::Integer(number.into())),
        };
        let holds = |relation: Relation, wanted| {
            number().is_some_and(|number| relation.holds(number.compare(wanted)))
        };
        match self {
            Self::Number(relation, wanted) => return holds(*relation, *wanted),
            Self::In(operands) => {
                let number = number();
                return operands.iter().any(|operand| match operand {
                    Operand::Text(wanted) => {
                        matches!(value, Value::Text(text) if text == wanted.as_bytes())
                    }
                    Operand::Number(wanted) => {
                        number.is_some_and(|number| number.compare(*wanted).is_eq())
                    }
                });
            }
            _ => {}
        }
        let Value::Text(text) = value else { return false };
        // Values are packed from strings; anything else would match nothing.
        let Ok(text) = std::str::from_utf8(text) else { return false };
        match self {
            Self::Suffix(suffix) => text.ends_with(suffix.as_str()),
            Self::Contains(part) => text.contains(part.as_str()),
            Self::IgnoreCase(wanted) => text.eq_ignore_ascii_case(wanted),
            Self::Glob(glob) => glob.matches(text),
            Self::Subject(pattern) => matches_subject(pattern, text),
            Self::Network(network) => network.contains(text),
            Self::Present | Self::Equal(_) | Self::Prefix(_) => false,
            Self::Number(..) | Self::In(_) => false,
        }
    }
}

/// Appends the steps of `expr` and returns where it begins. The last term comes first, so that
/// each term knows the beginning of the one after it.
fn emit(expr: &Expr, if_true: Jump, if_false: Jump, steps: &mut Vec<Step<Field>>) -> Jump {
    match expr {
        Expr::Constant(value) => {
            if *value {
                if_true
            } else {
                if_false
            }
        }
        Expr::Predicate(predicate) => {
            // A negative test is the negation of another, so it only swaps the ways out.
            let negative =
                matches!(predicate.test, Test::Ne(_) | Test::Number(Relation::NotEqual, _));
            let (if_true, if_false) =
                if negative { (if_false, if_true) } else { (if_true, if_false) };
            let check = Check::of(&predicate.test);
            push(Step { field: predicate.field.clone(), check, if_true, if_false }, steps)
        }
        Expr::Not(inner) => emit(inner, if_false, if_true, steps),
        Expr::Group(Operator::And, terms) => {
            terms.iter().rev().fold(if_true, |next, term| emit(term, next, if_false, steps))
        }
        Expr::Group(Operator::Or, terms) => {
            terms.iter().rev().fold(if_false, |next, term| emit(term, if_true, next, steps))
        }
    }
}

fn emit_normal<F>(
    normal: &Normal,
    if_true: Jump,
    if_false: Jump,
    name: &mut impl FnMut(&Field) -> F,
    steps: &mut Vec<Step<F>>,
) -> Jump {
    match normal {
        Normal::Constant(value) => {
            if *value {
                if_true
            } else {
                if_false
            }
        }
        Normal::Literal(literal) => {
            let (if_true, if_false) =
                if literal.holds { (if_true, if_false) } else { (if_false, if_true) };
            let (field, check) = (name(&literal.field), Check::of(&literal.test));
            push(Step { field, check, if_true, if_false }, steps)
        }
        Normal::All(terms) => terms
            .iter()
            .rev()
            .fold(if_true, |next, term| emit_normal(term, next, if_false, name, steps)),
        Normal::Any(terms) => terms
            .iter()
            .rev()
            .fold(if_false, |next, term| emit_normal(term, if_true, next, name, steps)),
    }
}

fn push<F>(step: Step<F>, steps: &mut Vec<Step<F>>) -> Jump {
    steps.push(step);
    Jump::Step((steps.len() - 1) as u32)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    fn has(key: &str) -> Expr {
        Expr::predicate(key, Test::Has)
    }

    /// The verdict and the keys looked up, in order, when only `present` exists.
    fn run(expr: &Expr, present: &str) -> (bool, String) {
        let seen = RefCell::new(String::new());
        let verdict = Program::compile(Some(expr)).run(|field| {
            let Field::Attribute(key) = field else { return None };
            seen.borrow_mut().push_str(key);
            (key == present).then_some(Value::Text(b""))
        });
        (verdict, seen.into_inner())
    }

    #[test]
    fn stops_as_soon_as_the_verdict_is_known() {
        let all = Expr::group(Operator::And, vec![has("a"), has("b"), has("c")]);
        assert_eq!(run(&all, "a"), (false, "ab".into()));
        let any = Expr::group(Operator::Or, vec![has("a"), has("b"), has("c")]);
        assert_eq!(run(&any, "b"), (true, "ab".into()));
        assert_eq!(run(&any.negated(1), "b"), (false, "ab".into()));
    }

    #[test]
    fn the_empty_filter_has_no_steps() {
        assert!(Program::compile(None).run(|_| None));
    }
}
