//! `siftbus`: an embeddable publish/subscribe message bus.
