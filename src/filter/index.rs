//! Many filters matched against one message, at a cost that does not grow with their number.
//!
//! Every filter is filed under the keys of its cover (`cover.rs`): a message looks up its own
//! attributes, and only filters found there are looked at. Most need no further check, since the
//! key says it all; others run what is left of them. Filters without a cover stand in groups
//! behind a guard, and those of the form "all but this value" need no look at all.
//!
//! A value with exclusive access for changes: two copies that take turns make readers independent
//! of writers (`shell/matcher.rs`). Both go through the same steps, so their node numbers agree.
//! Hashing is keyed; nothing that can be seen depends on it.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use ahash::RandomState;
use slab::Slab;
use smallvec::SmallVec;
use smol_str::SmolStr;

use super::ast::{Field, Test};
use super::cover::{Key, Part, Plan, Route, upper};
use super::normal::{Literal, Normal};
use super::number::Number;
use super::program::{Check, Program, Value};
use super::table::{HashIndex, Probe};

/// Filters with what is filed under each, typically a small id.
#[derive(Debug)]
pub(crate) struct FilterIndex<T> {
    hasher: RandomState,
    fields: Slab<FieldEntry>,
    /// Attributes by name.
    names: HashIndex,
    /// Numbers of the fields of the message itself, where a filter asks for them.
    ordering_key: Option<u32>,
    data_size: Option<u32>,
    attribute_count: Option<u32>,
    keys: Slab<KeyEntry>,
    by_key: HashIndex,
    nodes: Slab<Node<T>>,
    /// For each node.
    filings: Slab<Filing>,
    /// Attributes whose names are all there are, while they are few: the beginning of each name.
    few_names: SmallVec<[(u64, u32); MAX_FEW_NAMES]>,
    always: Vec<u32>,
    unguarded: Vec<u32>,
    groups: Slab<Group>,
    /// Only asked for single guards, never walked.
    by_guard: HashMap<Literal, u32>,
    /// Fields with filters of the form "all but", in the order in which they came to have some.
    exclusions: Vec<u32>,
    /// How many places are in lists that no key leads to.
    keyless: usize,
    counts: Counts,
    /// How many filters were ever inserted.
    version: u64,
}

/// How many filters stand where (section 4.4 of the design: what is weak is bounded).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// Found by key, nothing to check, or all but one value.
    pub(crate) exact: usize,
    /// Found by an equality, prefix, suffix or number, then checked.
    pub(crate) indexed: usize,
    /// Found by the presence of an attribute, then checked.
    pub(crate) presence: usize,
    /// Looked at for each message that passes a guard, or for each.
    pub(crate) scan: usize,
    /// Never match or always do.
    pub(crate) constant: usize,
    /// Places in the index, over all filters.
    pub(crate) entries: usize,
}

impl Counts {
    /// Filters that may have to be looked at for every message.
    pub(crate) fn weak(&self) -> usize {
        self.presence + self.scan
    }
}

#[derive(Debug)]
struct FieldEntry {
    field: Field,
    /// How many filters name it.
    uses: u32,
    equal: u32,
    prefixes: Lengths,
    suffixes: Lengths,
    numbers: Lengths,
    present: Vec<u32>,
    /// Nodes that match all but one value of this field.
    all_but: Vec<u32>,
}

/// Which lengths occur, and how often; sorted, at most [`MAX_LENGTHS`].
#[derive(Debug, Default)]
struct Lengths(SmallVec<[(u32, u32); 2]>);

#[derive(Debug)]
struct KeyEntry {
    value: SmolStr,
    kind: Kind,
    field: u32,
    list: List,
}

/// Node numbers; the usual one without an allocation.
#[derive(Debug, Default)]
enum List {
    #[default]
    Empty,
    One(u32),
    // Boxed, since a vector in place would make every entry larger for the sake of a few.
    #[expect(clippy::box_collection)]
    Many(Box<Vec<u32>>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Equal,
    Prefix,
    Suffix,
    Number,
    /// The node that matches all but this value.
    AllBut,
}

#[derive(Debug)]
struct Group {
    guard: Literal,
    field: u32,
    check: Check,
    nodes: Vec<u32>,
}

/// What a look needs of a filter: one cache line for most.
#[derive(Debug)]
struct Node<T> {
    value: T,
    /// Stands under several keys, so it can be found more than once.
    is_repeated: bool,
    residual: Residual,
}

/// What is left to check of a filter that was found.
#[derive(Debug)]
enum Residual {
    Nothing,
    /// A single test, in place.
    One {
        field: u32,
        check: Check,
        holds: bool,
    },
    Program(Box<Program<u32>>),
}

/// What a change needs of a filter, under the number of its node.
#[derive(Debug)]
struct Filing {
    places: SmallVec<[Place; 1]>,
    normal: Arc<Normal>,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Exact,
    Indexed,
    Presence,
    Scan,
    Constant,
}

/// Where a node stands: in which list, and where in it.
#[derive(Debug, Clone, Copy)]
struct Place {
    list: ListId,
    at: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ListId {
    Key(u32),
    Present(u32),
    AllBut(u32),
    Group(u32),
    Always,
    Unguarded,
}

/// A message as filters see it.
pub(crate) trait Subject {
    /// Calls `visit` with name and value of each attribute.
    fn attributes<'s>(&'s self, visit: impl FnMut(&'s [u8], &'s [u8]));
    /// Empty if there is none.
    fn ordering_key(&self) -> &str;
    fn data_size(&self) -> u64;
    fn attribute_count(&self) -> u64;
}

/// A field that some filter names, as a message has it.
#[derive(Debug, Clone, Copy)]
struct Fact<'m> {
    field: u32,
    value: Value<'m>,
}

