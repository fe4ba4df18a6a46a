//! A filter of the index: what is filed under it, and what is left to check once it was found.

use std::sync::Arc;

use smallvec::SmallVec;

use super::counts::Standing;
use crate::filter::normal::Normal;
use crate::filter::number::Number;
use crate::filter::program::{Check, Program, Value};

/// What a look needs of a filter: one cache line for most.
#[derive(Debug)]
pub(super) struct Node<T> {
    pub(super) value: T,
    /// Stands under several keys, so it can be found more than once.
    pub(super) is_repeated: bool,
    pub(super) residual: Residual,
}

/// What is left to check of a filter that was found.
#[derive(Debug)]
pub(super) enum Residual {
    Nothing,
    /// A single test, in place.
    One {
        field: u32,
        check: Check,
        holds: bool,
    },
    Program(Box<Program<u32>>),
}

/// What a look needs of a filter that stands alone under its key and has next to nothing left to
/// check: it is kept with the key, where the look is already.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lone<T> {
    pub(super) value: T,
    /// A field that must be present, or must not.
    presence: Option<(u32, bool)>,
}

/// What a change needs of a filter, under the number of its node.
#[derive(Debug)]
pub(super) struct Filing {
    pub(super) places: SmallVec<[Place; 1]>,
    pub(super) normal: Arc<Normal>,
    pub(super) standing: Standing,
}

/// Where a node stands: in which list, and where in it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) list: ListId,
    pub(super) at: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListId {
    Key(u32),
    Present(u32),
    AllBut(u32),
    Group(u32),
    Always,
    Scanned,
}

/// A field that some filter names, as a message has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fact<'m> {
    pub(super) field: u32,
    pub(super) value: Value<'m>,
}

impl<T> Node<T> {
    #[inline]
    pub(super) fn holds(&self, facts: &[Fact<'_>]) -> bool {
        match &self.residual {
            Residual::Nothing => true,
            Residual::One { field, check, holds } => {
                find(facts, *field).is_some_and(|value| check.holds(value)) == *holds
            }
            Residual::Program(program) => program.run(|field| find(facts, *field)),
        }
    }
}

impl<T: Copy> Lone<T> {
    /// What a look needs of a node that is alone in a list; `None` if it needs more.
    pub(super) fn of(node: &Node<T>) -> Option<Self> {
        let presence = match &node.residual {
            Residual::Nothing => None,
            Residual::One { field, check: Check::Present, holds } => Some((*field, *holds)),
            _ => return None,
        };
        (!node.is_repeated).then_some(Self { value: node.value, presence })
    }

    #[inline]
    pub(super) fn holds(&self, facts: &[Fact<'_>]) -> bool {
        self.presence.is_none_or(|(field, holds)| find(facts, field).is_some() == holds)
    }
}

/// What a message has of a field.
#[inline]
pub(super) fn find<'m>(facts: &[Fact<'m>], field: u32) -> Option<Value<'m>> {
    facts.iter().find(|fact| fact.field == field).map(|fact| fact.value)
}

impl<'m> Fact<'m> {
    #[inline]
    pub(super) fn text(&self) -> &'m [u8] {
        match self.value {
            Value::Text(text) => text,
            Value::Number(_) => &[],
        }
    }

    pub(super) fn number(&self) -> Option<Number> {
        match self.value {
            Value::Text(text) => Number::read(text),
            Value::Number(number) => Some(Number::Integer(number.into())),
        }
    }
}
