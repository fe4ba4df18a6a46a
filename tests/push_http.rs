//! Push over HTTP against receivers on the loopback address: what is sent, and what every kind of
//! answer means.
//!
//! Time is a manual clock; a test waits for what it expects and never for a span of real time.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod receiver;

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use siftbus::{
    Bus, Clock, Code, DeadLetterPolicy, Failure, HttpClient, HttpEndpoint, MAX_PUSH_ANSWER,
    MAX_PUSH_BODY, ManualClock, Message, Push, PushAnswer, PushOptions, PushStats, Subscription,
    SubscriptionConfig, SubscriptionUpdate, Topic, TopicConfig,
};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use receiver::{Answer, Receiver, Seen};

const SECOND: Duration = Duration::from_secs(1);

struct World {
    clock: ManualClock,
    _bus: Bus,
    topic: Topic,
    worker: Subscription,
}

impl World {
    async fn new() -> World {
        let clock = ManualClock::new();
        let bus = Bus::builder().clock(Clock::manual(&clock)).seed(7).build();
        let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
        let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
        World { clock, _bus: bus, topic, worker }
    }

    fn endpoint(&self, url: &str) -> HttpEndpoint {
        HttpEndpoint::new(&self.worker, url).unwrap()
    }

    fn push(&self, url: &str) -> Push {
        self.worker.push_to(self.endpoint(url)).unwrap()
    }

