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
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::document::Job;
use crate::error::JobsError;
use crate::id::JobId;
use crate::jobs::Jobs;
use crate::json::Json;
use crate::limits::{DEFAULT_PAGE, MAX_PAGE, MAX_WAIT};
use crate::machine::Cancel;
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
    served.jobs.list(&crate::store::Query::new(), None, 1)?;
    Ok("ok\n".into_response())
}

async fn nowhere() -> Failed {
    Failed::new(StatusCode::NOT_FOUND, "NotFound", "there is nothing at this path")
}

async fn not_here() -> Failed {
    let message = "this path does not know this method";
    Failed::new(StatusCode::METHOD_NOT_ALLOWED, "InvalidArgument", message)
}

/// The id in a path. One that no job can have is unknown like any other.
struct Id(JobId);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Failed;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failed> {
        let path: Result<Path<String>, _> = Path::from_request_parts(parts, state).await;
        let text = path.map_or_else(|_| "of such a name".to_owned(), |Path(text)| text);
        let unknown = || format!("no job {}", text.chars().take(128).collect::<String>());
        let id = text.parse();
        id.map(Id).map_err(|_| Failed::new(StatusCode::NOT_FOUND, "NotFound", unknown()))
    }
}

/// The parameters of a request, each of which is known and given once.
struct Params(HashMap<String, String>);

impl Params {
    fn of(query: Given, known: &[&str]) -> Result<Self, Failed> {
        let Query(pairs) = query.map_err(Failed::invalid)?;
        let mut params = HashMap::new();
        for (key, value) in pairs {
            if !known.contains(&key.as_str()) {
                return Err(Failed::invalid(format!("parameter {key:?} is not known")));
            }
            if params.insert(key.clone(), value).is_some() {
                return Err(Failed::invalid(format!("parameter {key:?} is given twice")));
            }
        }
        Ok(Self(params))
    }

    /// A value; an empty one counts as none.
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }
}

type Given = Result<Query<Vec<(String, String)>>, QueryRejection>;

async fn show(
    State(served): State<Served>,
    Id(id): Id,
    query: Given,
    headers: HeaderMap,
) -> Answer {
    let params = Params::of(query, &["wait"])?;
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

/// A page as it is answered.
#[derive(serde::Serialize)]
struct Listed {
    jobs: Vec<Json>,
    next: Option<JobId>,
}

async fn list(State(served): State<Served>, query: Given) -> Answer {
    let params = Params::of(query, &["status", "kind", "label", "after", "limit"])?;
    let mut wanted = crate::store::Query::new();
    if let Some(status) = params.get("status") {
        wanted = wanted.status(status.parse().map_err(Failed::invalid)?);
    }
    if let Some(kind) = params.get("kind") {
        wanted = wanted.kind(kind);
    }
    if let Some(label) = params.get("label") {
        let pair = label.split_once(':');
        let (key, value) = pair.ok_or_else(|| Failed::invalid("label: write label=key:value"))?;
        wanted = wanted.label(key, value);
    }
    let after = params.get("after").map(|id| id.parse().map_err(Failed::invalid)).transpose()?;
    let limit = match params.get("limit") {
        None => DEFAULT_PAGE,
        Some(text) => {
            let number = text.parse::<usize>().ok().filter(|n| (1..=MAX_PAGE).contains(n));
            number.ok_or_else(|| {
                Failed::invalid(format!("limit={text}: 1 to {MAX_PAGE} are allowed"))
            })?
        }
    };
    let page = served.jobs.list(&wanted, after.as_ref(), limit)?;
    let listed = Listed { jobs: page.jobs.iter().map(Job::view).collect(), next: page.next };
    let body = Json::of(&listed).unwrap_or(Json::null());
    Ok(answer::json(StatusCode::OK, body.as_str().to_owned()))
}

async fn cancel(State(served): State<Served>, Id(id): Id) -> Answer {
    let status = match served.jobs.cancel(&id).await? {
        Cancel::Done => StatusCode::OK,
        Cancel::Requested => StatusCode::ACCEPTED,
    };
    Ok(document(status, &served.jobs.get(&id)?))
}

async fn retry(State(served): State<Served>, Id(id): Id) -> Answer {
    served.jobs.retry(&id).await?;
    Ok(document(StatusCode::ACCEPTED, &served.jobs.get(&id)?))
}
