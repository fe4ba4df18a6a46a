//! The HTTP surface: a router to mount under any prefix (2.3).
//!
//! Answers are JSON, errors `{"error":{"code","message"}}`; only `POST /` answers the bare id, so
//! that a shell can keep it in a variable.

mod answer;
mod events;
mod metrics;
mod submit;

use std::collections::HashMap;

use axum::Router;
use axum::extract::{Path, Query as Params, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::document::Job;
use crate::error::JobsError;
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::limits::{MAX_PAGE, MAX_WAIT};
use crate::machine::Cancel;
use crate::store::Query;
use crate::time::parse_span;
use answer::{Failed, document};

/// How the HTTP surface behaves.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    pub(crate) kind: String,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self { kind: "process_task".to_owned() }
    }
}

impl HttpOptions {
    /// Jobs that name no kind are of kind `process_task`.
    pub fn new() -> Self {
        Self::default()
    }

    /// The kind of jobs that name none.
    #[must_use]
    pub fn default_kind(mut self, kind: impl Into<String>) -> Self {
        self.kind = kind.into();
        self
    }
}

#[derive(Clone, Debug)]
struct Served {
    jobs: Jobs,
    options: HttpOptions,
}

/// The routes of the job layer.
pub fn router(jobs: Jobs, options: HttpOptions) -> Router {
    Router::new()
        .route("/", get(list).head(alive).post(submit::short))
        .route("/jobs", post(submit::long))
        .route("/healthz", get(health))
        .route("/metrics", get(metrics::metrics))
        .route("/{id}", get(show).delete(cancel))
        .route("/{id}/retry", post(retry))
        .route("/{id}/events", get(events::events))
        .fallback(nowhere)
        .method_not_allowed_fallback(not_here)
        .with_state(Served { jobs, options })
}

type Answer = Result<Response, Failed>;

async fn alive() -> StatusCode {
    StatusCode::NO_CONTENT
}

async fn health(State(served): State<Served>) -> Answer {
    served.jobs.list(&Query::new(), None, 1)?;
    Ok("ok\n".into_response())
}

async fn nowhere() -> Failed {
    Failed::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing at this path")
}

async fn not_here() -> Failed {
    let message = "this path does not know this method";
    Failed::new(StatusCode::METHOD_NOT_ALLOWED, "InvalidArgument", message)
}

/// An id that no job can have is unknown like any other.
fn parse_id(text: &str) -> Result<JobId, Failed> {
    let unknown = || format!("no job {}", text.chars().take(128).collect::<String>());
    text.parse().map_err(|_| Failed::new(StatusCode::NOT_FOUND, "NotFound", unknown()))
}

async fn show(
    State(served): State<Served>,
    Path(id): Path<String>,
    Params(params): Params<HashMap<String, String>>,
    headers: HeaderMap,
) -> Answer {
    let id = parse_id(&id)?;
    let known = match headers.get(header::IF_NONE_MATCH) {
        None => None,
        Some(tag) => {
            let text = tag.to_str().unwrap_or_default().trim_start_matches("W/");
            let version = text.trim_matches('"').parse::<u64>();
            Some(version.map_err(|_| Failed::invalid("If-None-Match is no version"))?)
        }
    };
    let job = match params.get("wait") {
        None => served.jobs.get(&id)?,
        Some(wait) => {
            let wait = parse_span(wait)
                .ok_or_else(|| Failed::invalid(format!("wait={wait}: write 20s or 1500ms")))?;
            wait_for_change(&served.jobs, &id, known, wait.min(MAX_WAIT)).await?
        }
    };
    if known == Some(job.version) {
        return Ok((StatusCode::NOT_MODIFIED, etag(&job)).into_response());
    }
    Ok((etag(&job), document(StatusCode::OK, &job)).into_response())
}

fn etag(job: &Job) -> [(header::HeaderName, String); 1] {
    [(header::ETAG, format!("\"{}\"", job.version))]
}

/// Waits until the job is over, or is of another version than the one that is known.
async fn wait_for_change(
    jobs: &Jobs,
    id: &JobId,
    known: Option<u64>,
    wait: std::time::Duration,
) -> Result<Job, JobsError> {
    let mut watch = jobs.watch(id)?;
    let changed = jobs
        .bus()
        .timeout(wait, async {
            loop {
                let job = watch.next().await?;
                if job.status.is_final() || known.is_some_and(|known| known != job.version) {
                    return Some(job);
                }
            }
        })
        .await;
    match changed {
        Ok(Some(job)) => Ok(Job::clone(&job)),
        Ok(None) | Err(_) => jobs.get(id),
    }
}

async fn list(
    State(served): State<Served>,
    Params(params): Params<HashMap<String, String>>,
) -> Answer {
    let mut query = Query::new();
    let mut after = None;
    let mut limit = 100;
    for (key, value) in &params {
        match key.as_str() {
            _ if value.is_empty() => {}
            "status" => query = query.status(value.parse().map_err(Failed::invalid)?),
            "kind" => query = query.kind(value),
            "label" => {
                let (key, value) = value
                    .split_once(':')
                    .ok_or_else(|| Failed::invalid("label: write label=key:value"))?;
                query = query.label(key, value);
            }
            "after" => after = Some(value.parse().map_err(Failed::invalid)?),
            "limit" => {
                let number = value.parse::<usize>().ok().filter(|n| (1..=MAX_PAGE).contains(n));
                limit = number.ok_or_else(|| {
                    Failed::invalid(format!("limit={value}: 1 to {MAX_PAGE} are allowed"))
                })?;
            }
            other => return Err(Failed::invalid(format!("parameter {other:?} is not known"))),
        }
    }
    let page = served.jobs.list(&query, after.as_ref(), limit)?;
    let views: Vec<_> = page.jobs.iter().map(Job::view).collect();
    let body = serde_json::json!({ "jobs": views, "next": page.next });
    Ok(answer::json(StatusCode::OK, body.to_string()))
}

async fn cancel(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    let status = match served.jobs.cancel(&id).await? {
        Cancel::Done => StatusCode::OK,
        Cancel::Requested => StatusCode::ACCEPTED,
    };
    Ok(document(status, &served.jobs.get(&id)?))
}

async fn retry(State(served): State<Served>, Path(id): Path<String>) -> Answer {
    let id = parse_id(&id)?;
    served.jobs.retry(&id).await?;
    Ok(document(StatusCode::ACCEPTED, &served.jobs.get(&id)?))
}
