//! The words of one subscription: a chunked window, and a side table for stragglers.
//!
//! The window covers the indices from `low` to the cursor. A message that stays unacknowledged at
//! its front would keep it growing for as long as others come and go behind it; such survivors
//! are moved to the side table, so that the window is never longer than 8 × live + 512 (L2).
//! What the words mean is decided in `subscription.rs`.

use std::collections::BTreeMap;
use std::ops::Range;

use super::chunks::Chunks;
use super::lease::{Phase, Word};

/// A window may have this many words beyond eight per live word.
pub(crate) const WINDOW_SLACK: u64 = 512;

/// Words in a chunk of the window: 4 KiB.
const CHUNK: usize = 256;

#[derive(Debug)]
pub(crate) struct Window {
    words: Chunks<Word, CHUNK>,
    side: BTreeMap<u64, Word>,
    /// Words whose phase is not `Done`, in window and side table.
    live: u64,
    /// What has become `Done` since the last look, while somebody looks.
    exits: Option<Vec<Range<u64>>>,
}

impl Window {
    pub(crate) fn starting_at(index: u64) -> Self {
        Self { words: Chunks::starting_at(index), side: BTreeMap::new(), live: 0, exits: None }
    }

    /// The lowest index of the window; everything below is done or in the side table.
    pub(crate) fn low(&self) -> u64 {
        self.words.first()
    }

    /// The index of the first message that was never handed out.
    pub(crate) fn cursor(&self) -> u64 {
        self.words.end()
    }

    pub(crate) fn live(&self) -> u64 {
        self.live
    }

    #[inline]
    pub(crate) fn get(&self, index: u64) -> Option<Word> {
        self.words.get(index).or_else(|| self.side.get(&index)).copied()
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut Word> {
        if index < self.words.first() {
            return self.side.get_mut(&index);
        }
        self.words.get_mut(index)
    }

    /// Brings words near, all at once, so that none is waited for after another.
    #[inline]
    pub(crate) fn look_ahead(&self, indices: impl Iterator<Item = u64>) {
        let sum = self.words.look_at(indices).fold(0, |sum, word| sum ^ word.generation());
        std::hint::black_box(sum);
    }

    /// The words of the window from `index` to the end of its chunk; none for a straggler.
    #[inline]
    pub(crate) fn run_mut(&mut self, index: u64) -> &mut [Word] {
        self.words.run_mut(index)
    }

    /// `count` words of the window from `index` on have become `Done`.
    #[inline]
    pub(crate) fn finish_run(&mut self, index: u64, count: u64) {
        self.live -= count;
        if let Some(exits) = self.exits.as_mut().filter(|_| count > 0) {
            exits.push(index..index + count);
        }
        if index == self.words.first() {
            // The whole run goes at once; `trim` looks at words one by one.
            self.words.drop_below(index + count);
        }
    }

    /// Appends `count` equal words that are live.
    #[inline]
    pub(crate) fn push_run(&mut self, count: usize, word: Word) {
        self.words.push_run(count, word);
        self.live += count as u64;
    }

    /// Steps over a fresh message that is not to be handed out.
    pub(crate) fn skip(&mut self, word: Word) {
        debug_assert_eq!(word.phase(), Phase::Done, "only what is done may be skipped");
        if let Some(exits) = &mut self.exits {
            exits.push(self.words.end()..self.words.end() + 1);
        }
        self.words.push(word);
        self.trim();
    }

    /// Whether to keep a list of what becomes `Done`, which somebody has to take now and then.
    pub(crate) fn note_exits(&mut self, is_on: bool) {
        self.exits = is_on.then(Vec::new);
    }

    /// What has become `Done` since the last call.
    pub(crate) fn take_exits(&mut self) -> Vec<Range<u64>> {
        self.exits.as_mut().map(std::mem::take).unwrap_or_default()
    }

    pub(crate) fn is_live(&self, index: u64) -> bool {
        self.get(index).is_some_and(|word| word.phase() != Phase::Done)
    }

    /// The word at `index` has become `Done`. Answers whether it lay in the side table. The window
    /// is as long as before until it is trimmed.
    #[inline]
    pub(crate) fn finish(&mut self, index: u64) -> bool {
        self.live -= 1;
        if let Some(exits) = &mut self.exits {
            exits.push(index..index + 1);
        }
        let is_straggler = index < self.words.first();
        if is_straggler {
            self.side.remove(&index);
        }
        is_straggler
    }

    #[inline]
    pub(crate) fn is_too_long(&self) -> bool {
        self.words.len() > 8 * self.live + WINDOW_SLACK
    }

    /// Moves survivors from the front to the side table while the window is too long, at most
    /// `work` steps. Answers the indices that moved.
    pub(crate) fn shed(&mut self, work: usize) -> Vec<u64> {
        let mut moved = Vec::new();
        for _ in 0..work {
            if !self.is_too_long() {
                break;
            }
            moved.extend(self.shed_one());
        }
        moved
    }

    /// Whether something is done behind a survivor at the front.
    pub(crate) fn has_gaps(&self) -> bool {
        self.words.len() > self.live - self.side.len() as u64
    }

    /// Moves survivors from the front to the side table while something behind them is done, at
    /// most `work` steps. Answers the indices that moved.
    pub(crate) fn shed_gaps(&mut self, work: usize) -> Vec<u64> {
        let mut moved = Vec::new();
        for _ in 0..work {
            if !self.has_gaps() {
                break;
            }
            moved.extend(self.shed_one());
        }
        moved
    }

    fn shed_one(&mut self) -> Option<u64> {
        let low = self.words.first();
        let word = self.words.get(low).copied()?;
        self.side.insert(low, word);
        self.words.drop_below(low + 1);
        self.trim();
        Some(low)
    }

    /// The lowest live index, if there is one.
    pub(crate) fn oldest(&self) -> Option<u64> {
        let side = self.side.keys().next().copied();
        side.or_else(|| (!self.words.is_empty()).then(|| self.words.first()))
    }

    /// Live indices with their words, lowest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, Word)> {
        let side = self.side.iter().map(|(&index, &word)| (index, word));
        let window = (self.words.first()..self.words.end())
            .filter_map(|index| self.words.get(index).map(|&word| (index, word)));
        side.chain(window.filter(|(_, word)| word.phase() != Phase::Done))
    }

