use std::{collections::BTreeMap, thread};

use serde_json::{Value, json};

use super::*;
use crate::pubsub::{Subscriber, Subscription};

/// A window that no test waits for.
const LONG: Duration = Duration::from_secs(3_600);
/// How long anything may take.
const LIMIT: Duration = Duration::from_secs(20);

fn fields(name: &str) -> Map<String, Value> {
    Map::from_iter([("name".to_owned(), name.into())])
}

/// The diffs of a topic.
#[derive(Default)]
struct Diffs {
    seen: Mutex<Vec<Value>>,
    rung: tokio::sync::Notify,
}

impl Subscriber for Diffs {
    fn deliver(&self, message: &Arc<Published>) {
        assert_eq!((message.kind, message.broadcast.event()), (Kind::Presence, "presence_diff"));
        self.seen.lock().unwrap().push(message.broadcast.payload().parse().unwrap());
        self.rung.notify_one();
    }
}

impl Diffs {
    fn of(pubsub: &PubSub, topic: &str) -> (Arc<Self>, Subscription) {
        let diffs = Arc::new(Self::default());
        let subscription = pubsub.subscribe(topic, diffs.clone());
        (diffs, subscription)
    }

    fn seen(&self) -> Vec<Value> {
        self.seen.lock().unwrap().clone()
    }

