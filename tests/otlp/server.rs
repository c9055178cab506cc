//! The real binary with its variables, and a client of it.

use std::{net::SocketAddr, process::Stdio, time::Duration};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::{Child, Command},
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use super::backend::Backend;

/// Waits for `work`, at most twenty seconds.
pub(crate) async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// A server whose agent is a backend; it is killed with this value.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
    _folder: TempDir,
}

fn command(folder: &TempDir, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rejoin"));
    command.current_dir(folder.path()).env_clear().envs(variables.iter().copied()).kill_on_drop(true);
    command.args(["serve", "--log-level", "error", "--listen", "127.0.0.1:0", "--node-name", "n1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

impl Server {
    pub(crate) async fn start(backend: &Backend, variables: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let mut command = command(&folder, variables);
        let mut child = command.args(["--agent", "http", "--http-agent-url", &backend.url]).spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        within("the ready line", out.read_line(&mut line)).await.unwrap();
        let address = line.trim().strip_prefix("rejoin listening on http://").expect("a ready line").parse().unwrap();
        Self { child, address, _folder: folder }
    }

    /// What a start that is refused says.
    pub(crate) async fn refused(variables: &[(&str, &str)]) -> String {
        let folder = TempDir::new().unwrap();
        let output = within("the refusal", command(&folder, variables).stderr(Stdio::piped()).output()).await.unwrap();
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A connection with more parameters (`&a=b`).
    pub(crate) async fn connect(&self, params: &str) -> Client {
        let url = format!("ws://{}/socket/websocket?vsn=2.0.0&user_id=ada{params}", self.address);
        let (socket, _) = within("a connection", Box::pin(connect_async(url))).await.unwrap();
        Client { socket, last_ref: 0, events: Vec::new() }
    }

    /// SIGTERM, and waits for a clean end.
    pub(crate) async fn stop(&mut self) {
        let id = self.child.id().expect("it runs").to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().await.unwrap().success());
        assert!(within("the end", self.child.wait()).await.unwrap().success());
    }
}

/// A connection to the session `s`.
pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    last_ref: u64,
    /// The types of events that nobody has waited for yet.
    events: Vec<String>,
}

impl Client {
    /// Pushes and waits for the answer: its response.
    pub(crate) async fn push(&mut self, event: &str, payload: Value) -> Value {
        self.last_ref += 1;
        let reference = self.last_ref.to_string();
        let frame = json!(["1", reference, "session:s", event, payload]).to_string();
        self.socket.send(Message::text(frame)).await.unwrap();
        loop {
            let frame = self.next().await;
            if frame[3] == "phx_reply" && frame[1] == *reference {
                assert_eq!(frame[4]["status"], "ok", "{frame}");
                return frame[4]["response"].clone();
            }
        }
    }

    /// Waits for an event of the session.
    pub(crate) async fn event(&mut self, kind: &str) {
        loop {
            if let Some(at) = self.events.iter().position(|event| event == kind) {
                self.events.remove(at);
                return;
            }
            self.next().await;
        }
    }

    async fn next(&mut self) -> Value {
        let message = within("a frame", self.socket.next()).await.expect("the connection ended").unwrap();
        let frame: Value = serde_json::from_str(message.to_text().unwrap()).unwrap();
        if frame[3] == "events" {
            let kinds = frame[4]["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap());
            self.events.extend(kinds.map(str::to_owned));
        }
        frame
    }
}
