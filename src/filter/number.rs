//! Numbers of the extended dialect: reading, comparing, and an order-preserving image as bits.
//!
//! Two integers that fit 128 bits compare exactly, anything else as 64-bit floating point. There
//! is no NaN and no infinity: a text that names neither is no number.

use std::cmp::Ordering;
use std::fmt;

/// A decimal number: `-?digits[.digits][e[+-]digits]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Number {
    Integer(i128),
    /// The bits of a finite `f64`.
    Float(u64),
}

/// How two numbers are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Relation {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Number {
    /// Reads a number that takes up the whole text.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        if text.len() > MAX_NUMBER_BYTES || number_length(text) != Some(text.len()) {
            return None;
        }
        let text = std::str::from_utf8(text).ok()?;
        if let Ok(integer) = text.parse() {
            return Some(Self::Integer(integer));
        }
        let float: f64 = text.parse().ok()?;
        float.is_finite().then_some(Self::Float(float.to_bits()))
    }

    pub(super) fn as_f64(self) -> f64 {
        match self {
            Self::Integer(integer) => integer as f64,
            Self::Float(bits) => f64::from_bits(bits),
        }
    }

    /// Which of two numbers is the greater.
    pub(super) fn compare(self, other: Self) -> Ordering {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a.cmp(&b),
            // Neither is NaN, so there always is an answer.
            (a, b) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        }
    }

    /// An image whose order is that of the numbers, except that near ones may share theirs.
    pub(super) fn image(self) -> u64 {
        // Adding zero turns the negative zero, which equals zero, into it.
        let bits = (self.as_f64() + 0.0).to_bits();
        if bits >> 63 == 0 { bits | 1 << 63 } else { !bits }
    }
}

impl Relation {
    #[inline]
    pub(super) fn holds(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::LessOrEqual => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::GreaterOrEqual => ordering.is_ge(),
        }
    }

    pub(super) fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

/// How many bytes at the beginning of `text` are a number, whatever follows.
pub(super) fn number_length(text: &[u8]) -> Option<usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let mut end = usize::from(text.first() == Some(&b'-'));
    match digits(end) {
        0 => return None,
        count => end += count,
    }
    if text.get(end) == Some(&b'.') && digits(end + 1) > 0 {
        end += 1 + digits(end + 1);
    }
    if text.get(end) == Some(&b'e') {
        let sign = usize::from(matches!(text.get(end + 1), Some(b'+' | b'-')));
        match digits(end + 1 + sign) {
            0 => {}
            count => end += 1 + sign + count,
        }
    }
    Some(end)
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(integer) => write!(f, "{integer}"),
            // Always with a point or an exponent, so that it reads back as what it is.
            Self::Float(bits) => write!(f, "{:?}", f64::from_bits(*bits)),
        }
    }
}

/// The bytes of a number, in a filter as in an attribute.
pub const MAX_NUMBER_BYTES: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Option<Number> {
        Number::read(text.as_bytes())
    }

    #[test]
    fn reads_decimal_numbers_and_nothing_else() {
        for text in ["0", "-0", "007", "1.5", "-1.50", "1e3", "1e+3", "2.5e-3"] {
            assert!(read(text).is_some(), "{text}");
        }
        for text in [
            "", "-", "+1", ".5", "5.", "1e", "1e+", "0x1", "NaN", "inf", " 1", "1 ", "1,5", "1_0",
            "1e400", "1E3", "--1", "1.2.3", "٣",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert!(read(&"9".repeat(MAX_NUMBER_BYTES)).is_some());
        assert_eq!(read(&"9".repeat(MAX_NUMBER_BYTES + 1)), None);
    }

    #[test]
    fn integers_are_exact_and_the_rest_floats() {
        let compare = |a, b| read(a).unwrap().compare(read(b).unwrap());
        assert_eq!(compare("9007199254740993", "9007199254740992"), Ordering::Greater);
        assert_eq!(compare("9007199254740993.0", "9007199254740992"), Ordering::Equal);
        assert_eq!(compare("1", "1.0"), Ordering::Equal);
        assert_eq!(compare("-0", "0.0"), Ordering::Equal);
        assert_eq!(compare("-0.0", "0"), Ordering::Equal);
        assert_eq!(compare("2", "10"), Ordering::Less);
        assert_eq!(compare("-2", "-10"), Ordering::Greater);
    }

    #[test]
    fn the_image_keeps_the_order() {
        let texts = ["-1e300", "-5", "-0.5", "-0.0", "0", "1e-300", "0.5", "5", "6", "1e300"];
        let images: Vec<_> = texts.iter().map(|text| read(text).unwrap().image()).collect();
        assert!(images.is_sorted());
        assert_eq!(read("-0.0").unwrap().image(), read("0").unwrap().image());
    }

    #[test]
    fn printing_reads_back() {
        for text in ["0", "-17", "1.0", "1e300", "5e-324", "-0.0", &"9".repeat(40)] {
            let number = read(text).unwrap();
            assert_eq!(read(&number.to_string()), Some(number), "{text}");
            assert!(number.to_string().len() <= MAX_NUMBER_BYTES);
        }
    }
}