/// The facts of a chunk of messages, one after the other.
type Facts<'m> = SmallVec<[Fact<'m>; 2 * BATCH]>;

/// A look-up that is under way.
struct Pending {
    fact: u32,
    message: u32,
    kind: Kind,
    /// How much of the value is looked up.
    length: u32,
    /// Of a number: the upper bits of its image.
    image: u64,
    probe: Probe,
}

impl<T: Copy> FilterIndex<T> {
    /// An index without filters, whose hashes depend on `seed`.
    pub(crate) fn new(seed: u64) -> Self {
        let [a, b, c, d] = [1, 2, 3, 4].map(|nth| crate::ack_id::mix(seed ^ nth));
        Self {
            hasher: RandomState::with_seeds(a, b, c, d),
            fields: Slab::new(),
            names: HashIndex::default(),
            ordering_key: None,
            data_size: None,
            attribute_count: None,
            keys: Slab::new(),
            by_key: HashIndex::default(),
            nodes: Slab::new(),
            filings: Slab::new(),
            few_names: SmallVec::new(),
            always: Vec::new(),
            unguarded: Vec::new(),
            groups: Slab::new(),
            by_guard: HashMap::new(),
            exclusions: Vec::new(),
            keyless: 0,
            counts: Counts::default(),
            version: 0,
        }
    }

