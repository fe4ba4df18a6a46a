//! Typed messages over the bus, in one file: a topic of `T` and a consumer of `T`, with serde.
//!
//! The bus carries bytes. This wraps the public interface for one Rust type, keeps what cannot be
//! read away from the handler, and loses nothing: a message that does not parse is handed to the
//! caller as it came. Run with `cargo run --example typed`.

use std::marker::PhantomData;

use serde::Serialize;
use serde::de::DeserializeOwned;
use siftbus::{
    Bus, Delivery, Message, PublishError, PullError, Receipt, Settlement, Subscription,
    SubscriptionConfig, Topic, TopicConfig,
};

/// A topic that takes values of one type.
struct TypedTopic<T> {
    topic: Topic,
    kind: PhantomData<fn(T)>,
}

impl<T: Serialize> TypedTopic<T> {
    fn new(topic: Topic) -> Self {
        Self { topic, kind: PhantomData }
    }

    async fn publish(&self, value: &T) -> Result<Receipt, TypedError> {
        let message = Message::new(serde_json::to_vec(value)?)
            .with_attribute("content-type", "application/json");
        Ok(self.topic.publish(message).await?)
    }
}

/// A subscription whose messages are values of one type.
struct TypedSubscription<T> {
    subscription: Subscription,
    kind: PhantomData<fn() -> T>,
}

/// A value with the delivery that it came in.
struct Typed<T> {
    value: T,
    delivery: Delivery,
}

impl<T> Typed<T> {
    fn ack(self) -> Settlement {
        self.delivery.ack()
    }
}

impl<T: DeserializeOwned> TypedSubscription<T> {
    fn new(subscription: Subscription) -> Self {
        Self { subscription, kind: PhantomData }
    }

    /// The next value; or the delivery, if its bytes are no `T`.
    async fn next(&self) -> Result<Result<Typed<T>, Delivery>, PullError> {
        let batch = self.subscription.pull(1).await?;
        let delivery = batch.into_iter().next().expect("a pull that returns has a message");
        Ok(match serde_json::from_slice(delivery.data()) {
            Ok(value) => Ok(Typed { value, delivery }),
            Err(_) => Err(delivery),
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum TypedError {
    #[error("not to be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Publish(#[from] PublishError),
}

#[derive(Debug, PartialEq, serde::Serialize, serde::Deserialize)]
struct Order {
    id: u64,
    item: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::new();
    let topic = bus.create_topic("orders", TopicConfig::new()).await?;
    let subscription = topic.subscribe("billing", SubscriptionConfig::new()).await?;
    let orders: TypedTopic<Order> = TypedTopic::new(topic.clone());
    let billing: TypedSubscription<Order> = TypedSubscription::new(subscription);

    orders.publish(&Order { id: 1, item: "tea".to_owned() }).await?;
    topic.publish("not an order").await?;
    orders.publish(&Order { id: 2, item: "cups".to_owned() }).await?;

    let (mut read, mut refused) = (0, 0);
    while read + refused < 3 {
        match billing.next().await? {
            Ok(order) => {
                println!("order {} of {}", order.value.id, order.value.item);
                order.ack();
                read += 1;
            }
            Err(delivery) => {
                println!("refused: {:?}", delivery.data());
                delivery.ack();
                refused += 1;
            }
        }
    }
    bus.close(std::time::Duration::from_secs(1)).await;
    println!("typed: {read} orders, {refused} refused");
    Ok(())
}
