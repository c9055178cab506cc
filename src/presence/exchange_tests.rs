//! Several nodes on a network that loses, repeats and reorders everything, with nodes that die, return and retire:
//! when it is quiet again every node shows the same, and whoever followed its diffs holds that.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use proptest::prelude::*;
use serde_json::{Map, Value};

use super::*;
use crate::presence::{
    members::{Change, by_topic},
    state::{Extras, Meta},
    topic::{Batch, Topic},
};

const TOPICS: u8 = 3;
/// For each topic, the text of each meta by its key and `phx_ref`.
type List = BTreeMap<(String, String), String>;

#[derive(Debug, Clone)]
enum Step {
    Start,
    Track { node: usize, topic: u8 },
    Update { node: usize, which: usize },
    Untrack { node: usize, which: usize },
    Flush { node: usize },
    Publish { node: usize },
    Beat { node: usize },
    Hello { node: usize },
    More { node: usize },
    Deliver { which: usize },
    Repeat { which: usize },
    Lose { which: usize },
    Wait { ms: u64 },
    Ask { node: usize },
    Read { node: usize },
    Look { node: usize },
    Kill { node: usize },
    Bury { node: usize },
    Forget,
    Bye { node: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let node = || any::<usize>();
    prop_oneof![
        1 => Just(Step::Start),
        6 => (node(), 0..TOPICS).prop_map(|(node, topic)| Step::Track { node, topic }),
        3 => (node(), node()).prop_map(|(node, which)| Step::Update { node, which }),
        3 => (node(), node()).prop_map(|(node, which)| Step::Untrack { node, which }),
        6 => node().prop_map(|node| Step::Flush { node }),
        3 => node().prop_map(|node| Step::Publish { node }),
        3 => node().prop_map(|node| Step::Beat { node }),
        1 => node().prop_map(|node| Step::Hello { node }),
        4 => node().prop_map(|node| Step::More { node }),
        20 => node().prop_map(|which| Step::Deliver { which }),
        3 => node().prop_map(|which| Step::Repeat { which }),
        6 => node().prop_map(|which| Step::Lose { which }),
        2 => (1..400_u64).prop_map(|ms| Step::Wait { ms }),
        4 => node().prop_map(|node| Step::Ask { node }),
        3 => node().prop_map(|node| Step::Read { node }),
        3 => node().prop_map(|node| Step::Look { node }),
        1 => node().prop_map(|node| Step::Kill { node }),
        1 => node().prop_map(|node| Step::Bury { node }),
        1 => Just(Step::Forget),
        1 => node().prop_map(|node| Step::Bye { node }),
    ]
}

/// A topic on one node, and a client that has followed it from the beginning.
#[derive(Default)]
struct Shown {
    topic: Topic,
    client: List,
}

impl Shown {
    fn publish(&mut self, batch: Option<Batch>) {
        let Some(batch) = batch else { return };
        let diff: Value = batch.encode(&|_| Extras::new()).parse().unwrap();
        let (joins, leaves) = (side(&diff["joins"]), side(&diff["leaves"]));
        assert!(joins.keys().all(|name| !leaves.contains_key(name)), "both a join and a leave: {diff}");
        for (name, text) in joins {
            assert!(self.client.insert(name, text).is_none(), "a second join: {diff}");
        }
        for name in leaves.keys() {
            assert!(self.client.remove(name).is_some(), "a leave of what is not there: {diff}");
        }
    }

    fn take(&mut self, change: Change) {
        let first = match change {
            Change::Join { key, meta } => self.topic.enter(&key, meta),
            Change::Replace { key, old, meta } => self.topic.replace(&key, &old, meta),
            Change::Leave { key, phx_ref } => self.topic.leave(&key, &phx_ref),
        };
        self.publish(first);
    }

    fn list(&self) -> List {
        let metas = |(key, metas): (String, Vec<Meta>)| {
            metas.into_iter().map(move |meta| ((key.clone(), meta.phx_ref().to_owned()), parsed(meta.as_json())))
        };
        self.topic.members().list().into_iter().flat_map(metas).collect()
    }
}

/// The text in one form, whatever the order of names.
fn parsed(text: &str) -> String {
    serde_json::from_str::<Value>(text).unwrap().to_string()
}

fn side(side: &Value) -> List {
    let metas = |(key, entry): (&String, &Value)| -> Vec<((String, String), String)> {
        let metas = entry["metas"].as_array().unwrap();
        metas
            .iter()
            .map(|meta| ((key.clone(), meta["phx_ref"].as_str().unwrap().to_owned()), meta.to_string()))
            .collect()
    };
    side.as_object().unwrap().iter().flat_map(metas).collect()
}

struct Node {
    at: NodeId,
    life: Incarnation,
    ledger: Arc<Ledger>,
    exchange: Exchange,
    topics: BTreeMap<Arc<str>, Shown>,
    tracked: Vec<(Arc<str>, Arc<str>, String)>,
    /// A look at the store that is under way.
    read: Option<Roster>,
    running: bool,
}

#[derive(Default)]
struct World {
    now: Option<Instant>,
    nodes: Vec<Node>,
    /// To whom, from whom, what.
    network: Vec<(usize, NodeId, Bytes)>,
    rows: BTreeMap<Incarnation, bool>,
    next: u64,
}

impl World {
    fn fresh(&mut self, what: &str) -> String {
        self.next += 1;
        format!("{what}{}", self.next)
    }

