//! A TCP proxy that fails as networks do: it cuts, delays, goes silent with the connection open, and loses the answer to
//! something that has arrived.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
    task::JoinHandle,
};

/// What a proxy does with what comes through it.
#[derive(Debug, Clone, Default)]
struct Weather {
    /// The port that new connections are led to.
    target: u16,
    /// Raised to end every connection that is open then.
    cuts: u64,
    /// Whether bytes are taken and go nowhere, with the connections open.
    silent: bool,
    /// Whether new connections are ended at once.
    refuses: bool,
    /// How long bytes wait in either direction.
    delay: Duration,
}

/// What is done to the connection on which a client says all of `steps`, one after the other.
#[derive(Debug)]
struct Trap {
    steps: Vec<Vec<u8>>,
    /// How many of them each connection has said.
    said: HashMap<u64, usize>,
    /// Whether the last of them arrives; its answer is lost either way.
    arrives: bool,
    /// Whether new connections are ended from then on.
    shuts: bool,
}

impl Trap {
    /// Takes in what a connection says; whether that was all of it.
    fn hears(&mut self, connection: u64, bytes: &[u8]) -> bool {
        let said = self.said.entry(connection).or_default();
        while let Some(step) = self.steps.get(*said)
            && bytes.windows(step.len().max(1)).any(|part| part == step.as_slice())
        {
            *said += 1;
        }
        *said == self.steps.len()
    }
}

/// A proxy in front of one port of this machine. Dropping it ends every connection.
pub(crate) struct TcpProxy {
    port: u16,
    weather: watch::Sender<Weather>,
    /// Taken out when it has snapped.
    trap: Arc<Mutex<Option<Trap>>>,
    /// How many traps have snapped and have lost what they were to lose.
    lost: watch::Sender<u64>,
    task: JoinHandle<()>,
}

impl TcpProxy {
    /// A proxy in front of `target`.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = watch::Sender::new(Weather { target, ..Weather::default() });
        let (trap, lost) = (Arc::<Mutex<Option<Trap>>>::default(), watch::Sender::new(0));
        let (changes, traps, losses) = (weather.clone(), trap.clone(), lost.clone());
        let task = tokio::spawn(async move {
            let mut number = 0;
            while let Ok((client, _)) = listener.accept().await {
                number += 1;
                let (refuses, target) = {
                    let weather = changes.borrow();
                    (weather.refuses, weather.target)
                };
                if !refuses {
                    let edge = Edge { number, weather: changes.clone(), trap: traps.clone(), lost: losses.clone() };
                    tokio::spawn(edge.carry(client, target));
                }
            }
        });
        Self { port, weather, trap, lost, task }
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Leads new connections to another port.
    pub(crate) fn turn(&self, target: u16) {
        self.weather.send_modify(|weather| weather.target = target);
    }

    /// Ends every open connection.
    pub(crate) fn cut(&self) {
        self.weather.send_modify(|weather| weather.cuts += 1);
    }

    /// Swallows everything from now on, with the connections open; or no more.
    pub(crate) fn go_silent(&self, silent: bool) {
        self.weather.send_modify(|weather| weather.silent = silent);
    }

    /// Ends new connections at once; or no more.
    pub(crate) fn refuse(&self, refuses: bool) {
        self.weather.send_modify(|weather| weather.refuses = refuses);
    }

    /// Lets everything wait so long, in either direction.
    pub(crate) fn delay(&self, delay: Duration) {
        self.weather.send_modify(|weather| weather.delay = delay);
    }

    /// Cuts the first connection whose client sends `bytes` in one piece, when it is answered, and loses the answer.
    pub(crate) fn lose_answer_to(&self, bytes: &[u8]) {
        self.set(Trap { steps: vec![bytes.to_owned()], said: HashMap::new(), arrives: true, shuts: false });
    }

    /// Cuts every connection when one client has said all of `steps`, one after the other, and lets nobody in from then
    /// on. The last of them arrives, and its answer is lost; or it does not arrive.
    pub(crate) fn strand_at(&self, steps: &[&[u8]], arrives: bool) {
        let steps = steps.iter().map(|step| step.to_vec()).collect();
        self.set(Trap { steps, said: HashMap::new(), arrives, shuts: true });
    }

    fn set(&self, trap: Trap) {
        *self.trap.lock().unwrap() = Some(trap);
    }

    /// Whether that has happened since.
    pub(crate) fn has_lost_it(&self) -> bool {
        self.trap.lock().unwrap().is_none()
    }

    /// Waits until it has happened since `before` losses, and the server has answered where it was to.
    pub(crate) async fn loses(&self, before: u64) {
        let mut lost = self.lost.subscribe();
        let snapped = tokio::time::timeout(Duration::from_secs(20), lost.wait_for(|lost| *lost > before)).await;
        snapped.expect("nobody walks into the trap").unwrap();
    }

    /// How often something has been lost to a trap.
    pub(crate) fn losses(&self) -> u64 {
        *self.lost.borrow()
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

/// One connection through a proxy.
struct Edge {
    number: u64,
    weather: watch::Sender<Weather>,
    trap: Arc<Mutex<Option<Trap>>>,
    lost: watch::Sender<u64>,
}

impl Edge {
    async fn carry(self, client: TcpStream, target: u16) {
        let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
        let (born, mut cuts) = (self.weather.borrow().cuts, self.weather.subscribe());
        let (client_in, client_out) = client.into_split();
        let (server_in, server_out) = server.into_split();
        let caught = AtomicBool::new(false);
        let there = pump(client_in, server_out, self.weather.subscribe(), |bytes| match self.spring(bytes) {
            Some(true) => {
                caught.store(true, Ordering::Release);
                true
            }
            Some(false) => self.lose(),
            None => true,
        });
        let back =
            pump(server_in, client_out, self.weather.subscribe(), |_| !caught.load(Ordering::Acquire) || self.lose());
        tokio::select! {
            () = there => {}
            () = back => {}
            _ = cuts.wait_for(|weather| weather.cuts != born) => {}
        }
    }

    /// What was to be lost is, and every connection with it where nobody is let in any more. Never true.
    fn lose(&self) -> bool {
        self.weather.send_modify(|weather| weather.cuts += u64::from(weather.refuses));
        self.lost.send_modify(|lost| *lost += 1);
        false
    }

    /// If the trap snaps at this: whether it arrives.
    fn spring(&self, bytes: &[u8]) -> Option<bool> {
        let mut place = self.trap.lock().unwrap();
        let trap = place.take_if(|trap| trap.hears(self.number, bytes))?;
        if trap.shuts {
            self.weather.send_modify(|weather| weather.refuses = true);
        }
        Some(trap.arrives)
    }
}

/// Carries bytes one way until `passes` says no, or one side ends.
async fn pump(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    passes: impl Fn(&[u8]) -> bool,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let Ok(length @ 1..) = from.read(&mut buffer).await else { return };
        let delay = weather.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        if weather.wait_for(|weather| !weather.silent).await.is_err() {
            return;
        }
        if !passes(&buffer[..length]) || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
