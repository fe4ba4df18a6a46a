//! Where a message stands (LIB-206): every answer by itself, and against `peek` in random runs.

use std::collections::{BTreeSet, HashMap};

use siftbus::filter::Filter;
use siftbus::{
    AdminError, DeadLetterPolicy, Message, MessageId, MessageState, Standing, Subscription,
    SubscriptionConfig, SubscriptionUpdate, TopicConfig,
};

use crate::support::{HOUR, MINUTE, SECOND, World, drain, take, take_one};

fn stands(subscription: &Subscription, id: MessageId) -> (Standing, Option<u32>) {
    let explanation = subscription.explain_delivery(id).unwrap();
    assert_eq!((explanation.subscription.as_str(), explanation.id), (subscription.name(), id));
    (explanation.standing, explanation.attempts)
}

#[tokio::test(start_paused = true)]
async fn lib_206_every_standing_is_told() {
    let w = World::with(SubscriptionConfig::new().ack_deadline(MINUTE)).await;
    let keeper = w.topic.subscribe("keeper", SubscriptionConfig::new()).await.unwrap();
    let ids = w.publish(&["0", "1", "2", "3"]).await;
    assert_eq!(stands(&w.worker, ids[0]), (Standing::Fresh, Some(0)), "LIB-206");
    let mut held = take(&w.worker, 3).into_iter();
    held.next().unwrap().ack();
    let leased = held.next().unwrap();
    held.next().unwrap().nack_after(10 * SECOND);
    let now = w.clock.now();
    assert_eq!(stands(&w.worker, ids[0]).0, Standing::Settled, "LIB-206");
    let expected = Standing::Leased { until: now + MINUTE };
    assert_eq!(stands(&w.worker, ids[1]), (expected, Some(1)), "LIB-206");
    let expected = Standing::Delayed { until: now + 10 * SECOND };
    assert_eq!(stands(&w.worker, ids[2]), (expected, Some(1)), "LIB-206");
    assert_eq!(stands(&w.worker, ids[3]), (Standing::Fresh, Some(0)), "LIB-206");
    w.clock.advance(MINUTE);
    assert_eq!(stands(&w.worker, ids[1]), (Standing::Ready, Some(1)), "LIB-206: it lapsed");
    drop(leased);
    let late = w.topic.subscribe("late", SubscriptionConfig::new()).await.unwrap();
    assert_eq!(stands(&late, ids[3]), (Standing::Earlier, None), "LIB-206");
    drain(&w.worker);
    drain(&keeper);
    late.delete().await.unwrap();
    assert!(matches!(late.explain_delivery(ids[3]), Err(AdminError::NotFound { .. })));
}

#[tokio::test(start_paused = true)]
async fn lib_351_a_history_tells_of_what_left_the_log() {
    let w = World::with(SubscriptionConfig::new().history(1_002)).await;
    let ids = w.publish(&["0", "1"]).await;
    take_one(&w.worker).nack();
    w.worker.try_pull(2).unwrap().ack_all();
    let published = w.worker.explain_delivery(ids[0]).unwrap().publish_time;
    // Whole segments leave: the first ones are small, so this is more than one.
    for _ in 0..1_000 {
        w.publish(&["x"]).await;
        drain(&w.worker);
    }
    // LIB-351: 1,003 hand-outs, and the first of them is forgotten; the last of each counts.
    let told = w.worker.explain_delivery(ids[0]).unwrap();
    assert_eq!((told.standing, told.attempts), (Standing::Settled, Some(2)), "LIB-351");
    assert_eq!(told.publish_time, published, "LIB-351");
    assert_eq!(stands(&w.worker, ids[1]), (Standing::Settled, Some(1)), "LIB-351");
    w.publish(&["x"]).await;
    drain(&w.worker);
    assert_eq!(stands(&w.worker, ids[0]), (Standing::Gone, None), "LIB-351: forgotten");
    assert_eq!(stands(&w.worker, ids[1]).0, Standing::Settled, "LIB-351");
    w.publish(&["x"]).await;
    drain(&w.worker);
    assert_eq!(stands(&w.worker, ids[1]), (Standing::Gone, None), "LIB-351: forgotten");
    let never: MessageId = u64::MAX.to_string().parse().unwrap();
    assert_eq!(stands(&w.worker, never).0, Standing::Gone, "LIB-351");
}

