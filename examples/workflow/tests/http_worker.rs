//! Workers behind HTTP, against a receiver on the loopback address (F-115).
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use siftbus::{Bus, Code, Push};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use workflow::engine::{Description, EngineOptions, Report, StartExecution, Status};
use workflow::flows::Flows;
use workflow::http_worker::{HttpOptions, serve_http};
use workflow::store::MemoryStore;
use workflow::worker::WorkerError;

const RESOURCE: &str = "acs:fc:::services/s/functions/f";

/// A request as it came: its head in small letters and its body.
struct Seen {
    head: String,
    body: Value,
}

impl Seen {
    /// The payload of the message.
    fn data(&self) -> String {
        let data = STANDARD.decode(self.body["message"]["data"].as_str().unwrap()).unwrap();
        String::from_utf8(data).unwrap()
    }
}

struct Receiver {
    url: String,
    seen: mpsc::UnboundedReceiver<Seen>,
}

impl Receiver {
    /// Answers with these in turn; an empty answer closes the connection.
    async fn new(answers: impl IntoIterator<Item = String>) -> Receiver {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/work", listener.local_addr().unwrap());
        let (send, seen) = mpsc::unbounded_channel();
        let mut answers: VecDeque<String> = answers.into_iter().collect();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                while let Some(request) = read(&mut stream).await {
                    let _ = send.send(request);
                    let answer = answers.pop_front().unwrap_or_default();
                    if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
                        break;
                    }
                }
            }
        });
        Receiver { url, seen }
    }

    async fn next(&mut self) -> Seen {
        self.seen.recv().await.unwrap()
    }
}

async fn read(stream: &mut TcpStream) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let mut body = vec![0; length.parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { head, body: serde_json::from_slice(&body).unwrap() })
}

fn flow(more: &str) -> String {
    let task = format!("{{type: task, name: call, resourceArn: '{RESOURCE}'{more}}}");
    format!("version: v1\ntype: flow\nsteps:\n  - {task}\n")
}

async fn open(definition: &str, receiver: &Receiver) -> (Flows, Push) {
    let bus = Bus::new();
    let flows = Flows::open(&bus, Arc::new(MemoryStore::new()), EngineOptions::default()).unwrap();
    let options = HttpOptions::new().authorization("Bearer secret");
    let push = serve_http(&bus, RESOURCE, &receiver.url, options).unwrap();
    flows.create_flow("f", definition).await.unwrap();
    let start = StartExecution::new("f", json!({"n": 4})).named("exec-1");
    flows.start_execution(start).await.unwrap();
    (flows, push)
}

async fn end(flows: &Flows) -> Description {
    flows.wait("f", "exec-1", Duration::from_secs(30)).await.unwrap()
}

fn answer(status: u16, body: &str) -> String {
    let length = match status {
        204 => String::new(),
        _ => format!("content-length: {}\r\n", body.len()),
    };
    format!("HTTP/1.1 {status} A\r\n{length}\r\n{body}")
}

