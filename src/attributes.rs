//! The attributes of a message: a small map of strings, packed into one run of bytes.
//!
//! Built once, read often, shared by every subscription. Keys and values are borrowed from the
//! bytes, which lie in an arena (`arena.rs`): a message costs no allocation for them. Limits are
//! not checked here but at publish (`limits.rs`), so that whatever a program makes can be named in
//! the error it gets.

use std::fmt;

use crate::arena::{Slice, Writer};

/// String keys with string values, each key at most once.
///
/// Cheap to clone: clones share the bytes. Iteration is in the order in which the keys were first
/// given; of two values for one key, the last counts.
///
/// ```
/// use siftbus::Attributes;
///
/// let attributes = Attributes::from_iter([("region", "eu"), ("kind", "order"), ("region", "us")]);
/// assert_eq!(attributes.get("region"), Some("us"));
/// assert_eq!(attributes.len(), 2);
/// assert!(!attributes.contains_key("Region"), "keys are case-sensitive");
/// ```
///
#[derive(Clone, Default)]
pub struct Attributes(Slice);

// The bytes are: the number of pairs with the marks `ODD` and `RARE`, and the size of all strings,
// four bytes each; if `RARE`, the time to live in eight bytes and the idempotency key with its
// length before it; the ordering key likewise; then for each pair the length of key and value, key,
// value. A message keeps here what few messages have, so that it takes no place of its own; it is
// no part of the attributes.

/// Bytes at the beginning: number of pairs, size.
const HEAD: usize = 2 * size_of::<u32>();
/// A length of at least this much is written as this byte and four more.
const LONG: u8 = u8::MAX;
/// Some key is empty or starts with `goog`, or some string is `LONG`: limits have to look closely.
const ODD: u32 = 1 << 31;
/// There is a time to live or an idempotency key; such a message is odd, too.
const RARE: u32 = 1 << 30;
/// All but the number of pairs.
const MARKS: usize = (ODD | RARE) as usize;
/// A time to live of so many milliseconds is none.
const NO_TTL: u64 = u64::MAX;
/// What keys of a publisher must not begin with (LIM-6).
pub(crate) const RESERVED_KEY_PREFIX: &str = "goog";
/// Except these, under which the service's client libraries send trace context along.
pub(crate) const TRACE_KEY_PREFIX: &str = "googclient_";
/// Attributes that name the span of the publisher, as client libraries and the W3C have it.
#[cfg(feature = "tracing")]
pub(crate) const TRACE_PARENTS: [&str; 2] = ["googclient_traceparent", "traceparent"];
/// Attributes of trace context.
pub(crate) const TRACE_KEYS: [&str; 4] =
    ["googclient_traceparent", "googclient_tracestate", "traceparent", "tracestate"];
/// What is not odd has no longer string than this.
pub(crate) const MAX_EVEN_BYTES: usize = LONG as usize - 1;

impl Attributes {
    /// No attributes.
    pub const fn new() -> Self {
        Self(Slice::EMPTY)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.pairs();
        pairs.find_map(|(name, value)| (name == key.as_bytes()).then(|| text(value)))
    }

    /// Whether the key is present; an empty value counts as present.
    pub fn contains_key(&self, key: &str) -> bool {
        self.pairs().any(|(name, _)| name == key.as_bytes())
    }

