//! What a durable append costs, end to end: from an agent's delta to the event that subscribers are handed, committed
//! to a real SQLite file with `synchronous=FULL`, or to the Postgres database whose address is in
//! `REJOIN_BENCH_DATABASE` (its sessions, which begin with `bench-`, stay there).
//!
//! `cargo bench --bench durable` prints one line per load: events per second, and the time from delta to delivery.
//! In a closed loop every session's agent says its next word when its last one was delivered; paced, each says twenty
//! words a second whatever happens. `DURABLE_SECONDS` sets the length of each load (5), `DURABLE_SESSIONS` the numbers
//! of sessions (1,100,1000), `DURABLE_LOADS` which loads there are (paced,closed).
//!
//! On Postgres, `DURABLE_NODES` (1) are the numbers of nodes that share the load, each a stack of its own in this process:
//! store, bus, sessions. `DURABLE_BUS` is what is between them: nothing (`none`, for one node), `postgres`, which is the
//! default of several, or `nats://…`. With `DURABLE_FOLLOWED=1` every session has a listener on another node too, and the
//! time from the delivery where its turn runs to the delivery there is printed. Beside what
//! this process spends is printed what the processes of the database's server spend, if they are on this machine.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a benchmark fails by panicking"
)]
#![allow(missing_docs, reason = "a program of its own")]

mod load;
mod node;