    /// How many filters were ever inserted: a later answer has all filters of an earlier one,
    /// but for those removed since.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    pub(crate) fn counts(&self) -> Counts {
        self.counts
    }

    /// What the counts would be with one filter more. Changes nothing.
    pub(crate) fn counts_with(&self, normal: &Normal) -> Counts {
        let plan = self.plan(normal);
        let mut counts = self.counts;
        *counts.of(standing(&plan)) += 1;
        counts.entries += plan.route.entries();
        counts
    }

    /// Files `value` under a filter that is not there yet; answers its number.
    pub(crate) fn insert(&mut self, normal: Arc<Normal>, value: T) -> u32 {
        self.version += 1;
        normal.literals(&mut |literal| self.use_field(&literal.field));
        let plan = self.plan(&normal);
        let node = Node { value, is_repeated: false, residual: Residual::Nothing };
        let number = self.nodes.insert(node) as u32;
        let standing = standing(&plan);
        // Both are changed together, so they give out the same numbers.
        self.filings.insert(Filing { places: SmallVec::new(), normal, standing });
        self.file(number, plan);
        number
    }

    /// Takes a filter out by its number.
    pub(crate) fn remove(&mut self, number: u32) {
        if !self.nodes.contains(number as usize) {
            return;
        }
        self.unfile(number);
        self.nodes.remove(number as usize);
        let filing = self.filings.remove(number as usize);
        filing.normal.literals(&mut |literal| self.leave_field(&literal.field));
        if self.nodes.is_empty() {
            // What stays empty for long should not keep what it once needed.
            self.nodes = Slab::new();
            self.filings = Slab::new();
            self.keys = Slab::new();
            self.fields = Slab::new();
        }
    }

    /// Calls `found` with the position of a message in `messages` and what is filed under a
    /// filter that matches it, once for each filter.
    pub(crate) fn matching<S: Subject>(&self, messages: &[S], mut found: impl FnMut(u32, T)) {
        for (chunk, first) in messages.chunks(BATCH).zip((0..).step_by(BATCH)) {
            self.matching_chunk(chunk, |at, value| found(first + at, value));
        }
    }

    fn matching_chunk<S: Subject>(&self, messages: &[S], mut found: impl FnMut(u32, T)) {
        let mut facts: Facts<'_> = SmallVec::new();
        if let [message] = messages {
            self.collect_facts(message, &mut facts);
            let mut keys: SmallVec<[u32; 8]> = SmallVec::new();
            for (fact, at) in facts.iter().zip(0..) {
                self.look_up(fact, |kind, length, image, hash| {
                    let probe = self.by_key.probe(hash);
                    let pending = Pending { fact: at, message: 0, kind, length, image, probe };
                    keys.extend(self.resolve(&pending, fact));
                });
            }
            self.judge(&facts, keys.into_iter(), &mut |value| found(0, value));
            return;
        }
        let mut ends: SmallVec<[u32; BATCH]> = SmallVec::new();
        let mut pending: SmallVec<[Pending; BATCH]> = SmallVec::new();
        // First everything that the look-ups need, with their first slots, then the rest: misses
        // of one overlap with those of the others.
        for (message, at) in messages.iter().zip(0..) {
            let first = facts.len();
            self.collect_facts(message, &mut facts);
            for (fact, number) in facts.iter().zip(0..).skip(first) {
                self.look_up(fact, |kind, length, image, hash| {
                    let probe = self.by_key.probe(hash);
                    pending.push(Pending { fact: number, message: at, kind, length, image, probe });
                });
            }
            ends.push(facts.len() as u32);
        }
        let mut hits: SmallVec<[(u32, u32); BATCH]> = SmallVec::new();
        for look_up in &pending {
            let fact = facts.get(look_up.fact as usize);
            if let Some(key) = fact.and_then(|fact| self.resolve(look_up, fact)) {
                hits.push((look_up.message, key));
            }
        }
        let (mut begin, mut judged) = (0, 0);
        for (&end, at) in ends.iter().zip(0..) {
            let own = facts.get(begin..end as usize).unwrap_or_default();
            begin = end as usize;
            let rest = hits.get(judged..).unwrap_or_default();
            let count = rest.iter().take_while(|(message, _)| *message == at).count();
            judged += count;
            let keys = rest.iter().take(count).map(|(_, key)| *key);
            self.judge(own, keys, &mut |value| found(at, value));
        }
    }

    /// Looks at the filters behind `keys`, and at those that no key leads to.
    #[inline]
    fn judge(
        &self,
        facts: &[Fact<'_>],
        keys: impl ExactSizeIterator<Item = u32>,
        found: &mut impl FnMut(T),
    ) {
        if keys.len() == 0 && !self.has_keyless() {
            return;
        }
        let mut repeated: SmallVec<[u32; 16]> = SmallVec::new();
        let mut look = |number: u32| {
            let Some(node) = self.nodes.get(number as usize) else { return };
            if node.is_repeated {
                repeated.push(number);
            } else if node.holds(facts) {
                found(node.value);
            }
        };
        for key in keys {
            let list = self.keys.get(key as usize).map(|entry| &entry.list);
            list.map_or(&[][..], List::as_slice).iter().for_each(|&number| look(number));
        }
        if self.has_keyless() {
            self.look_without_keys(facts, &mut look);
        }
        repeated.sort_unstable();
        repeated.dedup();
        for number in repeated {
            if let Some(node) = self.nodes.get(number as usize).filter(|node| node.holds(facts)) {
                found(node.value);
            }
        }
    }

    /// Whether any filter is found otherwise than by a key of its own.
    #[inline]
    fn has_keyless(&self) -> bool {
        self.keyless > 0
    }

    /// Candidates that no key leads to.
    #[inline]
    fn look_without_keys(&self, facts: &[Fact<'_>], look: &mut impl FnMut(u32)) {
        for fact in facts {
            if let Some(entry) = self.fields.get(fact.field as usize) {
                entry.present.iter().for_each(|&number| look(number));
            }
        }
        self.always.iter().for_each(|&number| look(number));
        self.unguarded.iter().for_each(|&number| look(number));
        for (_, group) in &self.groups {
            let value = facts.iter().find(|fact| fact.field == group.field);
            let holds = value.is_some_and(|fact| group.check.holds(fact.value));
            if holds == group.guard.holds {
                group.nodes.iter().for_each(|&number| look(number));
            }
        }
        for &field in &self.exclusions {
            let Some(entry) = self.fields.get(field as usize) else { continue };
            let fact = facts.iter().find(|fact| fact.field == field);
            let excluded = fact.and_then(|fact| self.find_text(field, Kind::AllBut, fact.text()));
            let excluded = excluded.and_then(|key| match self.keys.get(key as usize)?.list {
                List::One(number) => Some(number),
                _ => None,
            });
            let others = entry.all_but.iter().filter(|&&number| Some(number) != excluded);
            others.for_each(|&number| look(number));
        }
    }

    #[inline]
    fn collect_facts<'m, S: Subject>(&self, message: &'m S, facts: &mut Facts<'m>) {
        message.attributes(|name, value| {
            if let Some(field) = self.find_name(name) {
                facts.push(Fact { field, value: Value::Text(value) });
            }
        });
        if let Some(field) = self.ordering_key {
            let key = message.ordering_key();
            if !key.is_empty() {
                facts.push(Fact { field, value: Value::Text(key.as_bytes()) });
            }
        }
        if let Some(field) = self.data_size {
            facts.push(Fact { field, value: Value::Number(message.data_size()) });
        }
        if let Some(field) = self.attribute_count {
            facts.push(Fact { field, value: Value::Number(message.attribute_count()) });
        }
    }

    /// Calls `look_up` with kind, length, image and hash of everything to look up for a fact.
    #[inline]
    fn look_up(&self, fact: &Fact<'_>, mut look_up: impl FnMut(Kind, u32, u64, u64)) {
        let Some(entry) = self.fields.get(fact.field as usize) else { return };
        let text = fact.text();
        if entry.equal > 0 {
            let hash = self.hash_text(fact.field, Kind::Equal, text);
            look_up(Kind::Equal, text.len() as u32, 0, hash);
        }
        for (length, part) in entry.prefixes.parts(|length| text.get(..length)) {
            look_up(Kind::Prefix, length, 0, self.hash_text(fact.field, Kind::Prefix, part));
        }
        let tail = |length| text.len().checked_sub(length).and_then(|from| text.get(from..));
        for (length, part) in entry.suffixes.parts(tail) {
            look_up(Kind::Suffix, length, 0, self.hash_text(fact.field, Kind::Suffix, part));
        }
        if !entry.numbers.0.is_empty()
            && let Some(number) = fact.number()
        {
            for &(bits, _) in &entry.numbers.0 {
                let image = upper(number.image(), bits);
                look_up(Kind::Number, bits, image, self.hash_number(fact.field, bits, image));
            }
        }
    }

    #[inline]
    fn resolve(&self, look_up: &Pending, fact: &Fact<'_>) -> Option<u32> {
        let text = fact.text();
        let length = look_up.length as usize;
        let part = match look_up.kind {
            Kind::Equal | Kind::AllBut => text,
            Kind::Prefix => text.get(..length)?,
            Kind::Suffix => text.get(text.len().checked_sub(length)?..)?,
            Kind::Number => {
                let name = number_name(look_up.length, look_up.image);
                return self.find_entry(look_up.probe, fact.field, Kind::Number, &name);
            }
        };
        self.find_entry(look_up.probe, fact.field, look_up.kind, part)
    }

    #[inline]
    fn find_entry(&self, probe: Probe, field: u32, kind: Kind, value: &[u8]) -> Option<u32> {
        self.by_key.find(probe, |key| {
            self.keys.get(key as usize).is_some_and(|entry| {
                entry.field == field && entry.kind == kind && entry.value.as_bytes() == value
            })
        })
    }

    fn find_text(&self, field: u32, kind: Kind, text: &[u8]) -> Option<u32> {
        let probe = self.by_key.probe(self.hash_text(field, kind, text));
        self.find_entry(probe, field, kind, text)
    }

    #[inline]
    fn find_name(&self, name: &[u8]) -> Option<u32> {
        if self.few_names.len() < MAX_FEW_NAMES {
            let begin = beginning(name);
            let alike = self.few_names.iter().filter(|(other, _)| *other == begin);
            return alike.map(|(_, field)| *field).find(|field| self.has_name(*field, name));
        }
        self.names.find(self.names.probe(self.hash_name(name)), |field| self.has_name(field, name))
    }

    #[inline]
    fn has_name(&self, field: u32, name: &[u8]) -> bool {
        let known = self.fields.get(field as usize).map(|entry| &entry.field);
        matches!(known, Some(Field::Attribute(known)) if known.as_bytes() == name)
    }

    fn find_field(&self, field: &Field) -> Option<u32> {
        match field {
            Field::Attribute(name) => self.find_name(name.as_bytes()),
            Field::OrderingKey => self.ordering_key,
            Field::DataSize => self.data_size,
            Field::AttributeCount => self.attribute_count,
        }
    }

    #[inline]
    fn hash_name(&self, name: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(name);
        hasher.finish()
    }

    #[inline]
    fn hash_text(&self, field: u32, kind: Kind, text: &[u8]) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(text);
        hasher.write_u64(u64::from(field) << 8 | kind as u64);
        hasher.finish()
    }

    #[inline]
    fn hash_number(&self, field: u32, bits: u32, image: u64) -> u64 {
        self.hash_text(field, Kind::Number, &number_name(bits, image))
    }

    /// Chooses where a filter stands, by what the lists cost now.
    fn plan(&self, normal: &Normal) -> Plan {
        let sharing = |guard: &Literal| {
            let group = self.by_guard.get(guard).and_then(|at| self.groups.get(*at as usize));
            group.map_or(0, |group| group.nodes.len())
        };
        let mut plan = Plan::new(normal, &mut |key| self.cost(key), sharing);
        if let Route::Keys(keys) = &mut plan.route {
            // Lengths that this filter adds, as (suffix, length) of a field.
            let mut added: Vec<(Field, bool, u32)> = Vec::new();
            let mut rounded = false;
            for key in keys.iter_mut() {
                rounded |= self.round_down(key, &mut added);
            }
            if rounded {
                // A shorter prefix is necessary but no longer enough.
                plan.residual = Some(normal.clone());
                keys.sort_unstable();
                keys.dedup();
            }
        }
        plan
    }

    /// What one look behind a key costs: how many filters are there.
    fn cost(&self, key: &Key) -> u64 {
        let Some(field) = self.find_field(&key.field) else { return key.base_cost() };
        let list = match &key.part {
            Part::Present => {
                let entry = self.fields.get(field as usize);
                return key.base_cost() + entry.map_or(0, |entry| entry.present.len() as u64);
            }
            Part::Equal(text) => self.find_text(field, Kind::Equal, text.as_bytes()),
            Part::Prefix(text) => self.find_text(field, Kind::Prefix, text.as_bytes()),
            Part::Suffix(text) => self.find_text(field, Kind::Suffix, text.as_bytes()),
            Part::Number { bits, image } => {
                let name = number_name(u32::from(*bits), *image);
                self.find_text(field, Kind::Number, &name)
            }
        };
        let list = list.and_then(|key| self.keys.get(key as usize));
        key.base_cost() + list.map_or(0, |entry| entry.list.as_slice().len() as u64)
    }

    /// Shortens a prefix or suffix to a length in use where no further length can be added;
    /// whether it had to.
    fn round_down(&self, key: &mut Key, added: &mut Vec<(Field, bool, u32)>) -> bool {
        let (text, is_suffix) = match &key.part {
            Part::Prefix(text) => (text, false),
            Part::Suffix(text) => (text, true),
            _ => return false,
        };
        let entry = self.find_field(&key.field).and_then(|at| self.fields.get(at as usize));
        let lengths = entry.map(|entry| if is_suffix { &entry.suffixes } else { &entry.prefixes });
        let known = lengths.map_or(&[][..], |lengths| &lengths.0);
        let known = known.iter().map(|(length, _)| *length);
        let own =
            added.iter().filter(|(field, suffix, _)| *field == key.field && *suffix == is_suffix);
        let mut known: SmallVec<[u32; MAX_LENGTHS]> = known.chain(own.map(|(.., n)| *n)).collect();
        known.sort_unstable();
        known.dedup();
        let wanted = text.len() as u32;
        let Err(place) = known.binary_search(&wanted) else { return false };
        if known.len() < MAX_LENGTHS {
            added.push((key.field.clone(), is_suffix, wanted));
            return false;
        }
        let shorter = place.checked_sub(1).and_then(|at| known.get(at)).copied();
        let length = shorter.unwrap_or_default() as usize;
        let from = if is_suffix { text.len() - length } else { 0 };
        // Where the cut is inside of a character no text can stand; presence is always right.
        key.part = match text.get(from..from + length) {
            Some("") | None => Part::Present,
            Some(part) if is_suffix => Part::Suffix(part.into()),
            Some(part) => Part::Prefix(part.into()),
        };
        true
    }

    fn file(&mut self, number: u32, plan: Plan) {
        let standing = standing(&plan);
        *self.counts.of(standing) += 1;
        self.counts.entries += plan.route.entries();
        let residual = self.residual_of(plan.residual.as_ref());
        let lists = self.lists_of(&plan.route);
        let mut places = SmallVec::with_capacity(lists.len());
        for list in lists {
            let at = self.list(list).len() as u32;
            places.push(Place { list, at });
            self.keyless += usize::from(!matches!(list, ListId::Key(_)));
            self.push(list, number);
        }
        if let Some(node) = self.nodes.get_mut(number as usize) {
            node.is_repeated = places.len() > 1;
            node.residual = residual;
        }
        if let Some(filing) = self.filings.get_mut(number as usize) {
            filing.places = places;
            filing.standing = standing;
        }
        self.choose_again(number);
    }

    fn residual_of(&self, normal: Option<&Normal>) -> Residual {
        let name = |field: &Field| self.find_field(field).unwrap_or(u32::MAX);
        match normal {
            None => Residual::Nothing,
            Some(Normal::Literal(Literal { field, test, holds })) => {
                Residual::One { field: name(field), check: Check::of(test), holds: *holds }
            }
            Some(normal) => {
                Residual::Program(Box::new(Program::of_normal(normal, &mut |field| name(field))))
            }
        }
    }

    /// Takes a node out of all lists it stands in.
    fn unfile(&mut self, number: u32) {
        let Some(filing) = self.filings.get_mut(number as usize) else { return };
        let places = std::mem::take(&mut filing.places);
        *self.counts.of(filing.standing) -= 1;
        self.counts.entries -= places.len();
        let excluded = match &*filing.normal {
            Normal::Literal(Literal { field, test: Test::Eq(value), holds: false }) => {
                Some((field.clone(), value.clone()))
            }
            _ => None,
        };
        for Place { list, at } in places {
            self.keyless -= usize::from(!matches!(list, ListId::Key(_)));
            self.swap_remove(list, at);
        }
        if let Some((field, value)) = excluded
            && let Some(field) = self.find_field(&field)
            && let Some(key) = self.find_text(field, Kind::AllBut, value.as_bytes())
        {
            self.remove_key(key);
        }
    }

    /// When a list has doubled, those in it may have become cheaper to find elsewhere.
    fn choose_again(&mut self, number: u32) {
        let Some(filing) = self.filings.get(number as usize) else { return };
        let crowded = filing.places.iter().find(|place| {
            let length = self.list(place.list).len();
            length >= CROWDED && length.is_power_of_two()
        });
        let Some(list) = crowded.map(|place| place.list) else { return };
        let limit = self.list(list).len() as u64 / WORTH_MOVING;
        for other in self.list(list).to_vec() {
            let Some(filing) = self.filings.get(other as usize) else { continue };
            if filing.standing == Standing::Exact {
                continue;
            }
            let normal = Arc::clone(&filing.normal);
            let plan = self.plan(&normal);
            let Route::Keys(keys) = &plan.route else { continue };
            if keys.iter().map(|key| self.cost(key)).sum::<u64>() < limit {
                self.unfile(other);
                self.file(other, plan);
            }
        }
    }

    /// The lists that a route names, made where they are missing.
    fn lists_of(&mut self, route: &Route) -> SmallVec<[ListId; 1]> {
        match route {
            Route::Never => SmallVec::new(),
            Route::Always => SmallVec::from_buf([ListId::Always]),
            Route::Scan(None) => SmallVec::from_buf([ListId::Unguarded]),
            Route::Scan(Some(guard)) => SmallVec::from_buf([ListId::Group(self.group(guard))]),
            Route::AllBut(field, value) => {
                let field = self.find_field(field).unwrap_or(u32::MAX);
                let key = self.key(field, Kind::AllBut, value.clone());
                // Filled by `push`, with the number that is not known here.
                debug_assert!(matches!(self.list(ListId::Key(key)), []), "filters are interned");
                SmallVec::from_buf([ListId::AllBut(field)])
            }
            Route::Keys(keys) => keys.iter().map(|key| self.list_of_key(key)).collect(),
        }
    }

    fn list_of_key(&mut self, key: &Key) -> ListId {
        let field = self.find_field(&key.field).unwrap_or(u32::MAX);
        match &key.part {
            Part::Present => ListId::Present(field),
            Part::Equal(text) => ListId::Key(self.key(field, Kind::Equal, text.clone())),
            Part::Prefix(text) => ListId::Key(self.key(field, Kind::Prefix, text.clone())),
            Part::Suffix(text) => ListId::Key(self.key(field, Kind::Suffix, text.clone())),
            Part::Number { bits, image } => {
                let name = number_name(u32::from(*bits), *image);
                let name = SmolStr::new(std::str::from_utf8(&name).expect("written in ASCII"));
                ListId::Key(self.key(field, Kind::Number, name))
            }
        }
    }

    /// The entry for a key, made if it is missing.
    fn key(&mut self, field: u32, kind: Kind, value: SmolStr) -> u32 {
        let hash = self.hash_text(field, kind, value.as_bytes());
        let found = self.find_entry(self.by_key.probe(hash), field, kind, value.as_bytes());
        if let Some(key) = found {
            return key;
        }
        if let Some(entry) = self.fields.get_mut(field as usize) {
            entry.count(kind, &value, true);
        }
        let key = self.keys.insert(KeyEntry { value, kind, field, list: List::Empty }) as u32;
        self.by_key.insert(hash, key);
        key
    }

    fn remove_key(&mut self, key: u32) {
        let Some(entry) = self.keys.try_remove(key as usize) else { return };
        let hash = self.hash_text(entry.field, entry.kind, entry.value.as_bytes());
        self.by_key.remove(hash, key);
        if let Some(field) = self.fields.get_mut(entry.field as usize) {
            field.count(entry.kind, &entry.value, false);
        }
    }

    fn group(&mut self, guard: &Literal) -> u32 {
        if let Some(&group) = self.by_guard.get(guard) {
            return group;
        }
        let field = self.find_field(&guard.field).unwrap_or(u32::MAX);
        let check = Check::of(&guard.test);
        let group = Group { guard: guard.clone(), field, check, nodes: Vec::new() };
        let group = self.groups.insert(group) as u32;
        self.by_guard.insert(guard.clone(), group);
        group
    }

    fn list(&self, list: ListId) -> &[u32] {
        let field = |field: u32| self.fields.get(field as usize);
        match list {
            ListId::Key(key) => {
                self.keys.get(key as usize).map_or(&[], |entry| entry.list.as_slice())
            }
            ListId::Present(at) => field(at).map_or(&[], |entry| &entry.present),
            ListId::AllBut(at) => field(at).map_or(&[], |entry| &entry.all_but),
            ListId::Group(group) => {
                self.groups.get(group as usize).map_or(&[], |group| &group.nodes)
            }
            ListId::Always => &self.always,
            ListId::Unguarded => &self.unguarded,
        }
    }

    fn push(&mut self, list: ListId, number: u32) {
        match list {
            ListId::Key(key) => {
                if let Some(entry) = self.keys.get_mut(key as usize) {
                    entry.list.push(number);
                }
            }
            ListId::AllBut(field) => {
                let filing = self.filings.get(number as usize);
                let normal = filing.map(|filing| Arc::clone(&filing.normal));
                if let Some(Normal::Literal(Literal { test: Test::Eq(value), .. })) =
                    normal.as_deref()
                {
                    let key = self.key(field, Kind::AllBut, value.clone());
                    self.push(ListId::Key(key), number);
                }
                let Some(entry) = self.fields.get_mut(field as usize) else { return };
                if entry.all_but.is_empty() {
                    self.exclusions.push(field);
                }
                entry.all_but.push(number);
            }
            _ => {
                if let Some(nodes) = self.plain_list(list) {
                    nodes.push(number);
                }
            }
        }
    }

    fn plain_list(&mut self, list: ListId) -> Option<&mut Vec<u32>> {
        match list {
            ListId::Key(_) => None,
            ListId::Present(at) => Some(&mut self.fields.get_mut(at as usize)?.present),
            ListId::AllBut(at) => Some(&mut self.fields.get_mut(at as usize)?.all_but),
            ListId::Group(group) => Some(&mut self.groups.get_mut(group as usize)?.nodes),
            ListId::Always => Some(&mut self.always),
            ListId::Unguarded => Some(&mut self.unguarded),
        }
    }

    /// Takes a node out of a list; the last one takes its place. What becomes empty goes.
    fn swap_remove(&mut self, list: ListId, at: u32) {
        let moved = match list {
            ListId::Key(key) => {
                let entry = self.keys.get_mut(key as usize);
                entry.and_then(|entry| entry.list.swap_remove(at as usize))
            }
            _ => self.plain_list(list).and_then(|nodes| {
                nodes.swap_remove(at as usize);
                nodes.get(at as usize).copied()
            }),
        };
        if let Some(filing) = moved.and_then(|moved| self.filings.get_mut(moved as usize))
            && let Some(place) = filing.places.iter_mut().find(|place| place.list == list)
        {
            place.at = at;
        }
        if !self.list(list).is_empty() {
            return;
        }
        match list {
            ListId::Key(key) => self.remove_key(key),
            ListId::Group(group) => {
                let group = self.groups.remove(group as usize);
                self.by_guard.remove(&group.guard);
            }
            ListId::AllBut(field) => self.exclusions.retain(|other| *other != field),
            _ => {}
        }
    }

    fn use_field(&mut self, field: &Field) {
        if let Some(at) = self.find_field(field) {
            if let Some(entry) = self.fields.get_mut(at as usize) {
                entry.uses += 1;
            }
            return;
        }
        let at = self.fields.insert(FieldEntry::new(field.clone())) as u32;
        match field {
            Field::Attribute(name) => {
                self.names.insert(self.hash_name(name.as_bytes()), at);
                self.refresh_few_names();
            }
            Field::OrderingKey => self.ordering_key = Some(at),
            Field::DataSize => self.data_size = Some(at),
            Field::AttributeCount => self.attribute_count = Some(at),
        }
    }

    fn leave_field(&mut self, field: &Field) {
        let Some(at) = self.find_field(field) else { return };
        let Some(entry) = self.fields.get_mut(at as usize) else { return };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        self.fields.remove(at as usize);
        match field {
            Field::Attribute(name) => {
                self.names.remove(self.hash_name(name.as_bytes()), at);
                self.refresh_few_names();
            }
            Field::OrderingKey => self.ordering_key = None,
            Field::DataSize => self.data_size = None,
            Field::AttributeCount => self.attribute_count = None,
        }
    }

    /// Lists the names while there are few; a full list means that there may be more.
    fn refresh_few_names(&mut self) {
        self.few_names.clear();
        if self.fields.len() > MAX_FEW_NAMES {
            self.few_names.resize(MAX_FEW_NAMES, (0, u32::MAX));
            return;
        }
        let names = self.fields.iter().filter_map(|(at, entry)| match &entry.field {
            Field::Attribute(name) => Some((beginning(name.as_bytes()), at as u32)),
            _ => None,
        });
        self.few_names = names.collect();
    }

    /// Bytes that the index takes, the filters' own texts and trees excepted.
    pub(crate) fn memory(&self) -> usize {
        let lists = self.keys.iter().map(|(_, entry)| entry.list.memory()).sum::<usize>();
        let residuals = self.nodes.iter().map(|(_, node)| match &node.residual {
            Residual::Program(program) => program.memory(),
            _ => 0,
        });
        let residuals = residuals.sum::<usize>();
        self.names.memory()
            + self.by_key.memory()
            + self.fields.capacity() * size_of::<FieldEntry>()
            + self.keys.capacity() * size_of::<KeyEntry>()
            + self.nodes.capacity() * size_of::<Node<T>>()
            + self.filings.capacity() * size_of::<Filing>()
            + lists
            + residuals
    }
}

