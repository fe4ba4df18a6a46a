//! The names of the steps of one list, and the gotos that name them (F-21, FDL009).

use std::collections::HashMap;

use crate::language::flow_control::Jump;
use crate::language::node::{NodeKind, problem, shortened};
use crate::language::place::{LostGoto, Place, Report};
use crate::language::suggest::nearest;
use crate::language::{Code, DefinitionError, Goto};

/// The steps of a list by name; known before the steps themselves are read.
pub(crate) struct Siblings {
    indexes: HashMap<String, usize>,
}

impl Siblings {
    pub(crate) fn of(list: &[Place<'_>]) -> Self {
        let mut indexes = HashMap::new();
        for (index, place) in list.iter().enumerate() {
            if let Some(name) = name_of(place) {
                indexes.entry(name.to_string()).or_insert(index);
            }
        }
        Self { indexes }
    }

    /// Reads the name in a `goto`, notes the jump, and resolves it if it names a sibling.
    pub(crate) fn goto(
        &self,
        place: &Place<'_>,
        is_quiet: bool,
        jumps: &mut Vec<Jump>,
        report: &mut Report<'_>,
    ) -> Option<Goto> {
        let name = place.text(report)?;
        let to = self.indexes.get(name).copied();
        jumps.push(Jump { to, path: place.path.clone(), at: place.node.at, is_quiet });
        if to.is_none() {
            report.lost_gotos.push(LostGoto {
                name: name.into(),
                path: place.path.clone(),
                at: place.node.at,
                siblings: self.near(name),
            });
        }
        Some(Goto { step: name.into(), index: to? })
    }

    /// The sibling that was meant, if any is near.
    fn near(&self, name: &str) -> Option<String> {
        let mut names: Vec<&str> = self.indexes.keys().map(String::as_str).collect();
        // The order of a hash map must not decide between two that are equally near.
        names.sort_unstable();
        nearest(name, &names).map(Into::into)
    }
}

/// FDL009, once all names of the document are known.
pub(crate) fn lost_goto(lost: LostGoto, report: &Report<'_>) -> DefinitionError {
    let name = shortened(&lost.name);
    let (message, hint) = match report.names.get(&lost.name) {
        Some(place) => (
            format!("goto `{name}` is not a sibling: the step is in another list"),
            Some(format!("line {}; a goto reaches the steps of its own list only", place.line)),
        ),
        None => (
            format!("goto `{name}` is not a sibling: there is no step of this name"),
            lost.siblings.map(|near| format!("did you mean `{near}`?")),
        ),
    };
    DefinitionError { hint, ..problem(Code::GotoNotSibling, lost.path, lost.at, message) }
}

fn name_of<'a>(place: &Place<'a>) -> Option<&'a str> {
    let NodeKind::Map(entries) = &place.node.kind else { return None };
    let entry = entries.iter().find(|entry| entry.key == "name")?;
    match &entry.value.kind {
        NodeKind::Text(name) => Some(name),
        _ => None,
    }
}
