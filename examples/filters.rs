//! Several subscriptions with filters on one topic: who gets what, and what a mistake looks like.
//!
//! ```text
//! cargo run --example filters
//! ```

use std::error::Error;

use siftbus::{Bus, Filter, Message, Subscription, SubscriptionConfig, Topic, TopicConfig};

/// Name and filter of each subscription.
const SUBSCRIPTIONS: [(&str, &str); 6] = [
    ("all", ""),
    ("europe", r#"attributes.region = "eu""#),
    // Also true of messages without the attribute.
    ("not-europe", r#"attributes.region != "eu""#),
    ("elsewhere", r#"attributes:region AND attributes.region != "eu""#),
    ("orders", r#"hasPrefix(attributes.type, "order.") AND NOT attributes:test"#),
    ("payments", r#"attributes.type = "paid" AND (attributes:test OR attributes.region = "us")"#),
];

/// Payload and attributes of each message.
const MESSAGES: [(&str, &[(&str, &str)]); 5] = [
    ("A", &[("type", "order.created"), ("region", "eu")]),
    ("B", &[("type", "order.changed"), ("region", "us")]),
    ("C", &[("type", "order.created"), ("region", "eu"), ("test", "")]),
    ("D", &[("type", "paid"), ("region", "us")]),
    ("E", &[("type", "paid")]),
];

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let bus = Bus::new();
    let events = bus.create_topic("events", TopicConfig::new()).await?;
    let subscriptions = subscribe_all(&events).await?;

    println!("the messages:");
    for (data, attributes) in MESSAGES {
        let message = Message::new(data).with_attributes(attributes.iter().copied());
        let receipt = events.publish(message).await?;
        let attributes: Vec<_> = attributes.iter().map(|(k, v)| format!("{k}={v:?}")).collect();
        let recipients = receipt.recipients().unwrap_or_default();
        println!("  {data}  to {recipients} of {}  {}", subscriptions.len(), attributes.join(" "));
    }

    println!("\nwho gets what:");
    let mut delivered = 0;
    for subscription in &subscriptions {
        let got = take_all(subscription)?;
        println!("  {:10}  {:5}  {}", subscription.name(), got, subscription.config().filter);
        delivered += got.len();
    }

    println!("\na mistake:");
    if let Err(error) = Filter::parse(r#"attributes.region = "eu" && attributes:test"#) {
        println!("{error:#}");
    }

    println!(
        "\nfilters: {} messages, {} subscriptions, {delivered} deliveries",
        MESSAGES.len(),
        subscriptions.len(),
    );
    Ok(())
}

async fn subscribe_all(topic: &Topic) -> Result<Vec<Subscription>, Box<dyn Error>> {
    let mut subscriptions = Vec::new();
    for (name, filter) in SUBSCRIPTIONS {
        let config = SubscriptionConfig::new().filter(Filter::parse(filter)?);
        subscriptions.push(topic.subscribe(name, config).await?);
    }
    Ok(subscriptions)
}

/// The payloads of everything that is ready on a subscription, acknowledged.
fn take_all(subscription: &Subscription) -> Result<String, Box<dyn Error>> {
    let batch = subscription.try_pull(MESSAGES.len())?;
    let got = batch.iter().map(|delivery| String::from_utf8_lossy(delivery.data()).into_owned());
    let got = got.collect();
    batch.ack_all();
    Ok(got)
}
