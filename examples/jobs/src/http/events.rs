//! Server-sent events of one job: one for each transition and progress, until it is over.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event, Sse};
use futures_core::Stream;

use super::{Answer, Id, Served};
use crate::document::{Job, Progress, Status};
use crate::jobs::Watch;

/// `GET /{id}/events`.
pub(super) async fn events(State(served): State<Served>, Id(id): Id) -> Answer {
    let watch = served.jobs.watch(&id)?;
    Ok(Sse::new(Events { next: Some(Box::pin(next(watch, None))) }).into_response())
}

/// What makes an event: heartbeats alone do not.
#[derive(Clone, Debug, PartialEq)]
struct Shown(Status, u32, bool, Option<Progress>);

impl Shown {
    fn of(job: &Job) -> Self {
        Shown(job.status, job.attempt, job.cancel_requested(), job.progress().cloned())
    }
}

type Next = Pin<Box<dyn Future<Output = Option<(Arc<Job>, Watch)>> + Send>>;

async fn next(mut watch: Watch, shown: Option<Shown>) -> Option<(Arc<Job>, Watch)> {
    loop {
        let job = watch.next().await?;
        if Some(Shown::of(&job)) != shown {
            return Some((job, watch));
        }
    }
}

/// The events of one job; `None` once there are no more.
struct Events {
    next: Option<Next>,
}

impl Stream for Events {
    type Item = Result<Event, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(future) = &mut self.next else { return Poll::Ready(None) };
        let Poll::Ready(answer) = future.as_mut().poll(cx) else { return Poll::Pending };
        self.next = None;
        let Some((job, watch)) = answer else { return Poll::Ready(None) };
        let event = Event::default()
            .event(job.status.as_str())
            .id(job.version.to_string())
            .data(job.view().as_str());
        self.next = Some(Box::pin(next(watch, Some(Shown::of(&job)))));
        Poll::Ready(Some(Ok(event)))
    }
}
