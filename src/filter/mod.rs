//! Filters: which messages of a topic a subscription gets, decided by their attributes.
//!
//! Text is parsed (`parse.rs`, `terms.rs`; mistakes are explained by `slips.rs`) into a tree
//! (`ast.rs`), the tree is compiled into a flat program (`program.rs`), and an index
//! (`index.rs`) matches many filters against one message. This module is pure: it knows nothing
//! of messages, topics or locks, and gets attributes through a look-up function.
//!
//! There are two dialects: the strict one, that of the service, and an extended one that has all
//! of it. A filter never fails on a message. A literal filter cannot be checked at compile time:
//! the parser builds strings and trees, which a `const fn` cannot, and a second parser that only
//! judges would have to be kept equal to it; parse in a `LazyLock`, or test it.

mod ast;
mod clauses;
mod cover;
mod error;
mod extended;
mod hash;
mod index;
mod limits;
mod normal;
mod number;
mod parse;
mod pattern;
mod program;
mod slips;
mod table;
mod terms;
mod text;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{Deserialize, Deserializer, Error as _};
use serde::ser::{Serialize, Serializer};

pub use self::error::{CombineError, ParseError, ParseErrorKind};
pub use self::extended::MAX_LIST_VALUES;
pub(crate) use self::index::{Counts, FilterIndex, Subject};
pub use self::limits::{
    DEPTH_CEILING, EMBEDDED_MAX_BYTES, EMBEDDED_MAX_PREDICATES, MAX_DEPTH, ParseLimits,
    STRICT_MAX_BYTES, STRICT_MAX_PREDICATES,
};
pub(crate) use self::normal::Normal;
pub use self::number::MAX_NUMBER_BYTES;
pub use self::pattern::MAX_GLOB_RUN;
pub use self::text::quote;

use self::ast::{Expr, Field, Operator, Test};
use self::program::{Program, Value};

/// How much of the language a filter may use. The greater has everything that the smaller has, with
/// the same meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Dialect {
    /// What the service has.
    Strict,
    /// Numbers, lists, patterns, networks and fields of the message besides.
    Extended,
}

/// A condition on the attributes of a message.
///
/// | form | true when |
/// | --- | --- |
/// | (empty) | always |
/// | `attributes:KEY` | the attribute is present, be it empty |
/// | `attributes.KEY = "V"` | present and equal |
/// | `attributes.KEY != "V"` | **absent**, or present and different |
/// | `hasPrefix(attributes.KEY, "P")` | present and beginning with `P` |
/// | `NOT x`, `-x`, `x AND y`, `x OR y`, `( … )` | as usual |
///
/// There is no third truth value: an absent attribute makes every test false except `!=`.
/// Filters ported from SQL or JMS selectors, where `<>` is not true of an absent attribute, need
/// `attributes:k AND attributes.k != "v"`. AND and OR cannot be mixed without parentheses. Keys
/// with characters other than letters, digits, `-` and `_` are written as strings.
///
/// Clones share one allocation. Two filters are equal if they say the same in the same order,
/// however they are spaced or parenthesised. Serialized, a filter is its text.
///
/// ```
/// use siftbus::Filter;
///
/// let filter = Filter::parse(r#"attributes.region = "eu" AND NOT attributes:test"#)?;
/// assert!(filter.matches_with(|key| (key == "region").then_some("eu")));
/// assert!(!filter.matches_with(|_| Some("eu")));
/// # Ok::<(), siftbus::filter::ParseError>(())
/// ```
#[derive(Clone)]
pub struct Filter {
    inner: Arc<Inner>,
}

struct Inner {
    source: Box<str>,
    /// `None` matches everything.
    expr: Option<Expr>,
    program: Program<Field>,
}

impl Filter {
    /// Parses a filter within [`ParseLimits::STRICT`]: 256 bytes, 128 levels, 64 predicates.
    ///
    /// # Errors
    ///
    /// [`ParseError`] describes the first mistake.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// let filter = Filter::parse(r#"hasPrefix(attributes.type, "order.")"#)?;
    /// assert!(filter.matches_with(|_| Some("order.created")));
    /// assert!(Filter::parse("type = order").is_err());
    /// # Ok::<(), siftbus::filter::ParseError>(())
    /// ```
    pub fn parse(source: &str) -> Result<Self, ParseError> {
        Self::parse_with(source, ParseLimits::STRICT)
    }

