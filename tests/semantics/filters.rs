//! Section 4: filters (FIL) as subscriptions apply them. The language itself has its own tests.

use siftbus::filter::Filter;
use siftbus::{Message, Subscription, SubscriptionConfig, SubscriptionUpdate};

use crate::support::{MINUTE, World, drain, nothing_ready, take_one};

#[tokio::test(start_paused = true)]
async fn fil_01_filters_look_at_attributes_only() {
    let w = World::new().await;
    let equal = filtered(&w, "equal", "attributes.kind = \"a\"").await;
    let other = filtered(&w, "other", "attributes.kind != \"a\"").await;
    let has = filtered(&w, "has", "attributes:kind").await;
    let prefix = filtered(&w, "prefix", "hasPrefix(attributes.kind, \"a\")").await;
    let all = filtered(&w, "all", "").await;
    let m = |text: &'static str, kind| Message::new(text).with_attribute("kind", kind);
    w.topic.publish_many([m("1", "a"), m("2", "ab"), m("3", "")]).await.unwrap();
    w.topic.publish(Message::new("kind = a").with_ordering_key("a")).await.unwrap();
    // FIL-1: `!=` is the negation of `=`, so it also takes a message without the attribute.
    assert_eq!(drain(&equal), ["1"]);
    assert_eq!(drain(&other), ["2", "3", "kind = a"]);
    assert_eq!(drain(&has), ["1", "2", "3"]);
    assert_eq!(drain(&prefix), ["1", "2"]);
    assert_eq!(drain(&all), ["1", "2", "3", "kind = a"]);
    assert_eq!(drain(&w.worker), ["1", "2", "3", "kind = a"]);
}

#[tokio::test(start_paused = true)]
async fn fil_02_a_message_that_does_not_match_never_counts() {
    let w = World::new().await;
    let wanted = SubscriptionConfig::new().filter(Filter::eq("k", "wanted"));
    let wanted = w.topic.subscribe("wanted", wanted).await.unwrap();
    w.worker.delete().await.unwrap();
    let message = |value| Message::new("x").with_attribute("k", value);
    let receipt = w.topic.publish(message("unwanted")).await.unwrap();
    // FIL-2: acknowledged at publish: no backlog, no recipient, nothing retained.
    assert_eq!(receipt.recipients(), Some(0));
    assert_eq!((wanted.stats().backlog, wanted.stats().filtered_out), (0, 1));
    assert_eq!(w.topic.stats().retained_messages, 0);
    assert!(nothing_ready(&wanted));
    let receipt = w.topic.publish(message("wanted")).await.unwrap();
    assert_eq!(receipt.recipients(), Some(1));
    assert_eq!(take_one(&wanted).attempt(), 1);
}

#[tokio::test(start_paused = true)]
async fn fil_02_leases_of_a_filtered_subscription_are_like_any_others() {
    // D2: nothing else may tell a filtered view from the log.
    let w = World::new().await;
    let odd = filtered(&w, "odd", "attributes.parity = \"odd\"").await;
    let twin = filtered(&w, "twin", "attributes.parity = \"odd\"").await;
    for text in ["1", "2", "3", "4", "5"] {
        let parity = if text.as_bytes()[0] % 2 == 1 { "odd" } else { "even" };
        w.topic.publish(Message::new(text).with_attribute("parity", parity)).await.unwrap();
    }
    take_one(&odd).nack().await.unwrap();
    assert_eq!((odd.stats().backlog, twin.stats().backlog), (3, 3));
    assert_eq!(drain(&odd), ["1", "3", "5"]);
    take_one(&twin).into_ack_id();
    assert_eq!(drain(&twin), ["3", "5"]);
    w.clock.advance(MINUTE);
    assert_eq!(drain(&twin), ["1"]);
    assert_eq!(w.worker.stats().backlog, 5);
}

