//! Ack ids: names of deliveries that survive a trip through text.

use std::fmt;
use std::str::FromStr;

use crate::broker::subscription::LeaseId;

/// Names one delivery of one message on one subscription (ACK-1).
///
/// Opaque; changes with every redelivery. As text it is 80 hexadecimal digits. An id that was
/// superseded or settled is *stale*: settling it does nothing and says so.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// use siftbus::{AckId, Bus, Outcome, SubscriptionConfig, TopicConfig};
///
/// let bus = Bus::new();
/// let topic = bus.create_topic("orders", TopicConfig::new()).await?;
/// let billing = topic.subscribe("billing", SubscriptionConfig::new()).await?;
/// topic.publish("order 1").await?;
///
/// let delivery = billing.pull(1).await?.into_iter().next().expect("one was published");
/// let text = delivery.into_ack_id().to_string();
/// let id: AckId = text.parse()?;
/// assert_eq!(billing.acknowledge(&[id.clone()]).await?, [Outcome::Done]);
/// assert_eq!(billing.acknowledge(&[id]).await?, [Outcome::Stale]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AckId {
    /// Which name the subscription has, keyed with the bus's seed.
    pub(crate) name_hash: u64,
    /// Which of the subscriptions that had this name.
    pub(crate) incarnation: u64,
    pub(crate) lease: LeaseId,
}

/// Hexadecimal digits of an ack id.
const DIGITS: usize = 80;

impl AckId {
    /// Length of the text form, in bytes; constant.
    pub const TEXT_LEN: usize = DIGITS;

    /// Tells apart from an accident: eight bytes mixed from all others.
    fn check(&self) -> u64 {
        let parts = [
            self.name_hash,
            self.incarnation,
            u64::from(self.lease.epoch) << 32 | u64::from(self.lease.generation),
            self.lease.index,
        ];
        parts.into_iter().fold(0x9e37_79b9_7f4a_7c15, |check, part| mix(check ^ part))
    }
}

/// The finalizer of splitmix64.
pub(crate) fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl fmt::Display for AckId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeaseId { epoch, generation, index } = self.lease;
        write!(f, "{:016x}{:016x}", self.name_hash, self.incarnation)?;
        write!(f, "{epoch:08x}{generation:08x}{index:016x}{:016x}", self.check())
    }
}

/// The text is no ack id (ACK-3).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid ack id (ack_id={text})")]
pub struct ParseAckIdError {
    text: String,
}

impl ParseAckIdError {
    /// The gRPC code: always `InvalidArgument` (ERR-27).
    pub fn code(&self) -> crate::Code {
        crate::Code::InvalidArgument
    }
}

impl FromStr for AckId {
    type Err = ParseAckIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).ok_or_else(|| ParseAckIdError { text: text.chars().take(DIGITS).collect() })
    }
}

fn parse(text: &str) -> Option<AckId> {
    if text.len() != DIGITS || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let number = |from: usize, to: usize| u64::from_str_radix(text.get(from..to)?, 16).ok();
    let id = AckId {
        name_hash: number(0, 16)?,
        incarnation: number(16, 32)?,
        lease: LeaseId {
            epoch: u32::try_from(number(32, 40)?).ok()?,
            generation: u32::try_from(number(40, 48)?).ok()?,
            index: number(48, 64)?,
        },
    };
    (number(64, 80)? == id.check()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> AckId {
        let lease = LeaseId { epoch: 3, generation: u32::MAX, index: 1 << 60 };
        AckId { name_hash: 0xabc, incarnation: 17, lease }
    }

    #[test]
    fn text_round_trips_within_the_length_of_the_rule() {
        let text = sample().to_string();
        assert_eq!(text.len(), AckId::TEXT_LEN);
        assert!(text.len() <= 176, "ACK-2");
        assert_eq!(text.parse(), Ok(sample()));
    }

    #[test]
    fn malformed_text_is_refused() {
        let text = sample().to_string();
        let flipped = format!("{}{}", if text.starts_with('0') { "1" } else { "0" }, &text[1..]);
        for bad in ["", "garbage", "12", &text[1..], &flipped, &text.to_uppercase()] {
            assert!(bad.parse::<AckId>().is_err(), "ACK-3: {bad}");
        }
    }
}
