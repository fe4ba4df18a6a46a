//! Cancel safety: every async method is polled k times and dropped, for every k until it
//! completes, and nothing is lost or done by halves (design D6).
//!
//! A case builds a fresh bus on a manual clock, cuts one call after k polls and looks at what is
//! left. What a waiting call waits for is brought about between its polls. The waker does nothing,
//! so a call that polls itself into progress would be seen as one that does not end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod past;
#[cfg(feature = "http")]
#[path = "../receiver/mod.rs"]
mod receiver;
mod room;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::FutureExt;
use siftbus::{
    Bus, Clock, Code, Delivery, Failure, FlowControl, Handler, HandlerOptions, ManualClock,
    Message, Outcome, Push, Received, Requester, Subscription, SubscriptionConfig,
    SubscriptionUpdate, Topic, TopicConfig, TopicUpdate,
};
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
/// No method of this crate needs more polls than this when all it waits for has happened.
const MAX_POLLS: usize = 20;

struct World {
    clock: ManualClock,
    bus: Bus,
    topic: Topic,
    worker: Subscription,
}

impl World {
    fn new() -> World {
        let clock = ManualClock::new();
        let bus = Bus::builder().clock(Clock::manual(&clock)).build();
        let topic = now(bus.create_topic("orders", TopicConfig::new())).unwrap();
        let worker = now(topic.subscribe("worker", SubscriptionConfig::new())).unwrap();
        World { clock, bus, topic, worker }
    }

    fn publish(&self, text: &'static str) {
        self.topic.try_publish(text).unwrap();
    }

    fn take_one(&self) -> Delivery {
        self.worker.try_pull(1).unwrap().into_iter().next().expect("a message is ready")
    }

    /// The message that waits was never handed out to anybody.
    fn assert_untouched(&self, count: u64) {
        let stats = self.worker.stats();
        assert_eq!((stats.backlog, stats.outstanding), (count, 0));
        let batch = self.worker.try_pull(10).unwrap();
        assert_eq!(batch.len() as u64, count);
        assert!(batch.iter().all(|delivery| delivery.attempt() == 1));
    }
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// What a future that does not have to wait says.
fn now<F: Future>(future: F) -> F::Output {
    future.now_or_never().expect("nothing to wait for")
}

/// Polls at most `polls` times, with `between` after each poll that was pending; then drops.
fn cut<F: Future>(future: F, polls: usize, mut between: impl FnMut(usize)) -> Option<F::Output> {
    let mut future = pin!(future);
    for poll in 1..=polls {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => return Some(output),
            Poll::Pending => between(poll),
        }
    }
    None
}

/// Runs `case(k)` for k = 0, 1, … until it answers that the future completed.
#[track_caller]
fn for_every_cut(mut case: impl FnMut(usize) -> bool) {
    for polls in 0..MAX_POLLS {
        if case(polls) {
            assert!(polls > 0, "a future that completes without a poll");
            return;
        }
    }
    panic!("not complete after {MAX_POLLS} polls");
}

fn nothing(_poll: usize) {}

#[test]
fn publish_is_all_or_nothing() {
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.topic.publish("a"), polls, nothing);
        // D6: a publish future dropped before it is ready published nothing.
        w.assert_untouched(u64::from(done.is_some()));
        done.is_some()
    });
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.topic.publish_many(["a", "b", "c"]), polls, nothing);
        w.assert_untouched(if done.is_some() { 3 } else { 0 });
        done.is_some()
    });
}

#[test]
fn creating_is_all_or_nothing() {
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.bus.create_topic("new", TopicConfig::new()), polls, nothing).is_some();
        assert_eq!(now(w.bus.topic("new")).is_ok(), done);
        assert_eq!(w.bus.topics().len(), 1 + usize::from(done));
        // What was cut can be done again.
        assert_eq!(now(w.bus.create_topic("new", TopicConfig::new())).is_err(), done);
        done
    });
    let config = SubscriptionConfig::new;
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.bus.create_subscription("new", "orders", config()), polls, nothing);
        created(&w, done.is_some())
    });
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.topic.subscribe("new", config()), polls, nothing);
        created(&w, done.is_some())
    });
}

fn created(w: &World, done: bool) -> bool {
    let there = 1 + usize::from(done);
    assert_eq!(now(w.bus.subscription("new")).is_ok(), done);
    assert_eq!((w.bus.subscriptions().len(), w.topic.subscriptions().len()), (there, there));
    assert_eq!(w.topic.try_publish("a").unwrap().recipients(), Some(there));
    done
}

