//! Topics, and who may use them.

use holdfast_protocol::{
    NodeId,
    topic::{
        Channel, Down, Filter, Topic, Up, may_publish, may_subscribe, publish_pattern, subscribe_pattern,
    },
};
use proptest::prelude::*;

/// Whether an MQTT filter matches a topic (MQTT 5, section 4.7).
fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
}

fn nodes() -> impl Strategy<Value = NodeId> {
    "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?".prop_map(|text| text.parse().unwrap())
}

fn channels() -> impl Strategy<Value = Channel> {
    prop::sample::select(Channel::ALL.to_vec())
}

/// Text made of what topics are made of, hostile pieces included.
fn texts() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "hf", "v1", "v2", "a", "b", "up", "down", "status", "event", "presence", "desired", "+", "#",
        "$share", "$SYS", "", "\0", "A", "ü",
    ]);
    prop::collection::vec(pieces, 0..7).prop_map(|pieces| pieces.join("/"))
}

#[test]
fn topics_have_their_golden_forms() {
    let node: NodeId = "shop-17".parse().unwrap();
    let all: Vec<_> = Channel::ALL
        .into_iter()
        .map(|channel| {
            let topic = Topic {
                node: node.clone(),
                channel,
            };
            format!("{topic} retained={}\n", channel.is_retained())
        })
        .collect();
    crate::golden::check_text("topics.txt", &all.concat());
    assert_eq!(publish_pattern("%u"), "hf/v1/%u/up/#");
    assert_eq!(subscribe_pattern("%u"), "hf/v1/%u/down/#");
    assert_eq!(Filter::every_node(Up::Event).to_string(), "hf/v1/+/up/event");
}

proptest! {
    #[test]
    fn topics_are_read_as_they_are_written(node in nodes(), channel in channels()) {
        let topic = Topic { node, channel };
        prop_assert_eq!(topic.to_string().parse(), Ok(topic));
    }

    #[test]
    fn what_is_read_is_what_was_written(text in prop_oneof![texts(), ".{0,60}"]) {
        if let Ok(topic) = text.parse::<Topic>() {
            prop_assert_eq!(topic.to_string(), text);
        }
    }

    #[test]
    fn no_filter_that_a_node_may_use_shows_it_anything_of_another(
        own in nodes(), other in nodes(), channel in channels(), filter in texts()
    ) {
        prop_assume!(own != other);
        let foreign = Topic { node: other, channel }.to_string();
        if may_subscribe(&own, &filter) {
            prop_assert!(!matches(&filter, &foreign), "{filter} shows {foreign}");
        }
        prop_assert!(!may_subscribe(&own, &foreign));
        prop_assert!(!may_publish(&own, &foreign));
        let shared = format!("$share/group/{}", Topic::down(&own, Down::Desired));
        prop_assert!(!may_subscribe(&own, &shared));
    }

    #[test]
    fn a_node_may_use_its_own_topics_in_their_direction_only(node in nodes(), channel in channels()) {
        let topic = Topic { node: node.clone(), channel }.to_string();
        let is_up = matches!(channel, Channel::Up(_));
        prop_assert_eq!(may_publish(&node, &topic), is_up);
        prop_assert_eq!(may_subscribe(&node, &topic), !is_up);
        prop_assert_eq!(matches(&publish_pattern(node.as_str()), &topic), is_up);
        prop_assert_eq!(matches(&subscribe_pattern(node.as_str()), &topic), !is_up);
    }

    #[test]
    fn nobody_publishes_to_a_filter(node in nodes(), text in texts()) {
        if may_publish(&node, &text) {
            prop_assert!(!text.contains(['+', '#', '$', '\0']));
        }
    }
}