    /// Parses a filter within limits of your own.
    ///
    /// # Errors
    ///
    /// [`ParseError`] describes the first mistake.
    ///
    /// ```
    /// use siftbus::Filter;
    /// use siftbus::filter::{ParseErrorKind, ParseLimits};
    ///
    /// let mut limits = ParseLimits::EMBEDDED;
    /// limits.max_depth = 1;
    /// assert!(Filter::parse_with("-attributes:a", limits).is_ok());
    /// let error = Filter::parse_with("--attributes:a", limits).unwrap_err();
    /// assert_eq!(error.kind(), ParseErrorKind::TooDeep { max: 1 });
    /// ```
    pub fn parse_with(source: &str, limits: ParseLimits) -> Result<Self, ParseError> {
        let expr = parse::parse(source, limits)?;
        Ok(Self::new(source.into(), expr))
    }

    /// Parses a filter of the extended dialect within [`ParseLimits::EXTENDED`]: 4,096 bytes, 128
    /// levels, 512 predicates.
    ///
    /// Whatever the strict dialect has means the same here. Besides:
    ///
    /// | form | true when |
    /// | --- | --- |
    /// | `attributes.KEY < 5`, `<=`, `>`, `>=`, `= 5` | present, a number, and so related |
    /// | `attributes.KEY != 5` | not `= 5`: also where it is absent or no number |
    /// | `attributes.KEY IN ("a", "b", 3)` | equal to one of at most 256 values |
    /// | `hasSuffix(attributes.KEY, "s")`, `contains(…)` | ending with it, having it inside |
    /// | `equalsIgnoreCase(attributes.KEY, "v")` | equal but for the case of ASCII letters |
    /// | `matchesGlob(attributes.KEY, "a*b?")` | `*` any run, `?` one character |
    /// | `matchesSubject(attributes.KEY, "orders.*.>")` | tokens; a final `>` is one or more |
    /// | `inCidr(attributes.KEY, "10.0.0.0/8")` | an IPv4 or IPv6 address inside |
    /// | `message.ordering_key`, `message:ordering_key` | as an attribute; empty is absent |
    /// | `message.data_size`, `message.attribute_count` | numbers |
    /// | `true`, `false` | always, never |
    ///
    /// Strings may stand in single quotes. Numbers are decimal and have at most 40 bytes; two
    /// integers that fit 128 bits compare exactly, anything else as `f64`. In a glob `\*`, `\?` and
    /// `\\` stand for themselves; in a string of the filter their backslash is written twice.
    ///
    /// # Errors
    ///
    /// [`ParseError`] describes the first mistake.
    ///
    /// ```
    /// use siftbus::{Filter, Message};
    ///
    /// let filter = Filter::parse_extended("attributes.size >= 10 AND attributes.size < 100")?;
    /// assert!(filter.matches(&Message::new("x").with_attribute("size", "42")));
    /// assert!(!filter.matches(&Message::new("x").with_attribute("size", "large")));
    /// # Ok::<(), siftbus::filter::ParseError>(())
    /// ```
    pub fn parse_extended(source: &str) -> Result<Self, ParseError> {
        Self::parse_with(source, ParseLimits::EXTENDED)
    }

    /// The filter that matches every message; its text is empty. The default.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// assert!(Filter::all().matches_with(|_| None));
    /// assert_eq!(Filter::all(), Filter::parse("  ").unwrap());
    /// ```
    pub fn all() -> Self {
        Self::new("".into(), None)
    }

    /// `attributes.KEY = "VALUE"`, for any key and value.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// let filter = Filter::eq("job", r#"17" OR attributes:x"#);
    /// assert_eq!(filter.source(), r#"attributes.job = "17\" OR attributes:x""#);
    /// ```
    pub fn eq(key: &str, value: &str) -> Self {
        Self::constructed(Expr::predicate(key, Test::Eq(value.into())))
    }

    /// `attributes:KEY`, for any key.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// assert_eq!(Filter::has("two words").source(), r#"attributes:"two words""#);
    /// ```
    pub fn has(key: &str) -> Self {
        Self::constructed(Expr::predicate(key, Test::Has))
    }

