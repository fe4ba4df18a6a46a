//! The house rules of `CONTRIBUTING.md` that a program can check.
//!
//! Each check is a function from the text of a file to what is wrong with it, and is tried on a
//! planted violation at the bottom. Needles are put together here so that this file does not find
//! itself. Code is looked at without comments; nothing understands Rust beyond that.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The areas of rules that `docs/semantics.md` defines.
const AREAS: [&str; 23] = [
    "RES", "LIM", "PUB", "FIL", "LS", "ACK", "DL", "PULL", "STR", "PUSH", "ORD", "RTY", "DLQ",
    "EOD", "RET", "SEEK", "SNP", "EXP", "UPD", "LST", "ERR", "TIME", "LIB",
];

const MAX_COLUMNS: usize = 100;

const CLOCK_CALLS: [&str; 3] = [
    concat!("SystemTime", "::now"),
    concat!("Instant", "::now"),
    concat!("tokio::time", "::sleep"),
];

const LOCKS: [&str; 4] = [
    concat!("parking", "_lot"),
    concat!("std::sync", "::atomic"),
    concat!("std::sync", "::Mutex"),
    concat!("std::sync", "::RwLock"),
];

/// What nothing below the shell may name.
const ABOVE_BROKER: [&str; 15] = [
    "tokio",
    "Mutex",
    "RwLock",
    "DashMap",
    "async ",
    "Waker",
    "crate::shell",
    "crate::bus",
    "crate::topic",
    "crate::subscription",
    "crate::delivery",
    "crate::stream",
    "crate::request",
    "crate::events",
    "crate::clock",
];

const LEFTOVERS: [&str; 5] = [
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
    concat!("dbg", "!("),
    concat!("FIX", "ME"),
    concat!("TO", "DO"),
];

const MACHINE_PATHS: [&str; 6] = [
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/wo", "rk/"),
    concat!("/tm", "p/"),
    concat!("/Us", "ers/"),
    concat!("C:", "\\"),
];

const UNSAFE_FILES: [&str; 2] = ["src/arena.rs", "src/broker/slots.rs"];

#[test]
fn sources_open_with_what_they_hold() {
    clean(&sources("src"), opening);
}

#[test]
fn lines_fit() {
    clean(&all_rust(), long_lines);
}

#[test]
fn one_file_reads_time() {
    clean(&except(sources("src"), &["src/clock.rs"]), |text| named(text, &CLOCK_CALLS));
}

#[test]
fn one_file_names_locks_and_atomics() {
    // The counters count behind a feature for benches, beside whatever a model checker replaces.
    let sources = except(sources("src"), &["src/sync.rs", "src/counters.rs"]);
    clean(&sources, |text| named(text, &LOCKS));
}

#[test]
fn two_files_are_unsafe() {
    let allow = concat!("allow(", "unsafe_code)");
    let allowed: Vec<File> =
        sources("src").into_iter().filter(|f| f.text.contains(allow)).collect();
    let paths: Vec<&str> = allowed.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, UNSAFE_FILES);
    assert!(allowed.iter().all(|file| file.text.matches(allow).count() == 1));
    clean(&except(sources("src"), &UNSAFE_FILES), uses_of_unsafe);
}

#[test]
fn arrows_point_down() {
    clean(&sources("src/broker"), |text| named(text, &ABOVE_BROKER));
    clean(&sources("src/filter"), |text| {
        let mut found = named(text, &ABOVE_BROKER);
        found.extend(named(text, &["crate::broker", "crate::sync"]));
        found
    });
}

#[test]
fn nothing_is_left_over() {
    clean(&all_rust(), |text| leftovers(text, &LEFTOVERS));
}

#[test]
fn no_file_names_a_machine() {
    let mut files = all_rust();
    for extension in ["md", "toml", "yml", "sh", "json"] {
        files.extend(walk("", extension));
    }
    files.extend(sources_any(".ci"));
    clean(&files, |text| leftovers(text, &MACHINE_PATHS));
}

#[test]
fn every_rule_that_is_cited_exists() {
    let rules = defined_rules(&read("docs/semantics.md"));
    assert!(rules.len() > 300, "{} rules: the manual has another form", rules.len());
    clean(&all_rust(), |text| unknown_rules(text, &rules));
    clean(&walk("", "md"), |text| unknown_rules(text, &rules));
}

#[test]
fn every_rule_that_is_claimed_as_tested_is_cited_by_a_test() {
    let manual = read("docs/semantics.md");
    let tests: String = sources("tests").into_iter().map(|file| file.text).collect();
    let cited = cited_rules(&tests);
    let untested: Vec<_> = claimed_rules(&manual).difference(&cited).cloned().collect();
    assert!(untested.is_empty(), "claimed in docs/semantics.md, cited by no test: {untested:?}");
}

