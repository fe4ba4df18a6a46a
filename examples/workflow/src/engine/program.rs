//! A definition made ready to run: steps by number, lists by number, steps by name.
//!
//! The state of an execution refers to steps and lists by these numbers, so it is plain data.

use std::collections::HashMap;
use std::sync::Arc;

use crate::language::{Definition, Step, StepList, StepName};

/// The number of a step in its definition.
pub type StepId = u32;
/// The number of a list of steps in its definition; the top list is 0.
pub type ListId = u32;

/// A definition made ready to run.
#[derive(Debug)]
pub struct Program {
    /// The definition.
    pub definition: Arc<Definition>,
    nodes: Vec<Node>,
    lists: Vec<Vec<StepId>>,
    by_name: HashMap<StepName, StepId>,
}

#[derive(Debug)]
struct Node {
    step: Arc<Step>,
    /// The lists nested in it, in the order of [`Step::lists`].
    lists: Vec<ListId>,
}

impl Program {
    /// Numbers the lists of a definition.
    pub fn new(definition: Definition) -> Self {
        let definition = Arc::new(definition);
        let mut program = Self {
            definition: Arc::clone(&definition),
            nodes: Vec::new(),
            lists: Vec::new(),
            by_name: HashMap::new(),
        };
        program.add_list(&definition.steps);
        program
    }

    /// The step with this number; `None` if a record names one that does not exist.
    pub fn step(&self, id: StepId) -> Option<&Arc<Step>> {
        self.nodes.get(id as usize).map(|node| &node.step)
    }

    /// The number of the step with this name.
    pub fn id_of(&self, name: &str) -> Option<StepId> {
        self.by_name.get(name).copied()
    }

    /// The steps of a list.
    pub fn list(&self, id: ListId) -> Option<&[StepId]> {
        self.lists.get(id as usize).map(Vec::as_slice)
    }

    /// The list nested in a step at `index`, in the order of [`Step::lists`].
    pub fn nested(&self, step: StepId, index: usize) -> Option<ListId> {
        self.nodes.get(step as usize)?.lists.get(index).copied()
    }

    /// Numbers steps in the order of the document; nesting is bounded by the language.
    fn add_list(&mut self, list: &StepList) -> ListId {
        let id = self.lists.len() as ListId;
        self.lists.push(Vec::new());
        for step in list {
            let number = self.nodes.len() as StepId;
            self.nodes.push(Node { step: Arc::new(step.clone()), lists: Vec::new() });
            self.by_name.insert(Arc::clone(&step.name), number);
            let nested = step.lists().into_iter().map(|nested| self.add_list(nested)).collect();
            if let Some(node) = self.nodes.get_mut(number as usize) {
                node.lists = nested;
            }
            if let Some(steps) = self.lists.get_mut(id as usize) {
                steps.push(number);
            }
        }
        id
    }
}

/// The list that every execution starts with.
pub(crate) const TOP_LIST: ListId = 0;
