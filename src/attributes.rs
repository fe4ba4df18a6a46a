//! The attributes of a message: a small map of strings, packed in place or into one allocation.
//!
//! Built once, read often, shared by every subscription. Keys and values are borrowed from the one
//! buffer: two short attributes cost no allocation and no shared count. Limits are not checked
//! here but at publish (`limits.rs`), so that whatever a program
//! makes can be named in the error it gets.

use std::cell::RefCell;
use std::fmt;

use crate::sync::Arc;

/// String keys with string values, each key at most once.
///
/// Cheap to clone: up to 30 bytes lie in place, more in an allocation that clones share.
/// Iteration is in the order in which the keys were
/// first given; of two values for one key, the last counts.
///
/// ```
/// use siftbus::Attributes;
///
/// let attributes = Attributes::from_iter([("region", "eu"), ("kind", "order"), ("region", "us")]);
/// assert_eq!(attributes.get("region"), Some("us"));
/// assert_eq!(attributes.len(), 2);
/// assert!(!attributes.contains_key("Region"), "keys are case-sensitive");
/// ```
#[derive(Clone, Default)]
pub struct Attributes(Packed);

/// Few and short attributes lie in place; otherwise, and if there is an ordering key, in one
/// shared allocation. A message keeps its ordering key here too, so that it takes no place of its
/// own; it is no part of the attributes.
#[derive(Clone)]
enum Packed {
    /// `len(key) len(value) key value` for each of `count` pairs; lengths are one byte.
    Inline { count: u8, bytes: [u8; INLINE] },
    /// `count len(ordering key) ordering key`, then pairs as above; numbers are four bytes.
    Shared(Arc<[u8]>),
}

/// Bytes in place: as many as make [`Packed`] 32 bytes.
const INLINE: usize = 30;
/// Bytes of a number in a shared allocation.
const NUMBER: usize = size_of::<u32>();
/// Bytes before the ordering key there.
const HEAD: usize = 2 * NUMBER;

impl Default for Packed {
    fn default() -> Self {
        Packed::NONE
    }
}

impl Packed {
    const NONE: Packed = Packed::Inline { count: 0, bytes: [0; INLINE] };
}

impl Attributes {
    /// No attributes.
    pub const fn new() -> Self {
        Self(Packed::NONE)
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
        match &self.0 {
            Packed::Inline { count, .. } => usize::from(*count),
            Packed::Shared(packed) => take_number(&mut &**packed).unwrap_or_default(),
        }
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
        self.pairs().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// Bytes of all keys and values and of the ordering key together.
    #[inline]
    pub(crate) fn packed_size(&self) -> usize {
        match &self.0 {
            Packed::Inline { count: 0, .. } => 0,
            Packed::Inline { .. } => self.size(),
            Packed::Shared(packed) => packed.len() - HEAD - self.len() * 2 * NUMBER,
        }
    }

    /// Neither attributes nor ordering key.
    #[inline]
    pub(crate) fn is_unused(&self) -> bool {
        matches!(self.0, Packed::Inline { count: 0, .. })
    }

    /// The ordering key of the message that these belong to.
    pub(crate) fn ordering_key(&self) -> &str {
        let Packed::Shared(packed) = &self.0 else { return "" };
        let mut packed = packed.get(NUMBER..).unwrap_or_default();
        let length = take_number(&mut packed).unwrap_or_default();
        text(packed.get(..length).unwrap_or_default())
    }

    /// The same attributes, of a message with this ordering key.
    pub(crate) fn with_ordering_key(&self, key: &str) -> Self {
        let mut packer = Packer::with_ordering_key(key);
        self.pairs().for_each(|(name, value)| packer.push(name, value));
        packer.finish()
    }

    /// These attributes and one more; a value that was there under the key is replaced.
    pub(crate) fn with(&self, key: &str, value: &str) -> Self {
        let mut packer = Packer::with_ordering_key(self.ordering_key());
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

    /// Pairs as bytes: enough to compare and to measure.
    #[inline]
    pub(crate) fn pairs(&self) -> Pairs<'_> {
        match &self.0 {
            Packed::Inline { count, bytes } => {
                Pairs { rest: bytes, left: usize::from(*count), width: Width::Byte }
            }
            Packed::Shared(packed) => Pairs::of_shared(packed),
        }
    }
}

/// What was packed came from strings and is cut where it was put together.
fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("packed from strings")
}

