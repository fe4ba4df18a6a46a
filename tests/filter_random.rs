//! Random filters against a naive model that is readable as the specification.
//!
//! The model is a tree of its own with a recursive evaluation over nested vectors, built into a
//! filter in two ways: by the combinators, and by writing it as text in a random one of the many
//! spellings the grammar allows. All must agree: trees, canonical text, verdicts, index. Random
//! garbage must never panic. Each failure names the seed of its round.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use siftbus::Filter;
use siftbus::filter::{ParseLimits, quote};
use siftbus::{Bus, Message, Subscription, SubscriptionConfig, TopicConfig};

type Attributes = BTreeMap<&'static str, &'static str>;

const KEYS: [&str; 8] = ["a", "b", "-x", "AND", "attributes", "two words", "k\"\\\n", "é"];
const VALUES: [&str; 8] = ["", "c", "co", "com", "com\"", "\\u0041", "\u{1}é😀", "AND (-"];

/// The syntax tree of the specification, with groups of two terms or more.
#[derive(Debug, Clone)]
enum Model {
    Has(&'static str),
    Eq(&'static str, &'static str),
    Ne(&'static str, &'static str),
    Prefix(&'static str, &'static str),
    Not(Box<Model>),
    And(Vec<Model>),
    Or(Vec<Model>),
}

impl Model {
    fn random(random: &mut Random, depth: usize) -> Self {
        let (key, value) = (random.pick(&KEYS), random.pick(&VALUES));
        let terms = |random: &mut Random| {
            let count = 2 + random.below(3);
            (0..count).map(|_| Self::random(random, depth - 1)).collect()
        };
        match random.below(if depth == 0 { 4 } else { 8 }) {
            0 => Self::Has(key),
            1 => Self::Eq(key, value),
            2 => Self::Ne(key, value),
            3 => Self::Prefix(key, value),
            4 => Self::Not(Box::new(Self::random(random, depth - 1))),
            5 | 6 => Self::And(terms(random)),
            _ => Self::Or(terms(random)),
        }
    }

    fn matches(&self, attributes: &Attributes) -> bool {
        match self {
            Self::Has(key) => attributes.contains_key(key),
            Self::Eq(key, value) => attributes.get(key) == Some(value),
            Self::Ne(key, value) => attributes.get(key) != Some(value),
            Self::Prefix(key, prefix) => attributes
                .get(key)
                .is_some_and(|value| value.as_bytes().starts_with(prefix.as_bytes())),
            Self::Not(inner) => !inner.matches(attributes),
            Self::And(terms) => terms.iter().all(|term| term.matches(attributes)),
            Self::Or(terms) => terms.iter().any(|term| term.matches(attributes)),
        }
    }

    fn build(&self) -> Filter {
        let join = |terms: &[Model], join: fn(&Filter, &Filter) -> Filter| {
            terms.iter().map(Self::build).reduce(|a, b| join(&a, &b)).unwrap()
        };
        match self {
            Self::Has(key) => Filter::has(key),
            Self::Eq(key, value) => Filter::eq(key, value),
            // There is no combinator for `!=`, which is not the same tree as NOT `=`.
            Self::Ne(key, value) => {
                Filter::parse(&format!("attributes.{} != {}", quote(key), quote(value))).unwrap()
            }
            Self::Prefix(key, prefix) => Filter::prefix(key, prefix),
            Self::Not(inner) => inner.build().not().unwrap(),
            Self::And(terms) => join(terms, |a, b| a.and(b).unwrap()),
            Self::Or(terms) => join(terms, |a, b| a.or(b).unwrap()),
        }
    }

