//! Turns and the nodes that own them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    message::Person,
    word::{Word, named},
};
use crate::{clock::Timestamp, ids::Incarnation};

/// Where a turn is between its acceptance and its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TurnStatus {
    /// Waits for a slot; leads to `Running` (T2) or `Cancelled` (T9). Has no owner to lose.
    Queued,
    /// Has exactly one owner; leads to `Completed`, `Failed` (T4) or `Cancelled` (T6, T7, T8).
    Running,
    /// The agent finished. Leads nowhere.
    Completed,
    /// The agent, or the node that ran it, failed. Leads nowhere; a person may retry.
    Failed,
    /// Cut, for the reason beside it. Leads nowhere; a person may retry.
    Cancelled,
    /// A status of a newer version. Only nodes of that lead out of it.
    Other(Word),
}

impl TurnStatus {
    /// The name on the wire and in the store.
    pub fn name(&self) -> &str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Other(word) => word.as_str(),
        }
    }

    /// The status of that name; `None` if it is too long to be one.
    pub fn named(name: &str) -> Option<Self> {
        let known = [Self::Queued, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];
        known.into_iter().find(|status| status.name() == name).or_else(|| Word::new(name).map(Self::Other))
    }
}
named!(TurnStatus);

/// Why a turn was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// A person asked for it.
    User,
    /// The node that owned it is dead.
    OwnerGone,
    /// The node that owned it shut down before the answer was finished.
    Shutdown,
    /// A later message took its place.
    Superseded,
    /// A reason of a newer version.
    Other(Word),
}

impl EndReason {
    /// The names that this version knows.
    pub const NAMES: [&'static str; 4] = ["user", "owner_gone", "shutdown", "superseded"];

    /// The name on the wire and in the store.
    pub fn name(&self) -> &str {
        match self {
            Self::User => "user",
            Self::OwnerGone => "owner_gone",
            Self::Shutdown => "shutdown",
            Self::Superseded => "superseded",
            Self::Other(word) => word.as_str(),
        }
    }

    /// The reason of that name; `None` if it is too long to be one.
    pub fn named(name: &str) -> Option<Self> {
        let known = [Self::User, Self::OwnerGone, Self::Shutdown, Self::Superseded];
        known.into_iter().find(|reason| reason.name() == name).or_else(|| Word::new(name).map(Self::Other))
    }
}
named!(EndReason);

/// A cancel that a person asked for and the owner has not carried out yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Intent {
    /// `User` or `Superseded`.
    pub reason: EndReason,
    /// Who asked.
    pub by: Person,
}

/// Why a turn failed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TurnError {
    /// One word for programs, listed in `protocol/codes.json`.
    pub code: String,
    /// What happened and what to do, for a person.
    pub message: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

impl TurnError {
    /// The failure of a turn whose runner is not there any more although its node is (I21).
    pub fn lost() -> Self {
        Self {
            code: "lost".to_owned(),
            message: "The server lost track of this answer. Retry to ask again.".to_owned(),
            retryable: true,
        }
    }
}

/// A node's life, as a running turn names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// The label that an operator gave it; never an identity.
    pub node: String,
    /// Its identity.
    pub incarnation: Incarnation,
}

/// Where a node is in its life. It never goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Takes turns; leads to `Draining` (SIGTERM) or `Dead` (tombstone).
    Live,
    /// Finishes its turns and takes none; leads to `Dead`.
    Draining,
    /// The tombstone: whatever it owned is orphaned. Leads nowhere.
    Dead,
}

impl NodeState {
    /// The name on the wire and in the store.
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Draining => "draining",
            Self::Dead => "dead",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Live, Self::Draining, Self::Dead].into_iter().find(|state| state.name() == name)
    }
}

/// A node row: one life of one node, and its lease.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Node {
    /// Label and identity.
    pub owner: Owner,
    /// Where it is in its life.
    pub state: NodeState,
    /// A fresh random number at each renewal. Only whether it changes means anything.
    pub beat: i64,
    /// The lease's length by this node's own option.
    pub lease_ttl_ms: u64,
    /// The operator's promise that its name is never used twice at once.
    pub exclusive: bool,
    /// How many clients it had when it told its beat.
    pub connections: u64,
}

