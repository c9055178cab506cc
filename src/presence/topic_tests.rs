use std::collections::BTreeSet;

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn fields(name: &str) -> Map<String, Value> {
    Map::from_iter([("name".to_owned(), name.into())])
}

fn none(_: &[&str]) -> Extras {
    Extras::new()
}

fn told(batch: Option<Batch>) -> Value {
    batch.map_or(Value::Null, |batch| batch.encode(&none).parse().unwrap())
}

fn state(topic: &mut Topic) -> Value {
    topic.give(&none).parse().unwrap()
}

#[test]
fn an_update_is_one_diff_that_names_the_meta_before() {
    let mut topic = Topic::default();
    topic.join("u1", "a", &fields("Ada"));
    let joined = json!({ "joins": { "u1": { "metas": [{ "name": "Ada", "phx_ref": "a" }] } }, "leaves": {} });
    assert_eq!(told(topic.take()), joined);
    assert!(topic.update("u1", "a", "b", &fields("Ada L.")).is_none());
    let meta = json!({ "name": "Ada L.", "phx_ref": "b", "phx_ref_prev": "a" });
    assert_eq!(told(topic.take()), json!({ "joins": { "u1": { "metas": [meta] } }, "leaves": joined["joins"] }));
    assert!(topic.update("u1", "a", "c", &fields("x")).is_none());
    assert!(topic.take().is_none(), "what is not there any more cannot change");
    assert_eq!(state(&mut topic), json!({ "u1": { "metas": [meta] } }));
}

#[test]
fn what_comes_and_goes_between_two_diffs_is_in_neither() {
    let mut topic = Topic::default();
    topic.join("u1", "a", &fields("Ada"));
    assert!(topic.leave("u1", "a").is_none());
    assert!(topic.is_empty() && topic.take().is_none());
    topic.join("u1", "b", &fields("Ada"));
    assert!(topic.update("u1", "b", "c", &fields("Ada L.")).is_none());
    let diff = json!({ "joins": { "u1": { "metas": [{ "name": "Ada L.", "phx_ref": "c" }] } }, "leaves": {} });
    assert_eq!(told(topic.take()), diff);
}

#[test]
fn updates_between_two_diffs_are_one_from_what_is_known_to_what_is() {
    let mut topic = Topic::default();
    topic.join("u1", "a", &fields("one"));
    let before = told(topic.take())["joins"].clone();
    assert!(topic.update("u1", "a", "b", &fields("two")).is_none());
    assert!(topic.update("u1", "b", "c", &fields("three")).is_none());
    let meta = json!({ "name": "three", "phx_ref": "c", "phx_ref_prev": "a" });
    assert_eq!(told(topic.take()), json!({ "joins": { "u1": { "metas": [meta] } }, "leaves": before }));
    assert!(topic.update("u1", "c", "d", &fields("four")).is_none());
    assert!(topic.leave("u1", "d").is_none());
    assert_eq!(told(topic.take()), json!({ "joins": {}, "leaves": { "u1": { "metas": [meta] } } }));
}

#[test]
fn what_was_in_a_state_that_was_given_out_is_told_before_it_changes() {
    let mut topic = Topic::default();
    topic.join("u1", "a", &fields("Ada"));
    assert_eq!(state(&mut topic)["u1"]["metas"][0]["phx_ref"], "a");
    topic.join("u2", "b", &fields("Ben"));
    let first = topic.leave("u2", "b");
    assert!(first.is_none(), "nobody was given this one");
    let first = told(topic.leave("u1", "a"));
    assert_eq!((&first["joins"]["u1"]["metas"][0]["phx_ref"], &first["leaves"]), (&"a".into(), &json!({})));
    assert_eq!(told(topic.take())["leaves"]["u1"]["metas"][0]["phx_ref"], "a");
    topic.join("u1", "c", &fields("Ada"));
    assert_eq!(topic.list()["u1"][0].phx_ref(), "c");
    assert!(topic.update("u1", "c", "d", &fields("Ada")).is_some(), "a list is a state, too");
    assert_eq!(told(topic.take())["joins"]["u1"]["metas"][0]["phx_ref_prev"], "c");
}

