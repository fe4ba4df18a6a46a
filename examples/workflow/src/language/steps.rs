//! Steps as they stand in a definition: every type, and what they have in common.

use crate::language::expressions::{Scope, carries_token, condition, input_path, mappings, source};
use crate::language::flow_control::{self, Jump, Outline, Way};
use crate::language::handling::handling;
use crate::language::node::{NodeKind, shortened};
use crate::language::place::{Fields, Least, Place, Report};
use crate::language::siblings::Siblings;
use crate::language::suggest::nearest;
use crate::language::{
    Choice, ChoiceBranch, Code, Continuation, Fail, Foreach, Mapping, Parallel, Pattern, Resource,
    Source, Step, StepKind, StepList, Task, Wait, parse_timestamp,
};

const COMMON_FIELDS: [&str; 5] = ["type", "name", "inputMappings", "outputMappings", "description"];

/// The types of steps and the fields that each has beside the common ones.
const TYPES: [(&str, &[&str]); 8] = [
    (
        "task",
        &[
            "end",
            "resourceArn",
            "pattern",
            "timeoutSeconds",
            "serviceParams",
            "retry",
            "catch",
            "errorMappings",
        ],
    ),
    ("pass", &["end"]),
    ("wait", &["end", "duration", "timestamp"]),
    ("choice", &["end", "choices", "default"]),
    ("parallel", &["end", "branches", "retry", "catch", "errorMappings"]),
    ("foreach", &["end", "iterationMapping", "steps", "retry", "catch", "errorMappings"]),
    ("succeed", &[]),
    ("fail", &["error", "cause"]),
];

const PATTERNS: [Pattern; 3] = [Pattern::RequestResponse, Pattern::Sync, Pattern::WaitForCallback];

/// The longest name of a flow or step, in characters.
const MAX_NAME: usize = 128;

/// A list of steps and the way through it.
pub(crate) fn step_list(
    place: &Place<'_>,
    nesting: usize,
    report: &mut Report<'_>,
) -> (StepList, Way) {
    let Some(places) = place.full_list(report) else { return (Vec::new(), Way::Quiet) };
    if nesting > report.limits.max_nesting {
        let most = report.limits.max_nesting;
        let message = format!("lists of steps are nested more than {most} deep");
        let hint = "move the inner steps to a flow of their own".to_string();
        report.add_with_hint(Code::TooLarge, place, message, Some(hint));
        return (Vec::new(), Way::Quiet);
    }
    let siblings = Siblings::of(&places);
    let (mut steps, mut outlines) = (Vec::new(), Vec::new());
    for place in &places {
        let (read, outline) = step(place, &siblings, nesting, report);
        steps.extend(read);
        outlines.push(outline);
    }
    let way = flow_control::check(&outlines, report);
    (steps, way)
}

/// What a step type makes of its fields: the kind, if it is sound, and the ways through it.
struct Body {
    kind: Option<StepKind>,
    through: Way,
    jumps: Vec<Jump>,
}

impl Body {
    fn new(kind: Option<StepKind>, through: Way) -> Self {
        Self { kind, through, jumps: Vec::new() }
    }
}