    /// Appends the model in some spelling. A group is written without parentheses only where
    /// `bare` allows for it.
    fn write(&self, random: &mut Random, bare: bool, out: &mut String) {
        let group = matches!(self, Self::And(_) | Self::Or(_));
        if (group && !bare) || random.below(6) == 0 {
            out.push('(');
            space(random, out);
            self.write(random, true, out);
            space(random, out);
            out.push(')');
            return;
        }
        match self {
            Self::Has(key) => {
                for part in ["attributes", ":"] {
                    out.push_str(part);
                    space(random, out);
                }
                write_key(key, random, out);
            }
            Self::Eq(key, value) => write_comparison(key, "=", value, random, out),
            Self::Ne(key, value) => write_comparison(key, "!=", value, random, out),
            Self::Prefix(key, prefix) => {
                for part in ["hasPrefix", "(", "attributes."] {
                    space(random, out);
                    out.push_str(part);
                }
                write_key(key, random, out);
                space(random, out);
                out.push(',');
                space(random, out);
                write_string(prefix, random, out);
                space(random, out);
                out.push(')');
            }
            Self::Not(inner) => {
                out.push_str(random.pick(&["-", "- ", "NOT ", "NOT\n"]));
                inner.write(random, false, out);
            }
            Self::And(terms) => write_terms(terms, " AND ", random, out),
            Self::Or(terms) => write_terms(terms, "\tOR\r\n", random, out),
        }
    }
}

fn write_terms(terms: &[Model], operator: &str, random: &mut Random, out: &mut String) {
    for (i, term) in terms.iter().enumerate() {
        out.push_str(if i > 0 { operator } else { "" });
        term.write(random, false, out);
    }
}

fn write_comparison(key: &str, symbol: &str, value: &str, random: &mut Random, out: &mut String) {
    out.push_str("attributes.");
    write_key(key, random, out);
    space(random, out);
    out.push_str(symbol);
    space(random, out);
    write_string(value, random, out);
}

fn write_key(key: &str, random: &mut Random, out: &mut String) {
    let bare = key.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if bare && random.below(2) == 0 { out.push_str(key) } else { write_string(key, random, out) }
}

fn write_string(text: &str, random: &mut Random, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        let code = u32::from(c);
        match random.below(4) {
            0 if code <= 0xFF => out.push_str(&format!("\\x{code:02x}")),
            1 if code <= 0xFF => out.push_str(&format!("\\{code:03o}")),
            2 if code <= 0xFFFF => out.push_str(&format!("\\u{code:04X}")),
            3 => out.push_str(&format!("\\U{code:08x}")),
            _ => out.push_str(quote(&c.to_string()).get(1..).unwrap().strip_suffix('"').unwrap()),
        }
    }
    out.push('"');
}

fn space(random: &mut Random, out: &mut String) {
    out.push_str(random.pick(&["", "", "", " ", "\t", "\r\n", "  "]));
}

#[test]
fn every_spelling_is_the_same_filter() {
    let mut limits = ParseLimits::EMBEDDED;
    limits.max_bytes = 1 << 20;
    for seed in 0..3_000 {
        let random = &mut Random(seed);
        let model = Model::random(random, 4);
        let built = model.build();
        let mut text = String::new();
        model.write(random, true, &mut text);
        let context = format!("seed {seed}: {text:?}");
        let parsed =
            Filter::parse_with(&text, limits).unwrap_or_else(|e| panic!("{context}\n{e:#}"));

        assert_eq!(parsed, built, "{context}");
        assert_eq!(hash(&parsed), hash(&built), "{context}");
        assert_eq!(parsed.source(), text);
        let canonical = parsed.to_string();
        assert_eq!(canonical, built.to_string(), "{context}");
        let again = Filter::parse_with(&canonical, limits).unwrap();
        assert_eq!((&again, again.to_string()), (&parsed, canonical), "{context}");

        for _ in 0..8 {
            let attributes = attributes(random);
            let verdict = parsed.matches_with(|key| attributes.get(key).copied());
            assert_eq!(verdict, model.matches(&attributes), "{context} on {attributes:?}");
        }
    }
}

#[tokio::test]
async fn a_topic_agrees_with_the_model_under_churn() -> Result<(), Box<dyn std::error::Error>> {
    for seed in 0..50 {
        let random = &mut Random(seed);
        let bus = Bus::builder().seed(seed).build();
        let topic = bus.create_topic("churn", TopicConfig::new()).await?;
        let mut attached: Vec<(Model, Subscription)> = Vec::new();
        for id in 0..60 {
            if random.below(3) == 0 && !attached.is_empty() {
                let (_, subscription) = attached.swap_remove(random.below(attached.len()));
                subscription.delete().await?;
            } else {
                let depth = random.below(2);
                let model = Model::random(random, depth);
                let config = SubscriptionConfig::new().filter(model.build());
                attached.push((model, topic.subscribe(&id.to_string(), config).await?));
            }
            let attributes = attributes(random);
            let receipt = topic.publish(Message::default().with_attributes(&attributes)).await?;
            let mut recipients = 0;
            for (model, subscription) in &attached {
                let got = subscription.try_pull(10)?;
                assert_eq!(got.len() == 1, model.matches(&attributes), "seed {seed}");
                recipients += got.len();
                got.ack_all();
            }
            assert_eq!(receipt.recipients(), Some(recipients), "seed {seed}");
        }
    }
    Ok(())
}