    /// How many attributes there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.marked_len() & !MARKS
    }

    /// Whether there are none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Pairs of key and value, in the order in which the keys were first given.
    pub fn iter(&self) -> AttributeIter<'_> {
        AttributeIter { pairs: self.pairs() }
    }

    /// Bytes of all keys and values together (LIM-27).
    pub fn size(&self) -> usize {
        let Riders { ordering_key, idempotency_key, .. } = self.riders();
        self.packed_size() - ordering_key.len() - idempotency_key.len()
    }

    /// Bytes of all keys and values, of the ordering key and the idempotency key together.
    #[inline]
    pub(crate) fn packed_size(&self) -> usize {
        let bytes = self.0.as_bytes().get(size_of::<u32>()..);
        bytes.and_then(|mut size| take_number(&mut size)).unwrap_or_default()
    }

    /// Neither attributes nor anything that rides along.
    #[inline]
    pub(crate) fn is_unused(&self) -> bool {
        self.0.is_empty()
    }

    /// Some key is empty or reserved, or some string longer than [`MAX_EVEN_BYTES`], or there is a
    /// time to live or an idempotency key.
    #[inline]
    pub(crate) fn is_odd(&self) -> bool {
        self.marked_len() & ODD as usize != 0
    }

    /// Whether the message has a time to live or an idempotency key.
    #[inline]
    pub(crate) fn has_rare(&self) -> bool {
        self.marked_len() & RARE as usize != 0
    }

    #[inline]
    fn marked_len(&self) -> usize {
        take_number(&mut self.0.as_bytes()).unwrap_or_default()
    }

    /// The ordering key of the message that these belong to.
    #[inline]
    pub(crate) fn ordering_key(&self) -> &str {
        text(self.ordering_key_bytes())
    }

    #[inline]
    pub(crate) fn ordering_key_bytes(&self) -> &[u8] {
        let mut bytes = self.0.as_bytes().get(HEAD..).unwrap_or_default();
        if self.has_rare() {
            take_rare(&mut bytes);
        }
        take_string(&mut bytes).unwrap_or_default()
    }

    /// What belongs to the message and is no attribute.
    pub(crate) fn riders(&self) -> Riders<'_> {
        let mut riders = Riders::default();
        let mut bytes = self.0.as_bytes().get(HEAD..).unwrap_or_default();
        if self.has_rare() {
            let (ttl_ms, key) = take_rare(&mut bytes).unwrap_or((NO_TTL, &[]));
            riders.ttl_ms = Some(ttl_ms).filter(|ttl_ms| *ttl_ms != NO_TTL);
            riders.idempotency_key = text(key);
        }
        riders.ordering_key = text(take_string(&mut bytes).unwrap_or_default());
        riders
    }

    /// The same attributes, of a message with these riders.
    pub(crate) fn with_riders(&self, riders: Riders<'_>) -> Self {
        let mut packer = Packer::with_riders(riders);
        self.pairs().for_each(|(name, value)| packer.push(name, value));
        packer.finish()
    }

    /// These attributes and one more; a value that was there under the key is replaced.
    pub(crate) fn with(&self, key: &str, value: &str) -> Self {
        let mut packer = Packer::with_riders(self.riders());
        let mut replaced = false;
        for (name, old) in self.pairs() {
            let same = name == key.as_bytes();
            replaced |= same;
            packer.push(name, if same { value.as_bytes() } else { old });
        }
        if !replaced {
            packer.push(key.as_bytes(), value.as_bytes());
        }
        packer.finish()
    }

    /// The same in memory that nothing else shares.
    pub(crate) fn compacted(&self) -> Self {
        Self(self.0.compacted())
    }

    /// Pairs as bytes: enough to compare and to measure.
    #[inline]
    pub(crate) fn pairs(&self) -> Pairs<'_> {
        Pairs::of(self.0.as_bytes()).unwrap_or_default()
    }
}

/// What belongs to a message and is kept with its attributes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Riders<'a> {
    pub(crate) ordering_key: &'a str,
    pub(crate) idempotency_key: &'a str,
    /// `u64::MAX` is the same as `None`.
    pub(crate) ttl_ms: Option<u64>,
}

impl Riders<'_> {
    fn are_rare(&self) -> bool {
        !self.idempotency_key.is_empty() || self.ttl_ms.is_some_and(|ttl_ms| ttl_ms != NO_TTL)
    }
}

/// What was packed came from strings and is cut where it was put together.
#[inline]
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("packed from strings")
}

/// Puts attributes together, in order.
struct Packer {
    writer: Box<Writer>,
    count: u32,
    size: usize,
    /// `ODD` and `RARE`, as far as they hold.
    marks: u32,
    /// A bit for each key pushed, by its length and ends: a new bit is a new key.
    seen: u64,
}