#[test]
fn deleting_is_all_or_nothing() {
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.bus.delete_topic("orders"), polls, nothing).is_some();
        topic_deleted(&w, done)
    });
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.topic.delete(), polls, nothing).is_some();
        topic_deleted(&w, done)
    });
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.bus.delete_subscription("worker"), polls, nothing).is_some();
        subscription_deleted(&w, done)
    });
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.worker.delete(), polls, nothing).is_some();
        subscription_deleted(&w, done)
    });
}

fn topic_deleted(w: &World, done: bool) -> bool {
    assert_eq!(w.bus.topics().is_empty(), done);
    assert_eq!(w.topic.try_publish("a").is_err(), done);
    assert_eq!(w.worker.topic_name(), if done { "_deleted-topic_" } else { "orders" });
    done
}

fn subscription_deleted(w: &World, done: bool) -> bool {
    assert_eq!(w.bus.subscriptions().is_empty(), done);
    assert_eq!(w.worker.try_pull(1).is_err(), done);
    let taken = w.topic.try_publish("a").unwrap().recipients();
    assert_eq!(taken, Some(usize::from(!done)));
    done
}

#[test]
fn looking_up_changes_nothing() {
    for_every_cut(|polls| {
        let w = World::new();
        let topic = cut(w.bus.topic("orders"), polls, nothing);
        let subscription = cut(w.bus.subscription("worker"), polls, nothing);
        assert_eq!((w.bus.topics().len(), w.bus.subscriptions().len()), (1, 1));
        topic.is_some() && subscription.is_some()
    });
}

#[test]
fn updating_is_all_or_nothing() {
    for_every_cut(|polls| {
        let w = World::new();
        let update = TopicUpdate::new().retention(Some(MINUTE));
        let done = cut(w.topic.update(update), polls, nothing).is_some();
        assert_eq!(w.topic.config().retention, done.then_some(MINUTE));
        done
    });
    for_every_cut(|polls| {
        let w = World::new();
        let update = SubscriptionUpdate::new().ack_deadline(MINUTE).retention(2 * MINUTE);
        let before = w.worker.config();
        let done = cut(w.worker.update(update), polls, nothing);
        let config = w.worker.config();
        assert_eq!(config == before, done.is_none());
        assert_eq!(config.ack_deadline == MINUTE, config.retention == Some(2 * MINUTE));
        done.is_some()
    });
}

#[test]
fn pull_strands_nothing() {
    // The message is there before the call, or comes after its first poll.
    for already_there in [true, false] {
        for_every_cut(|polls| {
            let w = World::new();
            if already_there {
                w.publish("a");
            }
            let published = |poll| {
                if poll == 1 {
                    w.publish("a");
                }
            };
            match cut(w.worker.pull(10), polls, published) {
                Some(pulled) => {
                    assert_eq!(pulled.unwrap().len(), 1);
                    true
                }
                None => {
                    // PULL-10
                    w.assert_untouched(u64::from(already_there || polls > 0));
                    false
                }
            }
        });
    }
}

#[test]
fn pull_that_waits_for_a_lapse_or_a_delay_strands_nothing() {
    for nacked in [true, false] {
        for_every_cut(|polls| {
            let w = World::new();
            w.publish("a");
            let held = w.take_one();
            if nacked {
                held.nack_after(10 * SECOND).outcome().unwrap();
            } else {
                held.into_ack_id();
            }
            let done = cut(w.worker.pull(1), polls, |_| w.clock.advance(10 * SECOND));
            let attempts = |batch: siftbus::Deliveries| batch.iter().next().unwrap().attempt();
            match done {
                Some(pulled) => assert_eq!(attempts(pulled.unwrap()), 2),
                None if polls > 0 => assert_eq!(attempts(w.worker.try_pull(1).unwrap()), 2),
                None => return false,
            }
            polls > 1
        });
    }
}

