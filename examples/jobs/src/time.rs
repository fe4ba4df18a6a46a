//! Instants as documents hold them: whole milliseconds, RFC 3339 as text (J-22).
//!
//! Nothing here reads a clock; time comes from the bus.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

/// An instant in whole milliseconds since 1970; earlier ones count as the first millisecond.
///
/// ```
/// use jobs::Timestamp;
///
/// let start: Timestamp = "2026-01-01T00:00:00.000Z".parse()?;
/// assert_eq!(start.as_millis(), 1_767_225_600_000);
/// assert_eq!(start.to_string(), "2026-01-01T00:00:00.000Z");
/// # Ok::<(), jobs::ParseTimestampError>(())
/// ```
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(NonZeroU64);

impl Timestamp {
    /// The first instant there is.
    pub const FIRST: Timestamp = Timestamp(NonZeroU64::MIN);
    /// The last instant that RFC 3339 can write, in the year 9999.
    pub const LAST: Timestamp = Timestamp::from_millis(253_402_207_200_000);

    /// The instant so many milliseconds after 1970.
    pub const fn from_millis(millis: u64) -> Self {
        match NonZeroU64::new(millis) {
            Some(millis) => Timestamp(millis),
            None => Timestamp::FIRST,
        }
    }

    /// Milliseconds since 1970.
    pub const fn as_millis(self) -> u64 {
        self.0.get()
    }

    /// The instant `span` later, at most [`LAST`](Self::LAST); a part of a millisecond counts as
    /// a whole one, so that nothing is early.
    #[must_use]
    pub fn after(self, span: Duration) -> Self {
        let millis = u64::try_from(span.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Timestamp::from_millis(self.as_millis().saturating_add(millis)).min(Timestamp::LAST)
    }

    /// How long it is from here to `later`; zero if it has passed.
    pub fn until(self, later: Timestamp) -> Duration {
        Duration::from_millis(later.as_millis().saturating_sub(self.as_millis()))
    }

    /// Rounded up to a whole multiple of `step_millis`.
    pub(crate) fn round_up(self, step_millis: u64) -> Self {
        let millis = self.as_millis().div_ceil(step_millis).saturating_mul(step_millis);
        Timestamp::from_millis(millis)
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_millis(millis).min(Timestamp::LAST)
    }
}

impl From<Timestamp> for SystemTime {
    fn from(time: Timestamp) -> Self {
        SystemTime::UNIX_EPOCH + Duration::from_millis(time.as_millis())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = i64::try_from(self.as_millis()).unwrap_or(i64::MAX);
        match jiff::Timestamp::from_millisecond(millis) {
            Ok(time) => write!(f, "{time:.3}"),
            Err(_) => f.write_str("9999-12-30T22:00:00.000Z"),
        }
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no instant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no instant; write RFC 3339, such as 2026-01-01T00:00:00Z")]
pub struct ParseTimestampError {
    text: String,
}

impl FromStr for Timestamp {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseTimestampError { text: text.chars().take(64).collect() };
        let time: jiff::Timestamp = text.parse().map_err(|_| error())?;
        let millis = u64::try_from(time.as_millisecond()).map_err(|_| error())?;
        Ok(Timestamp::from_millis(millis).min(Timestamp::LAST))
    }
}

/// An instant, or a span from now: what a person writes for a start or a deadline.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// At an instant.
    At(Timestamp),
    /// So long after the submission.
    In(Duration),
}

impl When {
    pub(crate) fn from(self, now: Timestamp) -> Timestamp {
        match self {
            When::At(time) => time,
            When::In(span) => now.after(span),
        }
    }
}

impl From<Duration> for When {
    fn from(span: Duration) -> Self {
        When::In(span)
    }
}

impl From<Timestamp> for When {
    fn from(time: Timestamp) -> Self {
        When::At(time)
    }
}

impl From<SystemTime> for When {
    fn from(time: SystemTime) -> Self {
        When::At(time.into())
    }
}

/// `+30s`, `+1500ms`, `+5m`, `+2h`, `+1d`, or RFC 3339.
impl FromStr for When {
    type Err = ParseTimestampError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix('+') {
            Some(span) => parse_span(span)
                .map(When::In)
                .ok_or_else(|| ParseTimestampError { text: text.chars().take(64).collect() }),
            None => text.parse().map(When::At),
        }
    }
}

/// `30s`, `1500ms`, `5m`, `2h`, `1d`, or a bare number of seconds.
pub fn parse_span(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let millis = match unit {
        "ms" => 1,
        "s" | "" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_has_milliseconds_and_utc() {
        // J-22
        let time = Timestamp::from_millis(1_767_225_600_007);
        assert_eq!(time.to_string(), "2026-01-01T00:00:00.007Z");
        assert_eq!("2026-01-01T02:00:00.007+02:00".parse(), Ok(time));
        assert_eq!(Timestamp::LAST.to_string().parse(), Ok(Timestamp::LAST));
        assert!("yesterday".parse::<Timestamp>().is_err());
    }

    #[test]
    fn spans_round_up_and_end_at_the_last_instant() {
        let time = Timestamp::from_millis(5);
        assert_eq!(time.after(Duration::from_nanos(1)), Timestamp::from_millis(6));
        assert_eq!(time.after(Duration::MAX), Timestamp::LAST);
        assert_eq!(time.until(Timestamp::FIRST), Duration::ZERO);
    }

    #[test]
    fn spans_have_units() {
        for (text, millis) in [("30s", 30_000), ("1500ms", 1_500), ("5m", 300_000), ("7", 7_000)] {
            assert_eq!(parse_span(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1w", "-1s", "1.5s", "99999999999999999999s"] {
            assert_eq!(parse_span(text), None, "{text}");
        }
        assert_eq!("+30s".parse(), Ok(When::In(Duration::from_secs(30))));
    }
}
