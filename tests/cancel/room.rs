//! Calls that wait for room, and publishes that come later.

use std::future::Future;
use std::pin::Pin;

use siftbus::{
    BacklogLimit, Bus, Clock, ManualClock, PublishError, Receipt, SubscriptionConfig, Topic,
    TopicConfig,
};

use crate::{MINUTE, SECOND, World, cut, for_every_cut, nothing, now};

/// A subscription that has room for one message, and has it.
fn full() -> World {
    let clock = ManualClock::new();
    let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    let topic = now(bus.create_topic("orders", TopicConfig::new())).unwrap();
    let config = SubscriptionConfig::new().backlog_limit(BacklogLimit::new(1));
    let worker = now(topic.subscribe("worker", config)).unwrap();
    topic.try_publish("first").unwrap();
    World { clock, bus, topic, worker }
}

type Publishing<'a> = Pin<Box<dyn Future<Output = Result<Receipt, PublishError>> + 'a>>;

#[test]
fn a_publish_that_waits_for_room_has_published_or_has_not() {
    let ways: [fn(&Topic) -> Publishing<'_>; 3] = [
        |topic| Box::pin(topic.publish("second")),
        |topic| Box::pin(topic.publish_timeout("second", MINUTE)),
        // LIB-376: it needs no room on the subscription, but goes the same way.
        |topic| Box::pin(topic.publish_after("second", std::time::Duration::ZERO)),
    ];
    for way in ways {
        for_every_cut(|polls| {
            let w = full();
            let mut taken = 0;
            let done = cut(way(&w.topic), polls, |_| {
                taken += w.worker.try_pull(10).unwrap().ack_all().done;
            });
            assert_eq!(done.is_some(), polls > 1, "it waits, LIB-42");
            let there = w.worker.stats().backlog + taken as u64;
            assert_eq!(there, 1 + u64::from(done.is_some()), "D6");
            // Who was cut has left the queue: the next one need not wait.
            w.worker.try_pull(10).unwrap().ack_all();
            assert!(now(w.topic.publish("third")).is_ok(), "LIB-42");
            done.is_some()
        });
    }
}

#[test]
fn a_publish_that_waits_in_vain_gives_its_message_back() {
    for_every_cut(|polls| {
        let w = full();
        let waiting = w.topic.publish_timeout("second", SECOND);
        let done = cut(waiting, polls, |_| w.clock.advance(SECOND));
        assert_eq!(w.worker.stats().backlog, 1);
        let Some(late) = done else { return false };
        assert_eq!(late.unwrap_err().into_messages().len(), 1, "PUB-2");
        true
    });
}

#[test]
fn a_permit_that_nobody_got_holds_nothing() {
    for_every_cut(|polls| {
        let w = World::new();
        let before = w.bus.stats().budget_used;
        let done = cut(w.topic.reserve(1_000_000), polls, nothing);
        let reserved = w.bus.stats().budget_used > before;
        assert_eq!(reserved, done.is_some(), "LIB-43");
        let is_done = done.is_some();
        drop(done);
        assert_eq!(w.bus.stats().budget_used, before, "LIB-43");
        is_done
    });
}

#[test]
fn a_later_publish_waits_at_its_topic_or_never_was() {
    let ways: [fn(&World) -> Publishing<'_>; 2] = [
        |w| Box::pin(w.topic.publish_after("later", MINUTE)),
        |w| Box::pin(w.topic.publish_at("later", w.clock.now() + MINUTE)),
    ];
    for way in ways {
        for_every_cut(|polls| {
            let w = World::new();
            let done = cut(way(&w), polls, nothing);
            let count = u64::from(done.is_some());
            assert_eq!(w.topic.stats().delayed, count, "LIB-375");
            w.clock.advance(MINUTE);
            w.assert_untouched(count);
            done.is_some()
        });
        // LIB-377: what is taken back is not published, however its future ended.
        for_every_cut(|polls| {
            let w = World::new();
            let done = cut(way(&w), polls, nothing);
            let id = done.as_ref().map(|receipt| receipt.as_ref().unwrap().id());
            assert_eq!(id.and_then(|id| w.topic.withdraw(id)).is_some(), done.is_some());
            w.clock.advance(MINUTE);
            w.assert_untouched(0);
            done.is_some()
        });
    }
}
