//! Many clients in a child process: they join, and then read and count.
//!
//! They speak just enough of the protocol, and drop what they read, so that they take little of the processor time
//! that they share with the server. The child takes commands on its standard input, one a line, and answers each with
//! one line; it ends with its input.

use std::{
    io::{self, BufRead as _, Write as _},
    net::SocketAddr,
    process::Stdio,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::{Mutex, Semaphore},
};

/// Clients that are about to join at the same time.
const JOINING: usize = 50;
/// The pause between the pushes of a publisher.
pub(crate) const PACE: Duration = Duration::from_millis(20);
/// How long the child may take for anything.
const LIMIT: Duration = Duration::from_secs(180);
/// A push starts with its refs, topic and event: no more of it is looked at.
const HEAD: usize = 160;

/// What the clients do.
pub(crate) struct Load {
    /// The server.
    pub(crate) address: SocketAddr,
    /// How many there are.
    pub(crate) count: usize,
    /// Topics are named by this and a number.
    pub(crate) prefix: String,
    /// How many join each topic.
    pub(crate) in_a_topic: usize,
    /// Whether they listen to event streams instead of joining over WebSockets. Then nobody can push.
    pub(crate) listens: bool,
    /// The event with which a client counts as joined.
    pub(crate) until: String,
    /// The event that is counted from then on.
    pub(crate) counted: String,
    /// Where as many plain connections go, which are read and counted alike.
    pub(crate) plain: Option<SocketAddr>,
}

impl Load {
    fn words(&self) -> Vec<String> {
        let mut words = vec![
            self.address.to_string(),
            self.count.to_string(),
            self.prefix.clone(),
            self.in_a_topic.to_string(),
            self.listens.to_string(),
            self.until.clone(),
            self.counted.clone(),
        ];
        words.extend(self.plain.map(|address| address.to_string()));
        words
    }

    pub(crate) fn from_words(words: &[&str]) -> Self {
        Self {
            address: words[0].parse().unwrap(),
            count: words[1].parse().unwrap(),
            prefix: words[2].to_owned(),
            in_a_topic: words[3].parse().unwrap(),
            listens: words[4].parse().unwrap(),
            until: words[5].to_owned(),
            counted: words[6].to_owned(),
            plain: words.get(7).map(|address| address.parse().unwrap()),
        }
    }
}

/// What the clients have seen.
pub(crate) struct Counts {
    /// Messages of the counted event.
    pub(crate) counted: u64,
    /// The same on the plain connections.
    pub(crate) plain: u64,
    /// Connections that ended.
    pub(crate) broken: u64,
}

/// The child process as the server's side sees it. It is killed when this is dropped.
pub(crate) struct Clients {
    child: Child,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
}

impl Clients {
    /// Starts the child and waits until all its clients have joined.
    pub(crate) async fn start(load: &Load) -> Self {
        let mut clients = Self::begin(load);
        clients.joined().await;
        clients
    }

    /// Starts the child; [`Clients::joined`] is to be awaited.
    pub(crate) fn begin(load: &Load) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("clients").args(load.words()).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let commands = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, commands, answers }
    }

    /// Waits until all clients have joined.
    pub(crate) async fn joined(&mut self) {
        assert_eq!(self.answer().await, "joined");
    }

    /// The first client pushes an event so many times, at [`PACE`].
    pub(crate) async fn push(&mut self, event: &str, times: u64, payload: &str) {
        self.ask(&format!("push {event} {times} {payload}")).await;
    }

    /// What they have seen so far.
    pub(crate) async fn counts(&mut self) -> Counts {
        let answer = self.ask("count").await;
        let mut numbers = answer.split(' ').map(|number| number.parse().unwrap());
        let mut next = || numbers.next().unwrap();
        Counts { counted: next(), plain: next(), broken: next() }
    }

    /// Ends the child, and with it its connections.
    pub(crate) async fn stop(self) {
        let Self { mut child, commands, answers } = self;
        drop((commands, answers));
        assert!(child.wait().await.unwrap().success());
    }

    async fn ask(&mut self, command: &str) -> String {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
        self.answer().await
    }

    async fn answer(&mut self) -> String {
        let line = tokio::time::timeout(LIMIT, self.answers.next_line()).await.expect("the clients are late");
        line.unwrap().expect("the clients have ended")
    }
}

/// What the tasks of the child share.
struct Shared {
    load: Load,
    joining: Semaphore,
    joined: Semaphore,
    counted: AtomicU64,
    plain: AtomicU64,
    broken: AtomicU64,
    /// What the first client writes to.
    publisher: OnceLock<Mutex<OwnedWriteHalf>>,
}

