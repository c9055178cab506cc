//! Everything at once: people who send, cancel, interrupt and retry at any node, while nodes are killed, frozen, cut
//! off, drained and declared dead by chance. `STORM_SECONDS` makes it longer.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::support::{
    chance::Chance,
    fleet::{Caller, Fleet, Plan, Sql},
    recorder::Recorder,
};

const NODES: usize = 4;
const SESSIONS: usize = 6;

fn pick(chance: &mut Chance, end: usize) -> usize {
    usize::try_from(chance.below(u64::try_from(end).unwrap())).unwrap()
}

fn up_to(chance: &mut Chance, ms: u64) -> Duration {
    Duration::from_millis(chance.below(ms))
}

/// A person in one session.
struct Person {
    session: String,
    caller: Caller,
    chance: Chance,
    /// Sends that were not answered yet: repeated as they were.
    open: VecDeque<Value>,
    /// What was answered: by the id of the send, its turn.
    answered: BTreeMap<String, String>,
    turns: Vec<String>,
}

impl Person {
    fn new(number: usize, caller: &Caller, chance: Chance) -> Self {
        Self {
            session: format!("s{number}"),
            caller: caller.clone(),
            chance,
            open: VecDeque::new(),
            answered: BTreeMap::new(),
            turns: Vec::new(),
        }
    }

    /// Does this and that until it is told to stop, then says again whatever was not answered.
    async fn live(mut self, stop: &AtomicBool) -> Self {
        while !stop.load(Ordering::Relaxed) {
            match self.chance.below(10) {
                0..7 => self.send().await,
                7..9 => self.about_a_turn("cancel").await,
                _ => self.about_a_turn("retry").await,
            }
            sleep(up_to(&mut self.chance, 250)).await;
        }
        while !self.open.is_empty() {
            self.say().await;
            sleep(Duration::from_millis(20)).await;
        }
        self
    }

    async fn send(&mut self) {
        let words = "word ".repeat(1 + pick(&mut self.chance, 40));
        let busy = ["queue", "queue", "queue", "interrupt", "reject"][pick(&mut self.chance, 5)];
        self.open.push_back(json!({ "id": rejoin::ids::fresh(), "text": words, "when_busy": busy }));
        self.say().await;
    }

    /// Sends the oldest of what is open to any node.
    async fn say(&mut self) {
        let Some(body) = self.open.pop_front() else { return };
        let path = format!("{}/messages", self.session);
        match self.caller.try_post(pick(&mut self.chance, NODES), &path, body.clone()).await {
            Some((202, answer)) => {
                let turn = answer["turn_id"].as_str().unwrap().to_owned();
                let id = body["id"].as_str().unwrap().to_owned();
                assert_eq!(answer["message_id"], id.as_str(), "{answer}");
                self.turns.push(turn.clone());
                self.answered.insert(id, turn);
            }
            Some((409, answer)) => assert_eq!(answer["code"], "busy", "{answer}"),
            Some((503, _)) | None => self.open.push_back(body),
            Some((status, answer)) => panic!("{status} {answer}"),
        }
    }

    /// Cancels or retries one of the latest turns, at any node.
    async fn about_a_turn(&mut self, what: &str) {
        let latest = self.turns.len().min(4);
        if latest == 0 {
            return;
        }
        let turn = self.turns[self.turns.len() - 1 - pick(&mut self.chance, latest)].clone();
        let path = format!("{}/turns/{turn}/{what}", self.session);
        match self.caller.try_post(pick(&mut self.chance, NODES), &path, json!({})).await {
            Some((200..300, answer)) if what == "retry" => {
                self.turns.push(answer["turn_id"].as_str().unwrap().to_owned());
            }
            // A turn that has not ended cannot be retried.
            Some((200..300 | 400 | 409 | 503, _)) | None => {}
            Some((status, answer)) => panic!("{what}: {status} {answer}"),
        }
    }
}

