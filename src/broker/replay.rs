//! Going back: which messages a seek makes unacknowledged again, and how their subscription
//! numbers them.
//!
//! A subscription counts messages by an index that only grows. After a seek it may have to go
//! through positions of the log that its view does not list: what a snapshot or its own state says
//! was unacknowledged ([`Runs`]), or what its filter lets through of a stretch of the log
//! ([`Scan`]). A [`Replay`] gives them indices in front of those of the view, so that leases, acks
//! and retention work on one dense line of indices and never see the difference. Nothing here
//! reads the log; the shell tells what it found there.

use super::chunks::Chunks;
use crate::sync::Arc;

/// Positions in a chunk of what a scan found: 4 KiB.
const CHUNK: usize = 512;

/// Growing positions, kept as runs of consecutive ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    runs: Vec<Run>,
    len: u64,
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Run {
    first: u64,
    end: u64,
    /// How many positions come before this run.
    before: u64,
}

impl Runs {
    /// Adds a position above all others.
    pub(crate) fn push(&mut self, position: u64) {
        match self.runs.last_mut() {
            Some(run) if run.end == position => run.end += 1,
            last => {
                let in_order = last.is_none_or(|run| run.end < position);
                debug_assert!(in_order, "positions are pushed in order");
                self.runs.push(Run { first: position, end: position + 1, before: self.len });
            }
        }
        self.len += 1;
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The position that has `nth` others before it.
    pub(crate) fn nth(&self, nth: u64) -> Option<u64> {
        let at = self.runs.partition_point(|run| run.before <= nth).checked_sub(1)?;
        let run = self.runs.get(at)?;
        let position = run.first + (nth - run.before);
        (position < run.end).then_some(position)
    }

    /// How many positions are below `position`.
    pub(crate) fn below(&self, position: u64) -> u64 {
        let at = self.runs.partition_point(|run| run.first < position);
        match at.checked_sub(1).and_then(|at| self.runs.get(at)) {
            Some(run) => run.before + (position.min(run.end) - run.first),
            None => 0,
        }
    }

    /// The first of these positions that is not below `position`.
    pub(crate) fn at_or_above(&self, position: u64) -> Option<u64> {
        self.nth(self.below(position))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> {
        self.runs.iter().flat_map(|run| run.first..run.end)
    }
}

/// What is unacknowledged: single positions, and everything from some position on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    /// Unacknowledged positions, all below `from`.
    pub(crate) runs: Arc<Runs>,
    pub(crate) from: u64,
}

impl Marks {
    /// Everything from a position on.
    pub(crate) fn all_from(from: u64) -> Self {
        Self { runs: Arc::default(), from }
    }

    /// The first unacknowledged position that is not below `position`.
    fn at_or_above(&self, position: u64) -> u64 {
        self.runs.at_or_above(position).unwrap_or(position.max(self.from))
    }
}

/// How a subscription that went back numbers messages.
#[derive(Debug)]
pub(crate) enum Replay {
    /// The positions are known: they have the indices just below those of the view, where they end.
    Listed(Listed),
    /// The log is looked through as the subscription comes along.
    Scanned(Scanned),
}

#[derive(Debug)]
pub(crate) struct Listed {
    runs: Arc<Runs>,
    /// The index that the first position of `runs` would have, whether it is replayed or not.
    base: u64,
    /// From this index on it is the view's.
    join: u64,
}

#[derive(Debug)]
pub(crate) struct Scanned {
    /// What was found, by index.
    found: Chunks<u64, CHUNK>,
    /// What the view goes on with.
    view_from: u64,
    /// The number of messages found: from the view's index on, indices are ahead by as many.
    ahead: u64,
    scan: Option<Scan>,
}

/// A stretch of the log that is still to be looked through.
#[derive(Debug)]
pub(crate) struct Scan {
    next: u64,
    end: u64,
    marks: Marks,
}

impl Replay {
    /// Of `marks`, what is not below `from`; the view goes on at index `marks.from`, which must be
    /// its position too. Answers the first index as well.
    pub(crate) fn listed(marks: &Marks, from: u64) -> (u64, Option<Replay>) {
        if from >= marks.from {
            return (from, None);
        }
        let count = marks.runs.len();
        let start = marks.from - (count - marks.runs.below(from));
        let listed =
            Listed { runs: Arc::clone(&marks.runs), base: marks.from - count, join: marks.from };
        (start, (start < marks.from).then_some(Replay::Listed(listed)))
    }

