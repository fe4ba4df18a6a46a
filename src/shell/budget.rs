//! The byte budget of a bus: what is used, and which topics have publishers that wait for room.
//! Also which subscriptions have put off carrying dead letters, because far too much is used (L7).
//!
//! Topics report what they hold, rarely while there is plenty. When a publisher is about to wait
//! the bus comes *under pressure*: from then on every settlement reports exactly what it frees, and
//! frees also what lies behind a message that is stuck. Who frees looks at the list of waiting
//! topics after the sum has changed; who waits looks at the sum after it is on the list. Both do so
//! around one lock, so at least one sees the other (I-8).

use std::sync::Weak;

use super::core::BusCore;
use super::subscription::SubscriptionShared;
use super::topic::TopicShared;
use crate::budget::Budget;
use crate::clock::Reading;
use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering, Padded};

/// How much of the budget a topic's report may be off by: a 65,536th.
const SLACK_SHIFT: u32 = 16;

#[derive(Debug)]
pub(crate) struct BusBudget {
    pub(crate) config: Budget,
    used: Padded<AtomicU64>,
    is_pressed: AtomicBool,
    /// Topics whose first publisher waits for room, in order.
    waiting: Mutex<Vec<Waiting>>,
    /// Subscriptions whose outbox pauses. Locked after `waiting`.
    paused: Mutex<Vec<Weak<SubscriptionShared>>>,
    /// Not swept again before this.
    next_sweep: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    topic: Weak<TopicShared>,
    id: u64,
    charge: u64,
}

impl BusBudget {
    pub(crate) fn new(config: Budget) -> Self {
        Self {
            config,
            used: Padded(AtomicU64::new(0)),
            is_pressed: AtomicBool::new(false),
            waiting: Mutex::new(Vec::new()),
            paused: Mutex::new(Vec::new()),
            next_sweep: AtomicU64::new(0),
        }
    }

    /// What topics have reported; others may hold up to [`slack`](Self::slack) more or less each.
    #[inline]
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::SeqCst)
    }

    /// Whether `charge` more fits.
    #[inline]
    pub(crate) fn fits(&self, charge: u64) -> bool {
        self.used().saturating_add(charge) <= self.config.bytes
    }

    /// Whether `charge` more fits beyond doubt, whatever the topic has not reported.
    #[inline]
    pub(crate) fn has_ample_room(&self, charge: u64) -> bool {
        !self.is_pressed() && self.fits(charge.saturating_add(self.config.bytes >> SLACK_SHIFT))
    }

    /// Whether so much more than the budget is used that nothing is added that can wait.
    #[inline]
    pub(crate) fn is_overdrawn(&self) -> bool {
        self.used() > self.config.bytes.saturating_add(self.config.bytes / OVERDRAFT_SHARE)
    }

    #[inline]
    pub(crate) fn is_pressed(&self) -> bool {
        self.is_pressed.load(Ordering::SeqCst)
    }

    /// Answers whether it was under pressure before.
    fn begin_pressure(&self) -> bool {
        self.is_pressed.swap(true, Ordering::SeqCst)
    }

    /// By how much a topic's report may be off: a 65,536th of the budget, nothing under pressure.
    #[inline]
    pub(crate) fn slack(&self) -> u64 {
        if self.is_pressed() { 0 } else { self.config.bytes >> SLACK_SHIFT }
    }

    /// A topic holds more, or less, than it had reported. Answers whether somebody has to be told.
    pub(crate) fn report(&self, before: u64, now: u64) -> bool {
        self.used.fetch_add(now.wrapping_sub(before), Ordering::SeqCst);
        // Asked after the sum has changed: who waits has said so before it looks at the sum.
        now < before && self.is_pressed()
    }

    /// Puts a topic on the list, or renews what its first publisher needs. The caller looks at
    /// [`fits`](Self::fits) once more after. Answers false, and does neither, if the pressure has
    /// ended meanwhile: the caller has to [`press`](BusCore::press) again.
    #[must_use]
    pub(crate) fn wait(&self, topic: &Weak<TopicShared>, id: u64, charge: u64) -> bool {
        let mut waiting = self.waiting.lock();
        // Ended under the same lock, and only while nobody is on the list.
        if !self.is_pressed() {
            return false;
        }
        match waiting.iter_mut().find(|other| other.id == id) {
            Some(other) => other.charge = charge,
            None => waiting.push(Waiting { topic: topic.clone(), id, charge }),
        }
        true
    }

    pub(crate) fn stop_waiting(&self, id: u64) {
        if self.is_pressed() {
            self.waiting.lock().retain(|other| other.id != id);
        }
    }

    /// Takes the topics off the list whose first publishers now fit together. One that does not
    /// fit yet does not hold up the others.
    fn take_fitting(&self) -> Vec<Arc<TopicShared>> {
        let mut waiting = self.waiting.lock();
        let mut room = self.config.bytes.saturating_sub(self.used());
        let mut fitting = Vec::new();
        waiting.retain(|other| {
            if other.charge > room {
                return true;
            }
            if let Some(topic) = other.topic.upgrade() {
                room -= other.charge;
                fitting.push(topic);
            }
            false
        });
        let is_easy = self.used() <= self.config.bytes - self.config.bytes / 8;
        let paused = self.paused.lock();
        if waiting.is_empty() && fitting.is_empty() && paused.is_empty() && is_easy {
            self.is_pressed.store(false, Ordering::SeqCst);
        }
        drop(paused);
        fitting
    }
}