/// The child's whole life.
pub(crate) fn run(load: &Load) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let shared = Arc::new(Shared {
        load: Load::from_words(&load.words().iter().map(String::as_str).collect::<Vec<_>>()),
        joining: Semaphore::new(JOINING),
        joined: Semaphore::new(0),
        counted: AtomicU64::new(0),
        plain: AtomicU64::new(0),
        broken: AtomicU64::new(0),
        publisher: OnceLock::new(),
    });
    runtime.block_on(serve(shared));
}

async fn serve(shared: Arc<Shared>) {
    let count = shared.load.count;
    for index in 0..count {
        if shared.load.listens {
            tokio::spawn(listener(Arc::clone(&shared), index));
        } else {
            tokio::spawn(client(Arc::clone(&shared), index));
        }
        if let Some(address) = shared.load.plain {
            tokio::spawn(plain_client(Arc::clone(&shared), address));
        }
    }
    let all = if shared.load.plain.is_some() { 2 * count } else { count };
    shared.joined.acquire_many(u32::try_from(all).unwrap()).await.unwrap().forget();
    say("joined");
    // Standard input blocks, so it is read beside the clients.
    let (lines, mut commands) = tokio::sync::mpsc::channel(1);
    std::thread::spawn(move || io::stdin().lock().lines().try_for_each(|line| lines.blocking_send(line.unwrap())));
    while let Some(command) = commands.recv().await {
        match command.splitn(4, ' ').collect::<Vec<_>>().as_slice() {
            ["count"] => {
                let get = |count: &AtomicU64| count.load(Ordering::Relaxed);
                say(&format!("{} {} {}", get(&shared.counted), get(&shared.plain), get(&shared.broken)));
            }
            ["push", event, times, payload] => publish(&shared, event, times.parse().unwrap(), payload).await,
            other => panic!("{other:?} is no command"),
        }
    }
}

fn say(line: &str) {
    println!("{line}");
    io::stdout().flush().unwrap();
}

