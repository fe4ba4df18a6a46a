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

// The bytes are: the number of pairs with the mark `ODD`, and the size of all strings, four bytes
// each; the ordering key with its length before it; then for each pair the length of key and value,
// key, value. A message keeps its ordering key here, so that it takes no place of its own; it is no
// part of the attributes.

/// Bytes before the ordering key: number of pairs, size.
const HEAD: usize = 2 * size_of::<u32>();
/// A length of at least this much is written as this byte and four more.
const LONG: u8 = u8::MAX;
/// Some key is empty or starts with `goog`, or some string is `LONG`: limits have to look closely.
const ODD: u32 = 1 << 31;
/// What keys of a publisher must not begin with (LIM-6).
pub(crate) const RESERVED_KEY_PREFIX: &str = "goog";
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
        take_number(&mut self.0.as_bytes()).unwrap_or_default() & !(ODD as usize)
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
        self.packed_size() - self.ordering_key().len()
    }

    /// Bytes of all keys and values and of the ordering key together.
    #[inline]
    pub(crate) fn packed_size(&self) -> usize {
        let bytes = self.0.as_bytes().get(size_of::<u32>()..);
        bytes.and_then(|mut size| take_number(&mut size)).unwrap_or_default()
    }

    /// Neither attributes nor ordering key.
    #[inline]
    pub(crate) fn is_unused(&self) -> bool {
        self.0.is_empty()
    }

    /// Some key is empty or reserved, or some string longer than [`MAX_EVEN_BYTES`].
    #[inline]
    pub(crate) fn is_odd(&self) -> bool {
        let count = take_number(&mut self.0.as_bytes()).unwrap_or_default();
        count & ODD as usize != 0
    }

    /// The ordering key of the message that these belong to.
    #[inline]
    pub(crate) fn ordering_key(&self) -> &str {
        let mut bytes = self.0.as_bytes().get(HEAD..).unwrap_or_default();
        let length = take_length(&mut bytes).unwrap_or_default();
        text(bytes.get(..length).unwrap_or_default())
    }

    /// The same attributes, of a message with this ordering key.
    pub(crate) fn with_ordering_key(&self, key: &str) -> Self {
        let mut packer = Packer::new(key);
        self.pairs().for_each(|(name, value)| packer.push(name, value));
        packer.finish()
    }

    /// These attributes and one more; a value that was there under the key is replaced.
    pub(crate) fn with(&self, key: &str, value: &str) -> Self {
        let mut packer = Packer::new(self.ordering_key());
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
    is_odd: bool,
    /// A bit for each key pushed, by its length and ends: a new bit is a new key.
    seen: u64,
}

impl Packer {
    #[inline(always)]
    fn new(ordering_key: &str) -> Self {
        let mut writer = Writer::take();
        // Number of pairs and size are filled in at the end.
        writer.push(&[0; HEAD]);
        let size = ordering_key.len();
        let mut packer = Self { writer, count: 0, size, is_odd: false, seen: 0 };
        packer.push_length(ordering_key.len());
        packer.writer.push(ordering_key.as_bytes());
        packer
    }

    #[inline(always)]
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.count += 1;
        self.size += key.len() + value.len();
        self.seen |= bit(key);
        self.is_odd |= key.is_empty() | key.starts_with(RESERVED_KEY_PREFIX.as_bytes());
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
            self.is_odd = true;
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
        let pairs = Pairs::of(self.writer.written()).unwrap_or_default();
        Pairs { left: self.count as usize, ..pairs }.any(|(name, _)| name == key)
    }

    #[inline(always)]
    fn finish(mut self) -> Attributes {
        if self.size == 0 && self.count == 0 {
            return Attributes::new();
        }
        let mark = if self.is_odd { ODD } else { 0 };
        let [a, b, c, d] = (self.count | mark).to_le_bytes();
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
        let left = take_number(&mut packed)? & !(ODD as usize);
        take_number(&mut packed)?;
        let key = take_length(&mut packed)?;
        Some(Self { rest: packed.get(key..)?, left })
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
        let mut packer = Packer::new("");
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
        let keyed = Attributes::from_iter([("a", "1")]).with_ordering_key("key").with("b", "2");
        assert_eq!(keyed.ordering_key(), "key");
        assert_eq!(keyed, Attributes::from_iter([("a", "1"), ("b", "2")]));
        assert_eq!((keyed.size(), keyed.packed_size(), keyed.len()), (4, 7, 2));
        let only_key = Attributes::new().with_ordering_key("key");
        assert!(only_key.is_empty() && only_key == Attributes::new());
        assert!(only_key.with_ordering_key("").is_unused(), "nothing is left to keep");
    }

    #[test]
    fn odd_is_what_limits_have_to_look_at() {
        let odd = |key: &str, value: &str| Attributes::from_iter([(key, value)]).is_odd();
        let (even, long) = ("x".repeat(MAX_EVEN_BYTES), "x".repeat(MAX_EVEN_BYTES + 1));
        assert!(!odd("key", "") && !odd("goo", "v") && !odd(&even, &even));
        assert!(odd("", "v") && odd("goog", "v") && odd(&long, "v") && odd("key", &long));
        assert!(Attributes::new().with_ordering_key(&long).is_odd());
        assert!(!Attributes::new().with_ordering_key(&even).is_odd());
        assert_eq!(Attributes::from_iter([("", "v"), ("a", "b")]).len(), 2);
    }

    #[test]
    fn lengths_around_one_byte_come_back_whole() {
        assert_eq!(size_of::<Attributes>(), 16);
        for length in (0..600).chain([5_000, 70_000]) {
            let value = "v".repeat(length);
            let pairs = [("a", ""), ("key", value.as_str()), ("z", "end")];
            let attributes = Attributes::from_iter(pairs).with_ordering_key(&value);
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
