//! Operations on the past and on the life of subscriptions: seeks, snapshots, detaching, expiring.

use std::time::{Duration, SystemTime};

use futures_util::FutureExt;
use siftbus::{AdminError, Code, SubscriptionUpdate};

use crate::naive::Refusal;
use crate::{Run, SNAPSHOT_LEAST_LIFE, SNAPSHOT_LIFE};

impl Run {
    /// SEEK-2 … SEEK-6: the past, the exact time of a message, now, the future; or a purge.
    pub(crate) fn seek_to_a_time(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        let now = self.naive.now;
        let times: Vec<u64> =
            self.naive.logs.values().flatten().map(|entry| entry.published).collect();
        let time = match self.random.below(6) {
            0 => None,
            1 => Some(0),
            2 => Some(now),
            3 => Some(now + 1 + self.random.below(30_000)),
            4 => Some(now.saturating_sub(self.random.below(60_000))),
            _ if times.is_empty() => Some(now),
            _ => Some(times[self.random.below(times.len() as u64) as usize]),
        };
        self.say(format!("seek slot {slot} to {time:?}"));
        let came = match time {
            None => subscription.purge().now_or_never(),
            Some(time) => subscription.seek(self.instant(time)).now_or_never(),
        };
        let expected = self.naive.seek_to_time(slot, time);
        self.compare_sought(slot, came.expect("answers at once"), expected);
    }

    pub(crate) fn seek_to_a_snapshot(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        if self.snapshots.is_empty() {
            return;
        }
        let nth = self.random.below(self.snapshots.len() as u64) as usize;
        let (name, snapshot) = self.snapshots.iter().nth(nth).expect("one of them");
        let (name, snapshot) = (*name, snapshot.clone());
        self.say(format!("seek slot {slot} to snapshot {name}"));
        let came = subscription.seek(&snapshot).now_or_never().expect("answers at once");
        let expected = self.naive.seek_to_snapshot(slot, name);
        self.compare_sought(slot, came, expected);
    }

    fn compare_sought(
        &mut self,
        slot: usize,
        came: Result<(), AdminError>,
        expected: Result<(), Refusal>,
    ) {
        assert_eq!(came.map_err(|error| refusal(&error)), expected, "the seek: bus, reference");
        if expected.is_ok() {
            self.scanning.insert(slot);
        }
    }

    /// SNP-1, SNP-3, SNP-4.
    pub(crate) fn create_a_snapshot(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        self.names += 1;
        let name = self.names;
        self.say(format!("snapshot {name} of slot {slot}"));
        let came = subscription.create_snapshot(&format!("snapshot{name}")).now_or_never();
        let (life, least) =
            (SNAPSHOT_LIFE.as_millis() as u64, SNAPSHOT_LEAST_LIFE.as_millis() as u64);
        let expected = self.naive.snapshot(slot, name, life, least);
        match came.expect("answers at once") {
            Ok(snapshot) => {
                assert_eq!(expected, Ok(()), "the snapshot: bus, reference");
                let expires = self.naive.snapshots[&name].expires;
                assert_eq!(snapshot.expire_time(), self.instant(expires), "SNP-3");
                self.snapshots.insert(name, snapshot);
            }
            Err(error) => assert_eq!(Err(refusal(&error)), expected, "the snapshot: {error}"),
        }
    }

    pub(crate) fn delete_a_snapshot(&mut self) {
        let Some((name, snapshot)) = self.snapshots.pop_first() else { return };
        self.say(format!("delete snapshot {name}"));
        let came = snapshot.delete().now_or_never().expect("answers at once");
        let was_there = self.naive.snapshots.remove(&name).is_some();
        assert_eq!(came.is_ok(), was_there, "SNP-10: bus, reference");
        // SNP-7, SNP-10: the handle is kept, to be refused from now on.
        if self.random.one_in(2) {
            self.snapshots.insert(name, snapshot);
        }
    }

    pub(crate) fn retain_acked(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        let is_on = self.random.one_in(2);
        self.say(format!("slot {slot} retains what is acknowledged: {is_on}"));
        let update = SubscriptionUpdate::new().retain_acked(is_on);
        subscription.update(update).now_or_never().expect("answers at once").unwrap();
        self.naive.retain_acked(slot, is_on);
    }

    pub(crate) fn switch_exactly_once(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        let is_on = self.random.one_in(2);
        self.say(format!("slot {slot} delivers exactly once: {is_on}"));
        let update = SubscriptionUpdate::new().exactly_once_delivery(is_on);
        subscription.update(update).now_or_never().expect("answers at once").unwrap();
        self.naive.set_exactly_once(slot, is_on);
    }

    /// RES-14, RES-15.
    pub(crate) fn detach(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        if !self.random.one_in(3) {
            return;
        }
        self.say(format!("detach slot {slot}"));
        subscription.detach().now_or_never().expect("answers at once").unwrap();
        self.naive.detach(slot);
    }

    /// EXP-4, SNP-10: to the exact end of a subscription or snapshot, or a millisecond before.
    pub(crate) fn advance_to_a_going(&mut self) {
        let goings = self.naive.goings();
        self.advance_towards(&goings);
    }

    /// EXP-2: whoever was idle for too long is gone, for the bus and for the reference.
    pub(crate) fn forget_what_has_gone(&mut self) {
        let (naive, scanning) = (&self.naive, &mut self.scanning);
        self.subscriptions.retain(|slot, subscription| {
            let is_there = naive.subscriptions.contains_key(slot);
            if !is_there {
                scanning.remove(slot);
                let refused = subscription.try_pull(1).map(drop).map_err(|error| error.code());
                assert_eq!(refused, Err(Code::NotFound), "EXP-4: slot {slot}");
            }
            is_there
        });
    }

    pub(crate) fn instant(&self, millis: u64) -> SystemTime {
        self.start + Duration::from_millis(millis)
    }
}

fn refusal(error: &AdminError) -> Refusal {
    match error.code() {
        Code::NotFound => Refusal::Absent,
        Code::FailedPrecondition => Refusal::Precondition,
        code => panic!("{code:?}: {error}"),
    }
}
