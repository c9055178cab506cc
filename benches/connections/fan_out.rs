//! Processor time for each frame of a broadcast, beside that of the writes alone.
//!
//! The same bytes go to as many connections in two ways, second by second in turn, so that whatever else the machine
//! does falls on both: through a channel, and by one blocking `write` for each plain socket, which is the least that a
//! server can do. Both are read by the same clients in the same way.

use std::{
    io::Write as _,
    net::{TcpListener, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use rejoin::{
    auth::Identity,
    channel::{Channel, Context, Host, Joined, Next, Options, Refusal, Router},
    protocol::{Payload, Reply},
    pubsub::PubSub,
    transport,
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use crate::{
    clients::{Clients, Load, PACE},
    process::{cpu_seconds, load_average, settled},
};

/// The size of the payload that is broadcast.
const PAYLOAD: usize = 200;
/// Broadcasts that are made at once.
const BURSTS: [u64; 2] = [1, 8];
/// Bursts in a second.
const IN_A_SECOND: u64 = 50;
/// How long everything may take to arrive.
const LIMIT: Duration = Duration::from_secs(30);

/// Shouts what it is told to everybody.
struct Shouting;

#[derive(Deserialize)]
struct Shout {
    times: u64,
}

#[async_trait]
impl Channel for Shouting {
    async fn join(&mut self, _: &mut Context, _: Payload) -> Result<Joined, Refusal> {
        Ok(Joined::default())
    }

    async fn handle_in(&mut self, cx: &mut Context, _: &str, payload: Payload) -> Next {
        for _ in 0..payload.parse::<Shout>().unwrap().times {
            cx.broadcast("said", Payload::raw(said()));
        }
        Next::Reply(Reply::ok(Payload::empty()))
    }
}

fn said() -> String {
    let around = r#"{"text":""}"#.len();
    format!(r#"{{"text":"{}"}}"#, "x".repeat(PAYLOAD - around))
}

/// The frame of one broadcast, byte for byte as a client is sent it.
fn frame() -> Vec<u8> {
    let text = format!(r#"[null,null,"shout:0","said",{}]"#, said());
    let mut frame = vec![0x81, 126];
    frame.extend(u16::try_from(text.len()).unwrap().to_be_bytes());
    frame.extend(text.as_bytes());
    frame
}

/// Broadcasts to `count` connections for so many seconds, alone and in bursts.
pub(crate) async fn measure(count: usize, seconds: u64) {
    let shutdown = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let plain = TcpListener::bind("127.0.0.1:0").unwrap();
    let load = Load {
        address: listener.local_addr().unwrap(),
        count,
        prefix: "shout:".to_owned(),
        in_a_topic: count,
        listens: false,
        until: "phx_reply".to_owned(),
        counted: "said".to_owned(),
        plain: Some(plain.local_addr().unwrap()),
    };
    let state = state();
    let (routes, lobby) = (transport::routes(state.clone()), state.lobby().clone());
    let server = tokio::spawn(transport::serve(listener, routes, lobby, shutdown.clone()));
    let mut clients = Clients::begin(&load);
    let mut sockets = tokio::task::spawn_blocking(move || accept(&plain, count)).await.unwrap();
    clients.joined().await;
    settled().await;
    for burst in BURSTS {
        let (mut channel, mut floor) = (0.0, 0.0);
        for _ in 0..seconds {
            sockets = plain_second(&mut clients, sockets, burst, &mut floor).await;
            channel_second(&mut clients, count, burst, &mut channel).await;
        }
        print(count, burst, channel, floor, seconds * IN_A_SECOND * burst * count as u64);
    }
    clients.stop().await;
    shutdown.cancel();
    server.await.unwrap();
}

fn print(count: usize, burst: u64, channel: f64, floor: f64, frames: u64) {
    let each = |spent: f64| spent * 1e6 / frames as f64;
    println!(
        "fan-out  {count:>6} connections, {IN_A_SECOND}/s bursts of {burst} ({PAYLOAD} bytes): {:>5.2} us of processor \
         time a frame, {:.2} for the write alone, ratio {:.2}; load {}",
        each(channel),
        each(floor),
        channel / floor,
        load_average(),
    );
}

fn state() -> transport::State {
    let router = Router::new().route("shout:*", || Box::new(Shouting));
    let host = Host::new(router, PubSub::new(), Options::default());
    let connect: transport::Connect = Arc::new(|client| {
        Identity::open(client.get("user_id"), client.get("name")).map_err(|_| transport::Refused::default()).into()
    });
    // The clients send no heartbeats.
    let options = transport::Options { idle_timeout: Duration::from_secs(3_600), ..transport::Options::default() };
    transport::State::new(host, connect, options)
}

/// One second of broadcasts through the channel; adds the processor time until everybody has them.
async fn channel_second(clients: &mut Clients, count: usize, burst: u64, spent: &mut f64) {
    let expected = clients.counts().await.counted + IN_A_SECOND * burst * count as u64;
    let before = cpu_seconds();
    clients.push("shout", IN_A_SECOND, &format!(r#"{{"times":{burst}}}"#)).await;
    arrived(clients, expected, |counts| counts.counted).await;
    *spent += cpu_seconds() - before;
}

/// One second of the same bytes by plain writes.
async fn plain_second(clients: &mut Clients, sockets: Vec<TcpStream>, burst: u64, spent: &mut f64) -> Vec<TcpStream> {
    let expected = clients.counts().await.plain + IN_A_SECOND * burst * sockets.len() as u64;
    let bytes = frame().repeat(usize::try_from(burst).unwrap());
    let before = cpu_seconds();
    let sockets = tokio::task::spawn_blocking(move || write(sockets, &bytes)).await.unwrap();
    arrived(clients, expected, |counts| counts.plain).await;
    *spent += cpu_seconds() - before;
    sockets
}

/// Accepts as many plain connections and greets each with an empty ping, which nobody counts.
fn accept(listener: &TcpListener, count: usize) -> Vec<TcpStream> {
    let accepted = (0..count).map(|_| {
        let mut socket = listener.accept().unwrap().0;
        socket.set_nodelay(true).unwrap();
        socket.write_all(&[0x89, 0]).unwrap();
        socket
    });
    accepted.collect()
}

fn write(sockets: Vec<TcpStream>, bytes: &[u8]) -> Vec<TcpStream> {
    let mut due = Instant::now();
    for _ in 0..IN_A_SECOND {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += PACE;
        for mut socket in &sockets {
            assert_eq!(socket.write(bytes).unwrap(), bytes.len());
        }
    }
    sockets
}

async fn arrived(clients: &mut Clients, expected: u64, seen: impl Fn(&crate::clients::Counts) -> u64) {
    let wait = async {
        loop {
            let counts = clients.counts().await;
            assert_eq!(counts.broken, 0);
            assert!(seen(&counts) <= expected, "more has arrived than was sent");
            if seen(&counts) == expected {
                return;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.expect("some frames have not arrived");
}
