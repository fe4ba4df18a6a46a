//! The command: what it prints and with which code it ends, for good files and odd ones.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::path::Path;
use std::process::Command;

/// The exit code, standard output and standard error of `flowctl` with these arguments.
fn flowctl(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_flowctl")).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A folder with these files; what is before a `/` in a name is a folder in it.
fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (file, text) in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    folder
}

fn path(folder: &tempfile::TempDir) -> &str {
    folder.path().to_str().unwrap()
}

const FLOW: &str = "version: v1\ntype: flow\nsteps: [{type: pass, name: a}]\n";

/// What is said about a folder with one case in it, besides these files a good `flow.yaml`.
fn case(files: &[(&str, &str)]) -> (i32, String, String) {
    let good = [("c/flow.yaml", FLOW)];
    let files: Vec<_> = good.iter().chain(files).copied().collect();
    let folder = folder(&files);
    flowctl(&["case", path(&folder)])
}

#[test]
fn cases_print_a_line_each_and_a_closing_count() {
    let good = ("good/expected.json", r#"{"status": "Succeeded"}"#);
    let bad = ("poor/expected.json", r#"{"status": "Failed", "elapsed_ms": 1}"#);
    let files = [("good/flow.yaml", FLOW), good, ("poor/flow.yaml", FLOW), bad];
    let folder = folder(&files);
    for store in [["--store", "memory"], ["--store", "redb"]] {
        let (code, out, _) = flowctl(&["case", store[0], store[1], path(&folder)]);
        let lines = [
            "PASS good",
            "FAIL poor: status: expected Failed, got Succeeded; elapsed_ms: expected 1, got 0",
            "1 passed, 1 failed",
        ];
        assert_eq!((code, out.lines().collect::<Vec<_>>()), (1, lines.to_vec()));
    }
    let one = folder.path().join("good");
    let crashing = ["case", "--crash-after-every-commit", one.to_str().unwrap()];
    assert_eq!(flowctl(&crashing).0, 0);
}

#[test]
fn files_that_are_missing_or_odd_are_named() {
    let expected = ("c/expected.json", "{}");
    for (files, says) in [
        (vec![], "FAIL c: expected.json: it is missing"),
        (vec![("c/expected.json", "{")], "FAIL c: expected.json: EOF"),
        (vec![("c/expected.json", "[]")], "FAIL c: expected.json: it is no object"),
        (vec![("c/expected.json", r#"{"vistied": []}"#)], "did you mean `visited`?"),
        (vec![expected, ("c/script.json", r#"{"at_ms": 1}"#)], "script.json: it is no list"),
        (vec![expected, ("c/script.json", r#"[{"at_ms": 1}]"#)], "script.json: action 0: missing"),
        (vec![expected, ("c/script.json", r#"[{"do": "stop"}]"#)], "missing field `at_ms`"),
        (vec![expected, ("c/script.json", r#"[{"at_ms": 1, "do": "sotp"}]"#)], "action 0: unknown"),
        (
            vec![expected, ("c/script.json", r#"[{"at_ms": 1, "do": "stop", "eror": "E"}]"#)],
            "unknown key `eror`; did you mean `error`?",
        ),
        (vec![expected, ("c/workers.json", "[]")], "workers.json: it is no object"),
        (vec![expected, ("c/workers.json", r#"{"job:k": {"kind": "eco"}}"#)], "unknown variant"),
        (vec![expected, ("c/workers.json", r#"{"k": {"kind": "echo"}}"#)], "k is no resource"),
        (
            vec![expected, ("c/workers.json", r#"{"job:k": {"kind": "sequence", "replies": []}}"#)],
            "at least one reply",
        ),
        (
            vec![expected, ("c/workers.json", r#"{"job:k": {"kind": "echo", "after": 1}}"#)],
            "PASS c",
        ),
        (vec![expected, ("c/input.json", "[1]")], "InvalidArgument"),
        (vec![expected, ("c/subflows/x.yaml", "steps: []")], "FDL019"),
        (vec![("c/flow.yaml", "a: [")], "FAIL c: expected.json"),
        (vec![expected, ("c/flow.yaml", "a: [")], "FDL001"),
    ] {
        let (code, out, err) = case(&files);
        assert_eq!(code, i32::from(!out.contains("PASS")), "{out}{err}");
        assert!(out.contains(says), "{files:?}: {out}{err}");
    }
    // A key that means nothing is noted and is no error: it may be a remark.
    let (code, _, err) = case(&[("c/expected.json", r#"{"about": "a", "seen_by": "b"}"#)]);
    assert_eq!((code, err.contains("`seen_by` means nothing here")), (0, true), "{err}");
    assert!(!err.contains("about"), "{err}");
    // Doubles of messages and child flows are of no use and no harm.
    let workers = r#"{"about": "x", "acs:mns:::/topics/t/messages": {"kind": "echo"}}"#;
    assert_eq!(case(&[expected, ("c/workers.json", workers)]).0, 0);
    let (code, out, _) = flowctl(&["case", "/nowhere/at/all"]);
    assert_eq!((code, out.contains("FAIL all")), (1, true), "{out}");
    assert_eq!(flowctl(&["case"]).0, 64);
}

#[test]
fn a_folder_whose_name_no_flow_can_have_is_played() {
    let folder = folder(&[("01 a.b/flow.yaml", FLOW), ("01 a.b/expected.json", "{}")]);
    let (code, out, _) = flowctl(&["case", path(&folder)]);
    assert_eq!((code, out.as_str()), (0, "PASS 01 a.b\n1 passed, 0 failed\n"));
}

#[test]
fn bad_definitions_print_a_line_each_and_a_closing_count() {
    let expected = r#"{"a.yaml": {"code": "FDL003", "path": "$.version"}, "b": {"code": "FDL005"},
        "c.yaml": {"code": "FDL001"}}"#;
    let bad = "version: v2\ntype: flow\nsteps: [{type: pass, name: a}]\n";
    let files = [("a.yaml", bad), ("b.yaml", FLOW), ("d.yaml", bad), ("expected.json", expected)];
    let folder = folder(&files);
    let (code, out, err) = flowctl(&["case", "--bad", path(&folder)]);
    let lines = [
        "PASS a",
        "FAIL b: the definition is not refused; no FDL005 that says []",
        "FAIL c: there is no such definition",
        "FAIL d: expected.json says nothing about it",
        "1 passed, 3 failed",
    ];
    assert_eq!((code, out.lines().collect::<Vec<_>>()), (1, lines.to_vec()), "{err}");
    let (code, out, _) = flowctl(&["case", "--bad", "/nowhere"]);
    assert_eq!((code, out.as_str()), (64, ""));
    let bad = Path::new(env!("CARGO_MANIFEST_DIR")).join("bad");
    let (code, out, _) = flowctl(&["case", "--bad", bad.to_str().unwrap()]);
    assert_eq!((code, out.lines().last().unwrap().ends_with(" passed, 0 failed")), (0, true));
}

#[test]
fn exit_codes_of_run_and_validate() {
    let flow = |steps: &str| format!("version: v1\ntype: flow\ntimeoutSeconds: 60\nsteps: {steps}");
    for (steps, code) in [
        ("[{type: pass, name: a}]", 0),
        ("[{type: fail, name: a}]", 1),
        ("[{type: task, name: a, resourceArn: job:k}]", 1),
        ("[{type: wait, name: a, duration: 61}]", 3),
        ("[{type: pass}]", 2),
        ("[", 2),
    ] {
        let folder = folder(&[("f.yaml", &flow(steps))]);
        let file = folder.path().join("f.yaml");
        let (ended, out, err) = flowctl(&["run", file.to_str().unwrap(), "--virtual"]);
        assert_eq!(ended, code, "{steps}: {out}{err}");
        let valid = flowctl(&["validate", file.to_str().unwrap()]).0;
        assert_eq!(valid, if code == 2 { 2 } else { 0 }, "{steps}");
    }
    assert_eq!(flowctl(&["validate", "/nowhere"]).0, 64);
    // Without --virtual the wait takes its time, and what happens is told.
    let steps = "[{type: wait, name: a, duration: 0.2}]";
    let folder = folder(&[("f.yaml", &flow(steps))]);
    let file = folder.path().join("f.yaml");
    let begun = std::time::Instant::now();
    let (ended, out, err) = flowctl(&["run", file.to_str().unwrap()]);
    assert!(begun.elapsed() >= std::time::Duration::from_millis(200), "it waits");
    assert_eq!(ended, 0, "{out}{err}");
    assert_eq!(err.lines().count(), 6, "a line for each event: {err}");
    assert_eq!(flowctl(&["run", "/nowhere", "--virtual"]).0, 64);
    assert_eq!(flowctl(&["fly"]).0, 64);
    assert_eq!(flowctl(&["--help"]).0, 0);
}
