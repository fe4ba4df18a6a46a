//! The program as it is used: the article's commands, the commands of the README, a second program
//! on the same store, and a process that is killed and started again.
//!
//! The only test here with real time; it waits for answers, never for time to pass.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

const PROGRAM: &str = env!("CARGO_BIN_EXE_jobs");

/// A server that ends with the test.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("listening on ").unwrap().to_owned();
        Self { child, url }
    }

    fn jobs(&self, arguments: &[&str]) -> Output {
        let (command, rest) = arguments.split_first().unwrap();
        Command::new(PROGRAM).args([command, "--url", &self.url]).args(rest).output().unwrap()
    }

    fn text(&self, arguments: &[&str]) -> String {
        let output = self.jobs(arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn get(&self, id: &str, wait: &str) -> serde_json::Value {
        serde_json::from_str(&self.text(&["get", id, "--wait", wait])).unwrap()
    }

    /// SIGKILL: no farewell of any kind.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn shell(script: &str) -> Output {
    Command::new("bash").args(["-euo", "pipefail", "-c", script]).output().unwrap()
}

fn has_curl() -> bool {
    let found = Command::new("curl").arg("--version").output().is_ok();
    if !found {
        println!("skipped: curl is not here");
    }
    found
}

#[test]
fn the_articles_own_commands() {
    if !has_curl() {
        return;
    }
    let server = Server::start(&[]);
    let script = concat!(
        r#"JOBID=$(curl -s --header "Content-Type: application/json" --request POST "#,
        r#"--data '{"path":"gs://manas_input/sample.jpg"}' $URL); "#,
        "echo $JOBID; curl -s $URL/$JOBID",
    );
    let output = shell(&format!("URL={}; {script}", server.url));
    let text = String::from_utf8(output.stdout).unwrap();
    let (id, document) = text.split_once('\n').unwrap();
    let document: serde_json::Value = serde_json::from_str(document).unwrap();
    assert_eq!(document["id"], id);
    assert!(["created", "running"].contains(&document["status"].as_str().unwrap()));
    assert_eq!(document["path"], "gs://manas_input/sample.jpg", "J-21");
    // The same with less sleep comes to its end.
    let short = server.text(&["submit", r#"{"path":"gs://x","seconds":0.05}"#]);
    let done = server.get(&short, "60s");
    assert_eq!(done["status"], "completed");
    assert_eq!(done["result"], serde_json::json!({"ok": true}));
}

#[test]
fn the_commands_of_the_readme() {
    if !has_curl() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("jobs.redb");
    let server = Server::start(&["--store", store.to_str().unwrap()]);
    let readme = std::fs::read_to_string("README.md").unwrap();
    let blocks: Vec<&str> =
        readme.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 2);
    let commands = blocks.concat().replace("http://127.0.0.1:8080", &server.url);
    let commands = commands.replace("target/release/jobs", PROGRAM);
    let output = shell(&format!("export JOBS_URL={}\n{commands}", server.url));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    for expected in [
        "\"status\":\"cancelled\"",
        "jobs_submitted_total",
        "1 jobs: completed",
        "digest",
        "created",
    ] {
        assert!(text.contains(expected), "{expected} in {text}");
    }
}

#[test]
fn a_killed_process_goes_on_where_it_was() {
    // A-S0-i with a real process.
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("jobs.redb");
    let arguments = ["--store", store.to_str().unwrap(), "--lease", "1s"];
    let server = Server::start(&arguments);
    let started = r#"{"seconds":3}"#;
    let id = server.text(&["submit", started]);
    let later = server.text(&["submit", "--run-at", "+1s", r#"{"seconds":0}"#]);
    // The first event after `created` says that the worker has it.
    let mut events = Command::new(PROGRAM)
        .args(["watch", "--url", &server.url, &id])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while server.get(&id, "0s")["status"] == "created" {}
    server.kill();
    events.wait().unwrap();

    let server = Server::start(&arguments);
    let job = server.get(&id, "60s");
    assert_eq!(job["status"], "completed", "{job}");
    assert_eq!(job["attempt"], 2, "J-09");
    assert_eq!(job["attempts"][0]["outcome"], "lost");
    assert_eq!(server.get(&later, "60s")["status"], "completed", "J-37");
    assert!(!server.text(&["list", "--status", "created"]).contains(&id));
}

/// A process that is asked to end lets jobs end for a while, and loses none of the others.
#[cfg(unix)]
#[test]
fn a_process_that_is_asked_to_end_does() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("jobs.redb");
    let arguments = ["--store", store.to_str().unwrap(), "--lease", "1s", "--grace", "2s"];
    let mut server = Server::start(&arguments);
    let short = server.text(&["submit", r#"{"seconds":0.5}"#]);
    let long = server.text(&["submit", r#"{"seconds":4}"#]);
    for id in [&short, &long] {
        while server.get(id, "0s")["status"] == "created" {}
    }
    let pid = server.child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(server.child.wait().unwrap().success());

    let server = Server::start(&arguments);
    let ended = server.get(&short, "0s");
    assert_eq!((&ended["status"], &ended["attempt"]), (&"completed".into(), &1.into()));
    let again = server.get(&long, "60s");
    assert_eq!((&again["status"], &again["attempt"]), (&"completed".into(), &2.into()));
}

/// Whoever is still sending a body that is too large sees why it is refused.
#[test]
fn a_body_that_is_too_large_is_answered() {
    use std::io::Write;
    let server = Server::start(&[]);
    let address = server.url.strip_prefix("http://").unwrap();
    for size in [1024 * 1024 + 1, 8 * 1024 * 1024] {
        let mut connection = std::net::TcpStream::connect(address).unwrap();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {size}\r\nConnection: close\r\n\r\n"
        );
        connection.write_all(head.as_bytes()).unwrap();
        connection.write_all(&vec![b' '; size]).unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
        assert!(answer.contains("\"EntityTooLarge\""), "{answer}");
    }
}

#[test]
fn a_store_is_opened_once() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("jobs.redb");
    let server = Server::start(&["--store", store.to_str().unwrap()]);
    let id = server.text(&["submit", r#"{"seconds":0}"#]);
    let second = |store: &Path| {
        let path = store.to_str().unwrap();
        Command::new(PROGRAM)
            .args(["serve", "--listen", "127.0.0.1:0", "--store", path])
            .output()
            .unwrap()
    };
    let refused = second(&store);
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("in use by another program"), "{text}");
    assert_eq!(server.get(&id, "60s")["status"], "completed", "nothing is lost");
    // What is no store is left as it is.
    let other = folder.path().join("notes.txt");
    std::fs::write(&other, "not a store, but somebody's notes\n").unwrap();
    assert!(!second(&other).status.success());
    assert_eq!(std::fs::read_to_string(&other).unwrap(), "not a store, but somebody's notes\n");
}

#[test]
fn digests_stay_below_the_root() {
    let root = tempfile::tempdir().unwrap();
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(root.path().join("abc"), "abc").unwrap();
    let png: &[u8] = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x07\0\0\0\x05\x08\x06\0\0\0";
    std::fs::write(root.path().join("dot.png"), png).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(secret.path(), root.path().join("link")).unwrap();
    let server = Server::start(&["--root", root.path().to_str().unwrap()]);
    let digest = |path: &str| {
        let args = serde_json::json!({"path": path}).to_string();
        let id = server.text(&["submit", "--kind", "digest", &args]);
        server.get(&id, "60s")
    };
    let found = digest("abc");
    let sha = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(found["result"], serde_json::json!({"path": "abc", "bytes": 3, "sha256": sha}));
    let picture = digest("dot.png");
    assert_eq!((&picture["result"]["width"], &picture["result"]["height"]), (&7.into(), &5.into()));
    for path in ["../x", "link", secret.path().to_str().unwrap(), "../../../../../../etc/passwd"] {
        let refused = digest(path);
        assert_eq!(refused["status"], "failed", "{path}");
        assert_eq!(refused["error"]["name"], "OutsideRoot", "{path}");
        assert_eq!(refused["attempt"], 1, "trying again would not help");
    }
    assert_eq!(digest("missing")["error"]["name"], "NoSuchFile");
    assert_eq!(digest(".")["error"]["name"], "NoSuchFile");
    let refused = server.jobs(&["submit", "--kind", "unknown", "{}"]);
    assert!(!refused.status.success());
    let text = String::from_utf8(refused.stderr).unwrap();
    assert!(text.contains("no handler for kind \"unknown\""), "{text}");
    for wrong in [&["get", "nope"][..], &["get", "a/b"], &["submit", "[]"], &["cancel", "nope"]] {
        assert!(!server.jobs(wrong).status.success(), "{wrong:?}");
    }
}

#[test]
fn arguments_are_checked() {
    for wrong in [
        &["serve", "--listen", "nowhere"][..],
        &["serve", "--root", "does-not-exist"],
        &["serve", "--root", "Cargo.toml"],
        &["serve", "--lease", "soon"],
        &["serve", "--lease", "0s"],
        &["serve", "--lease", "601s"],
        &["serve", "--grace", "soon"],
        &["serve", "--concurrency", "0"],
        &["serve", "--concurrency", "18446744073709551615"],
        &["serve", "--listen", "192.0.2.1:1"],
        &["serve", "--listen", "127.0.0.1:0", "--store", "does/not/exist"],
        &["serve", "--listen", "127.0.0.1:0", "--store", "."],
        &["list", "--limit", "-1"],
        &["submit", "{}", "--url", "no address"],
        &["watch", "a/b"],
        &["explode"],
        &[],
        &["get", "x", "--url", "http://127.0.0.1:1"],
    ] {
        let mut child = Command::new(PROGRAM);
        let mut child = child.args(wrong).stderr(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert!(!child.wait().unwrap().success(), "{wrong:?}");
        assert!(!said.is_empty() && !said.contains("panicked"), "{wrong:?}: {said}");
    }
}
