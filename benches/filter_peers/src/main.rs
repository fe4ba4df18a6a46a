//! Matching filters beside the crate `a-tree` and beside looking at each filter, in the same run.
//!
//! All get the same filters and the same messages, and must find the same before they are timed.
//! Ours is what a publish costs more with the filters than without. `a-tree` has to be told the
//! attributes beforehand and turns a message into an event of its own first, so it is shown with
//! that and without; the ratio is that without, which is better for it. It has no prefixes.

#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

#[expect(dead_code, reason = "the goals bench uses more of it")]
#[path = "../../goals/filtered.rs"]
mod filtered;
#[expect(dead_code, reason = "the goals bench uses more of it")]
#[path = "../../goals/measure.rs"]
mod measure;
#[expect(dead_code, reason = "the goals bench uses more of it")]
#[path = "../../goals/table.rs"]
mod table;

use std::hint::black_box;

use a_tree::{ATree, AttributeDefinition, Event};
use siftbus::{Filter, Message};

use crate::filtered::{conjunction, filtered, messages, spread, unknown, value};
use crate::measure::{Contestant, race, wall};
use crate::table::{Goal, Line, Table};

/// A kind of filters in both languages.
struct Shape {
    name: &'static str,
    ours: fn(usize) -> Filter,
    theirs: fn(usize) -> String,
    /// Messages for so many filters; none matches in the end.
    asked: fn(usize) -> Vec<Message>,
    /// How many times more the peer costs at a thousand filters, at least.
    goal: Goal,
}

const SHAPES: [Shape; 2] = [
    Shape {
        name: "equality",
        ours: |number| Filter::eq("correlid", &value(number)),
        theirs: |number| format!("correlid = \"{}\"", value(number)),
        asked: |_| messages(unknown, "test"),
        goal: Goal::Shown,
    },
    Shape {
        name: "k = X AND NOT test, hit and checked",
        ours: conjunction,
        theirs: |number| format!("correlid = \"{}\" and test is null", value(number)),
        asked: |count| messages(move |nth| spread(nth, count), "test"),
        goal: Goal::AtLeast(40.0),
    },
];

const SIZES: [usize; 3] = [10, 1_000, 100_000];

/// What `a-tree` has to know of messages.
const ATTRIBUTES: [&str; 4] = ["correlid", "region", "test", "kind"];

fn main() {
    let mut table = Table::new();
    for shape in &SHAPES {
        for count in SIZES {
            eprintln!("{}, {count} …", shape.name);
            compare(shape, count, &mut table);
        }
    }
    table.print();
}

fn compare(shape: &Shape, count: usize, table: &mut Table) {
    let (with, without) = (filtered(count, shape.ours), filtered(0, shape.ours));
    let filters: Vec<Filter> = (0..count).map(shape.ours).collect();
    let tree = tree(count, shape.theirs);
    // Some of these match a filter, and all three must say so.
    let known = messages(|nth| spread(nth, count), "kind");
    for message in &known[..20] {
        let ours = with.topic.would_match(message).len() - 1;
        let scanned = filters.iter().filter(|filter| filter.matches(message)).count();
        let theirs = tree.search(&event(&tree, message)).unwrap().matches().len();
        assert_eq!((ours, scanned, theirs), (1, 1, 1), "{message:?}");
    }
    let asked = (shape.asked)(count);
    let some = &asked[..(2_000_000 / count).clamp(20, asked.len())];
    let events: Vec<Event> = some.iter().map(|message| event(&tree, message)).collect();
    let results = race(
        if count > 1_000 { 7 } else { 21 },
        vec![
            Box::new(|| with.publish(&asked, 1)),
            Box::new(|| without.publish(&asked, 1)),
            each(&events, &|event| search(&tree, event)),
            each(some, &|message| search(&tree, &event(&tree, message))),
            each(some, &|message| scan(&filters, message)),
        ],
    );
    let ours = results.difference(0, 1);
    let peers = [(2, "a-tree"), (3, "a-tree, events made"), (4, "looking at each")];
    for (peer, name) in peers {
        let is_judged = peer == 2 && count == 1_000;
        table.add(Line {
            row: "9",
            what: format!("match with {count} filters, {}", shape.name),
            ours: format!("{ours:.1} ns"),
            peer: format!("{name} {:.0} ns", results.nanos(peer)),
            judged: results.nanos(peer) / ours.max(1.0),
            goal: if is_judged { shape.goal } else { Goal::Shown },
            stretch: Goal::Shown,
        });
    }
}

/// Does something with each item, timed together.
fn each<'a, I>(items: &'a [I], work: &'a dyn Fn(&I)) -> Contestant<'a> {
    Box::new(move || wall(items.len(), || items.iter().for_each(work)))
}

fn tree(count: usize, expression: fn(usize) -> String) -> ATree<u32> {
    let mut tree = ATree::new(&ATTRIBUTES.map(AttributeDefinition::string)).unwrap();
    for number in 0..count {
        tree.insert(&(number as u32), &expression(number)).unwrap();
    }
    tree
}

fn event(tree: &ATree<u32>, message: &Message) -> Event {
    let mut event = tree.make_event();
    for (name, value) in message.attributes() {
        event.with_string(name, value).unwrap();
    }
    event.build().unwrap()
}

fn search(tree: &ATree<u32>, event: &Event) {
    black_box(tree.search(event).unwrap().matches().len());
}

fn scan(filters: &[Filter], message: &Message) {
    black_box(filters.iter().filter(|filter| filter.matches(message)).count());
}
