//! Under which keys the index files a filter: a set such that every match hits at least one.
//!
//! No disjunctive normal form is built: a conjunction takes the keys of its cheapest term, a
//! disjunction those of all its terms, so a cover never has more keys than the filter has tests.
//! What only asks for absence or difference has no cover and is scanned.

use smol_str::SmolStr;

use super::ast::{Field, Test};
use super::normal::{Literal, Normal};
use super::number::{Number, Relation};
use super::pattern::subject_head;

/// Something that a message has or has not, looked up by hash.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) field: Field,
    pub(super) part: Part,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The field is present.
    Present,
    Equal(SmolStr),
    Prefix(SmolStr),
    Suffix(SmolStr),
    /// The upper `bits` bits of the number's image are those of `image`.
    Number {
        bits: u8,
        image: u64,
    },
}

/// Where a filter is filed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Route {
    /// It can never match, so nowhere.
    Never,
    /// It always matches.
    Always,
    Keys(Vec<Key>),
    /// It matches all messages but those with this value.
    AllBut(Field, SmolStr),
    /// Looked at for every message, unless it is known to fail a test of a group.
    Scan,
}

/// Where a filter is filed, and what has to be checked once it was found there.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(super) route: Route,
    /// `None`: found is matched.
    pub(super) residual: Option<Normal>,
}

impl Plan {
    /// Plans for a filter; `cost` tells what looking behind a key costs now.
    pub(super) fn new(normal: &Normal, cost: &mut impl FnMut(&Key) -> u64) -> Self {
        match normal {
            Normal::Constant(true) => return Self { route: Route::Always, residual: None },
            Normal::Constant(false) => return Self { route: Route::Never, residual: None },
            Normal::Literal(Literal { field, test: Test::Eq(value), holds: false }) => {
                let route = Route::AllBut(field.clone(), value.clone());
                return Self { route, residual: None };
            }
            _ => {}
        }
        let conjuncts = normal.conjuncts();
        if let Some((term, cover)) = Cover::cheapest(conjuncts, cost) {
            let mut keys = cover.keys;
            keys.sort_unstable();
            keys.dedup();
            let route = Route::Keys(keys);
            return match (cover.is_exact, conjuncts.len()) {
                (true, 1) => Self { route, residual: None },
                (true, _) => Self { route, residual: Some(normal.without(term)) },
                (false, _) => Self { route, residual: Some(normal.clone()) },
            };
        }
        Self { route: Route::Scan, residual: Some(normal.clone()) }
    }
}

impl Route {
    /// How many places in the index it takes.
    pub(super) fn entries(&self) -> usize {
        match self {
            Self::Never => 0,
            Self::Keys(keys) => keys.len(),
            Self::Always | Self::AllBut(..) | Self::Scan => 1,
        }
    }
}

struct Cover {
    keys: Vec<Key>,
    cost: u64,
    /// Whoever hits a key matches what is covered.
    is_exact: bool,
}

impl Cover {
    fn of(normal: &Normal, cost: &mut impl FnMut(&Key) -> u64) -> Option<Self> {
        match normal {
            Normal::Constant(_) => None,
            Normal::Literal(literal) => Self::of_literal(literal, cost),
            Normal::All(terms) => {
                let (_, cover) = Self::cheapest(terms, cost)?;
                Some(Self { is_exact: false, ..cover })
            }
            Normal::Any(terms) => {
                let mut whole = Self { keys: Vec::new(), cost: 0, is_exact: true };
                for term in terms {
                    let cover = Self::of(term, cost)?;
                    whole.cost += cover.cost;
                    whole.is_exact &= cover.is_exact;
                    whole.keys.extend(cover.keys);
                }
                Some(whole)
            }
        }
    }

    /// The cheapest cover of a conjunction: that of a term, or of an interval that two terms make;
    /// and the place of the term, or of the first of the two.
    fn cheapest(terms: &[Normal], cost: &mut impl FnMut(&Key) -> u64) -> Option<(usize, Self)> {
        if let [only] = terms {
            return Self::of(only, cost).map(|cover| (0, cover));
        }
        let single = terms.iter().map(|term| Self::of(term, cost)).enumerate();
        let single = single.filter_map(|(term, cover)| Some((term, cover?)));
        let best = single.min_by_key(|(_, cover)| cover.rank());
        let pairs = intervals(terms).into_iter().map(|(term, field, parts)| {
            let keys = parts.into_iter().map(|part| Key { field: field.clone(), part }).collect();
            (term, Self::of_keys(keys, false, cost))
        });
        best.into_iter().chain(pairs).min_by_key(|(_, cover)| cover.rank())
    }

    fn of_keys(keys: Vec<Key>, is_exact: bool, cost: &mut impl FnMut(&Key) -> u64) -> Self {
        let cost = keys.iter().map(cost).sum();
        Self { keys, cost, is_exact }
    }