impl<T> Node<T> {
    #[inline]
    fn holds(&self, facts: &[Fact<'_>]) -> bool {
        let lookup =
            |field: &u32| facts.iter().find(|fact| fact.field == *field).map(|fact| fact.value);
        match &self.residual {
            Residual::Nothing => true,
            Residual::One { field, check, holds } => {
                lookup(field).is_some_and(|value| check.holds(value)) == *holds
            }
            Residual::Program(program) => program.run(lookup),
        }
    }
}

impl<'m> Fact<'m> {
    #[inline]
    fn text(&self) -> &'m [u8] {
        match self.value {
            Value::Text(text) => text,
            Value::Number(_) => &[],
        }
    }

    fn number(&self) -> Option<Number> {
        match self.value {
            Value::Text(text) => Number::read(text),
            Value::Number(number) => Some(Number::Integer(number.into())),
        }
    }
}

impl Counts {
    fn of(&mut self, standing: Standing) -> &mut usize {
        match standing {
            Standing::Exact => &mut self.exact,
            Standing::Indexed => &mut self.indexed,
            Standing::Presence => &mut self.presence,
            Standing::Scan => &mut self.scan,
            Standing::Constant => &mut self.constant,
        }
    }
}

impl FieldEntry {
    fn new(field: Field) -> Self {
        let (present, all_but) = (Vec::new(), Vec::new());
        let (prefixes, suffixes, numbers) = Default::default();
        Self { field, uses: 1, equal: 0, prefixes, suffixes, numbers, present, all_but }
    }

