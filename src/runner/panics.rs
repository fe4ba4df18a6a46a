//! Panics of foreign futures as values.

use std::any::Any;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::Poll;

/// What a future came to: its output, or what it panicked with.
pub(crate) type Caught<T> = Result<T, Box<dyn Any + Send>>;

/// Runs a future whose panics are values: while it is made, polled and dropped, be that because
/// this one is dropped before its end.
pub(crate) async fn catch_panics<F: Future>(make: impl FnOnce() -> F) -> Caught<F::Output> {
    let future = catch_unwind(AssertUnwindSafe(make))?;
    // In place, as a future may be large.
    let place = pin!(Some(future));
    let mut foreign = Foreign(place);
    let output = poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| match foreign.0.as_mut().as_pin_mut() {
            Some(future) => future.poll(cx),
            None => Poll::Pending,
        }));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
            Err(panicked) => Poll::Ready(Err(panicked)),
        }
    })
    .await?;
    foreign.end()?;
    Ok(output)
}

/// A future of which it is not known whether it can be dropped in peace.
struct Foreign<'a, F>(Pin<&'a mut Option<F>>);

impl<F> Foreign<'_, F> {
    fn end(&mut self) -> Caught<()> {
        catch_unwind(AssertUnwindSafe(|| self.0.set(None)))
    }
}

impl<F> Drop for Foreign<'_, F> {
    fn drop(&mut self) {
        let _ = self.end();
    }
}