impl BusBudget {
    /// Puts a subscription on the list of those that go on once the overdraft is small enough.
    /// Answers false if it is that already.
    #[must_use]
    pub(crate) fn pause(&self, subscription: &Weak<SubscriptionShared>) -> bool {
        let mut paused = self.paused.lock();
        if !paused.iter().any(|other| other.ptr_eq(subscription)) {
            paused.push(subscription.clone());
        }
        // It ends under the same lock, and only while nobody is on the list.
        self.begin_pressure();
        drop(paused);
        self.is_overdrawn()
    }

    fn take_resumed(&self) -> Vec<Weak<SubscriptionShared>> {
        match self.is_overdrawn() {
            true => Vec::new(),
            false => std::mem::take(&mut *self.paused.lock()),
        }
    }
}

impl BusCore {
    /// Something was given back: tells publishers that now fit. Called with no lock held.
    pub(crate) fn room_freed(&self) {
        for topic in self.budget.take_fitting() {
            topic.tell_first_publisher();
        }
        for subscription in self.budget.take_resumed() {
            if let Some(subscription) = subscription.upgrade() {
                subscription.resume_forwarding();
            }
        }
    }

    /// A publisher is about to wait: sweeps what time has freed anywhere (L3). Called with no lock
    /// held. The first time under pressure always, then no oftener than its cost warrants.
    pub(crate) fn press(self: &Arc<Self>, reading: Reading) {
        let was_pressed = self.budget.begin_pressure();
        let now = reading.now.as_millis();
        if was_pressed && now < self.budget.next_sweep.load(Ordering::SeqCst) {
            return;
        }
        let (topics, pages) = self.books.open();
        drop(pages);
        let mut subscriptions = 0;
        for topic in &topics {
            subscriptions += topic.sweep(reading);
        }
        // A sweep costs about 0.1 µs a subscription.
        let pause = subscriptions as u64 / SWEPT_PER_MILLI + 1;
        self.budget.next_sweep.store(now + pause, Ordering::SeqCst);
    }

    /// Gives up history, oldest first, until `charge` fits or there is none. Answers whether any
    /// was given up.
    pub(crate) fn yield_history(&self, charge: u64) -> bool {
        let mut yielded = false;
        while !self.budget.fits(charge) {
            let (topics, pages) = self.books.open();
            drop(pages);
            let oldest = topics.iter().filter_map(|topic| Some((topic.oldest_history()?, topic)));
            let Some((_, topic)) = oldest.min_by_key(|(time, _)| *time) else { break };
            if !topic.yield_history() {
                break;
            }
            yielded = true;
        }
        yielded
    }
}

/// An outbox pauses when the overdraft exceeds this share of the budget.
const OVERDRAFT_SHARE: u64 = 8;

/// Sweeps under pressure look at no more than this many subscriptions per millisecond on average.
const SWEPT_PER_MILLI: u64 = 16;

