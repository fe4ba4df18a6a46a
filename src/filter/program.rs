//! Filters compiled for evaluation: one step per predicate, joined by jumps.
//!
//! Each step tests one attribute and names where to go if the test holds and where if not:
//! another step, or a verdict. AND, OR and NOT leave no code behind, they only decide the jumps.
//! Steps are laid out from last to first, so every jump goes to a smaller number. Therefore
//! evaluation ends, runs each test at most once, and needs no stack, recursion or allocation.

use std::sync::Arc;

use super::ast::{Expr, Operator, Predicate, Test};

/// A filter in the form that is evaluated.
#[derive(Debug)]
pub(super) struct Program {
    steps: Box<[Step]>,
    entry: Jump,
}

#[derive(Debug)]
struct Step {
    key: Arc<str>,
    check: Check,
    if_true: Jump,
    if_false: Jump,
}

/// A test of a value that is present; a test fails where it is absent.
#[derive(Debug)]
enum Check {
    Present,
    Equal(Arc<str>),
    Prefix(Arc<str>),
}

/// Where evaluation goes on.
#[derive(Debug, Clone, Copy)]
enum Jump {
    Step(usize),
    Verdict(bool),
}

impl Program {
    /// Compiles a filter; `None` matches everything.
    pub(super) fn compile(expr: Option<&Expr>) -> Self {
        let mut steps = Vec::new();
        let entry = match expr {
            None => Jump::Verdict(true),
            Some(expr) => emit(expr, Jump::Verdict(true), Jump::Verdict(false), &mut steps),
        };
        Self { steps: steps.into_boxed_slice(), entry }
    }

    /// Runs the program against the attributes that `lookup` finds.
    pub(super) fn run<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        let mut next = self.entry;
        loop {
            let index = match next {
                Jump::Verdict(verdict) => return verdict,
                Jump::Step(index) => index,
            };
            let step = self.steps.get(index).expect("jumps lead to steps that were emitted before");
            let holds = lookup(&step.key).is_some_and(|value| step.check.holds(value));
            next = if holds { step.if_true } else { step.if_false };
        }
    }
}

impl Check {
    fn holds(&self, value: &str) -> bool {
        match self {
            Self::Present => true,
            Self::Equal(wanted) => value == &**wanted,
            Self::Prefix(prefix) => value.starts_with(&**prefix),
        }
    }
}

/// Appends the steps of `expr` and returns where it begins. The last term comes first, so that
/// each term knows the beginning of the one after it.
fn emit(expr: &Expr, if_true: Jump, if_false: Jump, steps: &mut Vec<Step>) -> Jump {
    match expr {
        Expr::Predicate(predicate) => {
            steps.push(step(predicate, if_true, if_false));
            Jump::Step(steps.len() - 1)
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

fn step(predicate: &Predicate, if_true: Jump, if_false: Jump) -> Step {
    let key = Arc::clone(&predicate.key);
    match &predicate.test {
        Test::Has => Step { key, check: Check::Present, if_true, if_false },
        Test::Eq(value) => Step { key, check: Check::Equal(Arc::clone(value)), if_true, if_false },
        // `!=` is the negation of `=`, so it only swaps the ways out.
        Test::Ne(value) => {
            let check = Check::Equal(Arc::clone(value));
            Step { key, check, if_true: if_false, if_false: if_true }
        }
        Test::Prefix(prefix) => {
            Step { key, check: Check::Prefix(Arc::clone(prefix)), if_true, if_false }
        }
    }
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
        let verdict = Program::compile(Some(expr)).run(|key| {
            seen.borrow_mut().push_str(key);
            (key == present).then_some("")
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
