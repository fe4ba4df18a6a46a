//! The official Pub/Sub emulator over gRPC, one connection kept open.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::try_join;
use tokio::runtime::Runtime;

use super::grpc::{Client, Stream, fields, put, put_number};
use super::{ATTRIBUTES, Broker, Delivers, PAYLOAD, Server};
use crate::cycle::BATCH;

pub(super) struct Emulator {
    client: Client,
    /// Opened by the first message whose way is timed.
    stream: Option<Stream>,
    runtime: Runtime,
    _server: Server,
}

/// Where the Google Cloud SDK puts it, below the folder of the SDK.
const PROGRAM: &str = "platform/pubsub-emulator/bin/cloud-pubsub-emulator";
/// Names the folder of the SDK if it is in no usual place.
const SDK: &str = "CLOUDSDK_ROOT_DIR";
const PUBLISHER: &str = "google.pubsub.v1.Publisher";
const SUBSCRIBER: &str = "google.pubsub.v1.Subscriber";
const TOPIC: &str = "projects/bench/topics/topic";
const SUBSCRIPTION: &str = "projects/bench/subscriptions/subscription";

impl Emulator {
    pub(super) fn start() -> io::Result<Self> {
        let program = find().ok_or_else(super::not_found)?;
        let server = Server::start(&program.to_string_lossy(), |port, _| {
            vec!["--host=127.0.0.1".to_owned(), format!("--port={port}")]
        })?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = runtime.block_on(ready(&server))?;
        Ok(Self { client, stream: None, runtime, _server: server })
    }

    async fn run(client: &Client, publish: &[u8]) -> io::Result<()> {
        client.call(&format!("{PUBLISHER}/Publish"), publish).await?;
        let mut left = BATCH;
        while left > 0 {
            let mut pull = Vec::new();
            put(&mut pull, 1, SUBSCRIPTION);
            put_number(&mut pull, 3, left as u64);
            let pulled = client.call(&format!("{SUBSCRIBER}/Pull"), &pull).await?;
            let mut acknowledge = Vec::new();
            put(&mut acknowledge, 1, SUBSCRIPTION);
            for ack_id in ack_ids(&pulled) {
                put(&mut acknowledge, 2, ack_id);
                left -= 1;
            }
            client.call(&format!("{SUBSCRIBER}/Acknowledge"), &acknowledge).await?;
        }
        Ok(())
    }
}

/// It takes connections a while before it takes calls.
async fn ready(server: &Server) -> io::Result<Client> {
    let (mut topic, mut subscription) = (Vec::new(), Vec::new());
    put(&mut topic, 1, TOPIC);
    put(&mut subscription, 1, SUBSCRIPTION);
    put(&mut subscription, 2, TOPIC);
    put_number(&mut subscription, 5, 60);
    let start = Instant::now();
    loop {
        let client = Client::connect(server.connect()?).await?;
        match client.call(&format!("{PUBLISHER}/CreateTopic"), &topic).await {
            Ok(_) => {
                client.call(&format!("{SUBSCRIBER}/CreateSubscription"), &subscription).await?;
                return Ok(client);
            }
            Err(error) if start.elapsed() > Duration::from_secs(20) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn ack_ids(response: &[u8]) -> Vec<&[u8]> {
    let received = fields(response, 1).into_iter();
    received.flat_map(|message| fields(message, 1)).collect()
}

fn publish_request(count: usize) -> Vec<u8> {
    let mut message = Vec::new();
    put(&mut message, 1, PAYLOAD);
    for (key, value) in ATTRIBUTES {
        let mut entry = Vec::new();
        put(&mut entry, 1, key);
        put(&mut entry, 2, value);
        put(&mut message, 2, entry);
    }
    let mut request = Vec::new();
    put(&mut request, 1, TOPIC);
    (0..count).for_each(|_| put(&mut request, 2, &message));
    request
}

impl Broker for Emulator {
    fn cycle(&mut self) -> io::Result<()> {
        // Built anew each time, as our messages are.
        self.runtime.block_on(Self::run(&self.client, &publish_request(BATCH)))
    }
}

impl Delivers for Emulator {
    /// Over a streaming pull, as its client libraries do.
    fn deliver(&mut self) -> io::Result<Duration> {
        let Self { client, stream, runtime, .. } = self;
        runtime.block_on(async {
            let stream = match stream {
                Some(stream) => stream,
                None => {
                    let mut request = Vec::new();
                    put(&mut request, 1, SUBSCRIPTION);
                    put_number(&mut request, 5, 60);
                    let method = format!("{SUBSCRIBER}/StreamingPull");
                    stream.insert(client.open(&method, &request).await?)
                }
            };
            let (request, method) = (publish_request(1), format!("{PUBLISHER}/Publish"));
            let start = Instant::now();
            let arrives = async { stream.next().await.map(|message| (message, start.elapsed())) };
            let ((message, took), _): ((Bytes, _), _) =
                try_join(arrives, client.call(&method, &request)).await?;
            let mut acknowledge = Vec::new();
            ack_ids(&message).iter().for_each(|ack_id| put(&mut acknowledge, 2, ack_id));
            stream.send(&acknowledge)?;
            Ok(took)
        })
    }
}

/// The program, where the environment says, beside `gcloud` or in a usual place.
fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let beside = std::env::split_paths(&path)
        .map(|folder| folder.join("gcloud"))
        .filter_map(|gcloud| gcloud.canonicalize().ok())
        .filter_map(|gcloud| Some(gcloud.parent()?.parent()?.to_owned()));
    let named = std::env::var_os(SDK).map(PathBuf::from).into_iter();
    let usual = ["/usr/lib/google-cloud-sdk", "/opt/google-cloud-sdk"].map(PathBuf::from);
    let folders = named.chain(beside).chain(usual);
    folders.map(|sdk| sdk.join(PROGRAM)).find(|program| program.exists())
}