fn step(
    place: &Place<'_>,
    siblings: &Siblings,
    nesting: usize,
    report: &mut Report<'_>,
) -> (Option<Step>, Outline) {
    let id = report.next_step;
    report.next_step += 1;
    let mut outline = Outline {
        path: place.path.clone(),
        at: place.node.at,
        name: String::new(),
        through: Way::Quiet,
        ends: false,
        gotos: Vec::new(),
    };
    let Some(fields) = place.open_fields("a step", report) else { return (None, outline) };
    let name = fields.require("name", report).and_then(|place| step_name(&place, report));
    outline.name = name.unwrap_or_default().into();
    let type_name = step_type(&fields, report);
    if let Some((type_name, own)) = type_name {
        let known = [&COMMON_FIELDS, own].concat();
        let what = format!("a {type_name} step");
        fields.refuse_unknown(&what, &known, |key| owner(key, type_name), report);
    }
    let end = match (type_name, fields.get("end")) {
        // There it is an unknown field, and the step ends its list anyway.
        (Some(("succeed", _)), _) => true,
        (Some(("fail", _)), _) | (_, None) => false,
        (_, Some(place)) => place.boolean(report).unwrap_or_default(),
    };
    outline.ends = end;
    let body = type_name.map(|(name, _)| body(name, &fields, siblings, nesting, report));
    let scope = input_scope(&fields, type_name.map(|(name, _)| name));
    let input_mappings = mappings(&fields, "inputMappings", scope, report);
    let output_mappings = mappings(&fields, "outputMappings", Scope::Other, report);
    if let Some(place) = fields.get("description") {
        place.text(report);
    }
    let Some(body) = body else { return (None, outline) };
    outline.through = body.through;
    outline.gotos = body.jumps;
    let Some((kind, name)) = body.kind.zip(name) else { return (None, outline) };
    token_not_passed(&kind, &fields, input_mappings.as_deref(), report);
    let annotations = fields.annotations(&["description"]);
    let (name, position) = (name.into(), place.node.at);
    let step = Step { id, name, input_mappings, output_mappings, end, kind, position, annotations };
    (Some(step), outline)
}

/// The name of a step: well-formed (FDL007) and alone in the document (FDL008).
fn step_name<'a>(place: &Place<'a>, report: &mut Report<'_>) -> Option<&'a str> {
    let name = place.name(report)?;
    if name.len() > MAX_NAME {
        let message =
            format!("the name `{}` is longer than {MAX_NAME} characters", shortened(name));
        report.add(Code::BadName, place, message);
    }
    if let Some(first) = report.names.get(name) {
        let message = format!("duplicate step name `{name}`; the first is in line {}", first.line);
        let hint = "names are unique in the whole document, nested steps included".to_string();
        report.add_with_hint(Code::DuplicateStepName, place, message, Some(hint));
    } else {
        report.names.insert(name.into(), place.node.at);
    }
    Some(name)
}