    fn of_literal(literal: &Literal, cost: &mut impl FnMut(&Key) -> u64) -> Option<Self> {
        if !literal.holds {
            return None;
        }
        let key = |part| Key { field: literal.field.clone(), part };
        let head = |text: &str| match text {
            "" => Part::Present,
            text => Part::Prefix(text.into()),
        };
        let (part, is_exact) = match &literal.test {
            Test::Has => (Part::Present, true),
            Test::Eq(value) => (Part::Equal(value.clone()), true),
            Test::Prefix(prefix) => (Part::Prefix(prefix.clone()), true),
            Test::Suffix(suffix) => (Part::Suffix(suffix.clone()), true),
            Test::Number(relation, number) => {
                let keys = ranges(*relation, *number).into_iter().map(key).collect();
                return Some(Self::of_keys(keys, false, cost));
            }
            Test::Glob(glob) => (head(&glob.head()), false),
            Test::Subject(pattern) => (head(subject_head(pattern)), false),
            Test::Contains(_) | Test::IgnoreCase(_) | Test::Network(_) => (Part::Present, false),
            // Simplification leaves none of these.
            Test::Ne(_) | Test::In(_) => return None,
        };
        Some(Self::of_keys(vec![key(part)], is_exact, cost))
    }

    /// Cheaper first, then the longer value, which is the rarer one.
    fn rank(&self) -> (u64, std::cmp::Reverse<usize>) {
        (self.cost, std::cmp::Reverse(self.keys.iter().map(Key::length).sum()))
    }
}

impl Key {
    fn length(&self) -> usize {
        match &self.part {
            Part::Present => 0,
            Part::Equal(text) | Part::Prefix(text) | Part::Suffix(text) => text.len(),
            Part::Number { bits, .. } => usize::from(*bits) / 8,
        }
    }
}

/// The bounded intervals that numeric terms of a conjunction make: of each field with both a lower
/// and an upper bound, the place of a term and the ranges.
fn intervals(terms: &[Normal]) -> Vec<(usize, &Field, Vec<Part>)> {
    let mut intervals = Vec::new();
    let mut at = 0;
    // Terms are sorted, so those about one field stand together.
    for about in terms.chunk_by(|a, b| a.field().is_some() && a.field() == b.field()) {
        let bound = |wanted: [Relation; 2]| {
            about.iter().find_map(|term| match term {
                Normal::Literal(Literal {
                    test: Test::Number(relation, number), holds, ..
                }) => (*holds && wanted.contains(relation)).then(|| number.image()),
                _ => None,
            })
        };
        let lower = bound([Relation::Greater, Relation::GreaterOrEqual]);
        let upper = bound([Relation::Less, Relation::LessOrEqual]);
        if let (Some(from), Some(to)) = (lower, upper)
            && let Some(field) = about.first().and_then(Normal::field)
            // Bounds that exclude each other are not always found to be a contradiction.
            && from <= to
        {
            intervals.push((at, field, between(from, to)));
        }
        at += about.len();
    }
    intervals
}

/// Ranges of images that hold every number in this relation.
fn ranges(relation: Relation, number: Number) -> Vec<Part> {
    let image = number.image();
    match relation {
        Relation::Equal | Relation::NotEqual => between(image, image),
        Relation::Less | Relation::LessOrEqual => between(0, image),
        Relation::Greater | Relation::GreaterOrEqual => between(image, u64::MAX),
    }
}

/// Ranges of images, each all numbers with the same upper bits, that hold everything from `from` to
/// `to`. Two suffice: the interval is cut where its ends first differ, and each half has the
/// smallest range that holds it.
fn between(from: u64, to: u64) -> Vec<Part> {
    let common = (from ^ to).leading_zeros();
    if common == u64::BITS {
        return vec![Part::Number { bits: 64, image: from }];
    }
    let middle = to & !(u64::MAX >> common >> 1);
    [(from, middle - 1), (middle, to)].map(|(from, to)| enclosing(from, to)).into()
}

fn enclosing(from: u64, to: u64) -> Part {
    // Few different lengths are used, so that a message has few to look up.
    let common = (from ^ to).leading_zeros();
    let bits = if common == u64::BITS { 64 } else { common / BIT_STEP * BIT_STEP };
    Part::Number { bits: bits as u8, image: upper(from, bits) }
}

/// The upper `bits` of an image.
#[inline]
pub(super) fn upper(image: u64, bits: u32) -> u64 {
    if bits == 0 { 0 } else { image >> (u64::BITS - bits) << (u64::BITS - bits) }
}

/// Ranges have a multiple of so many bits in common.
const BIT_STEP: u32 = 4;
