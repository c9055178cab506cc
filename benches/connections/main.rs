//! What connections cost a server: memory while they are idle, processor time for each frame that they are sent.
//!
//! `cargo bench --bench connections` takes every measure, each in a fresh process, since an allocator keeps what it
//! once had; `-- memory 10000`, `-- fan-out 1000` and `-- session 1000` take one, `-- memory-sse 1000` and
//! `-- session-sse 1000` the same of readers of event streams. The server is in the measured process
//! and its clients are in a child of that, so that what `/proc/self` and the process's clock say is the server's own;
//! what the kernel keeps for a socket is not in it. Everything is on loopback. `CONNECTIONS_SECONDS` is the length of
//! each load (5). Ten thousand connections need as many open files in each of the two processes: the limit is raised
//! as far as the system allows, `ulimit -Hn` says how far that is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a benchmark fails by panicking")]
#![allow(clippy::print_stdout, reason = "it prints what it measures")]
#![allow(missing_docs, reason = "a program of its own")]

mod clients;
mod fan_out;
mod process;

use std::{
    collections::BTreeMap,
    process::{Command, Stdio},
    time::Duration,
};

use rejoin::{
    agent::Registry,
    config::{Config, Database, Flags, Surroundings},
    model::{Person, machine::Asker},
    server::Server,
    session::Send,
};
use tempfile::TempDir;

use clients::{Clients, Load};
use process::{cpu_seconds, load_average, memory, settled};

/// Connections that come and go before memory is measured, so that what a first connection brings to life is not
/// counted.
const WARM_UP: usize = 20;
/// How many connections share a session while memory is measured.
const IN_A_SESSION: usize = 10;
/// The echo agent's pause before each word.
const WORD: Duration = Duration::from_millis(30);
/// How clients are connected: whether they only listen, what they are called, and the event with which they are in.
type Kind = (bool, &'static str, &'static str);
const WEB_SOCKETS: Kind = (false, "connections", "presence_state");
const EVENT_STREAMS: Kind = (true, "event streams", "joined");
/// How long the server may take to deliver what was asked for.
const LIMIT: Duration = Duration::from_secs(60);

fn main() {
    process::raise_file_limit();
    let given: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let words: Vec<&str> = given.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => every_measure(),
        ["clients", load @ ..] => clients::run(&Load::from_words(load)),
        ["memory", count] => block_on(idle_memory(count.parse().unwrap(), WEB_SOCKETS)),
        ["memory-sse", count] => block_on(idle_memory(count.parse().unwrap(), EVENT_STREAMS)),
        ["fan-out", count] => block_on(fan_out::measure(count.parse().unwrap(), seconds())),
        ["session", count] => block_on(session_events(count.parse().unwrap(), seconds(), WEB_SOCKETS)),
        ["session-sse", count] => block_on(session_events(count.parse().unwrap(), seconds(), EVENT_STREAMS)),
        other => println!(
            "{other:?} names no measure: memory COUNT, memory-sse COUNT, fan-out COUNT, session COUNT, session-sse COUNT"
        ),
    }
}

fn every_measure() {
    for measure in [
        ["memory", "1000"],
        ["memory", "10000"],
        ["memory-sse", "1000"],
        ["fan-out", "1000"],
        ["session", "1000"],
        ["session-sse", "1000"],
    ] {
        let mut child = Command::new(std::env::current_exe().unwrap());
        let status = child.args(measure).stdin(Stdio::null()).status().unwrap();
        assert!(status.success(), "{measure:?} failed");
    }
}

fn seconds() -> u64 {
    std::env::var("CONNECTIONS_SECONDS").map_or(5, |text| text.parse().unwrap())
}

/// As the program itself runs: a worker for each processor.
fn block_on(measure: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(measure);
}

