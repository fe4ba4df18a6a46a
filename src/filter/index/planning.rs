//! Where a filter will stand, by what the lists cost now.

use smallvec::SmallVec;

use super::FilterIndex;
use super::fields::MAX_LENGTHS;
use super::keys::{Kind, number_name};
use crate::filter::ast::Field;
use crate::filter::cover::{Key, Part, Plan, Route};
use crate::filter::normal::Normal;

impl<T: Copy> FilterIndex<T> {
    /// Chooses where a filter stands. Copies with the same history choose the same.
    pub(crate) fn plan(&self, normal: &Normal) -> Plan {
        let mut plan = Plan::new(normal, &mut |key| self.cost(key));
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
    pub(super) fn cost(&self, key: &Key) -> u64 {
        let Some(field) = self.fields.find(&key.field) else { return base_cost(key) };
        let list = match &key.part {
            Part::Present => {
                let entry = self.fields.get(field);
                return base_cost(key) + entry.map_or(0, |entry| entry.present.total() as u64);
            }
            Part::Equal(text) => self.keys.find(field, Kind::Equal, text.as_bytes()),
            Part::Prefix(text) => self.keys.find(field, Kind::Prefix, text.as_bytes()),
            Part::Suffix(text) => self.keys.find(field, Kind::Suffix, text.as_bytes()),
            Part::Number { bits, image } => {
                let name = number_name(u32::from(*bits), *image);
                self.keys.find(field, Kind::Number, &name)
            }
        };
        let list = list.and_then(|key| self.keys.get(key));
        base_cost(key) + list.map_or(0, |entry| entry.list.total() as u64)
    }

    /// Shortens a prefix or suffix to a length in use where no further length can be added;
    /// whether it had to.
    fn round_down(&self, key: &mut Key, added: &mut Vec<(Field, bool, u32)>) -> bool {
        let (text, is_suffix) = match &key.part {
            Part::Prefix(text) => (text, false),
            Part::Suffix(text) => (text, true),
            _ => return false,
        };
        let entry = self.fields.find(&key.field).and_then(|at| self.fields.get(at));
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
}

/// What a look-up costs besides the list: the wider the key, the more messages hit it.
fn base_cost(key: &Key) -> u64 {
    match key.part {
        Part::Equal(_) => 1,
        Part::Prefix(_) | Part::Suffix(_) | Part::Number { .. } => 4,
        Part::Present => 64,
    }
}
