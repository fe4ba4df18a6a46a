//! Push: in process as messages per second, and over HTTP beside a bare loop of the same client.

use std::time::Duration;

use siftbus::{Bus, Push, PushOptions, Received, Subscription, SubscriptionConfig, TopicConfig};

use crate::measure::{Contestant, Sample, one_thread, payload, race, two_threads, wall};
use crate::table::{Goal, Line, Table};

/// Pushes under way at once.
const CONCURRENCY: usize = 8;

/// A bus with `messages` waiting on a subscription.
async fn backlog(messages: usize, bytes: usize) -> (Bus, Subscription) {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    let worker = topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    let payload = payload(bytes);
    for _ in 0..messages / 100 {
        topic.publish_many((0..100).map(|_| payload.clone())).await.unwrap();
    }
    (bus, worker)
}

/// Until everything was pushed. Looks every now and then, which is little beside a run.
async fn until_done(push: Push, messages: usize) {
    while push.stats().succeeded < messages as u64 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(push.drain().await.failed, 0);
}

pub(crate) fn in_process(table: &mut Table) {
    const MESSAGES: usize = 200_000;
    let runtimes = [one_thread(), two_threads()];
    let run = |runtime: &tokio::runtime::Runtime| -> Sample {
        let (_bus, worker) = runtime.block_on(backlog(MESSAGES, 100));
        wall(MESSAGES, || {
            runtime.block_on(async {
                let options = PushOptions::new().max_window(CONCURRENCY);
                let push = worker.push_with(|_: Received| async { Ok(()) }, options).unwrap();
                until_done(push, MESSAGES).await;
            });
        })
    };
    let contestants = runtimes.iter().map(|runtime| Box::new(|| run(runtime)) as Contestant<'_>);
    let results = race(7, contestants.collect());
    for (contestant, on) in ["one thread", "two threads"].into_iter().enumerate() {
        let nanos = results.nanos(contestant);
        table.add(Line {
            row: "push",
            what: format!("push in process, {CONCURRENCY} at once, {on}; million messages/s"),
            ours: format!("{nanos:.0} ns"),
            peer: String::new(),
            judged: 1e3 / nanos,
            goal: Goal::AtLeast(1.0),
            stretch: Goal::AtLeast(2.0),
        });
    }
}

#[cfg(not(feature = "http"))]
pub(crate) fn over_http(table: &mut Table) {
    table.skip("push http", "it needs the feature `http`");
}

#[cfg(feature = "http")]
pub(crate) use http::over_http;

/// Over HTTP to a receiver on the loopback address.
#[cfg(feature = "http")]
mod http {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use hyper::{Request, Uri};
    use hyper_util::client::legacy::Client;
    use hyper_util::client::legacy::connect::HttpConnector;
    use hyper_util::rt::TokioExecutor;
    use siftbus::{HttpClient, HttpEndpoint};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    const REQUESTS: usize = 8_000;
    const BYTES: usize = 1_000;

    /// Bytes that the receiver has read.
    static READ: AtomicUsize = AtomicUsize::new(0);

    pub(crate) fn over_http(table: &mut Table) {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}/push", listener.local_addr().unwrap());
        runtime.spawn(receive(listener));
        let client = HttpClient::new();
        let bare = Client::builder(TokioExecutor::new()).build(connector());
        let body = body_of_a_push();
        let uri: Uri = url.parse().unwrap();
        let (mut pushed, mut posted) = (0, 0);
        let results = race(
            7,
            vec![
                Box::new(|| counted(&mut pushed, || push_all(&runtime, &url, &client))),
                Box::new(|| counted(&mut posted, || post_all(&runtime, &uri, &bare, &body))),
            ],
        );
        // Nothing is compared but like with like; ids and paths may differ by some bytes.
        assert!(pushed.abs_diff(posted) < posted / 100, "{pushed} bytes against {posted}");
        table.add(Line {
            row: "push http",
            what: format!("push over HTTP, {CONCURRENCY} at once, {BYTES} bytes, loopback"),
            ours: format!("{:.1} µs", results.nanos(0) / 1e3),
            peer: format!("the same client alone: {:.1} µs", results.nanos(1) / 1e3),
            judged: results.ratio(0, 1),
            goal: Goal::AtMost(1.3),
            stretch: Goal::AtMost(1.15),
        });
    }

    fn connector() -> HttpConnector {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector
    }

    /// Adds the bytes that the receiver has read meanwhile.
    fn counted(read: &mut usize, run: impl FnOnce() -> Sample) -> Sample {
        let before = READ.load(Ordering::Relaxed);
        let sample = run();
        *read += READ.load(Ordering::Relaxed) - before;
        sample
    }

    /// As it is pushed: the payload in base64, four digits of id.
    fn body_of_a_push() -> Bytes {
        let data = "BwcH".repeat(BYTES.div_ceil(3));
        Bytes::from(format!(
            "{{\"message\":{{\"data\":\"{data}\",\"messageId\":\"4000\",\"message_id\":\"4000\",\
             \"publishTime\":\"2026-01-01T00:00:00.000Z\",\
             \"publish_time\":\"2026-01-01T00:00:00.000Z\"}},\"subscription\":\"worker\"}}"
        ))
    }

    fn push_all(runtime: &tokio::runtime::Runtime, url: &str, client: &HttpClient) -> Sample {
        let (_bus, worker) = runtime.block_on(backlog(REQUESTS, BYTES));
        wall(REQUESTS, || {
            runtime.block_on(async {
                let endpoint = HttpEndpoint::with_client(&worker, url, client).unwrap();
                let options = PushOptions::new().max_window(CONCURRENCY);
                let push = worker.push_with(endpoint, options).unwrap();
                until_done(push, REQUESTS).await;
            });
        })
    }

    fn post_all(
        runtime: &tokio::runtime::Runtime,
        uri: &Uri,
        client: &Client<HttpConnector, Full<Bytes>>,
        body: &Bytes,
    ) -> Sample {
        wall(REQUESTS, || {
            runtime.block_on(async {
                let mut tasks = tokio::task::JoinSet::new();
                for _ in 0..CONCURRENCY {
                    let (uri, client, body) = (uri.clone(), client.clone(), body.clone());
                    tasks.spawn(async move {
                        for _ in 0..REQUESTS / CONCURRENCY {
                            post(&uri, &client, &body).await;
                        }
                    });
                }
                tasks.join_all().await;
            });
        })
    }

    async fn post(uri: &Uri, client: &Client<HttpConnector, Full<Bytes>>, body: &Bytes) {
        let request = Request::post(uri.clone())
            .header("content-type", "application/json")
            .header("user-agent", "CloudPubSub-Google")
            .header("from", "noreply@google.com")
            .body(Full::new(body.clone()));
        let answer = client.request(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), 204);
        answer.into_body().collect().await.unwrap();
    }

    /// Answers every request with 204, and reads as little into it as can be.
    async fn receive(listener: TcpListener) {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let (mut buffer, mut filled) = (vec![0; 64 * 1024], 0);
                loop {
                    let read = stream.read(&mut buffer[filled..]).await.unwrap_or(0);
                    if read == 0 {
                        return;
                    }
                    filled += read;
                    READ.fetch_add(read, Ordering::Relaxed);
                    if is_whole(&buffer[..filled]) {
                        filled = 0;
                        let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                        if stream.write_all(answer).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    }

    fn is_whole(request: &[u8]) -> bool {
        let text = String::from_utf8_lossy(request);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse::<usize>().unwrap())
        });
        body.len() >= length.unwrap()
    }
}
