//! Submitting over HTTP: the short form takes the arguments alone, the long form everything.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::pin::Pin;

use axum::body::{Body, Bytes};
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_core::Stream;
use serde::Deserialize;

use super::answer::{Failed, document};
use super::{Answer, Served};
use crate::id::JobId;
use crate::json::Json;
use crate::limits::{MAX_BODY_BYTES, MAX_SKIPPED_BYTES};
use crate::new_job::NewJob;
use crate::submission::Submission;
use crate::time::When;

/// `POST /`: the body is the arguments, the rest is in headers; answers the bare id.
pub(super) async fn short(
    State(served): State<Served>,
    OriginalUri(at): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let args = object(&headers, body).await?;
    let kind = text(&headers, "x-job-kind")?.unwrap_or(&served.options.kind);
    let mut job = NewJob::with_json(kind, args);
    if let Some(key) = text(&headers, "idempotency-key")? {
        job = job.idempotency_key(key);
    }
    if let Some(when) = text(&headers, "x-run-at")? {
        job = job.run_at(when.parse::<When>().map_err(Failed::invalid)?);
    }
    if let Some(when) = text(&headers, "x-deadline")? {
        job = job.deadline(when.parse::<When>().map_err(Failed::invalid)?);
    }
    if let Some(number) = text(&headers, "x-max-attempts")? {
        let number = number.parse();
        job = job.max_attempts(number.map_err(|_| Failed::invalid("X-Max-Attempts: no number"))?);
    }
    let submission = served.jobs.submit(job).await?;
    let accepts = text(&headers, "accept")?.unwrap_or_default();
    if accepts.contains("application/json") {
        return with_document(&served, &submission, at.path());
    }
    let id = submission.id.to_string();
    let headers = [
        (header::LOCATION, location(at.path(), &submission)),
        (header::CONTENT_TYPE, "text/plain".to_owned()),
    ];
    Ok((status(&submission), headers, id).into_response())
}

/// Where the job is, from the path of the routes, under whatever prefix they are mounted.
fn location(routes: &str, submission: &Submission) -> String {
    format!("{}/{}", routes.trim_end_matches('/'), submission.id)
}

/// The long form of a job.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    kind: String,
    args: Option<Json>,
    id: Option<String>,
    queue: Option<String>,
    run_at: Option<String>,
    delay_ms: Option<u64>,
    #[serde(default)]
    priority: i32,
    max_attempts: Option<u32>,
    deadline: Option<String>,
    idempotency_key: Option<String>,
    correlation_id: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

/// `POST /jobs`: everything is in the body; answers the document.
pub(super) async fn long(
    State(served): State<Served>,
    OriginalUri(at): OriginalUri,
    headers: HeaderMap,
    body: Body,
) -> Answer {
    let body = object(&headers, body).await?;
    let mut long: Long = body.parse().map_err(Failed::invalid)?;
    if let Some(key) = text(&headers, "idempotency-key")? {
        if long.idempotency_key.as_deref().is_some_and(|given| given != key) {
            return Err(Failed::invalid("Idempotency-Key: the body has another one"));
        }
        long.idempotency_key = Some(key.to_owned());
    }
    let job = long.into_job()?;
    let submission = served.jobs.submit(job).await?;
    with_document(&served, &submission, at.path().trim_end_matches("/jobs"))
}

/// Ids that are paths of something else.
const RESERVED: [&str; 3] = ["healthz", "jobs", "metrics"];

impl Long {
    fn into_job(self) -> Result<NewJob, Failed> {
        let when = |text: String| text.parse::<When>().map_err(Failed::invalid);
        let args =
            self.args.unwrap_or_else(|| Json::of(&serde_json::json!({})).unwrap_or(Json::null()));
        let mut job = NewJob::with_json(self.kind, args).priority(self.priority);
        if let Some(id) = self.id {
            if RESERVED.contains(&id.as_str()) {
                return Err(Failed::invalid(format!("id: {id:?} is the path of something else")));
            }
            job = job.id(id.parse::<JobId>().map_err(Failed::invalid)?);
        }
        if let Some(queue) = self.queue {
            job = job.queue(queue);
        }
        job = match (self.run_at, self.delay_ms) {
            (Some(_), Some(_)) => {
                return Err(Failed::invalid("run_at and delay_ms: give one of them"));
            }
            (Some(at), None) => job.run_at(when(at)?),
            (None, Some(delay)) => job.run_at(std::time::Duration::from_millis(delay)),
            (None, None) => job,
        };
        if let Some(attempts) = self.max_attempts {
            job = job.max_attempts(attempts);
        }
        if let Some(deadline) = self.deadline {
            job = job.deadline(when(deadline)?);
        }
        if let Some(key) = self.idempotency_key {
            job = job.idempotency_key(key);
        }
        if let Some(id) = self.correlation_id {
            job = job.correlation_id(id);
        }
        Ok(self.labels.into_iter().fold(job, |job, (key, value)| job.label(key, value)))
    }
}

fn status(submission: &Submission) -> StatusCode {
    if submission.is_new { StatusCode::CREATED } else { StatusCode::OK }
}

fn with_document(served: &Served, submission: &Submission, routes: &str) -> Answer {
    let job = served.jobs.get(&submission.id)?;
    let location = [(header::LOCATION, location(routes, submission))];
    let answer: Response = document(status(submission), &job);
    Ok((location, answer).into_response())
}

/// A header as text.
fn text<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Failed> {
    let value = headers.get(name).map(|value| value.to_str());
    value.transpose().map_err(|_| Failed::invalid(format!("header {name} is no plain text")))
}

/// The body, which has to be a JSON object of at most 1 MiB.
async fn object(headers: &HeaderMap, body: Body) -> Result<Json, Failed> {
    let kind = text(headers, "content-type")?.unwrap_or("application/json");
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    if kind != "application/json" && !kind.ends_with("+json") {
        let message = format!("Content-Type is {kind:?}; application/json is needed");
        return Err(Failed::invalid(message));
    }
    let bytes = whole(body).await?;
    let json = Json::from_text(bytes)
        .map_err(|error| Failed::invalid(format!("the body is no JSON: {error}")))?;
    // Looked into as a whole: what nests too deeply for handlers is refused here.
    match json.parse::<serde_json::Value>() {
        Ok(serde_json::Value::Object(_)) => Ok(json),
        Ok(_) => Err(Failed::invalid("the body is no JSON object")),
        Err(error) => Err(Failed::invalid(format!("the body is no JSON: {error}"))),
    }
}

/// The whole of a body. What is too large is read and thrown away for a while: whoever is still
/// sending would not see the answer otherwise.
async fn whole(body: Body) -> Result<Bytes, Failed> {
    let mut parts = body.into_data_stream();
    let (mut bytes, mut size) = (Vec::new(), 0);
    loop {
        let part = poll_fn(|cx| Pin::new(&mut parts).poll_next(cx)).await;
        let Some(part) = part else { break };
        let part = part.map_err(|error| Failed::invalid(format!("the body broke off: {error}")))?;
        size += part.len();
        if size <= MAX_BODY_BYTES {
            bytes.extend_from_slice(&part);
        } else if size > MAX_SKIPPED_BYTES {
            break;
        }
    }
    if size > MAX_BODY_BYTES {
        return Err(Failed::too_large(format!("the body has over {MAX_BODY_BYTES} bytes")));
    }
    Ok(bytes.into())
}