#[test]
fn a_state_is_encoded_once_until_something_changes() {
    let mut topic = Topic::default();
    (0..LARGE).for_each(|user| topic.join(&user.to_string(), &format!("r{user}"), &fields("x")));
    let first = topic.give(&none);
    assert!(Arc::ptr_eq(&first, &topic.give(&none)));
    assert!(topic.take().is_some());
    assert!(Arc::ptr_eq(&first, &topic.give(&none)), "to be told changes nothing");
    assert!(topic.leave("0", "r0").is_none());
    assert_eq!(topic.members().len(), LARGE - 1);
    assert!(!topic.give(&none).as_json().unwrap().contains("\"r0\""));
}

#[test]
fn k106_what_is_fetched_stands_beside_the_metas_and_is_asked_for_once_per_diff() {
    let asked = std::cell::RefCell::new(Vec::new());
    let fetch = |keys: &[&str]| -> Extras {
        asked.borrow_mut().push(keys.join(","));
        keys.iter().map(|key| ((*key).to_owned(), fields(key))).collect()
    };
    let mut topic = Topic::default();
    topic.join("a", "1", &Map::new());
    topic.join("b", "2", &Map::new());
    assert!(topic.take().is_some());
    assert!(topic.leave("a", "1").is_none());
    topic.join("c", "3", &Map::new());
    assert!(topic.update("b", "2", "4", &Map::new()).is_none());
    let diff: Value = topic.take().unwrap().encode(&fetch).parse().unwrap();
    assert_eq!(*asked.borrow(), ["a,b,c"]);
    assert_eq!(diff["joins"]["c"], json!({ "metas": [{ "phx_ref": "3" }], "name": "c" }));
    assert_eq!(diff["leaves"]["a"], json!({ "metas": [{ "phx_ref": "1" }], "name": "a" }));
}

/// For each key the metas by their `phx_ref`.
type List = BTreeMap<String, BTreeMap<String, Value>>;

fn read(side: &Value) -> List {
    let metas = |entry: &Value| {
        let metas = entry["metas"].as_array().unwrap();
        metas.iter().map(|meta| (meta["phx_ref"].as_str().unwrap().to_owned(), meta.clone())).collect()
    };
    side.as_object().unwrap().iter().map(|(key, entry)| (key.clone(), metas(entry))).collect()
}

/// A client that has subscribed: once it is given the state it takes every diff since its subscription.
#[derive(Debug, Default)]
struct Client {
    leaves_first: bool,
    list: Option<List>,
    waiting: Vec<Value>,
}

impl Client {
    fn diff(&mut self, diff: &Value) {
        let Some(list) = &mut self.list else {
            self.waiting.push(diff.clone());
            return;
        };
        let join = |list: &mut List| {
            for (key, metas) in read(&diff["joins"]) {
                list.entry(key).or_default().extend(metas);
            }
        };
        if !self.leaves_first {
            join(list);
        }
        for (key, left) in read(&diff["leaves"]) {
            let Some(metas) = list.get_mut(&key) else { continue };
            metas.retain(|phx_ref, _| !left.contains_key(phx_ref));
            if metas.is_empty() {
                list.remove(&key);
            }
        }
        if self.leaves_first {
            join(list);
        }
    }

    fn state(&mut self, state: &Value) {
        self.list = Some(read(state));
        for diff in std::mem::take(&mut self.waiting) {
            self.diff(&diff);
        }
    }

    /// It has missed something, and is about to be given a new state.
    fn fall_behind(&mut self) {
        self.list = None;
        self.waiting.clear();
    }
}

#[derive(Debug, Clone)]
enum Step {
    Track { key: u8 },
    Update { which: usize },
    Untrack { which: usize },
    Flush,
    Subscribe { leaves_first: bool },
    Give { which: usize },
    FallBehind { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_u8).prop_map(|key| Step::Track { key }),
        4 => any::<usize>().prop_map(|which| Step::Update { which }),
        4 => any::<usize>().prop_map(|which| Step::Untrack { which }),
        2 => Just(Step::Flush),
        2 => any::<bool>().prop_map(|leaves_first| Step::Subscribe { leaves_first }),
        3 => any::<usize>().prop_map(|which| Step::Give { which }),
        1 => any::<usize>().prop_map(|which| Step::FallBehind { which }),
    ]
}