#[tokio::test]
async fn the_answer_is_the_output() {
    let mut receiver = Receiver::new([answer(200, r#"{"n":8}"#)]).await;
    let (flows, _push) = open(&flow(""), &receiver).await;
    let ended = end(&flows).await;
    assert_eq!((ended.status, ended.output), (Status::Succeeded, Some(json!({"n": 8}))));
    let seen = receiver.next().await;
    assert_eq!(seen.data(), r#"{"n":4}"#);
    assert!(seen.head.contains("authorization: bearer secret"), "{}", seen.head);
    let attributes = &seen.body["message"]["attributes"];
    for (key, value) in [("type", "task"), ("execution", "exec-1"), ("step", "call")] {
        assert_eq!(attributes[key], value, "4.2");
    }
    let events = flows.history("f", "exec-1", 0, 100).await.unwrap();
    let task: Vec<_> = events.iter().map(|event| event.kind.name()).collect();
    assert_eq!(task[3..6], ["TaskScheduled", "TaskStarted", "TaskSucceeded"]);
}

#[tokio::test]
async fn answers_that_are_errors() {
    let said = r#"{"errorCode":"NoRoom","errorMessage":"full"}"#;
    for (status, body, error, cause) in [
        (400, said, "FC.NoRoom", "full"),
        (500, said, "FC.NoRoom", "full"),
        (429, said, "FC.ResourceThrottled", "full"),
        (429, "", "FC.ResourceThrottled", "the worker answered with status 429"),
        (500, "", "FC.InternalServerError", "the worker answered with status 500"),
        (503, "<html>", "FC.InternalServerError", "the worker answered with status 503"),
        (404, "gone", "FC.Unknown", "the worker answered with status 404"),
        (302, "", "FC.Unknown", "the worker answered with status 302"),
        (200, "[1]", "FnF.InvalidOutput", "the result is not a JSON object"),
    ] {
        let receiver = Receiver::new([answer(status, body)]).await;
        let (flows, push) = open(&flow(""), &receiver).await;
        let failure = end(&flows).await.failure.unwrap();
        assert_eq!((failure.error.as_str(), failure.cause.as_str()), (error, cause), "F-115");
        // An error is an answer: it is not pushed again.
        assert_eq!(push.drain().await.succeeded, 1, "F-115: {status}");
    }
    let receiver = Receiver::new([answer(200, "no JSON")]).await;
    let (flows, _push) = open(&flow(""), &receiver).await;
    assert_eq!(end(&flows).await.failure.unwrap().error, "FC.Unknown", "3.9: nonsense");
    let receiver = Receiver::new([answer(204, "")]).await;
    let (flows, _push) = open(&flow(""), &receiver).await;
    assert_eq!(end(&flows).await.output, Some(json!({})));
}

#[tokio::test]
async fn without_an_answer_the_invocation_is_pushed_again() {
    let mut receiver = Receiver::new([String::new(), answer(200, r#"{"n":8}"#)]).await;
    let (flows, _push) = open(&flow(""), &receiver).await;
    assert_eq!(end(&flows).await.output, Some(json!({"n": 8})));
    let ids = [receiver.next().await, receiver.next().await]
        .map(|seen| seen.body["message"]["attributes"]["task_id"].clone());
    assert_eq!(ids[0], ids[1], "F-110");
}

#[tokio::test]
async fn a_worker_behind_http_may_submit_and_report_later() {
    let more = ", pattern: waitForCallback, \
                inputMappings: [{target: token, source: $context.task.token}]";
    let mut receiver = Receiver::new([answer(202, "")]).await;
    let (flows, _push) = open(&flow(more), &receiver).await;
    let input: Value = serde_json::from_str(&receiver.next().await.data()).unwrap();
    let token = input["token"].as_str().unwrap();
    flows.report(token, Report::succeeded(r#"{"s":"ok"}"#)).await.unwrap();
    assert_eq!(end(&flows).await.output, Some(json!({"s": "ok"})), "A-S4");
}

#[tokio::test]
async fn what_cannot_be_served_is_refused() {
    let bus = Bus::new();
    let serve = |resource, url| serve_http(&bus, resource, url, HttpOptions::new()).unwrap_err();
    let refused = serve("acs:mns:::/topics/t/messages", "http://127.0.0.1:1");
    assert!(matches!(refused, WorkerError::Resource(_)));
    let refused = serve(RESOURCE, "ftp://127.0.0.1");
    assert!(matches!(refused, WorkerError::Endpoint(_)));
    assert_eq!(refused.code(), Code::InvalidArgument);
    let options = HttpOptions::new().timeout(Duration::ZERO);
    let other = "acs:fc:::services/s/functions/g";
    let refused = serve_http(&bus, other, "http://127.0.0.1:1", options).unwrap_err();
    assert!(matches!(refused, WorkerError::Bus(_)));
}