/// One fault of one node, or of the bus, from its beginning to its end.
async fn fault(cluster: &mut Fleet, sql: &mut Sql, chance: &mut Chance) -> &'static str {
    let (node, pause) = (pick(chance, NODES), up_to(chance, 3_500));
    match chance.below(10) {
        0 => {
            cluster.kill(node).await;
            sleep(pause).await;
            cluster.launch(node).await;
            "kill"
        }
        1 => {
            cluster.signal(node, "STOP").await;
            sleep(pause).await;
            cluster.signal(node, "CONT").await;
            "freeze"
        }
        2 => {
            cluster.lose_store(node, true);
            sleep(pause).await;
            cluster.lose_store(node, false);
            "store cut"
        }
        3 => {
            cluster.nodes[node].store.go_silent(true);
            sleep(pause).await;
            cluster.nodes[node].store.go_silent(false);
            "store silent"
        }
        4 => {
            cluster.lose_bus(node, true);
            sleep(pause).await;
            cluster.lose_bus(node, false);
            "bus cut"
        }
        5 => {
            cluster.clients(node).go_silent(true);
            sleep(pause).await;
            cluster.clients(node).go_silent(false);
            cluster.clients(node).cut();
            "clients silent"
        }
        6 => {
            cluster.signal(node, "TERM").await;
            assert_eq!(cluster.take(node).ended().await.code(), Some(0));
            cluster.launch(node).await;
            "drain"
        }
        7 => {
            let name = &cluster.nodes[node].name;
            sql.run(&format!("UPDATE nodes SET state = 'dead' WHERE name = '{name}' AND state = 'live'")).await;
            "tombstone"
        }
        8 => {
            let nats = cluster.nats.as_mut().unwrap();
            nats.kill();
            sleep(pause / 2).await;
            nats.start_again();
            "bus restart"
        }
        _ => {
            (0..NODES).for_each(|node| cluster.lose_store(node, true));
            sleep(pause).await;
            (0..NODES).for_each(|node| cluster.lose_store(node, false));
            "outage"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_whom_every_turn_ends_once_and_every_client_holds_the_log() {
    let seconds = std::env::var("STORM_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(40);
    let mut chance = Chance::new("storm");
    let plan = Plan { ttl: Duration::from_millis(1_500), ..Plan::short(NODES) };
    let plan = plan.nats().echo("10ms").with(&["--max-queue", "1000", "--drain-timeout", "2s"]);
    let mut cluster = Fleet::start(plan).await;
    let mut recorders = Vec::new();
    for number in 0..2 * SESSIONS {
        let around: Vec<usize> = (0..NODES).map(|node| (node + number) % NODES).collect();
        let (session, user) = (format!("s{}", number % SESSIONS), format!("u{number}"));
        recorders.push(Recorder::start(&cluster, &around, &session, &user).await);
    }
    let (stop, caller, until) =
        (AtomicBool::new(false), cluster.caller(), Instant::now() + Duration::from_secs(seconds));
    let people: Vec<_> = (0..SESSIONS).map(|number| Person::new(number, &caller, chance.fork()).live(&stop)).collect();
    let weather = async {
        let (mut sql, mut faults) = (cluster.sql().await, BTreeMap::<_, usize>::new());
        while Instant::now() < until {
            *faults.entry(fault(&mut cluster, &mut sql, &mut chance).await).or_default() += 1;
            sleep(up_to(&mut chance, 1_500)).await;
        }
        stop.store(true, Ordering::Relaxed);
        faults
    };
    let (people, faults) = tokio::join!(join_all(people), weather);
    println!("{faults:?}");
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
    let mut sql = cluster.sql().await;
    let kept: BTreeMap<String, String> =
        pairs(&mut sql, "SELECT prompt_id || ' ' || id FROM turns WHERE attempt = 1").await;
    let messages = sql.number("SELECT count(*) FROM messages WHERE id IN (SELECT prompt_id FROM turns)").await;
    assert_eq!(usize::try_from(messages).unwrap(), kept.len(), "each prompt is there once");
    let mut answered = 0;
    for person in &people {
        answered += person.answered.len();
        for (id, turn) in &person.answered {
            assert_eq!(kept.get(id), Some(turn), "an answered send is kept as it was answered");
        }
    }
    let ends = "SELECT status || coalesce(' ' || (row::json ->> 'reason'), '') || coalesce(' ' || (row::json -> 'error'
        ->> 'code'), '') || ' ' || count(*) FROM turns GROUP BY status, row::json ->> 'reason', row::json -> 'error' ->> 'code'";
    println!("{answered} sends answered; {:?}", sql.texts(ends).await);
    assert_eq!(answered, kept.len(), "nothing was made of a send that was refused");
}

async fn pairs(sql: &mut Sql, query: &str) -> BTreeMap<String, String> {
    let pair = |line: String| line.split_once(' ').map(|(id, turn)| (id.to_owned(), turn.to_owned())).unwrap();
    sql.texts(query).await.into_iter().map(pair).collect()
}
