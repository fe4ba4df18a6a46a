//! The peers: the same work with what people use otherwise, each at its best.
//!
//! None of them has acknowledgements, leases, redelivery or filters.

use std::collections::VecDeque;
use std::hint::black_box;
use std::time::Instant;

use bytes::Bytes;
use parking_lot::Mutex;
use siftbus::{Filter, Message};
use tokio::sync::{broadcast, mpsc};

/// `tokio::sync::mpsc` bounded on one thread, in batches: `reserve_many`, `recv_many`.
pub(crate) async fn mpsc_batches(payload: &Bytes, batches: usize, batch: usize) {
    let (sender, mut receiver) = mpsc::channel(batch);
    let mut taken = Vec::with_capacity(batch);
    for _ in 0..batches {
        for permit in sender.reserve_many(batch).await.unwrap() {
            permit.send(payload.clone());
        }
        assert_eq!(receiver.recv_many(&mut taken, batch).await, batch);
        for message in taken.drain(..) {
            black_box(message.len());
        }
    }
}

/// The same between two tasks; the channel holds `ahead` messages.
pub(crate) async fn mpsc_tasks(payload: &Bytes, batches: usize, batch: usize, ahead: usize) {
    let (sender, mut receiver) = mpsc::channel(ahead);
    let payload = payload.clone();
    let producer = tokio::spawn(async move {
        for _ in 0..batches {
            for permit in sender.reserve_many(batch).await.unwrap() {
                permit.send(payload.clone());
            }
        }
    });
    let consumer = tokio::spawn(async move {
        let mut taken = Vec::with_capacity(batch);
        let mut left = batches * batch;
        while left > 0 {
            left -= receiver.recv_many(&mut taken, batch).await;
            for message in taken.drain(..) {
                black_box(message.len());
            }
        }
    });
    producer.await.unwrap();
    consumer.await.unwrap();
}

/// The least that batches between two tasks cost: a channel of whole batches.
pub(crate) async fn channel_of_batches(
    payload: &Bytes,
    batches: usize,
    batch: usize,
    ahead: usize,
) {
    let (sender, mut receiver) = mpsc::channel(ahead / batch);
    let payload = payload.clone();
    let producer = tokio::spawn(async move {
        for _ in 0..batches {
            let messages: Vec<Bytes> = (0..batch).map(|_| payload.clone()).collect();
            sender.send(messages).await.unwrap();
        }
    });
    let consumer = tokio::spawn(async move {
        for _ in 0..batches {
            for message in receiver.recv().await.unwrap() {
                black_box(message.len());
            }
        }
    });
    producer.await.unwrap();
    consumer.await.unwrap();
}

/// `tokio::sync::mpsc` bounded between two tasks, one message at a time.
pub(crate) async fn mpsc_tasks_single(payload: &Bytes, messages: usize, ahead: usize) {
    let (sender, mut receiver) = mpsc::channel(ahead);
    let payload = payload.clone();
    let producer = tokio::spawn(async move {
        for _ in 0..messages {
            sender.send(payload.clone()).await.unwrap();
        }
    });
    let consumer = tokio::spawn(async move {
        for _ in 0..messages {
            black_box(receiver.recv().await.unwrap().len());
        }
    });
    producer.await.unwrap();
    consumer.await.unwrap();
}

/// `tokio::sync::mpsc` bounded on one thread, one at a time: `send`, `recv`.
pub(crate) async fn mpsc_single(payload: &Bytes, messages: usize) {
    let (sender, mut receiver) = mpsc::channel(128);
    for _ in 0..messages {
        sender.send(payload.clone()).await.unwrap();
        black_box(receiver.recv().await.unwrap().len());
    }
}

/// `tokio::sync::mpsc` unbounded on one thread, one at a time: `send`, `try_recv`.
pub(crate) fn mpsc_unbounded_single(payload: &Bytes, messages: usize) {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for _ in 0..messages {
        sender.send(payload.clone()).unwrap();
        black_box(receiver.try_recv().unwrap().len());
    }
}

/// A queue behind a lock, one at a time.
pub(crate) fn locked_queue_single(payload: &Bytes, messages: usize) {
    let queue = Mutex::new(VecDeque::new());
    for _ in 0..messages {
        queue.lock().push_back(payload.clone());
        let message = queue.lock().pop_front();
        black_box(message.unwrap().len());
    }
}

