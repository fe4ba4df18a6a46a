//! Push: the bus posts every message to a private receiver, which knows by a signed token that it
//! is the bus, and turns a stranger away.
//!
//! ```text
//! cargo run --features http,oidc --example push
//! ```

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Json, State};
use axum::http::StatusCode;
use axum::routing::{Router, post};
use siftbus::identity::{Issuer, SigningAlgorithm, Verifier, VerifierLayer};
use siftbus::{Bus, OidcToken, PushConfig, Pusher, SubscriptionConfig, TopicConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const ACCOUNT: &str = "push@orders.example";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::new();
    let orders = bus.create_topic("orders", TopicConfig::new()).await?;

    // Who signs. Another program would fetch these keys; see `Issuer::document`.
    let issuer = Arc::new(Issuer::new(SigningAlgorithm::Es256));
    let keys = issuer.jwks()?;

    // The receiver: a service behind a layer that lets one account in, for its own address.
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/orders", listener.local_addr()?);
    let clock = bus.clone();
    let guard = VerifierLayer::new(Verifier::new(&keys, &url, ACCOUNT)?, move || clock.now());
    let (received, mut orders_received) = mpsc::unbounded_channel();
    let service = Router::new().route("/orders", post(receive)).layer(guard).with_state(received);
    tokio::spawn(async move { axum::serve(listener, service).await });

    // The sender: a pusher for the bus, and a subscription that says where to.
    let pusher = Pusher::builder().issuer(&issuer).attach(&bus)?;
    let push = PushConfig::new(&url).oidc_token(OidcToken::new(ACCOUNT));
    let billing = orders.subscribe("billing", SubscriptionConfig::new().push_config(push)).await?;
    orders.publish_many(["3 chairs", "1 table", "2 beds"]).await?;
    bus.timeout(Duration::from_secs(10), bus.wait_idle()).await?;
    let pushed = pusher.stats(&billing).map_or(0, |stats| stats.succeeded);
    pusher.drain().await;

    let stranger = knock(&url, "").await?;
    let forged = Issuer::new(SigningAlgorithm::Es256).token(ACCOUNT, &url, bus.now())?;
    let forger = knock(&url, &format!("Authorization: Bearer {forged}\r\n")).await?;
    let other = issuer.token("push@elsewhere.example", &url, bus.now())?;
    let other = knock(&url, &format!("Authorization: Bearer {other}\r\n")).await?;

    let mut received = 0;
    while let Ok(order) = orders_received.try_recv() {
        println!("received {order}");
        received += 1;
    }
    println!(
        "push: {pushed} pushed, {received} received; a stranger got {stranger}, a forger {forger}, \
         another account {other}"
    );
    Ok(())
}

/// Any of 102, 200, 201, 202 and 204 acknowledges; with everything else the message comes again.
async fn receive(
    State(received): State<mpsc::UnboundedSender<String>>,
    Json(push): Json<serde_json::Value>,
) -> StatusCode {
    // The payload is in base64; a receiver of one's own would have a type for all this.
    let Some(data) = push.pointer("/message/data").and_then(|data| data.as_str()) else {
        return StatusCode::BAD_REQUEST;
    };
    match received.send(data.to_owned()) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Posts to a URL by hand; answers the status.
async fn knock(url: &str, header: &str) -> Result<String, Box<dyn Error>> {
    let (host, path) = url.trim_start_matches("http://").split_once('/').ok_or("no path")?;
    let mut stream = TcpStream::connect(host).await?;
    let head = format!(
        "POST /{path} HTTP/1.1\r\nHost: {host}\r\n{header}Content-Type: application/json\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer.split(' ').nth(1).ok_or("no status")?.to_owned())
}
