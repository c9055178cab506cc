//! A client program of `tests/clients` and the line protocol that drives it (described in its README).

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
};

use crate::support::ws::{LIMIT, within};

/// Which program.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// A file of `tests/clients/node`.
    Node(&'static str),
    /// An environment of Python and a file of `tests/clients/python`.
    Python(&'static str, &'static str),
    /// A binary of `tests/clients/rust`.
    Rust(&'static str),
}

impl Kind {
    fn command(self) -> Command {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (program, script): (PathBuf, Option<PathBuf>) = match self {
            Self::Node(file) => ("node".into(), Some(root.join("tests/clients/node").join(file))),
            Self::Python(environment, file) => (
                root.join("target/clients-python").join(environment).join("bin/python"),
                Some(root.join("tests/clients/python").join(file)),
            ),
            Self::Rust(name) => (root.join("target/clients/debug").join(name), None),
        };
        let mut command = Command::new(program);
        command.args(script);
        command
    }
}

/// A program that runs; it is killed with this value.
pub(crate) struct Program {
    kind: Kind,
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    /// What was said and has not been asked for.
    said: VecDeque<Value>,
}

impl Program {
    /// Starts it with a configuration.
    pub(crate) fn start(kind: Kind, config: &Value) -> Self {
        let mut command = kind.command();
        command.arg(config.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn();
        let mut child = child.unwrap_or_else(|error| panic!("{kind:?} cannot start ({error}): tests/run installs it"));
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { kind, child, input, output, said: VecDeque::new() }
    }

    /// Gives a command.
    pub(crate) async fn tell(&mut self, command: Value) {
        let line = format!("{command}\n");
        within("a command", self.input.write_all(line.as_bytes())).await.unwrap();
    }

    /// Joins a topic.
    pub(crate) async fn join(&mut self, topic: &str, params: Value) {
        self.tell(json!({ "do": "join", "topic": topic, "params": params })).await;
    }

    /// Pushes and waits for the answer.
    pub(crate) async fn push(&mut self, topic: &str, event: &str, payload: Value) -> Value {
        self.tell(json!({ "do": "push", "topic": topic, "event": event, "payload": payload })).await;
        self.expect("reply").await
    }

    /// The next line that says this, whatever else is said before.
    pub(crate) async fn expect(&mut self, at: &str) -> Value {
        self.expect_that(at, |line| line["at"] == at).await
    }

    /// The payload of the next message with this event.
    pub(crate) async fn message(&mut self, event: &str) -> Value {
        let line = self.expect_that(event, |line| line["at"] == "message" && line["event"] == event).await;
        line["payload"].clone()
    }

    /// The next line that is the one, whatever else is said before. What else is said stays to be asked for.
    pub(crate) async fn expect_that(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(place) = self.said.iter().position(&is_it) {
            return self.said.remove(place).unwrap();
        }
        let found = async {
            loop {
                let line = self.next(what).await;
                if is_it(&line) {
                    return line;
                }
                self.said.push_back(line);
            }
        };
        let found = tokio::time::timeout(LIMIT, found).await;
        found.unwrap_or_else(|_| panic!("{:?} does not say {what}; it said {:?}", self.kind, self.said))
    }

    /// Forgets what was said so far and not asked for, of one kind: how many lines that was.
    pub(crate) fn forget(&mut self, at: &str) -> usize {
        self.forget_that(|line| line["at"] == at).len()
    }

    /// Forgets and gives back what was said so far and not asked for.
    pub(crate) fn forget_that(&mut self, is_it: impl Fn(&Value) -> bool) -> Vec<Value> {
        let (forgotten, kept): (Vec<_>, Vec<_>) = self.said.drain(..).partition(is_it);
        self.said = kept.into();
        forgotten
    }

    async fn next(&mut self, what: &str) -> Value {
        let line = self.output.next_line().await.unwrap();
        let line = line.unwrap_or_else(|| panic!("{:?} ended before {what}; it said {:?}", self.kind, self.said));
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{:?} said {line:?}: {error}", self.kind))
    }

    /// Asks for the list of a topic until it is this one: how many metas each key has.
    pub(crate) async fn until_present(&mut self, topic: &str, users: &Value) {
        self.until_list(topic, |list| list["users"] == *users).await;
    }

    /// Asks for the list of a topic until it is the one.
    pub(crate) async fn until_list(&mut self, topic: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        within("the list of who is there", async {
            loop {
                self.tell(json!({ "do": "presence", "topic": topic })).await;
                let list = self.expect("presence").await;
                if is_it(&list) {
                    return list;
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        })
        .await
    }

    /// Ends it, and expects that it ends well.
    pub(crate) async fn quit(mut self) {
        self.tell(json!({ "do": "quit" })).await;
        drop(self.input);
        let status = within("the end of the program", self.child.wait()).await.unwrap();
        assert!(status.success(), "{:?} ended with {status}", self.kind);
    }
}
