//! Putting filters into the lists where they will be looked for, and taking them out.

use std::sync::Arc;

use smallvec::SmallVec;
use smol_str::SmolStr;

use super::counts::Standing;
use super::keys::{Kind, number_name};
use super::list::List;
use super::node::{ListId, Lone, Place, Residual};
use super::{FilterIndex, Group};
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
            let at = self.list(list).len() as u32;
            places.push(Place { list, at });
            self.keyless += usize::from(!matches!(list, ListId::Key(_)));
            self.push(list, number);
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
            self.keyless -= usize::from(!matches!(list, ListId::Key(_)));
            self.swap_remove(list, at);
        }
        if let Some((field, value)) = excluded
            && let Some(field) = self.fields.find(&field)
            && let Some(key) = self.keys.find(field, Kind::AllBut, value.as_bytes())
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
                let field = self.fields.find(field).unwrap_or(u32::MAX);
                let key = self.key(field, Kind::AllBut, value.clone());
                // Filled by `push`, with the number that is not known here.
                debug_assert!(matches!(self.list(ListId::Key(key)), []), "filters are interned");
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

    fn group(&mut self, guard: &Literal) -> u32 {
        if let Some(&group) = self.by_guard.get(guard) {
            return group;
        }
        let field = self.fields.find(&guard.field).unwrap_or(u32::MAX);
        let check = Check::of(&guard.test);
        let group = Group { guard: guard.clone(), field, check, nodes: Vec::new() };
        let group = self.groups.insert(group) as u32;
        self.by_guard.insert(guard.clone(), group);
        group
    }

    pub(super) fn list(&self, list: ListId) -> &[u32] {
        match list {
            ListId::Key(key) => self.keys.get(key).map_or(&[], |entry| entry.list.as_slice()),
            ListId::Present(at) => self.fields.get(at).map_or(&[], |entry| &entry.present),
            ListId::AllBut(at) => self.fields.get(at).map_or(&[], |entry| &entry.all_but),
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
                if let Some(entry) = self.keys.get_mut(key) {
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
                let Some(entry) = self.fields.get_mut(field) else { return };
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
            ListId::Present(at) => Some(&mut self.fields.get_mut(at)?.present),
            ListId::AllBut(at) => Some(&mut self.fields.get_mut(at)?.all_but),
            ListId::Group(group) => Some(&mut self.groups.get_mut(group as usize)?.nodes),
            ListId::Always => Some(&mut self.always),
            ListId::Unguarded => Some(&mut self.unguarded),
        }
    }

    /// Takes a node out of a list; the last one takes its place. What becomes empty goes.
    fn swap_remove(&mut self, list: ListId, at: u32) {
        let moved = match list {
            ListId::Key(key) => {
                let entry = self.keys.get_mut(key);
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
            self.refresh_lone(list);
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
}

/// A list of so many filters is looked through for those that are cheaper to find elsewhere, and
/// again whenever it has doubled.
pub(super) const CROWDED: usize = 64;

/// A filter moves if it will be so many times cheaper to find.
const WORTH_MOVING: u64 = 4;