    fn now(&mut self) -> Instant {
        let now = self.now.unwrap_or_else(Instant::now) + Duration::from_millis(1);
        self.now = Some(now);
        now
    }

    /// One of the running nodes.
    fn pick(&self, which: usize) -> Option<usize> {
        let running: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].running).collect();
        (!running.is_empty()).then(|| running[which % running.len()])
    }

    fn start(&mut self) {
        if self.nodes.iter().filter(|node| node.running).count() >= 4 {
            return;
        }
        let (life, ledger) = (Incarnation(self.fresh("life")), Arc::<Ledger>::default());
        self.rows.insert(life.clone(), false);
        let exchange = Exchange::new(ledger.clone(), life.clone(), self.next);
        let at = NodeId(self.fresh("node").into());
        let (topics, tracked) = (BTreeMap::new(), Vec::new());
        self.nodes.push(Node { at, life, ledger, exchange, topics, tracked, read: None, running: true });
        let node = self.nodes.len() - 1;
        let hello = self.nodes[node].exchange.hello(None);
        self.send(node, hello);
    }

    fn send(&mut self, from: usize, all: impl IntoIterator<Item = Say>) {
        for Say { to, body } in all {
            for node in (0..self.nodes.len()).filter(|node| *node != from && self.nodes[*node].running) {
                if to.as_ref().is_none_or(|to| *to == self.nodes[node].at) {
                    self.network.push((node, self.nodes[from].at.clone(), body.clone()));
                }
            }
        }
    }

    fn act(&mut self, node: usize, outcome: Outcome) {
        for (topic, changes) in by_topic(outcome.changes) {
            let shown = self.nodes[node].topics.entry(topic).or_default();
            changes.into_iter().for_each(|change| shown.take(change));
        }
        self.send(node, outcome.say);
    }

    fn hear(&mut self, (to, from, body): (usize, NodeId, Bytes)) {
        let now = self.now();
        if self.nodes[to].running {
            let outcome = self.nodes[to].exchange.hear(&from, &body, now);
            self.act(to, outcome);
        }
    }

    /// Reads the rows, as a renewal does. A node that is dead by them goes on under a new name.
    fn read(&mut self, node: usize) {
        let asked = self.now();
        if self.rows.get(&self.nodes[node].life) != Some(&false) {
            let life = Incarnation(self.fresh("life"));
            self.rows.insert(life.clone(), false);
            self.nodes[node].life = life;
        }
        let rows = self.rows.iter().map(|(life, dead)| (life.clone(), *dead)).collect();
        self.nodes[node].read = Some(Roster { own: self.nodes[node].life.clone(), rows, asked });
    }

    fn look(&mut self, node: usize) {
        if let Some(roster) = self.nodes[node].read.take() {
            let outcome = self.nodes[node].exchange.look(&roster);
            self.act(node, outcome);
        }
    }

    fn track(&mut self, node: usize, topic: u8) {
        let (topic, key, phx_ref): (Arc<str>, Arc<str>, _) =
            (format!("t{topic}").into(), format!("u{}", self.next % 3).into(), self.fresh("r"));
        let Node { topics, ledger, tracked, .. } = &mut self.nodes[node];
        let shown = &mut topics.entry(topic.clone()).or_default().topic;
        shown.join(&key, &phx_ref, &Map::from_iter([("name".to_owned(), phx_ref.clone().into())]));
        let meta = shown.members().meta(&key, &phx_ref).unwrap().clone();
        ledger.record(&topic, Change::Join { key: key.clone(), meta });
        tracked.push((topic, key, phx_ref));
    }

    fn update(&mut self, node: usize, which: usize) {
        let new = self.fresh("r");
        let Node { topics, ledger, tracked, .. } = &mut self.nodes[node];
        let count = tracked.len().max(1);
        let Some((topic, key, phx_ref)) = tracked.get_mut(which % count) else { return };
        let shown = topics.get_mut(topic).unwrap();
        let first = shown.topic.update(key, phx_ref, &new, &Map::new());
        shown.publish(first);
        let meta = shown.topic.members().meta(key, &new).unwrap().clone();
        let old: Arc<str> = std::mem::replace(phx_ref, new).into();
        ledger.record(topic, Change::Replace { key: key.clone(), old, meta });
    }

    fn untrack(&mut self, node: usize, which: usize) {
        let Node { topics, ledger, tracked, .. } = &mut self.nodes[node];
        if tracked.is_empty() {
            return;
        }
        let (topic, key, phx_ref) = tracked.swap_remove(which % tracked.len());
        let shown = topics.get_mut(&topic).unwrap();
        let first = shown.topic.leave(&key, &phx_ref);
        shown.publish(first);
        ledger.record(&topic, Change::Leave { key, phx_ref: phx_ref.into() });
    }

    fn publish(&mut self, node: usize) {
        for shown in self.nodes[node].topics.values_mut() {
            let batch = shown.topic.take();
            shown.publish(batch);
        }
    }

    fn end(&mut self, node: usize, politely: bool) {
        self.nodes[node].running = false;
        if politely {
            let last: Vec<Say> =
                self.nodes[node].exchange.flush().into_iter().chain(self.nodes[node].exchange.bye()).collect();
            self.send(node, last);
            let life = self.nodes[node].life.clone();
            self.rows.insert(life, true);
        }
    }

    fn run(&mut self, step: &Step) {
        let place = |which: usize, world: &Self| (!world.network.is_empty()).then(|| which % world.network.len());
        match *step {
            Step::Start => self.start(),
            Step::Wait { ms } => self.now = Some(self.now() + Duration::from_millis(ms)),
            Step::Forget => self.rows.retain(|_, dead| !*dead),
            Step::Deliver { which } => {
                if let Some(place) = place(which, self) {
                    let message = self.network.remove(place);
                    self.hear(message);
                }
            }
            Step::Repeat { which } => {
                if let Some(place) = place(which, self) {
                    self.hear(self.network[place].clone());
                }
            }
            Step::Lose { which } => drop(place(which, self).map(|place| self.network.remove(place))),
            Step::Track { node, .. }
            | Step::Update { node, .. }
            | Step::Untrack { node, .. }
            | Step::Flush { node }
            | Step::Publish { node }
            | Step::Beat { node }
            | Step::Hello { node }
            | Step::More { node }
            | Step::Ask { node }
            | Step::Read { node }
            | Step::Look { node }
            | Step::Kill { node }
            | Step::Bury { node }
            | Step::Bye { node } => {
                if let Some(node) = self.pick(node) {
                    self.run_at(node, step);
                }
            }
        }
    }

    fn run_at(&mut self, node: usize, step: &Step) {
        let now = self.now();
        let exchange = &mut self.nodes[node].exchange;
        let say: Vec<Say> = match *step {
            Step::Flush { .. } => exchange.flush(),
            Step::Beat { .. } => exchange.position().into_iter().collect(),
            Step::Hello { .. } => exchange.hello(None).into_iter().collect(),
            Step::More { .. } => exchange.more(),
            Step::Ask { .. } => exchange.ask(now),
            _ => Vec::new(),
        };
        self.send(node, say);
        match *step {
            Step::Track { topic, .. } => self.track(node, topic),
            Step::Update { which, .. } => self.update(node, which),
            Step::Untrack { which, .. } => self.untrack(node, which),
            Step::Publish { .. } => self.publish(node),
            Step::Read { .. } => self.read(node),
            Step::Look { .. } => self.look(node),
            Step::Kill { .. } => self.end(node, false),
            Step::Bye { .. } => self.end(node, true),
            Step::Bury { .. } => drop(self.rows.insert(self.nodes[node].life.clone(), true)),
            _ => {}
        }
    }

    /// Nothing is lost any more, the dead are judged, and time passes.
    fn settle(&mut self) {
        self.network.clear();
        for node in self.nodes.iter().filter(|node| !node.running) {
            self.rows.insert(node.life.clone(), true);
        }
        for _ in 0..6 {
            let second = self.now() + Duration::from_secs(1);
            self.now = Some(second);
            let running: Vec<usize> = (0..self.nodes.len()).filter(|node| self.nodes[*node].running).collect();
            for node in running {
                self.read(node);
                self.look(node);
                for step in [Step::Flush { node }, Step::Beat { node }, Step::Ask { node }] {
                    self.run_at(node, &step);
                }
                while self.nodes[node].exchange.has_more() {
                    self.run_at(node, &Step::More { node });
                }
            }
            while !self.network.is_empty() {
                let message = self.network.remove(0);
                self.hear(message);
            }
        }
    }

    fn check(&mut self) {
        let mut expected: BTreeMap<Arc<str>, List> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.running) {
            for (topic, key, phx_ref) in &node.tracked {
                let meta = node.topics[topic].topic.members().meta(key, phx_ref).unwrap().as_json().to_owned();
                let list = expected.entry(topic.clone()).or_default();
                assert!(list.insert((key.to_string(), phx_ref.clone()), parsed(&meta)).is_none(), "one ref, two metas");
            }
        }
        for node in (0..self.nodes.len()).filter(|node| self.nodes[*node].running).collect::<Vec<_>>() {
            self.publish(node);
            let Node { at, topics, tracked, exchange, ledger, .. } = &self.nodes[node];
            let names: BTreeSet<&Arc<str>> = topics.keys().chain(expected.keys()).collect();
            for topic in names {
                let expected = expected.get(topic).cloned().unwrap_or_default();
                let (list, client) =
                    topics.get(topic).map(|shown| (shown.list(), shown.client.clone())).unwrap_or_default();
                assert_eq!(list, expected, "{at} shows on {topic}");
                assert_eq!(client, expected, "a client of {at} shows on {topic}");
            }
            let all: usize = expected.values().map(BTreeMap::len).sum();
            assert_eq!(exchange.replica.members().len(), all - tracked.len(), "what {at} keeps");
            assert_eq!(ledger.lock().members().len(), tracked.len());
            assert_eq!(exchange.replica.missing(), Some(0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn i18_k108_when_it_is_quiet_every_node_shows_the_same(steps in proptest::collection::vec(step(), 1..250)) {
        let mut world = World::default();
        (0..3).for_each(|_| world.start());
        steps.iter().for_each(|step| world.run(step));
        world.settle();
        world.check();
    }
}

/// Nodes that know each other and have said everything.
fn quiet(nodes: usize) -> World {
    let mut world = World::default();
    (0..nodes).for_each(|_| world.start());
    world.settle();
    world
}

#[test]
fn a_join_is_one_message_to_everybody() {
    let mut world = quiet(3);
    world.track(0, 0);
    world.run_at(0, &Step::Flush { node: 0 });
    assert_eq!(world.network.len(), 2, "one for each of the others");
    assert!(world.network[0].2.len() < 250, "{}", String::from_utf8_lossy(&world.network[0].2));
    while let Some(message) = world.network.pop() {
        world.hear(message);
    }
    assert!(world.network.is_empty(), "and nobody has anything to say to that");
    world.check();
}

#[test]
fn i3_a_node_that_retires_is_not_seen_leaving() {
    let mut world = quiet(2);
    (0..200).for_each(|_| world.track(0, 0));
    world.run_at(0, &Step::Flush { node: 0 });
    world.settle();
    world.publish(1);
    let before = world.nodes[1].topics["t0"].client.clone();
    assert_eq!(before.len(), 200);
    world.run_at(0, &Step::Bury { node: 0 });
    world.read(0);
    world.look(0);
    while world.nodes[0].exchange.has_more() {
        world.run_at(0, &Step::More { node: 0 });
    }
    let saw_bye = world.network.iter().any(|(_, _, body)| String::from_utf8_lossy(body).contains("\"bye\""));
    assert!(saw_bye && world.network.len() > 3, "a list of several parts, and the end of the old name");
    while !world.network.is_empty() {
        let message = world.network.remove(0);
        world.hear(message);
        assert!(world.nodes[1].topics["t0"].topic.is_told(), "somebody is seen coming or leaving");
    }
    world.read(1);
    world.look(1);
    world.settle();
    world.check();
    assert_eq!(world.nodes[1].topics["t0"].client, before);
}

#[test]
fn a_list_on_its_way_is_given_to_each_who_asks_once() {
    let mut world = quiet(3);
    (0..2_000).for_each(|_| world.track(0, 1));
    // Nobody hears of it in time.
    let lost = world.nodes[0].exchange.flush();
    assert!(lost.len() > 20);
    let life = world.nodes[0].life.clone();
    for node in [1, 2, 1, 2] {
        let at = world.nodes[node].at.clone();
        let ask = wire::short(&life, &Said::Ask { have: 0 });
        let now = world.now();
        let outcome = world.nodes[0].exchange.hear(&at, &ask, now);
        assert!(outcome.changes.is_empty());
        world.send(0, outcome.say);
    }
    let mut said = 0;
    while world.nodes[0].exchange.has_more() {
        let parts = world.nodes[0].exchange.more();
        assert!(parts.len() <= PARTS);
        said += parts.len();
        world.send(0, parts);
    }
    assert!(said < 2 * lost.len() + 4, "{said} parts for {} messages", lost.len());
    world.settle();
    world.check();
}
