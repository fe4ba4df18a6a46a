//! Calls on the past, on the life of things, and on what is declared.

use std::time::Duration;

use siftbus::{
    Code, Delivery, Outcome, SnapshotUpdate, SubscriptionConfig, TopicConfig, TopicUpdate, Topology,
};

use crate::{MINUTE, SECOND, World, cut, for_every_cut, nothing, now};

/// Three messages: one acknowledged, one leased, one fresh; the topic retains them all.
fn world() -> (World, Vec<Delivery>) {
    let w = World::new();
    now(w.topic.update(TopicUpdate::new().retention(Some(60 * MINUTE)))).unwrap();
    w.topic.try_publish_many(["acked", "leased", "fresh"]).unwrap();
    w.take_one().ack().outcome().unwrap();
    let leased = w.take_one();
    (w, vec![leased])
}

fn backlog(w: &World) -> u64 {
    w.worker.stats().backlog
}

#[test]
fn seeking_is_all_or_nothing() {
    for_every_cut(|polls| {
        let (w, mut held) = world();
        let done = cut(w.worker.seek(w.clock.now() - MINUTE), polls, nothing).is_some();
        assert_eq!(backlog(&w), if done { 3 } else { 2 }, "SEEK-11");
        let expected = if done { Outcome::Stale } else { Outcome::Done };
        assert_eq!(held.remove(0).ack().outcome().unwrap(), expected, "SEEK-10");
        done
    });
    for_every_cut(|polls| {
        let (w, _held) = world();
        let done = cut(w.worker.purge(), polls, nothing).is_some();
        assert_eq!(backlog(&w), if done { 0 } else { 2 }, "SEEK-5");
        done
    });
    for_every_cut(|polls| {
        let (w, held) = world();
        let snapshot = now(w.worker.create_snapshot("s")).unwrap();
        drop(held);
        w.worker.try_pull(10).unwrap().ack_all();
        let done = cut(w.worker.seek(&snapshot), polls, nothing).is_some();
        assert_eq!(backlog(&w), if done { 2 } else { 0 }, "SNP-5");
        done
    });
    for_every_cut(|polls| {
        let (w, _held) = world();
        let done = cut(w.worker.detach(), polls, nothing).is_some();
        assert_eq!(w.worker.try_pull(1).is_err(), done, "RES-14");
        assert_eq!(backlog(&w), if done { 0 } else { 2 });
        done
    });
}

#[test]
fn snapshots_are_made_changed_and_deleted_whole() {
    for_every_cut(|polls| {
        let (w, _held) = world();
        let done = cut(w.worker.create_snapshot("s"), polls, nothing).is_some();
        assert_eq!(now(w.bus.snapshot("s")).is_ok(), done);
        // SNP-8: what was cut can be done again.
        assert_eq!(now(w.worker.create_snapshot("s")).is_err(), done);
        done
    });
    for_every_cut(|polls| {
        let (w, _held) = world();
        let labels = [("team".to_owned(), "a".to_owned())].into();
        let done = cut(w.worker.create_snapshot_labeled("s", labels), polls, nothing).is_some();
        assert_eq!(now(w.bus.snapshot("s")).is_ok(), done);
        done
    });
    for_every_cut(|polls| {
        let (w, _held) = world();
        let snapshot = now(w.worker.create_snapshot("s")).unwrap();
        let (before, earlier) = (snapshot.expire_time(), w.clock.now() + MINUTE);
        let update = SnapshotUpdate::new().expire_time(earlier);
        let done = cut(snapshot.update(update), polls, nothing).is_some();
        assert_eq!(snapshot.expire_time(), if done { earlier } else { before }, "SNP-9");
        done
    });
    for by_handle in [true, false] {
        for_every_cut(|polls| {
            let (w, _held) = world();
            let snapshot = now(w.worker.create_snapshot("s")).unwrap();
            let done = match by_handle {
                true => cut(snapshot.delete(), polls, nothing).is_some(),
                false => cut(w.bus.delete_snapshot("s"), polls, nothing).is_some(),
            };
            assert_eq!(now(w.worker.seek(&snapshot)).is_err(), done, "SEEK-8");
            done
        });
    }
}

#[test]
fn finding_a_snapshot_changes_nothing() {
    for_every_cut(|polls| {
        let (w, _held) = world();
        now(w.worker.create_snapshot("s")).unwrap();
        let done = cut(w.bus.snapshot("s"), polls, nothing).is_some();
        assert_eq!((w.bus.snapshots().len(), backlog(&w)), (1, 2));
        done
    });
}

#[test]
fn waiting_until_nothing_is_left_changes_nothing() {
    for_every_cut(|polls| {
        let (w, held) = world();
        let mut held = Some(held);
        let done = cut(w.bus.wait_idle(), polls, |_| {
            held.take().into_iter().flatten().for_each(|one| drop(one.ack()));
            w.worker.try_pull(10).unwrap().ack_all();
        });
        assert_eq!(done.is_some(), polls > 1);
        assert_eq!(backlog(&w), if polls > 0 { 0 } else { 2 }, "LIB-47");
        done.is_some()
    });
}

#[test]
fn a_close_that_is_dropped_has_closed_or_has_not_begun() {
    for_every_cut(|polls| {
        let (w, mut held) = world();
        let done = cut(w.bus.close(10 * MINUTE), polls, |_| {
            held.drain(..).for_each(|one| drop(one.ack()));
        });
        // LIB-46: from the first poll on nothing is handed out, whatever becomes of the future.
        let refused = w.worker.try_pull(1).map(drop).map_err(|error| error.code());
        assert_eq!(refused, if polls > 0 { Err(Code::Unavailable) } else { Ok(()) });
        if let (None, 1..) = (&done, polls) {
            assert_eq!(now(w.bus.close(Duration::ZERO)), 0, "it can be called again");
        }
        done.is_some()
    });
}

#[test]
fn declaring_leaves_each_thing_whole_and_can_be_done_again() {
    for_every_cut(|polls| {
        let w = World::new();
        let done = cut(w.bus.get_or_create_topic("new", TopicConfig::new()), polls, nothing);
        assert_eq!(now(w.bus.topic("new")).is_ok(), done.is_some(), "LIB-48");
        done.is_some()
    });
    for_every_cut(|polls| {
        let w = World::new();
        let config = SubscriptionConfig::new();
        let made = w.bus.get_or_create_subscription("new", "orders", config);
        let done = cut(made, polls, nothing).is_some();
        assert_eq!(now(w.bus.subscription("new")).is_ok(), done, "LIB-48");
        done
    });
    for_every_cut(|polls| {
        let w = World::new();
        let topology = Topology::new().topic("t", TopicConfig::new()).subscription(
            "s",
            "t",
            SubscriptionConfig::new().ack_deadline(SECOND),
        );
        let done = cut(w.bus.declare(&topology), polls, nothing).is_some();
        now(w.bus.declare(&topology)).unwrap();
        assert_eq!(now(w.bus.subscription("s")).unwrap().config().ack_deadline, SECOND);
        done
    });
}