#[cfg(all(test, siftbus_loom))]
mod loom_tests {
    use super::*;

    /// One publisher is about to wait for 60 of 100 bytes while 80 are given back; `others` may end
    /// the pressure meanwhile. It finds room, or is off the list, so was told.
    fn waits_while_room_is_freed(others: usize) {
        loom::model(move || {
            let budget = Arc::new(BusBudget::new(Budget::new(100)));
            budget.report(0, 80);
            let threads: Vec<_> = (0..=others)
                .map(|other| {
                    let budget = Arc::clone(&budget);
                    loom::thread::spawn(move || {
                        if other > 0 || budget.report(80, 0) {
                            budget.take_fitting();
                        }
                    })
                })
                .collect();
            budget.begin_pressure();
            while !budget.wait(&Weak::new(), 1, 60) {
                budget.begin_pressure();
            }
            let fits = budget.fits(60);
            threads.into_iter().for_each(|thread| thread.join().expect("it ends"));
            assert!(fits || budget.waiting.lock().is_empty(), "nobody has told it (I-8)");
        });
    }

    /// An outbox is about to pause while what is too much is given back: it does not, or is taken
    /// off the list.
    #[test]
    fn room_against_an_outbox_that_pauses() {
        loom::model(|| {
            let budget = Arc::new(BusBudget::new(Budget::new(80)));
            budget.report(0, 100);
            let freeing = Arc::clone(&budget);
            let thread = loom::thread::spawn(move || {
                if freeing.report(100, 0) {
                    freeing.take_fitting();
                    freeing.take_resumed();
                }
            });
            let pauses = budget.pause(&Weak::new());
            thread.join().expect("it ends");
            assert!(!pauses || budget.paused.lock().is_empty(), "nobody resumes it (I-8)");
        });
    }

    #[test]
    fn room_against_a_waiting_publisher() {
        waits_while_room_is_freed(0);
    }

    #[test]
    fn the_end_of_pressure_against_a_waiting_publisher() {
        waits_while_room_is_freed(1);
    }
}

#[cfg(all(test, not(siftbus_loom)))]
mod tests {
    use std::task::{Context, Poll, Wake, Waker};

    use futures_util::FutureExt;

    use super::*;
    use crate::{Bus, MESSAGE_OVERHEAD, Permit, Topic, TopicConfig};

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    /// While one publisher begins the pressure, and has not swept yet, another may wait already:
    /// then a topic may still end with a charge that it has not given back.
    #[test]
    fn the_end_of_a_topic_tells_who_waits() {
        const BYTES: u64 = 1 << 24;
        const SLACK: usize = (BYTES >> 16) as usize;
        let bus = Bus::builder().budget(Budget::new(BYTES).topic_reserve(1)).build();
        let topic = |name| {
            let created = bus.create_topic(name, TopicConfig::new()).now_or_never();
            created.expect("at once").expect("a new name")
        };
        let permit = |topic: &Topic, charge: usize| -> Permit {
            let reserved = topic.reserve(charge - MESSAGE_OVERHEAD).now_or_never();
            reserved.expect("at once").expect("there is room")
        };
        let (ending, other) = (topic("ending"), topic("other"));
        let core = Arc::clone(&ending.shared().core);
        // Reported: nothing, both, the first, and still the first when there is none.
        let first = permit(&ending, SLACK / 2);
        drop(permit(&ending, SLACK + SLACK / 2));
        drop(first);
        assert_eq!(core.budget.used(), SLACK as u64 / 2);
        ending.delete().now_or_never().expect("at once").expect("there");

        let _most = permit(&other, BYTES as usize - SLACK);
        core.budget.begin_pressure();
        core.budget.next_sweep.store(u64::MAX, Ordering::SeqCst);
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let mut context = Context::from_waker(&waker);
        let mut next = std::pin::pin!(other.reserve(SLACK - MESSAGE_OVERHEAD));
        assert!(next.as_mut().poll(&mut context).is_pending());
        drop(ending);
        assert!(flag.0.load(Ordering::SeqCst), "it was not told (I-8)");
        assert!(matches!(next.poll(&mut context), Poll::Ready(Ok(_))));
    }
}
