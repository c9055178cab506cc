//! What a durable append costs, end to end: from an agent's delta to the event that subscribers are handed, committed
//! to a real SQLite file with `synchronous=FULL`, or to the Postgres database whose address is in
//! `REJOIN_BENCH_DATABASE` (its sessions, which begin with `bench-`, stay there).
//!
//! `cargo bench --bench durable` prints one line per load: events per second, and the time from delta to delivery.
//! In a closed loop every session's agent says its next word when its last one was delivered; paced, each says twenty
//! words a second whatever happens. `DURABLE_SECONDS` sets the length of each load (5), `DURABLE_SESSIONS` the numbers
//! of sessions (1,100,1000).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "a program of its own")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::StreamExt;
use rejoin::{
    agent::{Agent, Answer, Context, Delta, Output, Registry},
    model::{PartKind, Person, Turn, TurnError, machine::Asker},
    pubsub::{PubSub, Published, Subscriber, Subscription},
    session::{self, Send, Sessions, TurnObserver, Update, topic_of},
    store::{Postgres, Sqlite, Store, postgres, sqlite},
};
use tokio::sync::Semaphore;

/// Fifty words a second and session would be a fast model; twenty flushes a second is what a window of 50 ms makes.
const PACE: Duration = Duration::from_millis(50);
const WORD: &str = "word after word after word ";

#[derive(Default)]
struct Load {
    stop: AtomicBool,
    delivered: AtomicU64,
    latencies: Mutex<Vec<u32>>,
    lanes: Mutex<BTreeMap<String, Arc<Lane>>>,
}

/// One session's agent and what comes back of it.
struct Lane {
    acknowledged: Semaphore,
    said: Mutex<std::collections::VecDeque<Instant>>,
}

struct Talker {
    load: Arc<Load>,
    paced: bool,
}

#[async_trait]
impl Agent for Talker {
    async fn answer(&self, context: Context) -> Result<Answer, TurnError> {
        let lane = self.load.lanes.lock().unwrap()[&context.session.id].clone();
        let (load, paced) = (self.load.clone(), self.paced);
        // Spread over the pace, as real sessions are.
        let spread = Duration::from_micros(u64::from(uuid::Uuid::new_v4().as_fields().0 % 50_000));
        let first = tokio::time::Instant::now() + spread;
        Ok(futures::stream::unfold(0u32, move |said| {
            let (load, lane) = (load.clone(), lane.clone());
            async move {
                if paced {
                    tokio::time::sleep_until(first + PACE * said).await;
                } else {
                    lane.acknowledged.acquire().await.unwrap().forget();
                }
                if load.stop.load(Ordering::Relaxed) {
                    return Some((Ok(Output::Done { usage: None }), said));
                }
                lane.said.lock().unwrap().push_back(Instant::now());
                let delta = Delta { part: 0, kind: PartKind::Text, text: Some(WORD.to_owned()), value: None };
                Some((Ok(Output::Delta(delta)), said + 1))
            }
        })
        .boxed())
    }
}

struct Listener {
    lane: Arc<Lane>,
    load: Arc<Load>,
}

impl Subscriber for Listener {
    fn deliver(&self, message: &Arc<Published>) {
        let text = message.broadcast.payload().as_json().unwrap();
        let deltas = text.matches("\"turn_delta\"").count();
        let mut said = self.lane.said.lock().unwrap();
        let mut latencies = self.load.latencies.lock().unwrap();
        for _ in 0..deltas {
            let Some(at) = said.pop_front() else { return };
            latencies.push(u32::try_from(at.elapsed().as_micros()).unwrap_or(u32::MAX));
            self.load.delivered.fetch_add(1, Ordering::Relaxed);
            self.lane.acknowledged.add_permits(1);
        }
    }
}

struct Nobody;
impl TurnObserver for Nobody {
    fn started(&self, _session: &str, _turn: &Turn) {}
    fn ended(&self, _session: &str, _turn: &Turn) {}
}