#[tokio::test(start_paused = true)]
async fn fil_02_filtered_subscriptions_alone_on_a_topic_get_every_match() {
    let w = World::new().await;
    w.worker.delete().await.unwrap();
    let odd = filtered(&w, "odd", "attributes.parity = \"odd\"").await;
    let parity = |i: u64| if i % 2 == 1 { "odd" } else { "even" };
    for batch in [1, 2, 7, 8, 9, 64, 300, 1_000] {
        let messages = (0..batch).map(|i| Message::new("x").with_attribute("parity", parity(i)));
        let receipts = w.topic.publish_many(messages).await.unwrap();
        let expected: Vec<_> =
            receipts.iter().filter(|r| r.recipients() == Some(1)).map(|r| r.id()).collect();
        assert_eq!(expected.len() as u64, batch / 2);
        // FIL-1, I-1: nobody else keeps the messages, and still none is missing.
        let came = odd.try_pull(1_000).unwrap();
        assert_eq!(came.iter().map(|d| d.id()).collect::<Vec<_>>(), expected, "batch of {batch}");
        came.ack_all();
    }
}

#[tokio::test(start_paused = true)]
async fn fil_03_the_filter_is_fixed_at_creation_and_shown_as_given() {
    let w = World::new().await;
    let text = "  attributes:a  AND ( attributes:b )";
    let worker = filtered(&w, "filtered", text).await;
    let update = SubscriptionUpdate::new().ack_deadline(MINUTE);
    let config = worker.update(update).await.unwrap();
    // FIL-3: an update has no way to name it; the text stays as given (filter.md, rule 11).
    assert_eq!(config.filter.source(), text);
    assert_eq!(worker.config().filter.source(), text);
    // One that says the same in other words keeps its own (D2: they may share a view).
    let twin = filtered(&w, "twin", "attributes:a AND attributes:b").await;
    w.topic.publish(Message::new("x").with_attributes([("a", ""), ("b", "")])).await.unwrap();
    assert_eq!((drain(&worker), drain(&twin)), (vec!["x".into()], vec!["x".into()]));
    assert_eq!(worker.config().filter.source(), text);
    assert_eq!(twin.config().filter.source(), "attributes:a AND attributes:b");
}

#[tokio::test(start_paused = true)]
async fn fil_04_a_filter_that_breaks_the_grammar_is_refused() {
    for bad in ["attributes.k = v", "a AND b OR c", "attributes.k", "(attributes:k", "data = \"x\""]
    {
        assert!(Filter::parse(bad).is_err(), "{bad}"); // FIL-4, ERR-12
    }
    let long = format!("{}attributes:k", " ".repeat(256));
    assert!(Filter::parse(&long).is_err()); // FIL-4, LIM-21, counted before trimming
}

async fn filtered(w: &World, name: &str, text: &str) -> Subscription {
    let config = SubscriptionConfig::new().filter(Filter::parse(text).unwrap());
    w.topic.subscribe(name, config).await.unwrap()
}

/// A topic on a bus with these limits.
async fn limited(change: impl FnOnce(&mut siftbus::Limits)) -> (siftbus::Bus, siftbus::Topic) {
    let mut limits = siftbus::Limits::embedded();
    change(&mut limits);
    let bus = siftbus::Bus::builder().limits(limits).build();
    let topic = bus.create_topic("topic", siftbus::TopicConfig::new()).await.unwrap();
    (bus, topic)
}

fn extended(text: &str) -> SubscriptionConfig {
    SubscriptionConfig::new().filter(Filter::parse_extended(text).unwrap())
}

#[tokio::test(start_paused = true)]
async fn lib_200_a_filter_counts_from_creation_to_deletion_however_slots_are_used_again() {
    let w = World::new().await;
    for round in 0..50 {
        let name = format!("round-{round}");
        let kept = filtered(&w, &format!("kept-{round}"), &format!("attributes:{name}")).await;
        let gone = filtered(&w, &name, "attributes.k = \"v\"").await;
        let twin = filtered(&w, &format!("twin-{round}"), "(attributes.k = \"v\")").await;
        let message = || Message::new("x").with_attributes([("k", "v"), (name.as_str(), "")]);
        let receipt = w.topic.publish(message()).await.unwrap();
        assert_eq!(receipt.recipients(), Some(4), "LIB-200: round {round}");
        gone.delete().await.unwrap();
        let receipt = w.topic.publish(message()).await.unwrap();
        assert_eq!(receipt.recipients(), Some(3), "LIB-200: round {round}");
        twin.delete().await.unwrap();
        let receipt = w.topic.publish(message()).await.unwrap();
        assert_eq!(receipt.recipients(), Some(2), "LIB-200: round {round}");
        assert_eq!(drain(&kept), ["x", "x", "x"]);
    }
}

