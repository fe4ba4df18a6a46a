//! The one background task of a bus: it sleeps until the next observed instant, and adds liveness.
//!
//! Nothing depends on it for correctness: every call advances to its own reading of the clock.
//! It holds the bus weakly, ends with it, and is started again by the next call from a live runtime
//! when its own has ended (D20). A manual clock needs none.

use std::sync::Weak;

use super::core::BusCore;
use super::timers::Timers;
use crate::sync::Arc;
use crate::time::Time;

/// Starts the driver on the current runtime, if there is one and none runs yet.
pub(crate) fn start(core: &Arc<BusCore>) {
    if core.timeline.is_manual() {
        return;
    }
    let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
    if core.timers.claim_driver() {
        let guard = Guard { timers: Arc::clone(&core.timers) };
        runtime.spawn(drive(Arc::downgrade(core), guard));
    }
}

async fn drive(bus: Weak<BusCore>, guard: Guard) {
    loop {
        let Some(core) = bus.upgrade().filter(|core| !core.is_closed()) else { return };
        let until = guard.timers.arm();
        let wake_at = core.timeline.instant_of(until);
        drop(core);
        let changed = guard.timers.changed.notified();
        if until == Time::NEVER {
            changed.await;
        } else {
            // Whether it was the clock or the news makes no difference: look again.
            let _ = tokio::time::timeout_at(wake_at, changed).await;
        }
        if let Some(core) = bus.upgrade() {
            core.read();
        }
    }
}

/// Dropped when the task ends, also when its runtime is shut down.
struct Guard {
    timers: Arc<Timers>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.timers.driver_gone();
    }
}