#[tokio::test(start_paused = true)]
async fn lib_351_a_history_is_bounded() {
    let w = World::new().await;
    let with = |hand_outs| SubscriptionConfig::new().history(hand_outs);
    let largest = siftbus::MAX_HISTORY;
    w.topic.subscribe("largest", with(largest)).await.unwrap();
    let error = w.topic.subscribe("more", with(largest + 1)).await.unwrap_err();
    assert_eq!(error.code(), siftbus::Code::InvalidArgument, "LIB-351");
    assert!(matches!(
        error,
        AdminError::Config(siftbus::ConfigError::CountOutOfRange { field: "history", .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn lib_206_what_left_the_log_is_gone() {
    let w = World::new().await;
    let id = w.publish(&["0"]).await[0];
    drain(&w.worker);
    // Whole segments leave: the first ones are small, so this is more than one.
    for _ in 0..1_000 {
        w.publish(&["x"]).await;
        drain(&w.worker);
    }
    let gone = w.worker.explain_delivery(id).unwrap();
    assert_eq!((gone.standing, gone.attempts, gone.publish_time), (Standing::Gone, None, None));
    let never: MessageId = u64::MAX.to_string().parse().unwrap();
    assert_eq!(stands(&w.worker, never).0, Standing::Gone, "LIB-206");
    let elsewhere = w.bus.create_topic("elsewhere", TopicConfig::new()).await.unwrap();
    let _keeper = elsewhere.subscribe("keeper", SubscriptionConfig::new()).await.unwrap();
    let id = elsewhere.publish("x").await.unwrap().id();
    assert_eq!(stands(&w.worker, id).0, Standing::Gone, "LIB-206: another topic's");
}

#[tokio::test(start_paused = true)]
async fn lib_206_filters_and_ordering_keys() {
    let w = World::new().await;
    let filter = SubscriptionConfig::new().filter(Filter::eq("k", "a"));
    let filtered = w.topic.subscribe("filtered", filter).await.unwrap();
    let ordered = SubscriptionConfig::new().message_ordering(true);
    let ordered = w.topic.subscribe("ordered", ordered).await.unwrap();
    let message = |value| Message::new("x").with_attribute("k", value).with_ordering_key("key");
    let receipts = w.topic.publish_many([message("b"), message("a")]).await.unwrap();
    let ids: Vec<_> = receipts.ids().collect();
    let explanation = filtered.explain_delivery(ids[0]).unwrap();
    let Standing::FilteredOut(clause) = &explanation.standing else { panic!("{explanation}") };
    assert_eq!(clause.text, "attributes.k = \"a\"", "LIB-206");
    assert!(explanation.to_string().contains("attributes.k is \"b\""), "{explanation}");
    assert_eq!(stands(&filtered, ids[1]), (Standing::Fresh, Some(0)), "LIB-206");
    let held = take_one(&ordered);
    assert!(matches!(stands(&ordered, ids[0]).0, Standing::Leased { .. }), "LIB-206");
    assert!(ordered.try_pull(1).unwrap().is_empty());
    assert_eq!(stands(&ordered, ids[1]), (Standing::Fresh, Some(0)), "LIB-206: waits its turn");
    held.ack();
    let text = ordered.explain_delivery(ids[1]).unwrap().to_string();
    assert_eq!(text, format!("ordered: message {} is deliverable", ids[1]), "LIB-206");
    drop(take_one(&ordered));
    let text = ordered.explain_delivery(ids[1]).unwrap().to_string();
    let expected = format!("ordered: message {} is deliverable again, handed out once", ids[1]);
    assert_eq!(text, expected, "LIB-206");
}

#[tokio::test(start_paused = true)]
async fn lib_206_agrees_with_peek_whatever_happens() {
    for seed in 0..6 {
        random_run(seed).await;
    }
}

async fn random_run(seed: u64) {
    println!("seed {seed}");
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut below = |bound: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % bound
    };
    let w = World::new().await;
    let retained = SubscriptionConfig::new().retain_acked(true);
    let filter = Filter::eq("k", "0");
    let mut subscriptions = vec![
        w.topic.subscribe("all", retained.clone()).await.unwrap(),
        w.topic.subscribe("some", retained.filter(filter.clone())).await.unwrap(),
    ];
    let before = w.clock.now();
    let mut published = Vec::new();
    for step in 0..60 {
        for _ in 0..below(60) {
            let k = below(2).to_string();
            let message = Message::new("x").with_attribute("k", k.clone());
            published.push((w.topic.publish(message).await.unwrap().id(), k == "0"));
        }
        for subscription in &subscriptions {
            for delivery in take(subscription, below(60) as usize + 1) {
                match below(16) {
                    0 => drop(delivery),
                    1 => drop(delivery.nack_after(SECOND * below(30) as u32)),
                    2 => drop(delivery.into_ack_id()),
                    _ => drop(delivery.ack()),
                }
            }
            if below(20) == 0 {
                let back = w.clock.now().duration_since(before).unwrap().as_secs();
                subscription.seek(before + SECOND * below(back + 2) as u32).await.unwrap();
            }
        }
        if step == 20 {
            let config = SubscriptionConfig::new().filter(filter.clone());
            subscriptions.push(w.topic.subscribe("late", config).await.unwrap());
        }
        w.clock.advance(SECOND * below(5) as u32);
        if step % 10 == 9 {
            subscriptions.iter().for_each(|subscription| compare(subscription, &published));
        }
    }
    w.clock.advance(MINUTE);
    for subscription in &subscriptions {
        let is_deliverable =
            |id| matches!(stands(subscription, id).0, Standing::Fresh | Standing::Ready);
        let told: BTreeSet<_> =
            published.iter().map(|(id, _)| *id).filter(|id| is_deliverable(*id)).collect();
        let mut delivered = BTreeSet::new();
        loop {
            let batch = subscription.try_pull(100).unwrap();
            if batch.is_empty() {
                break;
            }
            delivered.extend(batch.iter().map(|delivery| delivery.id()));
            batch.ack_all();
        }
        assert_eq!(told, delivered, "LIB-206: what is deliverable is delivered");
    }
}

/// What `peek` shows stands as it says; nothing else is to be delivered.
fn compare(subscription: &Subscription, published: &[(MessageId, bool)]) {
    let peeked = subscription.peek(usize::MAX).into_iter();
    let peeked: HashMap<_, _> = peeked.map(|p| (p.id, (p.state, p.attempts))).collect();
    let newest = peeked.keys().max().copied();
    let is_filtered = subscription.config().filter != Filter::default();
    for (id, matches) in published {
        let (standing, attempts) = stands(subscription, *id);
        let state = match &standing {
            Standing::Fresh => Some(MessageState::Fresh),
            Standing::Ready => Some(MessageState::Ready),
            Standing::Leased { .. } => Some(MessageState::Outstanding),
            Standing::Delayed { .. } => Some(MessageState::Delayed),
            _ => None,
        };
        let told = state.zip(attempts);
        if is_filtered && told == Some((MessageState::Fresh, 0)) && newest < Some(*id) {
            // `peek` sees what a seek brings back through a filter once it came there.
            continue;
        }
        assert_eq!(told, peeked.get(id).copied(), "LIB-206: {id} is {standing:?}");
        let is_out = matches!(standing, Standing::FilteredOut(_));
        let is_gone = standing == Standing::Gone;
        assert!(is_gone || is_out == (is_filtered && !matches), "LIB-206: {id} is {standing:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn lib_206_a_dead_letter_is_settled() {
    let w = World::with(SubscriptionConfig::new().ack_deadline(HOUR)).await;
    let dead = w.bus.create_topic("dead", TopicConfig::new()).await.unwrap();
    let _keeper = w.topic.subscribe("keeper", SubscriptionConfig::new()).await.unwrap();
    let morgue = dead.subscribe("morgue", SubscriptionConfig::new()).await.unwrap();
    let policy = DeadLetterPolicy::new("dead").max_delivery_attempts(1);
    let update = SubscriptionUpdate::new().dead_letter_policy(Some(policy));
    w.worker.update(update).await.unwrap();
    let id = w.publish(&["0"]).await[0];
    take_one(&w.worker).nack();
    assert_eq!(stands(&w.worker, id).0, Standing::Settled, "LIB-206");
    assert_eq!(drain(&morgue), ["0"]);
}
