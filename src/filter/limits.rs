//! How large a filter may be, and how much of the language it may use.

use super::Dialect;

/// How large a filter may be. All counts are inclusive.
///
/// ```
/// use siftbus::Filter;
/// use siftbus::filter::ParseLimits;
///
/// let long = format!("attributes.a = \"{}\"", "x".repeat(300));
/// assert!(Filter::parse(&long).is_err());
/// assert!(Filter::parse_with(&long, ParseLimits::EMBEDDED).is_ok());
///
/// let mut limits = ParseLimits::STRICT;
/// limits.max_predicates = 1;
/// assert!(Filter::parse_with("attributes:a OR attributes:b", limits).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct ParseLimits {
    /// Bytes of the text as given, white space included.
    pub max_bytes: usize,
    /// How deep parentheses and negations may nest. Above [`DEPTH_CEILING`] that counts instead.
    pub max_depth: usize,
    /// How many predicates there may be.
    pub max_predicates: usize,
    /// How much of the language may be used.
    pub dialect: Dialect,
}

impl ParseLimits {
    /// What the service allows: 256 bytes; and 128 levels and 64 predicates, which no useful
    /// filter of that size reaches. The default.
    pub const STRICT: Self = Self {
        max_bytes: STRICT_MAX_BYTES,
        max_depth: MAX_DEPTH,
        max_predicates: STRICT_MAX_PREDICATES,
        dialect: Dialect::Strict,
    };

    /// For filters that never leave the process: 4,096 bytes, 128 levels, 512 predicates.
    pub const EMBEDDED: Self = Self {
        max_bytes: EMBEDDED_MAX_BYTES,
        max_depth: MAX_DEPTH,
        max_predicates: EMBEDDED_MAX_PREDICATES,
        dialect: Dialect::Strict,
    };

    /// As [`EMBEDDED`](Self::EMBEDDED), in the extended dialect.
    pub const EXTENDED: Self = Self { dialect: Dialect::Extended, ..Self::EMBEDDED };
}

impl Default for ParseLimits {
    fn default() -> Self {
        Self::STRICT
    }
}

/// The bytes of a strict filter.
pub const STRICT_MAX_BYTES: usize = 256;

/// The predicates of a strict filter.
pub const STRICT_MAX_PREDICATES: usize = 64;

/// The bytes of a filter that stays in the process.
pub const EMBEDDED_MAX_BYTES: usize = 4_096;

/// The predicates of a filter that stays in the process, parsed or combined.
pub const EMBEDDED_MAX_PREDICATES: usize = 512;

/// How deep parentheses and negations nest at most, unless other limits are asked for.
pub const MAX_DEPTH: usize = 128;

/// The nesting that no limits can exceed, because printing and dropping a filter recurse that
/// deep. The canonical text of every filter within [`MAX_DEPTH`] stays below: it writes each
/// further negation as two levels, `NOT (NOT x)`.
pub const DEPTH_CEILING: usize = 256;