    /// `hasPrefix(attributes.KEY, "PREFIX")`, for any key and prefix.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// assert!(Filter::prefix("type", "order.").matches_with(|_| Some("order.created")));
    /// ```
    pub fn prefix(key: &str, prefix: &str) -> Self {
        Self::constructed(Expr::predicate(key, Test::Prefix(prefix.into())))
    }

    /// Both filters at once. Its text is canonical and may be longer than a filter handed in as
    /// text may be.
    ///
    /// # Errors
    ///
    /// [`CombineError::TooDeep`] and [`CombineError::TooManyPredicates`] if the result would
    /// exceed [`MAX_DEPTH`] or [`EMBEDDED_MAX_PREDICATES`].
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// let filter = Filter::eq("region", "eu").and(&Filter::has("test").not()?)?;
    /// assert_eq!(filter.source(), r#"attributes.region = "eu" AND NOT attributes:test"#);
    /// # Ok::<(), siftbus::filter::CombineError>(())
    /// ```
    pub fn and(&self, other: &Self) -> Result<Self, CombineError> {
        match (&self.inner.expr, &other.inner.expr) {
            (None, _) => Ok(other.clone()),
            (_, None) => Ok(self.clone()),
            (Some(a), Some(b)) => Self::combined(Operator::And, a, b),
        }
    }

    /// Either filter or both. Its text is canonical and may be longer than a filter handed in as
    /// text may be.
    ///
    /// # Errors
    ///
    /// As [`and`](Self::and).
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// let filter = Filter::has("a").or(&Filter::has("b"))?;
    /// assert_eq!(filter.source(), "attributes:a OR attributes:b");
    /// assert!(filter.or(&Filter::all())?.is_all());
    /// # Ok::<(), siftbus::filter::CombineError>(())
    /// ```
    pub fn or(&self, other: &Self) -> Result<Self, CombineError> {
        match (&self.inner.expr, &other.inner.expr) {
            (None, _) => Ok(self.clone()),
            (_, None) => Ok(other.clone()),
            (Some(a), Some(b)) => Self::combined(Operator::Or, a, b),
        }
    }

    /// The opposite filter.
    ///
    /// # Errors
    ///
    /// [`CombineError::TooDeep`] if the result would exceed [`MAX_DEPTH`], and
    /// [`CombineError::MatchesNothing`] for the filter that matches everything.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// assert_eq!(Filter::has("a").not()?, Filter::parse("-attributes:a").unwrap());
    /// # Ok::<(), siftbus::filter::CombineError>(())
    /// ```
    pub fn not(&self) -> Result<Self, CombineError> {
        let expr = self.inner.expr.clone().ok_or(CombineError::MatchesNothing)?;
        Self::checked(expr.negated(1))
    }

