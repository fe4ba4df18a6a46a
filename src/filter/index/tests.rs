//! The index against direct evaluation of every filter, under random change.

use super::fields::MAX_LENGTHS;
use super::filing::CROWDED;
use super::keys::Kind;
use super::node::ListId;
use super::*;
use crate::filter::Filter;
use crate::filter::ast::Field;
use crate::filter::program::{Program, Value};
use crate::message::Message;

/// SplitMix64: small, seedable, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        (crate::ack_id::mix(self.0) % bound as u64) as usize
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }

    fn value(&mut self) -> String {
        let plain =
            ["", "a", "ab", "abc", "b", "5", "-1.5", "10", "1e2", "10.0.0.1", "x.y", "x.y.z"];
        self.pick(&plain).to_owned()
    }

    fn predicate(&mut self) -> String {
        let field = match self.below(8) {
            0 => "message.ordering_key".to_owned(),
            key => format!("attributes.{}", ["k", "l", "m"][key % 3]),
        };
        let (value, number) = (self.value(), self.below(20) as i64 - 5);
        match self.below(20) {
            0..4 => format!("{field} = \"{value}\""),
            4 => format!("{field} != \"{value}\""),
            5 => field.replacen('.', ":", 1),
            6 | 7 => format!("hasPrefix({field}, \"{value}\")"),
            8 => format!("hasSuffix({field}, \"{value}\")"),
            9 => format!("contains({field}, \"{value}\")"),
            10 => format!("equalsIgnoreCase({field}, \"{}\")", value.to_uppercase()),
            11 => format!("matchesGlob({field}, \"{value}*{}\")", self.pick(&["", "?", "b*"])),
            12 => format!("matchesSubject({field}, \"{}\")", self.pick(&["x.*", "x.>", "*", ">"])),
            13 => format!("inCidr({field}, \"10.0.0.0/8\")"),
            14 => format!("{field} IN (\"{value}\", {number}, '{}')", self.value()),
            15 => format!("message.data_size {} {}", self.pick(&["<", ">=", "="]), self.below(4)),
            16 => format!("message.attribute_count > {}", self.below(3)),
            17 => self.pick(&["true", "false"]).to_owned(),
            _ => format!("{field} {} {number}", self.pick(&["<", "<=", ">", ">=", "=", "!="])),
        }
    }

    fn filter(&mut self, depth: usize) -> String {
        match self.below(if depth == 0 { 2 } else { 6 }) {
            0 | 1 => self.predicate(),
            2 => format!("NOT ({})", self.filter(depth - 1)),
            choice => {
                let operator = if choice == 3 { " OR " } else { " AND " };
                let count = 2 + self.below(2);
                let terms: Vec<_> =
                    (0..count).map(|_| format!("({})", self.filter(depth - 1))).collect();
                terms.join(operator)
            }
        }
    }

    fn message(&mut self) -> Message {
        let mut message = Message::new("x".repeat(self.below(4)));
        for key in ["k", "l", "m", "n"] {
            if self.below(3) > 0 {
                message = message.with_attribute(key, self.value());
            }
        }
        if self.below(3) == 0 { message.with_ordering_key(self.value()) } else { message }
    }
}

/// An index with the filters that it should have.
struct Pair {
    index: FilterIndex<u32>,
    filters: Vec<(u32, u32, Filter, Normal)>,
    next: u32,
}

impl Pair {
    fn new(seed: u64) -> Self {
        Self { index: FilterIndex::new(seed), filters: Vec::new(), next: 0 }
    }

    /// Adds a filter unless one that says the same is there.
    fn add(&mut self, text: &str) {
        let filter = Filter::parse_extended(text).unwrap_or_else(|e| panic!("{text}: {e:#}"));
        let normal = filter.normal();
        if self.filters.iter().all(|(.., other)| *other != normal) {
            let plan = self.index.plan(&normal);
            let number = self.index.insert(Arc::new(normal.clone()), plan, self.next);
            self.filters.push((number, self.next, filter, normal));
            self.next += 1;
        }
    }

    fn remove(&mut self, at: usize) {
        let (number, ..) = self.filters.swap_remove(at);
        self.index.remove(number);
    }

