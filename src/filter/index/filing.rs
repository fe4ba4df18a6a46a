//! Putting filters into the lists where they will be looked for, and taking them out.

use std::sync::Arc;

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::FilterIndex;
use super::counts::Standing;
use super::keys::{Kind, number_name};
use super::list::List;
use super::node::{ListId, Lone, Place, Residual};
use crate::filter::ast::{Field, Test};
use crate::filter::cover::{Key, Part, Plan, Route};
use crate::filter::normal::{Literal, Normal};
use crate::filter::program::{Check, Program};

impl<T: Copy> FilterIndex<T> {
    pub(super) fn file(&mut self, number: u32, plan: Plan) {
        let standing = Standing::of(&plan);
        *self.counts.of(standing) += 1;
        self.counts.entries += plan.route.entries();
        let residual = self.residual_of(plan.residual.as_ref());
        let lists = self.lists_of(&plan.route);
        let mut places: SmallVec<[Place; 1]> = SmallVec::with_capacity(lists.len());
        for list in lists {
            self.keyless += usize::from(!matches!(list, ListId::Key(_)));
            let list = self.group_for(list, number);
            self.push(list, number, &mut places);
        }
        if let Some(node) = self.nodes.get_mut(number as usize) {
            node.is_repeated = places.len() > 1;
            node.residual = residual;
        }
        places.iter().for_each(|place| self.refresh_lone(place.list));
        if let Some(filing) = self.filings.get_mut(number as usize) {
            filing.places = places;
            filing.standing = standing;
        }
        self.choose_again(number);
    }

    /// Brings a key in line with its list.
    fn refresh_lone(&mut self, list: ListId) {
        let ListId::Key(key) = list else { return };
        let Some(entry) = self.keys.get_mut(key) else { return };
        entry.lone = match entry.list {
            List::One(number) => self.nodes.get(number as usize).and_then(Lone::of),
            _ => None,
        };
    }

    fn residual_of(&self, normal: Option<&Normal>) -> Residual {
        let name = |field: &Field| self.fields.find(field).unwrap_or(u32::MAX);
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
    pub(super) fn unfile(&mut self, number: u32) {
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
            self.keyless -= usize::from(!matches!(self.root(list), ListId::Key(_)));
            self.swap_remove(list, at);
        }
        if let Some((field, value)) = excluded
            && let Some(field) = self.fields.find(&field)
            && let Some(key) = self.keys.find(field, Kind::AllBut, value.as_bytes())
        {
            self.remove_key(key);
        }
    }

