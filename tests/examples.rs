//! The examples do what they say: each is run, and its last line and exit code are checked.
//!
//! `cargo test` builds the examples; with `--test examples` alone, `cargo build --examples` has to
//! come first.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::env::consts::EXE_SUFFIX;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The example that cargo has built beside this test.
fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(Path::parent).unwrap();
    let example = profile.join("examples").join(format!("{name}{EXE_SUFFIX}"));
    assert!(example.exists(), "{name} is not built: run `cargo build --examples` first");
    example
}

fn run<S: AsRef<OsStr>>(name: &str, arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new(example(name)).args(arguments).output().unwrap()
}

/// What a successful run printed.
fn printed(output: &Output) -> &str {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    std::str::from_utf8(&output.stdout).unwrap()
}

fn last_line(output: &Output) -> &str {
    printed(output).lines().last().unwrap()
}

/// A folder of this name below cargo's folder for tests, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let unique = format!("examples-{name}-{}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(unique);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn with(self, file: &str, content: impl AsRef<[u8]>) -> Folder {
        let path = self.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
        self
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Checks `request_reply: N requests, N replies, 0 lost, R redelivered` with this N and R ≥
/// `least`.
fn check_summary(output: &Output, files: usize, least: u64) {
    let line = last_line(output);
    let start = format!("request_reply: {files} requests, {files} replies, 0 lost, ");
    let redelivered = line.strip_prefix(&start).and_then(|rest| rest.strip_suffix(" redelivered"));
    let redelivered: u64 = redelivered.expect(line).parse().expect(line);
    assert!(redelivered >= least, "{line}");
    assert!(printed(output).contains("its late ack was Stale"), "{}", printed(output));
}

/// A run that ends with this exit code, this complaint and nothing else.
fn check_refused(output: &Output, code: i32, complaint: &str) {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{errors}");
    assert!(errors.contains(complaint), "{errors}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn quickstart() {
    let output = run("quickstart", [""; 0]);
    let expected = "quickstart: 2 published, 1 delivered, 1 acknowledged";
    assert_eq!(last_line(&output), expected);
}

#[test]
fn filters() {
    let output = run("filters", [""; 0]);
    assert_eq!(last_line(&output), "filters: 5 messages, 6 subscriptions, 15 deliveries");
    assert!(printed(&output).contains("`&&` is not an operator"), "{}", printed(&output));
}

#[test]
fn handler() {
    let output = run("handler", [""; 0]);
    let expected = "handler: 4 charged, 3 tried again, 1 rejected, 1 read by people";
    assert_eq!(last_line(&output), expected);
    let rejected = "some lamps: rejected: invalid digit found in string";
    assert!(printed(&output).contains(rejected), "{}", printed(&output));
}

#[cfg(all(feature = "http", feature = "oidc"))]
#[test]
fn push() {
    let output = run("push", [""; 0]);
    let expected = "push: 3 pushed, 3 received; a stranger got 401, a forger 401, \
                    another account 403";
    assert_eq!(last_line(&output), expected);
}

#[test]
fn one_file() {
    let folder = Folder::new("one").with("hello", "hello, wide world\n");
    let output = run("request_reply", [&folder.0]);
    // Nobody but the dying worker, the stalled one and one more is handed it.
    check_summary(&output, 1, 2);
    let row = "          18         1         3  711fb3548115  hello";
    assert!(printed(&output).contains(row), "{}", printed(&output));
}

#[test]
fn two_files_one_of_them_empty() {
    let folder = Folder::new("two").with("empty", "").with("below/a file", "a b");
    let output = run("request_reply", [&folder.0]);
    check_summary(&output, 2, 2);
    let row = "           0         0         0  e3b0c44298fc  empty";
    assert!(printed(&output).contains(row), "{}", printed(&output));
}

#[test]
fn more_files_than_are_in_flight() {
    let mut folder = Folder::new("many");
    for number in 0..300 {
        let content = format!("line {number}\n").repeat(number * 10);
        folder = folder.with(&format!("{}/{number}", number % 7), content);
    }
    // Neither of these counts.
    let folder = folder.with("target/debug/a", "a").with("3/.git/HEAD", "b");
    #[cfg(unix)]
    std::os::unix::fs::symlink("0", folder.0.join("link")).unwrap();
    let output = run("request_reply", [&folder.0]);
    check_summary(&output, 300, 5);
}

#[test]
fn a_file_that_takes_longer_than_the_ack_deadline() {
    let folder = Folder::new("large").with("large", vec![b'x'; 24 << 20]).with("small", "y");
    check_summary(&run("request_reply", [&folder.0]), 2, 2);
}

#[test]
fn a_folder_without_files_is_refused() {
    let folder = Folder::new("empty").with("target/skipped", "");
    check_refused(&run("request_reply", [&folder.0]), 1, "there is no file in this folder");
}

#[test]
fn a_missing_folder_is_refused() {
    let folder = Folder::new("missing");
    let missing = folder.0.join("nowhere");
    check_refused(&run("request_reply", [&missing]), 1, "nowhere: ");
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let folder = Folder::new("file").with("file", "");
    check_refused(&run("request_reply", [folder.0.join("file")]), 1, "file: ");
}

#[test]
fn two_folders_are_refused() {
    check_refused(&run("request_reply", ["a", "b"]), 2, "usage: ");
}
