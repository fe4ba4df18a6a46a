//! Push over HTTP against receivers on the loopback address.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::collections::BTreeMap;

use serde_json::Value;
use siftbus::{
    Bus, Code, HttpEndpoint, Message, Push, Subscription, SubscriptionConfig, Topic, TopicConfig,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver};

/// A request as it came: its connection's number, first line, headers and body.
#[derive(Debug)]
struct Seen {
    connection: usize,
    line: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

struct Receiver {
    url: String,
    seen: UnboundedReceiver<Seen>,
}

/// Answers with `answers` in turn, then with 204; an empty answer closes the connection.
async fn receiver(answers: Vec<&'static str>) -> Receiver {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/push?key=1", listener.local_addr().unwrap());
    let (send, seen) = mpsc::unbounded_channel();
    let mut answers = answers.into_iter();
    tokio::spawn(async move {
        for connection in 0.. {
            let (mut stream, _) = listener.accept().await.unwrap();
            while let Some(request) = read(&mut stream, connection).await {
                let _ = send.send(request);
                let answer = answers.next().unwrap_or("HTTP/1.1 204 Fine\r\n\r\n");
                if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
                    break;
                }
                if !answer.ends_with("\r\n\r\n") || answer.contains(" 102 ") {
                    break;
                }
            }
        }
    });
    Receiver { url, seen }
}

async fn read(stream: &mut TcpStream, connection: usize) -> Option<Seen> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let mut lines = head.lines();
    let line = lines.next()?.to_owned();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers: BTreeMap<_, _> =
        headers.map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned())).collect();
    let mut body = vec![0; headers["content-length"].parse().unwrap()];
    stream.read_exact(&mut body).await.ok()?;
    Some(Seen { connection, line, headers, body })
}

async fn world() -> (Bus, Topic, Subscription) {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    (bus, topic, worker)
}

fn push(worker: &Subscription, url: &str) -> Push {
    worker.push_to(HttpEndpoint::new(worker, url).unwrap()).unwrap()
}

#[tokio::test]
async fn a_wrapped_message_has_every_field() {
    let (_bus, topic, worker) = world().await;
    let mut receiver = receiver(Vec::new()).await;
    let push = push(&worker, &receiver.url);
    let receipt =
        topic.publish(Message::new("Hello").with_attribute("key", "value")).await.unwrap();
    let seen = receiver.seen.recv().await.unwrap();
    assert_eq!(seen.line, "POST /push?key=1 HTTP/1.1", "PUSH-6");
    assert_eq!(seen.headers["content-type"], "application/json", "PUSH-8");
    assert_eq!(seen.headers["user-agent"], "CloudPubSub-Google", "PUSH-8");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    let message = &body["message"];
    assert_eq!(message["data"], "SGVsbG8=", "PUSH-7");
    assert_eq!(message["attributes"]["key"], "value", "PUSH-7");
    assert_eq!(message["messageId"], receipt.id().as_u64().to_string(), "PUSH-7");
    assert_eq!(message["messageId"], message["message_id"], "PUSH-7");
    assert_eq!(message["publishTime"], message["publish_time"], "PUSH-7");
    assert_eq!(body["subscription"], worker.name().to_string(), "PUSH-7");
    assert_eq!(body.get("deliveryAttempt"), None, "PUSH-7");
    assert_eq!(push.drain().await.succeeded, 1);
}

#[tokio::test]
async fn an_unwrapped_message_leaves_out_what_is_no_header() {
    let (_bus, topic, worker) = world().await;
    let mut receiver = receiver(Vec::new()).await;
    let endpoint = HttpEndpoint::new(&worker, &receiver.url).unwrap().unwrapped(true);
    let push = worker.push_to(endpoint.authorize(|| Ok("Bearer x".parse()?))).unwrap();
    let message = Message::new("raw").with_attribute("kind", "a").with_attribute("bad key", "b");
    let message = message.with_attribute("other", "\u{4e16}").with_attribute("host", "elsewhere");
    topic.publish(message.with_attribute("authorization", "mine")).await.unwrap();
    let seen = receiver.seen.recv().await.unwrap();
    assert_eq!(seen.body, b"raw", "PUSH-9");
    assert_eq!(seen.headers["content-type"], "application/octet-stream", "PUSH-10");
    assert_eq!(seen.headers["kind"], "a", "PUSH-11");
    assert!(seen.headers.contains_key("x-goog-pubsub-message-id"), "PUSH-11");
    assert!(!seen.headers.contains_key("other"), "PUSH-12");
    assert!(seen.headers["host"].starts_with("127.0.0.1"), "PUSH-12");
    assert_eq!(seen.headers["authorization"], "Bearer x", "PUSH-12");
    assert_eq!(push.drain().await.succeeded, 1);
}

/// How often a message is pushed when the first answer is this.
async fn pushes_after(answer: &'static str) -> (u64, u64) {
    let (_bus, topic, worker) = world().await;
    let mut receiver = receiver(vec![answer]).await;
    let push = push(&worker, &receiver.url);
    topic.publish("order").await.unwrap();
    receiver.seen.recv().await.unwrap();
    while push.stats().succeeded == 0 {
        tokio::task::yield_now().await;
    }
    let stats = push.drain().await;
    (stats.succeeded, stats.failed)
}

#[tokio::test]
async fn exactly_five_codes_acknowledge() {
    for answer in [
        "HTTP/1.1 102 Wait\r\n\r\n",
        "HTTP/1.1 200 A\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 201 A\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 202 A\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 204 A\r\n\r\n",
    ] {
        assert_eq!(pushes_after(answer).await, (1, 0), "PUSH-16: {answer}");
    }
    for answer in [
        "HTTP/1.1 203 A\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 307 A\r\nlocation: /other\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 404 A\r\ncontent-length: 0\r\n\r\n",
        "HTTP/1.1 500 A\r\ncontent-length: 0\r\n\r\n",
        "no protocol at all",
        "",
    ] {
        assert_eq!(pushes_after(answer).await, (1, 1), "PUSH-17: {answer}");
    }
}

#[tokio::test]
async fn connections_are_used_again() {
    let (_bus, topic, worker) = world().await;
    let mut receiver = receiver(Vec::new()).await;
    let push = push(&worker, &receiver.url);
    for n in 0..3 {
        topic.publish(n.to_string()).await.unwrap();
        assert_eq!(receiver.seen.recv().await.unwrap().connection, 0, "LIB-307");
        while push.stats().succeeded <= n {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn only_http_urls_are_endpoints() {
    let (_bus, _, worker) = world().await;
    for url in ["nope", "ftp://host/", "http://", "/path", "", "http://a b/"] {
        let error = HttpEndpoint::new(&worker, url).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "PUSH-2: {url}");
    }
    for url in ["http://127.0.0.1:1/", "https://host/path?x=y"] {
        assert!(HttpEndpoint::new(&worker, url).is_ok(), "PUSH-2: {url}");
    }
}
