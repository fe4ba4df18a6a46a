//! What a message matches: its attributes are looked up, and only what is found there is judged.

use smallvec::SmallVec;

use super::FilterIndex;
use super::keys::{KeyEntry, Kind, domain, number_name};
use super::list::List;
use super::node::{Fact, find};
use crate::filter::cover::upper;
use crate::filter::program::Value;
use crate::filter::table::Probe;

/// A message as filters see it.
pub(crate) trait Subject {
    /// Calls `visit` with name and value of each attribute.
    fn attributes<'s>(&'s self, visit: impl FnMut(&'s [u8], &'s [u8]));
    /// Empty if there is none.
    fn ordering_key(&self) -> &str;
    fn data_size(&self) -> u64;
    fn attribute_count(&self) -> u64;
}

/// What is looked up of a value.
#[derive(Clone, Copy)]
enum Part<'m> {
    Text(&'m [u8]),
    Number([u8; 18]),
}

/// A look-up that is under way.
#[derive(Clone, Copy)]
struct LookUp<'m> {
    field: u32,
    kind: Kind,
    part: Part<'m>,
    probe: Probe,
}

impl<T: Copy> FilterIndex<T> {
    /// Calls `found` with the position of a message in `messages` and what is filed under a
    /// filter that matches it, once for each filter.
    #[inline]
    pub(crate) fn matching<S: Subject>(&self, messages: &[S], mut found: impl FnMut(u32, T)) {
        if let [message] = messages {
            self.match_one(message, |value| found(0, value));
            return;
        }
        for (chunk, first) in messages.chunks(BATCH).zip((0..).step_by(BATCH)) {
            self.match_chunk(chunk, |at, value| found(first + at, value));
        }
    }