/// `tokio::sync::broadcast` to `receivers` tasks, `messages` each.
pub(crate) async fn broadcast_to(payload: &Bytes, receivers: usize, messages: usize, batch: usize) {
    let (sender, first) = broadcast::channel::<Bytes>(messages);
    drop(first);
    let tasks: Vec<_> = (0..receivers)
        .map(|_| {
            let mut receiver = sender.subscribe();
            tokio::spawn(async move {
                for _ in 0..messages {
                    black_box(receiver.recv().await.unwrap().len());
                }
            })
        })
        .collect();
    for sent in 0..messages {
        sender.send(payload.clone()).unwrap();
        if sent % batch == batch - 1 {
            tokio::task::yield_now().await;
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// One bounded channel for each of `receivers` tasks, in batches.
pub(crate) async fn mpsc_to_each(payload: &Bytes, receivers: usize, messages: usize, batch: usize) {
    let (senders, tasks): (Vec<_>, Vec<_>) = (0..receivers)
        .map(|_| {
            let (sender, mut receiver) = mpsc::channel::<Bytes>(batch);
            let task = tokio::spawn(async move {
                let mut taken = Vec::with_capacity(batch);
                let mut left = messages;
                while left > 0 {
                    left -= receiver.recv_many(&mut taken, batch).await;
                    for message in taken.drain(..) {
                        black_box(message.len());
                    }
                }
            });
            (sender, task)
        })
        .unzip();
    for _ in 0..messages / batch {
        for sender in &senders {
            for permit in sender.reserve_many(batch).await.unwrap() {
                permit.send(payload.clone());
            }
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
}

/// There and back between two tasks over two channels; hands in the time of each round trip.
pub(crate) async fn mpsc_round_trips(payload: &Bytes, trips: usize, times: &mut Vec<u64>) {
    let (ask, mut asked) = mpsc::channel::<Bytes>(128);
    let (answer, mut answered) = mpsc::channel::<Bytes>(128);
    let handler = tokio::spawn(async move {
        while let Some(message) = asked.recv().await {
            answer.send(message).await.unwrap();
        }
    });
    let payload = payload.clone();
    let caller = tokio::spawn(async move {
        let mut times = Vec::with_capacity(trips);
        for _ in 0..trips {
            let start = Instant::now();
            ask.send(payload.clone()).await.unwrap();
            black_box(answered.recv().await.unwrap().len());
            times.push(start.elapsed().as_nanos() as u64);
        }
        times
    });
    times.extend(caller.await.unwrap());
    handler.await.unwrap();
}

/// `kanal` unbounded from `publishers` tasks to one, `each` messages, one at a time.
pub(crate) async fn kanal_publishers(payload: &Bytes, publishers: usize, each: usize) {
    let (sender, receiver) = kanal::unbounded_async();
    let producers = (0..publishers).map(|_| {
        let (sender, payload) = (sender.clone(), payload.clone());
        tokio::spawn(async move {
            for _ in 0..each {
                sender.send(payload.clone()).await.unwrap();
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let consumer = tokio::spawn(async move {
        for _ in 0..publishers * each {
            black_box(receiver.recv().await.unwrap().len());
        }
    });
    for task in producers {
        task.await.unwrap();
    }
    consumer.await.unwrap();
}

/// `flume` unbounded, the same.
pub(crate) async fn flume_publishers(payload: &Bytes, publishers: usize, each: usize) {
    let (sender, receiver) = flume::unbounded();
    let producers = (0..publishers).map(|_| {
        let (sender, payload) = (sender.clone(), payload.clone());
        tokio::spawn(async move {
            for _ in 0..each {
                sender.send_async(payload.clone()).await.unwrap();
            }
        })
    });
    let producers: Vec<_> = producers.collect();
    let consumer = tokio::spawn(async move {
        for _ in 0..publishers * each {
            black_box(receiver.recv_async().await.unwrap().len());
        }
    });
    for task in producers {
        task.await.unwrap();
    }
    consumer.await.unwrap();
}

/// Looks at every filter for each message.
pub(crate) fn scan_filters(filters: &[Filter], messages: &[Message]) {
    for message in messages {
        black_box(filters.iter().filter(|filter| filter.matches(message)).count());
    }
}
