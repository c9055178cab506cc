//! A bad network between a NATS server and its clients: it loses whole messages on their way out, by chance.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy},
    net::{TcpListener, TcpStream, tcp},
    task::JoinHandle,
};

use super::chance::Chance;

/// A proxy in front of a NATS server; connections end with their own ends.
pub(crate) struct LossyNats {
    port: u16,
    lost: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl LossyNats {
    /// In front of `target`, loses so many of a hundred messages.
    pub(crate) async fn start(target: u16, percent: u64, mut chance: Chance) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let (port, lost) = (listener.local_addr().unwrap().port(), Arc::<AtomicU64>::default());
        let count = lost.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (count, chance) = (count.clone(), chance.fork());
                tokio::spawn(async move {
                    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
                    let ((mut from_client, to_client), (from_server, mut to_server)) =
                        (client.into_split(), server.into_split());
                    tokio::select! {
                        _ = copy(&mut from_client, &mut to_server) => {}
                        _ = hand_out(from_server, to_client, percent, chance, &count) => {}
                    }
                });
            }
        });
        Self { port, lost, task }
    }

    /// Where it listens on 127.0.0.1.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// How many messages it has lost.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for LossyNats {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Passes everything but some of the messages: `MSG` and `HMSG` lines, whose last word is the length of what follows.
async fn hand_out(
    server: tcp::OwnedReadHalf,
    mut client: tcp::OwnedWriteHalf,
    percent: u64,
    mut chance: Chance,
    lost: &AtomicU64,
) -> std::io::Result<()> {
    let mut server = BufReader::new(server);
    loop {
        let mut unit = Vec::new();
        if server.read_until(b'\n', &mut unit).await? == 0 {
            return Ok(());
        }
        let is_message = unit.starts_with(b"MSG ") || unit.starts_with(b"HMSG ");
        if is_message {
            let line = String::from_utf8_lossy(&unit);
            let length: usize = line.split_whitespace().next_back().and_then(|word| word.parse().ok()).unwrap_or(0);
            let mut body = vec![0; length + 2];
            server.read_exact(&mut body).await?;
            unit.extend(body);
        }
        if is_message && chance.below(100) < percent {
            lost.fetch_add(1, Ordering::Relaxed);
        } else {
            client.write_all(&unit).await?;
        }
    }
}
