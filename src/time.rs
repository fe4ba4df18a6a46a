//! Instants and durations as the broker sees them: whole milliseconds.
//!
//! A [`Time`] is a point on the bus's own line, counted from the Unix epoch, in 48 bits so that it
//! fits into a lease word. Nothing here reads a clock.

use std::time::{Duration, SystemTime};

/// A point on the bus's line of time, in milliseconds since the Unix epoch.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Time(u64);

impl Time {
    /// Later than everything that happens; also the greatest value that 48 bits hold.
    pub(crate) const NEVER: Time = Time((1 << 48) - 1);

    /// The last instant that comes.
    pub(crate) const LAST: Time = Time(Time::NEVER.0 - 1);

    #[inline]
    pub(crate) fn from_millis(millis: u64) -> Time {
        Time(millis.min(Time::NEVER.0))
    }

    #[inline]
    pub(crate) fn as_millis(self) -> u64 {
        self.0
    }

    /// The instant `span` later, `NEVER` if that is beyond the line.
    #[inline]
    pub(crate) fn after(self, span: Span) -> Time {
        Time(self.0.saturating_add(span.0).min(Time::NEVER.0))
    }

    pub(crate) fn from_system(time: SystemTime) -> Time {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Time::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn to_system(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

/// A length of time in whole milliseconds.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(u64);

impl Span {
    pub(crate) const SECOND: Span = Span(1_000);
    pub(crate) const FOREVER: Span = Span(u64::MAX);

    /// Rounds up, so that nothing is early.
    pub(crate) fn round_up(duration: Duration) -> Span {
        let millis = duration.as_nanos().div_ceil(1_000_000);
        Span(u64::try_from(millis).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_round_up_and_never_overflow() {
        assert_eq!(Span::round_up(Duration::from_nanos(1)), Span(1));
        assert_eq!(Span::round_up(Duration::from_millis(7)), Span(7));
        assert_eq!(Time::from_millis(5).after(Span::round_up(Duration::MAX)), Time::NEVER);
    }

    #[test]
    fn wall_time_round_trips_in_milliseconds() {
        let time = Time::from_millis(1_767_225_600_123);
        assert_eq!(Time::from_system(time.to_system()), time);
    }
}
