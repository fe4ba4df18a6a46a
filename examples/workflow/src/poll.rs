//! Calls of the bus that act in their first poll, from code that does not wait.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// The output of a future that is ready in its first poll, as the bus says of its admin calls.
pub(crate) fn at_once<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("admin calls of the bus act in their first poll"),
    }
}