    async fn publish(&self, texts: &[&'static str]) {
        for text in texts {
            self.topic.publish(*text).await.unwrap();
        }
    }

    /// Longer than the pause after one failure or two, shorter than the ack deadline.
    async fn pause_ends(&self) {
        self.clock.advance_settled(SECOND).await;
    }

    async fn deadline_passes(&self) {
        self.clock.advance_settled(10 * SECOND).await;
    }

    /// Pushes a message that is answered with this first, then with 204; answers what came of it.
    async fn pushed_until_taken(&self, answer: Answer) -> (Push, Receiver) {
        let mut receiver = Receiver::new([answer]).await;
        let push = self.push(&receiver.url);
        self.publish(&["order"]).await;
        receiver.next().await;
        stats(&push, |stats| stats.succeeded + stats.failed == 1).await;
        if push.stats().failed == 1 {
            assert_eq!(self.worker.stats().backlog, 1, "nothing is lost");
            self.pause_ends().await;
            receiver.next().await;
            stats(&push, |stats| stats.succeeded == 1).await;
        }
        assert_eq!(self.worker.stats().backlog, 0);
        (push, receiver)
    }
}

/// Lets everything else run until the statistics are so.
async fn stats(push: &Push, is_so: impl Fn(&PushStats) -> bool) {
    while !is_so(&push.stats()) {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_wrapped_message_has_every_field() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let push = w.push(&receiver.url);
    let message = Message::new("Hello").with_attribute("key", "value");
    let receipt = w.topic.publish(message.with_ordering_key("k")).await.unwrap();
    let seen = receiver.next().await;
    assert_eq!(seen.line, "POST /push?key=1 HTTP/1.1", "PUSH-6");
    assert_eq!(seen.headers["content-type"], "application/json", "PUSH-8");
    assert_eq!(seen.headers["user-agent"], "CloudPubSub-Google", "PUSH-8");
    assert_eq!(seen.headers["content-length"], seen.body.len().to_string(), "PUSH-8");
    assert_eq!(seen.headers["from"], "noreply@google.com", "PUSH-8");
    assert!(receiver.url.contains(&seen.headers["host"]), "PUSH-8");
    assert!(!seen.headers.contains_key("authorization"), "PUSH-8");
    let body: Value = serde_json::from_slice(&seen.body).unwrap();
    let message = &body["message"];
    assert_eq!(message["data"], "SGVsbG8=", "PUSH-7");
    assert_eq!(message["attributes"]["key"], "value", "PUSH-7");
    assert_eq!(message["messageId"], receipt.id().as_u64().to_string(), "PUSH-7");
    assert_eq!(message["messageId"], message["message_id"], "PUSH-7");
    assert_eq!(message["publishTime"], "2026-01-01T00:00:00.000Z", "PUSH-7: with milliseconds");
    assert_eq!(message["publishTime"], message["publish_time"], "PUSH-7");
    assert_eq!(message["orderingKey"], "k", "PUSH-7");
    assert_eq!(body["subscription"], "worker", "PUSH-7");
    assert_eq!(body.get("deliveryAttempt"), None, "PUSH-7");

    w.publish(&["bare"]).await;
    let body: Value = serde_json::from_slice(&receiver.next().await.body).unwrap();
    assert_eq!(body["message"].get("attributes"), None, "PUSH-7");
    assert_eq!(body["message"].get("orderingKey"), None, "PUSH-7");
    assert_eq!(push.drain().await.succeeded, 2);
}

/// What JSON and base64 need escaped, padded or left out is read back as it was published.
#[tokio::test]
async fn every_text_and_payload_survives_the_envelope() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let push = w.push(&receiver.url);
    let odd = "\"quoted\" \\ \u{1}\n\r\t\u{7f} \u{2028} \u{e4}\u{1f980} </script>";
    let payloads: [&[u8]; 6] = [b"", b"a", b"ab", b"abc", b"\xfb\xff\xbf\xfb\xef", &[0xff; 3_000]];
    let encoded = ["", "YQ==", "YWI=", "YWJj", "+/+/++8="];
    for (nth, payload) in payloads.into_iter().enumerate() {
        let message = Message::new(payload.to_vec()).with_attribute(odd, odd);
        let message = message.with_attribute("empty", "").with_ordering_key(odd);
        w.topic.publish(message).await.unwrap();
        let body: Value = serde_json::from_slice(&receiver.next().await.body).unwrap();
        let message = &body["message"];
        assert_eq!(message["attributes"], serde_json::json!({ odd: odd, "empty": "" }), "PUSH-7");
        assert_eq!(message["orderingKey"], odd, "PUSH-7");
        let data = message["data"].as_str().unwrap();
        assert_eq!(data, encoded.get(nth).copied().unwrap_or(&"////".repeat(1_000)), "PUSH-7");
    }
    assert_eq!(push.drain().await.succeeded, payloads.len() as u64);

    let odd = w.topic.subscribe("\"odd\\name\u{e4}", SubscriptionConfig::new()).await.unwrap();
    let push = odd.push_to(HttpEndpoint::new(&odd, &receiver.url).unwrap()).unwrap();
    w.publish(&["order"]).await;
    let body: Value = serde_json::from_slice(&receiver.next().await.body).unwrap();
    assert_eq!(body["subscription"], odd.name(), "PUSH-7");
    assert_eq!(push.drain().await.succeeded, 1);
}

async fn unwrapped(with_metadata: bool, message: Message) -> Seen {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let endpoint = w.endpoint(&receiver.url).unwrapped(with_metadata);
    let push = w.worker.push_to(endpoint.authorize(|| Ok("Bearer x".into()))).unwrap();
    w.topic.publish(message).await.unwrap();
    let seen = receiver.next().await;
    assert_eq!(push.drain().await.succeeded, 1);
    seen
}

#[tokio::test]
async fn an_unwrapped_message_leaves_out_what_is_no_header() {
    let message = Message::new("raw").with_attribute("kind", "a").with_attribute("bad key", "b");
    let message = message.with_attribute("other", "\u{4e16}").with_attribute("host", "elsewhere");
    let message = message.with_attribute("line", "a\r\nb: c").with_attribute("x-goog-id", "1");
    let message = message.with_attribute("content-length", "1").with_ordering_key("k");
    let seen = unwrapped(true, message.with_attribute("authorization", "mine")).await;
    assert_eq!(seen.body, b"raw", "PUSH-9");
    assert_eq!(seen.headers["content-type"], "application/octet-stream", "PUSH-10");
    assert_eq!(seen.headers["kind"], "a", "PUSH-11");
    for name in ["subscription-name", "message-id", "publish-time", "ordering-key"] {
        assert!(seen.headers.contains_key(&format!("x-goog-pubsub-{name}")), "PUSH-11: {name}");
    }
    for name in ["other", "line", "b", "x-goog-id"] {
        assert!(!seen.headers.contains_key(name), "PUSH-12: {name}");
    }
    assert!(seen.headers["host"].starts_with("127.0.0.1"), "PUSH-12");
    assert_eq!(seen.headers["content-length"], "3", "PUSH-12");
    assert_eq!(seen.headers["authorization"], "Bearer x", "PUSH-12");
}

#[tokio::test]
async fn metadata_is_only_sent_if_asked_for() {
    let message = Message::new("raw").with_attribute("kind", "a");
    let seen = unwrapped(false, message).await;
    assert_eq!(seen.headers["content-type"], "application/octet-stream", "PUSH-10");
    let is_metadata = |name: &String| name == "kind" || name.starts_with("x-goog-");
    assert!(!seen.headers.keys().any(is_metadata), "PUSH-10");
    let message = Message::new("{}").with_attribute("Content-Type", "application/json");
    assert_eq!(unwrapped(true, message).await.headers["content-type"], "application/json");
}

#[tokio::test]
async fn exactly_five_codes_acknowledge() {
    let w = World::new().await;
    for code in [200, 201, 202, 204] {
        let (push, _) = w.pushed_until_taken(Answer::status(code)).await;
        assert_eq!(push.stats().failed, 0, "PUSH-16: {code}");
    }
    let refused =
        [203, 205, 206, 299, 300, 304, 400, 401, 403, 404, 409, 429, 499, 500, 502, 503, 599];
    for code in refused {
        let (push, _) = w.pushed_until_taken(Answer::status(code)).await;
        assert_eq!(push.stats().failed, 1, "PUSH-17: {code}");
        assert!(push.last_failure().unwrap().contains(&code.to_string()));
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let w = World::new().await;
    let mut elsewhere = Receiver::new([]).await;
    for code in [301, 302, 303, 307, 308] {
        let head = format!("HTTP/1.1 {code} A\r\nlocation: {}", elsewhere.url);
        let answer = Answer::Text(format!("{head}\r\ncontent-length: 0\r\n\r\n"));
        let (push, _) = w.pushed_until_taken(answer).await;
        assert_eq!(push.stats().failed, 1, "PUSH-17: {code}");
    }
    assert!(elsewhere.seen.try_recv().is_err(), "PUSH-17");
}

#[tokio::test]
async fn an_interim_answer_counts_when_nothing_else_follows() {
    let w = World::new().await;
    let mut receiver = Receiver::new([Answer::Hang("HTTP/1.1 102 Wait\r\n\r\n".into())]).await;
    let push = w.push(&receiver.url);
    w.publish(&["order"]).await;
    receiver.next().await;
    assert_eq!(push.stats().succeeded, 0);
    // The answer has to arrive before the time is over.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    w.deadline_passes().await;
    stats(&push, |stats| stats.succeeded + stats.failed > 0).await;
    assert_eq!(push.stats().failed, 0, "PUSH-17");
    drop(push);

    let then = |code: u16| {
        format!(
            "HTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 {code} A\r\n\
                                    content-length: 0\r\n\r\n"
        )
    };
    // What follows counts; the end is nothing that follows.
    let early = Answer::Last("HTTP/1.1 102 Wait\r\n\r\n".into());
    for (answer, failed) in [(Answer::Text(then(200)), 0), (Answer::Text(then(500)), 1), (early, 0)]
    {
        let (push, _) = w.pushed_until_taken(answer).await;
        assert_eq!(push.stats().failed, failed, "PUSH-17");
    }
}

#[tokio::test]
async fn garbage_and_an_early_end_are_failures() {
    let w = World::new().await;
    for text in [
        "",
        "no protocol at all\r\n\r\n",
        "HTTP/1.1 2",
        "HTTP/1.1 999999 A\r\n\r\n",
        "HTTP/9.9 200 A\r\n\r\n",
        "HTTP/1.1 200 A\r\nno header\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
    ] {
        let (push, _) = w.pushed_until_taken(Answer::Last(text.into())).await;
        assert_eq!(push.stats().failed, 1, "PUSH-16: {text:?}");
        assert!(push.last_failure().is_some());
    }
    // The answer is its head; what becomes of the rest does not matter.
    let cut = Answer::Last("HTTP/1.1 200 A\r\ncontent-length: 10\r\n\r\nabc".into());
    let (push, _) = w.pushed_until_taken(cut).await;
    assert_eq!(push.stats().failed, 0, "LIB-307");
}

#[tokio::test]
async fn a_slow_answer_counts_until_the_ack_deadline() {
    let w = World::new().await;
    let let_go = Arc::new(Semaphore::new(0));
    let mut receiver = Receiver::new([Answer::When(Arc::clone(&let_go))]).await;
    let push = w.push(&receiver.url);
    w.publish(&["order"]).await;
    receiver.next().await;
    w.clock.advance_settled(10 * SECOND - Duration::from_millis(1)).await;
    assert_eq!(push.stats().in_flight, 1, "PUSH-19");
    let_go.add_permits(1);
    stats(&push, |stats| stats.succeeded == 1).await;
    assert_eq!(push.stats().failed, 0, "PUSH-19");
}

#[tokio::test]
async fn a_receiver_that_hangs_gets_the_message_again() {
    let w = World::new().await;
    let half = Answer::Hang("HTTP/1.1 200 A\r\ncontent-le".into());
    let mut receiver = Receiver::new([Answer::silence(), half]).await;
    let push = w.push(&receiver.url);
    w.publish(&["order"]).await;
    for timed_out in 1..=2 {
        assert_eq!(receiver.next().await.data(), "order", "PUSH-20");
        w.deadline_passes().await;
        stats(&push, |stats| stats.timed_out == timed_out).await;
        w.pause_ends().await;
    }
    assert_eq!(receiver.next().await.data(), "order", "PUSH-20");
    stats(&push, |stats| stats.succeeded == 1).await;
    assert_eq!((push.stats().failed, w.worker.stats().backlog), (2, 0), "PUSH-19");
}

/// A body that never ends holds its push up for the ack deadline, and then counts.
#[tokio::test]
async fn a_body_without_an_end_is_given_up() {
    let w = World::new().await;
    let endless = "HTTP/1.1 200 A\r\ntransfer-encoding: chunked\r\n\r\n5\r\nabcde\r\n";
    let mut receiver = Receiver::new([Answer::Hang(endless.into())]).await;
    let push = w.push(&receiver.url);
    w.publish(&["order"]).await;
    receiver.next().await;
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    w.deadline_passes().await;
    stats(&push, |stats| stats.succeeded + stats.failed > 0).await;
    assert_eq!(push.stats().failed, 0, "LIB-307");
}

#[tokio::test]
async fn connections_are_used_again_unless_an_answer_is_long() {
    let w = World::new().await;
    let of = |bytes: usize| {
        let head = format!("HTTP/1.1 200 A\r\ncontent-length: {bytes}\r\n\r\n");
        Answer::Text(head + &"x".repeat(bytes))
    };
    let answers = [of(0), of(MAX_PUSH_ANSWER), of(64 << 20), of(1)];
    let mut receiver = Receiver::new(answers).await;
    let push = w.push(&receiver.url);
    for (n, connection) in [0, 0, 0, 1, 1].into_iter().enumerate() {
        w.publish(&["order"]).await;
        assert_eq!(receiver.next().await.connection, connection, "LIB-307");
        stats(&push, |stats| stats.succeeded == n as u64 + 1).await;
        // The connection goes back to the pool a moment after its answer.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(push.stats().failed, 0);
}

#[tokio::test]
async fn a_receiver_that_dies_and_comes_back_loses_nothing() {
    const MESSAGES: u64 = 50;
    let w = World::new().await;
    let mut receiver = Receiver::new((0..10).map(|_| Answer::status(200))).await;
    let push = w.worker.push_with(w.endpoint(&receiver.url), PushOptions::new().max_window(4));
    let push = push.unwrap();
    for n in 0..MESSAGES {
        w.topic.publish(n.to_string()).await.unwrap();
    }
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..10 {
        seen.insert(receiver.next().await.data());
    }
    let address = receiver.url.trim_start_matches("http://").split('/').next().unwrap().to_owned();
    seen.extend(receiver.die().await.iter().map(Seen::data));
    stats(&push, |stats| stats.failed > 0 && stats.in_flight == 0).await;
    let failed = push.stats().failed;
    while push.stats().failed < failed + 2 {
        w.clock.advance_settled(SECOND).await;
        tokio::task::yield_now().await;
    }
    stats(&push, |stats| stats.in_flight == 0).await;
    let mut receiver = Receiver::on(TcpListener::bind(&address).await.unwrap(), []);
    while push.stats().succeeded < MESSAGES {
        w.clock.advance_settled(SECOND).await;
        tokio::task::yield_now().await;
    }
    while let Ok(request) = receiver.seen.try_recv() {
        seen.insert(request.data());
    }
    let all: std::collections::BTreeSet<_> = (0..MESSAGES).map(|n| n.to_string()).collect();
    assert_eq!((seen, w.worker.stats().backlog), (all, 0), "LIB-307: nothing is lost");
}

#[tokio::test]
async fn only_http_urls_are_endpoints() {
    let w = World::new().await;
    for url in ["nope", "ftp://host/", "http://", "/path", "", "http://a b/"] {
        let error = HttpEndpoint::new(&w.worker, url).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "PUSH-2: {url}");
        assert!(error.to_string().contains(url));
    }
    for url in ["http://127.0.0.1:1/", "https://host/path?x=y"] {
        assert!(HttpEndpoint::new(&w.worker, url).is_ok(), "PUSH-2: {url}");
    }
}

#[tokio::test]
async fn a_header_that_cannot_be_sent_fails_the_push_and_keeps_the_message() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let endpoint = w.endpoint(&receiver.url).authorize(|| Ok("Bearer a\nb".into()));
    let push = w.worker.push_to(endpoint).unwrap();
    w.publish(&["order"]).await;
    stats(&push, |stats| stats.failed == 1).await;
    assert!(push.last_failure().unwrap().contains("header"), "{:?}", push.last_failure());
    assert_eq!(w.worker.stats().backlog, 1, "LIB-307: nothing is lost");
    assert!(receiver.seen.try_recv().is_err());
}

#[tokio::test]
async fn a_body_over_the_limit_is_rejected_and_the_message_kept() {
    let w = World::new().await;
    let mut receiver = Receiver::new([]).await;
    let push = w.worker.push_to(w.endpoint(&receiver.url).unwrapped(false)).unwrap();
    w.topic.publish(vec![7; MAX_PUSH_BODY]).await.unwrap();
    assert_eq!(receiver.next().await.body.len(), MAX_PUSH_BODY, "LIB-424");
    stats(&push, |stats| stats.succeeded == 1).await;
    w.topic.publish(vec![7; MAX_PUSH_BODY + 1]).await.unwrap();
    stats(&push, |stats| stats.failed == 1).await;
    let said = push.last_failure().unwrap();
    assert!(said.contains(&MAX_PUSH_BODY.to_string()), "LIB-424: {said}");
    drop(push);

    let dead = w._bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let dead = dead.subscribe("dead", SubscriptionConfig::new()).await.unwrap();
    let policy = DeadLetterPolicy::new("dead");
    let update = SubscriptionUpdate::new().dead_letter_policy(Some(policy));
    w.worker.update(update).await.unwrap();
    let _push = w.push(&receiver.url);
    assert_eq!(dead.pull(2).await.unwrap().ack_all().done, 1, "LIB-424");
    assert!(receiver.seen.try_recv().is_err(), "LIB-424");
}

/// LIB-307: a judge decides by status and body, but only about a whole answer.
#[tokio::test]
async fn a_judge_decides_by_status_and_body() {
    let w = World::new().await;
    let with = |status: u16, length: usize, body: &str| {
        format!("HTTP/1.1 {status} A\r\ncontent-length: {length}\r\n\r\n{body}")
    };
    let long = MAX_PUSH_ANSWER + 1;
    let receiver = Receiver::new([
        Answer::close(),
        Answer::Last(with(200, long, &"x".repeat(long))),
        Answer::Last(with(200, 9, "half")),
        Answer::status(204),
        Answer::Text(with(418, 4, "mine")),
    ])
    .await;
    let (told, mut judged) = tokio::sync::mpsc::unbounded_channel();
    let endpoint = w.endpoint(&receiver.url).judge(move |received, answer: &PushAnswer| {
        let body = answer.body.as_ref().map(|body| body.to_vec());
        told.send((received.attempt(), answer.status, body)).unwrap();
        match answer.status {
            418 => Ok(()),
            status => Err(Failure::retry(format!("answered with status {status}"))),
        }
    });
    let push = w.worker.push_to(endpoint).unwrap();
    w.publish(&["order"]).await;
    for failures in 1..=4 {
        stats(&push, |stats| stats.failed == failures).await;
        w.clock.advance_settled(2 * SECOND).await;
    }
    stats(&push, |stats| stats.succeeded == 1).await;
    // The first push has no answer at all: it fails unasked.
    for expected in [
        (2, 200, None),
        (3, 200, None),
        (4, 204, Some(Vec::new())),
        (5, 418, Some(b"mine".to_vec())),
    ] {
        assert_eq!(judged.try_recv(), Ok(expected), "LIB-307");
    }
}

mod tls {
    use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::crypto::ring::default_provider;
    use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