    /// Takes notice that a key of this field comes or goes.
    fn count(&mut self, kind: Kind, value: &str, comes: bool) {
        match kind {
            Kind::Equal if comes => self.equal += 1,
            Kind::Equal => self.equal -= 1,
            Kind::Prefix => self.prefixes.count(value.len() as u32, comes),
            Kind::Suffix => self.suffixes.count(value.len() as u32, comes),
            Kind::Number => self.numbers.count(number_bits(value), comes),
            Kind::AllBut => {}
        }
    }
}

impl Lengths {
    fn count(&mut self, length: u32, comes: bool) {
        match self.0.binary_search_by_key(&length, |(length, _)| *length) {
            Ok(at) => {
                let left = self.0.get_mut(at).map(|(_, count)| {
                    *count = if comes { *count + 1 } else { *count - 1 };
                    *count
                });
                if left == Some(0) {
                    self.0.remove(at);
                }
            }
            Err(at) => self.0.insert(at, (length, 1)),
        }
    }

    fn parts<'v>(
        &self,
        part: impl Fn(usize) -> Option<&'v [u8]>,
    ) -> impl Iterator<Item = (u32, &'v [u8])> {
        // Sorted: the first length that is too long ends it.
        self.0
            .iter()
            .map_while(move |(length, _)| part(*length as usize).map(|part| (*length, part)))
    }
}