    /// When a list has doubled, those in it may have become cheaper to find elsewhere, and what is
    /// left is split.
    fn choose_again(&mut self, number: u32) {
        let Some(filing) = self.filings.get(number as usize) else { return };
        let crowded = filing.places.iter().find(|place| {
            let length = self.list(place.list).as_slice().len();
            length >= CROWDED && length.is_power_of_two()
        });
        let Some(list) = crowded.map(|place| place.list) else { return };
        let limit = self.list(list).total() as u64 / WORTH_MOVING;
        for other in self.list(list).as_slice().to_vec() {
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
        if self.list(list).as_slice().len() >= CROWDED {
            self.split(list);
        }
    }

    /// The lists that a route names, made where they are missing.
    fn lists_of(&mut self, route: &Route) -> SmallVec<[ListId; 1]> {
        match route {
            Route::Never => SmallVec::new(),
            Route::Always => SmallVec::from_buf([ListId::Always]),
            Route::Scan => SmallVec::from_buf([ListId::Scanned]),
            Route::AllBut(field, value) => {
                let field = self.fields.find(field).unwrap_or(u32::MAX);
                let key = self.key(field, Kind::AllBut, value.clone());
                // Filled by `push`, with the number that is not known here.
                debug_assert!(self.list(ListId::Key(key)).is_empty(), "filters are interned");
                SmallVec::from_buf([ListId::AllBut(field)])
            }
            Route::Keys(keys) => keys.iter().map(|key| self.list_of_key(key)).collect(),
        }
    }

    fn list_of_key(&mut self, key: &Key) -> ListId {
        let field = self.fields.find(&key.field).unwrap_or(u32::MAX);
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

    /// The number of a key, which is made if it is missing.
    fn key(&mut self, field: u32, kind: Kind, value: SmolStr) -> u32 {
        let (key, is_new) = self.keys.enter(field, kind, value);
        if is_new
            && let Some(made) = self.keys.get(key)
            && let Some(entry) = self.fields.get_mut(field)
        {
            entry.count(kind, made.length(), true);
        }
        key
    }

    fn remove_key(&mut self, key: u32) {
        if let Some(removed) = self.keys.remove(key)
            && let Some(entry) = self.fields.get_mut(removed.field)
        {
            entry.count(removed.kind, removed.length(), false);
        }
    }

    pub(super) fn list(&self, list: ListId) -> &List {
        let found = match list {
            ListId::Key(key) => self.keys.get(key).map(|entry| &entry.list),
            ListId::Present(at) => self.fields.get(at).map(|entry| &entry.present),
            ListId::AllBut(at) => self.fields.get(at).map(|entry| &entry.all_but),
            ListId::Group(group) => self.groups.get(group as usize).map(|group| &group.list),
            ListId::Always => Some(&self.always),
            ListId::Scanned => Some(&self.scanned),
        };
        found.unwrap_or(&List::Empty)
    }

    pub(super) fn list_mut(&mut self, list: ListId) -> Option<&mut List> {
        match list {
            ListId::Key(key) => self.keys.get_mut(key).map(|entry| &mut entry.list),
            ListId::Present(at) => self.fields.get_mut(at).map(|entry| &mut entry.present),
            ListId::AllBut(at) => self.fields.get_mut(at).map(|entry| &mut entry.all_but),
            ListId::Group(group) => {
                self.groups.get_mut(group as usize).map(|group| &mut group.list)
            }
            ListId::Always => Some(&mut self.always),
            ListId::Scanned => Some(&mut self.scanned),
        }
    }

    /// Puts a node into a list, and notes the place.
    pub(super) fn push(&mut self, list: ListId, number: u32, places: &mut SmallVec<[Place; 1]>) {
        if let ListId::AllBut(field) = list {
            self.except(field, number);
        }
        let Some(numbers) = self.list_mut(list) else { return };
        places.push(Place { list, at: numbers.as_slice().len() as u32 });
        numbers.push(number);
        self.count_grouped(list, true);
    }

    /// Enters the value for which a node of the form "all but" does not match.
    fn except(&mut self, field: u32, number: u32) {
        let filing = self.filings.get(number as usize);
        let normal = filing.map(|filing| Arc::clone(&filing.normal));
        if let Some(Normal::Literal(Literal { test: Test::Eq(value), .. })) = normal.as_deref() {
            let key = self.key(field, Kind::AllBut, value.clone());
            if let Some(entry) = self.keys.get_mut(key) {
                entry.list.push(number);
            }
        }
        if self.list(ListId::AllBut(field)).is_empty() {
            self.exclusions.push(field);
        }
    }

    /// Takes a node out of a list; the last one takes its place. What becomes empty goes.
    pub(super) fn swap_remove(&mut self, list: ListId, at: u32) {
        let moved = self.list_mut(list).and_then(|numbers| numbers.swap_remove(at as usize));
        if let Some(filing) = moved.and_then(|moved| self.filings.get_mut(moved as usize))
            && let Some(place) = filing.places.iter_mut().find(|place| place.list == list)
        {
            place.at = at;
        }
        self.count_grouped(list, false);
        let mut list = list;
        while self.list(list).is_empty() {
            match list {
                ListId::Key(key) => return self.remove_key(key),
                ListId::Group(group) => list = self.remove_group(group),
                ListId::AllBut(field) => return self.exclusions.retain(|other| *other != field),
                ListId::Present(_) | ListId::Always | ListId::Scanned => return,
            }
        }
        self.refresh_lone(list);
    }
}

/// A list of so many filters is looked through for those that are cheaper to find elsewhere, and
/// again whenever it has doubled.
pub(super) const CROWDED: usize = 64;

/// A filter moves if it will be so many times cheaper to find.
const WORTH_MOVING: u64 = 4;
