//! The fields that filters name: found by the names of a message's attributes, each with what is
//! asked about it. An attribute that no filter names is dismissed here.

use slab::Slab;
use smallvec::SmallVec;

use super::keys::Kind;
use super::list::List;
use crate::filter::ast::Field;
use crate::filter::hash::{KeyedHash, word};
use crate::filter::table::HashIndex;

/// All fields that filters name, by number.
#[derive(Debug)]
pub(super) struct Fields {
    hash: KeyedHash,
    entries: Slab<FieldEntry>,
    /// Attributes by name.
    names: HashIndex,
    /// The attributes again while they are few; else empty.
    few: Vec<FewName>,
    has_few: bool,
    /// A bit for each length of a name that may be there: most other names go by it.
    lengths: u64,
    /// Numbers of the fields of the message itself, where a filter asks for them.
    pub(super) ordering_key: Option<u32>,
    pub(super) data_size: Option<u32>,
    pub(super) attribute_count: Option<u32>,
}

/// A name in a form that is compared fast: up to eight bytes word and length are all of it.
#[derive(Debug, Clone, Copy)]
struct FewName {
    begin: u64,
    length: u32,
    field: u32,
}

/// What is asked about a field.
#[derive(Debug)]
pub(super) struct FieldEntry {
    field: Field,
    /// How many filters name it.
    uses: u32,
    pub(super) equal: u32,
    /// Whether anything but an equal value is looked up.
    pub(super) has_parts: bool,
    pub(super) prefixes: Lengths,
    pub(super) suffixes: Lengths,
    pub(super) numbers: Lengths,
    pub(super) present: List,
    /// Nodes that match all but one value of this field.
    pub(super) all_but: List,
}

/// Which lengths occur, and how often; sorted, at most [`MAX_LENGTHS`].
#[derive(Debug, Default)]
pub(super) struct Lengths(pub(super) SmallVec<[(u32, u32); 2]>);

impl Fields {
    pub(super) fn new(hash: KeyedHash) -> Self {
        Self {
            hash,
            entries: Slab::new(),
            names: HashIndex::default(),
            few: Vec::new(),
            has_few: true,
            lengths: 0,
            ordering_key: None,
            data_size: None,
            attribute_count: None,
        }
    }

    #[inline]
    pub(super) fn get(&self, at: u32) -> Option<&FieldEntry> {
        self.entries.get(at as usize)
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut FieldEntry> {
        self.entries.get_mut(at as usize)
    }

    /// The number of an attribute that some filter names.
    #[inline]
    pub(super) fn find_name(&self, name: &[u8]) -> Option<u32> {
        if self.lengths & length_bit(name) == 0 {
            return None;
        }
        if !self.has_few {
            return self.find_among_many(name);
        }
        let (begin, length) = (word(name), name.len() as u32);
        let alike = |few: &&FewName| few.begin == begin && few.length == length;
        let found = self.few.iter().find(|few| {
            alike(few) && (name.len() <= size_of::<u64>() || self.has_name(few.field, name))
        });
        found.map(|few| few.field)
    }

    fn find_among_many(&self, name: &[u8]) -> Option<u32> {
        let probe = self.names.probe(self.hash.text(0, name))?;
        self.names.find(probe, |field| self.has_name(field, name))
    }

    fn has_name(&self, field: u32, name: &[u8]) -> bool {
        let known = self.get(field).map(|entry| &entry.field);
        matches!(known, Some(Field::Attribute(known)) if known.as_bytes() == name)
    }

    pub(super) fn find(&self, field: &Field) -> Option<u32> {
        match field {
            Field::Attribute(name) => self.find_name(name.as_bytes()),
            Field::OrderingKey => self.ordering_key,
            Field::DataSize => self.data_size,
            Field::AttributeCount => self.attribute_count,
        }
    }

    /// One filter more names a field.
    pub(super) fn enter(&mut self, field: &Field) {
        if let Some(at) = self.find(field) {
            if let Some(entry) = self.get_mut(at) {
                entry.uses += 1;
            }
            return;
        }
        let at = self.entries.insert(FieldEntry::new(field.clone())) as u32;
        match field {
            Field::Attribute(name) => {
                self.names.insert(self.hash.text(0, name.as_bytes()), at);
                self.lengths |= length_bit(name.as_bytes());
                self.refresh_few();
            }
            Field::OrderingKey => self.ordering_key = Some(at),
            Field::DataSize => self.data_size = Some(at),
            Field::AttributeCount => self.attribute_count = Some(at),
        }
    }

    /// One filter less names a field.
    pub(super) fn leave(&mut self, field: &Field) {
        let Some(at) = self.find(field) else { return };
        let Some(entry) = self.get_mut(at) else { return };
        entry.uses -= 1;
        if entry.uses > 0 {
            return;
        }
        self.entries.remove(at as usize);
        match field {
            Field::Attribute(name) => {
                self.names.remove(self.hash.text(0, name.as_bytes()), at);
                self.refresh_few();
            }
            Field::OrderingKey => self.ordering_key = None,
            Field::DataSize => self.data_size = None,
            Field::AttributeCount => self.attribute_count = None,
        }
    }

    fn refresh_few(&mut self) {
        self.few.clear();
        self.has_few = self.entries.len() <= MAX_FEW_NAMES;
        if !self.has_few {
            return;
        }
        self.lengths = 0;
        for (at, entry) in &self.entries {
            if let Field::Attribute(name) = &entry.field {
                self.lengths |= length_bit(name.as_bytes());
                let (begin, length) = (word(name.as_bytes()), name.len() as u32);
                self.few.push(FewName { begin, length, field: at as u32 });
            }
        }
    }

    pub(super) fn memory(&self) -> usize {
        let lists = self.entries.iter().flat_map(|(_, entry)| [&entry.present, &entry.all_but]);
        let lists = lists.map(List::memory).sum::<usize>();
        self.names.memory() + self.entries.capacity() * size_of::<FieldEntry>() + lists
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.few.is_empty()
    }
}

#[inline]
fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(u64::BITS as usize - 1)
}

impl FieldEntry {
    fn new(field: Field) -> Self {
        let (present, all_but) = Default::default();
        let (prefixes, suffixes, numbers) = Default::default();
        let has_parts = false;
        Self { field, uses: 1, equal: 0, has_parts, prefixes, suffixes, numbers, present, all_but }
    }

    /// Takes notice that a key of this field comes or goes; `length` is that of a part.
    pub(super) fn count(&mut self, kind: Kind, length: u32, comes: bool) {
        match kind {
            Kind::Equal if comes => self.equal += 1,
            Kind::Equal => self.equal -= 1,
            Kind::Prefix => self.prefixes.count(length, comes),
            Kind::Suffix => self.suffixes.count(length, comes),
            Kind::Number => self.numbers.count(length, comes),
            Kind::AllBut => {}
        }
        let parts = [&self.prefixes, &self.suffixes, &self.numbers];
        self.has_parts = parts.iter().any(|lengths| !lengths.0.is_empty());
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

    /// The lengths up to `most`, shortest first.
    #[inline]
    pub(super) fn up_to(&self, most: usize) -> impl Iterator<Item = usize> {
        let lengths = self.0.iter().map(|(length, _)| *length as usize);
        lengths.take_while(move |length| *length <= most)
    }
}

/// So many names of attributes are compared one by one, which is cheaper than hashing.
const MAX_FEW_NAMES: usize = 8;

/// Different lengths of prefixes, or suffixes, of one attribute; a further one is rounded down.
pub(crate) const MAX_LENGTHS: usize = 32;