thread_local! {
    /// Where many or long attributes are put together before they are copied into their
    /// allocation.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Scratch space kept between messages is at most this long.
const MAX_SCRATCH: usize = 64 * 1024;

/// Puts attributes together: in place for as long as they fit.
struct Packer {
    count: u32,
    used: usize,
    bytes: [u8; INLINE],
    /// Everything, once it did not fit any more or has an ordering key.
    long: Option<Vec<u8>>,
    /// Where the pairs begin in `long`.
    start: usize,
}

impl Packer {
    #[inline]
    fn new() -> Self {
        Self { count: 0, used: 0, bytes: [0; INLINE], long: None, start: 0 }
    }

    fn with_ordering_key(key: &str) -> Self {
        let mut packer = Self::new();
        if !key.is_empty() {
            packer.grow(key);
        }
        packer
    }

    #[inline]
    fn push(&mut self, key: &[u8], value: &[u8]) {
        self.count += 1;
        if self.long.is_none() {
            let size = 2 + key.len() + value.len();
            if let Some(place) = self.bytes.get_mut(self.used..self.used + size) {
                // Both fit into `INLINE` bytes, so their lengths fit into one.
                let (lengths, rest) = place.split_at_mut(2);
                lengths.copy_from_slice(&[key.len() as u8, value.len() as u8]);
                let (name, rest) = rest.split_at_mut(key.len());
                name.copy_from_slice(key);
                rest.copy_from_slice(value);
                self.used += size;
                return;
            }
            self.count -= 1;
            self.grow("");
            self.count += 1;
        }
        if let Some(long) = &mut self.long {
            long.extend_from_slice(&number(key.len()));
            long.extend_from_slice(&number(value.len()));
            long.extend_from_slice(key);
            long.extend_from_slice(value);
        }
    }

    /// Goes on in scratch space.
    #[cold]
    fn grow(&mut self, ordering_key: &str) {
        // Taken out, not borrowed: an iterator may build attributes while others are packed.
        let mut long = SCRATCH.try_with(RefCell::take).unwrap_or_default();
        long.clear();
        long.extend_from_slice(&[0; NUMBER]);
        long.extend_from_slice(&number(ordering_key.len()));
        long.extend_from_slice(ordering_key.as_bytes());
        self.start = long.len();
        for (key, value) in self.pairs() {
            long.extend_from_slice(&number(key.len()));
            long.extend_from_slice(&number(value.len()));
            long.extend_from_slice(key);
            long.extend_from_slice(value);
        }
        self.long = Some(long);
    }

    fn pairs(&self) -> Pairs<'_> {
        let left = self.count as usize;
        match &self.long {
            None => Pairs { rest: &self.bytes, left, width: Width::Byte },
            Some(long) => {
                let rest = long.get(self.start..).unwrap_or_default();
                Pairs { rest, left, width: Width::Number }
            }
        }
    }

    #[inline]
    fn finish(self) -> Attributes {
        match self.long {
            None => Attributes(Packed::Inline { count: self.count as u8, bytes: self.bytes }),
            Some(long) => Self::share(long, self.count),
        }
    }

    fn share(mut long: Vec<u8>, count: u32) -> Attributes {
        if let Some(head) = long.first_chunk_mut() {
            *head = count.to_le_bytes();
        }
        let packed = Arc::from(long.as_slice());
        if long.capacity() <= MAX_SCRATCH {
            // A thread that is ending has no scratch space any more; then the buffer is dropped.
            let _ = SCRATCH.try_with(|scratch| scratch.replace(long));
        }
        Attributes(Packed::Shared(packed))
    }
}

fn number(length: usize) -> [u8; NUMBER] {
    u32::try_from(length).expect("a key or value has less than 4 GiB").to_le_bytes()
}

/// Iterator over packed pairs.
#[derive(Clone, Debug)]
pub(crate) struct Pairs<'a> {
    rest: &'a [u8],
    left: usize,
    width: Width,
}

/// How lengths are written.
#[derive(Copy, Clone, Debug)]
enum Width {
    Byte,
    Number,
}

impl<'a> Pairs<'a> {
    fn of_shared(mut packed: &'a [u8]) -> Self {
        let left = take_number(&mut packed).unwrap_or_default();
        let key = take_number(&mut packed).unwrap_or_default();
        Self { rest: packed.get(key..).unwrap_or_default(), left, width: Width::Number }
    }

    #[inline]
    fn take_length(&mut self) -> Option<usize> {
        match self.width {
            Width::Byte => {
                let (length, after) = self.rest.split_first()?;
                self.rest = after;
                Some(usize::from(*length))
            }
            Width::Number => take_number(&mut self.rest),
        }
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let key_length = self.take_length()?;
        let value_length = self.take_length()?;
        let (key, rest) = self.rest.split_at_checked(key_length)?;
        let (value, rest) = rest.split_at_checked(value_length)?;
        self.rest = rest;
        Some((key, value))
    }
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
    /// If one key or value has 4 GiB or more.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut repeated = Vec::new();
        let mut packer = Packer::new();
        for (key, value) in pairs {
            let (key, value) = (key.as_ref(), value.as_ref());
            if packer.pairs().any(|(name, _)| name == key.as_bytes()) {
                repeated.push((key.to_owned(), value.to_owned()));
            } else {
                packer.push(key.as_bytes(), value.as_bytes());
            }
        }
        // Keys given twice are rare: each rewrites the whole.
        let packed = packer.finish();
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
    fn attributes_grow_out_of_their_place_at_any_length() {
        assert_eq!(size_of::<Attributes>(), 32);
        for length in 0..=2 * INLINE {
            let value = "v".repeat(length);
            let pairs = [("a", ""), ("key", value.as_str()), ("z", "end")];
            let attributes = Attributes::from_iter(pairs);
            assert_eq!(attributes.iter().collect::<Vec<_>>(), pairs, "length {length}");
            assert_eq!(attributes.size(), 1 + 3 + length + 4);
            assert_eq!(attributes.packed_size(), attributes.size());
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
