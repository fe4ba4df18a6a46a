//! Names of jobs: ULIDs made here, or whatever the caller gives (J-20).

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use ulid::Ulid;

use crate::limits::MAX_ID_BYTES;
use crate::time::Timestamp;

/// The name of a job: 1 to 128 of the characters `A-Z a-z 0-9 _ -` (J-20).
///
/// Ordered as text; the ids made here are ULIDs, so that their order is the order of submission.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct JobId(Repr);

/// A canonical ULID is always kept as one, so that equality needs no look at the text.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Repr {
    Ulid([u8; 16]),
    Text(Arc<str>),
}

impl JobId {
    /// Calls `f` with the id as text.
    pub fn with_str<R>(&self, f: impl FnOnce(&str) -> R) -> R {
        match &self.0 {
            Repr::Ulid(bytes) => {
                let mut text = [0; ulid::ULID_LEN];
                f(Ulid::from_bytes(*bytes).array_to_str(&mut text))
            }
            Repr::Text(text) => f(text),
        }
    }
}

impl PartialOrd for JobId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for JobId {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match (&self.0, &other.0) {
            (Repr::Ulid(one), Repr::Ulid(two)) => {
                u128::from_be_bytes(*one).cmp(&u128::from_be_bytes(*two))
            }
            _ => self.with_str(|one| other.with_str(|two| one.cmp(two))),
        }
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with_str(|text| f.pad(text))
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no name of a job.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no job id: 1 to {MAX_ID_BYTES} of the characters A-Z a-z 0-9 _ - are needed")]
pub struct ParseJobIdError {
    text: String,
}

impl FromStr for JobId {
    type Err = ParseJobIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        if text.is_empty() || text.len() > MAX_ID_BYTES || !text.bytes().all(fits) {
            return Err(ParseJobIdError { text: text.chars().take(MAX_ID_BYTES).collect() });
        }
        let canonical = Ulid::from_string(text).ok().filter(|ulid| {
            let mut shown = [0; ulid::ULID_LEN];
            ulid.array_to_str(&mut shown) == text
        });
        Ok(JobId(match canonical {
            Some(ulid) => Repr::Ulid(ulid.to_bytes()),
            None => Repr::Text(text.into()),
        }))
    }
}

impl Serialize for JobId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_str(|text| serializer.serialize_str(text))
    }
}

impl<'de> Deserialize<'de> for JobId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// How the jobs are named that are given no id (J-20).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum IdFormat {
    /// ULIDs: their order is the order of submission. The default.
    #[default]
    Ulid,
    /// UUIDs of version 4, which say nothing about when they were made; lists are in no order that
    /// means anything then.
    UuidV4,
}

/// Random numbers from a seed, and ids from these: the same seed and times give the same ids.
#[derive(Debug)]
pub(crate) struct IdSource {
    format: IdFormat,
    last: Mutex<(u64, Ulid)>,
    random: Random,
}

impl IdSource {
    pub(crate) fn new(seed: u64, format: IdFormat) -> Self {
        Self { format, last: Mutex::new((0, Ulid::nil())), random: Random::new(seed) }
    }

    /// The next id.
    pub(crate) fn next(&self, now: Timestamp) -> JobId {
        match self.format {
            IdFormat::Ulid => self.next_ulid(now),
            IdFormat::UuidV4 => self.next_uuid(),
        }
    }

    fn next_uuid(&self) -> JobId {
        let random = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
        // The version, 4, and the variant of RFC 9562.
        let bits = random & !(0xf << 76) & !(0b11 << 62) | 4 << 76 | 0b10 << 62;
        let part = |from: u32, digits: usize| {
            let part = bits >> from & ((1 << (4 * digits)) - 1);
            format!("{part:0digits$x}")
        };
        let parts = [part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12)];
        JobId(Repr::Text(parts.join("-").into()))
    }

    /// A ULID that is greater than all before it, even if time stands still or goes back.
    fn next_ulid(&self, now: Timestamp) -> JobId {
        let mut last = self.last.lock();
        let (millis, before) = *last;
        let next = match before.increment() {
            Ok(next) if now.as_millis() <= millis => (millis, next),
            _ => {
                let millis = now.as_millis().max(millis);
                // The top bit stays free, so that one millisecond has room for 2^79 ids.
                let high = u128::from(self.random.next() & 0x7fff);
                let random = high << 64 | u128::from(self.random.next());
                (millis, Ulid::from_parts(millis, random))
            }
        };
        *last = next;
        JobId(Repr::Ulid(next.1.to_bytes()))
    }

    pub(crate) fn random(&self) -> &Random {
        &self.random
    }
}

/// SplitMix64: statistically sound and a few instructions long; not for secrets.
#[derive(Debug)]
pub(crate) struct Random(std::sync::atomic::AtomicU64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(std::sync::atomic::AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
        let state = self.0.fetch_add(GAMMA, std::sync::atomic::Ordering::Relaxed);
        let mut mixed = state.wrapping_add(GAMMA);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From zero up to, not including, one.
    pub(crate) fn next_fraction(&self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked_on_both_sides_of_the_limit() {
        // J-20
        assert!("a".repeat(MAX_ID_BYTES).parse::<JobId>().is_ok());
        assert!("a".repeat(MAX_ID_BYTES + 1).parse::<JobId>().is_err());
        for text in ["", "a/b", "a b", "ä", "..", "a\n"] {
            assert!(text.parse::<JobId>().is_err(), "{text:?}");
        }
        for text in ["A-b_9", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "01arz3ndektsv4rrffq69g5fav"] {
            assert_eq!(text.parse::<JobId>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn order_is_that_of_the_text() {
        let texts = ["01ARZ3NDEKTSV4RRFFQ69G5FAV", "01ARZ3NDEKTSV4RRFFQ69G5FAW", "01B", "0", "z"];
        for one in texts {
            for two in texts {
                let ids: [JobId; 2] = [one.parse().unwrap(), two.parse().unwrap()];
                assert_eq!(ids[0].cmp(&ids[1]), one.cmp(two), "{one} {two}");
            }
        }
    }

    #[test]
    fn ids_grow_while_time_stands_still_and_repeat_with_the_seed() {
        let times = [5, 5, 5, 6, 4, 4].map(Timestamp::from_millis);
        let ids = |seed| {
            let source = IdSource::new(seed, IdFormat::Ulid);
            times.map(|time| source.next(time))
        };
        assert!(ids(7).is_sorted_by(|one, two| one < two), "J-20");
        assert_eq!(ids(7), ids(7));
        assert_ne!(ids(7), ids(8));
    }

    #[test]
    fn uuids_are_of_version_four() {
        // J-20
        let source = IdSource::new(7, IdFormat::UuidV4);
        let ids: std::collections::HashSet<String> =
            (0..1_000).map(|_| source.next(Timestamp::FIRST).to_string()).collect();
        assert_eq!(ids.len(), 1_000);
        for id in &ids {
            let parts: Vec<&str> = id.split('-').collect();
            assert!(parts.iter().map(|part| part.len()).eq([8, 4, 4, 4, 12]), "{id}");
            assert!(parts[2].starts_with('4'), "{id}");
            assert!(parts[3].starts_with(['8', '9', 'a', 'b']), "{id}");
            assert!(id.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()), "{id}");
            assert_eq!(id.parse::<JobId>().unwrap().to_string(), *id);
        }
    }
}