    fn check(&self, messages: &[Message], context: &str) {
        let mut found = vec![Vec::new(); messages.len()];
        self.index.matching(messages, |at, value| found[at as usize].push(value));
        for (message, mut found) in messages.iter().zip(found) {
            let matching = self.filters.iter().filter(|(_, _, filter, _)| filter.matches(message));
            let mut expected: Vec<u32> = matching.map(|(_, value, ..)| *value).collect();
            found.sort_unstable();
            expected.sort_unstable();
            let text = |value: &u32| {
                let found = self.filters.iter().find(|(_, other, ..)| other == value);
                found.map(|(_, _, filter, _)| filter.source().to_owned())
            };
            let missing: Vec<_> =
                expected.iter().filter(|v| !found.contains(v)).map(text).collect();
            let surplus: Vec<_> =
                found.iter().filter(|v| !expected.contains(v)).map(text).collect();
            assert!(
                missing.is_empty() && surplus.is_empty(),
                "{context}: {message:?}: missing {missing:?}, surplus {surplus:?}"
            );
            // F-4.5: none twice, also where several keys lead to a filter.
            assert_eq!(found, expected, "{context}: {message:?}");
        }
        let counts = self.index.counts();
        let all = counts.exact + counts.indexed + counts.presence + counts.scan + counts.constant;
        assert_eq!(all, self.filters.len(), "{context}");
    }
}

#[test]
fn agrees_with_direct_evaluation_under_change() {
    for seed in 0..60 {
        let mut random = Random(seed);
        let mut pair = Pair::new(seed);
        for round in 0..60 {
            for _ in 0..random.below(8) {
                let text = random.filter(3);
                pair.add(&text);
            }
            for _ in 0..random.below(6).min(pair.filters.len()) {
                pair.remove(random.below(pair.filters.len()));
            }
            let messages: Vec<_> = (0..1 + random.below(40)).map(|_| random.message()).collect();
            pair.check(&messages, &format!("seed {seed}, round {round}"));
        }
        while !pair.filters.is_empty() {
            pair.remove(random.below(pair.filters.len()));
        }
        pair.check(&[random.message()], &format!("seed {seed}, empty"));
        assert_eq!(pair.index.counts(), Counts::default());
        assert!(pair.index.keys.is_empty() && pair.index.fields.is_empty());
        assert!(pair.index.groups.is_empty() && pair.index.exclusions.is_empty());
    }
}

#[test]
fn what_is_simplified_matches_the_same() {
    for seed in 0..20_000 {
        let mut random = Random(seed);
        let text = random.filter(4);
        let Ok(filter) = Filter::parse_extended(&text) else { continue };
        let program = Program::of_normal(&filter.normal(), &mut Field::clone);
        for _ in 0..8 {
            let message = random.message();
            let verdict = program.run(|field| match field {
                Field::Attribute(key) => {
                    message.attribute(key).map(|value| Value::Text(value.as_bytes()))
                }
                Field::OrderingKey => {
                    let key = message.ordering_key();
                    (!key.is_empty()).then_some(Value::Text(key.as_bytes()))
                }
                Field::DataSize => Some(Value::Number(message.data().len() as u64)),
                Field::AttributeCount => Some(Value::Number(message.attributes().len() as u64)),
            });
            assert_eq!(verdict, filter.matches(&message), "seed {seed}: {text} on {message:?}");
        }
    }
}

#[test]
fn at_most_so_many_lengths_of_prefixes_are_looked_up() {
    let mut pair = Pair::new(1);
    let alternatives: Vec<_> =
        (1..=40).map(|n| format!("hasPrefix(attributes.k, \"{}\")", "a".repeat(n * 2))).collect();
    pair.add(&alternatives.join(" OR "));
    alternatives.iter().for_each(|text| pair.add(text));
    (1..=40).for_each(|n| pair.add(&format!("hasSuffix(attributes.k, \"{}\")", "é".repeat(n))));
    let entry = pair.index.fields.get(pair.index.fields.find_name(b"k").unwrap()).unwrap();
    // F-4.4: a further length is rounded down, and what it stands for still matches.
    assert_eq!((entry.prefixes.0.len(), entry.suffixes.0.len()), (MAX_LENGTHS, MAX_LENGTHS));
    for length in 0..90 {
        let message = |text: &str| Message::new("").with_attribute("k", text.repeat(length));
        pair.check(&[message("a"), message("é"), message("aé")], "lengths");
    }
    while !pair.filters.is_empty() {
        pair.remove(0);
    }
}

