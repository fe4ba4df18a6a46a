//! Section 1: topics, subscriptions and their names (RES), as the library models them.
//!
//! The strict grammar of ids (RES-2 to RES-6) holds in the google preset; the embedded preset takes
//! the names of design D11. Lists are LST-1.

use std::time::Duration;

use siftbus::{Code, Expiration, Limits, SubscriptionConfig, TopicConfig};

use crate::support::{DAY, HOUR, MINUTE, SECOND, World, drain, manual_bus, nothing_ready};

#[tokio::test(start_paused = true)]
async fn res_01_topics_and_subscriptions_have_separate_name_spaces() {
    let w = World::new().await;
    // RES-1: the same word names a topic and a subscription.
    w.bus.create_topic("twin", TopicConfig::new()).await.unwrap();
    let twin = w.bus.create_subscription("twin", "twin", SubscriptionConfig::new()).await.unwrap();
    assert_eq!((twin.name(), twin.topic_name()), ("twin", "twin"));
    w.bus.delete_topic("twin").await.unwrap();
    assert!(w.bus.subscription("twin").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn res_02_and_03_google_names_follow_the_grammar_of_ids() {
    let (_clock, bus) = manual_bus(Limits::google());
    let (longest, too_long) = ("x".repeat(255), "x".repeat(256));
    let good = ["abc", "a-_.~+%9", "Googabc", "mygoog", "goOg", longest.as_str()];
    let bad = ["ab", "1abc", "-abc", "goog", "googabc", "a b c", "abcé", "ab/", too_long.as_str()];
    for name in good {
        // RES-2, RES-3, LIM-1; RES-1, as a full name too.
        bus.create_topic(name, TopicConfig::new()).await.unwrap();
        let full = format!("projects/p/topics/{name}");
        let topic = bus.create_topic(&full, TopicConfig::new()).await.unwrap();
        topic.subscribe(name, SubscriptionConfig::new()).await.unwrap();
        let full = format!("projects/p/subscriptions/{name}");
        topic.subscribe(&full, SubscriptionConfig::new()).await.unwrap();
    }
    let topic = bus.topic("abc").await.unwrap();
    for name in bad {
        for name in [name.to_owned(), format!("projects/p/topics/{name}")] {
            let error = bus.create_topic(&name, TopicConfig::new()).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{name}");
        }
        for name in [name.to_owned(), format!("projects/p/subscriptions/{name}")] {
            let error = topic.subscribe(&name, SubscriptionConfig::new()).await.unwrap_err();
            assert_eq!(error.code(), Code::InvalidArgument, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn res_05_and_06_a_google_full_name_has_four_segments_and_any_project() {
    let (_clock, bus) = manual_bus(Limits::google());
    for project in ["p", "Upper_Case", "example.com:prj", "goog"] {
        let name = format!("projects/{project}/topics/abc");
        bus.create_topic(&name, TopicConfig::new()).await.unwrap(); // RES-6
    }
    let malformed = [
        "projects/p/topics/abc/",
        "projects/p/topics/abc/more",
        "p/topics/abc",
        "/projects/p/topics/abc",
        "projects/p/subscriptions/abc",
        "projects//topics/abc",
        "projects/p/topics/",
        "",
    ];
    for name in malformed {
        let error = bus.create_topic(name, TopicConfig::new()).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{name}"); // RES-5, RES-6
        let error = bus.topic(name).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{name}"); // RES-4
    }
}

#[tokio::test(start_paused = true)]
async fn res_04_a_bad_name_is_refused_before_existence_is_looked_at() {
    let w = World::new().await;
    let too_long = "x".repeat(1_025);
    for bad in ["", "bell\u{7}", "line\nbreak", too_long.as_str()] {
        // RES-4 with the grammar of D11: 1 to 1,024 bytes without control characters.
        let config = SubscriptionConfig::new;
        let create_topic = w.bus.create_topic(bad, TopicConfig::new()).await.unwrap_err();
        let topic = w.bus.topic(bad).await.unwrap_err();
        let delete_topic = w.bus.delete_topic(bad).await.unwrap_err();
        let create = w.bus.create_subscription(bad, "orders", config()).await.unwrap_err();
        let on_bad_topic = w.bus.create_subscription("s", bad, config()).await.unwrap_err();
        let subscribe = w.topic.subscribe(bad, config()).await.unwrap_err();
        let subscription = w.bus.subscription(bad).await.unwrap_err();
        let delete = w.bus.delete_subscription(bad).await.unwrap_err();
        for error in [create_topic, topic, delete_topic, create, on_bad_topic, subscribe] {
            assert_eq!(error.code(), Code::InvalidArgument, "{bad:?}: {error}");
        }
        for error in [subscription, delete] {
            assert_eq!(error.code(), Code::InvalidArgument, "{bad:?}: {error}");
        }
    }
    assert_eq!((w.bus.topics().len(), w.bus.subscriptions().len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn res_04_names_of_1_to_1024_bytes_of_any_text_are_taken() {
    let w = World::new().await;
    let longest = "é".repeat(512);
    for good in ["x", "projects/p/topics/t", "goog and spaces", "ünïcødé 🦀", longest.as_str()]
    {
        // D11: UTF-8 without control characters, counted in bytes (LIM-28).
        let topic = w.bus.create_topic(good, TopicConfig::new()).await.unwrap();
        let subscription = topic.subscribe(good, SubscriptionConfig::new()).await.unwrap();
        assert_eq!((topic.name(), subscription.name()), (good, good));
    }
}

#[tokio::test(start_paused = true)]
async fn res_07_creating_a_taken_name_is_already_exists_whatever_else_differs() {
    let w = World::new().await;
    let other = w.bus.create_topic("other", TopicConfig::new()).await.unwrap();
    let config = TopicConfig::new().retention(HOUR);
    let topic = w.bus.create_topic("orders", config).await.unwrap_err();
    assert_eq!(topic.code(), Code::AlreadyExists); // RES-7
    let config = SubscriptionConfig::new().ack_deadline(MINUTE);
    let subscription = other.subscribe("worker", config.clone()).await.unwrap_err();
    assert_eq!(subscription.code(), Code::AlreadyExists); // RES-7, with another topic
    let by_name = w.bus.create_subscription("worker", "orders", config).await.unwrap_err();
    assert_eq!(by_name.code(), Code::AlreadyExists);
    // Whatever the other fields are: an absent topic, a setting out of range.
    let config = SubscriptionConfig::new().ack_deadline(Duration::ZERO);
    let absent = w.bus.create_subscription("worker", "absent", config.clone()).await.unwrap_err();
    assert_eq!(absent.code(), Code::AlreadyExists);
    let out_of_range = w.topic.subscribe("worker", config).await.unwrap_err();
    assert_eq!(out_of_range.code(), Code::AlreadyExists);
    let config = TopicConfig::new().retention(Duration::ZERO);
    let out_of_range = w.bus.create_topic("orders", config).await.unwrap_err();
    assert_eq!(out_of_range.code(), Code::AlreadyExists);
    assert_eq!(w.worker.topic_name(), "orders");
    assert_eq!(w.worker.config().ack_deadline, 10 * SECOND);
    assert_eq!(w.topic.config().retention, None);
}

#[tokio::test(start_paused = true)]
async fn res_08_an_absent_resource_is_not_found_and_delete_is_not_idempotent() {
    let w = World::new().await;
    // RES-8
    assert_eq!(w.bus.topic("absent").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.bus.subscription("absent").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.bus.delete_topic("absent").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.bus.delete_subscription("absent").await.unwrap_err().code(), Code::NotFound);

    w.bus.delete_subscription("worker").await.unwrap();
    assert_eq!(w.bus.delete_subscription("worker").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.worker.delete().await.unwrap_err().code(), Code::NotFound);
    w.topic.delete().await.unwrap();
    assert_eq!(w.topic.delete().await.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.bus.delete_topic("orders").await.unwrap_err().code(), Code::NotFound);
    assert!(w.bus.topics().is_empty() && w.bus.subscriptions().is_empty());
}

#[tokio::test(start_paused = true)]
async fn res_09_a_subscription_needs_an_existing_topic() {
    let w = World::new().await;
    let create = |topic: &'static str| {
        let bus = w.bus.clone();
        async move { bus.create_subscription("s", topic, SubscriptionConfig::new()).await }
    };
    // RES-9
    assert_eq!(create("absent").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(create("").await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(create("_deleted-topic_").await.unwrap_err().code(), Code::InvalidArgument);
    w.topic.delete().await.unwrap();
    assert_eq!(create("orders").await.unwrap_err().code(), Code::NotFound);
    let late = w.topic.subscribe("s", SubscriptionConfig::new()).await.unwrap_err();
    assert_eq!(late.code(), Code::NotFound);
    assert_eq!(w.bus.subscription("s").await.unwrap_err().code(), Code::NotFound);
}

#[tokio::test(start_paused = true)]
async fn res_10_the_topic_may_be_in_another_project() {
    let w = World::new().await;
    let topic = w.bus.create_topic("projects/a/topics/t", TopicConfig::new()).await.unwrap();
    let name = "projects/b/subscriptions/s";
    let config = SubscriptionConfig::new();
    let foreign = w.bus.create_subscription(name, topic.name(), config).await.unwrap();
    // RES-10: listed under the topic with its own project.
    let listed: Vec<String> = topic.subscriptions().iter().map(|s| s.name().to_owned()).collect();
    assert_eq!(listed, [name]);
    topic.publish("over the border").await.unwrap();
    assert_eq!(drain(&foreign), ["over the border"]);
}

#[tokio::test(start_paused = true)]
async fn res_11_subscriptions_outlive_their_deleted_topic() {
    let w = World::new().await;
    w.publish(&["before"]).await;
    w.bus.delete_topic("orders").await.unwrap();
    // RES-11: the topic reads `_deleted-topic_`, the backlog stays pullable.
    assert_eq!(w.worker.topic_name(), "_deleted-topic_");
    assert_eq!(w.bus.subscription("worker").await.unwrap().topic_name(), "_deleted-topic_");
    assert_eq!(w.worker.stats().backlog, 1);
    assert_eq!(drain(&w.worker), ["before"]);
    assert_eq!(w.topic.publish("after").await.unwrap_err().code(), Code::NotFound);
    assert!(nothing_ready(&w.worker));
}

#[tokio::test(start_paused = true)]
async fn res_12_a_topic_created_again_is_a_new_topic() {
    let w = World::new().await;
    w.publish(&["old"]).await;
    w.topic.delete().await.unwrap();
    let again = w.bus.create_topic("orders", TopicConfig::new()).await.unwrap();
    // RES-12: not listed, nothing received, still on `_deleted-topic_`.
    assert!(again.subscriptions().is_empty());
    assert_eq!(again.publish("new").await.unwrap().recipients(), Some(0));
    assert_eq!(w.worker.topic_name(), "_deleted-topic_");
    assert_eq!(drain(&w.worker), ["old"]);
    // D11: a handle is bound to one incarnation.
    assert_eq!(w.topic.publish("x").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.topic.delete().await.unwrap_err().code(), Code::NotFound);
    assert!(w.bus.topic("orders").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn res_13_deleting_a_subscription_drops_its_backlog() {
    let w = World::new().await;
    w.publish(&["lost"]).await;
    w.worker.delete().await.unwrap();
    let again = w.topic.subscribe("worker", SubscriptionConfig::new()).await.unwrap();
    // RES-13: the namesake starts empty; the old handle stays dead (D11).
    assert_eq!(again.stats().backlog, 0);
    assert!(nothing_ready(&again));
    assert_eq!(w.worker.try_pull(1).unwrap_err().code(), Code::NotFound);
    assert_eq!(w.worker.delete().await.unwrap_err().code(), Code::NotFound);
    w.publish(&["new"]).await;
    assert_eq!(drain(&again), ["new"]);
}

#[tokio::test(start_paused = true)]
async fn res_18_labels_follow_their_grammar() {
    let (_, bus) = manual_bus(Limits::google());
    let many = |count: usize| {
        (0..count).fold(TopicConfig::new(), |config, i| config.label(format!("k{i}"), "v"))
    };
    // RES-18: at most 64 per resource.
    assert!(bus.create_topic("l64", many(64)).await.is_ok());
    assert_eq!(bus.create_topic("l65", many(65)).await.unwrap_err().code(), Code::InvalidArgument);

    let topic = bus.create_topic("topic", TopicConfig::new()).await.unwrap();
    let (key, value) = ("k".repeat(63), "v".repeat(63));
    let (long_key, long_value) = ("k".repeat(64), "v".repeat(64));
    let wide = "ключ".repeat(15);
    let good = [("a", ""), ("a-_1", "-_1a"), (&key, &value), (&wide, "日本"), ("é", "x")];
    let bad = [("", "v"), ("1a", "v"), ("_a", "v"), ("-a", "v"), ("Key", "v"), ("k", "Value")];
    let bad_too =
        [(long_key.as_str(), "v"), ("k", long_value.as_str()), ("a b", "v"), ("k", "a.b")];
    for (i, (key, value)) in good.into_iter().enumerate() {
        let config = SubscriptionConfig::new().label(key, value);
        let made = topic.subscribe(&format!("good{i}"), config.clone()).await;
        assert_eq!(made.unwrap().config().labels, config.labels, "{key:?} {value:?}");
    }
    for (key, value) in bad.into_iter().chain(bad_too) {
        let config = SubscriptionConfig::new().label(key, value);
        let error = topic.subscribe("bad", config).await.unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{key:?} {value:?}");
        let error = bus.create_topic("bad", TopicConfig::new().label(key, value)).await;
        assert_eq!(error.unwrap_err().code(), Code::InvalidArgument, "{key:?} {value:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn res_19_a_created_subscription_reports_the_defaults() {
    for w in [World::new().await, World::google().await] {
        let config = w.worker.config();
        // RES-19
        assert_eq!(config.ack_deadline, 10 * SECOND);
        assert_eq!(config.retention, Some(7 * DAY));
        assert_eq!(config.expiration, Expiration::After(31 * DAY));
        assert_eq!(config.filter.source(), "");
        assert!(config.labels.is_empty());
        assert_eq!(w.topic.config().retention, None);
        assert!(w.topic.config().labels.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn res_20_a_look_up_equals_what_create_returned() {
    let w = World::new().await;
    let config = SubscriptionConfig::new()
        .ack_deadline(77 * SECOND)
        .retention(3 * HOUR)
        .expiration(Expiration::Never)
        .label("team", "blue");
    let made = w.topic.subscribe("made", config).await.unwrap();
    let found = w.bus.subscription("made").await.unwrap();
    // RES-20
    assert_eq!(found.config(), made.config());
    assert_eq!((found.name(), found.topic_name()), (made.name(), made.topic_name()));
    assert_eq!(found.config().ack_deadline, 77 * SECOND);
    assert_eq!(found.config().retention, Some(3 * HOUR));
    assert_eq!(found.config().expiration, Expiration::Never);

    let config = TopicConfig::new().retention(2 * HOUR).label("team", "red");
    let made = w.bus.create_topic("made", config).await.unwrap();
    let found = w.bus.topic("made").await.unwrap();
    assert_eq!(found.config(), made.config());
    assert_eq!((found.name(), found.config().retention), ("made", Some(2 * HOUR)));
}

#[tokio::test(start_paused = true)]
async fn res_21_topics_never_expire() {
    let w = World::new().await;
    w.clock.advance(3_650 * DAY);
    // RES-21: ten idle years end the subscription, not the topic.
    assert_eq!(w.bus.subscription("worker").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(w.bus.topic("orders").await.unwrap().name(), "orders");
    assert_eq!(w.topic.publish("still here").await.unwrap().recipients(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn lst_01_lists_are_sorted_by_name() {
    let w = World::new().await;
    for name in ["pear", "apple", "zoo", "Apple", "projects/p"] {
        let topic = w.bus.create_topic(name, TopicConfig::new()).await.unwrap();
        topic.subscribe(&format!("{name}-own"), SubscriptionConfig::new()).await.unwrap();
        w.topic.subscribe(name, SubscriptionConfig::new()).await.unwrap();
    }
    let topics: Vec<String> = w.bus.topics().iter().map(|t| t.name().to_owned()).collect();
    let all: Vec<String> = w.bus.subscriptions().iter().map(|s| s.name().to_owned()).collect();
    let own: Vec<String> = w.topic.subscriptions().iter().map(|s| s.name().to_owned()).collect();
    // LST-1, LST-6
    assert_eq!(topics, ["Apple", "apple", "orders", "pear", "projects/p", "zoo"]);
    assert!(all.is_sorted() && all.len() == 11, "{all:?}");
    assert_eq!(own, ["Apple", "apple", "pear", "projects/p", "worker", "zoo"]);
}