#[tokio::test(start_paused = true)]
async fn lib_200_what_matches_and_what_does_not_take_turns() {
    let w = World::new().await;
    let even = filtered(&w, "even", "attributes.parity = \"even\"").await;
    let message = |n: usize| {
        let parity = if n.is_multiple_of(2) { "even" } else { "odd" };
        Message::new(n.to_string()).with_attribute("parity", parity)
    };
    // One at a time, over more than a segment of the log; a filter comes and goes meanwhile.
    let (mut odd, mut late) = (None, Vec::new());
    for n in 0..1_000 {
        match n {
            400 => odd = Some(filtered(&w, "odd", "attributes.parity = \"odd\"").await),
            600 => {
                let odd: Subscription = odd.take().unwrap();
                late = drain(&odd);
                odd.delete().await.unwrap();
            }
            _ => {}
        }
        let takers = 1 + usize::from(n % 2 == 0) + usize::from(odd.is_some() && n % 2 == 1);
        let receipt = w.topic.publish(message(n)).await.unwrap();
        assert_eq!(receipt.recipients(), Some(takers), "LIB-200: message {n}");
    }
    let text = |n: usize| n.to_string();
    assert_eq!(late, (401..600).step_by(2).map(text).collect::<Vec<_>>());
    assert_eq!(even.stats().filtered_out, 500);
    assert_eq!(drain(&even), (0..1_000).step_by(2).map(text).collect::<Vec<_>>());
    assert_eq!(drain(&w.worker), (0..1_000).map(text).collect::<Vec<_>>());
    assert_eq!(w.topic.stats().retained_messages, 0);
}

#[tokio::test(start_paused = true)]
async fn lib_201_weak_filters_are_bounded() {
    let (_bus, topic) = limited(|limits| limits.weak_filters_per_topic = 2).await;
    let subscribe = |name: &'static str, text| topic.subscribe(name, extended(text));
    subscribe("a", "NOT attributes:a").await.unwrap();
    subscribe("b", "attributes:a AND NOT attributes:b").await.unwrap();
    let error = subscribe("c", "NOT attributes:c").await.unwrap_err();
    let expected = siftbus::AdminError::TooManyWeakFilters { name: "c".into(), max: 2 };
    assert_eq!((error.code(), &error), (siftbus::Code::ResourceExhausted, &expected)); // LIB-201
    // An equal one is no further one, and others are not weak.
    subscribe("d", "(NOT attributes:a)").await.unwrap();
    subscribe("e", "attributes.a != \"1\"").await.unwrap();
    subscribe("f", "attributes.a = \"1\" AND NOT attributes:c").await.unwrap();
    let weak = topic.subscriptions().into_iter().find(|weak| weak.name() == "b").unwrap();
    weak.delete().await.unwrap();
    subscribe("c", "NOT attributes:c").await.unwrap(); // LIB-201
}

#[tokio::test(start_paused = true)]
async fn lib_202_the_index_is_bounded() {
    let (_bus, topic) = limited(|limits| limits.index_entries_per_topic = 0).await;
    let list = |first: usize, count: usize| {
        let values: Vec<_> = (first..first + count).map(|n| format!("\"{n}\"")).collect();
        format!("attributes.a IN ({})", values.join(", "))
    };
    let error = topic.subscribe("a", extended(&list(0, 17))).await.unwrap_err();
    let expected = siftbus::AdminError::FilterIndexFull { name: "a".into(), max: 16 };
    assert_eq!((error.code(), &error), (siftbus::Code::ResourceExhausted, &expected)); // LIB-202
    let first = topic.subscribe("a", extended(&list(0, 16))).await.unwrap();
    topic.subscribe("b", extended(&list(20, 16))).await.unwrap();
    assert!(topic.subscribe("c", extended(&list(40, 17))).await.is_err());
    first.delete().await.unwrap();
    topic.subscribe("c", extended(&list(40, 16))).await.unwrap(); // LIB-202: places come back
}