#[test]
fn a_crowded_list_sends_away_those_who_are_cheaper_elsewhere() {
    let mut pair = Pair::new(1);
    for n in 0..1_000 {
        // With two keys of the same length the first stays, until too many share it.
        pair.add(&format!("attributes.a = \"shared-xx\" AND attributes.b = \"{n:09}\""));
    }
    let field = pair.index.fields.find_name(b"a").unwrap();
    let key = pair.index.keys.find(field, Kind::Equal, b"shared-xx");
    let crowd = key.map_or(0, |key| pair.index.list(ListId::Key(key)).total());
    assert!(crowd <= CROWDED, "{crowd} filters stand under the shared value");
    let message = Message::new("").with_attributes([("a", "shared-xx"), ("b", "000000500")]);
    pair.check(&[message], "crowded");
}

/// How many nodes of a list are looked at for a message.
fn looks(index: &FilterIndex<u32>, list: ListId, message: &Message) -> usize {
    let (mut facts, mut looks) = (Vec::new(), 0);
    index.collect_facts(message, |fact| facts.push(fact));
    index.visit(index.list(list), &facts, &mut |_| looks += 1);
    looks
}

#[test]
fn a_long_list_is_split_by_what_its_filters_share() {
    // F-4.4: weak filters with residuals that fail, found by a value, a presence or nothing.
    for begin in ["attributes.a = \"v\" AND ", "attributes:a AND ", ""] {
        for count in [CROWDED - 1, CROWDED, 3 * CROWDED] {
            let mut pair = Pair::new(1);
            for n in 0..count {
                let shared = ["x", "y"][n % 2];
                pair.add(&format!("{begin}NOT attributes:{shared} AND NOT attributes:own{n}"));
            }
            // One more or less than a long list makes the difference.
            assert_eq!(pair.index.groups.is_empty(), count < CROWDED, "{begin} {count}");
            let of = |keys: &[&str]| {
                let message = Message::new("").with_attribute("a", "v");
                keys.iter().fold(message, |message, key| message.with_attribute(*key, ""))
            };
            let messages = [of(&[]), of(&["x"]), of(&["y"]), of(&["x", "y"]), of(&["own3", "x"])];
            pair.check(&messages, begin);
            let root = pair.index.root(pair.index.filings[0].places[0].list);
            let looks = |keys: &[&str]| looks(&pair.index, root, &of(keys));
            if count < CROWDED {
                assert_eq!(looks(&["x", "y"]), count);
            } else {
                assert_eq!((looks(&["x", "y"]), looks(&["y"])), (0, count.div_ceil(2)));
            }
            let lists = pair.index.groups.iter().map(|(_, group)| group.list.total());
            assert_eq!(lists.sum::<usize>(), if count < CROWDED { 0 } else { count });
            while !pair.filters.is_empty() {
                pair.remove(pair.filters.len() / 2);
                pair.check(&messages, begin);
            }
            assert!(pair.index.groups.is_empty() && pair.index.keys.is_empty());
            assert!(pair.index.scanned.is_empty() && pair.index.keyless == 0);
        }
    }
}

#[test]
fn groups_agree_with_direct_evaluation_under_change() {
    for seed in 0..20 {
        let mut random = Random(seed);
        let mut pair = Pair::new(seed);
        let term = |random: &mut Random| {
            let key = random.pick(&["k", "l", "m", "n", "o", "p"]);
            match random.below(10) {
                0..3 => format!("NOT attributes:{key}"),
                3..6 => format!("attributes.{key} != \"{}\"", random.value()),
                6 => format!("contains(attributes.{key}, \"{}\")", random.pick(&["a", "b", "."])),
                7 => format!("attributes:{key}"),
                8 => format!("hasPrefix(attributes.{key}, \"a\")"),
                _ => format!("attributes.{key} > {}", random.below(9)),
            }
        };
        for round in 0..30 {
            for _ in 0..random.below(60) {
                let mut terms: Vec<_> =
                    (0..2 + random.below(3)).map(|_| term(&mut random)).collect();
                if random.below(4) == 0 {
                    // Found through several keys, in several groups.
                    let other = term(&mut random);
                    terms.push(format!("(attributes.k = \"a\" OR {other})"));
                }
                pair.add(&terms.join(" AND "));
            }
            for _ in 0..random.below(20).min(pair.filters.len()) {
                pair.remove(random.below(pair.filters.len()));
            }
            let messages: Vec<_> = (0..1 + random.below(20)).map(|_| random.message()).collect();
            pair.check(&messages, &format!("seed {seed}, round {round}"));
        }
        assert!(!pair.index.groups.is_empty(), "seed {seed}: this is about groups");
        while !pair.filters.is_empty() {
            pair.remove(random.below(pair.filters.len()));
        }
        pair.check(&[random.message()], &format!("seed {seed}, empty"));
        assert!(pair.index.groups.is_empty() && pair.index.keys.is_empty());
        assert_eq!((pair.index.counts(), pair.index.keyless), (Counts::default(), 0));
    }
}

