//! The HTTP surface in virtual time, without a socket (2.3).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod support;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use jobs::http::{HttpOptions, router};
use jobs::store::FaultyStore;
use jobs::{JobCtx, JobError, Jobs, MemoryStore, WorkerOptions};
use serde_json::{Value, json};
use support::{World, settle};
use tower::ServiceExt;

struct Server {
    world: World,
    jobs: Jobs,
    routes: Router,
}

impl Server {
    async fn new() -> Self {
        let world = World::new();
        let jobs = Jobs::builder(world.bus.clone()).known_kinds_only(true).build().await.unwrap();
        jobs.register("process_task", |ctx: JobCtx, _: Value| async move {
            for step in 1..=5 {
                ctx.progress(step, 5, "working");
                tokio::select! {
                    () = ctx.bus().sleep(Duration::from_secs(10)) => {}
                    _ = ctx.cancelled() => return Err(JobError::Cancelled),
                }
            }
            Ok(json!({"ok": true}))
        })
        .unwrap();
        let routes = router(jobs.clone(), HttpOptions::new());
        Self { world, jobs, routes }
    }

    async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Seen {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::from(body.to_owned())).unwrap();
        seen(self.routes.clone().oneshot(request).await.unwrap()).await
    }

    async fn post(&self, headers: &[(&str, &str)], body: &str) -> Seen {
        let json = ("Content-Type", "application/json");
        self.call("POST", "/", &[&[json], headers].concat(), body).await
    }

    async fn get(&self, path: &str) -> Seen {
        self.call("GET", path, &[], "").await
    }
}

#[derive(Debug)]
struct Seen {
    status: u16,
    headers: axum::http::HeaderMap,
    text: String,
}

impl Seen {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap()
    }

    fn error(&self) -> (u16, String) {
        (self.status, self.json()["error"]["code"].as_str().unwrap_or_default().to_owned())
    }

    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().unwrap()
    }
}

async fn seen(response: Response<Body>) -> Seen {
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    Seen { status: parts.status.as_u16(), headers: parts.headers, text }
}

const SEED: &str = r#"{"path":"gs://manas_input/sample.jpg"}"#;

#[tokio::test]
async fn the_seed_request() {
    let server = Server::new().await;
    let posted = server.post(&[], SEED).await;
    assert_eq!(posted.status, 201);
    let id = posted.text.clone();
    assert!(id.parse::<jobs::JobId>().is_ok(), "the body is the bare id: {id:?}");
    assert_eq!(posted.header("location"), format!("/{id}"));
    assert_eq!(posted.header("content-type"), "text/plain");
    let job = server.get(&format!("/{id}")).await;
    assert_eq!((job.status, job.header("content-type")), (200, "application/json"));
    let job = job.json();
    assert_eq!((&job["id"], &job["status"]), (&json!(id), &json!("created")));
    assert_eq!(job["path"], "gs://manas_input/sample.jpg", "J-21");
    assert_eq!((&job["kind"], &job["attempt"]), (&json!("process_task"), &json!(0)));
    assert_eq!(job["created_at"], "2026-01-01T00:00:00.000Z", "J-22");

    let _worker = server.jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
    server.world.to(14).await;
    let job = server.get(&format!("/{id}")).await.json();
    assert_eq!((&job["status"], &job["attempt"]), (&json!("running"), &json!(1)));
    assert_eq!(job["progress"], json!({"done": 2, "total": 5, "note": "working"}), "J-24");
    server.world.to(50).await;
    let job = server.get(&format!("/{id}")).await.json();
    assert_eq!((&job["status"], &job["result"]), (&json!("completed"), &json!({"ok": true})));
    server.world.to(50 + 24 * 3_600).await;
    let gone = server.get(&format!("/{id}")).await;
    assert_eq!(gone.error(), (404, "NotFound".to_owned()));
    assert_eq!(gone.json()["error"]["message"], format!("no job {id}"));
    assert_eq!(server.call("HEAD", "/", &[], "").await.status, 204);
}

