//! A door before a server: it stands at one address while servers come and go behind it, cuts connections as a broken
//! network does, and keeps WebSockets out while it lets plain requests in.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

/// What becomes of a request for a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WebSockets {
    Pass,
    /// Answered 404, as a proxy that knows no WebSockets does.
    NotFound,
    /// Never answered.
    Swallow,
}

struct Shared {
    behind: SocketAddr,
    websockets: WebSockets,
    /// Cancelled to cut every connection that there is.
    cut: CancellationToken,
}

/// What is done to the connections that there are.
#[derive(Clone, Copy, Default)]
struct Weather {
    /// Nothing reaches the clients.
    frozen: bool,
    /// Counts up with every close frame that is to be put in.
    closings: u64,
    code: u16,
}

/// The door; it closes with this value.
pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    weather: watch::Sender<Weather>,
    accepting: JoinHandle<()>,
}

impl Front {
    /// A door on a port of its own before the server at `behind`.
    pub(crate) async fn before(behind: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Shared { behind, websockets: WebSockets::Pass, cut: CancellationToken::new() };
        let shared = Arc::new(Mutex::new(shared));
        let weather = watch::Sender::new(Weather::default());
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), weather.subscribe()));
        Self { address, shared, weather, accepting }
    }

    /// What becomes of WebSockets from now on.
    pub(crate) fn websockets(&self, what: WebSockets) {
        self.lock().websockets = what;
    }

    /// Puts another server behind the door; connections that there are stay with the old one.
    pub(crate) fn now_before(&self, behind: SocketAddr) {
        self.lock().behind = behind;
    }

    /// Cuts every connection that there is, without a farewell.
    pub(crate) fn cut(&self) {
        std::mem::take(&mut self.lock().cut).cancel();
    }

    /// Keeps back what the server sends, or lets it through again. Connections stay as they are.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.weather.send_modify(|weather| weather.frozen = frozen);
    }

    /// Puts a WebSocket's close frame into every connection that there is. The server has to be silent just then.
    pub(crate) fn close(&self, code: u16) {
        self.weather.send_modify(|weather| {
            weather.closings += 1;
            weather.code = code;
        });
    }

    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Mutex<Shared>>, weather: watch::Receiver<Weather>) {
    while let Ok((client, _)) = listener.accept().await {
        let (behind, websockets, cut) = {
            let shared = shared.lock().unwrap();
            (shared.behind, shared.websockets, shared.cut.clone())
        };
        tokio::spawn(cut.run_until_cancelled_owned(carry(client, behind, websockets, weather.clone())));
    }
}

/// Carries one connection; any error ends it.
async fn carry(
    mut client: TcpStream,
    behind: SocketAddr,
    websockets: WebSockets,
    weather: watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.contains(&b'\n') {
        if client.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let line = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    if line.windows(10).any(|part| part == b"/websocket") {
        match websockets {
            WebSockets::Pass => {}
            WebSockets::NotFound => {
                let answer = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                return client.write_all(answer).await;
            }
            WebSockets::Swallow => std::future::pending().await,
        }
    }
    let mut server = TcpStream::connect(behind).await?;
    server.write_all(&head).await?;
    let (mut from_server, mut to_server) = server.split();
    let (mut from_client, mut to_client) = client.split();
    tokio::try_join!(
        async {
            tokio::io::copy(&mut from_client, &mut to_server).await?;
            to_server.shutdown().await
        },
        async {
            hand_out(&mut from_server, &mut to_client, weather).await?;
            to_client.shutdown().await
        },
    )?;
    Ok(())
}

/// Copies what the server sends, as the weather lets it.
async fn hand_out(
    server: &mut ReadHalf<'_>,
    client: &mut WriteHalf<'_>,
    mut weather: watch::Receiver<Weather>,
) -> std::io::Result<()> {
    let (mut buffer, mut closings) = (vec![0; 16 * 1024], weather.borrow_and_update().closings);
    loop {
        tokio::select! {
            count = server.read(&mut buffer) => {
                let count = count?;
                if count == 0 {
                    return Ok(());
                }
                if weather.wait_for(|weather| !weather.frozen).await.is_ok() {
                    client.write_all(&buffer[..count]).await?;
                }
            }
            changed = weather.changed() => {
                let now = *weather.borrow_and_update();
                if changed.is_ok() && now.closings > closings {
                    closings = now.closings;
                    let [high, low] = now.code.to_be_bytes();
                    client.write_all(&[0x88, 2, high, low]).await?;
                } else if changed.is_err() {
                    return Ok(());
                }
            }
        }
    }
}
