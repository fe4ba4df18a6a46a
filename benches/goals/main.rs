//! The goals bench: every performance goal of the project, each beside its peer in the same run.
//!
//! `cargo bench --bench goals` prints one table; `-- --row 1 --row 16` picks rows. A row is a
//! function in the file of its group; measuring, peers and the table have a file each. Rows that
//! need something that is not here say so and are not counted.

#![allow(clippy::disallowed_methods, reason = "a bench reads real time")]
#![allow(clippy::indexing_slicing, reason = "a bench that is wrong may panic")]
#![allow(clippy::unwrap_used, reason = "a bench that cannot go on may panic")]

mod brokers;
mod calls;
mod cycle;
mod fan_out;
mod filtered;
mod filters;
mod latency;
mod limited;
mod measure;
mod memory;
mod message;
mod outstanding;
mod peers;
mod policies;
mod publishers;
mod push;
mod seek;
mod table;

use table::Table;

/// A row by its name, and what measures it.
type Row = (&'static str, fn(&mut Table));

const ROWS: &[Row] = &[
    // First, while no other row has left memory that could be used again.
    ("12", memory::backlog),
    ("13", memory::leases),
    ("1", cycle::one_thread_batched),
    ("1 limited", limited::all),
    ("2", cycle::two_tasks_batched),
    ("3", cycle::one_at_a_time),
    ("4", fan_out::publish_to_many),
    ("5", fan_out::whole),
    ("6", brokers::full_cycles),
    ("7", latency::round_trips),
    ("8", filters::equality),
    ("9", filters::residual),
    ("10", filters::prefix),
    ("11", filters::create),
    ("change", filters::change),
    ("14", outstanding::a_million),
    ("15", policies::random_deadlines),
    ("16", message::attributes),
    ("17", message::payload_shared),
    ("18", message::payload_copied),
    ("19", calls::counted),
    ("20", calls::start_up),
    ("idle", calls::idle),
    ("policies", policies::unused_policies),
    ("ordered", policies::ordered),
    ("keys", memory::keys),
    ("seek", seek::back_and_forth),
    ("publishers", publishers::side_by_side),
    ("push", push::in_process),
    ("push http", push::over_http),
];

fn main() {
    let picked = picked_rows();
    let mut table = Table::new();
    for (name, measure) in ROWS {
        if picked.is_empty() || picked.iter().any(|row| row == name) {
            eprintln!("row {name} …");
            measure(&mut table);
        }
    }
    table.print();
}

/// The values of `--row`; other arguments are those that cargo passes to every bench.
fn picked_rows() -> Vec<String> {
    let mut arguments = std::env::args();
    let mut picked = Vec::new();
    while let Some(argument) = arguments.next() {
        if argument == "--row" {
            let name = arguments.next().unwrap_or_default();
            let names: Vec<_> = ROWS.iter().map(|(row, _)| *row).collect();
            assert!(names.contains(&name.as_str()), "no row {name:?}; there are {names:?}");
            picked.push(name);
        }
    }
    picked
}