    /// As `matching`, for one.
    #[inline]
    pub(crate) fn match_one<S: Subject>(&self, message: &S, mut found: impl FnMut(T)) {
        let mut facts: SmallVec<[Fact<'_>; 8]> = SmallVec::new();
        let mut pending: SmallVec<[LookUp<'_>; 4]> = SmallVec::new();
        // While the first slots come from memory, the other attributes are read.
        self.collect_facts(message, |fact| {
            self.look_up(&fact, |look_up| pending.push(look_up));
            facts.push(fact);
        });
        let mut repeated = Repeated::new();
        for look_up in &pending {
            if let Some(entry) = self.resolve(look_up) {
                self.judge(entry, &facts, &mut repeated, &mut found);
            }
        }
        self.judge_rest(&facts, repeated, &mut found);
    }

    /// First everything that the look-ups need is read, with their first slots, then the keys they
    /// lead to, then the filters: misses of one message overlap with those of the others.
    fn match_chunk<S: Subject>(&self, messages: &[S], mut found: impl FnMut(u32, T)) {
        let mut facts: SmallVec<[Fact<'_>; 4 * BATCH]> = SmallVec::new();
        let mut ends: SmallVec<[(u32, u32); BATCH]> = SmallVec::new();
        let mut pending: SmallVec<[LookUp<'_>; BATCH]> = SmallVec::new();
        for message in messages {
            self.collect_facts(message, |fact| {
                self.look_up(&fact, |look_up| pending.push(look_up));
                facts.push(fact);
            });
            ends.push((facts.len() as u32, pending.len() as u32));
        }
        let mut hits: SmallVec<[(u32, &KeyEntry<T>); BATCH]> = SmallVec::new();
        for (look_up, nth) in pending.iter().zip(0..) {
            if let Some(entry) = self.resolve(look_up) {
                hits.push((nth, entry));
            }
        }
        if hits.is_empty() && !self.has_keyless() {
            return;
        }
        let (mut begin, mut hits) = (0, hits.as_slice());
        for (&(end, looked_up), at) in ends.iter().zip(0..) {
            let own = facts.get(begin..end as usize).unwrap_or_default();
            begin = end as usize;
            let mut repeated = Repeated::new();
            while let Some(((_, entry), rest)) =
                hits.split_first().filter(|((nth, _), _)| *nth < looked_up)
            {
                hits = rest;
                self.judge(entry, own, &mut repeated, &mut |value| found(at, value));
            }
            self.judge_rest(own, repeated, &mut |value| found(at, value));
        }
    }

    /// Judges the filters behind a key.
    #[inline]
    fn judge(
        &self,
        entry: &KeyEntry<T>,
        facts: &[Fact<'_>],
        repeated: &mut Repeated,
        found: &mut impl FnMut(T),
    ) {
        if let Some(lone) = &entry.lone {
            if lone.holds(facts) {
                found(lone.value);
            }
            return;
        }
        self.visit(&entry.list, facts, &mut |number| self.look(number, facts, repeated, found));
    }

    /// Calls `look` with each filter of a list, but for those in groups whose test does not hold.
    #[inline]
    pub(super) fn visit(&self, list: &List, facts: &[Fact<'_>], look: &mut impl FnMut(u32)) {
        list.as_slice().iter().for_each(|&number| look(number));
        if !list.groups().is_empty() {
            self.visit_groups(list.groups(), facts, look);
        }
    }

    fn visit_groups<'s>(
        &'s self,
        groups: &'s [u32],
        facts: &[Fact<'_>],
        look: &mut impl FnMut(u32),
    ) {
        let mut open: SmallVec<[&[u32]; 8]> = SmallVec::from_slice(&[groups]);
        while let Some(groups) = open.pop() {
            for group in groups.iter().filter_map(|group| self.groups.get(*group as usize)) {
                let holds = find(facts, group.field).is_some_and(|value| group.check.holds(value));
                if holds == group.guard.holds {
                    group.list.as_slice().iter().for_each(|&number| look(number));
                    open.extend(Some(group.list.groups()).filter(|groups| !groups.is_empty()));
                }
            }
        }
    }

    #[inline]
    fn look(
        &self,
        number: u32,
        facts: &[Fact<'_>],
        repeated: &mut Repeated,
        found: &mut impl FnMut(T),
    ) {
        let Some(node) = self.nodes.get(number as usize) else { return };
        if node.is_repeated {
            repeated.push(number);
        } else if node.holds(facts) {
            found(node.value);
        }
    }

    /// Judges the filters that no key leads to, and those that several keys may have led to.
    #[inline]
    fn judge_rest(&self, facts: &[Fact<'_>], mut repeated: Repeated, found: &mut impl FnMut(T)) {
        if self.has_keyless() {
            self.judge_keyless(facts, &mut repeated, found);
        }
        if !repeated.is_empty() {
            self.judge_repeated(facts, repeated, found);
        }
    }

    fn judge_repeated(
        &self,
        facts: &[Fact<'_>],
        mut repeated: Repeated,
        found: &mut impl FnMut(T),
    ) {
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

    fn judge_keyless(
        &self,
        facts: &[Fact<'_>],
        repeated: &mut Repeated,
        found: &mut impl FnMut(T),
    ) {
        let mut look = |number: u32| self.look(number, facts, repeated, found);
        for fact in facts {
            if let Some(entry) = self.fields.get(fact.field) {
                self.visit(&entry.present, facts, &mut look);
            }
        }
        self.visit(&self.always, facts, &mut look);
        self.visit(&self.scanned, facts, &mut look);
        for &field in &self.exclusions {
            let Some(entry) = self.fields.get(field) else { continue };
            let fact = facts.iter().find(|fact| fact.field == field);
            let excluded = fact.and_then(|fact| self.keys.find(field, Kind::AllBut, fact.text()));
            let excluded = excluded.and_then(|key| match self.keys.get(key)?.list {
                List::One(number) => Some(number),
                _ => None,
            });
            let others =
                entry.all_but.as_slice().iter().filter(|&&number| Some(number) != excluded);
            others.for_each(|&number| look(number));
        }
    }

    #[inline]
    pub(super) fn collect_facts<'m, S: Subject>(
        &self,
        message: &'m S,
        mut push: impl FnMut(Fact<'m>),
    ) {
        message.attributes(|name, value| {
            if let Some(field) = self.fields.find_name(name) {
                push(Fact { field, value: Value::Text(value) });
            }
        });
        if let Some(field) = self.fields.ordering_key {
            let key = message.ordering_key();
            if !key.is_empty() {
                push(Fact { field, value: Value::Text(key.as_bytes()) });
            }
        }
        if let Some(field) = self.fields.data_size {
            push(Fact { field, value: Value::Number(message.data_size()) });
        }
        if let Some(field) = self.fields.attribute_count {
            push(Fact { field, value: Value::Number(message.attribute_count()) });
        }
    }

    /// Calls `look_up` with everything about a fact that may be found.
    #[inline]
    fn look_up<'m>(&self, fact: &Fact<'m>, mut look_up: impl FnMut(LookUp<'m>)) {
        let Some(entry) = self.fields.get(fact.field) else { return };
        let (field, text) = (fact.field, fact.text());
        let mut begin = |kind, hash, part| {
            if let Some(probe) = self.keys.probe(hash) {
                look_up(LookUp { field, kind, part, probe });
            }
        };
        let hash = |kind, text: &[u8]| self.keys.hash.text(domain(field, kind), text);
        if entry.equal > 0 {
            begin(Kind::Equal, hash(Kind::Equal, text), Part::Text(text));
        }
        if !entry.has_parts {
            return;
        }
        match entry.prefixes.0[..] {
            [] => {}
            [(length, _)] => {
                if let Some(prefix) = text.get(..length as usize) {
                    begin(Kind::Prefix, hash(Kind::Prefix, prefix), Part::Text(prefix));
                }
            }
            _ => {
                let mut beginnings = self.keys.hash.beginnings(text);
                for length in entry.prefixes.up_to(text.len()) {
                    let hash = beginnings.hash(domain(field, Kind::Prefix), length);
                    let prefix = text.get(..length).unwrap_or_default();
                    begin(Kind::Prefix, hash, Part::Text(prefix));
                }
            }
        }
        for length in entry.suffixes.up_to(text.len()) {
            let suffix = text.get(text.len() - length..).unwrap_or_default();
            begin(Kind::Suffix, hash(Kind::Suffix, suffix), Part::Text(suffix));
        }
        if !entry.numbers.0.is_empty()
            && let Some(number) = fact.number()
        {
            for &(bits, _) in &entry.numbers.0 {
                let name = number_name(bits, upper(number.image(), bits));
                begin(Kind::Number, hash(Kind::Number, &name), Part::Number(name));
            }
        }
    }

    #[inline]
    fn resolve(&self, look_up: &LookUp<'_>) -> Option<&KeyEntry<T>> {
        let part = match &look_up.part {
            Part::Text(text) => text,
            Part::Number(name) => &name[..],
        };
        self.keys.resolve(look_up.probe, look_up.field, look_up.kind, part)
    }
}

/// Nodes that may be found more than once.
type Repeated = SmallVec<[u32; 16]>;

/// Messages whose look-ups overlap.
const BATCH: usize = 16;