impl List {
    #[inline]
    fn as_slice(&self) -> &[u32] {
        match self {
            Self::Empty => &[],
            Self::One(number) => std::slice::from_ref(number),
            Self::Many(numbers) => numbers,
        }
    }

    fn push(&mut self, number: u32) {
        match self {
            Self::Empty => *self = Self::One(number),
            Self::One(first) => *self = Self::Many(Box::new(vec![*first, number])),
            Self::Many(numbers) => numbers.push(number),
        }
    }

    /// Answers which number stands there now.
    fn swap_remove(&mut self, at: usize) -> Option<u32> {
        match self {
            Self::Empty => None,
            Self::One(_) => {
                *self = Self::Empty;
                None
            }
            Self::Many(numbers) => {
                numbers.swap_remove(at);
                let moved = numbers.get(at).copied();
                if let [only] = numbers[..] {
                    *self = Self::One(only);
                }
                moved
            }
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Many(numbers) => size_of::<Vec<u32>>() + numbers.capacity() * size_of::<u32>(),
            _ => 0,
        }
    }
}

impl Key {
    /// What a look-up costs besides the list: the wider the key, the more messages hit it.
    fn base_cost(&self) -> u64 {
        match self.part {
            Part::Equal(_) => 1,
            Part::Prefix(_) | Part::Suffix(_) | Part::Number { .. } => 4,
            Part::Present => 64,
        }
    }
}

