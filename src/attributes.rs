//! The attributes of a message: a small map of strings, packed into one allocation.
//!
//! Built once, read often, shared by every subscription. Keys and values are borrowed from the one
//! buffer. Limits are not checked here but at publish (`limits.rs`), so that whatever a program
//! makes can be named in the error it gets.

use std::cell::RefCell;
use std::fmt;

use crate::sync::Arc;

/// String keys with string values, each key at most once.
///
/// Cheap to clone: clones share one allocation. Iteration is in the order in which the keys were
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
#[derive(Clone, Default, Eq)]
pub struct Attributes(
    /// `len(key) len(value) key value …`, lengths as `LENGTH_BYTES` digits of seven bits, so that
    /// the buffer is a string throughout and slices of it need no check for UTF-8.
    Option<Arc<str>>,
);

/// Digits of a length: 28 bits, 256 MiB.
const LENGTH_BYTES: usize = 4;
const MAX_LENGTH: usize = (1 << (7 * LENGTH_BYTES)) - 1;

impl Attributes {
    /// No attributes; allocates nothing.
    pub const fn new() -> Self {
        Self(None)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.iter().find_map(|(name, value)| (name == key).then_some(value))
    }

    /// Whether the key is present; an empty value counts as present.
    pub fn contains_key(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// How many attributes there are.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Pairs of key and value, in the order in which the keys were first given.
    pub fn iter(&self) -> AttributeIter<'_> {
        AttributeIter { rest: self.0.as_deref().unwrap_or_default() }
    }

    /// Bytes of all keys and values together (LIM-27).
    pub fn size(&self) -> usize {
        self.iter().map(|(key, value)| key.len() + value.len()).sum()
    }

    /// These attributes and one more; a value that was there under the key is replaced.
    pub(crate) fn with(&self, key: &str, value: &str) -> Self {
        pack(|buffer| {
            let mut replaced = false;
            for (name, old) in self {
                let same = name == key;
                replaced |= same;
                push(buffer, name, if same { value } else { old });
            }
            if !replaced {
                push(buffer, key, value);
            }
        })
    }
}

thread_local! {
    /// Where attributes are put together before they are copied into their allocation.
    static SCRATCH: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Scratch space kept between messages is at most this long.
const MAX_SCRATCH: usize = 64 * 1024;

fn pack(fill: impl FnOnce(&mut String)) -> Attributes {
    // Taken out, not borrowed: `fill` may run an iterator that builds attributes of its own.
    let mut buffer = SCRATCH.try_with(RefCell::take).unwrap_or_default();
    buffer.clear();
    fill(&mut buffer);
    let packed = (!buffer.is_empty()).then(|| Arc::from(buffer.as_str()));
    if buffer.capacity() <= MAX_SCRATCH {
        // A thread that is ending has no scratch space any more; then the buffer is dropped.
        let _ = SCRATCH.try_with(|scratch| scratch.replace(buffer));
    }
    Attributes(packed)
}

fn push(buffer: &mut String, key: &str, value: &str) {
    push_length(buffer, key.len());
    push_length(buffer, value.len());
    buffer.push_str(key);
    buffer.push_str(value);
}

fn push_length(buffer: &mut String, length: usize) {
    assert!(
        length <= MAX_LENGTH,
        "an attribute of {length} bytes; at most {MAX_LENGTH} can be kept"
    );
    for digit in (0..LENGTH_BYTES).rev() {
        buffer.push(char::from((length >> (7 * digit)) as u8 & 0x7f));
    }
}

/// Reads one length off the front.
fn take_length(rest: &str) -> Option<(usize, &str)> {
    let (digits, rest) = rest.split_at_checked(LENGTH_BYTES)?;
    let length = digits.bytes().fold(0, |length, digit| length << 7 | usize::from(digit));
    Some((length, rest))
}

/// Iterator over the pairs of [`Attributes`].
#[derive(Clone, Debug)]
pub struct AttributeIter<'a> {
    rest: &'a str,
}

impl<'a> Iterator for AttributeIter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let (key_length, rest) = take_length(self.rest)?;
        let (value_length, rest) = take_length(rest)?;
        let (key, rest) = rest.split_at_checked(key_length)?;
        let (value, rest) = rest.split_at_checked(value_length)?;
        self.rest = rest;
        Some((key, value))
    }
}

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
    /// If one key or value has more than 256 MiB.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut repeated = SmallPairs::new();
        let packed = pack(|buffer| {
            for (key, value) in pairs {
                let (key, value) = (key.as_ref(), value.as_ref());
                if (AttributeIter { rest: buffer }).any(|(name, _)| name == key) {
                    repeated.push((key.to_owned(), value.to_owned()));
                } else {
                    push(buffer, key, value);
                }
            }
        });
        repeated.iter().fold(packed, |packed, (key, value)| packed.with(key, value))
    }
}

/// Keys that were given twice: rare.
type SmallPairs = Vec<(String, String)>;

impl PartialEq for Attributes {
    /// Equal if they have the same keys with the same values, in any order.
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
            || (self.len() == other.len() && self.iter().all(|(k, v)| other.get(k) == Some(v)))
    }
}

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
    fn building_may_nest() {
        let nested = Attributes::from_iter((0..3).map(|i| {
            let inner = Attributes::from_iter([("inner", i.to_string())]);
            (format!("k{i}"), inner.get("inner").unwrap_or_default().to_owned())
        }));
        assert_eq!((nested.get("k0"), nested.get("k2")), (Some("0"), Some("2")));
    }
}
