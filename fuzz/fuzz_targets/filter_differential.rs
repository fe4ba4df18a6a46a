//! A topic's index against direct evaluation. The input's lines are filters, its words are what
//! messages consist of.

#![no_main]

use libfuzzer_sys::fuzz_target;
use siftbus::{Bus, Filter, Message, SubscriptionConfig, TopicConfig};

fuzz_target!(|input: &str| {
    let filters: Vec<Filter> =
        input.lines().take(8).filter_map(|line| Filter::parse_extended(line).ok()).collect();
    if filters.is_empty() {
        return;
    }
    // More of each, so that some stand in a long list and share a test.
    let own = |number: usize| Filter::eq("own", &number.to_string()).not();
    let more = filters.iter().flat_map(|filter| {
        (0..ALIKE).filter_map(move |number| filter.and(&own(number).ok()?).ok())
    });
    let filters: Vec<Filter> = filters.iter().cloned().chain(more).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async {
        let bus = Bus::builder().seed(1).build();
        let topic = bus.create_topic("topic", TopicConfig::new()).await.expect("a topic");
        for (number, filter) in filters.iter().enumerate() {
            let config = SubscriptionConfig::new().filter(filter.clone());
            topic.subscribe(&number.to_string(), config).await.expect("within all limits");
        }
        // Words of the input are keys and values, so that some of them match.
        let words: Vec<&str> =
            input.split(|c: char| " .:\"'()=,\n".contains(c)).filter(|w| !w.is_empty()).collect();
        for pairs in words.windows(4) {
            let [a, b, c, d] = pairs else { continue };
            let message = Message::new((*a).to_owned()).with_attributes([(b, c), (d, a)]);
            let message = message.with_ordering_key(c);
            let would: Vec<String> =
                topic.would_match(&message).iter().map(|taker| taker.name().to_owned()).collect();
            let direct = filters.iter().enumerate().filter(|(_, filter)| filter.matches(&message));
            let mut direct: Vec<String> = direct.map(|(number, _)| number.to_string()).collect();
            direct.sort_unstable();
            assert_eq!(would, direct);
            // What is false is explained, and only that.
            for filter in &filters {
                assert_eq!(filter.explain(&message).is_none(), filter.matches(&message));
            }
        }
    });
});

/// Eight filters with so many like each: enough for a list to be split.
const ALIKE: usize = 16;
