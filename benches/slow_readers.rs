//! What readers that stand still cost a server and those who read: the real binary, a thousand readers of one session,
//! of whom fifty read nothing for twenty seconds in the middle of a stream and then go on, while one never reads again.
//!
//! `cargo bench --bench slow_readers` prints, for the time before, during and after, how long an event took from being
//! sent to being read by the others, and what the server holds in memory; it fails if anybody misses an event or sees
//! one twice, or if the one that never reads again is still there after its thirty seconds. `SLOW_READERS`,
//! `SLOW_OTHERS` and `SLOW_SECONDS` are how many stand still (50), how many do not (1,000), and for how long (20).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "a benchmark fails by panicking")]
#![allow(missing_docs, reason = "a program of its own")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{SinkExt as _, StreamExt as _};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    net::{TcpSocket, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_tungstenite::{WebSocketStream, client_async, tungstenite::Message};

/// Messages a second, and how long each is.
const RATE: u64 = 25;
const LENGTH: usize = 3 * 1024;
/// How long the time before lasts.
const BEFORE: Duration = Duration::from_secs(10);
/// How long a client that reads nothing is kept once nothing can be written to it, and how much longer it may take to be
/// gone: the kernel takes some megabytes for it before that.
const STALL: Duration = Duration::from_secs(30);
const GONE: Duration = Duration::from_secs(90);
/// How long anything else may take.
const LIMIT: Duration = Duration::from_secs(120);
const TOPIC: &str = "session:shared";

type Ws = WebSocketStream<TcpStream>;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("raise it with ulimit -n");
    let (still, others) = (number("SLOW_READERS", 50), number("SLOW_OTHERS", 1_000));
    let seconds = Duration::from_secs(number("SLOW_SECONDS", 20));
    let server = Server::start();
    let run = Arc::new(Run::new());
    let mut readers = JoinSet::new();
    for index in 0..others {
        let ws = join(server.address, &format!("other{index}"), false).await;
        readers.spawn(read(ws, run.clone(), Kind::Other));
    }
    for index in 0..still {
        let ws = join(server.address, &format!("still{index}"), true).await;
        readers.spawn(read(ws, run.clone(), Kind::Still));
    }
    readers.spawn(read(join(server.address, "never", true).await, run.clone(), Kind::Never));
    let publisher = tokio::spawn(publish(join(server.address, "publisher", false).await, run.clone()));

    println!("{still} of {} readers stand still for {seconds:?}: {RATE} messages/s of {LENGTH} bytes", still + others);
    tokio::time::sleep(BEFORE).await;
    server.report("before", &run);
    run.stand_still.send_replace(true);
    let stood = Instant::now();
    tokio::time::sleep(seconds).await;
    server.report("they stand still", &run);
    run.stand_still.send_replace(false);
    let again = Instant::now();
    run.caught_up(still).await;
    let behind = again.elapsed();
    server.report("they catch up", &run);
    let gone = server.gone_to(still + others + 1, stood + STALL + GONE).await;
    println!("all of them had everything {behind:.1?} later; the one that never reads was gone after {gone:.1?}");
    run.done.store(true, Ordering::Relaxed);
    publisher.await.unwrap();
    while let Some(read) = readers.join_next().await {
        read.unwrap();
    }
    server.report("after", &run);
}

/// What the clients share.
struct Run {
    began: Instant,
    latencies: Mutex<Vec<u32>>,
    /// The seq of the newest message that was answered.
    said: AtomicU64,
    /// How many of those who stood still hold everything that was said when they went on.
    caught_up: AtomicU64,
    stand_still: watch::Sender<bool>,
    done: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Other,
    Still,
    Never,
}

impl Run {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            latencies: Mutex::default(),
            said: AtomicU64::new(0),
            caught_up: AtomicU64::new(0),
            stand_still: watch::Sender::new(false),
            done: AtomicBool::new(false),
        }
    }

    fn micros(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap()
    }

    async fn caught_up(&self, count: u64) {
        let wait = async {
            while self.caught_up.load(Ordering::Relaxed) < count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(LIMIT, wait).await.expect("they do not catch up");
    }
}

