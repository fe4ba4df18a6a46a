//! Submitting over HTTP: the short form takes the arguments alone, the long form everything.

use std::collections::BTreeMap;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use super::answer::{Failed, document};
use super::{Answer, Served};
use crate::id::JobId;
use crate::json::Json;
use crate::limits::MAX_BODY_BYTES;
use crate::new_job::NewJob;
use crate::submission::Submission;
use crate::time::When;

/// `POST /`: the body is the arguments, the rest is in headers; answers the bare id.
pub(super) async fn short(State(served): State<Served>, headers: HeaderMap, body: Body) -> Answer {
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
        return with_document(&served, &submission);
    }
    let id = submission.id.to_string();
    let headers = [(header::LOCATION, format!("/{id}")), (header::CONTENT_TYPE, TEXT.to_owned())];
    Ok((status(&submission), headers, id).into_response())
}

const TEXT: &str = "text/plain; charset=utf-8";

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
pub(super) async fn long(State(served): State<Served>, headers: HeaderMap, body: Body) -> Answer {
    let body = object(&headers, body).await?;
    let long: Long = body.parse().map_err(Failed::invalid)?;
    let job = long.into_job()?;
    let submission = served.jobs.submit(job).await?;
    with_document(&served, &submission)
}

impl Long {
    fn into_job(self) -> Result<NewJob, Failed> {
        let when = |text: String| text.parse::<When>().map_err(Failed::invalid);
        let args =
            self.args.unwrap_or_else(|| Json::of(&serde_json::json!({})).unwrap_or(Json::null()));
        let mut job = NewJob::with_json(self.kind, args).priority(self.priority);
        if let Some(id) = self.id {
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

fn with_document(served: &Served, submission: &Submission) -> Answer {
    let job = served.jobs.get(&submission.id)?;
    let location = [(header::LOCATION, format!("/{}", submission.id))];
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
    let bytes: Bytes = to_bytes(body, MAX_BODY_BYTES)
        .await
        .map_err(|_| Failed::too_large(format!("the body has over {MAX_BODY_BYTES} bytes")))?;
    let json = Json::from_text(bytes)
        .map_err(|error| Failed::invalid(format!("the body is no JSON: {error}")))?;
    // Looked into as a whole: what nests too deeply for handlers is refused here.
    match json.parse::<serde_json::Value>() {
        Ok(serde_json::Value::Object(_)) => Ok(json),
        Ok(_) => Err(Failed::invalid("the body is no JSON object")),
        Err(error) => Err(Failed::invalid(format!("the body is no JSON: {error}"))),
    }
}
