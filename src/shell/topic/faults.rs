//! Faults on demand of a topic: publishes that fail.

use super::TopicShared;
use crate::broker::faults::PublishFaults;
use crate::error::{Code, PublishReason};

impl TopicShared {
    /// Arms `count` failures of publishes (LIB-406).
    pub(crate) fn arm_fault(&self, code: Code, count: u64) {
        let mut state = self.lock();
        state.faults.get_or_insert_default().arm(code, count);
    }

    /// Asks the faults, if any was ever armed.
    pub(crate) fn with_faults<T: Default>(&self, ask: impl FnOnce(&mut PublishFaults) -> T) -> T {
        let mut state = self.lock();
        state.faults.as_deref_mut().map(ask).unwrap_or_default()
    }

    #[cold]
    pub(super) fn fault(&self, code: Code) -> PublishReason {
        PublishReason::Fault { topic: self.name.to_string(), code }
    }
}
