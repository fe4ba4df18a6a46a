//! What a subscription remembers of messages that it handed out, for when they have left the log
//! (LIB-351). A ring: each hand-out takes one place, the oldest is forgotten. Nothing is kept
//! unless the configuration asks for it.

use std::collections::VecDeque;

use crate::message::MessageId;
use crate::shell::batch::Batch;
use crate::time::Time;

/// The last hand-outs, oldest first.
#[derive(Debug)]
pub(super) struct History {
    places: VecDeque<HandedOut>,
    most: usize,
}

/// A message as it was handed out.
#[derive(Copy, Clone, Debug)]
pub(super) struct HandedOut {
    id: MessageId,
    pub(super) published: Time,
    pub(super) attempt: u16,
}

impl History {
    /// `None` if nothing is to be remembered.
    pub(super) fn new(most: usize) -> Option<Box<Self>> {
        (most > 0).then(|| Box::new(Self { places: VecDeque::new(), most }))
    }

    /// Remembers what a batch hands out behind its first `known_runs` runs of messages.
    pub(super) fn note(&mut self, batch: &Batch, known_runs: usize) {
        let known = batch.runs.iter().take(known_runs).map(|run| run.len as usize).sum();
        for taken in batch.iter().skip(known) {
            if self.places.len() == self.most {
                self.places.pop_front();
            }
            let (id, published) = (taken.published.id, taken.published.time);
            self.places.push_back(HandedOut { id, published, attempt: taken.attempt });
        }
    }

    /// How a message was handed out last.
    pub(super) fn find(&self, id: MessageId) -> Option<HandedOut> {
        self.places.iter().rev().find(|place| place.id == id).copied()
    }
}