/// Pieces of filters in any order reach deep into the parser; most are errors, none a panic.
#[test]
fn hostile_input_is_refused_in_order() {
    let pieces = [
        "attributes",
        "hasPrefix",
        "AND",
        "OR",
        "NOT",
        "and",
        "IN",
        "message",
        "ordering_key",
        "(",
        ")",
        "\"",
        "\"x\"",
        "'",
        "\\",
        "\\u00",
        "\\x4",
        ".",
        ":",
        ",",
        "=",
        "!",
        "<",
        "-",
        "&&",
        " ",
        "\t",
        "\n",
        "\0",
        "a",
        "b1",
        "é",
        "😀",
        "\u{A0}",
        "\u{FEFF}",
        "\u{202E}",
        "[",
        "#",
        "attributes:a",
        "attributes.a = \"b\"",
        "hasPrefix(attributes.a, \"b\")",
        " AND ",
        " OR ",
    ];
    let mut valid = 0;
    for seed in 0..60_000 {
        let random = &mut Random(seed);
        let count = 1 + random.below(12);
        let source: String = (0..count).map(|_| random.pick(&pieces)).collect();
        valid += usize::from(judge(&source, seed));
    }
    assert!(valid > 500, "only {valid} valid filters: the pieces miss the grammar");
}

/// Valid filters with a few characters removed, doubled or swapped.
#[test]
fn nearly_valid_input_is_refused_in_order() {
    for seed in 0..20_000 {
        let random = &mut Random(seed);
        let mut text = String::new();
        Model::random(random, 2).write(random, true, &mut text);
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..1 + random.below(3) {
            let at = random.below(chars.len());
            match random.below(3) {
                0 if chars.len() > 1 => drop(chars.remove(at)),
                1 => chars.insert(at, chars[at]),
                _ => chars.swap(at, 0),
            }
        }
        judge(&chars.into_iter().collect::<String>(), seed);
    }
}

/// Whether the text is a filter; either way everything about the answer holds together.
fn judge(source: &str, seed: u64) -> bool {
    let limits = ParseLimits::EMBEDDED;
    match Filter::parse_with(source, limits) {
        Ok(filter) => {
            let again = Filter::parse_with(&filter.to_string(), limits).unwrap();
            assert_eq!(again, filter, "seed {seed}: {source:?}");
            true
        }
        Err(error) => {
            assert!(source.get(error.span()).is_some(), "seed {seed}: {source:?}");
            assert!(error.found().chars().count() <= 32, "seed {seed}: {source:?}");
            let line = error.to_string();
            assert!(!line.contains(char::is_control), "seed {seed}: {line:?}");
            let lines = format!("{error:#}");
            assert_eq!(lines.lines().count(), 4, "seed {seed}: {lines}");
            false
        }
    }
}

/// A filter that costs more than linear time would not finish: each is a megabyte or more.
#[test]
fn long_input_is_linear() {
    let mut limits = ParseLimits::EMBEDDED;
    limits.max_bytes = usize::MAX;
    limits.max_depth = usize::MAX;
    limits.max_predicates = usize::MAX;
    let n = 1 << 20;
    let wide = format!("{}attributes:a", "attributes:a AND ".repeat(n / 16));
    assert!(Filter::parse_with(&wide, limits).unwrap().matches_with(|_| Some("")));
    let string = format!("attributes.a = \"{}\"", "\\n".repeat(n));
    assert!(Filter::parse_with(&string, limits).is_ok());
    for garbage in ["-", "(", " ", "a", "é", "\"", "'", "!", "&", "attributes.", "attributes:a."] {
        let long = garbage.repeat(n);
        assert_eq!(Filter::parse_with(&long, limits).is_ok(), garbage == " ", "{garbage}");
        let behind = format!("attributes:a {long}");
        assert_eq!(Filter::parse_with(&behind, limits).is_ok(), garbage == " ", "{garbage}");
    }
}

fn attributes(random: &mut Random) -> Attributes {
    let count = random.below(6);
    (0..count).map(|_| (random.pick(&KEYS), random.pick(&VALUES))).collect()
}

fn hash(filter: &Filter) -> u64 {
    let mut hasher = DefaultHasher::new();
    filter.hash(&mut hasher);
    hasher.finish()
}

/// SplitMix64: small, seedable, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}
