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

    /// The time that passes until `later`; zero if that is earlier.
    pub(crate) fn until(self, later: Time) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }

    pub(crate) fn from_system(time: SystemTime) -> Time {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Time::from_millis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    /// RFC 3339 in UTC, such as `2021-02-26T19:13:55.749Z`; whole seconds have no fraction.
    pub(crate) fn to_rfc3339(self) -> String {
        let text = self.to_rfc3339_millis();
        match text.strip_suffix(".000Z") {
            Some(seconds) => format!("{seconds}Z"),
            None => text,
        }
    }

    /// RFC 3339 in UTC, such as `2026-01-01T00:00:00.000Z`.
    pub(crate) fn to_rfc3339_millis(self) -> String {
        let (seconds, millis) = (self.0 / 1_000, self.0 % 1_000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let mut text = String::with_capacity(24);
        // By hand, since this is part of every push, and the formatter takes five times as long.
        for (value, digits, end) in [
            (year, 4, '-'),
            (month, 2, '-'),
            (day, 2, 'T'),
            (second / 3_600, 2, ':'),
            (second / 60 % 60, 2, ':'),
            (second % 60, 2, '.'),
            (millis, 3, 'Z'),
        ] {
            put_digits(&mut text, value, digits);
            text.push(end);
        }
        text
    }

    /// Rounds up: what is published before the time has an earlier millisecond (SEEK-2).
    pub(crate) fn from_system_up(time: SystemTime) -> Time {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Time::default().after(Span::round_up(since))
    }

    pub(crate) fn to_system(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0)
    }
}

/// At least so many decimal digits.
fn put_digits(text: &mut String, value: u64, digits: u32) {
    if digits > 1 || value > 9 {
        put_digits(text, value / 10, digits.saturating_sub(1));
    }
    text.push(char::from(b'0' + (value % 10) as u8));
}

/// Year, month and day of the day that many days after 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Counted from 0000-03-01, so that leap days end a year; an era has 400 years.
    const DAYS_TO_1970: u64 = 719_468;
    const ERA: u64 = 146_097;
    let day = days + DAYS_TO_1970;
    let (era, of_era) = (day / ERA, day % ERA);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / (ERA - 1)) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    (year, month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// A length of time in whole milliseconds.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Span(u64);

impl Span {
    pub(crate) const SECOND: Span = Span(1_000);
    pub(crate) const FOREVER: Span = Span(u64::MAX);

    pub(crate) const fn from_millis(millis: u64) -> Span {
        Span(millis)
    }

    pub(crate) fn as_millis(self) -> u64 {
        self.0
    }

    pub(crate) fn to_duration(self) -> Duration {
        Duration::from_millis(self.0)
    }

    #[inline]
    pub(crate) fn plus(self, other: Span) -> Span {
        Span(self.0.saturating_add(other.0))
    }

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
    fn rfc_3339_of_known_instants() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400_001, "2000-02-29T00:00:00.001Z"),
            (1_614_366_835_749, "2021-02-26T19:13:55.749Z"),
            (1_767_225_599_999, "2025-12-31T23:59:59.999Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00Z"),
        ];
        for (millis, text) in known {
            let time = Time::from_millis(millis);
            assert_eq!(time.to_rfc3339(), text);
            let with_millis = time.to_rfc3339_millis();
            assert_eq!(with_millis.replace(".000Z", "Z"), text);
            assert_eq!(
                with_millis.len(),
                "2026-01-01T00:00:00.000Z".len(),
                "PUSH-7: {with_millis}"
            );
        }
    }

    #[test]
    fn wall_time_round_trips_in_milliseconds() {
        let time = Time::from_millis(1_767_225_600_123);
        assert_eq!(Time::from_system(time.to_system()), time);
    }
}