/// A topic, what is tracked on it, those who follow it, and what was told so far.
#[derive(Default)]
struct World {
    topic: Topic,
    tracked: Vec<(String, String)>,
    next: u64,
    clients: Vec<Client>,
    joined: BTreeSet<String>,
    left: BTreeSet<String>,
}

impl World {
    fn fresh(&mut self) -> String {
        self.next += 1;
        format!("r{}", self.next)
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Track { key } => {
                let (key, phx_ref) = (format!("u{key}"), self.fresh());
                self.topic.join(&key, &phx_ref, &fields(&phx_ref));
                self.tracked.push((key, phx_ref));
            }
            Step::Update { which } if !self.tracked.is_empty() => {
                let (new, place) = (self.fresh(), which % self.tracked.len());
                let (key, old) = self.tracked[place].clone();
                let first = self.topic.update(&key, &old, &new, &fields(&new));
                self.tracked[place].1 = new;
                self.publish(first);
            }
            Step::Untrack { which } if !self.tracked.is_empty() => {
                let (key, phx_ref) = self.tracked.swap_remove(which % self.tracked.len());
                let first = self.topic.leave(&key, &phx_ref);
                self.publish(first);
            }
            Step::Flush => self.flush(),
            Step::Subscribe { leaves_first } => self.clients.push(Client { leaves_first, ..Client::default() }),
            Step::Give { which } if !self.clients.is_empty() => {
                let place = which % self.clients.len();
                let state = state(&mut self.topic);
                self.clients[place].state(&state);
            }
            Step::FallBehind { which } if !self.clients.is_empty() => {
                let place = which % self.clients.len();
                self.clients[place].fall_behind();
            }
            Step::Update { .. } | Step::Untrack { .. } | Step::Give { .. } | Step::FallBehind { .. } => {}
        }
    }

    fn publish(&mut self, batch: Option<Batch>) {
        let Some(batch) = batch else { return };
        let diff: Value = batch.encode(&none).parse().unwrap();
        let refs =
            |side: &str| -> Vec<String> { read(&diff[side]).into_values().flat_map(|m| m.into_keys()).collect() };
        let (joins, leaves) = (refs("joins"), refs("leaves"));
        assert!(!joins.is_empty() || !leaves.is_empty(), "an empty diff");
        assert!(joins.iter().all(|phx_ref| !leaves.contains(phx_ref)), "both a join and a leave: {diff}");
        assert!(leaves.iter().all(|phx_ref| self.joined.contains(phx_ref)), "a leave before its join: {diff}");
        assert!(joins.into_iter().all(|phx_ref| self.joined.insert(phx_ref)), "a second join: {diff}");
        assert!(leaves.into_iter().all(|phx_ref| self.left.insert(phx_ref)), "a second leave: {diff}");
        let whole = |meta: &Value| meta["name"] == meta["phx_ref"];
        assert!(read(&diff["leaves"]).values().flat_map(BTreeMap::values).all(whole), "a leave without fields: {diff}");
        self.clients.iter_mut().for_each(|client| client.diff(&diff));
    }

    /// Publishes what is pending; everybody who was given a state holds the list then.
    fn flush(&mut self) {
        let batch = self.topic.take();
        self.publish(batch);
        let list = self.list();
        for client in &self.clients {
            assert!(client.list.as_ref().is_none_or(|held| *held == list), "{client:?} should hold {list:?}");
        }
    }

    fn list(&self) -> List {
        let metas = |metas: Vec<Meta>| {
            metas.iter().map(|meta| (meta.phx_ref().to_owned(), Value::Object(meta.fields()))).collect()
        };
        self.topic.members().list().into_iter().map(|(key, entry)| (key, metas(entry))).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn k104_whoever_follows_ends_with_the_servers_list(steps in proptest::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        steps.iter().for_each(|step| world.run(step));
        world.flush();
        // Clients that wait for a state are given it at last, and hold the list at once.
        for which in 0..world.clients.len() {
            world.run(&Step::Give { which });
        }
        world.flush();
        let shown: BTreeSet<String> = world.list().into_values().flat_map(|metas| metas.into_keys()).collect();
        let tracked: BTreeSet<String> = world.tracked.iter().map(|(_, phx_ref)| phx_ref.clone()).collect();
        prop_assert_eq!(shown, tracked);
        prop_assert!(world.clients.iter().all(|client| client.list.is_some()));
    }
}