fn step_type(
    fields: &Fields<'_>,
    report: &mut Report<'_>,
) -> Option<(&'static str, &'static [&'static str])> {
    let place = fields.require("type", report)?;
    let text = place.text(report)?;
    let known = TYPES.iter().find(|(name, _)| *name == text);
    if known.is_none() {
        let names = TYPES.map(|(name, _)| name);
        let hint = match text.to_ascii_lowercase().as_str() {
            "map" => "did you mean `foreach`?".into(),
            lower => match nearest(lower, &names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("the types are {}", names.join(", ")),
            },
        };
        let message = format!("unknown step type `{}`", shortened(text));
        report.add_with_hint(Code::UnknownStepType, &place, message, Some(hint));
    }
    known.copied()
}

/// Which types have the field that this one has not.
fn owner(key: &str, type_name: &str) -> Option<String> {
    if key == "goto" {
        return Some("goto stands in a choice, a default or a catch".into());
    }
    if key == "end" {
        return Some(format!("a {type_name} step ends its list anyway"));
    }
    if key == "next" || key == "Next" {
        return Some("steps run in order; choices and catches have a goto".into());
    }
    let owners: Vec<&str> =
        TYPES.iter().filter(|(_, own)| own.contains(&key)).map(|(name, _)| *name).collect();
    (!owners.is_empty()).then(|| format!("it is a field of {}", owners.join(", ")))
}

fn body(
    type_name: &str,
    fields: &Fields<'_>,
    siblings: &Siblings,
    nesting: usize,
    report: &mut Report<'_>,
) -> Body {
    match type_name {
        "task" => task(fields, siblings, report),
        "wait" => Body::new(wait(fields, report).map(StepKind::Wait), Way::Blocking),
        "choice" => choice(fields, siblings, nesting, report),
        "parallel" => parallel(fields, siblings, nesting, report),
        "foreach" => foreach(fields, siblings, nesting, report),
        "fail" => Body::new(fail(fields, report).map(StepKind::Fail), Way::None),
        "succeed" => Body::new(Some(StepKind::Succeed), Way::Quiet),
        _ => Body::new(Some(StepKind::Pass), Way::Quiet),
    }
}

fn task(fields: &Fields<'_>, siblings: &Siblings, report: &mut Report<'_>) -> Body {
    let resource = fields.require("resourceArn", report).and_then(|place| resource(&place, report));
    let pattern = match fields.get("pattern") {
        Some(place) => pattern(&place, report),
        None => Some(Pattern::default()),
    };
    let longest = Some(report.limits.max_task_timeout_seconds);
    let mut seconds = |key| match fields.get(key) {
        Some(place) => place.seconds(Least::Positive, longest, report).map(Some),
        None => Some(None),
    };
    let (timeout, heartbeat) = (seconds("timeoutSeconds"), seconds("x-heartbeatSeconds"));
    let service_params = service_params(fields, report);
    let (handling, jumps) = handling(fields, siblings, false, report);
    let whole = || {
        Some(StepKind::Task(Task {
            resource: resource?,
            pattern: pattern?,
            timeout: timeout?,
            heartbeat: heartbeat?,
            service_params: service_params?,
            handling,
        }))
    };
    Body { kind: whole(), through: Way::Blocking, jumps }
}

fn resource(place: &Place<'_>, report: &mut Report<'_>) -> Option<Resource> {
    let arn = place.text(report)?;
    let resource = Resource::parse(arn);
    if resource.is_none() {
        let message = format!("resourceArn `{}` is no known resource", shortened(arn));
        let hint = "such as acs:fc:::services/{S}/functions/{F}, acs:mns:::/topics/{T}/messages, \
                    acs:fnf:::flow/{NAME}, bus:topic/{T}, job:{KIND}";
        report.add_with_hint(Code::ResourceOrPattern, place, message, Some(hint.into()));
    }
    resource
}

fn pattern(place: &Place<'_>, report: &mut Report<'_>) -> Option<Pattern> {
    let text = place.text(report)?;
    let known = PATTERNS.iter().find(|pattern| pattern.name() == text);
    if known.is_none() {
        let names = PATTERNS.map(Pattern::name);
        let near = if text == "requestComplete" { Some(names[0]) } else { nearest(text, &names) };
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the patterns are {}", names.join(", ")),
        };
        let message = format!("unknown pattern `{}`", shortened(text));
        report.add_with_hint(Code::ResourceOrPattern, place, message, Some(hint));
    }
    known.copied()
}