#[test]
fn a_pair_of_bounds_is_found_by_its_interval() {
    let mut pair = Pair::new(1);
    // X: a range is two comparisons, and the index recognises the pair.
    for n in 0..500 {
        pair.add(&format!("attributes.k >= {n} AND attributes.k < {}", n + 1));
        pair.add(&format!("attributes.k > {n}.25 AND attributes.k <= {n}.5 AND attributes:l"));
    }
    let longest = (0..pair.index.keys.len() as u32).filter_map(|key| pair.index.keys.get(key));
    let longest = longest.map(|entry| entry.list.total()).max().unwrap_or_default();
    assert!(longest <= CROWDED, "{longest} intervals stand together");
    let of = |value: String| Message::new("").with_attributes([("k", value.as_str()), ("l", "")]);
    let messages: Vec<_> = (-3..1_010).map(|n| of(format!("{}", f64::from(n) / 2.0))).collect();
    pair.check(&messages, "intervals");
    for odd in ["", "-0", "1e300", "9007199254740993", "x"] {
        pair.check(&[of(odd.to_owned())], odd);
    }
    for text in [
        // Where numbers are further apart than floating point can tell, nothing is simplified.
        "attributes.k > 1e300 AND attributes.k < 5",
        "attributes.k > 9007199254740992 AND attributes.k < 9007199254740994",
        "attributes.k > -1e20 AND attributes.k < -9e19",
        "attributes.k > 170141183460469231731687303715884105726 AND attributes.k < 1e39",
    ] {
        pair.add(text);
        let around = ["9007199254740993", "-95000000000000000000", "3", "1e301"];
        let exact = ["170141183460469231731687303715884105727", "5e38"];
        let values = around.iter().chain(&exact).map(|value| of((*value).to_owned()));
        pair.check(&values.collect::<Vec<_>>(), text);
    }
    while !pair.filters.is_empty() {
        pair.remove(0);
    }
}

#[test]
fn presence_gives_way_to_what_became_rarer() {
    let mut pair = Pair::new(1);
    for n in 0..500 {
        pair.add(&format!("contains(attributes.a, \"{n}\") AND hasPrefix(attributes.b, \"x{n}\")"));
    }
    assert_eq!(pair.index.counts().indexed, 500);
    assert_eq!(pair.index.counts().weak(), 0);
}

#[test]
fn a_key_takes_a_cache_line() {
    assert_eq!(size_of::<super::keys::KeyEntry<[u32; 2]>>(), 64);
}

#[test]
fn kinds_are_told_apart() {
    for (text, expected) in [
        ("attributes.a = \"1\"", Standing::Exact),
        ("attributes.a IN (\"1\", \"2\")", Standing::Exact),
        ("attributes:a", Standing::Exact),
        ("attributes.a != \"1\"", Standing::Exact),
        ("attributes.a = \"1\" AND NOT attributes:b", Standing::Indexed),
        ("attributes.a > 5", Standing::Indexed),
        ("attributes:a AND NOT attributes:b", Standing::Presence),
        ("NOT attributes:a", Standing::Scan),
        ("attributes.a != \"1\" AND attributes.a != \"2\"", Standing::Scan),
        ("attributes:a OR NOT attributes:a", Standing::Constant),
        ("attributes.a = \"1\" AND attributes.a = \"2\"", Standing::Constant),
        ("attributes.a > 5 AND attributes.a <= 5", Standing::Constant),
    ] {
        let normal = Filter::parse_extended(text).unwrap().normal();
        let mut index = FilterIndex::new(0);
        let plan = index.plan(&normal);
        let number = index.insert(Arc::new(normal), plan, ());
        assert_eq!(index.filings[number as usize].standing, expected, "{text}");
    }
}
