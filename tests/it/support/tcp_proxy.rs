//! A TCP proxy that fails as networks do: it cuts, delays, goes silent with the connection open, and loses the answer to
//! something that has arrived.

use std::{
    sync::{Arc, Mutex},
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
    /// Raised to end every connection that is open then.
    cuts: u64,
    /// Whether bytes are taken and go nowhere, with the connections open.
    silent: bool,
    /// Whether new connections are ended at once.
    refuses: bool,
    /// How long bytes wait in either direction.
    delay: Duration,
}

/// A proxy in front of one port of this machine. Dropping it ends every connection.
pub(crate) struct TcpProxy {
    port: u16,
    weather: watch::Sender<Weather>,
    /// Bytes of a client after which the next answer is lost, once.
    trap: Arc<Mutex<Option<Vec<u8>>>>,
    task: JoinHandle<()>,
}

impl TcpProxy {
    /// A proxy in front of `target`.
    pub(crate) async fn start(target: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let weather = watch::Sender::new(Weather::default());
        let trap = Arc::<Mutex<Option<Vec<u8>>>>::default();
        let (changes, traps) = (weather.subscribe(), trap.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if changes.borrow().refuses {
                    continue;
                }
                tokio::spawn(carry(client, target, changes.clone(), traps.clone()));
            }
        });
        Self { port, weather, trap, task }
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
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
        *self.trap.lock().unwrap() = Some(bytes.to_owned());
    }

    /// Whether that has happened since.
    pub(crate) fn has_lost_it(&self) -> bool {
        self.trap.lock().unwrap().is_none()
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.task.abort();
        self.cut();
    }
}

type Trap = Arc<Mutex<Option<Vec<u8>>>>;

async fn carry(client: TcpStream, target: u16, weather: watch::Receiver<Weather>, trap: Trap) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let (born, mut cuts) = (weather.borrow().cuts, weather.clone());
    let (client_in, client_out) = client.into_split();
    let (server_in, server_out) = server.into_split();
    let caught = watch::Sender::new(false);
    let is_caught = caught.subscribe();
    let there = pump(client_in, server_out, weather.clone(), move |bytes| {
        let mut trap = trap.lock().unwrap();
        if trap.as_ref().is_some_and(|wanted| bytes.windows(wanted.len().max(1)).any(|part| part == wanted.as_slice()))
        {
            *trap = None;
            caught.send_replace(true);
        }
        true
    });
    let back = pump(server_in, client_out, weather, move |_| !*is_caught.borrow());
    tokio::select! {
        () = there => {}
        () = back => {}
        _ = cuts.wait_for(|weather| weather.cuts != born) => {}
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
