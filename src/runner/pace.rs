//! How fast a runner may go: the number of deliveries at once, and pauses after failures.
//!
//! Values without clock, lock or task: what happened goes in, a window and a pause come out.

use std::time::Duration;

use crate::ack_id::mix;

/// The shortest pause or delay after a failure (PUSH-24).
pub(crate) const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause or delay after failures (PUSH-24).
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(60);

/// What a runner goes by.
#[derive(Debug)]
pub(crate) enum Pace {
    Push(PushPace),
    Handler(HandlerPace),
}

impl Pace {
    /// How many deliveries may be worked on at once.
    pub(crate) fn window(&self) -> usize {
        match self {
            Self::Push(pace) => pace.window,
            Self::Handler(pace) => pace.concurrency,
        }
    }

    /// Pauses in a row that failures have led to, or the level of failure.
    pub(crate) fn level(&self) -> u32 {
        match self {
            Self::Push(pace) => pace.level,
            Self::Handler(pace) => pace.level,
        }
    }

    pub(crate) fn succeeded(&mut self) {
        match self {
            Self::Push(pace) => pace.succeeded(),
            Self::Handler(pace) => pace.succeeded(),
        }
    }

    /// Answers how long nothing new is to be begun. `is_paused`: a pause runs already.
    pub(crate) fn failed(&mut self, is_paused: bool) -> Option<Duration> {
        match self {
            Self::Push(pace) => Some(pace.failed()),
            Self::Handler(pace) => pace.failed(is_paused),
        }
    }
}

/// Slow start and back-off of a push subscription (PUSH-23, PUSH-25).
#[derive(Debug)]
pub(crate) struct PushPace {
    window: usize,
    max_window: usize,
    level: u32,
    random: u64,
}

impl PushPace {
    pub(crate) fn new(max_window: usize, seed: u64) -> Self {
        Self { window: 1, max_window, level: 0, random: seed }
    }

    /// One more for each answer, so that the window doubles with each round trip.
    fn succeeded(&mut self) {
        self.window = (self.window + 1).min(self.max_window);
        self.level = self.level.saturating_sub(1);
    }

    fn failed(&mut self) -> Duration {
        self.window = (self.window / 2).max(1);
        self.level = self.level.saturating_add(1);
        let pause = doubled(MIN_BACKOFF, MAX_BACKOFF, self.level);
        self.jittered(pause).min(MAX_BACKOFF)
    }

    /// Up to a tenth more or less, by the bus's seed.
    fn jittered(&mut self, pause: Duration) -> Duration {
        const STEPS: u64 = 1 << 16;
        self.random = mix(self.random.wrapping_add(0x9e37_79b9_7f4a_7c15));
        let step = (self.random % STEPS) as f64 / STEPS as f64;
        pause.mul_f64(0.9 + 0.2 * step)
    }
}

/// A handler that only fails is paused; one message that fails delays itself alone (LIB-303).
#[derive(Debug)]
pub(crate) struct HandlerPace {
    concurrency: usize,
    min: Duration,
    max: Duration,
    /// Failures since the last success or pause.
    streak: usize,
    level: u32,
}

impl HandlerPace {
    pub(crate) fn new(concurrency: usize, min: Duration, max: Duration) -> Self {
        Self { concurrency, min, max, streak: 0, level: 0 }
    }

    fn succeeded(&mut self) {
        self.streak = 0;
        self.level = 0;
    }

    /// A round in which everything that ran has failed leads to a pause, twice as long each time.
    fn failed(&mut self, is_paused: bool) -> Option<Duration> {
        self.streak += 1;
        if is_paused || self.streak < self.concurrency {
            return None;
        }
        self.streak = 0;
        self.level = self.level.saturating_add(1);
        Some(doubled(self.min, self.max, self.level))
    }
}

/// `min` × 2^(n − 1), at most `max`; `n` counts from 1.
pub(crate) fn doubled(min: Duration, max: Duration, n: u32) -> Duration {
    let factor = 2_u32.saturating_pow(n.saturating_sub(1));
    min.checked_mul(factor).map_or(max, |delay| delay.min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_push_window_doubles_per_round_trip_and_halves_per_failure() {
        let mut pace = PushPace::new(1_000, 7);
        assert_eq!(pace.window, 1, "PUSH-21");
        for round in 0..9 {
            for _ in 0..pace.window {
                pace.succeeded();
            }
            assert_eq!(pace.window, 2 << round, "PUSH-23");
        }
        for _ in 0..1_000 {
            pace.succeeded();
        }
        assert_eq!(pace.window, 1_000, "PUSH-23: at most the maximum");
        pace.failed();
        assert_eq!(pace.window, 500, "PUSH-23");
        for _ in 0..20 {
            pace.failed();
        }
        assert_eq!(pace.window, 1, "PUSH-23: at least one");
    }

    #[test]
    fn a_push_pause_follows_the_level() {
        let mut pace = PushPace::new(10, 7);
        let mut expected = MIN_BACKOFF;
        for _ in 0..10 {
            let pause = pace.failed();
            assert!(pause >= expected.mul_f64(0.9) && pause <= expected.mul_f64(1.1), "PUSH-25");
            expected = (expected * 2).min(MAX_BACKOFF);
        }
        assert_eq!(pace.level, 10);
        for _ in 0..20 {
            pace.succeeded();
        }
        assert_eq!(pace.level, 0, "PUSH-25: lowered by successes, not below zero");
        assert!((0..100).all(|_| pace.failed() <= MAX_BACKOFF), "PUSH-24");
    }

    #[test]
    fn the_jitter_comes_from_the_seed() {
        let pauses = |seed| {
            let mut pace = PushPace::new(10, seed);
            (0..5).map(|_| pace.failed()).collect::<Vec<_>>()
        };
        assert_eq!(pauses(7), pauses(7), "PUSH-25, LIB-20");
        assert_ne!(pauses(7), pauses(8));
    }

    /// The documented examples: a fifth of five messages a second fails, or all of them do.
    #[test]
    fn a_push_level_stays_low_while_most_succeed() {
        let mut pace = PushPace::new(10, 7);
        for _ in 0..100 {
            assert!(pace.failed() <= Duration::from_millis(110), "PUSH-24, PUSH-25");
            for _ in 0..4 {
                pace.succeeded();
            }
        }
    }

    #[test]
    fn a_handler_is_paused_when_everything_fails() {
        let second = Duration::from_secs(1);
        let mut pace = HandlerPace::new(2, second, 3 * second);
        assert_eq!(pace.failed(false), None);
        assert_eq!(pace.failed(false), Some(second), "LIB-303");
        assert_eq!([pace.failed(true), pace.failed(true)], [None, None], "one pause at a time");
        assert_eq!(pace.failed(false), Some(2 * second));
        pace.failed(false);
        assert_eq!(pace.failed(false), Some(3 * second), "at most the maximum");
        pace.succeeded();
        assert_eq!(pace.failed(false), None);
        assert_eq!(pace.failed(false), Some(second), "a success starts over");
    }

    #[test]
    fn doubling_never_overflows() {
        let second = Duration::from_secs(1);
        assert_eq!(doubled(second, 60 * second, 1), second);
        assert_eq!(doubled(second, 60 * second, 6), 32 * second);
        assert_eq!(doubled(second, 60 * second, u32::MAX), 60 * second);
        assert_eq!(doubled(Duration::MAX, Duration::MAX, 2), Duration::MAX);
        assert_eq!(doubled(Duration::ZERO, 60 * second, 9), Duration::ZERO);
    }
}
