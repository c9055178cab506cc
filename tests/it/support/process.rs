//! The real binary as a process of its own, for tests that kill it.

use std::{
    net::SocketAddr,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::{Child, Command},
};

use super::ws::within;

/// `rejoin serve`; it is killed with this value.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
}

/// The command with an empty environment, in `folder`.
pub(crate) fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rejoin"));
    command.current_dir(folder).env_clear().kill_on_drop(true);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Process {
    /// Starts on `folder/rejoin.db` and waits for the ready line.
    pub(crate) async fn start(folder: &Path, args: &[&str]) -> Self {
        let mut command = command(folder);
        command.stderr(Stdio::inherit()).args(["serve", "--log-level", "error"]).args(args);
        if !args.contains(&"--listen") {
            command.args(["--listen", "127.0.0.1:0"]);
        }
        Self::spawn(command).await
    }

    /// Waits for the ready line of a command.
    pub(crate) async fn spawn(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        within("the ready line", out.read_line(&mut line)).await.unwrap();
        let address = line.trim().strip_prefix("rejoin listening on http://");
        let address = address.unwrap_or_else(|| panic!("no ready line but {line:?}")).parse().unwrap();
        Self { child, address }
    }

    /// The WebSocket address for a user.
    pub(crate) fn ws(&self, user: &str) -> String {
        format!("ws://{}/socket/websocket?vsn=2.0.0&user_id={user}&name={user}", self.address)
    }

    /// `http://…` of a path.
    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    /// The most memory that it has held at once, in KiB.
    pub(crate) fn peak(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Sends a signal by its name.
    pub(crate) async fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.id().to_string()]).status().await.unwrap();
        assert!(status.success());
    }

    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> ExitStatus {
        within("the process to end", self.child.wait()).await.unwrap()
    }
}

/// Runs a command to its end: status, stdout, stderr.
pub(crate) async fn run(mut command: Command) -> (ExitStatus, String, String) {
    let mut child = command.spawn().unwrap();
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (mut stdout, mut stderr) = (String::new(), String::new());
    let work = async {
        let (_, _, status) =
            tokio::join!(out.read_to_string(&mut stdout), err.read_to_string(&mut stderr), child.wait());
        status.unwrap()
    };
    let status = tokio::time::timeout(Duration::from_secs(30), work).await.expect("the command does not end");
    (status, stdout, stderr)
}