#[tokio::test]
async fn bad_input_is_refused_and_changes_nothing() {
    let server = Server::new().await;
    let invalid = |text: &str| (400, text.to_owned());
    for body in ["", "[]", "\"text\"", "{", "null", "1", "{}{}", "{\"a\":}", "\u{0}"] {
        assert_eq!(server.post(&[], body).await.error(), invalid("InvalidArgument"), "{body:?}");
    }
    let deep = format!("{{\"a\":{}{}}}", "[".repeat(50_000), "]".repeat(50_000));
    assert_eq!(server.post(&[], &deep).await.error(), invalid("InvalidArgument"));
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(server.call("POST", "/", &form, SEED).await.error(), invalid("InvalidArgument"));
    for header in [
        ("X-Run-At", "soon"),
        ("X-Deadline", "+1 week"),
        ("X-Max-Attempts", "0"),
        ("X-Max-Attempts", "many"),
        ("X-Job-Kind", "nobody_knows"),
        ("X-Job-Kind", "a b"),
        ("Idempotency-Key", ""),
    ] {
        let answer = server.post(&[header], SEED).await.error();
        assert_eq!(answer, invalid("InvalidArgument"), "{header:?}");
    }
    let body = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
    let too_large = (413, "EntityTooLarge".to_owned());
    assert_eq!(server.post(&[], &body(1024 * 1024 + 1)).await.error(), too_large);
    assert_eq!(server.post(&[], &body(256 * 1024 + 1)).await.error(), too_large, "J-23");
    for path in ["/nope", "/..%2f", "/%ff", "/a%20b", "/a/b/c", "/nope/events", "/nope/retry/x"] {
        assert_eq!(server.get(path).await.error(), (404, "NotFound".to_owned()), "{path}");
    }
    for path in [
        "/?status=done",
        "/?limit=0",
        "/?limit=1001",
        "/?label=x",
        "/?sort=id",
        "/?after=*",
        "/?label=a:b&label=c:d",
        "/x?wait=1s&wait=2s",
        "/x?wiat=1s",
    ] {
        assert_eq!(server.get(path).await.error(), invalid("InvalidArgument"), "{path}");
    }
    assert_eq!(server.call("PUT", "/", &[], "").await.status, 405);
    assert_eq!(server.call("DELETE", "/nope", &[], "").await.error().0, 404);
    assert_eq!(server.call("POST", "/nope/retry", &[], "").await.error().0, 404);
    assert_eq!(server.get("/").await.json(), json!({"jobs": [], "next": null}));
    // The other side of the limits.
    assert_eq!(server.post(&[], &body(256 * 1024)).await.status, 201);
    let odd = [("Content-Type", "application/vnd.x+json; charset=utf-8")];
    assert_eq!(server.call("POST", "/", &odd, "{}").await.status, 201);
}

#[tokio::test]
async fn idempotent_submission() {
    // A-S0-j
    let server = Server::new().await;
    let key = [("Idempotency-Key", "k1")];
    let first = server.post(&key, SEED).await;
    let again = server.post(&key, " {\"path\": \"gs://manas_input/sample.jpg\"}").await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.text, again.text);
    let other = server.post(&key, "{}").await;
    assert_eq!(other.error(), (409, "IdempotencyConflict".to_owned()));
    assert_eq!(server.world.workers_queue().await.stats().backlog, 1);
}

#[tokio::test]
async fn the_long_form() {
    let server = Server::new().await;
    let long = json!({"kind": "process_task", "args": {"n": 1}, "id": "job-1", "delay_ms": 5_000,
        "priority": 3, "max_attempts": 2, "deadline": "+1h", "labels": {"team": "x"},
        "correlation_id": "c"});
    let headers = [("Content-Type", "application/json")];
    let posted = server.call("POST", "/jobs", &headers, &long.to_string()).await;
    assert_eq!((posted.status, posted.header("location")), (201, "/job-1"));
    let job = posted.json();
    assert_eq!(job["run_at"], "2026-01-01T00:00:05.000Z");
    assert_eq!(job["deadline"], "2026-01-01T01:00:00.000Z");
    assert_eq!((&job["max_attempts"], &job["priority"]), (&json!(2), &json!(3)));
    assert_eq!((&job["labels"], &job["n"]), (&json!({"team": "x"}), &json!(1)));
    let again = server.call("POST", "/jobs", &headers, &long.to_string()).await;
    assert_eq!(again.status, 200);
    for bad in [
        json!({"args": {}}),
        json!({"kind": "process_task", "idd": 1}),
        json!({"kind": "process_task", "run_at": "+1s", "delay_ms": 1}),
        json!({"kind": "process_task", "id": "a/b"}),
        json!({"kind": "process_task", "labels": {"a:b": "c"}}),
        json!({"kind": "process_task", "id": "metrics"}),
        json!({"kind": "process_task", "id": "jobs"}),
        json!({"kind": "process_task", "max_attempts": 1_001}),
    ] {
        let answer = server.call("POST", "/jobs", &headers, &bad.to_string()).await;
        assert_eq!(answer.error(), (400, "InvalidArgument".to_owned()), "{bad}");
    }
    let list = server.get("/?label=team:x&kind=process_task&status=created").await.json();
    assert_eq!(list["jobs"].as_array().unwrap().len(), 1);
    assert!(server.get("/?label=team:y").await.json()["jobs"].as_array().unwrap().is_empty());
    // It starts when it may.
    let _worker = server.jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
    server.world.to(4).await;
    assert_eq!(server.get("/job-1").await.json()["status"], "created");
    server.world.to(5).await;
    assert_eq!(server.get("/job-1").await.json()["status"], "running");
}