fn options() -> session::Options {
    session::Options {
        node_name: "bench".to_owned(),
        exclusive_node_name: false,
        lease_ttl: Duration::from_secs(6),
        lease_renew: Duration::from_secs(1),
        delta_window: Duration::ZERO,
        max_queue: 10,
        agent_idle_timeout: Duration::from_secs(60),
        turn_timeout: Duration::from_secs(600),
        max_message_bytes: 1 << 30,
    }
}

async fn measure(count: usize, paced: bool, seconds: u64) {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = match std::env::var("REJOIN_BENCH_DATABASE") {
        Ok(url) => Arc::new(Postgres::open(&url, &postgres::Options::default()).await.unwrap()),
        Err(_) => {
            let options = sqlite::Options { readers: 4, migrate: true };
            Arc::new(Sqlite::open(&folder.path().join("bench.db"), &options).await.unwrap())
        }
    };
    let run = uuid::Uuid::new_v4().simple().to_string();
    let load = Arc::<Load>::default();
    let talker: Arc<dyn Agent> = Arc::new(Talker { load: load.clone(), paced });
    let agents = Registry::new("talker", BTreeMap::from([("talker".to_owned(), talker)])).unwrap();
    let pubsub = PubSub::new();
    let sessions = Sessions::start(store.clone(), pubsub.clone(), agents, Arc::new(Nobody), options()).await.unwrap();
    let mut subscriptions: Vec<Subscription> = Vec::new();
    for index in 0..count {
        let id = format!("bench-{run}-{index}");
        let lane = Arc::new(Lane { acknowledged: Semaphore::new(1), said: Mutex::default() });
        load.lanes.lock().unwrap().insert(id.clone(), lane.clone());
        sessions.create(&id, Update::default(), true).await.unwrap();
        let listener = Arc::new(Listener { lane, load: load.clone() });
        subscriptions.push(pubsub.subscribe(&topic_of(&id), listener));
    }
    for index in 0..count {
        let asker = Asker { person: Person { id: "u".into(), name: "u".into() }, admin: true };
        let send = Send::parse(r#"{"text":"go"}"#).unwrap();
        sessions.send(&format!("bench-{run}-{index}"), asker, send).await.unwrap().await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.latencies.lock().unwrap().clear();
    let (before, began, cpu) = (load.delivered.load(Ordering::Relaxed), Instant::now(), cpu());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let events = load.delivered.load(Ordering::Relaxed) - before;
    let (elapsed, cpu) = (began.elapsed().as_secs_f64(), self::cpu() - cpu);
    let mut latencies = std::mem::take(&mut *load.latencies.lock().unwrap());
    latencies.sort_unstable();
    let at = |part: f64| {
        let index = (latencies.len() as f64 * part) as usize;
        f64::from(*latencies.get(index.min(latencies.len().saturating_sub(1))).unwrap_or(&0)) / 1_000.0
    };
    println!(
        "{count:>5} sessions {:<11} {:>8.0} events/s   p50 {:>7.2} ms   p99 {:>7.2} ms   {:>5.1} us CPU/event",
        if paced { "paced" } else { "closed loop" },
        events as f64 / elapsed,
        at(0.50),
        at(0.99),
        cpu * 1e6 / (events as f64).max(1.0),
    );
    load.stop.store(true, Ordering::Relaxed);
    load.lanes.lock().unwrap().values().for_each(|lane| lane.acknowledged.add_permits(2));
    sessions.drain().await;
    sessions.shut_down(Duration::from_secs(5)).await;
    store.close().await;
}

/// CPU seconds of this process so far.
fn cpu() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(11) + ticks(12)) / 100.0
}

fn main() {
    let seconds = std::env::var("DURABLE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    let counts = std::env::var("DURABLE_SESSIONS").unwrap_or_else(|_| "1,100,1000".to_owned());
    let counts: Vec<usize> = counts.split(',').map(|count| count.parse().unwrap()).collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for paced in [true, false] {
            for &count in &counts {
                measure(count, paced, seconds).await;
            }
        }
    });
}