#[tokio::test(start_paused = true)]
async fn lib_203_the_extended_dialect_is_chosen() {
    let text = "attributes.size > 5 AND message.ordering_key = 'k'";
    assert!(Filter::parse(text).is_err());
    let (_bus, topic) = limited(|_| {}).await;
    let large = topic.subscribe("large", extended(text)).await.unwrap();
    let message = |size| Message::new("x").with_attribute("size", size).with_ordering_key("k");
    topic.publish_many([message("6"), message("5"), message("many")]).await.unwrap();
    assert_eq!(drain(&large).len(), 1); // LIB-203
    let strict = siftbus::filter::Dialect::Strict;
    let (_bus, topic) = limited(|limits| limits.filter_dialect = strict).await;
    let error = topic.subscribe("large", extended(text)).await.unwrap_err();
    let expected = siftbus::AdminError::Config(siftbus::ConfigError::FilterDialect);
    assert_eq!((error.code(), error), (siftbus::Code::InvalidArgument, expected)); // LIB-203
    topic.subscribe("plain", extended("attributes.size = \"5\"")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn lib_204_a_topic_explains_who_would_get_a_message() {
    let w = World::new().await;
    let text =
        " attributes.region = \"eu\" AND (attributes:a OR attributes:b) AND -attributes:test";
    let filter = filtered(&w, "filtered", text).await.config().filter;
    let message = |pairs: &[(&str, &str)]| Message::new("x").with_attributes(pairs.to_vec());
    let failed = |pairs| {
        filter.explain(&message(pairs)).map(|clause| {
            assert_eq!(&text[clause.span.clone()], clause.text);
            clause.text
        })
    };
    // LIB-204: the first clause that is false, as it stands there.
    assert_eq!(failed(&[]).as_deref(), Some("attributes.region = \"eu\""));
    assert_eq!(failed(&[("region", "eu")]).as_deref(), Some("(attributes:a OR attributes:b)"));
    let tested = failed(&[("region", "eu"), ("b", ""), ("test", "")]);
    assert_eq!(tested.as_deref(), Some("-attributes:test"));
    assert_eq!(failed(&[("region", "eu"), ("b", "")]), None);
    for pairs in [&[][..], &[("region", "eu"), ("a", "")], &[("region", "us"), ("a", "")]] {
        let explanation = w.topic.explain(&message(pairs));
        let would = w.topic.would_match(&message(pairs));
        let names: Vec<_> = would.iter().map(|would| would.name()).collect();
        let explained = explanation.subscriptions.iter().filter(|each| each.matches());
        let explained: Vec<_> = explained.map(|each| each.subscription.as_str()).collect();
        assert_eq!(names, explained, "LIB-204");
        let receipt = w.topic.publish(message(pairs)).await.unwrap();
        assert_eq!(receipt.recipients(), Some(names.len()), "LIB-204");
    }
    let line = w.topic.explain(&message(&[("region", "us")])).to_string();
    assert!(line.contains("attributes.region is \"us\""), "{line}");
}

#[tokio::test(start_paused = true)]
async fn lib_205_lint_finds_what_is_plain() {
    use siftbus::FilterLint;
    let lint = |text| Filter::parse_extended(text).unwrap().lint();
    for never in
        ["attributes.a = \"1\" AND attributes.a = \"2\"", "false", "-attributes:a AND attributes:a"]
    {
        assert_eq!(lint(never), [FilterLint::NeverMatches], "LIB-205: {never}");
    }
    for always in
        ["attributes:a OR NOT attributes:a", "true", "attributes.a != \"1\" OR attributes:a"]
    {
        assert_eq!(lint(always), [FilterLint::AlwaysMatches], "LIB-205: {always}");
    }
    let text = "attributes:a AND attributes.a = \"1\"";
    let expected = FilterLint::NoEffect { text: "attributes:a".into(), span: 0..12 };
    assert_eq!(lint(text), [expected]); // LIB-205
    for fine in ["", "attributes:a AND attributes:b", "attributes.a = \"1\""] {
        assert_eq!(lint(fine), [], "LIB-205: {fine}");
    }
    let w = World::new().await;
    let typo = Filter::has("regoin");
    assert_eq!(w.topic.lint(&typo), [], "LIB-205: nothing was seen yet");
    filtered(&w, "filtered", "attributes:region").await;
    w.topic.publish(Message::new("x").with_attribute("region", "eu")).await.unwrap();
    assert_eq!(w.topic.lint(&typo), [FilterLint::KeyNeverSeen { key: "regoin".into() }]);
    assert_eq!(w.topic.lint(&Filter::has("region")), []);
    for n in 0..1_100 {
        w.topic.publish(Message::new("x").with_attribute(format!("k{n}"), "")).await.unwrap();
    }
    assert_eq!(w.topic.lint(&typo), [], "LIB-205: too many keys to know them all");
}

#[tokio::test(start_paused = true)]
async fn lib_350_a_new_subscription_with_an_odd_filter_is_told_of_and_works() {
    use siftbus::{Event, FilterLint};
    let w = World::new().await;
    filtered(&w, "first", "attributes:region").await;
    w.topic.publish(Message::new("x").with_attribute("region", "eu")).await.unwrap();
    let mut events = w.bus.events();
    let created = |name: &str| Event::SubscriptionCreated {
        subscription: name.into(),
        topic: w.topic.name().into(),
    };
    for (name, text, lint) in [
        (
            "never",
            "attributes.region = \"1\" AND attributes.region = \"2\"",
            FilterLint::NeverMatches,
        ),
        ("always", "attributes:region OR -attributes:region", FilterLint::AlwaysMatches),
        (
            "idle",
            "attributes.region = \"eu\" AND attributes:region",
            FilterLint::NoEffect { text: "attributes:region".into(), span: 29..46 },
        ),
        ("typo", "attributes:regoin", FilterLint::KeyNeverSeen { key: "regoin".into() }),
    ] {
        // LIB-350: it is created all the same; whoever listens is told right after.
        let odd = filtered(&w, name, text).await;
        assert_eq!(events.next().await, Some(created(name)));
        let (subscription, topic) = (name.to_owned(), w.topic.name().to_owned());
        let expected = Event::FilterLinted { subscription, topic, lints: vec![lint] };
        assert_eq!(events.next().await, Some(expected), "LIB-350: {text}");
        assert_eq!(odd.config().filter.source(), text);
    }
    filtered(&w, "plain", "attributes.region = \"us\"").await;
    assert_eq!(events.next().await, Some(created("plain")));
    w.topic.subscribe("all", SubscriptionConfig::new()).await.unwrap();
    assert_eq!(events.next().await, Some(created("all")), "LIB-350: nothing to say");
}

#[tokio::test(start_paused = true)]
async fn lib_200_statistics_tell_the_kinds_of_filters() {
    let w = World::new().await;
    for (n, text) in [
        "attributes.a = \"1\"",
        "(attributes.a = \"1\")",
        "attributes.a = \"1\" AND -attributes:b",
        "attributes:a AND -attributes:b",
        "-attributes:b",
        "attributes:a OR -attributes:a",
    ]
    .iter()
    .enumerate()
    {
        filtered(&w, &format!("s{n}"), text).await;
    }
    let stats = w.topic.filter_stats();
    assert_eq!((stats.filters, stats.subscriptions, stats.shared), (5, 6, 1), "LIB-200");
    let kinds = (stats.exact, stats.indexed, stats.presence, stats.scan, stats.constant);
    assert_eq!(kinds, (1, 1, 1, 1, 1), "LIB-200");
    assert!(stats.memory_bytes > 0 && stats.entries == 5);
}
