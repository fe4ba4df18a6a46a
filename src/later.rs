//! Publishing at a later time (LIB-375, LIB-376).
//!
//! What waits, and what happens when it is due, is the shell's business
//! (`shell/topic/delayed.rs`); here are the calls.

use std::time::{Duration, SystemTime};

use tokio::task::coop::consume_budget;

use crate::clock::Reading;
use crate::error::{PublishError, PublishReason};
use crate::message::{Message, MessageId};
use crate::publish::Turn;
use crate::shell::topic::admission::Gate;
use crate::time::{Span, Time};
use crate::topic::{Receipt, Topic, check};

impl Topic {
    /// Publishes a message after a delay, rounded up to whole milliseconds.
    ///
    /// Until then it waits at the topic, charged to the budget: no subscription has it, and it is
    /// not in any backlog. It has its id from now on; publish time and recipients are those of the
    /// moment when it is due, so [`Receipt::recipients`] is `None`. A delay of zero is a publish.
    ///
    /// # Errors
    ///
    /// As [`publish`](Self::publish), and [`PublishReason::DelayBeyondRetention`].
    ///
    /// # Cancel safety
    ///
    /// A future that is dropped before it is ready has published nothing, now or later.
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Clock, ManualClock, SubscriptionConfig, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let clock = ManualClock::new();
    /// let bus = Bus::builder().clock(Clock::manual(&clock)).build();
    /// let reminders = bus.create_topic("reminders", TopicConfig::new()).await?;
    /// let inbox = reminders.subscribe("inbox", SubscriptionConfig::new()).await?;
    ///
    /// let minute = Duration::from_secs(60);
    /// let receipt = reminders.publish_after("stand up", 20 * minute).await?;
    /// assert_eq!(receipt.recipients(), None, "not known yet");
    /// clock.advance(19 * minute);
    /// assert!(inbox.try_pull(1)?.is_empty());
    /// clock.advance(minute);
    /// assert_eq!(inbox.pull(1).await?.iter().next().map(|d| d.id()), Some(receipt.id()));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub async fn publish_after(
        &self,
        message: impl Into<Message>,
        delay: Duration,
    ) -> Result<Receipt, PublishError> {
        consume_budget().await;
        self.publish_when(message.into(), When::After(delay)).await
    }

    /// [`publish_after`](Self::publish_after), at a time on the bus's line ([`Bus::now`]), rounded
    /// up to whole milliseconds. A time that is not in the future is now.
    ///
    /// [`Bus::now`]: crate::Bus::now
    ///
    /// # Errors
    ///
    /// As [`publish_after`](Self::publish_after).
    ///
    /// # Cancel safety
    ///
    /// As [`publish_after`](Self::publish_after).
    pub async fn publish_at(
        &self,
        message: impl Into<Message>,
        time: SystemTime,
    ) -> Result<Receipt, PublishError> {
        consume_budget().await;
        self.publish_when(message.into(), When::At(time)).await
    }

    /// [`publish_after`](Self::publish_after) without waiting for room.
    ///
    /// # Errors
    ///
    /// As [`publish_after`](Self::publish_after).
    pub fn try_publish_after(
        &self,
        message: impl Into<Message>,
        delay: Duration,
    ) -> Result<Receipt, PublishError> {
        self.try_publish_when(message.into(), When::After(delay))
    }

    /// [`publish_at`](Self::publish_at) without waiting for room.
    ///
    /// # Errors
    ///
    /// As [`publish_after`](Self::publish_after).
    pub fn try_publish_at(
        &self,
        message: impl Into<Message>,
        time: SystemTime,
    ) -> Result<Receipt, PublishError> {
        self.try_publish_when(message.into(), When::At(time))
    }

    /// Takes back a message that waits to be published; `None` if no such message waits at this
    /// topic (any more).
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// use siftbus::{Bus, Message, TopicConfig};
    /// use std::time::Duration;
    ///
    /// let bus = Bus::new();
    /// let reminders = bus.create_topic("reminders", TopicConfig::new()).await?;
    /// let receipt = reminders.publish_after("pay", Duration::from_secs(3_600)).await?;
    /// assert_eq!(reminders.withdraw(receipt.id()), Some(Message::from("pay")));
    /// assert_eq!(reminders.withdraw(receipt.id()), None);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # }).unwrap();
    /// ```
    pub fn withdraw(&self, id: MessageId) -> Option<Message> {
        // What is due by now is published, and cannot be taken back.
        self.shared().core.read();
        self.shared().withdraw(id)
    }

    async fn publish_when(&self, message: Message, when: When) -> Result<Receipt, PublishError> {
        let due = when.due(self.shared().core.read());
        match self.attempt(message, due) {
            Err(error) if error.is_for_room() => {
                let mut turn = Turn::new(self.shared(), error.into_messages());
                let published = turn.publish_at(due).await;
                published.map_err(|reason| PublishError::new(reason, turn.take()))
            }
            done => done,
        }
    }

    fn try_publish_when(&self, message: Message, when: When) -> Result<Receipt, PublishError> {
        let due = when.due(self.shared().core.read());
        match self.attempt(message, due) {
            Err(error) if self.make_room(&error) => {
                let mut messages = error.into_messages();
                self.attempt(messages.pop().unwrap_or_default(), due)
            }
            done => done,
        }
    }

    fn attempt(&self, mut message: Message, due: Time) -> Result<Receipt, PublishError> {
        let shared = self.shared();
        let reading = shared.core.read();
        let gate = Gate::Queue(None);
        if due <= reading.now {
            return self.publish_at_once(&mut message, gate);
        }
        let load = match check(std::slice::from_ref(&message), &shared.core.limits) {
            Ok(load) => load,
            Err(reason) => {
                let reason = shared.existence().err().unwrap_or(reason);
                return Err(PublishError::new(reason, vec![message]));
            }
        };
        match shared.publish_later(message, load, due, gate, reading) {
            Ok(given) => Ok(Receipt::given(given)),
            Err((reason, message)) => Err(PublishError::new(reason, vec![message])),
        }
    }
}

/// When to publish, as it was asked for.
#[derive(Copy, Clone, Debug)]
enum When {
    After(Duration),
    At(SystemTime),
}

impl When {
    /// A message that has to wait for room is due no later for it.
    fn due(self, reading: Reading) -> Time {
        match self {
            When::After(Duration::ZERO) => reading.now,
            When::After(delay) => reading.deadline(Span::round_up(delay)),
            When::At(time) => Time::from_system_up(time),
        }
    }
}

impl Turn<'_> {
    /// Waits for room, and publishes at `due`, or at once if that has come meanwhile.
    async fn publish_at(&mut self, due: Time) -> Result<Receipt, PublishReason> {
        std::future::poll_fn(|cx| {
            let (shared, load) = (self.shared, self.load);
            self.poll(cx, |messages: &mut Vec<Message>, gate, reading| {
                if due <= reading.now {
                    let appended = Turn::append(shared, load, messages, gate, reading)?;
                    return Ok(Receipt::of(&appended));
                }
                let message = messages.pop().unwrap_or_default();
                shared.publish_later(message, load, due, gate, reading).map(Receipt::given).map_err(
                    |(reason, message)| {
                        messages.push(message);
                        reason
                    },
                )
            })
        })
        .await
    }
}
