//! What a subscription does with deliveries that fail, as numbers: delays and the last attempt.
//!
//! The configuration as a user gives it is in `crate::policy`; who asks is `failure.rs`.

use crate::ack_id::mix;
use crate::policy::{DeadLetterPolicy, RetryPolicy};
use crate::time::Span;

/// No policy: redelivery at once, without end (RTY-1).
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Policy {
    backoff: Option<Backoff>,
    max_attempts: Option<u32>,
}

#[derive(Copy, Clone, Debug)]
struct Backoff {
    minimum: u64,
    maximum: u64,
    jitter_percent: u64,
    seed: u64,
}

impl Policy {
    pub(crate) fn new(
        retry: Option<&RetryPolicy>,
        dead_letter: Option<&DeadLetterPolicy>,
        seed: u64,
    ) -> Self {
        let backoff = retry.map(|retry| Backoff {
            minimum: Span::round_up(retry.minimum_backoff).as_millis(),
            maximum: Span::round_up(retry.maximum_backoff).as_millis(),
            jitter_percent: u64::from(retry.jitter_percent),
            seed,
        });
        Self { backoff, max_attempts: dead_letter.map(|policy| policy.max_delivery_attempts) }
    }

    pub(crate) fn retries(&self) -> bool {
        self.backoff.is_some()
    }

    pub(crate) fn forwards(&self) -> bool {
        self.max_attempts.is_some()
    }

    /// Whether a message that failed this often goes to the dead-letter topic (DLQ-4).
    #[inline]
    pub(crate) fn is_exhausted(&self, attempts: u16) -> bool {
        self.max_attempts.is_some_and(|max| u32::from(attempts) >= max)
    }

    /// How long the message at `index` waits after its `attempts`-th failure (RTY-3).
    #[inline]
    pub(crate) fn delay(&self, attempts: u16, index: u64) -> Span {
        self.backoff.map_or(Span::default(), |backoff| backoff.delay(attempts, index))
    }
}

impl Backoff {
    fn delay(self, attempts: u16, index: u64) -> Span {
        let doublings = u32::from(attempts.saturating_sub(1)).min(63);
        let delay = self.minimum.saturating_mul(1 << doublings).min(self.maximum);
        if self.jitter_percent == 0 {
            return Span::from_millis(delay);
        }
        // A function of what is known anyway, so that a run can be repeated (D13).
        let random = mix(self.seed ^ mix(index ^ u64::from(attempts) << 48));
        let most = u128::from(delay) * u128::from(self.jitter_percent) / 100;
        let less = (u128::from(random) * (most + 1)) >> u64::BITS;
        Span::from_millis(delay - u64::try_from(less).unwrap_or(delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn policy(minimum: u64, maximum: u64, jitter_percent: u8) -> Policy {
        let retry = RetryPolicy::new()
            .minimum_backoff(Duration::from_millis(minimum))
            .maximum_backoff(Duration::from_millis(maximum))
            .jitter_percent(jitter_percent);
        Policy::new(Some(&retry), None, 7)
    }

    fn delays(policy: Policy, attempts: impl IntoIterator<Item = u16>) -> Vec<u64> {
        attempts.into_iter().map(|n| policy.delay(n, 0).as_millis()).collect()
    }

    #[test]
    fn delays_double_up_to_the_maximum() {
        let series = delays(policy(1_000, 10_000, 0), [1, 2, 3, 4, 5, 4_095]);
        assert_eq!(series, [1_000, 2_000, 4_000, 8_000, 10_000, 10_000], "RTY-3");
        assert_eq!(delays(policy(0, 10_000, 0), [1, 9]), [0, 0], "RTY-3: a minimum of zero");
        assert_eq!(delays(Policy::default(), [1, 9]), [0, 0], "RTY-1");
    }

    #[test]
    fn no_delay_overflows() {
        let forever = Policy::new(
            Some(&RetryPolicy::new().maximum_backoff(Duration::MAX).jitter_percent(100)),
            None,
            1,
        );
        for attempts in [1, 63, 64, 65, 4_095] {
            forever.delay(attempts, u64::MAX);
        }
    }

    #[test]
    fn jitter_shortens_within_its_share_and_repeats_with_the_seed() {
        let jittery = policy(1_000, 1_000, 25);
        let all: Vec<u64> = (0..1_000).map(|i| jittery.delay(1, i).as_millis()).collect();
        assert!(all.iter().all(|delay| (750..=1_000).contains(delay)), "LIB-101");
        assert!(all.iter().any(|d| *d < 800) && all.iter().any(|d| *d > 950), "they spread");
        let again: Vec<u64> = (0..1_000).map(|i| jittery.delay(1, i).as_millis()).collect();
        assert_eq!(all, again);
    }
}