impl Route {
    fn entries(&self) -> usize {
        match self {
            Self::Never => 0,
            Self::Keys(keys) => keys.len(),
            Self::Always | Self::AllBut(..) | Self::Scan(_) => 1,
        }
    }
}

fn standing(plan: &Plan) -> Standing {
    match &plan.route {
        Route::Never | Route::Always => Standing::Constant,
        Route::AllBut(..) => Standing::Exact,
        Route::Scan(_) => Standing::Scan,
        Route::Keys(_) if plan.residual.is_none() => Standing::Exact,
        Route::Keys(keys) if keys.iter().any(|key| key.part == Part::Present) => Standing::Presence,
        Route::Keys(_) => Standing::Indexed,
    }
}

/// Length and first bytes of a name, so that most that differ are told apart by one comparison.
#[inline]
fn beginning(name: &[u8]) -> u64 {
    match name.first_chunk::<8>() {
        Some(first) => u64::from_le_bytes(*first) ^ ((name.len() as u64) << 56),
        None => name.iter().fold(name.len() as u64, |sum, byte| sum << 8 | u64::from(*byte)),
    }
}

/// How a range of numbers is written as a key: its bits and its image, in hexadecimal.
#[inline]
fn number_name(bits: u32, image: u64) -> [u8; 18] {
    let digit = |number: u64| match number & 15 {
        digit @ 0..=9 => b'0' + digit as u8,
        digit => b'a' - 10 + digit as u8,
    };
    std::array::from_fn(|at| match at {
        0 => digit(u64::from(bits) >> 4),
        1 => digit(u64::from(bits)),
        at => digit(image >> (4 * (17 - at))),
    })
}

fn number_bits(name: &str) -> u32 {
    name.get(..2).and_then(|bits| u32::from_str_radix(bits, 16).ok()).unwrap_or_default()
}

/// So many names of attributes are compared one by one, which is cheaper than hashing.
const MAX_FEW_NAMES: usize = 8;

/// Messages whose look-ups overlap.
const BATCH: usize = 16;

/// Different lengths of prefixes, or suffixes, of one attribute; a further one is rounded down.
pub(crate) const MAX_LENGTHS: usize = 32;

/// A list of so many filters is looked through for those that are cheaper to find elsewhere, and
/// again whenever it has doubled.
const CROWDED: usize = 64;

/// A filter moves if it will be so many times cheaper to find.
const WORTH_MOVING: u64 = 4;

#[cfg(test)]
mod tests;