#[test]
fn a_dropped_pull_passes_its_wake_on() {
    let w = World::new();
    let wakes = [Wakes::new(), Wakes::new(), Wakes::new()];
    let mut pulls = wakes.each_ref().map(|_| Some(Box::pin(w.worker.pull(1))));
    for (pull, wakes) in pulls.iter_mut().zip(&wakes) {
        let waker = Waker::from(Arc::clone(wakes));
        let pull = pull.as_mut().unwrap().as_mut();
        assert!(pull.poll(&mut Context::from_waker(&waker)).is_pending());
    }
    w.publish("a");
    // L9: the one that was woken is dropped, the next takes its turn, and so on.
    for dropped in 1..=3 {
        let awake: Vec<usize> =
            (0..3).filter(|i| pulls[*i].is_some() && wakes[*i].get() > 0).collect();
        let [one] = awake[..] else { panic!("after {} drops awake: {awake:?}", dropped - 1) };
        if dropped < 3 {
            pulls[one] = None;
        } else {
            let pulled = now(pulls[one].take().unwrap()).unwrap();
            assert_eq!(pulled.iter().next().unwrap().attempt(), 1);
        }
    }
}

#[test]
fn a_pull_within_a_timeout_strands_nothing() {
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.bus.timeout(MINUTE, w.worker.pull(1)), polls, |_| w.publish("a"));
        if done.is_none() {
            w.assert_untouched(polls as u64);
        }
        done.is_some_and(|within| within.unwrap().unwrap().len() == 1)
    });
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.bus.timeout(MINUTE, w.worker.pull(1)), polls, |_| w.clock.advance(MINUTE));
        w.publish("a");
        w.assert_untouched(1);
        done.is_some_and(|within| within.is_err())
    });
}

#[test]
fn streams_lease_in_the_poll_that_answers() {
    for_every_cut(|polls| {
        let w = World::new();
        let mut stream = w.worker.stream(FlowControl::new()).unwrap();
        let done = cut(stream.next(), polls, |_| w.publish("a"));
        if done.is_none() {
            w.assert_untouched(polls as u64); // D5: never ahead
        }
        done.is_some()
    });
    for_every_cut(|polls| {
        let w = World::new();
        let mut batches = w.worker.batches(10, FlowControl::new()).unwrap();
        let done = cut(batches.next(), polls, |_| w.publish("a"));
        if done.is_none() {
            w.assert_untouched(polls as u64);
        }
        done.is_some_and(|batch| batch.unwrap().unwrap().len() == polls - 1)
    });
}