    /// Whether a message matches, given its attributes by a look-up.
    ///
    /// Takes time linear in the number of predicates and allocates nothing. Fields of the message
    /// count as absent. The look-up may be
    /// asked for the same key more than once and must answer the same.
    ///
    /// ```
    /// use siftbus::Filter;
    /// use std::collections::HashMap;
    ///
    /// let attributes = HashMap::from([("region", "eu")]);
    /// let lookup = |key: &str| attributes.get(key).copied();
    /// assert!(Filter::eq("region", "eu").matches_with(lookup));
    /// assert!(!Filter::has("tenant").matches_with(lookup));
    /// ```
    pub fn matches_with<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.inner.program.run(|field| match field {
            Field::Attribute(key) => lookup(key).map(|value| Value::Text(value.as_bytes())),
            _ => None,
        })
    }

    /// Whether a message matches; unlike the other forms this sees its ordering key, size and
    /// count of attributes too.
    ///
    /// ```
    /// use siftbus::{Filter, Message};
    ///
    /// let message = Message::new("paid").with_attribute("region", "eu");
    /// assert!(Filter::eq("region", "eu").matches(&message));
    /// ```
    pub fn matches(&self, message: &crate::Message) -> bool {
        self.inner.program.run(|field| match field {
            Field::Attribute(key) => {
                message.attribute(key).map(|value| Value::Text(value.as_bytes()))
            }
            Field::OrderingKey => {
                let key = message.ordering_key();
                (!key.is_empty()).then_some(Value::Text(key.as_bytes()))
            }
            Field::DataSize => Some(Value::Number(message.data().len() as u64)),
            Field::AttributeCount => Some(Value::Number(message.attributes().len() as u64)),
        })
    }

    /// The smallest dialect that has everything in this filter.
    ///
    /// ```
    /// use siftbus::Filter;
    /// use siftbus::filter::Dialect;
    ///
    /// assert_eq!(Filter::eq("region", "eu").dialect(), Dialect::Strict);
    /// ```
    pub fn dialect(&self) -> Dialect {
        self.inner.expr.as_ref().map_or(Dialect::Strict, Expr::dialect)
    }

    /// The filter simplified, for the index.
    pub(crate) fn normal(&self) -> Normal {
        Normal::of(self.inner.expr.as_ref())
    }

    /// Whether a message with these attributes matches. Meant for filters without fields of the
    /// message, which count as absent here.
    ///
    /// ```
    /// use siftbus::{Attributes, Filter};
    ///
    /// let attributes = Attributes::from_iter([("region", "eu")]);
    /// assert!(Filter::eq("region", "eu").matches_attributes(&attributes));
    /// assert!(!Filter::has("tenant").matches_attributes(&attributes));
    /// ```
    pub fn matches_attributes(&self, attributes: &crate::Attributes) -> bool {
        self.matches_with(|key| attributes.get(key))
    }

    /// The text exactly as it was given to the parser; canonical if the filter was constructed.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// let filter = Filter::parse(" ( attributes:a )")?;
    /// assert_eq!(filter.source(), " ( attributes:a )");
    /// assert_eq!(filter.to_string(), "attributes:a");
    /// # Ok::<(), siftbus::filter::ParseError>(())
    /// ```
    pub fn source(&self) -> &str {
        &self.inner.source
    }

    /// Whether the filter is empty and so matches every message. Other filters that happen to
    /// be always true are not recognised.
    ///
    /// ```
    /// use siftbus::Filter;
    ///
    /// assert!(Filter::default().is_all());
    /// assert!(!Filter::has("a").is_all());
    /// ```
    pub fn is_all(&self) -> bool {
        self.inner.expr.is_none()
    }

    fn combined(operator: Operator, a: &Expr, b: &Expr) -> Result<Self, CombineError> {
        Self::checked(Expr::group(operator, vec![a.clone(), b.clone()]))
    }

    fn checked(expr: Expr) -> Result<Self, CombineError> {
        let size = expr.size();
        if size.nesting > MAX_DEPTH {
            return Err(CombineError::TooDeep { max: MAX_DEPTH });
        }
        if size.predicates > EMBEDDED_MAX_PREDICATES {
            let (len, max) = (size.predicates, EMBEDDED_MAX_PREDICATES);
            return Err(CombineError::TooManyPredicates { len, max });
        }
        Ok(Self::constructed(expr))
    }

    fn constructed(expr: Expr) -> Self {
        Self::new(expr.to_string().into(), Some(expr))
    }

    fn new(source: Box<str>, expr: Option<Expr>) -> Self {
        let program = Program::compile(expr.as_ref());
        Self { inner: Arc::new(Inner { source, expr, program }) }
    }
}

/// The canonical text. Parsing it gives an equal filter, provided the limits allow for it: it
/// can be longer than the source.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner.expr {
            None => Ok(()),
            Some(expr) => expr.fmt(f),
        }
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.source()).finish()
    }
}

impl Default for Filter {
    fn default() -> Self {
        Self::all()
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.inner.expr == other.inner.expr
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inner.expr.hash(state);
    }
}

/// As [`Filter::parse`].
impl FromStr for Filter {
    type Err = ParseError;

    fn from_str(source: &str) -> Result<Self, ParseError> {
        Self::parse(source)
    }
}

impl Serialize for Filter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.source())
    }
}

/// Reads the text within [`ParseLimits::EXTENDED`]. Which dialect a bus takes is its own decision
/// (`Limits::filter_dialect`).
impl<'de> Deserialize<'de> for Filter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let source = String::deserialize(deserializer)?;
        Self::parse_with(&source, ParseLimits::EXTENDED).map_err(D::Error::custom)
    }
}