    /// Of the positions from `from` to `end` those that are marked; afterwards the view goes on at
    /// its index `view_from`.
    pub(crate) fn scanned(from: u64, end: u64, marks: Marks, view_from: u64) -> (u64, Replay) {
        let next = marks.at_or_above(from);
        let scan = Some(Scan { next, end, marks });
        let found = Chunks::starting_at(view_from);
        (view_from, Replay::Scanned(Scanned { found, view_from, ahead: 0, scan }))
    }

    /// The index after the last message that is known of, while the view's is `head`.
    pub(crate) fn head(&self, head: u64) -> u64 {
        match self {
            Replay::Listed(_) => head,
            Replay::Scanned(scanned) if scanned.scan.is_some() => scanned.found.end(),
            Replay::Scanned(scanned) => head + scanned.ahead,
        }
    }

    /// Where the message with this index lies, or which index of the view it has.
    pub(crate) fn place(&self, index: u64) -> Place {
        match self {
            Replay::Listed(listed) if index >= listed.join => Place::View(index),
            Replay::Listed(listed) => {
                Place::Log(index.checked_sub(listed.base).and_then(|nth| listed.runs.nth(nth)))
            }
            Replay::Scanned(scanned) if index < scanned.found.end() => {
                Place::Log(scanned.found.get(index).copied())
            }
            Replay::Scanned(scanned) => Place::View(index - scanned.ahead),
        }
    }

    /// The first index that is not of the replay, as far as that has come.
    pub(crate) fn join(&self) -> u64 {
        match self {
            Replay::Listed(listed) => listed.join,
            Replay::Scanned(scanned) => scanned.found.end(),
        }
    }

    /// The stretch that is still to be looked through.
    pub(crate) fn scan(&mut self) -> Option<&mut Scan> {
        match self {
            Replay::Listed(_) => None,
            Replay::Scanned(scanned) => scanned.scan.as_mut(),
        }
    }

    /// What is still to be looked through: from where, and what of it counts.
    pub(crate) fn rest(&self) -> Option<(u64, &Marks)> {
        match self {
            Replay::Listed(_) => None,
            Replay::Scanned(scanned) => scanned.scan.as_ref().map(|scan| (scan.next, &scan.marks)),
        }
    }

    pub(crate) fn is_scanning(&self) -> bool {
        matches!(self, Replay::Scanned(Scanned { scan: Some(_), .. }))
    }

    /// Whether a position that has no index yet will be found by the scan, or comes after it.
    pub(crate) fn is_ahead(&self, position: u64) -> bool {
        match self {
            Replay::Scanned(Scanned { scan: Some(scan), .. }) => {
                position >= scan.end || (position >= scan.next && scan.marks(position))
            }
            Replay::Listed(_) | Replay::Scanned(_) => false,
        }
    }

    /// A scan has found a message.
    pub(crate) fn add(&mut self, position: u64) {
        if let Replay::Scanned(scanned) = self {
            scanned.found.push(position);
        }
    }

    /// The scan has come to its end: the view goes on.
    pub(crate) fn finish_scan(&mut self) {
        if let Replay::Scanned(scanned) = self {
            scanned.scan = None;
            scanned.ahead = scanned.found.end() - scanned.view_from;
        }
    }

    /// Nothing below `low` is asked for again, except stragglers.
    pub(crate) fn trim(&mut self, low: u64) {
        if let Replay::Scanned(scanned) = self {
            scanned.found.drop_below(low);
        }
    }

    /// The index of the view that corresponds to `low`, for as far as the replay has come.
    pub(crate) fn view_low(&self, low: u64) -> u64 {
        match self {
            Replay::Listed(listed) => low.max(listed.join),
            Replay::Scanned(scanned) => scanned.view_from + low.saturating_sub(scanned.found.end()),
        }
    }

    /// What the log has to keep for the messages from `low` on; `None` where the view does that.
    pub(crate) fn hold(&self, low: u64) -> Option<u64> {
        match self.place(low) {
            Place::Log(position) if position.is_some() => position,
            Place::Log(_) | Place::View(_) => self.rest().map(|(next, _)| next),
        }
    }