impl Packer {
    /// Without riders.
    #[inline(always)]
    fn new() -> Self {
        let mut packer = Self::begin();
        packer.push_string("");
        packer
    }

    fn with_riders(riders: Riders<'_>) -> Self {
        let mut packer = Self::begin();
        if riders.are_rare() {
            packer.marks = ODD | RARE;
            packer.writer.push(&riders.ttl_ms.unwrap_or(NO_TTL).to_le_bytes());
            packer.push_string(riders.idempotency_key);
        }
        packer.push_string(riders.ordering_key);
        packer
    }

    #[inline(always)]
    fn begin() -> Self {
        let mut writer = Writer::take();
        // Number of pairs and size are filled in at the end.
        writer.push(&[0; HEAD]);
        Self { writer, count: 0, size: 0, marks: 0, seen: 0 }
    }

    #[inline(always)]
    fn push_string(&mut self, string: &str) {
        self.size += string.len();
        self.push_length(string.len());
        self.writer.push(string.as_bytes());
    }

    #[inline(always)]
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.count += 1;
        self.size += key.len() + value.len();
        self.seen |= bit(key);
        let is_odd = key.is_empty() | key.starts_with(RESERVED_KEY_PREFIX.as_bytes());
        self.marks |= if is_odd { ODD } else { 0 };
        self.push_length(key.len());
        self.push_length(value.len());
        self.writer.push(key);
        self.writer.push(value);
    }

    #[inline(always)]
    fn push_length(&mut self, length: usize) {
        if length < LONG.into() {
            self.writer.push(&[length as u8]);
        } else {
            self.marks |= ODD;
            self.writer.push(&[LONG]);
            self.writer.push(&number(length));
        }
    }

    /// Whether a key has been pushed.
    #[inline(always)]
    fn contains(&self, key: &[u8]) -> bool {
        self.seen & bit(key) != 0 && self.finds(key)
    }

    #[cold]
    fn finds(&self, key: &[u8]) -> bool {
        // Only asked where nothing rides along: the marks are not written yet.
        let pairs = Pairs::of(self.writer.written()).unwrap_or_default();
        Pairs { left: self.count as usize, ..pairs }.any(|(name, _)| name == key)
    }

    #[inline(always)]
    fn finish(mut self) -> Attributes {
        if self.size == 0 && self.count == 0 && self.marks == 0 {
            return Attributes::new();
        }
        let [a, b, c, d] = (self.count | self.marks).to_le_bytes();
        let [e, f, g, h] = number(self.size);
        self.writer.put_first(&[a, b, c, d, e, f, g, h]);
        Attributes(self.writer.finish())
    }
}

#[inline(always)]
fn bit(key: &[u8]) -> u64 {
    let ends = key.first().zip(key.last());
    let ends = ends.map_or(0, |(first, last)| usize::from(*first) * 7 + usize::from(*last));
    1 << ((key.len() + ends) % 64)
}

#[inline]
fn number(length: usize) -> [u8; size_of::<u32>()] {
    u32::try_from(length).expect("attributes have less than 4 GiB").to_le_bytes()
}

/// Iterator over packed pairs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pairs<'a> {
    rest: &'a [u8],
    left: usize,
}

impl<'a> Pairs<'a> {
    #[inline]
    fn of(mut packed: &'a [u8]) -> Option<Self> {
        let marked = take_number(&mut packed)?;
        take_number(&mut packed)?;
        if marked & RARE as usize != 0 {
            take_rare(&mut packed)?;
        }
        take_string(&mut packed)?;
        Some(Self { rest: packed, left: marked & !MARKS })
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let key_length = take_length(&mut self.rest)?;
        let value_length = take_length(&mut self.rest)?;
        let (key, rest) = self.rest.split_at_checked(key_length)?;
        let (value, rest) = rest.split_at_checked(value_length)?;
        self.rest = rest;
        Some((key, value))
    }
}

