//! `retry`, `catch` and `errorMappings` of a step (section 3.9), and FDLW05.

use std::time::Duration;

use crate::language::expressions::{Scope, mappings};
use crate::language::flow_control::Jump;
use crate::language::place::{Fields, Least, Place, Report};
use crate::language::siblings::Siblings;
use crate::language::suggest::nearest;
use crate::language::{Catch, Code, ErrorHandling, ErrorPattern, Jitter, RetryPolicy};

const RETRY_FIELDS: [&str; 5] =
    ["errors", "intervalSeconds", "maxIntervalSeconds", "maxAttempts", "multiplier"];

/// What matches every error that can be caught.
const ALL_ERRORS: &str = "FnF.ALL";

/// Reads the handling of errors; the jumps are those of the catches.
pub(crate) fn handling(
    fields: &Fields<'_>,
    siblings: &Siblings,
    is_quiet: bool,
    report: &mut Report<'_>,
) -> (ErrorHandling, Vec<Jump>) {
    let retry = fields.get("retry").and_then(|place| place.list(report)).unwrap_or_default();
    let retry = retry.iter().filter_map(|place| retry_policy(place, report)).collect();
    let error_mappings = mappings(fields, "errorMappings", Scope::Other, report);
    let places = fields.get("catch").and_then(|place| place.list(report)).unwrap_or_default();
    let (mut catch, mut jumps, mut earlier) = (Vec::new(), Vec::new(), Vec::new());
    for place in places {
        let Some(fields) = place.fields("a catch", &["errors", "goto"], report) else { continue };
        let errors = errors(&fields, report);
        if let Some(errors) = &errors {
            hidden(&place, errors, &earlier, report);
            earlier.extend(errors.iter().cloned());
        }
        let goto = fields
            .require("goto", report)
            .and_then(|place| siblings.goto(&place, is_quiet, &mut jumps, report));
        if let (Some(errors), Some(goto)) = (errors, goto) {
            catch.push(Catch { errors, goto });
        }
    }
    (ErrorHandling { retry, catch, error_mappings }, jumps)
}

/// FDLW05: every error of this catch is taken by an earlier one.
fn hidden(
    place: &Place<'_>,
    errors: &[ErrorPattern],
    earlier: &[ErrorPattern],
    report: &mut Report<'_>,
) {
    let all = earlier.contains(&ErrorPattern::All);
    if !errors.is_empty() && errors.iter().all(|error| all || earlier.contains(error)) {
        let message = "an earlier catch takes every error of this one".into();
        let hint = format!("put catches of {ALL_ERRORS} last");
        report.add_with_hint(Code::HiddenCatch, place, message, all.then_some(hint));
    }
}

fn retry_policy(place: &Place<'_>, report: &mut Report<'_>) -> Option<RetryPolicy> {
    let fields = place.fields("a retry policy", &RETRY_FIELDS, report)?;
    let errors = errors(&fields, report);
    let longest = report.limits.max_retry_interval_seconds;
    let mut seconds = |key, default| match fields.get(key) {
        Some(place) => place.seconds(Least::Zero, Some(longest), report),
        None => Some(Duration::from_secs(default)),
    };
    let interval = seconds("intervalSeconds", 1);
    let max_interval = seconds("maxIntervalSeconds", longest);
    let most = u64::from(report.limits.max_retry_attempts);
    let max_attempts = match fields.get("maxAttempts") {
        Some(place) => place.integer(0, most, report),
        None => Some(3),
    };
    let multiplier = match fields.get("multiplier") {
        Some(place) => place.float(1.0, None, report),
        None => Some(2.0),
    };
    let jitter = fields.get("x-jitter").map_or(Some(Jitter::None), |place| jitter(&place, report));
    Some(RetryPolicy {
        errors: errors?,
        interval: interval?,
        max_interval: max_interval?,
        max_attempts: u32::try_from(max_attempts?).ok()?,
        multiplier: multiplier?,
        jitter: jitter?,
    })
}

fn errors(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Vec<ErrorPattern>> {
    let list = fields.require("errors", report)?.full_list(report)?;
    let pattern = |place: &Place<'_>| {
        Some(match place.text(report)? {
            ALL_ERRORS => ErrorPattern::All,
            name => ErrorPattern::Name(name.into()),
        })
    };
    Some(list.iter().filter_map(pattern).collect())
}

fn jitter(place: &Place<'_>, report: &mut Report<'_>) -> Option<Jitter> {
    match place.text(report)? {
        "none" => Some(Jitter::None),
        "full" => Some(Jitter::Full),
        "equal" => Some(Jitter::Equal),
        other => {
            let near = nearest(other, &["none", "full", "equal"]);
            let hint = near.map(|near| format!("did you mean `{near}`?"));
            let message = "x-jitter is none, full or equal".into();
            report.add_with_hint(Code::WrongType, place, message, hint);
            None
        }
    }
}