    /// Whether indices are the view's again, and `oldest` is the lowest that is asked for.
    pub(crate) fn is_over(&self, oldest: u64) -> bool {
        match self {
            Replay::Listed(listed) => oldest >= listed.join,
            Replay::Scanned(scanned) => scanned.scan.is_none() && scanned.ahead == 0,
        }
    }
}

/// Where a message of a replay is to be found.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// At a position of the log; `None` for one that is not remembered any more.
    Log(Option<u64>),
    /// At an index of the view.
    View(u64),
}

impl Scan {
    /// The next position to look at; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<u64> {
        self.next = self.marks.at_or_above(self.next);
        (self.next < self.end).then_some(self.next)
    }

    /// Whether a position that is in the log lies in the stretch.
    pub(crate) fn covers(&self, position: u64) -> bool {
        position < self.end
    }

    /// Whether a position counts.
    pub(crate) fn marks(&self, position: u64) -> bool {
        self.marks.at_or_above(position) == position
    }

    /// Everything below `position` has been looked at.
    pub(crate) fn go_on_at(&mut self, position: u64) {
        self.next = position;
    }
}

#[cfg(all(test, not(siftbus_loom)))]
mod tests {
    use super::*;

    fn runs(positions: &[u64]) -> Runs {
        let mut runs = Runs::default();
        positions.iter().for_each(|position| runs.push(*position));
        runs
    }

    #[test]
    fn runs_behave_like_a_sorted_list() {
        let list = [3, 4, 5, 9, 20, 21, 40];
        let runs = runs(&list);
        assert_eq!(runs.iter().collect::<Vec<_>>(), list);
        for nth in 0..10 {
            assert_eq!(runs.nth(nth), list.get(nth as usize).copied(), "nth {nth}");
        }
        for position in 0..50 {
            let below = list.iter().filter(|other| **other < position).count();
            assert_eq!(runs.below(position), below as u64, "below {position}");
            assert_eq!(runs.at_or_above(position), list.get(below).copied());
        }
    }

    #[test]
    fn listed_positions_have_the_indices_below_the_join() {
        let marks = Marks { runs: Arc::new(runs(&[3, 4, 9])), from: 12 };
        let (start, replay) = Replay::listed(&marks, 4);
        let replay = replay.expect("two are left");
        assert_eq!(start, 10);
        let places: Vec<_> = (10..14).map(|index| replay.place(index)).collect();
        let log = |position| Place::Log(Some(position));
        assert_eq!(places, [log(4), log(9), Place::View(12), Place::View(13)]);
        assert_eq!((replay.hold(11), replay.hold(12)), (Some(9), None));
        assert!(!replay.is_over(11) && replay.is_over(12));
        assert!(Replay::listed(&marks, 10).1.is_none(), "nothing marked is left");
        assert_eq!(Replay::listed(&marks, 17).0, 17, "beyond the marks");
    }

    #[test]
    fn a_scan_numbers_what_it_finds_and_hands_over_to_the_view() {
        let marks = Marks { runs: Arc::new(runs(&[5, 8])), from: 20 };
        let (start, mut replay) = Replay::scanned(6, 22, marks, 100);
        assert_eq!((start, replay.head(107), replay.hold(100)), (100, 100, Some(8)));
        let scan = replay.scan().expect("to be done");
        assert_eq!(scan.next(), Some(8));
        scan.go_on_at(9);
        assert_eq!(scan.next(), Some(20));
        scan.go_on_at(22);
        assert_eq!(scan.next(), None);
        replay.add(8);
        replay.add(21);
        assert_eq!(replay.hold(102), Some(22), "the rest of the log until the scan is over");
        replay.finish_scan();
        assert_eq!(replay.head(107), 109);
        assert_eq!(replay.place(101), Place::Log(Some(21)));
        assert_eq!(replay.place(102), Place::View(100));
        assert_eq!((replay.view_low(101), replay.view_low(105)), (100, 103));
        assert_eq!((replay.hold(101), replay.hold(102)), (Some(21), None));
        replay.trim(101);
        assert_eq!(replay.place(100), Place::Log(None));
    }
}