#[test]
fn the_readme_shows_the_example_that_is_compiled() {
    let front: String = read("src/lib.rs")
        .lines()
        .map_while(|line| line.strip_prefix("//!"))
        .map(|line| format!("{}\n", line.strip_prefix(' ').unwrap_or(line)))
        .collect();
    let compiled = block(&front, "```\n").expect("the front page has an example");
    assert_eq!(block(&read("README.md"), "```rust\n"), Some(compiled));
}

struct File {
    path: String,
    text: String,
}

/// Fails with every violation in every file.
fn clean(files: &[File], check: impl Fn(&str) -> Vec<String>) {
    assert!(!files.is_empty(), "nothing to check: a folder has moved");
    let mut found = Vec::new();
    for file in files {
        found.extend(check(&file.text).into_iter().map(|what| format!("{}:{what}", file.path)));
    }
    assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
}

fn opening(text: &str) -> Vec<String> {
    match text.starts_with("//! ") {
        true => Vec::new(),
        false => vec!["1: does not open with `//!`".to_owned()],
    }
}

fn long_lines(text: &str) -> Vec<String> {
    lines(text, |line| {
        let columns = line.chars().count();
        // Neither a row of a table nor a hidden line of an example can be broken.
        let unbroken = ["/// | ", "/// # ", "//! | "];
        let is_unbroken = unbroken.iter().any(|start| line.trim_start().starts_with(start))
            || is_mostly_text(line);
        (columns > MAX_COLUMNS && !is_unbroken).then(|| format!("{columns} columns"))
    })
}

/// Whether a line of code is long only because of a text in quotes, which breaking would spoil.
fn is_mostly_text(line: &str) -> bool {
    let is_comment = line.trim_start().starts_with("//");
    let quoted = line.find('"').zip(line.rfind('"')).map_or(0, |(first, last)| last - first);
    !is_comment && line.chars().count().saturating_sub(quoted) <= MAX_COLUMNS / 2
}

/// Needles in code; comments may name them.
fn named(text: &str, needles: &[&str]) -> Vec<String> {
    lines(text, |line| {
        let code = without_comment(line);
        let needle = needles.iter().find(|needle| code.contains(*needle));
        needle.map(|needle| format!("names `{}`", needle.trim()))
    })
}

/// Needles anywhere.
fn leftovers(text: &str, needles: &[&str]) -> Vec<String> {
    lines(text, |line| {
        needles.iter().find(|needle| line.contains(*needle)).map(|needle| format!("has `{needle}`"))
    })
}

fn uses_of_unsafe(text: &str) -> Vec<String> {
    lines(text, |line| {
        let code = without_comment(line);
        let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
        words.any(|word| word == "unsafe").then(|| "is unsafe".to_owned())
    })
}

fn unknown_rules(text: &str, rules: &BTreeSet<String>) -> Vec<String> {
    lines(text, |line| {
        let unknown: Vec<_> = cited_rules(line).difference(rules).cloned().collect();
        (!unknown.is_empty()).then(|| format!("cites {}", unknown.join(", ")))
    })
}

/// Lines with something wrong, with their numbers.
fn lines(text: &str, check: impl Fn(&str) -> Option<String>) -> Vec<String> {
    let numbered = text.lines().zip(1..);
    numbered.filter_map(|(line, n)| check(line).map(|what| format!("{n}: {what}"))).collect()
}

/// What stands before `//`; good enough, as no source has that inside a string.
fn without_comment(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Ids such as `LS-8` in a text; both ends of `LIM-2 … LIM-8`.
fn cited_rules(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| is_rule(word)).map(str::to_owned).collect()
}

fn is_rule(word: &str) -> bool {
    word.split_once('-').is_some_and(|(area, number)| {
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        digits && AREAS.contains(&area)
    })
}

/// Rules that have a row or an item of their own in the manual.
fn defined_rules(manual: &str) -> BTreeSet<String> {
    let rows = manual.lines().filter_map(row).map(|[id, ..]| id);
    let items = manual.lines().filter_map(|line| line.strip_prefix("- **")?.split(' ').next());
    rows.chain(items.map(|item| item.trim_end_matches(['.', '*'])))
        .filter(|word| is_rule(word))
        .map(str::to_owned)
        .collect()
}

