//! Instants as the journal keeps them: whole milliseconds since the Unix epoch.

use std::fmt;
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::language::format_timestamp;

/// An instant of the bus's time, in whole milliseconds since the Unix epoch.
#[derive(
    Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Later than any other.
    pub const NEVER: Timestamp = Timestamp(u64::MAX);

    /// The instant this many milliseconds after the epoch.
    pub fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    pub fn as_millis(self) -> u64 {
        self.0
    }

    /// The instant `duration`, rounded up to milliseconds, after this one.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        let millis = u64::try_from(nanos.div_ceil(1_000_000)).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long after `earlier` this is; zero if it is not.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// The same as a time of the system; very late ones are cut.
    pub fn to_system(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.min(LAST_MILLI))
    }
}

impl From<SystemTime> for Timestamp {
    /// Rounded down; times before 1970 count as 1970.
    fn from(time: SystemTime) -> Self {
        let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }
}

/// RFC 3339 in UTC with milliseconds.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format_timestamp(self.to_system()))
    }
}

/// 9999-12-31T23:59:59.999Z, the last instant that RFC 3339 can write.
const LAST_MILLI: u64 = 253_402_300_799_999;
