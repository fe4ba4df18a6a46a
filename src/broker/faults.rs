//! Faults that a test has armed: which, for which message, and how many are left.
//!
//! A value: it is asked at every event that may fail and answers which fault is due. What a fault
//! does to a message is decided in `subscription/faults.rs`.

use std::collections::VecDeque;

use crate::error::Code;
use crate::message::MessageId;
use crate::stats::FaultCounts;
use crate::time::Span;

/// What may go wrong on a subscription.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An ack does not arrive.
    LoseAck,
    /// An answer is not applied, and its sender is told so (EOD-10).
    FailAnswer,
    /// A message comes again though its ack has succeeded.
    Duplicate,
    /// A message that was about to be handed out comes so much later.
    Delay(Span),
}

/// A fault and how often it is still to happen.
#[derive(Copy, Clone, Debug)]
struct Rule {
    fault: Fault,
    /// To this message only.
    of: Option<MessageId>,
    left: u64,
}

/// The faults of one subscription.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// In the order in which they were armed.
    rules: Vec<Rule>,
    injected: FaultCounts,
}

impl Faults {
    /// Arms a fault for the next `count` events that it fits.
    pub(crate) fn arm(&mut self, fault: Fault, of: Option<MessageId>, count: u64) {
        match self.rules.last_mut().filter(|rule| rule.fault == fault && rule.of == of) {
            Some(rule) => rule.left = rule.left.saturating_add(count),
            None if count > 0 => self.rules.push(Rule { fault, of, left: count }),
            None => {}
        }
    }

    pub(crate) fn disarm(&mut self) {
        self.rules.clear();
    }

    /// Whether some hand-out is to be delayed.
    pub(crate) fn delays(&self) -> bool {
        self.rules.iter().any(|rule| matches!(rule.fault, Fault::Delay(_)))
    }

    /// Whether some answer is to fail.
    pub(crate) fn concerns_answers(&self) -> bool {
        self.rules.iter().any(|rule| !matches!(rule.fault, Fault::Delay(_)))
    }

    /// The fault that was armed first among those that fit; it counts as having happened.
    pub(crate) fn strike(
        &mut self,
        message: Option<MessageId>,
        fits: impl Fn(Fault) -> bool,
    ) -> Option<Fault> {
        let at = self.rules.iter().position(|rule| {
            fits(rule.fault) && rule.of.is_none_or(|of| message.is_some_and(|id| id == of))
        })?;
        let rule = self.rules.get_mut(at)?;
        rule.left -= 1;
        let Rule { fault, left, .. } = *rule;
        if left == 0 {
            self.rules.remove(at);
        }
        *counter(&mut self.injected, fault) += 1;
        Some(fault)
    }

    /// Leases were ended.
    pub(crate) fn count_ended(&mut self, count: u64) {
        self.injected.ended_leases += count;
    }

    pub(crate) fn injected(&self) -> FaultCounts {
        self.injected
    }

    pub(crate) fn armed(&self) -> FaultCounts {
        let mut armed = FaultCounts::default();
        for rule in &self.rules {
            let counter = counter(&mut armed, rule.fault);
            *counter = counter.saturating_add(rule.left);
        }
        armed
    }
}

fn counter(counts: &mut FaultCounts, fault: Fault) -> &mut u64 {
    match fault {
        Fault::LoseAck => &mut counts.lost_acks,
        Fault::FailAnswer => &mut counts.failed_answers,
        Fault::Duplicate => &mut counts.duplicates,
        Fault::Delay(_) => &mut counts.delayed_deliveries,
    }
}

/// The faults of one topic: publishes that fail, each with its code, in the order in which they
/// were armed.
#[derive(Debug, Default)]
pub(crate) struct PublishFaults {
    codes: VecDeque<(Code, u64)>,
    injected: u64,
}

impl PublishFaults {
    pub(crate) fn arm(&mut self, code: Code, count: u64) {
        match self.codes.back_mut().filter(|(last, _)| *last == code) {
            Some((_, left)) => *left = left.saturating_add(count),
            None if count > 0 => self.codes.push_back((code, count)),
            None => {}
        }
    }

    pub(crate) fn disarm(&mut self) {
        self.codes.clear();
    }

    /// The code with which the publish under way fails, if it does.
    pub(crate) fn strike(&mut self) -> Option<Code> {
        let (code, left) = self.codes.front_mut()?;
        let code = *code;
        *left -= 1;
        if *left == 0 {
            self.codes.pop_front();
        }
        self.injected += 1;
        Some(code)
    }

    pub(crate) fn injected(&self) -> u64 {
        self.injected
    }

    pub(crate) fn armed(&self) -> u64 {
        self.codes.iter().fold(0, |sum: u64, (_, left)| sum.saturating_add(*left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fault_armed_first_strikes_first_and_only_where_it_fits() {
        let [one, two] = [1, 2].map(MessageId::from_u64);
        let mut faults = Faults::default();
        faults.arm(Fault::LoseAck, Some(two), 1);
        faults.arm(Fault::FailAnswer, None, 1);
        faults.arm(Fault::FailAnswer, None, 1);
        faults.arm(Fault::Duplicate, None, 0);
        assert_eq!((faults.armed().lost_acks, faults.armed().failed_answers), (1, 2));
        let any = |_: Fault| true;
        assert_eq!(faults.strike(Some(one), any), Some(Fault::FailAnswer));
        assert_eq!(faults.strike(Some(two), any), Some(Fault::LoseAck));
        assert_eq!(faults.strike(Some(two), |fault| fault == Fault::LoseAck), None);
        assert_eq!(faults.strike(None, any), Some(Fault::FailAnswer));
        assert_eq!(faults.strike(None, any), None);
        assert_eq!(faults.armed(), FaultCounts::default());
        assert_eq!((faults.injected().lost_acks, faults.injected().failed_answers), (1, 2));
    }

    #[test]
    fn publishes_fail_with_the_codes_in_order() {
        let mut faults = PublishFaults::default();
        faults.arm(Code::Unavailable, 1);
        faults.arm(Code::NotFound, 2);
        faults.arm(Code::NotFound, u64::MAX);
        assert_eq!(faults.armed(), u64::MAX);
        assert_eq!(faults.strike(), Some(Code::Unavailable));
        assert_eq!(faults.strike(), Some(Code::NotFound));
        faults.disarm();
        assert_eq!((faults.strike(), faults.injected(), faults.armed()), (None, 2, 0));
    }
}