#[test]
fn a_dropped_stream_passes_its_wake_on() {
    let w = World::new();
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    assert!(stream.next().now_or_never().is_none());
    let wakes = Wakes::new();
    let mut pull = pin!(w.worker.pull(1));
    let waker = Waker::from(Arc::clone(&wakes));
    assert!(pull.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    w.publish("a");
    drop(stream);
    assert_eq!(wakes.get(), 1, "L9");
    assert_eq!(now(pull).unwrap().len(), 1);
}

#[test]
fn a_stream_survives_a_dropped_next() {
    let w = World::new();
    let mut stream = w.worker.stream(FlowControl::new()).unwrap();
    for _ in 0..5 {
        assert!(stream.next().now_or_never().is_none());
    }
    w.publish("a");
    let delivery = now(stream.next()).unwrap().unwrap();
    assert_eq!(delivery.attempt(), 1);
}

#[test]
fn acknowledging_is_all_or_nothing() {
    for_every_cut(|polls| {
        let w = World::new();
        w.topic.try_publish_many(["a", "b"]).unwrap();
        let batch = w.worker.try_pull(2).unwrap();
        let ids: Vec<_> = batch.into_iter().map(Delivery::into_ack_id).collect();
        let done = cut(w.worker.acknowledge(&ids), polls, nothing).is_some();
        assert_eq!(w.worker.stats().backlog, if done { 0 } else { 2 });
        let again = if done { Outcome::Stale } else { Outcome::Done };
        assert_eq!(now(w.worker.acknowledge(&ids)).unwrap(), [again, again]);
        done
    });
    for_every_cut(|polls| {
        let w = World::new();
        w.topic.try_publish_many(["a", "b"]).unwrap();
        let batch = w.worker.try_pull(2).unwrap();
        let ids: Vec<_> = batch.into_iter().map(Delivery::into_ack_id).collect();
        let done = cut(w.worker.modify_ack_deadline(&ids, MINUTE), polls, nothing).is_some();
        w.clock.advance(10 * SECOND);
        assert_eq!(w.worker.stats().outstanding, if done { 2 } else { 0 });
        done
    });
}

#[test]
fn a_settlement_acts_at_the_call_and_needs_no_poll() {
    for_every_cut(|polls| {
        let w = World::new();
        w.publish("a");
        let done = cut(w.take_one().ack(), polls, nothing).is_some();
        assert_eq!(w.worker.stats().backlog, 0); // D5
        done
    });
}

#[test]
fn sleeping_changes_nothing() {
    for_every_cut(|polls| {
        let w = World::new();
        let start = w.bus.now();
        let done = cut(w.bus.sleep(MINUTE), polls, |_| w.clock.advance(MINUTE / 2)).is_some();
        let slept = w.bus.now().duration_since(start).unwrap();
        assert_eq!(done, polls > 0 && slept >= MINUTE && polls > 2, "{polls} polls, {slept:?}");
        done
    });
}

#[test]
fn events_wait_for_the_next_call() {
    for_every_cut(|polls| {
        let w = World::new();
        let mut events = w.bus.events();
        let happens = |poll| {
            if poll == 1 {
                w.clock.advance(31 * 24 * 60 * MINUTE);
            }
        };
        let done = cut(events.next(), polls, happens).is_some();
        if polls > 0 && !done {
            assert!(events.try_next().is_some(), "the subscription expired (EXP-8)");
        }
        done
    });
}

#[test]
fn a_dropped_advance_leaves_a_clock_that_goes_on() {
    let runtime = runtime();
    for_every_cut(|polls| {
        let w = World::new();
        w.publish("a");
        w.take_one().into_ack_id();
        let (start, guard) = (w.clock.now(), runtime.enter());
        let done = cut(w.clock.advance_settled(MINUTE), polls, nothing).is_some();
        drop(guard);
        assert!(w.clock.now() <= start + MINUTE);
        w.clock.advance_to(start + MINUTE);
        assert_eq!((w.clock.now(), w.bus.now()), (start + MINUTE, start + MINUTE));
        assert_eq!(w.worker.stats().ready, 1);
        done
    });
}

#[test]
fn a_requester_is_made_whole_or_not_at_all() {
    let runtime = runtime();
    let _guard = runtime.enter();
    for_every_cut(|polls| {
        let w = request_world();
        let before = w.bus.subscriptions().len();
        let done = cut(Requester::new(&w.bus, "requests", "replies"), polls, nothing);
        assert_eq!(w.bus.subscriptions().len(), before + usize::from(done.is_some()));
        // Nothing is in the way of another one.
        assert!(now(Requester::new(&w.bus, "requests", "replies")).is_ok());
        done.is_some()
    });
}

#[test]
fn a_dropped_request_does_not_disturb_the_next() {
    let runtime = runtime();
    let _guard = runtime.enter();
    for_every_cut(|polls| {
        let w = request_world();
        let server = now(w.bus.subscription("server")).unwrap();
        let requester = now(Requester::new(&w.bus, "requests", "replies")).unwrap();
        let serve = |_| {
            for request in server.try_pull(10).unwrap() {
                let echo = Message::new(request.data().clone());
                now(siftbus::reply(&w.bus, &request, echo)).unwrap();
                request.ack().outcome().unwrap();
            }
            run_tasks(&runtime);
        };
        let first = cut(requester.request("first", MINUTE), polls, serve);
        let second = cut(requester.request("second", MINUTE), MAX_POLLS, serve);
        let reply = second.expect("the server answers").unwrap();
        assert_eq!(reply.data().as_ref(), b"second");
        // A reply to the first that nobody waited for is ignored, and was not left in the way.
        assert_eq!(requester.subscription().stats().backlog, 0);
        first.is_some_and(|first| first.unwrap().data().as_ref() == b"first")
    });
}

#[test]
fn a_dropped_reply_can_be_sent_again() {
    let runtime = runtime();
    let _guard = runtime.enter();
    for_every_cut(|polls| {
        let w = request_world();
        let server = now(w.bus.subscription("server")).unwrap();
        let requester = now(Requester::new(&w.bus, "requests", "replies")).unwrap();
        let mut waiting = pin!(requester.request("question", MINUTE));
        assert!(poll_once(waiting.as_mut()).is_pending());
        let request = server.try_pull(1).unwrap().into_iter().next().unwrap();
        let done = cut(siftbus::reply(&w.bus, &request, "answer"), polls, nothing);
        if done.is_none() {
            run_tasks(&runtime);
            assert!(poll_once(waiting.as_mut()).is_pending(), "no reply was sent");
            now(siftbus::reply(&w.bus, &request, "answer")).unwrap();
        }
        request.ack().outcome().unwrap();
        run_tasks(&runtime);
        let Poll::Ready(reply) = poll_once(waiting) else { panic!("the reply was sent") };
        assert_eq!(reply.unwrap().data().as_ref(), b"answer");
        done.is_some()
    });
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}

/// Lets the tasks of the bus do what they can.
fn run_tasks(runtime: &Runtime) {
    runtime.block_on(async {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    });
}

/// A bus with the topics `requests` and `replies` and a subscription `server`.
fn request_world() -> World {
    let w = World::new();
    for name in ["requests", "replies"] {
        now(w.bus.create_topic(name, TopicConfig::new())).unwrap();
    }
    let server = now(w.bus.create_subscription("server", "requests", SubscriptionConfig::new()));
    assert_eq!(server.map(|s| s.name().to_owned()).map_err(|e| e.code()), Ok("server".to_owned()));
    w
}

/// Counts wakes.
#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wakes {
    fn new() -> Arc<Wakes> {
        Arc::default()
    }

    fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_cut_future_answers_with_a_typed_error_when_its_object_goes() {
    let w = World::new();
    let done = cut(w.worker.pull(1), 2, |_| now(w.worker.delete()).unwrap());
    assert_eq!(done.unwrap().unwrap_err().code(), Code::NotFound); // PULL-9
}

/// A handler or push whose calls wait until they are let go, one at a time, on two messages.
struct Calls {
    w: World,
    runtime: Runtime,
    let_go: Arc<Semaphore>,
    received: mpsc::UnboundedReceiver<Received>,
}

impl Calls {
    fn start<R>(start: impl Fn(&Subscription, Call) -> R) -> (Calls, R) {
        let (w, runtime) = (World::new(), runtime());
        let (tell, received) = mpsc::unbounded_channel();
        let let_go = Arc::new(Semaphore::new(0));
        let permits = Arc::clone(&let_go);
        let call: Call = Box::new(move |received| {
            let (tell, permits) = (tell.clone(), Arc::clone(&permits));
            Box::pin(async move {
                tell.send(received)?;
                permits.acquire().await?.forget();
                Ok(())
            })
        });
        let running = {
            let _runtime = runtime.enter();
            start(&w.worker, call)
        };
        ["a", "b"].into_iter().for_each(|text| w.publish(text));
        run_tasks(&runtime);
        assert_eq!(w.worker.stats().outstanding, 1);
        (Calls { w, runtime, let_go, received }, running)
    }

    fn let_one_go(&self) {
        self.let_go.add_permits(1);
        run_tasks(&self.runtime);
    }

    /// Everything that was not acknowledged can be taken, and nothing else.
    fn assert_left(&self, count: u64) {
        run_tasks(&self.runtime);
        let stats = self.w.worker.stats();
        assert_eq!((stats.backlog, stats.outstanding), (count, 0));
        assert_eq!(self.w.worker.try_pull(10).unwrap().len() as u64, count);
    }
}

type Call = Box<
    dyn Fn(Received) -> Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>> + Send + Sync,
>;

fn handle(worker: &Subscription, call: Call) -> Handler {
    worker.handle(HandlerOptions::new().concurrency(1), call).unwrap()
}

fn push(worker: &Subscription, call: Call) -> Push {
    worker.push_to(call).unwrap()
}

#[test]
fn a_drain_finishes_or_gives_back() {
    // LIB-305: what still runs when a drain is dropped is given back.
    for_every_cut(|polls| {
        let (calls, handler) = Calls::start(handle);
        let done = cut(handler.drain(), polls, |poll| {
            if poll == 2 {
                calls.let_one_go();
            }
        });
        assert!(done.is_none_or(|stats| stats.succeeded == 1));
        calls.assert_left(if done.is_some() || polls == 2 { 1 } else { 2 });
        done.is_some()
    });
    for_every_cut(|polls| {
        let (calls, push) = Calls::start(push);
        let done = cut(push.drain(), polls, |poll| {
            if poll == 2 {
                calls.let_one_go();
            }
        });
        assert!(done.is_none_or(|stats| stats.succeeded == 1));
        calls.assert_left(if done.is_some() || polls == 2 { 1 } else { 2 });
        done.is_some()
    });
}

#[test]
fn waiting_for_the_end_changes_nothing() {
    /// The only task learns of the deletion once its call has ended.
    fn between(calls: &Calls, poll: usize) {
        match poll {
            2 => now(calls.w.worker.delete()).unwrap(),
            3 => calls.let_one_go(),
            _ => {}
        }
    }
    for_every_cut(|polls| {
        let (calls, handler) = Calls::start(handle);
        let done = cut(handler.ended(), polls, |poll| between(&calls, poll));
        calls.let_one_go();
        // It goes on with the other message, unless there is none any more.
        assert_eq!(handler.stats().succeeded, 1);
        assert_eq!(handler.stats().running, usize::from(polls < 2));
        done.is_some()
    });
    for_every_cut(|polls| {
        let (calls, push) = Calls::start(push);
        let done = cut(push.ended(), polls, |poll| between(&calls, poll));
        calls.let_one_go();
        assert_eq!(push.stats().succeeded, 1);
        assert_eq!(push.stats().in_flight, usize::from(polls < 2));
        done.is_some()
    });
}

#[test]
fn waiting_for_a_lost_lease_changes_nothing() {
    for_every_cut(|polls| {
        let (mut calls, handler) = Calls::start(|worker, call| {
            let options = HandlerOptions::new().concurrency(1).max_extension(MINUTE);
            worker.handle(options, call).unwrap()
        });
        let received = calls.received.try_recv().unwrap();
        let done = cut(received.lost(), polls, |poll| {
            if poll == 2 {
                for _ in 0..70 {
                    calls.w.clock.advance(SECOND);
                    run_tasks(&calls.runtime);
                }
            }
        });
        assert_eq!(received.is_lost(), polls >= 2, "LIB-302");
        calls.let_one_go();
        assert_eq!(handler.stats().succeeded, 1);
        done.is_some()
    });
}

/// Over HTTP, where a request may be cut anywhere between its first byte and its answer.
#[cfg(feature = "http")]
mod over_http {
    use siftbus::{HttpEndpoint, PushConfig, PushEndpoint, Pusher};

    use super::receiver::Receiver;
    use super::*;

    fn runtime() -> Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    /// Long enough for what is on its way to arrive.
    fn run_tasks(runtime: &Runtime) {
        runtime.block_on(async {
            for _ in 0..1_000 {
                tokio::task::yield_now().await;
            }
        });
    }

    #[test]
    fn a_push_can_be_cut_and_made_again() {
        let runtime = runtime();
        let _runtime = runtime.enter();
        let mut receiver = runtime.block_on(Receiver::new([]));
        for_every_cut(|polls| {
            let (mut calls, _handler) = Calls::start(handle);
            let endpoint = HttpEndpoint::new(&calls.w.worker, &receiver.url).unwrap();
            let received = calls.received.try_recv().unwrap();
            let done = cut(endpoint.push(received.clone()), polls, |_| run_tasks(&runtime));
            assert!(done.as_ref().is_none_or(Result::is_ok), "{done:?}");
            // Whatever became of it, the endpoint serves, and the message is there to be sent.
            runtime.block_on(endpoint.push(received)).unwrap();
            while receiver.seen.try_recv().is_ok() {}
            done.is_some()
        });
    }

    #[test]
    fn a_drain_of_a_pusher_finishes_or_gives_back() {
        use super::receiver::Answer;

        // LIB-422: what still runs when a drain is dropped is given back.
        for_every_cut(|polls| {
            let (w, runtime) = (World::new(), runtime());
            let _runtime = runtime.enter();
            let let_go = Arc::new(Semaphore::new(0));
            let held = [Answer::When(Arc::clone(&let_go))];
            let mut receiver = runtime.block_on(Receiver::new(held));
            let pusher = Pusher::attach(&w.bus).unwrap();
            let push = SubscriptionUpdate::new().push_config(Some(PushConfig::new(&receiver.url)));
            now(w.worker.update(push)).unwrap();
            ["a", "b"].into_iter().for_each(|text| w.publish(text));
            runtime.block_on(receiver.next());
            let done = cut(pusher.drain(), polls, |poll| {
                if poll == 2 {
                    let_go.add_permits(1);
                    while w.worker.stats().backlog > 1 {
                        run_tasks(&runtime);
                    }
                }
            });
            run_tasks(&runtime);
            let left = if polls >= 2 { 1 } else { 2 };
            assert_eq!((w.worker.stats().backlog, w.worker.stats().outstanding), (left, 0));
            done.is_some()
        });
    }
}
