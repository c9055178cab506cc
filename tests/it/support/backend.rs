//! The backends of `tests/backends` as processes of their own, on free ports.

use std::{collections::VecDeque, path::Path, process::Stdio};

use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

use super::ws::within;

/// What a backend and its server both know.
pub(crate) const SECRET: &str = "a secret of both sides";

/// In which language it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Node,
    Python,
}

/// A running backend; it is killed with this value.
pub(crate) struct Backend {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    unread: VecDeque<String>,
    pub(crate) url: String,
}

impl Backend {
    /// Starts it and waits until it listens.
    pub(crate) async fn start(language: Language) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/backends");
        let mut command = match language {
            Language::Node => Command::new("node"),
            Language::Python => Command::new("python3"),
        };
        command.arg(folder.join(if language == Language::Node { "backend.mjs" } else { "backend.py" }));
        command.env("SECRET", SECRET).env("PORT", "0").kill_on_drop(true);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let ready = within("a backend to listen", lines.next_line()).await.unwrap().unwrap();
        let url = ready.strip_prefix("listening on ").unwrap_or_else(|| panic!("{ready}")).to_owned();
        Self { child, lines, unread: VecDeque::new(), url }
    }

    /// Waits until it has said `what` about a turn: `asked`, `left` or `answered`.
    pub(crate) async fn says(&mut self, what: &str, turn: &str) {
        let expected = format!("{what} {turn}");
        within(&expected, async {
            loop {
                if let Some(at) = self.unread.iter().position(|line| *line == expected) {
                    self.unread.remove(at);
                    return;
                }
                let line = self.lines.next_line().await.unwrap();
                self.unread.push_back(line.expect("the backend has ended"));
            }
        })
        .await;
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}
