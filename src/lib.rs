//! `siftbus`: an embeddable publish/subscribe message bus.

mod ack_id;
mod attributes;
mod broker;
mod bus;
mod clock;
mod config;
mod counters;
mod delivery;
mod error;
mod events;
pub mod filter;
mod limits;
mod message;
mod name;
mod request;
mod shell;
mod stats;
mod stream;
mod subscription;
mod sync;
mod time;
mod topic;

pub use ack_id::{AckId, ParseAckIdError};
pub use attributes::{AttributeIter, Attributes};
pub use bus::{Bus, BusBuilder, Elapsed};
pub use clock::{Clock, ManualClock};
pub use config::{
    Expiration, FlowControl, SubscriptionConfig, SubscriptionUpdate, TopicConfig, TopicUpdate,
};
pub use delivery::{
    BatchOutcome, Deliveries, Delivery, DeliveryIntoIter, DeliveryIter, DeliveryRef, Outcome,
    Settlement,
};
pub use error::{
    AckError, AdminError, Code, ConfigError, MessageProblem, NameError, PublishError,
    PublishReason, PullError, ReplyError, RequestError, Resource,
};
pub use events::{EVENT_CAPACITY, Event, Events};
pub use filter::Filter;
pub use limits::{Limits, NameGrammar};
pub use message::{Message, MessageId};
pub use name::MAX_NAME_BYTES;
pub use request::{CORRELATION_ID, REPLY_TO, REQUESTER, Requester, reply};
pub use stats::{SubscriptionStats, TopicStats};
pub use stream::{BatchStream, DeliveryStream};
pub use subscription::Subscription;
pub use topic::{DELETED_TOPIC, Receipt, Receipts, Topic};

/// Parts that benches, models and fuzz targets look at. No semver promise.
#[cfg(feature = "internals")]
#[doc(hidden)]
pub mod internals {
    pub use crate::counters::{Counters, counters};
}
