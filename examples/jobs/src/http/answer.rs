//! Answers: documents, and errors with their codes (2.3). Nothing internal is shown.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::document::Job;
use crate::error::{JobsError, StoreError, SubmitError};
use crate::machine::Refused;

/// An error as it is answered.
#[derive(Debug)]
pub(crate) struct Failed {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl Failed {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        Self { status, code, message: message.to_string() }
    }

    pub(crate) fn invalid(message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidArgument", message)
    }

    pub(crate) fn too_large(message: impl ToString) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "EntityTooLarge", message)
    }
}

impl IntoResponse for Failed {
    fn into_response(self) -> Response {
        let body = serde_json::json!({"error": {"code": self.code, "message": self.message}});
        json(self.status, body.to_string())
    }
}

impl From<StoreError> for Failed {
    fn from(error: StoreError) -> Self {
        Failed::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", error)
    }
}

impl From<JobsError> for Failed {
    fn from(error: JobsError) -> Self {
        let (status, code) = match &error {
            JobsError::NotFound(_) => (StatusCode::NOT_FOUND, "NotFound"),
            JobsError::Refused { reason: Refused::AlreadyFinal { .. }, .. } => {
                (StatusCode::CONFLICT, "AlreadyFinal")
            }
            JobsError::Refused { .. } => (StatusCode::CONFLICT, "InvalidTransition"),
            JobsError::ResultTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "EntityTooLarge"),
            JobsError::Store(_) | JobsError::Bus(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "Unavailable")
            }
        };
        Failed::new(status, code, error)
    }
}

impl From<SubmitError> for Failed {
    fn from(error: SubmitError) -> Self {
        match &error {
            SubmitError::Invalid { .. } | SubmitError::UnknownKind { .. } => Failed::invalid(error),
            SubmitError::TooLarge { .. } => Failed::too_large(error),
            SubmitError::Conflict { .. } => {
                Failed::new(StatusCode::CONFLICT, "IdempotencyConflict", error)
            }
            SubmitError::TooMany { .. } => {
                Failed::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", error)
            }
            SubmitError::Store(_) => {
                Failed::new(StatusCode::SERVICE_UNAVAILABLE, "Unavailable", error)
            }
        }
    }
}

pub(crate) fn json(status: StatusCode, body: String) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

pub(crate) fn document(status: StatusCode, job: &Job) -> Response {
    json(status, job.view().as_str().to_owned())
}
