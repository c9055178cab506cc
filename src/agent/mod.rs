//! Agents: what turns a session's messages into a stream of deltas.
//!
//! An agent knows no topic, no session store and no connection. It is handed a [`Context`], and answers with a stream
//! that the caller pulls; dropping that stream drops the agent's work at once, requests included. Its one invariant:
//! a stream ends with [`Output::Done`] or with an `Err`; one that just ends was cut, and its turn fails.

mod client;
mod echo;
mod failure;
pub mod http;
pub mod openai;
mod registry;
mod secret;
mod stream;
#[cfg(test)]
mod testing;

use async_trait::async_trait;
use futures::stream::BoxStream;
use serde::Serialize;
use serde_json::value::RawValue;

pub use self::{
    client::{parse_base_url, parse_url},
    echo::Echo,
    http::Http,
    openai::OpenAi,
    registry::{Registry, Spec},
    secret::Secret,
};
pub use crate::model::fold::Delta;
use crate::{
    clock::Timestamp,
    model::{Message, Person, TurnError},
};

/// What an agent is asked to answer.
#[derive(Debug, Clone, Serialize)]
pub struct Context {
    /// The session in which it is asked.
    pub session: SessionContext,
    /// The turn that asks.
    pub turn: TurnContext,
    /// The messages to answer, oldest first, the prompt last. A cut answer among them is marked by its status.
    pub messages: Vec<Message>,
}

/// The session in which an agent is asked.
#[derive(Debug, Clone, Serialize)]
pub struct SessionContext {
    /// Its id.
    pub id: String,
    /// Names its log: another one under the same id is another conversation.
    pub epoch: String,
    /// What people call it.
    pub title: Option<String>,
    /// Its users' own JSON object.
    pub metadata: Box<RawValue>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// The turn that asks.
#[derive(Debug, Clone, Serialize)]
pub struct TurnContext {
    /// Its id. A turn is asked once, so an agent that sees it again is asked by somebody else.
    pub id: String,
    /// The message that it answers, the last one.
    pub prompt_id: String,
    /// The id that the answer has in the session.
    pub reply_id: String,
    /// The name under which the agent was chosen.
    pub agent: String,
    /// 1, and one more for each retry of the prompt.
    pub attempt: u32,
    /// The turn that this one retries.
    pub retry_of: Option<String>,
    /// Who asked.
    pub by: Person,
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
    /// Starts an answer. Dropping the future or the stream stops the work at once. What is sent to others should carry
    /// the headers of the trace that this runs in ([`crate::telemetry::trace::Trace::current`]).
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
    /// The URL of an agent is not one that requests can be sent to.
    #[error("the URL of the agent {agent:?} cannot be used: give one such as https://app.example.com/agent")]
    Url {
        /// The agent's name.
        agent: String,
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
