//! The gate before a subscription: how many may take a message, and when nobody may.
//!
//! A worker holds a permit from before it takes a message until the message is answered for, so
//! there are never more deliveries than the window is wide. A pause or a stop also reaches those
//! who hold a permit and wait for a message.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use super::pace::Pace;
use crate::bus::Sleep;
use crate::shell::core::BusCore;
use crate::sync::{Arc, AtomicUsize, Mutex, Ordering};
use crate::time::{Span, Time};

#[derive(Debug)]
pub(crate) struct Gate {
    core: Arc<BusCore>,
    state: Mutex<State>,
    /// How many of the permits have a delivery.
    running: AtomicUsize,
    /// Told when there may be a free permit.
    opened: Notify,
    /// Told when a pause or the end begins.
    interrupted: Notify,
}

#[derive(Debug)]
struct State {
    pace: Pace,
    permits: usize,
    /// Workers that wait for a permit.
    parked: usize,
    paused_until: Time,
    is_stopping: bool,
}

/// The right to have one delivery. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit<'a> {
    gate: &'a Gate,
    is_running: bool,
}

/// What the gate shows.
#[derive(Copy, Clone, Debug)]
pub(crate) struct GateView {
    pub(crate) window: usize,
    pub(crate) running: usize,
    pub(crate) level: u32,
    pub(crate) paused_until: Option<SystemTime>,
}

enum Way {
    Free,
    Wait,
    Pause(Duration),
    Stop,
}

impl Gate {
    pub(crate) fn new(core: &Arc<BusCore>, pace: Pace) -> Self {
        let state = State {
            pace,
            permits: 0,
            parked: 0,
            paused_until: Time::default(),
            is_stopping: false,
        };
        Self {
            core: Arc::clone(core),
            state: Mutex::new(state),
            running: AtomicUsize::new(0),
            opened: Notify::new(),
            interrupted: Notify::new(),
        }
    }

    /// Waits for a permit, unless one is held, and for the end of a pause; `None` when it is over.
    pub(crate) async fn enter<'a>(&'a self, mut held: Option<Permit<'a>>) -> Option<Permit<'a>> {
        loop {
            let permit = match held.take().or_else(|| self.try_permit()) {
                Some(permit) => permit,
                None => self.permit().await?,
            };
            loop {
                let interrupted = self.interrupted.notified();
                match self.way() {
                    Way::Free => return Some(permit),
                    Way::Stop => return None,
                    // The window has become too narrow for this permit.
                    Way::Wait => break,
                    Way::Pause(pause) => {
                        either(Sleep::new(&self.core, pause), interrupted).await;
                    }
                }
            }
        }
    }

    fn try_permit(&self) -> Option<Permit<'_>> {
        let mut state = self.state.lock();
        let is_free = state.permits < state.pace.window() && !state.is_stopping;
        if is_free {
            state.permits += 1;
        }
        drop(state);
        is_free.then(|| Permit { gate: self, is_running: false })
    }

    async fn permit(&self) -> Option<Permit<'_>> {
        let _parked = Parked::new(self);
        loop {
            let opened = self.opened.notified();
            if self.is_stopping() {
                return None;
            }
            // Looked at after saying that somebody waits, as a permit is given back before looking
            // for who does.
            if let Some(permit) = self.try_permit() {
                return Some(permit);
            }
            opened.await;
        }
    }

    fn way(&self) -> Way {
        let state = self.state.lock();
        if state.is_stopping {
            return Way::Stop;
        }
        if state.permits > state.pace.window() {
            return Way::Wait;
        }
        let until = state.paused_until;
        drop(state);
        // Nobody reads a clock before the first failure.
        if until == Time::default() {
            return Way::Free;
        }
        let pause = self.core.read().now.until(until);
        // On a closed bus no pause ends; whoever tries to take a message there learns of it.
        if pause.is_zero() || self.core.is_closed() { Way::Free } else { Way::Pause(pause) }
    }

    /// Becomes ready when a pause or the end begins after this call.
    pub(crate) fn interruption(&self) -> Notified<'_> {
        self.interrupted.notified()
    }

    /// Whether something else than waiting for a message is to be done.
    pub(crate) fn is_closed(&self) -> bool {
        !matches!(self.way(), Way::Free)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.state.lock().is_stopping
    }

    pub(crate) fn succeeded(&self) {
        let mut state = self.state.lock();
        state.pace.succeeded();
        let wake = state.free_for_parked();
        drop(state);
        self.open_for(wake);
    }

    /// Called before the delivery is given back, so that nobody takes it during the pause.
    pub(crate) fn failed(&self) {
        let now = self.core.read();
        let mut state = self.state.lock();
        let is_paused = state.paused_until > now.now;
        let Some(pause) = state.pace.failed(is_paused) else { return };
        let until = now.deadline(Span::round_up(pause));
        state.paused_until = state.paused_until.max(until);
        drop(state);
        self.interrupted.notify_waiters();
    }

    /// From here on nobody gets a permit.
    pub(crate) fn stop(&self) {
        self.state.lock().is_stopping = true;
        self.interrupted.notify_waiters();
        self.opened.notify_waiters();
    }

    pub(crate) fn view(&self) -> GateView {
        let now = self.core.read().now;
        let state = self.state.lock();
        GateView {
            window: state.pace.window(),
            running: self.running.load(Ordering::Relaxed),
            level: state.pace.level(),
            paused_until: (state.paused_until > now).then(|| state.paused_until.to_system()),
        }
    }

    fn open_for(&self, count: usize) {
        for _ in 0..count {
            self.opened.notify_one();
        }
    }
}

impl State {
    /// How many of those who wait can have a permit.
    fn free_for_parked(&self) -> usize {
        self.pace.window().saturating_sub(self.permits).min(self.parked)
    }
}

impl Permit<'_> {
    /// The worker has a delivery now. Answers how many do.
    pub(crate) fn run(&mut self) -> usize {
        self.is_running = true;
        self.gate.running.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The worker has answered for its delivery, and may take another one.
    pub(crate) fn rest(&mut self) {
        if std::mem::take(&mut self.is_running) {
            self.gate.running.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        self.rest();
        let mut state = self.gate.state.lock();
        state.permits -= 1;
        let wake = state.free_for_parked();
        drop(state);
        self.gate.open_for(wake.min(1));
    }
}

/// A worker that waits for a permit.
struct Parked<'a>(&'a Gate);

impl<'a> Parked<'a> {
    fn new(gate: &'a Gate) -> Self {
        gate.state.lock().parked += 1;
        Self(gate)
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.state.lock().parked -= 1;
    }
}

/// What came first.
pub(crate) enum Either<A, B> {
    First(A),
    Second(B),
}

/// Waits for whichever comes first. The second is not polled once the first is ready.
pub(crate) async fn either<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|cx| match a.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Either::First(output)),
        Poll::Pending => b.as_mut().poll(cx).map(Either::Second),
    })
    .await
}