/// The server as a process of its own. It is killed when this is dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_rejoin"));
        command.current_dir(folder.path()).env_clear().stdout(Stdio::piped());
        let mut child = command.args(["--listen", "127.0.0.1:0", "--log-level", "error"]).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("rejoin listening on http://").unwrap().parse().unwrap();
        Self { child, address, _folder: folder }
    }

    /// Resident memory, and the most of it so far, in MiB.
    fn memory(&self) -> (f64, f64) {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).expect("this measures on Linux");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0
        };
        (field("VmRSS:"), field("VmHWM:"))
    }

    /// Prints how long events took since the last report, and what the server holds.
    fn report(&self, phase: &str, run: &Run) {
        let mut latencies = std::mem::take(&mut *run.latencies.lock().unwrap());
        latencies.sort_unstable();
        let at = |part: f64| {
            let index = (latencies.len() as f64 * part) as usize;
            f64::from(*latencies.get(index.min(latencies.len().saturating_sub(1))).unwrap_or(&0)) / 1_000.0
        };
        let (resident, peak) = self.memory();
        println!(
            "{phase:<18} {:>9} events read: p50 {:>6.1} ms, p99 {:>6.1} ms, at most {:>6.1} ms; memory {resident:.1} MiB, \
             at most {peak:.1}; load {}",
            latencies.len(),
            at(0.5),
            at(0.99),
            at(1.0),
            fs::read_to_string("/proc/loadavg").unwrap().split(' ').next().unwrap(),
        );
    }

    /// Waits until there are so many connections; how long ago the others began to stand still.
    async fn gone_to(&self, count: u64, limit: Instant) -> Duration {
        let url = format!("http://{}/api/nodes", self.address);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        loop {
            let nodes = client.get(&url).send().await.unwrap().text().await.unwrap();
            let nodes: Value = serde_json::from_str(&nodes).unwrap();
            if nodes["nodes"][0]["connections"] == count {
                return Instant::now() - (limit - STALL - GONE);
            }
            assert!(Instant::now() < limit, "it is still there: {nodes}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Connects, through a narrow window if it is to be behind soon, and joins.
async fn join(address: SocketAddr, user: &str, narrow: bool) -> Ws {
    let socket = TcpSocket::new_v4().unwrap();
    if narrow {
        socket.set_recv_buffer_size(4 * 1024).unwrap();
    }
    let stream = socket.connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let url = format!("ws://{address}/socket/websocket?vsn=2.0.0&user_id={user}");
    let (mut ws, _) = client_async(url, stream).await.unwrap();
    ws.send(Message::text(json!(["1", "1", TOPIC, "phx_join", {}]).to_string())).await.unwrap();
    loop {
        let text = ws.next().await.unwrap().unwrap().into_text().unwrap();
        if text.contains("phx_reply") {
            assert!(text.contains(r#""status":"ok""#), "{text}");
            return ws;
        }
    }
}

/// Says a message with its time, again and again.
async fn publish(mut ws: Ws, run: Arc<Run>) {
    let (pad, mut pace) =
        ("x".repeat(LENGTH), tokio::time::interval(Duration::from_secs(1) / u32::try_from(RATE).unwrap()));
    while !run.done.load(Ordering::Relaxed) {
        tokio::select! {
            _ = pace.tick() => {
                let text = format!("<{}>{pad}", run.micros());
                let frame = json!(["1", "2", TOPIC, "send", { "text": text, "answer": false }]);
                ws.send(Message::text(frame.to_string())).await.unwrap();
            }
            message = ws.next() => {
                let text = message.unwrap().unwrap().into_text().unwrap();
                if text.contains("phx_reply") {
                    let reply: Value = serde_json::from_str(&text).unwrap();
                    run.said.store(reply[4]["response"]["seq"].as_u64().expect("a refusal"), Ordering::Relaxed);
                }
            }
        }
    }
}

/// Reads to the end, but for the time that one of those who stand still does not, and checks that nothing is missing.
async fn read(mut ws: Ws, run: Arc<Run>, kind: Kind) {
    let (mut at, mut behind) = (None, None);
    let mut orders = run.stand_still.subscribe();
    let mut beat = tokio::time::interval(Duration::from_secs(20));
    while !run.done.load(Ordering::Relaxed) {
        if kind != Kind::Other && *orders.borrow_and_update() {
            orders.changed().await.unwrap();
            while kind == Kind::Never && !run.done.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            behind = Some(run.said.load(Ordering::Relaxed));
        }
        let message = tokio::select! {
            message = ws.next() => message.expect("closed").expect("broken"),
            _ = beat.tick() => {
                ws.send(Message::text(r#"[null,"h","phoenix","heartbeat",{}]"#)).await.unwrap();
                continue;
            }
            _ = orders.changed(), if kind != Kind::Other => {
                orders.mark_changed();
                continue;
            }
        };
        let text = message.into_text().unwrap();
        if text.contains(r#""events",{"prev""#) {
            let last = follow(&text, &mut at, kind, &run);
            if behind.is_some_and(|behind| last >= behind) {
                behind = None;
                run.caught_up.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// Takes in a push of events, which has to fit what came before; the seq of its last.
fn follow(text: &str, at: &mut Option<u64>, kind: Kind, run: &Run) -> u64 {
    if kind == Kind::Other {
        // A push has several events where one commit took several messages.
        for part in text.split("\"<").skip(1) {
            let sent: u64 = part[..part.find('>').unwrap()].parse().unwrap();
            run.latencies.lock().unwrap().push(u32::try_from(run.micros() - sent).unwrap());
        }
        let mut last = between(text, r#""prev":"#, ',');
        assert!(at.is_none_or(|at| at == last), "a gap or a repeat: {last} after {at:?}");
        for part in text.split(r#"{"seq":"#).skip(1) {
            let seq: u64 = part[..part.find(',').unwrap()].parse().unwrap();
            assert_eq!(seq, last + 1, "a gap or a repeat");
            last = seq;
        }
        *at = Some(last);
        return last;
    }
    let push: Value = serde_json::from_str(text).unwrap();
    let prev = push[4]["prev"].as_u64().unwrap();
    assert!(at.is_none_or(|at| at == prev), "a gap or a repeat: {prev} after {at:?}");
    let seqs: Vec<u64> =
        push[4]["events"].as_array().unwrap().iter().map(|event| event["seq"].as_u64().unwrap()).collect();
    assert_eq!(seqs, (prev + 1..=prev + seqs.len() as u64).collect::<Vec<_>>());
    *at = seqs.last().copied();
    at.unwrap_or(prev)
}

fn between(text: &str, start: &str, end: char) -> u64 {
    let rest = &text[text.find(start).unwrap() + start.len()..];
    rest[..rest.find(end).unwrap()].parse().unwrap()
}