/// Rules that the manual says hold and are tested.
fn claimed_rules(manual: &str) -> BTreeSet<String> {
    let rows = manual.lines().filter_map(row);
    let claimed = rows.filter(|[id, _, status]| {
        is_rule(id) && status.starts_with("library") && !status.contains("by construction")
    });
    claimed.map(|[id, ..]| id.to_owned()).collect()
}

/// The cells of a row of three.
fn row(line: &str) -> Option<[&str; 3]> {
    let cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
    cells.collect::<Vec<_>>().try_into().ok()
}

/// The first fenced block that opens with `fence`.
fn block<'t>(text: &'t str, fence: &str) -> Option<&'t str> {
    let (_, rest) = text.split_once(fence)?;
    rest.split_once("```").map(|(block, _)| block)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn sources(folder: &str) -> Vec<File> {
    walk(folder, "rs")
}

fn sources_any(folder: &str) -> Vec<File> {
    walk(folder, "")
}

fn all_rust() -> Vec<File> {
    sources("")
}

fn except(files: Vec<File>, exceptions: &[&str]) -> Vec<File> {
    let all = files.len();
    let rest: Vec<File> =
        files.into_iter().filter(|file| !exceptions.contains(&file.path.as_str())).collect();
    assert_eq!(rest.len(), all - exceptions.len(), "an exception has moved: {exceptions:?}");
    rest
}

/// Files below a folder of the project by how their names end, sorted.
fn walk(folder: &str, extension: &str) -> Vec<File> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let skipped = name == "target" || name.starts_with(".git");
            if path.is_dir() && !skipped {
                folders.push(path);
            } else if path.is_file() && name.ends_with(extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found.iter().filter_map(file).collect()
}

fn file(path: &PathBuf) -> Option<File> {
    let relative = path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
    // What is no text has no rules.
    fs::read_to_string(path).ok().map(|text| File { path: relative, text })
}

mod itself {
    use super::*;

    #[test]
    fn planted_violations_are_found() {
        assert_eq!(opening("use std::fmt;\n//! Late.").len(), 1);
        assert!(opening("//! What it holds.\n").is_empty());

        assert_eq!(long_lines(&"é".repeat(101)), ["1: 101 columns"]);
        assert!(long_lines(&format!("let text = \"{}\";", "x".repeat(101))).is_empty());
        assert!(long_lines(&"é".repeat(100)).is_empty());
        assert!(long_lines(&format!("/// | {} |", "é".repeat(100))).is_empty());

        let planted = format!("fn f() {{\n    {}();\n}}", CLOCK_CALLS[1]);
        assert_eq!(named(&planted, &CLOCK_CALLS).len(), 1);
        assert!(named(&format!("// Not {} here.", CLOCK_CALLS[1]), &CLOCK_CALLS).is_empty());
        assert_eq!(named("use crate::shell::core::BusCore;", &ABOVE_BROKER).len(), 1);
        assert_eq!(named(&format!("use {}::Ordering;", LOCKS[1]), &LOCKS).len(), 1);

        assert_eq!(uses_of_unsafe("let x = unsafe { y() };").len(), 1);
        assert!(uses_of_unsafe("struct UnsafeCell; // unsafe\n#![deny(unsafe_code)]").is_empty());

        assert_eq!(leftovers(&format!("x\n// {}: later", LEFTOVERS[3]), &LEFTOVERS).len(), 1);
        assert_eq!(leftovers(&format!("see {}x", MACHINE_PATHS[0]), &MACHINE_PATHS).len(), 1);
    }

    #[test]
    fn rules_are_read_from_the_manual_and_from_tests() {
        let manual = "| rule | in short | status |\n| LS-8 | late ack | library |\n\
                      | TIME-1 | one place | library, by construction |\n| SEEK-1 | x | later |\n\
                      - **LIB-1 Release on drop.** See LS-9.\n- **LIB-2** counts.\n";
        let rules = defined_rules(manual);
        assert_eq!(Vec::from_iter(&rules), ["LIB-1", "LIB-2", "LS-8", "SEEK-1", "TIME-1"]);
        assert_eq!(Vec::from_iter(claimed_rules(manual)), ["LS-8"]);

        let planted = concat!("assert!(done, \"LS-8, LS", "-999\"); // UTF-8, I-3, XLS-8");
        assert_eq!(unknown_rules(planted, &rules), [concat!("1: cites LS", "-999")]);
    }

    #[test]
    fn a_changed_example_is_noticed() {
        let text = "a\n```rust\nlet x = 1;\n```\n";
        assert_eq!(block(text, "```rust\n"), Some("let x = 1;\n"));
        assert_eq!(block(text, "```python\n"), None);
    }
}