fn service_params(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Vec<(String, Source)>> {
    let Some(place) = fields.get("serviceParams") else { return Some(Vec::new()) };
    let scope = input_scope(fields, Some("task"));
    let params = place.open_fields("serviceParams", report)?;
    let read = |(key, place): (&str, Place<'_>)| Some((key.into(), source(&place, scope, report)?));
    Some(params.entries().filter_map(read).collect())
}

/// Where the sources of what goes into the step stand (F-16).
fn input_scope(fields: &Fields<'_>, type_name: Option<&str>) -> Scope {
    if type_name != Some("task") {
        return Scope::Other;
    }
    let pattern = fields.get("pattern").map(|place| place.node.to_value());
    // A pattern that cannot be read is an error of its own; the token is not judged then.
    let known = match pattern.as_ref().map(|value| value.as_str()) {
        None => Some(Pattern::default()),
        Some(text) => PATTERNS.into_iter().find(|pattern| Some(pattern.name()) == text),
    };
    Scope::TaskInput { has_token: known.is_none_or(|it| it == Pattern::WaitForCallback) }
}

/// FDLW04: nobody can report, because nobody gets the token.
fn token_not_passed(
    kind: &StepKind,
    fields: &Fields<'_>,
    input: Option<&[Mapping]>,
    report: &mut Report<'_>,
) {
    let StepKind::Task(task) = kind else { return };
    let mut sources = input
        .unwrap_or_default()
        .iter()
        .map(|mapping| &mapping.source)
        .chain(task.service_params.iter().map(|(_, source)| source));
    if task.pattern != Pattern::WaitForCallback || sources.any(carries_token) {
        return;
    }
    if let Some(place) = fields.get("pattern") {
        let message = "waitForCallback, but the input never carries the token".into();
        let hint = "map $context.task.token to a key of the input".to_string();
        report.add_with_hint(Code::TokenNotPassed, &place, message, Some(hint));
    }
}

fn wait(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Wait> {
    let (duration, timestamp) = (fields.get("duration"), fields.get("timestamp"));
    let is_one = duration.is_some() != timestamp.is_some();
    if !is_one {
        let message = match duration {
            Some(_) => "wait has both duration and timestamp; it takes one of them",
            None => "wait has neither duration nor timestamp; it takes one of them",
        };
        let (path, at) = (fields.path.clone(), fields.at);
        let error = crate::language::node::problem(Code::WaitOneOfTwo, path, at, message.into());
        report.problems.push(error);
    }
    let duration = duration.map(|place| wait_duration(&place, report));
    let timestamp = timestamp.map(|place| wait_timestamp(&place, report));
    duration.or(timestamp).flatten().filter(|_| is_one)
}

fn wait_duration(place: &Place<'_>, report: &mut Report<'_>) -> Option<Wait> {
    if is_expression(place) {
        return input_path(place, report).map(Wait::ForPath);
    }
    let longest = report.limits.max_wait_seconds;
    if !matches!(place.node.kind, NodeKind::Number(_)) {
        // Section 3.4 counts what is no number among the durations out of range, too.
        let found = place.node.describe();
        let message = format!("duration must be from 0 to {longest} seconds, found {found}");
        report.add(Code::OutOfRange, place, message);
    }
    place.seconds(Least::Zero, Some(longest), report).map(Wait::For)
}

fn wait_timestamp(place: &Place<'_>, report: &mut Report<'_>) -> Option<Wait> {
    if is_expression(place) {
        return input_path(place, report).map(Wait::UntilPath);
    }
    let text = place.text(report);
    let time = text.and_then(parse_timestamp);
    if time.is_none() {
        let found = place.node.describe();
        let message = format!("timestamp must be an RFC 3339 time, found {found}");
        let hint = "such as 2026-01-01T00:00:30Z".to_string();
        report.add_with_hint(Code::OutOfRange, place, message, Some(hint));
    }
    time.map(Wait::Until)
}

fn is_expression(place: &Place<'_>) -> bool {
    matches!(&place.node.kind, NodeKind::Text(text) if text.starts_with('$'))
}

fn choice(
    fields: &Fields<'_>,
    siblings: &Siblings,
    nesting: usize,
    report: &mut Report<'_>,
) -> Body {
    let places = fields.require("choices", report).and_then(|place| place.full_list(report));
    let is_read = places.is_some();
    let mut body = Body::new(None, Way::None);
    let (mut choices, mut is_decided) = (Vec::new(), false);
    for place in places.unwrap_or_default() {
        let known = ["condition", "steps", "goto"];
        let Some(fields) = place.fields("a choice", &known, report) else { continue };
        let condition =
            fields.require("condition", report).and_then(|place| condition(&place, report));
        is_decided |= condition.as_ref().is_some_and(|condition| condition.is_always_true());
        let then = continuation(&fields, siblings, nesting, &mut body, report);
        choices.extend(condition.map(|condition| ChoiceBranch { condition, then }));
    }
    let default = fields.get("default").and_then(|place| {
        is_decided = true;
        let fields = place.fields("a default", &["steps", "goto"], report)?;
        Some(continuation(&fields, siblings, nesting, &mut body, report))
    });
    if !is_decided {
        body.through = Way::Quiet;
    }
    body.kind = is_read.then_some(StepKind::Choice(Choice { choices, default }));
    body
}

/// Steps and goto of a choice; the ways through them are added to the choice.
fn continuation(
    fields: &Fields<'_>,
    siblings: &Siblings,
    nesting: usize,
    body: &mut Body,
    report: &mut Report<'_>,
) -> Continuation {
    let (steps, way) = match fields.get("steps") {
        Some(place) => step_list(&place, nesting + 1, report),
        None => (Vec::new(), Way::Quiet),
    };
    let Some(place) = fields.get("goto") else {
        body.through = body.through.or(way);
        return Continuation { steps, goto: None };
    };
    let mut jumps = Vec::new();
    let goto = siblings.goto(&place, way == Way::Quiet, &mut jumps, report);
    // Steps that always fail never come to their goto.
    body.jumps.extend(jumps.into_iter().filter(|jump| way != Way::None || jump.to.is_none()));
    Continuation { steps, goto }
}

fn parallel(
    fields: &Fields<'_>,
    siblings: &Siblings,
    nesting: usize,
    report: &mut Report<'_>,
) -> Body {
    let place = fields.require("branches", report);
    let places = place.as_ref().and_then(|place| place.full_list(report));
    let is_read = places.is_some();
    let places = places.unwrap_or_default();
    if let Some(place) = place.filter(|_| places.len() > report.limits.max_branches) {
        let (count, most) = (places.len(), report.limits.max_branches);
        let message = format!("{count} branches; a parallel step has at most {most}");
        report.add(Code::TooLarge, &place, message);
    }
    let (mut branches, mut way) = (Vec::new(), Way::Quiet);
    for place in places {
        let Some(fields) = place.fields("a branch", &["steps"], report) else { continue };
        let Some(place) = fields.require("steps", report) else { continue };
        let (steps, through) = step_list(&place, nesting + 1, report);
        branches.push(steps);
        way = way.and(through);
    }
    let (handling, jumps) = handling(fields, siblings, way == Way::Quiet, report);
    let kind = is_read.then_some(StepKind::Parallel(Parallel { branches, handling }));
    Body { kind, through: way, jumps }
}

fn foreach(
    fields: &Fields<'_>,
    siblings: &Siblings,
    nesting: usize,
    report: &mut Report<'_>,
) -> Body {
    let iteration =
        fields.require("iterationMapping", report).and_then(|place| iteration(&place, report));
    let most = report.limits.max_concurrency as u64;
    let max_concurrency = match fields.get("x-maxConcurrency") {
        Some(place) => place.integer(1, most, report).map(|most| Some(most as usize)),
        None => Some(None),
    };
    let list = fields.require("steps", report);
    let list = list.map(|place| step_list(&place, nesting + 1, report));
    let way = list.as_ref().map_or(Way::Quiet, |(_, way)| *way);
    let (handling, jumps) = handling(fields, siblings, way == Way::Quiet, report);
    let whole = || {
        let Iteration { collection, item, index } = iteration?;
        let (steps, max_concurrency) = (list?.0, max_concurrency?);
        Some(StepKind::Foreach(Foreach {
            collection,
            item,
            index,
            steps,
            max_concurrency,
            handling,
        }))
    };
    // An empty collection passes whatever the steps do; only a loop must count on their waiting.
    let through = if way == Way::Blocking { Way::Blocking } else { Way::Quiet };
    Body { kind: whole(), through, jumps }
}

struct Iteration {
    collection: crate::language::Path,
    item: String,
    index: Option<String>,
}

fn iteration(place: &Place<'_>, report: &mut Report<'_>) -> Option<Iteration> {
    let known = ["collection", "item", "index"];
    let fields = place.fields("an iterationMapping", &known, report)?;
    let collection =
        fields.require("collection", report).and_then(|place| input_path(&place, report));
    let item = fields.require("item", report).and_then(|place| place.name(report));
    let index = match fields.get("index") {
        Some(place) => {
            let index = place.name(report);
            if index.is_some() && index == item {
                let message = "item and index have the same name; the index wins".into();
                report.add(Code::TargetMappedTwice, &place, message);
            }
            index.map(Some)
        }
        None => Some(None),
    };
    Some(Iteration { collection: collection?, item: item?.into(), index: index?.map(Into::into) })
}

fn fail(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Fail> {
    let mut text = |key| match fields.get(key) {
        Some(place) => {
            place.text(report)?;
            source(&place, Scope::Other, report).map(Some)
        }
        None => Some(None),
    };
    let (error, cause) = (text("error"), text("cause"));
    Some(Fail { error: error?, cause: cause? })
}