    async fn until(&self, count: usize) {
        let wait = async {
            while self.seen.lock().unwrap().len() < count {
                self.rung.notified().await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.unwrap();
    }
}

fn start(window: Duration) -> (PubSub, Tracker, Flusher) {
    let pubsub = PubSub::new();
    let (tracker, flusher) = Tracker::start(pubsub.clone(), Options { window, ..Options::default() });
    (pubsub, tracker, flusher)
}

#[test]
fn a_topic_is_forgotten_with_its_last_presence_and_comes_back_with_the_next() {
    let tracker = Tracker::new(PubSub::new());
    for _ in 0..3 {
        let tracked = tracker.track("t", "u", &Map::new()).unwrap();
        assert!(tracker.state("t").as_json().unwrap().contains("\"u\""));
        assert_eq!((tracker.count("t"), tracker.list("t").len(), tracker.get("t", "u").len()), (1, 1, 1));
        tracked.untrack();
        assert_eq!(tracker.state("t").as_json(), Some("{}"));
        assert_eq!((tracker.count("t"), tracker.list("t").len(), tracker.get("t", "u").len()), (0, 0, 0));
        assert!(tracker.inner.topics.is_empty());
    }
}

#[test]
fn without_a_task_every_change_is_published_at_once() {
    let pubsub = PubSub::new();
    let tracker = Tracker::new(pubsub.clone());
    let (diffs, _kept) = Diffs::of(&pubsub, "t");
    let tracked = tracker.track("t", 7, &fields("one")).unwrap();
    tracked.update(&fields("two"));
    tracked.untrack();
    assert_eq!(diffs.seen().len(), 3);
    assert_eq!(diffs.seen()[1]["joins"]["7"]["metas"][0]["name"], "two");
}

#[test]
fn names_that_objects_of_javascript_have_already_are_no_keys() {
    let tracker = Tracker::new(PubSub::new());
    for key in ["__proto__", "constructor", "prototype"] {
        let refused = tracker.track("t", key, &Map::new()).err().unwrap();
        assert_eq!(refused, Error::Key { key: key.to_owned() });
        assert!(refused.to_string().contains(key));
    }
    assert!(tracker.inner.topics.is_empty());
    assert!(tracker.track("t", "Constructor", &Map::new()).is_ok());
}

#[test]
fn a_list_has_every_meta_with_its_fields() {
    let tracker = Tracker::new(PubSub::new());
    let first = tracker.track("t", "u", &fields("one")).unwrap();
    let second = tracker.track("t", "u", &fields("two")).unwrap();
    first.update(&fields("three"));
    let metas = tracker.list("t").remove("u").unwrap();
    let shown: Vec<(String, Value)> =
        metas.iter().map(|meta| (meta.phx_ref().to_owned(), meta.fields()["name"].clone())).collect();
    assert_eq!(shown, [(first.phx_ref(), "three".into()), (second.phx_ref(), "two".into())]);
    assert_eq!(tracker.count("t"), 1);
    assert_eq!(tracker.get("t", "u")[1].as_json(), metas[1].as_json());
}

#[test]
fn i18_presences_that_come_and_go_at_once_leave_nothing_behind() {
    let tracker = Tracker::new(PubSub::new());
    thread::scope(|scope| {
        for user in 0..8 {
            let tracker = &tracker;
            scope.spawn(move || {
                for _ in 0..500 {
                    let tracked = tracker.track("t", user, &Map::new()).unwrap();
                    tracked.update(&Map::from_iter([("a".to_owned(), 1.into())]));
                }
            });
        }
    });
    assert_eq!(tracker.state("t").as_json(), Some("{}"));
    assert!(tracker.inner.topics.is_empty());
}

#[tokio::test]
async fn the_first_change_is_told_at_once_and_those_that_follow_as_one() {
    let (pubsub, tracker, flusher) = start(LONG);
    let (diffs, _kept) = Diffs::of(&pubsub, "t");
    let mut tracked: Vec<_> = (0..500).map(|user| tracker.track("t", user, &fields("x")).unwrap()).collect();
    assert_eq!(diffs.seen(), [json!({ "joins": tracker_entry(&tracker, "0"), "leaves": {} })]);
    tracked.truncate(400);
    assert_eq!(tracker.count("t"), 400, "what is not told yet is true already");
    assert_eq!(diffs.seen().len(), 1);
    let other = tracker.track("u", "a", &Map::new()).unwrap();
    flusher.stop().await;
    assert_eq!(diffs.seen().len(), 2);
    assert_eq!(diffs.seen()[1]["joins"].as_object().unwrap().len(), 399, "those who left again are not in it");
    assert_eq!(diffs.seen()[1]["leaves"], json!({}));
    drop(tracked);
    assert_eq!(diffs.seen().len(), 402, "without the task every change is told at once");
    drop(other);
    assert!(tracker.inner.topics.is_empty());
}

fn tracker_entry(tracker: &Tracker, key: &str) -> Value {
    let metas: Vec<Value> = tracker.get("t", key).iter().map(|meta| Value::Object(meta.fields())).collect();
    json!({ key: { "metas": metas } })
}

#[tokio::test]
async fn what_waits_is_told_when_its_time_has_come() {
    let (pubsub, tracker, flusher) = start(Duration::from_millis(5));
    let (diffs, _kept) = Diffs::of(&pubsub, "t");
    let mut followed: BTreeMap<String, Value> = BTreeMap::new();
    let tracked: Vec<_> = (0..100).map(|user| tracker.track("t", user, &fields("x")).unwrap()).collect();
    diffs.until(2).await;
    for diff in diffs.seen() {
        followed.extend(diff["joins"].as_object().unwrap().clone());
    }
    assert_eq!(followed.len(), 100);
    assert!(diffs.seen().len() < 100);
    let before = diffs.seen().len();
    drop(tracked);
    diffs.until(before + 1).await;
    let gone = async {
        while !tracker.inner.topics.is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.unwrap();
    flusher.stop().await;
}

#[tokio::test]
async fn a_topic_that_empties_unseen_is_forgotten_when_its_time_has_come() {
    let (pubsub, tracker, flusher) = start(LONG);
    let (diffs, _kept) = Diffs::of(&pubsub, "t");
    let first = tracker.track("t", 1, &Map::new()).unwrap();
    drop(tracker.track("t", 2, &Map::new()).unwrap());
    drop(first);
    assert_eq!((diffs.seen().len(), tracker.count("t"), tracker.inner.topics.len()), (1, 0, 1));
    let again = tracker.track("t", 3, &Map::new()).unwrap();
    assert_eq!(tracker.count("t"), 1);
    drop(again);
    flusher.stop().await;
    assert_eq!(diffs.seen().len(), 2);
    assert!(diffs.seen()[1]["leaves"]["1"].is_object() && diffs.seen()[1]["joins"] == json!({}));
    assert!(tracker.inner.topics.is_empty());
}

#[tokio::test]
async fn a_task_that_is_dropped_leaves_nothing_untold() {
    let (pubsub, tracker, flusher) = start(LONG);
    let (diffs, _kept) = Diffs::of(&pubsub, "t");
    let _one = tracker.track("t", 1, &Map::new()).unwrap();
    let _two = tracker.track("t", 2, &Map::new()).unwrap();
    drop(flusher);
    diffs.until(2).await;
    assert!(diffs.seen()[1]["joins"]["2"].is_object());
}

#[tokio::test]
async fn k106_a_fetch_that_panics_costs_no_more_than_what_it_would_have_said() {
    let pubsub = PubSub::new();
    let fetch: Fetch = Arc::new(|topic, keys| {
        assert!(!keys.contains(&"bad"), "as the test wants it");
        keys.iter().map(|key| ((*key).to_owned(), fields(topic))).collect()
    });
    let (tracker, flusher) = Tracker::start(pubsub.clone(), Options { fetch: Some(fetch), ..Options::default() });
    let (diffs, _kept) = Diffs::of(&pubsub, "t");
    let _good = tracker.track("t", "good", &Map::new()).unwrap();
    assert_eq!(diffs.seen()[0]["joins"]["good"]["name"], "t");
    assert_eq!(tracker.state("t").parse::<Value>().unwrap()["good"]["name"], "t");
    let _bad = tracker.track("t", "bad", &Map::new()).unwrap();
    let state: Value = tracker.state("t").parse().unwrap();
    assert_eq!((&state["good"]["name"], &state["bad"]["name"]), (&"t".into(), &Value::Null));
    flusher.stop().await;
    assert!(diffs.seen()[1]["joins"]["bad"]["metas"].is_array());
}
