//! Keyed hashing of short texts, and of all wanted beginnings of one at once.
//!
//! Folded multiplication under secret keys, as the portable form of `ahash` does it; but a text is
//! taken in blocks of sixteen bytes, so that the hash of a longer beginning goes on where that of a
//! shorter one was, and reads nothing twice. The keys come from the seed of the bus: whoever does
//! not know them cannot choose values that collide.

/// Hashes under keys of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct KeyedHash {
    start: u64,
    block: u64,
    end: u64,
}

/// Hashes of beginnings of one text, shortest first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginnings<'t> {
    keys: KeyedHash,
    text: &'t [u8],
    /// How many bytes are in `state`: whole blocks.
    taken: usize,
    state: u64,
    /// The bytes behind those.
    next: (u64, u64),
}

impl KeyedHash {
    /// Keys that depend on `seed`.
    pub(super) fn new(seed: u64) -> Self {
        let key = |nth| crate::ack_id::mix(seed.wrapping_add(GAMMA.wrapping_mul(nth)));
        let [start, block, end] = [1, 2, 3].map(key);
        Self { start, block, end }
    }

    /// The hash of a text; the same text in another domain has another.
    #[inline]
    pub(super) fn text(&self, domain: u64, text: &[u8]) -> u64 {
        if text.len() <= BLOCK {
            // What most texts are, without the loop.
            return self.finish(self.start, padded(text), domain, text.len());
        }
        self.beginnings(text).hash(domain, text.len())
    }

    #[inline]
    pub(super) fn beginnings<'t>(&self, text: &'t [u8]) -> Beginnings<'t> {
        Beginnings { keys: *self, text, taken: 0, state: self.start, next: next_block(text) }
    }

    #[inline]
    fn finish(&self, state: u64, (low, high): (u64, u64), domain: u64, length: usize) -> u64 {
        let last = fold(low ^ state, high ^ self.block);
        fold(last ^ domain, self.end ^ length as u64)
    }
}

impl Beginnings<'_> {
    /// The hash of the first `length` bytes; lengths are asked for in ascending order and are at
    /// most that of the text.
    #[inline]
    pub(super) fn hash(&mut self, domain: u64, length: usize) -> u64 {
        while self.taken + BLOCK < length {
            let (low, high) = self.next;
            self.state = fold(low ^ self.state, high ^ self.keys.block);
            self.taken += BLOCK;
            self.next = next_block(self.text.get(self.taken..).unwrap_or_default());
        }
        let (low, high) = self.next;
        let rest = length - self.taken;
        let block = (low & lowest(rest.min(8)), high & lowest(rest.saturating_sub(8)));
        self.keys.finish(self.state, block, domain, length)
    }
}

/// The first sixteen bytes, or as many as there are.
#[inline]
fn next_block(text: &[u8]) -> (u64, u64) {
    padded(text.first_chunk::<BLOCK>().map_or(text, |block| block))
}

/// At most sixteen bytes as two words, zeros behind the end.
#[inline]
fn padded(text: &[u8]) -> (u64, u64) {
    match (text.first_chunk(), text.last_chunk()) {
        (Some(first), Some(last)) => {
            // The last eight bytes without those that are among the first.
            let twice = 8 * (2 * size_of::<u64>() - text.len().min(BLOCK)) as u32;
            let high = u64::from_le_bytes(*last).checked_shr(twice).unwrap_or_default();
            (u64::from_le_bytes(*first), high)
        }
        _ => (word(text), 0),
    }
}

/// At most eight bytes as a word, zeros behind the end: with the length it is the text.
#[inline]
pub(super) fn word(text: &[u8]) -> u64 {
    if let Some(first) = text.first_chunk() {
        return u64::from_le_bytes(*first);
    }
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        let (first, last) = (u32::from_le_bytes(*first), u32::from_le_bytes(*last));
        let last = u64::from(last) << (8 * (text.len() - size_of::<u32>()));
        return u64::from(first) | last;
    }
    // At most three: the first, the last, and what is in between.
    let at = |at: usize| text.get(at).map_or(0, |byte| u64::from(*byte) << (8 * at));
    at(0) | at(text.len() / 2) | at(text.len().saturating_sub(1))
}

/// The lowest `bytes` bytes.
#[inline]
fn lowest(bytes: usize) -> u64 {
    u64::MAX.checked_shr(u64::BITS - 8 * bytes as u32).unwrap_or_default()
}

/// Both halves of a product, which depend on every bit of both factors.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> u64::BITS) as u64
}

const BLOCK: usize = 16;

/// The step of SplitMix64, from whose sequence the keys are.
const GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_beginning_has_the_hash_of_the_text_that_it_is() {
        let hash = KeyedHash::new(7);
        for length in 0..70 {
            let text: Vec<u8> = (0..length).map(|n| (n * 37 % 251) as u8).collect();
            let mut beginnings = hash.beginnings(&text);
            for end in 0..=text.len() {
                assert_eq!(
                    beginnings.hash(3, end),
                    hash.text(3, &text[..end]),
                    "{end} of {length}"
                );
            }
            let mut beginnings = hash.beginnings(&text);
            assert_eq!(beginnings.hash(3, text.len()), hash.text(3, &text), "in one leap");
        }
    }

    #[test]
    fn words_are_padded_with_zeros() {
        let text = b"abcdefghijklmnopq";
        for length in 0..=16 {
            let mut bytes = [0; 16];
            bytes[..length].copy_from_slice(&text[..length]);
            let (low, high) = padded(&text[..length]);
            assert_eq!([low.to_le_bytes(), high.to_le_bytes()].concat(), bytes, "{length}");
        }
    }

    #[test]
    fn what_differs_in_a_byte_a_length_or_a_domain_differs_in_the_upper_half() {
        for seed in 0..8 {
            let hash = KeyedHash::new(seed);
            let mut texts = HashSet::new();
            for length in 0..40 {
                texts.insert(vec![0; length]);
                for (at, bit) in (0..length).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
                    let mut text = vec![b'0'; length];
                    text[at] ^= 1 << bit;
                    texts.insert(text);
                }
            }
            texts.extend((0..5_000).map(|n: u32| n.to_string().into_bytes()));
            let upper = |domain| texts.iter().map(move |text| hash.text(domain, text) >> 32);
            let seen: HashSet<u64> = (0..4).flat_map(upper).collect();
            // By chance about n² / 2 / 2³² pairs collide, which is less than one.
            let lost = 4 * texts.len() - seen.len();
            assert!(lost <= 6, "seed {seed}: {lost} collisions of {}", seen.len());
        }
    }

    #[test]
    fn the_keys_depend_on_the_seed() {
        let hash = |seed| KeyedHash::new(seed).text(0, b"value");
        assert_ne!(hash(1), hash(2));
        assert_eq!(hash(1), hash(1));
    }
}
