//! A topic, a filtered subscription, and a message on its way from one to the other.
//!
//! ```text
//! cargo run --example quickstart
//! ```

use siftbus::{Bus, Filter, Message, Outcome, SubscriptionConfig, TopicConfig};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::new();
    let orders = bus.create_topic("orders", TopicConfig::new()).await?;

    // A subscription gets what is published after its creation and matches its filter.
    let europe = Filter::parse(r#"attributes.region = "eu""#)?;
    let billing = orders.subscribe("billing", SubscriptionConfig::new().filter(europe)).await?;

    let published = [
        orders.publish(Message::new("3 chairs").with_attribute("region", "eu")).await?,
        orders.publish(Message::new("1 table").with_attribute("region", "us")).await?,
    ];

    // `pull` waits for the first message. What is dropped without an ack is delivered again.
    let (mut delivered, mut acknowledged) = (0, 0);
    for delivery in billing.pull(10).await? {
        println!("message {}: {}", delivery.id(), String::from_utf8_lossy(delivery.data()));
        delivered += 1;
        if delivery.ack().await? == Outcome::Done {
            acknowledged += 1;
        }
    }

    let published = published.len();
    println!(
        "quickstart: {published} published, {delivered} delivered, {acknowledged} acknowledged"
    );
    Ok(())
}
