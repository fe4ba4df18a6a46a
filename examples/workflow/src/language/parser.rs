//! Text to [`Definition`]: the document itself, and the order of what is wrong in it.

use crate::language::expressions::{Scope, mappings};
use crate::language::node::{Node, NodeKind, Problems, problem, shortened};
use crate::language::place::{Fields, Least, Place, Report};
use crate::language::siblings::lost_goto;
use crate::language::steps::step_list;
use crate::language::{
    Code, Definition, DefinitionError, LanguageLimits, Position, read_json, read_yaml,
};

const VERSIONS: [&str; 2] = ["v1", "v1beta1"];

const FIELDS: [&str; 8] = [
    "version",
    "type",
    "steps",
    "inputMappings",
    "outputMappings",
    "timeoutSeconds",
    "name",
    "description",
];

/// Everything there is to say about a definition.
#[derive(Clone, Debug, PartialEq)]
pub struct Checked {
    /// The definition, if there are no errors.
    pub definition: Option<Definition>,
    /// What is wrong, by position.
    pub errors: Vec<DefinitionError>,
    /// What may be unwanted, by position; also when there are errors.
    pub warnings: Vec<DefinitionError>,
}

impl Definition {
    /// Reads a definition from YAML or JSON.
    ///
    /// # Errors
    ///
    /// All errors of the definition, by position (the first 1,000); those of reading alone when
    /// the text cannot be read.
    pub fn parse(text: &str) -> Result<Self, Vec<DefinitionError>> {
        let checked = Self::check(text, &LanguageLimits::default());
        checked.definition.ok_or(checked.errors)
    }

    /// Reads a definition within these limits, with its errors and warnings.
    pub fn check(text: &str, limits: &LanguageLimits) -> Checked {
        let (definition, mut problems) = match read(text, limits) {
            Ok(root) => parse(&root, text, limits),
            Err(unreadable) => (None, unreadable),
        };
        problems.sort();
        let (warnings, errors): (Vec<_>, Vec<_>) =
            problems.into_iter().partition(|problem| problem.code.is_warning());
        let definition = definition.filter(|_| errors.is_empty());
        Checked { definition, errors, warnings }
    }
}

fn read(text: &str, limits: &LanguageLimits) -> Result<std::rc::Rc<Node>, Vec<DefinitionError>> {
    let most = limits.max_document_bytes;
    if text.len() > most {
        let message = format!("the document has {} bytes, more than {most}", text.len());
        let start = Position { line: 1, column: 1 };
        return Err(vec![problem(Code::TooLarge, "$".into(), start, message)]);
    }
    read_json::read(text, limits).unwrap_or_else(|| read_yaml::read(text, limits))
}

fn parse(
    root: &Node,
    text: &str,
    limits: &LanguageLimits,
) -> (Option<Definition>, Vec<DefinitionError>) {
    let mut report = Report {
        limits,
        text,
        problems: Problems::default(),
        names: Default::default(),
        lost_gotos: Vec::new(),
        next_step: 0,
    };
    let definition = document(&Place::root(root), &mut report);
    let lost: Vec<_> = std::mem::take(&mut report.lost_gotos);
    for lost in lost {
        let error = lost_goto(lost, &report);
        report.problems.push(error);
    }
    (definition, report.problems.into_vec())
}

fn document(place: &Place<'_>, report: &mut Report<'_>) -> Option<Definition> {
    let empty = Node::new(NodeKind::Map(Vec::new()), place.node.at);
    let is_mapping = matches!(place.node.kind, NodeKind::Map(_));
    if !is_mapping && !matches!(place.node.kind, NodeKind::Null) {
        let message = format!("a definition is a mapping, found {}", place.node.describe());
        report.add(Code::WrongType, place, message);
    }
    // Without a mapping every key of the top level is missing.
    let place = if is_mapping { place.clone() } else { Place::root(&empty) };
    let fields = place.open_fields("a definition", report)?;
    if let Some(place) = new_style(&fields) {
        let message = "`Type: StateMachine` is a new-style definition".into();
        let hint = "new-style definition; not supported yet".to_string();
        report.add_with_hint(Code::VersionOrType, &place, message, Some(hint));
        return None;
    }
    fields.refuse_unknown("a definition", &FIELDS, |_| None, report);
    let version = word(&fields, "version", &VERSIONS, report);
    let kind = word(&fields, "type", &["flow"], report);
    let input_mappings = mappings(&fields, "inputMappings", Scope::Other, report);
    let output_mappings = mappings(&fields, "outputMappings", Scope::Other, report);
    let timeout = match fields.get("timeoutSeconds") {
        Some(place) => place.seconds(Least::Positive, None, report).map(Some),
        None => Some(None),
    };
    let strict = match fields.get("x-strict") {
        Some(place) => place.boolean(report),
        None => Some(false),
    };
    let steps = top_level(&fields, "steps", report).map(|place| step_list(&place, 1, report).0);
    kind?;
    Some(Definition {
        version: version?.into(),
        steps: steps?,
        input_mappings,
        output_mappings,
        timeout: timeout?,
        strict: strict?,
        annotations: fields.annotations(&["name", "description"]),
        step_count: report.next_step,
    })
}

/// `Type: StateMachine`, with which the definitions of the newer notation begin.
fn new_style<'a>(fields: &Fields<'a>) -> Option<Place<'a>> {
    let place = fields.get("Type")?;
    matches!(&place.node.kind, NodeKind::Text(text) if text == "StateMachine").then_some(place)
}

/// A key of the top level, with FDL002 when it is missing.
fn top_level<'a>(fields: &Fields<'a>, key: &str, report: &mut Report<'_>) -> Option<Place<'a>> {
    let found = fields.get(key);
    if found.is_none() {
        let hint = match key {
            "version" => Some("version: v1"),
            "type" => Some("type: flow"),
            _ => None,
        };
        fields.missing(Code::TopLevelMissing, key, hint, report);
    }
    found
}

/// The value of `version` or `type`, which must be one of these words (FDL003).
fn word<'a>(
    fields: &Fields<'a>,
    key: &str,
    words: &[&str],
    report: &mut Report<'_>,
) -> Option<&'a str> {
    let place = top_level(fields, key, report)?;
    match &place.node.kind {
        NodeKind::Text(text) if words.contains(&text.as_str()) => Some(text),
        kind => {
            let found = match kind {
                NodeKind::Text(text) => format!("`{}`", shortened(text)),
                _ => place.node.describe(),
            };
            let message = format!("{key} must be {}, found {found}", words.join(" or "));
            report.add(Code::VersionOrType, &place, message);
            None
        }
    }
}