#[inline]
fn take_length(rest: &mut &[u8]) -> Option<usize> {
    let (length, after) = rest.split_first()?;
    *rest = after;
    if *length == LONG { take_number(rest) } else { Some(usize::from(*length)) }
}

#[inline]
fn take_string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = take_length(rest)?;
    let (string, after) = rest.split_at_checked(length)?;
    *rest = after;
    Some(string)
}

/// The time to live in milliseconds and the idempotency key.
fn take_rare<'a>(rest: &mut &'a [u8]) -> Option<(u64, &'a [u8])> {
    let (ttl_ms, after) = rest.split_first_chunk()?;
    *rest = after;
    Some((u64::from_le_bytes(*ttl_ms), take_string(rest)?))
}

#[inline]
fn take_number(rest: &mut &[u8]) -> Option<usize> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u32::from_le_bytes(*number) as usize)
}

/// Iterator over the pairs of [`Attributes`].
#[derive(Clone, Debug)]
pub struct AttributeIter<'a> {
    pairs: Pairs<'a>,
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        self.pairs.next().map(|(key, value)| (text(key), text(value)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.pairs.left, Some(self.pairs.left))
    }
}

impl ExactSizeIterator for AttributeIter<'_> {}

impl<'a> IntoIterator for &'a Attributes {
    type Item = (&'a str, &'a str);
    type IntoIter = AttributeIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<K: AsRef<str>, V: AsRef<str>> FromIterator<(K, V)> for Attributes {
    /// # Panics
    ///
    /// If they have 4 GiB or more together.
    #[inline]
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut repeated = Vec::new();
        let mut packer = Packer::new();
        for (key, value) in pairs {
            let (key, value) = (key.as_ref(), value.as_ref());
            if packer.contains(key.as_bytes()) {
                repeated.push((key.to_owned(), value.to_owned()));
            } else {
                packer.push(key.as_bytes(), value.as_bytes());
            }
        }
        let packed = packer.finish();
        if repeated.is_empty() {
            return packed;
        }
        // Keys given twice are rare: each rewrites the whole.
        repeated.iter().fold(packed, |packed, (key, value)| packed.with(key, value))
    }
}

impl PartialEq for Attributes {
    /// Equal if they have the same keys with the same values, in any order.
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().all(|(k, v)| other.get(k) == Some(v))
    }
}

impl Eq for Attributes {}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self).finish()
    }
}

impl serde::Serialize for Attributes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self)
    }
}