#[tokio::test]
async fn the_key_of_the_long_form_may_be_in_the_header() {
    // A-S0-j
    let server = Server::new().await;
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k1")];
    let long = |key: Option<&str>| {
        let mut long = json!({"kind": "process_task"});
        if let Some(key) = key {
            long["idempotency_key"] = json!(key);
        }
        long.to_string()
    };
    let first = server.call("POST", "/jobs", &headers, &long(None)).await;
    let again = server.call("POST", "/jobs", &headers, &long(Some("k1"))).await;
    assert_eq!((first.status, again.status), (201, 200));
    assert_eq!(first.json()["id"], again.json()["id"]);
    let other = server.call("POST", "/jobs", &headers, &long(Some("k2"))).await;
    assert_eq!(other.error(), (400, "InvalidArgument".to_owned()));
}

#[tokio::test]
async fn a_key_is_free_again_when_its_job_is_gone() {
    // J-13: also before a sweep has come by.
    let server = Server::new().await;
    let key = [("Idempotency-Key", "k1")];
    let first = server.post(&key, SEED).await.text;
    server.call("DELETE", &format!("/{first}"), &[], "").await;
    let day = Duration::from_secs(24 * 3_600);
    let start = server.world.clock.now();
    server.world.clock.advance_to(start + 7 * day);
    let second = server.post(&key, "{}").await;
    assert_eq!(second.status, 201, "{}", second.text);
    settle().await;
    assert_eq!(server.get(&format!("/{}", second.text)).await.json()["status"], "created");
    assert_eq!(server.post(&key, "{}").await.text, second.text);
}

#[tokio::test]
async fn it_can_be_mounted_under_a_prefix() {
    let server = Server::new().await;
    let routes = Router::new().nest("/api/queue", server.routes.clone());
    let post = |path: &str, body: &'static str| {
        let request = Request::builder().method("POST").uri(path).body(Body::from(body)).unwrap();
        let routes = routes.clone();
        async move { seen(routes.oneshot(request).await.unwrap()).await }
    };
    let short = post("/api/queue", "{}").await;
    assert_eq!(short.header("location"), format!("/api/queue/{}", short.text));
    let long = post("/api/queue/jobs", r#"{"kind":"process_task","id":"mine"}"#).await;
    assert_eq!(long.header("location"), "/api/queue/mine");
    let path = Request::builder().uri(long.header("location")).body(Body::empty()).unwrap();
    assert_eq!(seen(routes.oneshot(path).await.unwrap()).await.json()["id"], "mine");
}

#[tokio::test]
async fn lists_come_in_pages() {
    let server = Server::new().await;
    let mut ids = Vec::new();
    for n in 0..7 {
        ids.push(server.post(&[], &json!({"n": n}).to_string()).await.text);
    }
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = server.get(&format!("/?limit=3&after={after}")).await.json();
        found.extend(page["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()));
        match page["next"].as_str() {
            Some(next) => after = next.to_owned(),
            None => break,
        }
    }
    assert_eq!(found, ids, "in the order of submission");
}

#[tokio::test]
async fn waiting_for_a_change() {
    let server = Server::new().await;
    let id = server.post(&[], SEED).await.text;
    let path = format!("/{id}");
    let known = [("If-None-Match", "\"1\"")];
    assert_eq!(server.call("GET", &path, &known, "").await.status, 304);
    assert_eq!(server.call("GET", &path, &[("If-None-Match", "new")], "").await.status, 400);
    assert_eq!(server.get(&format!("{path}?wait=soon")).await.status, 400);

    // A change of version ends the wait; so does the time.
    let waiting = |path: String, headers: &'static [(&'static str, &'static str)]| {
        let routes = server.routes.clone();
        tokio::spawn(async move {
            let mut request = Request::builder().uri(path);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            seen(routes.oneshot(request.body(Body::empty()).unwrap()).await.unwrap()).await
        })
    };
    let changed = waiting(format!("{path}?wait=20s"), &[("If-None-Match", "\"1\"")]);
    let unchanged = waiting(format!("{path}?wait=3s"), &[("If-None-Match", "\"1\"")]);
    server.world.to(5).await;
    assert_eq!(unchanged.await.unwrap().status, 304);
    let _worker = server.jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
    settle().await;
    let changed = changed.await.unwrap();
    assert_eq!((changed.status, changed.json()["status"].as_str()), (200, Some("running")));
    assert_eq!(changed.header("etag"), "\"2\"");

    // Without a version, only the end does.
    let end = waiting(format!("{path}?wait=60s"), &[]);
    server.world.to(54).await;
    assert!(!end.is_finished());
    server.world.to(55).await;
    assert_eq!(end.await.unwrap().json()["status"], "completed");
}

