//! Whether the log keeps exactly what holds and pins ask for (I-4).

use std::collections::BTreeMap;

use super::{Directory, TopicLog};

/// What all holders together say that they need.
#[derive(Debug, Default)]
pub(crate) struct Needs {
    /// Holds by position: how many there are.
    pub(crate) holds: BTreeMap<u64, u32>,
    /// Pins by position: how many there are.
    pub(crate) pins: BTreeMap<u64, u32>,
}

impl Needs {
    pub(crate) fn hold(&mut self, position: u64) {
        *self.holds.entry(position).or_default() += 1;
    }

    pub(crate) fn pin(&mut self, position: u64) {
        *self.pins.entry(position).or_default() += 1;
    }
}

impl TopicLog {
    /// What does not agree between the needs, the books and the segments that readers find.
    pub(crate) fn audit(&self, needs: &Needs, directory: &Directory) -> Vec<String> {
        let mut wrong = Vec::new();
        if self.holds != needs.holds {
            wrong.push(format!("holds {:?}, needed {:?} (I-4)", self.holds, needs.holds));
        }
        let mut pins = BTreeMap::new();
        let (mut messages, mut bytes) = (0, 0);
        for (&base, account) in &self.accounts {
            let segment = &account.segment;
            let is_tail = self.tail_base() == Some(base);
            messages += segment.len() as u64;
            bytes += if is_tail { self.tail_bytes } else { account.bytes };
            let placed = account.pins.iter().zip(base..).filter(|(count, _)| **count > 0);
            let before = pins.len();
            pins.extend(placed.map(|(&count, position)| (position, count)));
            if pins.len() - before != account.pinned {
                wrong.push(format!("segment {base} counts {} pinned (I-4)", account.pinned));
            }
            let is_held = segment.end() > self.lowest_hold();
            if !is_tail && !is_held && account.pinned == 0 {
                wrong.push(format!("nobody needs segment {base}..{} (I-4)", segment.end()));
            }
        }
        if pins != needs.pins {
            wrong.push(format!("pins {pins:?}, needed {:?} (I-4)", needs.pins));
        }
        if (messages, bytes) != (self.messages, self.bytes) {
            let counted = (self.messages, self.bytes);
            wrong.push(format!("{counted:?} messages and bytes counted, {messages}, {bytes} held"));
        }
        if self.live != self.live_by_the_slots() {
            let found = self.live_by_the_slots();
            wrong.push(format!("{:?} live by count, {found:?} by the slots (L3)", self.live));
        }
        if !self.accounts.keys().eq(directory.0.keys()) {
            wrong.push("the directory does not have the segments of the log (I-4)".to_owned());
        }
        wrong
    }

    /// How many segments there are.
    pub(crate) fn segments(&self) -> usize {
        self.accounts.len()
    }
}