/// One answer of an agent, from its acceptance to its end: the whole row, also as it is stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Turn {
    /// A UUID.
    pub id: String,
    /// Where it is.
    pub status: TurnStatus,
    /// The message that it answers.
    pub prompt_id: String,
    /// The id of the answer, fixed at acceptance.
    pub reply_id: String,
    /// The name of the agent that answers.
    pub agent: String,
    /// 1, and one more for each retry of the prompt.
    pub attempt: u32,
    /// The turn that this one retries.
    pub retry_of: Option<String>,
    /// Who asked.
    pub by: Person,
    /// Its place in the queue: lower runs first. Given under the session's lock, for showing and for running.
    pub order: i64,
    /// Only while running (I6).
    pub owner: Option<Owner>,
    /// +1 at each change of owner and each forced end.
    pub term: u64,
    /// The number of the next flush of deltas.
    pub flushed: u64,
    /// A cancel that waits for the owner.
    pub intent: Option<Intent>,
    /// When it was accepted.
    pub queued_at: Timestamp,
    /// When it began to run.
    pub started_at: Option<Timestamp>,
    /// The seq of `turn_started`, which is the seq of its answer.
    pub started_seq: Option<u64>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// The seq of its terminal event.
    pub ended_seq: Option<u64>,
    /// Who ended it, if a person did.
    #[serde(default)]
    pub ended_by: Option<Person>,
    /// Why it was cancelled.
    pub reason: Option<EndReason>,
    /// Why it failed.
    pub error: Option<TurnError>,
    /// What the agent said that it used, as JSON.
    pub usage: Option<Box<RawValue>>,
}

impl Turn {
    /// Whether nothing leads out of where it is. Of a status that this version does not know, its end says so.
    pub fn is_ended(&self) -> bool {
        match self.status {
            TurnStatus::Queued | TurnStatus::Running => false,
            TurnStatus::Completed | TurnStatus::Failed | TurnStatus::Cancelled => true,
            TurnStatus::Other(_) => self.ended_at.is_some(),
        }
    }

    /// The fence: it runs, this is its owner, and this is the owner's term.
    pub fn is_owned_by(&self, incarnation: &Incarnation, term: u64) -> bool {
        self.status == TurnStatus::Running
            && self.term == term
            && self.owner.as_ref().is_some_and(|owner| owner.incarnation == *incarnation)
    }

    /// The turn as clients see it. `position` counts from 1, the next to run.
    pub fn wire(&self, position: Option<usize>, liveness: Liveness) -> WireTurn<'_> {
        WireTurn {
            id: &self.id,
            status: self.status,
            prompt_id: &self.prompt_id,
            reply_id: &self.reply_id,
            agent: &self.agent,
            attempt: self.attempt,
            retry_of: self.retry_of.as_deref(),
            by: &self.by,
            position,
            owner: self.owner.as_ref().map(|owner| WireOwner {
                node: &owner.node,
                incarnation: &owner.incarnation,
                liveness,
            }),
            queued_at: self.queued_at,
            started_at: self.started_at,
            ended_at: self.ended_at,
            ended_by: self.ended_by.as_ref(),
            reason: self.reason,
            error: self.error.as_ref(),
            usage: self.usage.as_deref(),
        }
    }
}

/// What is known of a running turn's owner at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Liveness {
    /// Seen moving within its lease.
    Alive,
    /// Not seen moving for its lease, and not judged.
    Unknown,
}

/// TURN on the wire.
#[derive(Debug, Serialize)]
pub struct WireTurn<'a> {
    id: &'a str,
    status: TurnStatus,
    prompt_id: &'a str,
    reply_id: &'a str,
    agent: &'a str,
    attempt: u32,
    retry_of: Option<&'a str>,
    by: &'a Person,
    position: Option<usize>,
    owner: Option<WireOwner<'a>>,
    queued_at: Timestamp,
    started_at: Option<Timestamp>,
    ended_at: Option<Timestamp>,
    ended_by: Option<&'a Person>,
    reason: Option<EndReason>,
    error: Option<&'a TurnError>,
    usage: Option<&'a RawValue>,
}

#[derive(Debug, Serialize)]
struct WireOwner<'a> {
    node: &'a str,
    incarnation: &'a Incarnation,
    liveness: Liveness,
}
