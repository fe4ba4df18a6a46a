//! Mappings, sources and conditions as they stand in a definition (FDL010, FDL011, FDL017).

use std::collections::HashSet;

use crate::language::node::{NodeKind, shortened};
use crate::language::place::{Fields, Place, Report};
use crate::language::{Code, Condition, Mapping, Path, Root, Segment, Source};

/// Where a source stands: what it may say about the task (F-16).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Scope {
    /// What goes into a task.
    TaskInput { has_token: bool },
    /// Everything else.
    Other,
}

/// A list of mappings, if the field is there.
pub(crate) fn mappings(
    fields: &Fields<'_>,
    key: &str,
    scope: Scope,
    report: &mut Report<'_>,
) -> Option<Vec<Mapping>> {
    let list = fields.get(key)?.list(report)?;
    let mut targets = HashSet::new();
    Some(list.iter().filter_map(|place| mapping(place, scope, &mut targets, report)).collect())
}

fn mapping<'a>(
    place: &Place<'a>,
    scope: Scope,
    targets: &mut HashSet<&'a str>,
    report: &mut Report<'_>,
) -> Option<Mapping> {
    let fields = place.fields("a mapping", &["target", "source"], report)?;
    let target_place = fields.require("target", report);
    let target = target_place.as_ref().and_then(|place| place.name(report));
    if let (Some(place), Some(target)) = (&target_place, target)
        && !targets.insert(target)
    {
        let message = format!("`{target}` is mapped twice; the later mapping wins");
        report.add(Code::TargetMappedTwice, place, message);
    }
    let source = fields.require("source", report).and_then(|place| source(&place, scope, report));
    Some(Mapping { target: target?.into(), source: source? })
}

/// A source: a constant or a path.
pub(crate) fn source(place: &Place<'_>, scope: Scope, report: &mut Report<'_>) -> Option<Source> {
    match Source::parse(place.node.to_value()) {
        Ok(source) => {
            if let Source::Path(path) = &source {
                check_scope(path, place, scope, report);
            }
            Some(source)
        }
        Err(error) => {
            bad_source(place, error.offset, error.message, error.hint, report);
            None
        }
    }
}

/// A path on the step's input, and no other source.
pub(crate) fn input_path(place: &Place<'_>, report: &mut Report<'_>) -> Option<Path> {
    let text = place.text(report)?;
    match Path::parse(text) {
        Ok(path) if matches!(path.root, Root::Whole | Root::Input) => Some(path),
        Ok(path) => {
            let message = format!("{} cannot be used in {}", path.root, place.key());
            let hint = "map it to a key by inputMappings and use `$.key`".to_string();
            bad_source(place, 0, message, Some(hint), report);
            None
        }
        Err(error) => {
            bad_source(place, error.offset, error.message, error.hint, report);
            None
        }
    }
}

fn bad_source(
    place: &Place<'_>,
    offset: usize,
    message: String,
    hint: Option<String>,
    report: &mut Report<'_>,
) {
    let text = place.node.to_value().as_str().map(shortened).unwrap_or_default();
    let position = place.position_of(offset, report);
    let message = format!("bad expression `{text}`: {message}");
    report.add_at(position, Code::BadSource, place, message, hint);
}

/// F-16: `$context.task` only in what goes into a task, its token only with a callback.
fn check_scope(path: &Path, place: &Place<'_>, scope: Scope, report: &mut Report<'_>) {
    let key = |index: usize| match path.segments.get(index) {
        Some(Segment::Key(key)) => Some(key.as_str()),
        _ => None,
    };
    if path.root != Root::Context || key(0) != Some("task") {
        return;
    }
    let (message, hint) = match scope {
        Scope::Other => (
            "$context.task is only there in the inputMappings and serviceParams of a task",
            "map it into the task's input",
        ),
        Scope::TaskInput { has_token: false } if key(1) == Some("token") => (
            "$context.task.token is only there with pattern: waitForCallback",
            "add `pattern: waitForCallback` to the task",
        ),
        Scope::TaskInput { .. } => return,
    };
    report.add_with_hint(Code::TokenOutsideCallback, place, message.into(), Some(hint.into()));
}

/// A condition: text or a boolean.
pub(crate) fn condition(place: &Place<'_>, report: &mut Report<'_>) -> Option<Condition> {
    if let NodeKind::Bool(value) = place.node.kind {
        return Some(Condition::constant(value));
    }
    match Condition::parse(place.text(report)?) {
        Ok(condition) => Some(condition),
        Err(error) => {
            let position = place.position_of(error.column - 1, report);
            let message = format!("condition, column {}: {}", error.column, error.message);
            report.add_at(position, Code::ConditionSyntax, place, message, error.hint);
            None
        }
    }
}

/// Whether the source may give the task token away (FDLW04).
pub(crate) fn carries_token(source: &Source) -> bool {
    let Source::Path(path) = source else { return false };
    let wanted = ["task", "token"];
    let fits = |(segment, wanted): (&Segment, &str)| match segment {
        Segment::Key(key) => key == wanted,
        Segment::Wildcard => true,
        Segment::Index(_) | Segment::Slice(..) => false,
    };
    path.root == Root::Context
        && path.segments.len() <= wanted.len()
        && path.segments.iter().zip(wanted).all(fits)
}