    /// Up to `max` live indices from `from` on, lowest first.
    pub(crate) fn live_from(&self, from: u64, max: usize) -> Vec<u64> {
        let side = self.side.range(from..).map(|(&index, _)| index);
        let window = (self.words.first().max(from)..self.words.end())
            .filter(|&index| self.words.get(index).is_some_and(|w| w.phase() != Phase::Done));
        side.chain(window).take(max).collect()
    }

    /// Indices of the side table within a range, lowest first.
    pub(crate) fn stragglers_in(&self, range: Range<u64>) -> Vec<u64> {
        self.side.range(range).map(|(&index, _)| index).collect()
    }

    /// Drops the words that are done at the front: afterwards the front is live.
    #[inline]
    pub(crate) fn trim(&mut self) {
        if self.words.is_empty() {
            return;
        }
        let mut low = self.words.first();
        if self.words.get(low).is_none_or(|word| word.phase() != Phase::Done) {
            return;
        }
        while self.words.get(low).is_some_and(|word| word.phase() == Phase::Done) {
            low += 1;
        }
        self.words.drop_below(low);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::Time;

    fn finish(window: &mut Window, index: u64) -> bool {
        window.get_mut(index).expect("a live word").set_phase(Phase::Done);
        let was_straggler = window.finish(index);
        window.trim();
        was_straggler
    }

    #[test]
    fn low_follows_the_first_live_word() {
        let mut window = Window::starting_at(5);
        window.push_run(3, Word::leased(Time::NEVER, 0));
        finish(&mut window, 6);
        assert_eq!((window.low(), window.live()), (5, 2));
        finish(&mut window, 5);
        assert_eq!((window.low(), window.cursor()), (7, 8));
        finish(&mut window, 7);
        assert_eq!((window.low(), window.live()), (8, 0));
    }

    #[test]
    fn one_stuck_word_does_not_let_the_window_grow() {
        let mut window = Window::starting_at(0);
        window.push_run(1, Word::leased(Time::NEVER, 0));
        let mut moved = Vec::new();
        for index in 1..20_000 {
            window.push_run(1, Word::leased(Time::NEVER, 0));
            finish(&mut window, index);
            moved.extend(window.shed(16));
            assert!(window.cursor() - window.low() <= 8 * window.live() + WINDOW_SLACK);
        }
        assert_eq!(moved, [0]);
        assert_eq!(window.oldest(), Some(0));
        assert!(finish(&mut window, 0), "it was in the side table");
        assert_eq!((window.live(), window.oldest()), (0, None));
    }
}
