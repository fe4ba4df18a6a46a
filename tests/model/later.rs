//! Operations with messages that come later, end by themselves, or were there before (LIB-370 …
//! LIB-382).

use std::time::Duration;

use futures_util::FutureExt;
use siftbus::{Code, Receipt, TopicUpdate};

use crate::naive::{Draft, Lease, Outcome};
use crate::{Run, message};

impl Run {
    pub(crate) fn draft(&mut self) -> Draft {
        let random = &mut self.random;
        Draft {
            attribute: [None, Some(0), Some(1), Some(2)][random.below(4) as usize],
            key: Some(random.below(6)).filter(|key| *key < 4),
            ttl: random.one_in(4).then(|| [1, 1_000, 20_000, 100_000][random.below(4) as usize]),
            idempotency: random.one_in(6).then(|| random.below(8)),
        }
    }

    /// A payload that no other message has.
    pub(crate) fn text(&mut self) -> String {
        self.texts += 1;
        self.texts.to_string()
    }

    /// Whether a receipt is for something new (PUB-4), or for what there was before (LIB-381).
    pub(crate) fn accepted(&mut self, receipt: &Receipt, draft: Draft, text: String) -> bool {
        let id = receipt.id().as_u64();
        if let Some(known) = self.naive.is_known(draft) {
            let expected = (known, true, Some(0));
            let came = (id, receipt.is_duplicate(), receipt.recipients());
            assert_eq!(came, expected, "LIB-381: a duplicate: bus, reference");
            return false;
        }
        assert!(!receipt.is_duplicate(), "LIB-381: {id} is new");
        assert!(id > self.last_id, "PUB-4: {id} after {}", self.last_id);
        self.last_id = id;
        self.payloads.insert(text, id);
        self.ids.insert(id, receipt.id());
        true
    }

    /// LIB-375, LIB-376.
    pub(crate) fn publish_later(&mut self) {
        let draft = self.draft();
        let delay = [1, 500, 501, 20_000, 50_000, 70_000][self.random.below(6) as usize];
        self.say(format!("publish after {delay}: {draft:?}"));
        let text = self.text();
        let Some(topic) = self.topic.clone() else { return };
        let due = self.naive.now + delay;
        let came = if self.random.one_in(2) {
            topic.try_publish_after(message(draft, &text), Duration::from_millis(delay))
        } else {
            topic.try_publish_at(message(draft, &text), self.instant(due))
        };
        let is_too_long = self.naive.topic.flatten().is_some_and(|retention| delay > retention);
        match came {
            Ok(receipt) => {
                let is_new = self.accepted(&receipt, draft, text);
                assert!(!is_too_long || !is_new, "LIB-376: {delay} ms are beyond the retention");
                if is_new {
                    assert_eq!(receipt.recipients(), None, "LIB-375");
                    self.naive.publish_later(due, self.last_id, draft);
                }
            }
            Err(error) => {
                assert_eq!((error.code(), is_too_long), (Code::InvalidArgument, true), "LIB-376");
            }
        }
    }

    /// LIB-377: what waits can be taken back, what is published cannot.
    pub(crate) fn withdraw(&mut self) {
        let Some(topic) = self.topic.clone() else { return };
        let nth = self.random.below(self.naive.waiting.len() as u64 + 1) as usize;
        let id = self.naive.waiting.get(nth).map_or(self.last_id, |(_, id, _)| *id);
        self.say(format!("withdraw {id}"));
        let came = self.ids.get(&id).is_some_and(|id| topic.withdraw(*id).is_some());
        assert_eq!(came, self.naive.withdraw(id), "withdrawn: bus, reference");
    }

    /// LIB-382: a changed window counts at once. It only shrinks here: what has left a window may
    /// be remembered for a second.
    pub(crate) fn update_window(&mut self) {
        let Some(topic) = self.topic.clone() else { return };
        let window = match self.random.below(4) {
            0 => None,
            1 => Some(self.naive.window().unwrap_or(30_000).min(1_000)),
            _ => Some(self.naive.window().unwrap_or(30_000)),
        };
        self.say(format!("deduplication window {window:?}"));
        let update = TopicUpdate::new().deduplication_window(window.map(Duration::from_millis));
        topic.update(update).now_or_never().expect("answers at once").unwrap();
        self.naive.set_window(window);
    }

    /// LIB-370: a late answer may find a message that is over gone, or not.
    pub(crate) fn settle_doubt(&mut self, slot: usize, inc: u64, lease: Lease, came: Outcome) {
        let is_gone = matches!(came, Outcome::Stale | Outcome::Invalid);
        if is_gone && self.naive.is_doubtful(slot, inc, lease) {
            self.naive.drop_doubtful(slot, lease);
        }
    }
}