#[tokio::test]
async fn cancelling_and_retrying() {
    let server = Server::new().await;
    let waits = server.post(&[], SEED).await.text;
    let done = server.call("DELETE", &format!("/{waits}"), &[], "").await;
    assert_eq!((done.status, done.json()["status"].as_str()), (200, Some("cancelled")));
    let again = server.call("DELETE", &format!("/{waits}"), &[], "").await;
    assert_eq!(again.error(), (409, "AlreadyFinal".to_owned()));

    let _worker = server.jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
    let runs = server.post(&[], SEED).await.text;
    server.world.to(2).await;
    let early = server.call("POST", &format!("/{runs}/retry"), &[], "").await;
    assert_eq!(early.error(), (409, "InvalidTransition".to_owned()));
    let asked = server.call("DELETE", &format!("/{runs}"), &[], "").await;
    assert_eq!((asked.status, &asked.json()["cancel_requested"]), (202, &json!(true)));
    settle().await;
    assert_eq!(server.get(&format!("/{runs}")).await.json()["status"], "cancelled");
    let retried = server.call("POST", &format!("/{runs}/retry"), &[], "").await;
    assert_eq!((retried.status, &retried.json()["manual_retries"]), (202, &json!(1)));
    server.world.to(60).await;
    let job = server.get(&format!("/{runs}")).await.json();
    assert_eq!((&job["status"], &job["attempt"]), (&json!("completed"), &json!(2)), "J-12");
}

#[tokio::test]
async fn events_end_with_the_job() {
    let server = Server::new().await;
    let id = server.post(&[], SEED).await.text;
    let request = Request::builder().uri(format!("/{id}/events")).body(Body::empty()).unwrap();
    let response = server.routes.clone().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let stream = tokio::spawn(seen(response));
    let _worker = server.jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
    server.world.to(60).await;
    let text = stream.await.unwrap().text;
    let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
    assert_eq!(names.first(), Some(&"created"));
    assert_eq!(names.last(), Some(&"completed"));
    assert_eq!(names.iter().filter(|name| **name == "running").count(), 6, "start and five steps");
    let last = text.lines().rev().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(last).unwrap()["result"], json!({"ok": true}));
}

#[tokio::test]
async fn a_store_that_fails_is_said_to() {
    let world = World::new();
    let (store, faults) = FaultyStore::new(MemoryStore::new());
    let jobs = Jobs::builder(world.bus.clone()).store(store).max_unfinished(1);
    let jobs = jobs.build().await.unwrap();
    let routes = router(jobs.clone(), HttpOptions::new());
    let post = || {
        let request = Request::builder().method("POST").uri("/").body(Body::from("{}")).unwrap();
        let routes = routes.clone();
        async move { seen(routes.oneshot(request).await.unwrap()).await }
    };
    faults.fail_at(2);
    assert_eq!(post().await.error(), (503, "Unavailable".to_owned()));
    assert_eq!(jobs.list(&Default::default(), None, 10).unwrap().jobs.len(), 0, "all or nothing");
    assert_eq!(post().await.status, StatusCode::CREATED);
    assert_eq!(post().await.error(), (429, "TooManyRequests".to_owned()));
}

#[tokio::test]
async fn figures_are_shown() {
    let server = Server::new().await;
    server.post(&[], SEED).await;
    server.world.to(3).await;
    let text = server.get("/metrics").await.text;
    for line in [
        "jobs_submitted_total 1",
        "jobs_unfinished 1",
        "jobs{status=\"created\",kind=\"process_task\"} 1",
        "jobs_oldest_age_seconds{status=\"created\"} 3.000",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
    assert_eq!(server.get("/healthz").await.text, "ok\n");
    let _worker = server.jobs.spawn_worker(WorkerOptions::new()).await.unwrap();
    server.world.to(60).await;
    let text = server.get("/metrics").await.text;
    for line in [
        "jobs_completed_total 1",
        "jobs_finished_total{status=\"completed\",kind=\"process_task\"} 1",
        "jobs_leases_lost_total 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} in {text}");
    }
}
