//! A handler: an async function for every message, four at once, whose result says what becomes of
//! it. What fails comes again, what is hopeless goes to the dead letters.
//!
//! ```text
//! cargo run --example handler
//! ```

use std::time::Duration;

use siftbus::{
    Bus, DeadLetterPolicy, Failure, HandlerOptions, Received, SubscriptionConfig, TopicConfig,
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::new();
    let orders = bus.create_topic("orders", TopicConfig::new()).await?;
    let unreadable = bus.create_topic("unreadable", TopicConfig::new()).await?;
    let config = SubscriptionConfig::new().dead_letter_policy(DeadLetterPolicy::new("unreadable"));
    let billing = orders.subscribe("billing", config).await?;
    let people = unreadable.subscribe("people", SubscriptionConfig::new()).await?;

    let options = HandlerOptions::new()
        .concurrency(4)
        .backoff(Duration::from_millis(5)..=Duration::from_secs(1))
        .on_failure(|order, failure| println!("{}: {failure}", text(order)));
    let billing = billing.handle(options, charge)?;
    let people = people.handle(HandlerOptions::new(), read)?;

    orders.publish_many(["3 chairs", "1 table", "some lamps", "2 beds", "7 cups"]).await?;
    bus.timeout(Duration::from_secs(10), bus.wait_idle()).await?;

    // `drain` lets the calls that run finish; dropping a handler ends them.
    let (charged, read) = (billing.drain().await, people.drain().await);
    println!(
        "handler: {} charged, {} tried again, {} rejected, {} read by people",
        charged.succeeded, charged.failed, charged.rejected, read.succeeded
    );
    Ok(())
}

/// `Ok` acknowledges. Every error is tried again, unless it is rejected; so is a panic.
async fn charge(order: Received) -> Result<(), Failure> {
    let text = text(&order);
    let (count, what) = text.split_once(' ').ok_or_else(|| Failure::reject("no count"))?;
    let count: u32 = count.parse().map_err(Failure::reject)?;
    match (what, order.attempt()) {
        ("table", 1) => return Err(Failure::retry("the bank does not answer")),
        ("beds", 1 | 2) => return Err(Failure::retry("no beds before noon")),
        _ => println!("charged {count} × {what}"),
    }
    Ok(())
}

async fn read(order: Received) -> Result<(), Failure> {
    println!("for people to read: {}", text(&order));
    Ok(())
}

fn text(order: &Received) -> String {
    String::from_utf8_lossy(order.data()).into_owned()
}
