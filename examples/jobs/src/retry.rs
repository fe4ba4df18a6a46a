//! When a failed attempt is made again (J-30).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::document::Failure;
use crate::id::Random;

/// How much chance there is in a delay, so that jobs that failed together come back apart.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Jitter {
    /// None: delays are exact. The default under a manual clock.
    None,
    /// Anything from zero to the whole delay.
    Full,
    /// The delay, 50 % more or less. The default otherwise.
    Equal,
}

/// The delays between attempts: `min(base · factor^(attempt − 1), cap)` (J-30).
///
/// ```
/// use jobs::{Jitter, RetryPolicy};
/// use std::time::Duration;
///
/// let policy = RetryPolicy::default().jitter(Jitter::None);
/// let delays: Vec<u64> = (1..=4).map(|attempt| policy.delay(attempt).as_secs()).collect();
/// assert_eq!(delays, [1, 2, 4, 8]);
/// ```
#[derive(Clone)]
pub struct RetryPolicy {
    base: Duration,
    factor: f64,
    cap: Duration,
    jitter: Option<Jitter>,
    custom: Option<Custom>,
}

/// A delay for an attempt that failed.
type Custom = Arc<dyn Fn(u32, &Failure) -> Duration + Send + Sync>;

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            base: Duration::from_secs(1),
            factor: 2.0,
            cap: Duration::from_secs(3_600),
            jitter: None,
            custom: None,
        }
    }
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("base", &self.base)
            .field("factor", &self.factor)
            .field("cap", &self.cap)
            .field("jitter", &self.jitter)
            .field("custom", &self.custom.is_some())
            .finish()
    }
}

impl RetryPolicy {
    /// A first delay, what each further one is multiplied by (at least 1), and the longest one.
    pub fn new(base: Duration, factor: f64, cap: Duration) -> Self {
        let factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        Self { base, factor, cap, ..Self::default() }
    }

    /// Delays of your own, from the attempt that failed, counted from 1, and why; jitter is added.
    pub fn custom(delay: impl Fn(u32, &Failure) -> Duration + Send + Sync + 'static) -> Self {
        Self { custom: Some(Arc::new(delay)), cap: Duration::MAX, ..Self::default() }
    }

    /// Sets the chance in it.
    #[must_use]
    pub fn jitter(mut self, jitter: Jitter) -> Self {
        self.jitter = Some(jitter);
        self
    }

    /// The delay after an attempt, counted from 1, without jitter.
    pub fn delay(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.base.as_secs_f64() * self.factor.powi(exponent);
        Duration::try_from_secs_f64(seconds).unwrap_or(self.cap).min(self.cap)
    }

    pub(crate) fn jitter_unless_set(mut self, jitter: Jitter) -> Self {
        self.jitter.get_or_insert(jitter);
        self
    }

    pub(crate) fn delay_of(&self, attempt: u32, failure: &Failure, random: &Random) -> Duration {
        let delay = match &self.custom {
            Some(custom) => custom(attempt, failure),
            None => self.delay(attempt),
        };
        let share = match self.jitter {
            None | Some(Jitter::None) => return delay,
            Some(Jitter::Full) => random.next_fraction(),
            Some(Jitter::Equal) => 0.5 + random.next_fraction(),
        };
        Duration::try_from_secs_f64(delay.as_secs_f64() * share).unwrap_or(delay).min(self.cap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_the_cap_and_never_overflow() {
        // J-30
        let policy = RetryPolicy::default();
        assert_eq!(policy.delay(0), Duration::from_secs(1));
        assert_eq!(policy.delay(12), Duration::from_secs(2_048));
        assert_eq!(policy.delay(13), Duration::from_secs(3_600));
        assert_eq!(policy.delay(u32::MAX), Duration::from_secs(3_600));
        let odd = RetryPolicy::new(Duration::MAX, f64::INFINITY, Duration::MAX);
        assert_eq!(odd.delay(9), Duration::MAX);
    }

    #[test]
    fn jitter_stays_in_its_range() {
        let (random, failure) = (Random::new(7), Failure::default());
        let second = Duration::from_secs(1);
        for _ in 0..1_000 {
            let full = RetryPolicy::default().jitter(Jitter::Full).delay_of(1, &failure, &random);
            assert!(full < second);
            let equal = RetryPolicy::default().jitter(Jitter::Equal).delay_of(1, &failure, &random);
            assert!(equal >= second / 2 && equal < second * 3 / 2);
        }
    }

    #[test]
    fn delays_may_be_your_own() {
        let policy = RetryPolicy::custom(|attempt, failure| match failure.name.as_str() {
            "Busy" => Duration::from_secs(60),
            _ => Duration::from_millis(u64::from(attempt)),
        });
        let random = Random::new(1);
        let delay = |name| policy.delay_of(3, &Failure::new(name, ""), &random);
        assert_eq!((delay("Busy").as_secs(), delay("x").as_millis()), (60, 3));
    }
}