impl<'de> serde::Deserialize<'de> for Attributes {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let map = std::collections::BTreeMap::<String, String>::deserialize(deserializer)?;
        Ok(map.iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_whole_whatever_they_hold() {
        let long = "ä\0\u{7f}💡".repeat(5_000);
        let pairs = [("", "empty key"), ("a", ""), ("ключ", long.as_str()), ("\n", "\"")];
        let attributes = Attributes::from_iter(pairs);
        assert_eq!(attributes.iter().collect::<Vec<_>>(), pairs);
        assert_eq!(attributes.get("ключ"), Some(long.as_str()));
        assert_eq!(attributes.size(), pairs.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>());
    }

    #[test]
    fn the_last_value_of_a_key_counts_and_order_does_not_matter_for_equality() {
        let one = Attributes::from_iter([("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!(one, Attributes::from_iter([("b", "2"), ("a", "3")]));
        assert_ne!(one, Attributes::from_iter([("b", "2"), ("a", "1")]));
        assert_eq!(one.with("b", "9").get("b"), Some("9"));
        assert_eq!(one.with("c", "9").len(), 3);
        assert_eq!(Attributes::from_iter([("a", "1"); 0]), Attributes::new());
    }

    #[test]
    fn an_ordering_key_rides_along_and_is_no_attribute() {
        let keyed = with_key(&Attributes::from_iter([("a", "1")]), "key").with("b", "2");
        assert_eq!(keyed.ordering_key(), "key");
        assert_eq!(keyed, Attributes::from_iter([("a", "1"), ("b", "2")]));
        assert_eq!((keyed.size(), keyed.packed_size(), keyed.len()), (4, 7, 2));
        let only_key = with_key(&Attributes::new(), "key");
        assert!(only_key.is_empty() && only_key == Attributes::new());
        assert!(with_key(&only_key, "").is_unused(), "nothing is left to keep");
    }

    #[test]
    fn everything_that_rides_along_comes_back_beside_the_attributes() {
        let long = "i".repeat(300);
        for (ttl_ms, idempotency_key, ordering_key) in [
            (Some(0), "", ""),
            (None, "once", ""),
            (Some(7), long.as_str(), "key"),
            (None, "", "k"),
        ] {
            let riders = Riders { ordering_key, idempotency_key, ttl_ms };
            let plain = Attributes::from_iter([("a", "1"), ("b", "")]);
            let ridden = plain.with_riders(riders).with("c", "3");
            assert_eq!((ridden.riders(), ridden.ordering_key()), (riders, ordering_key));
            assert_eq!(ridden.iter().collect::<Vec<_>>(), [("a", "1"), ("b", ""), ("c", "3")]);
            assert_eq!((ridden.len(), ridden.size()), (3, 5));
            assert_eq!(ridden.packed_size(), 5 + idempotency_key.len() + ordering_key.len());
            assert_eq!(ridden.has_rare(), ttl_ms.is_some() || !idempotency_key.is_empty());
            assert!(!ridden.has_rare() || ridden.is_odd(), "limits look at what is rare");
            assert_eq!(ridden.compacted().riders(), riders);
            assert!(Attributes::new().with_riders(riders).is_empty());
        }
        let never = Riders { ttl_ms: Some(NO_TTL), ..Riders::default() };
        assert!(Attributes::new().with_riders(never).is_unused(), "for ever is no limit");
    }

    fn with_key(attributes: &Attributes, ordering_key: &str) -> Attributes {
        attributes.with_riders(Riders { ordering_key, ..attributes.riders() })
    }

    #[test]
    fn odd_is_what_limits_have_to_look_at() {
        let odd = |key: &str, value: &str| Attributes::from_iter([(key, value)]).is_odd();
        let (even, long) = ("x".repeat(MAX_EVEN_BYTES), "x".repeat(MAX_EVEN_BYTES + 1));
        assert!(!odd("key", "") && !odd("goo", "v") && !odd(&even, &even));
        assert!(odd("", "v") && odd("goog", "v") && odd(&long, "v") && odd("key", &long));
        assert!(with_key(&Attributes::new(), &long).is_odd());
        assert!(!with_key(&Attributes::new(), &even).is_odd());
        assert_eq!(Attributes::from_iter([("", "v"), ("a", "b")]).len(), 2);
    }

    #[test]
    fn lengths_around_one_byte_come_back_whole() {
        assert_eq!(size_of::<Attributes>(), 16);
        for length in (0..600).chain([5_000, 70_000]) {
            let value = "v".repeat(length);
            let pairs = [("a", ""), ("key", value.as_str()), ("z", "end")];
            let attributes = with_key(&Attributes::from_iter(pairs), &value);
            assert_eq!(attributes.iter().collect::<Vec<_>>(), pairs, "length {length}");
            assert_eq!(attributes.size(), 1 + 3 + length + 4);
            assert_eq!(attributes.packed_size(), attributes.size() + length);
            assert_eq!(attributes.ordering_key(), value);
            assert_eq!(attributes.compacted(), attributes);
        }
    }

    #[test]
    fn building_may_nest() {
        let nested = Attributes::from_iter((0..3).map(|i| {
            let inner = Attributes::from_iter([("inner", i.to_string())]);
            (format!("k{i}"), inner.get("inner").unwrap_or_default().to_owned())
        }));
        assert_eq!((nested.get("k0"), nested.get("k2")), (Some("0"), Some("2")));
    }
}
