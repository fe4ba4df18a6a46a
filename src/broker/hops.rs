//! The ways of forwarded messages, so that none runs in circles for ever (L7, DLQ-1).
//!
//! Kept beside the log, by position, and never with the message: a program that publishes a copy
//! of a forwarded message starts anew.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::sync::Arc;

/// A message is forwarded at most this often.
pub(crate) const MAX_HOPS: usize = 16;

/// A message may come back to a topic where it was before, once.
const MAX_VISITS: usize = 2;

/// The topics that a message was in before this one, by number, first to last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path(Option<Arc<[u64]>>);

impl Path {
    /// The path of this message once it has gone from topic `here` to topic `target`; `None` if it
    /// has been forwarded too often, or to that topic.
    pub(crate) fn extended(&self, here: u64, target: u64) -> Option<Path> {
        let before = self.0.as_deref().unwrap_or_default();
        let path: Arc<[u64]> = before.iter().copied().chain([here]).collect();
        let visits = path.iter().filter(|topic| **topic == target).count();
        (path.len() <= MAX_HOPS && visits < MAX_VISITS).then_some(Path(Some(path)))
    }
}

/// The paths of the forwarded messages in one topic's log.
#[derive(Debug, Default)]
pub(crate) struct Hops(BTreeMap<u64, Path>);

impl Hops {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, position: u64, path: Path) {
        self.0.insert(position, path);
    }

    pub(crate) fn get(&self, position: u64) -> Path {
        self.0.get(&position).cloned().unwrap_or_default()
    }

    /// Forgets the messages of a segment that the log no longer has.
    pub(crate) fn forget(&mut self, segment: Range<u64>, is_there: impl Fn(u64) -> bool) {
        let gone: Vec<u64> =
            self.0.range(segment).map(|(&at, _)| at).filter(|at| !is_there(*at)).collect();
        for position in gone {
            self.0.remove(&position);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_is_come_back_to_once() {
        let first = Path::default().extended(1, 1).expect("L7: itself, once");
        assert!(first.extended(1, 1).is_none());
        let there = Path::default().extended(1, 2).expect("L7");
        let back = there.extended(2, 1).expect("the first return");
        let again = back.extended(1, 2).expect("the first return to the other");
        assert!(again.extended(2, 1).is_none(), "the second return");
    }

    #[test]
    fn a_long_chain_ends() {
        let mut path = Path::default();
        for topic in 0..MAX_HOPS as u64 {
            path = path.extended(topic, topic + 1).expect("DLQ-1: up to 16 hops");
        }
        assert!(path.extended(16, 17).is_none(), "DLQ-1");
    }

    #[test]
    fn paths_go_with_their_messages() {
        let mut hops = Hops::default();
        for position in 0..10 {
            hops.insert(position, Path::default());
        }
        hops.forget(0..8, |position| position == 3);
        assert_eq!(hops.0.keys().copied().collect::<Vec<_>>(), [3, 8, 9]);
    }
}