    use super::*;

    /// A receiver behind TLS with a certificate of its own making.
    async fn receiver(name: &str) -> (Receiver, CertifiedKey<KeyPair>) {
        let own = generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(own.signing_key.serialize_der()));
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![own.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        (Receiver::behind_tls(acceptor).await, own)
    }

    async fn first_push(w: &World, url: &str, client: &HttpClient) -> Push {
        let endpoint = HttpEndpoint::with_client(&w.worker, url, client).unwrap();
        let push = w.worker.push_to(endpoint).unwrap();
        w.publish(&["order"]).await;
        stats(&push, |stats| stats.succeeded + stats.failed == 1).await;
        push
    }

    #[tokio::test]
    async fn a_trusted_certificate_is_let_through() {
        let w = World::new().await;
        let (mut receiver, own) = receiver("127.0.0.1").await;
        let client = HttpClient::trusting(own.cert.pem().as_bytes()).unwrap();
        let push = first_push(&w, &receiver.url, &client).await;
        assert_eq!(push.stats().succeeded, 1, "LIB-423: {:?}", push.last_failure());
        assert_eq!(receiver.next().await.data(), "order", "LIB-423");
    }

    #[tokio::test]
    async fn an_unknown_or_foreign_certificate_is_refused() {
        let w = World::new().await;
        let (mut unknown, _) = receiver("127.0.0.1").await;
        let push = first_push(&w, &unknown.url, &HttpClient::new()).await;
        assert_eq!(push.stats().failed, 1, "LIB-423");
        let failure = push.last_failure().unwrap();
        assert!(failure.contains("UnknownIssuer"), "LIB-423: {failure}");
        drop(push);

        let w = World::new().await;
        let (mut foreign, own) = receiver("elsewhere.example").await;
        let client = HttpClient::trusting(own.cert.pem().as_bytes()).unwrap();
        let push = first_push(&w, &foreign.url, &client).await;
        assert_eq!((push.stats().failed, w.worker.stats().backlog), (1, 1), "LIB-423");
        for receiver in [&mut unknown, &mut foreign] {
            assert!(receiver.seen.try_recv().is_err(), "LIB-423: nothing was sent");
        }
    }

    #[test]
    fn what_is_no_certificate_is_refused() {
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = "-----BEGIN CERTIFICATE-----\nAAAA";
        for pem in ["", "nothing", broken, cut] {
            let error = HttpClient::trusting(pem.as_bytes()).unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "LIB-423: {pem}");
            assert!(error.to_string().starts_with("no certificate to trust: "));
        }
    }
}
