//! Figures as text, in the format that Prometheus reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;

use super::{Answer, Served};
use crate::document::Status;
use crate::limits::MAX_PAGE;
use crate::store::Query;

/// Unfinished jobs that are counted by kind; beyond these the counts are lower bounds.
const MAX_COUNTED: usize = 100_000;

/// `GET /metrics`.
pub(super) async fn metrics(State(served): State<Served>) -> Answer {
    let engine = &served.jobs.engine;
    let mut text = String::new();
    let counts = *engine.counters.counts.lock();
    for (name, value) in [
        ("submitted", counts.submitted),
        ("attempts_started", counts.started),
        ("completed", counts.completed),
        ("failed", counts.failed),
        ("cancelled", counts.cancelled),
        ("retried", counts.retried),
        ("leases_lost", counts.leases_lost),
        ("expired", counts.expired),
    ] {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# TYPE jobs_{name}_total counter\njobs_{name}_total {value}");
    }
    let unfinished = engine.store.unfinished()?;
    let _ = writeln!(text, "# TYPE jobs_unfinished gauge\njobs_unfinished {unfinished}");
    let now = engine.now();
    let mut counts: BTreeMap<(Status, String), u64> = BTreeMap::new();
    let mut oldest: BTreeMap<Status, f64> = BTreeMap::new();
    let mut counted = 0;
    for status in [Status::Created, Status::Running, Status::Retrying] {
        let mut after = None;
        while counted < MAX_COUNTED {
            let page = served.jobs.list(&Query::new().status(status), after.as_ref(), MAX_PAGE)?;
            counted += page.jobs.len();
            for job in page.jobs {
                let age = job.created_at.until(now).as_secs_f64();
                let place = oldest.entry(status).or_default();
                *place = place.max(age);
                *counts.entry((status, job.kind.to_string())).or_default() += 1;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    text.push_str("# TYPE jobs_finished_total counter\n");
    for ((status, kind), count) in engine.counters.finished.lock().iter() {
        let labels = format!("status=\"{status}\",kind=\"{kind}\"");
        let _ = writeln!(text, "jobs_finished_total{{{labels}}} {count}");
    }
    text.push_str("# TYPE jobs gauge\n");
    for ((status, kind), count) in counts {
        let _ = writeln!(text, "jobs{{status=\"{status}\",kind=\"{kind}\"}} {count}");
    }
    text.push_str("# TYPE jobs_oldest_age_seconds gauge\n");
    for (status, age) in oldest {
        let _ = writeln!(text, "jobs_oldest_age_seconds{{status=\"{status}\"}} {age:.3}");
    }
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response())
}