async fn publish(shared: &Shared, event: &str, times: u64, payload: &str) {
    let frame = frame(&format!(r#"["1","9","{}0","{event}",{payload}]"#, shared.load.prefix));
    let mut publisher = shared.publisher.get().unwrap().lock().await;
    let mut pace = tokio::time::interval(PACE);
    for _ in 0..times {
        pace.tick().await;
        publisher.write_all(&frame).await.unwrap();
    }
    say("pushed");
}

async fn client(shared: Arc<Shared>, index: usize) {
    let joining = shared.joining.acquire().await.unwrap();
    let (mut read, mut write) = connect(shared.load.address).await.into_split();
    upgrade(&mut read, &mut write, index).await;
    let topic = format!("{}{}", shared.load.prefix, index / shared.load.in_a_topic);
    write.write_all(&frame(&format!(r#"["1","1","{topic}","phx_join",{{}}]"#))).await.unwrap();
    let (until, counted) = (needle(&shared.load.until), needle(&shared.load.counted));
    let mut frames = Frames::default();
    let mut joined = false;
    loop {
        frames.read(&read, |text| {
            assert!(!has(text, br#""phx_reply",{"status":"error""#), "a join was refused");
            joined |= has(text, until.as_bytes());
        });
        if joined {
            break;
        }
        read.readable().await.unwrap();
    }
    if index == 0 {
        assert!(shared.publisher.set(Mutex::new(write)).is_ok());
    } else {
        // Dropping this half would say that nothing more is sent.
        write.forget();
    }
    drop(joining);
    shared.joined.add_permits(1);
    count(&shared, &read, frames, &counted, &shared.counted).await;
}

/// Reads an event stream. What it is sent is not taken apart: names of events are found where they stand.
async fn listener(shared: Arc<Shared>, index: usize) {
    let joining = shared.joining.acquire().await.unwrap();
    let (read, mut write) = connect(shared.load.address).await.into_split();
    let topic = format!("{}{}", shared.load.prefix, index / shared.load.in_a_topic);
    let request = format!(
        "GET /api/sessions/{}/events?user_id=user-{index}&name=User%20{index} HTTP/1.1\r\nHost: localhost\r\n\
         Accept: text/event-stream\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)\r\n\
         Accept-Language: en\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nCache-Control: no-cache\r\n\r\n",
        topic.strip_prefix("session:").unwrap()
    );
    write.write_all(request.as_bytes()).await.unwrap();
    write.forget();
    let line = |event: &str| format!("\nevent: {event}\ndata: ").into_bytes();
    let mut joined = Needle::new(line(&shared.load.until));
    let mut events = Needle::new(line(&shared.load.counted));
    let (mut waits, mut buffer) = (Some(joining), [0; 4096]);
    loop {
        match read.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                let found = events.count(&buffer[..length]);
                shared.counted.fetch_add(found, Ordering::Relaxed);
                if waits.is_some() && joined.count(&buffer[..length]) > 0 {
                    waits = None;
                    shared.joined.add_permits(1);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if read.readable().await.is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    shared.broken.fetch_add(1, Ordering::Relaxed);
}

/// Finds some bytes in what is read in pieces.
struct Needle {
    bytes: Vec<u8>,
    /// The end of what was read before, too short to hold it.
    tail: Vec<u8>,
}

impl Needle {
    fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, tail: Vec::new() }
    }

    fn count(&mut self, piece: &[u8]) -> u64 {
        self.tail.extend(piece);
        let found = self.tail.windows(self.bytes.len()).filter(|window| *window == self.bytes).count();
        let rest = self.tail.len().saturating_sub(self.bytes.len() - 1);
        self.tail.drain(..rest);
        found as u64
    }
}

async fn plain_client(shared: Arc<Shared>, address: SocketAddr) {
    let joining = shared.joining.acquire().await.unwrap();
    let (read, write) = connect(address).await.into_split();
    write.forget();
    // Greeted once it is accepted: more that wait for that than a listener's queue holds would be stuck.
    read.readable().await.unwrap();
    drop(joining);
    shared.joined.add_permits(1);
    count(&shared, &read, Frames::default(), &needle(&shared.load.counted), &shared.plain).await;
}

/// Reads to the end of the connection and counts.
async fn count(shared: &Shared, read: &OwnedReadHalf, mut frames: Frames, counted: &str, count: &AtomicU64) {
    while frames.read(read, |text| _ = count.fetch_add(u64::from(has(text, counted.as_bytes())), Ordering::Relaxed)) {
        if read.readable().await.is_err() {
            break;
        }
    }
    shared.broken.fetch_add(1, Ordering::Relaxed);
}

async fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).await.expect("a connection was refused: raise ulimit -n?");
    stream.set_nodelay(true).unwrap();
    stream
}

/// The head of a request is about as long as a browser's.
async fn upgrade(read: &mut OwnedReadHalf, write: &mut OwnedWriteHalf, index: usize) {
    let request = format!(
        "GET /socket/websocket?vsn=2.0.0&user_id=user-{index}&name=User%20{index} HTTP/1.1\r\nHost: localhost\r\n\
         Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0)\r\n\
         Accept-Language: en\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nCache-Control: no-cache\r\n\r\n"
    );
    write.write_all(request.as_bytes()).await.unwrap();
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        response.push(read.read_u8().await.expect("the server closed the connection"));
    }
    assert!(response.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&response));
}

/// A client's frame. Its mask is zero, which leaves the text as it is.
fn frame(text: &str) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("a push is short");
    let mut frame = vec![0x81, 0x80 | 126];
    frame.extend(length.to_be_bytes());
    frame.extend([0; 4]);
    frame.extend(text.as_bytes());
    frame
}

/// An event as it stands in a message.
fn needle(event: &str) -> String {
    format!(",\"{event}\",")
}

fn has(text: &[u8], needle: &[u8]) -> bool {
    text[..text.len().min(HEAD)].windows(needle.len()).any(|window| window == needle)
}

/// A server's frames, cut out of what is read.
#[derive(Default)]
struct Frames {
    /// The beginning of a frame whose end is still to come.
    pending: Vec<u8>,
}

impl Frames {
    /// Takes what is there to be read, and shows the first frame of each text message. Whether there may be more.
    fn read(&mut self, stream: &OwnedReadHalf, mut show: impl FnMut(&[u8])) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match stream.try_read(&mut buffer) {
                Ok(0) => return false,
                Ok(length) => self.take(&buffer[..length], &mut show),
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
    }

    fn take(&mut self, bytes: &[u8], show: &mut impl FnMut(&[u8])) {
        if self.pending.is_empty() {
            let used = scan(bytes, show);
            self.pending.extend(&bytes[used..]);
            return;
        }
        self.pending.extend(bytes);
        let used = scan(&self.pending, show);
        self.pending.drain(..used);
    }
}

/// Goes over the whole frames at the beginning of `bytes`; how long they are.
fn scan(bytes: &[u8], show: &mut impl FnMut(&[u8])) -> usize {
    let mut used = 0;
    while let Some((header, length)) = header(&bytes[used..]) {
        let end = used + header + length;
        let Some(payload) = bytes.get(used + header..end) else { break };
        if bytes[used] & 0x0f == 1 {
            show(payload);
        }
        used = end;
    }
    used
}

/// How long a frame's header and its payload are, once the header is whole.
fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    match *bytes.get(1)? {
        127 => Some((10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?)),
        126 => Some((4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)))),
        short => Some((2, usize::from(short))),
    }
}
