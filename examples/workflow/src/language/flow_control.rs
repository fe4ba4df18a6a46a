//! The ways through a list of steps: steps nobody reaches (FDLW01) and loops that spin (FDLW03).
//!
//! Works on outlines, so that it needs no finished steps. A way is *quiet* when it passes neither
//! a wait nor a task.

use crate::language::node::problem;
use crate::language::place::Report;
use crate::language::{Code, Position};

/// What is known about the ways out of a step.
#[derive(Clone, Debug)]
pub(crate) struct Outline {
    pub(crate) path: String,
    pub(crate) at: Position,
    pub(crate) name: String,
    /// How the step comes to its own end, after which the next step runs or the list ends.
    pub(crate) through: Way,
    /// `end: true`, or a succeed step.
    pub(crate) ends: bool,
    pub(crate) gotos: Vec<Jump>,
}

/// A goto of a step.
#[derive(Clone, Debug)]
pub(crate) struct Jump {
    /// The index of the step it names; `None` when there is none.
    pub(crate) to: Option<usize>,
    pub(crate) path: String,
    pub(crate) at: Position,
    pub(crate) is_quiet: bool,
}

/// Whether there is a way, and whether a quiet one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    None,
    Blocking,
    Quiet,
}

impl Way {
    /// One way or the other.
    pub(crate) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Quiet, _) | (_, Self::Quiet) => Self::Quiet,
            (Self::Blocking, _) | (_, Self::Blocking) => Self::Blocking,
            (Self::None, Self::None) => Self::None,
        }
    }

    /// Both, one after the other or side by side.
    pub(crate) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::None, _) | (_, Self::None) => Self::None,
            (Self::Blocking, _) | (_, Self::Blocking) => Self::Blocking,
            (Self::Quiet, Self::Quiet) => Self::Quiet,
        }
    }
}

/// Reports what is wrong with the ways through the list and returns the way through it whole.
pub(crate) fn check(list: &[Outline], report: &mut Report<'_>) -> Way {
    let is_sound = list.iter().all(|step| step.gotos.iter().all(|jump| jump.to.is_some()));
    let reached = reach(list, 0, |_| true);
    // With a goto that leads nowhere, who is reached is not known.
    if is_sound {
        for (step, _) in list.iter().zip(&reached).filter(|(_, reached)| !**reached) {
            let message = format!("no way leads to step `{}`", step.name);
            report.problems.push(problem(
                Code::UnreachableStep,
                step.path.clone(),
                step.at,
                message,
            ));
        }
    }
    spinning(list, &reached, report);
    through(list, &reached)
}

/// FDLW03 at each goto that leads back over quiet steps alone.
fn spinning(list: &[Outline], reached: &[bool], report: &mut Report<'_>) {
    for (index, step) in list.iter().enumerate() {
        if reached.get(index) != Some(&true) {
            continue;
        }
        for jump in step.gotos.iter().filter(|jump| jump.is_quiet) {
            let Some(to) = jump.to.filter(|to| *to <= index) else { continue };
            let comes_back = reach(list, to, |way| way == Way::Quiet);
            if comes_back.get(index) == Some(&true) {
                let name = list.get(to).map_or("", |step| &step.name);
                let message = format!("the loop back to `{name}` has no wait or task: it may spin");
                let (path, at) = (jump.path.clone(), jump.at);
                report.problems.push(problem(Code::SpinningLoop, path, at, message));
            }
        }
    }
}

/// Which steps are reached from `start` when only steps with a way that `passes` are left.
fn reach(list: &[Outline], start: usize, passes: impl Fn(Way) -> bool) -> Vec<bool> {
    let mut reached = vec![false; list.len()];
    let mut open = vec![start];
    while let Some(index) = open.pop() {
        let (Some(step), Some(seen)) = (list.get(index), reached.get_mut(index)) else { continue };
        if std::mem::replace(seen, true) {
            continue;
        }
        if step.through != Way::None && passes(step.through) && !step.ends {
            open.push(index + 1);
        }
        let way = |jump: &&Jump| passes(if jump.is_quiet { Way::Quiet } else { Way::Blocking });
        open.extend(step.gotos.iter().filter(way).filter_map(|jump| jump.to));
    }
    reached
}

/// The way from the first step to an end of the list.
fn through(list: &[Outline], reached: &[bool]) -> Way {
    let quiet = reach(list, 0, |way| way == Way::Quiet);
    let last = list.len().saturating_sub(1);
    let ways = list.iter().enumerate().map(|(index, step)| {
        let is_exit = step.ends || index == last;
        match (is_exit, reached.get(index), quiet.get(index)) {
            (true, _, Some(true)) => step.through,
            (true, Some(true), _) => step.through.and(Way::Blocking),
            _ => Way::None,
        }
    });
    // A list without steps is an error of its own; nothing further is said about its ways.
    ways.fold(if list.is_empty() { Way::Quiet } else { Way::None }, Way::or)
}
