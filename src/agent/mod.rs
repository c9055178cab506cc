//! Agents: what turns a session's messages into a stream of deltas.
//!
//! An agent knows no topic, no session store and no connection. It is handed a [`Context`], and answers with a stream
//! that the caller pulls; dropping that stream drops the agent's work at once, requests included. Its one invariant:
//! a stream ends with [`Output::Done`] or with an `Err`; one that just ends was cut, and its turn fails.

mod echo;
pub mod openai;
mod registry;
mod secret;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Serialize;
use serde_json::value::RawValue;

pub use self::{
    echo::Echo,
    openai::OpenAi,
    registry::{Registry, Spec},
    secret::Secret,
};
pub use crate::model::fold::Delta;
use crate::model::{Part, Person, Role, TurnError};

/// What an agent is asked to answer.
#[derive(Debug, Clone, Serialize)]
pub struct Context {
    /// The session's id.
    pub session: String,
    /// The turn that asks.
    pub turn: TurnContext,
    /// The messages to answer, oldest first, the prompt last.
    pub messages: Vec<ContextMessage>,
}

/// The turn that asks.
#[derive(Debug, Clone, Serialize)]
pub struct TurnContext {
    /// Its id.
    pub id: String,
    /// The name under which the agent was chosen.
    pub agent: String,
    /// 1, and one more for each retry of the prompt.
    pub attempt: u32,
    /// Who asked.
    pub by: Person,
}

/// One message of a [`Context`].
#[derive(Debug, Clone, Serialize)]
pub struct ContextMessage {
    /// Its id.
    pub id: String,
    /// On whose behalf it speaks.
    pub role: Role,
    /// Who said it.
    pub author: Option<Person>,
    /// What it says.
    pub parts: Vec<Part>,
    /// Whether it is an answer that was cut before its end.
    pub partial: bool,
}

/// What an agent's stream yields.
#[derive(Debug, Clone)]
pub enum Output {
    /// A piece of the answer.
    Delta(Delta),
    /// The answer is whole. Nothing after it is read.
    Done {
        /// What the answer cost, as the agent tells it.
        usage: Option<Box<RawValue>>,
    },
}

/// An answer as it is made.
pub type Answer = BoxStream<'static, Result<Output, TurnError>>;

/// Turns messages into answers. One value serves all turns.
#[async_trait]
pub trait Agent: Send + Sync + 'static {
    /// Starts an answer. Dropping the future or the stream stops the work at once.
    ///
    /// # Errors
    /// A set-up failure (refused, bad key, unknown model), as the turn's error will show it.
    async fn answer(&self, context: Context) -> Result<Answer, TurnError>;

    /// How many messages its context should have at most, the newest ones; the prompt is always among them.
    fn max_messages(&self) -> usize {
        10_000
    }
}

/// Why an agent could not be set up at the start of the server.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The default names no agent.
    #[error("there is no agent {name:?}: use one of {known}")]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that exist, comma-separated.
        known: String,
    },
    /// The base URL of an agent is not one that requests can be sent to.
    #[error("the base URL of the agent {agent:?} cannot be used: give one such as https://api.example.com/v1")]
    BaseUrl {
        /// The agent's name.
        agent: String,
    },
    /// The HTTP client of an agent could not be built.
    #[error("the HTTP client of the agent {agent:?} could not be set up: check this machine's TLS certificates")]
    Client {
        /// The agent's name.
        agent: String,
        /// What the client said.
        source: reqwest::Error,
    },
}
