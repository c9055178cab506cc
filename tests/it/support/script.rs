//! An agent that says what a test tells it to, when it is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use futures::StreamExt as _;
use rejoin::{
    agent::{Agent, Answer, Context, Delta, Output, Registry},
    model::{PartKind, TurnError},
};
use tokio::sync::mpsc;

use super::ws::within;

type Line = Result<Output, TurnError>;

/// The test's end of the agent: it hands out the turns that ask.
pub(crate) struct Script {
    turns: mpsc::Receiver<ScriptedTurn>,
}

/// A turn that waits to be told what to answer.
pub(crate) struct ScriptedTurn {
    pub(crate) context: Context,
    lines: mpsc::Sender<Line>,
}

struct ScriptedAgent {
    turns: mpsc::Sender<ScriptedTurn>,
}

/// A registry whose default agent `script` follows the test, with a second name `other` for the same agent.
pub(crate) fn scripted() -> (Registry, Script) {
    let (sender, turns) = mpsc::channel(1_000);
    let agent: Arc<dyn Agent> = Arc::new(ScriptedAgent { turns: sender });
    let agents = BTreeMap::from([("script".to_owned(), agent.clone()), ("other".to_owned(), agent)]);
    (Registry::new("script", agents).unwrap(), Script { turns })
}

#[async_trait]
impl Agent for ScriptedAgent {
    async fn answer(&self, context: Context) -> Result<Answer, TurnError> {
        let (lines, receiver) = mpsc::channel(1_000);
        self.turns.send(ScriptedTurn { context, lines }).await.expect("the test has ended");
        let receiver = Mutex::new(receiver);
        Ok(futures::stream::poll_fn(move |cx| receiver.lock().unwrap().poll_recv(cx)).boxed())
    }
}

impl Script {
    /// The next turn that asks.
    pub(crate) async fn turn(&mut self) -> ScriptedTurn {
        within("a turn to ask the agent", self.turns.recv()).await.unwrap()
    }

    /// Whether nobody has asked until now.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.turns.try_recv().is_err()
    }
}

impl ScriptedTurn {
    /// Says any line.
    pub(crate) async fn line(&self, line: Line) {
        self.lines.send(line).await.expect("the turn does not listen any more");
    }

    /// Says any line, if the turn still listens.
    pub(crate) async fn try_line(&self, line: Line) {
        // One that has ended meanwhile is what some tests are about.
        let _unheard = self.lines.send(line).await;
    }

    /// Says a piece of text in part 0.
    pub(crate) async fn say(&self, text: &str) {
        self.delta(0, PartKind::Text, Some(text), None).await;
    }

    /// Says a piece of any part.
    pub(crate) async fn delta(&self, part: u32, kind: PartKind, text: Option<&str>, value: Option<&str>) {
        let value = value.map(|value| serde_json::value::RawValue::from_string(value.to_owned()).unwrap());
        self.line(Ok(Output::Delta(Delta { part, kind, text: text.map(str::to_owned), value }))).await;
    }

    /// Ends the answer.
    pub(crate) async fn done(self) {
        self.line(Ok(Output::Done { usage: None })).await;
    }

    /// Ends the answer with an error.
    pub(crate) async fn fail(self, code: &str) {
        let error = TurnError { code: code.to_owned(), message: "as the test says".to_owned(), retryable: true };
        self.line(Err(error)).await;
    }

    /// Whether the answer has been dropped: nobody reads it any more.
    pub(crate) async fn dropped(&self) {
        within("the agent's work to be dropped", self.lines.closed()).await;
    }
}