/// A server with the echo agent, all defaults but a free port and a folder of its own.
async fn session_server() -> (Server, TempDir) {
    let folder = TempDir::new().unwrap();
    let around =
        Surroundings { variables: BTreeMap::new(), directory: folder.path().to_owned(), host_name: "bench".to_owned() };
    let mut config = Config::load_in(&Flags::default(), &around).unwrap().config;
    config.listen = "127.0.0.1:0".parse().unwrap();
    config.database = Database::Sqlite(folder.path().join("bench.db"));
    // The clients send no heartbeats, so that an idle connection is one where nothing happens.
    config.idle_timeout = Duration::from_secs(3_600);
    let agents = Registry::build(&config.agent, &config.agents).unwrap();
    (Server::start_with(config, agents).await.unwrap(), folder)
}

/// Resident memory for each connection that has joined a session, has read everything and says nothing.
async fn idle_memory(count: usize, (listens, name, until): Kind) {
    let (server, _folder) = session_server().await;
    let load = |prefix: &str, count| Load {
        address: server.address(),
        count,
        prefix: prefix.to_owned(),
        in_a_topic: IN_A_SESSION,
        listens,
        until: until.to_owned(),
        counted: "events".to_owned(),
        plain: None,
    };
    // Who only listens makes no session.
    for (prefix, count) in [("warm", WARM_UP), ("s", count)] {
        make_sessions(&server, prefix, count.div_ceil(IN_A_SESSION)).await;
    }
    Clients::start(&load("session:warm", WARM_UP)).await.stop().await;
    while server.connections().count() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = settled().await;
    let mut clients = Clients::start(&load("session:s", count)).await;
    let after = settled().await;
    assert_eq!(server.connections().count(), count);
    let each = |before: u64, after: u64| after.saturating_sub(before) as f64 / count as f64;
    println!(
        "memory   {count:>6} idle {name} on {} sessions: {:>5.2} KiB resident each ({:.2} of it anonymous), \
         {:.1} MiB in all; load {}",
        count.div_ceil(IN_A_SESSION),
        each(before.resident, after.resident),
        each(before.anonymous, after.anonymous),
        memory().resident as f64 / 1024.0,
        load_average(),
    );
    assert_eq!(clients.counts().await.broken, 0);
    clients.stop().await;
}

/// Processor time for each `events` frame that is delivered while one session's answer streams to many.
async fn session_events(count: usize, seconds: u64, (listens, name, until): Kind) {
    let (server, _folder) = session_server().await;
    let load = Load {
        address: server.address(),
        count,
        prefix: "session:shared".to_owned(),
        in_a_topic: count,
        listens,
        until: until.to_owned(),
        counted: "events".to_owned(),
        plain: None,
    };
    make_sessions(&server, "shared", 1).await;
    let mut clients = Clients::start(&load).await;
    settled().await;
    let words = Duration::from_secs(seconds).as_millis() / WORD.as_millis();
    let prompt = vec!["word"; usize::try_from(words).unwrap()].join(" ");
    let (cpu, began) = (cpu_seconds(), std::time::Instant::now());
    let send = Send::parse(&serde_json::json!({ "text": prompt }).to_string()).unwrap();
    let asker = Asker { person: Person { id: "bench".to_owned(), name: "Bench".to_owned() }, admin: true };
    server.sessions().send("shared0", asker, send).await.unwrap().await.unwrap();
    let frames = delivered(&mut clients, &server).await;
    let (cpu, elapsed) = (cpu_seconds() - cpu, began.elapsed().as_secs_f64());
    println!(
        "session  {count:>6} {name} on one, {:.0} events frames/s: {:>5.2} us of processor time a frame; load {}",
        frames as f64 / elapsed,
        cpu * 1e6 / frames as f64,
        load_average(),
    );
    clients.stop().await;
}

async fn make_sessions(server: &Server, prefix: &str, count: usize) {
    for n in 0..count {
        server.sessions().create(&format!("{prefix}{n}"), Default::default(), true).await.unwrap();
    }
}

/// Waits until the answer has ended and everybody has its last frame. How many frames were delivered.
async fn delivered(clients: &mut Clients, server: &Server) -> u64 {
    let wait = async {
        let mut before = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let counts = clients.counts().await;
            assert_eq!(counts.broken, 0);
            if counts.counted > 0 && counts.counted == before && server.sessions().running_sessions().is_empty() {
                return before;
            }
            before = counts.counted;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("the answer did not end in time")
}
