//! Messages and their parts: what a person or an agent said.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::clock::Timestamp;

/// Who said or did something, as it is shown to others.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Person {
    /// The user id, or `agent:NAME`.
    pub id: String,
    /// The name to show; the id where none was given.
    pub name: String,
}

impl Person {
    /// The author of an agent's answers.
    pub fn agent(name: &str) -> Self {
        Self { id: format!("agent:{name}"), name: name.to_owned() }
    }
}

/// On whose behalf a message speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A person.
    User,
    /// An agent.
    Assistant,
    /// An instruction to the agent.
    System,
}

/// How far a message has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageStatus {
    /// Whole; nothing will be added.
    Complete,
    /// The answer of a running turn; deltas follow, then `Complete` or `Partial`.
    Streaming,
    /// Cut before its end; nothing will be added.
    Partial,
}

/// What a part holds. The kind of a part is that of its first delta.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PartKind {
    /// Text to read.
    Text,
    /// What a model thought before it answered.
    Reasoning,
    /// A call of a tool: its `value` has the name and arguments.
    ToolCall,
    /// What a tool returned.
    ToolResult,
    /// Anything else, as JSON.
    Data,
}

impl PartKind {
    /// Every kind, as error texts list them.
    pub const NAMES: &'static str = "text, reasoning, tool_call, tool_result, data";
}

/// One piece of a message: text, a JSON value, or both.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Part {
    /// What the part holds.
    pub kind: PartKind,
    /// Text, appended to by deltas.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// A JSON value, replaced by deltas; kept as the text that arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
}

impl Part {
    /// A part of plain text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: PartKind::Text, text: Some(text.into()), value: None }
    }

    /// Bytes of content, for limits.
    pub fn size(&self) -> usize {
        self.text.as_ref().map_or(0, String::len) + self.value.as_ref().map_or(0, |v| v.get().len())
    }
}

impl PartialEq for Part {
    /// Equal content: values are compared as the text that they arrived as.
    fn eq(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.text == other.text
            && self.value.as_deref().map(RawValue::get) == other.value.as_deref().map(RawValue::get)
    }
}

/// What a person or an agent said, as clients see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Unique in the session.
    pub id: String,
    /// The seq of the event that created it (`message_added`, or `turn_started` for an answer); orders messages.
    pub seq: u64,
    /// On whose behalf it speaks.
    pub role: Role,
    /// Who said it.
    pub author: Option<Person>,
    /// For an answer, the turn that made it.
    pub turn_id: Option<String>,
    /// How far it has come.
    pub status: MessageStatus,
    /// What it says.
    pub parts: Vec<Part>,
    /// When it was created.
    pub created_at: Timestamp,
}

impl Message {
    /// The answer that a turn begins with `turn_started`: it streams, and holds nothing yet.
    pub fn answer(turn_id: &str, reply_id: &str, agent: &str, seq: u64, at: Timestamp) -> Self {
        Self {
            id: reply_id.to_owned(),
            seq,
            role: Role::Assistant,
            author: Some(Person::agent(agent)),
            turn_id: Some(turn_id.to_owned()),
            status: MessageStatus::Streaming,
            parts: Vec::new(),
            created_at: at,
        }
    }

    /// All its plain text, parts one after another.
    pub fn plain_text(&self) -> String {
        plain_text(&self.parts)
    }
}

/// The plain text of `parts`, one after another.
pub fn plain_text(parts: &[Part]) -> String {
    parts.iter().filter(|part| part.kind == PartKind::Text).filter_map(|part| part.text.as_deref()).collect()
}
