//! The end of a bus's life: no more hand-outs, wait for what is in hand, then end everything (D23).
//!
//! Whoever waits for quiet says so first and then counts; a settlement that leaves its subscription
//! quiet looks whether somebody has said so. Both under the subscription's lock (I-8).

use tokio::sync::Notify;

use super::core::BusCore;
use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Lifecycle {
    is_closing: AtomicBool,
    /// Calls that wait for quiet.
    watchers: AtomicUsize,
    quiet: Notify,
}

/// What has to come to its end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Quiet {
    /// Nothing is in anybody's hand.
    Settled,
    /// No subscription has a backlog.
    Empty,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            is_closing: AtomicBool::new(false),
            watchers: AtomicUsize::new(0),
            quiet: Notify::new(),
        }
    }

    /// Whether nothing is handed out any more.
    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        self.is_closing.load(Ordering::SeqCst)
    }

    /// Whether somebody wants to know that a subscription is quiet.
    #[inline]
    pub(crate) fn is_watched(&self) -> bool {
        self.watchers.load(Ordering::SeqCst) > 0
    }

    /// A subscription may have become quiet. Called with no lock held.
    pub(crate) fn look_again(&self) {
        self.quiet.notify_waiters();
    }
}

impl BusCore {
    /// Ends hand-outs: whoever waits for a message gets an error. Answers false if that was done.
    pub(crate) fn begin_close(&self) -> bool {
        if self.lifecycle.is_closing.swap(true, Ordering::SeqCst) {
            return false;
        }
        for subscription in self.subscriptions() {
            subscription.tell_everybody();
        }
        true
    }

    /// Deliveries that nobody has settled, on all subscriptions.
    pub(crate) fn outstanding(self: &Arc<Self>) -> u64 {
        self.read();
        self.subscriptions().iter().map(|subscription| subscription.outstanding()).sum()
    }

    fn is_quiet(self: &Arc<Self>, quiet: Quiet) -> bool {
        match quiet {
            Quiet::Settled => self.outstanding() == 0,
            Quiet::Empty => {
                self.read();
                self.subscriptions().iter().all(|subscription| subscription.backlog() == 0)
            }
        }
    }

    /// Waits until the bus is quiet, or closed.
    pub(crate) async fn wait_for(self: &Arc<Self>, quiet: Quiet) {
        let _watching = Watching::new(self);
        loop {
            let mut changed = std::pin::pin!(self.lifecycle.quiet.notified());
            changed.as_mut().enable();
            if self.is_closed() || self.is_quiet(quiet) {
                return;
            }
            changed.await;
        }
    }
}

/// Somebody waits for quiet: leases have to lapse on time meanwhile.
struct Watching<'a>(&'a Arc<BusCore>);

/// No topic has this number.
const WATCHING: u64 = 0;

impl<'a> Watching<'a> {
    fn new(core: &'a Arc<BusCore>) -> Self {
        core.lifecycle.watchers.fetch_add(1, Ordering::SeqCst);
        let need = core.timers.observe_waiting(WATCHING, true);
        core.satisfy(need);
        Self(core)
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        if self.0.lifecycle.watchers.fetch_sub(1, Ordering::SeqCst) == 1 {
            let _ = self.0.timers.observe_waiting(WATCHING, false);
        }
    }
}