use std::{
    collections::BTreeMap,
    fmt::Display,
    path::Path,
    str::FromStr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::future::join_all;
use rejoin::{
    agent::{Agent, Registry},
    model::{Person, machine::Asker},
    pubsub::Subscription,
    session::{Send, Update, topic_of},
};

use load::{Follower, Listener, Load, Talk, Talker};
use node::{Node, Place};

/// Sessions that are made at the same time.
const AT_ONCE: usize = 64;

/// One load: who talks how, where.
#[derive(Clone, Copy)]
struct Course {
    sessions: usize,
    nodes: usize,
    paced: bool,
    followed: bool,
    seconds: u64,
}

async fn measure(place: &Place, course: Course) {
    let Course { sessions, paced, followed, seconds, .. } = course;
    let run = uuid::Uuid::new_v4().simple().to_string();
    let load = Arc::<Load>::default();
    let talker: Arc<dyn Agent> = Arc::new(Talker { load: load.clone(), paced });
    let agents = Registry::new("talker", BTreeMap::from([("talker".to_owned(), talker)])).unwrap();
    let nodes =
        join_all((0..course.nodes).map(|number| Node::start(place, number, course.nodes > 1, agents.clone()))).await;
    let mut subscriptions: Vec<Subscription> = Vec::new();
    let ids: Vec<_> = (0..sessions).map(|number| (format!("bench-{run}-{number}"), number % nodes.len())).collect();
    for (id, own) in ids.iter().map(|(id, own)| (id, *own)) {
        let talk = Arc::new(Talk::new(followed));
        load.talks.lock().unwrap().insert(id.clone(), talk.clone());
        let listener = Arc::new(Listener { talk: talk.clone(), load: load.clone() });
        subscriptions.push(nodes[own].pubsub.subscribe(&topic_of(id), listener));
        if followed {
            let follower = Arc::new(Follower { talk, load: load.clone() });
            subscriptions.push(nodes[(own + 1) % nodes.len()].pubsub.subscribe(&topic_of(id), follower));
        }
    }
    for some in ids.chunks(AT_ONCE) {
        join_all(some.iter().map(|(id, own)| begin(&nodes[*own], id))).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    load.latencies.lock().unwrap().clear();
    load.elsewhere.lock().unwrap().clear();
    let (before, began) = (load.delivered.load(Ordering::Relaxed), Instant::now());
    let server = place.server().await;
    let of_server = || server.map_or(0.0, cpu_of_children);
    let (own, database) = (cpu("/proc/self".as_ref()), of_server());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let events = load.delivered.load(Ordering::Relaxed) - before;
    let elapsed = began.elapsed().as_secs_f64();
    let (own, database) = (cpu("/proc/self".as_ref()) - own, of_server() - database);
    let each = |seconds: f64| seconds * 1e6 / (events as f64).max(1.0);
    let latencies = std::mem::take(&mut *load.latencies.lock().unwrap());
    let elsewhere = std::mem::take(&mut *load.elsewhere.lock().unwrap());
    println!(
        "{} node{} {sessions:>5} sessions {:<11} {:>8.0} events/s {}   {:>5.1} us CPU/event{}{}",
        nodes.len(),
        if nodes.len() == 1 { " " } else { "s" },
        if paced { "paced" } else { "closed loop" },
        events as f64 / elapsed,
        parts(latencies),
        each(own),
        server.map(|_| format!(" and {:>5.1} of Postgres", each(database))).unwrap_or_default(),
        if followed {
            format!("   elsewhere {} of {}", parts(elsewhere.clone()), elsewhere.len())
        } else {
            String::new()
        },
    );
    load.stop.store(true, Ordering::Relaxed);
    load.talks.lock().unwrap().values().for_each(|talk| talk.acknowledged.add_permits(2));
    join_all(nodes.into_iter().map(Node::stop)).await;
}

/// Makes a session and asks its agent to talk.
async fn begin(node: &Node, id: &str) {
    node.sessions.create(id, Update::default(), true).await.unwrap();
    let asker = Asker { person: Person { id: "u".into(), name: "u".into() }, admin: true };
    let send = Send::parse(r#"{"text":"go"}"#).unwrap();
    node.sessions.send(id, asker, send).await.unwrap().await.unwrap();
}

/// The median and the tail of what took so many microseconds.
fn parts(mut micros: Vec<u32>) -> String {
    micros.sort_unstable();
    let at = |part: f64| {
        let index = (micros.len() as f64 * part) as usize;
        f64::from(*micros.get(index.min(micros.len().saturating_sub(1))).unwrap_or(&0)) / 1_000.0
    };
    format!("  p50 {:>7.2} ms   p99 {:>7.2} ms", at(0.50), at(0.99))
}

/// CPU seconds so far of all that this server of a database has started.
fn cpu_of_children(server: u32) -> f64 {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    processes.filter(|process| number(&stat(process), 1) == f64::from(server)).map(|process| cpu(&process)).sum()
}

/// CPU seconds of a process so far.
fn cpu(process: &Path) -> f64 {
    let stat = stat(process);
    (number(&stat, 11) + number(&stat, 12)) / 100.0
}

/// What the system says of a process, after its name; nothing of one that has ended.
pub(crate) fn stat(process: &Path) -> String {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
    stat.rsplit(')').next().unwrap_or_default().to_owned()
}

/// One of the numbers of it.
pub(crate) fn number(stat: &str, index: usize) -> f64 {
    stat.split_whitespace().nth(index).and_then(|field| field.parse().ok()).unwrap_or(0.0)
}

/// The values of a variable, or of its default.
fn list<T: FromStr<Err: Display>>(name: &str, default: &str) -> Vec<T> {
    let text = std::env::var(name).unwrap_or_else(|_| default.to_owned());
    text.split(',').map(|value| value.parse().unwrap_or_else(|error| panic!("{name}: {value:?}: {error}"))).collect()
}

fn main() {
    let place = Place::of_environment();
    let (seconds, followed) = (list("DURABLE_SECONDS", "5")[0], list::<u8>("DURABLE_FOLLOWED", "0")[0] == 1);
    let counts: Vec<usize> = list("DURABLE_SESSIONS", "1,100,1000");
    let nodes: Vec<usize> = list("DURABLE_NODES", "1");
    let loads: Vec<String> = list("DURABLE_LOADS", "paced,closed");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for load in &loads {
            for &sessions in &counts {
                for &nodes in &nodes {
                    let paced = load == "paced";
                    let followed = followed && nodes > 1;
                    Box::pin(measure(&place, Course { sessions, nodes, paced, followed, seconds })).await;
                }
            }
        }
    });
}
