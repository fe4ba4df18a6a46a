//! Operations with faults on demand (LIB-400 … LIB-405).

use crate::naive::Fault;
use crate::{Held, Hold, Run, in_short};

impl Run {
    /// LIB-401, LIB-403, LIB-405: an ack that is lost, fails, or does not keep its message away.
    pub(crate) fn ack_with_a_fault(&mut self) {
        let Some(held) = self.take_held(|hold| matches!(hold, Hold::Delivery(_))) else { return };
        let Held { slot, incarnation, lease, hold: Hold::Delivery(delivery) } = held else {
            unreachable!("only deliveries were asked for")
        };
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        let fault = [Fault::Lost, Fault::Failed, Fault::Duplicate][self.random.below(3) as usize];
        self.say(format!("ack {lease:?} of slot {slot}.{incarnation}: {fault:?}"));
        let faults = subscription.faults();
        let before = faults.injected();
        match fault {
            Fault::Lost => faults.lose_acks(1),
            Fault::Failed => faults.fail_answers(1),
            Fault::Duplicate => faults.duplicate_deliveries(1),
        }
        let came = in_short(delivery.ack().outcome());
        self.settle_doubt(slot, incarnation, lease, came);
        let (expected, struck) = self.naive.faulty_ack(slot, incarnation, lease, fault);
        assert_eq!(came, expected, "an ack with {fault:?}: bus, reference");
        let after = faults.injected();
        let count = match fault {
            Fault::Lost => after.lost_acks - before.lost_acks,
            Fault::Failed => after.failed_answers - before.failed_answers,
            Fault::Duplicate => after.duplicates - before.duplicates,
        };
        assert_eq!(count, u64::from(struck), "LIB-400: whether it has happened: bus, reference");
        faults.disarm();
    }

    /// LIB-402.
    pub(crate) fn delay_a_delivery(&mut self) {
        let delay = self.random.below(20_000) + 1;
        let Some((slot, batch, leases)) = self.pull_batch(Some(delay)) else { return };
        let incarnation = self.naive.subscriptions[&slot].incarnation;
        for (delivery, lease) in batch.into_iter().zip(leases) {
            self.held.push(Held { slot, incarnation, lease, hold: Hold::Delivery(delivery) });
        }
    }

    /// LIB-404: one lease, or all of a subscription.
    pub(crate) fn end_leases(&mut self) {
        let slot = self.slot();
        let Some(subscription) = self.subscriptions.get(&slot).cloned() else { return };
        if self.random.one_in(3) {
            self.say(format!("end all leases of slot {slot}"));
            let ended = subscription.faults().end_leases();
            let expected = self.naive.end_leases(slot);
            assert_eq!(ended, expected, "leases ended: bus, reference");
            return;
        }
        let held = self.held.iter().find(|held| held.slot == slot);
        let Some(Held { incarnation, lease, hold, .. }) = held else { return };
        let Hold::Id(id) = hold.clone_id() else { unreachable!("an id") };
        let (incarnation, lease) = (*incarnation, *lease);
        self.say(format!("end {lease:?} of slot {slot}.{incarnation}"));
        let ended = subscription.faults().end_lease(&id);
        let expected = self.naive.end_lease(slot, incarnation, lease);
        assert_eq!(ended, expected, "the end of a lease: bus, reference");
    }
}
