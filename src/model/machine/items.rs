//! What the state machine is asked, and what it answers.

use serde_json::value::RawValue;

use crate::{
    ids::Incarnation,
    model::{
        fold::Delta,
        message::{Part, Person},
        turn::{EndReason, Turn, TurnError, TurnStatus},
    },
};

/// A request for a turn, with the ids minted before the first try (L4).
#[derive(Debug, Clone)]
pub struct NewTurn {
    /// The turn's id.
    pub id: String,
    /// Its answer's id.
    pub reply_id: String,
    /// The agent's name; a retry takes that of the turn it retries.
    pub agent: String,
}

/// What a send asks for when no slot is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenBusy {
    /// Wait at the end of the queue.
    #[default]
    Queue,
    /// Refuse.
    Reject,
    /// Cancel the sender's running turns, oldest first, and wait at the head of the queue.
    Interrupt,
}

/// Who asks.
#[derive(Debug, Clone)]
pub struct Asker {
    /// The person.
    pub person: Person,
    /// Whether other people's turns are theirs to end.
    pub admin: bool,
}

impl Asker {
    pub(super) fn may_end(&self, turn: &Turn) -> bool {
        self.admin || turn.by.id == self.person.id
    }
}

/// One delta with the text that will be stored and sent.
#[derive(Debug, Clone)]
pub struct DeltaEvent {
    /// The delta.
    pub delta: Delta,
    /// The event's body.
    pub body: String,
}

/// The runner's identity towards the store: the fence (I7), and the number of this flush (L4).
#[derive(Debug, Clone)]
pub struct Fence {
    /// The turn.
    pub turn_id: String,
    /// The runner's node, as captured when it started.
    pub incarnation: Incarnation,
    /// The turn's term, as captured when it started.
    pub term: u64,
    /// The number of this flush.
    pub flush: u64,
}

/// How a runner ends its turn.
#[derive(Debug, Clone)]
pub enum End {
    /// The agent finished.
    Completed {
        /// What it cost.
        usage: Option<Box<RawValue>>,
    },
    /// It failed.
    Failed(TurnError),
    /// The intent that the store shows is carried out (T6).
    Intent,
    /// The node shuts down (T8).
    Shutdown,
}

/// What a write asks for.
#[derive(Debug, Clone)]
pub enum Op {
    /// Make the session if it is not there. Appends nothing.
    Create {
        /// The random part of its epoch.
        epoch: String,
        /// Its title.
        title: Option<String>,
        /// Its metadata, a JSON object.
        metadata: Option<Box<RawValue>>,
        /// Its slots; 1 if not said.
        max_running: Option<u32>,
        /// Refuse with `conflict` if it is there.
        must_be_new: bool,
    },
    /// Add a message, and ask for an answer if `turn` says so (T1).
    Send {
        /// The message's id.
        message_id: String,
        /// What it says.
        parts: Vec<Part>,
        /// The turn that answers it.
        turn: Option<NewTurn>,
        /// What to do where no slot is free.
        when_busy: WhenBusy,
        /// How many turns may wait.
        max_queue: usize,
        /// Who sends.
        asker: Asker,
    },
    /// Ask for another answer to the prompt of an ended turn (T1).
    Retry {
        /// The ended turn.
        turn_id: String,
        /// The new one.
        turn: NewTurn,
        /// How many turns may wait.
        max_queue: usize,
        /// Who asks.
        asker: Asker,
    },
    /// Append deltas (T3).
    Append {
        /// The runner's fence.
        fence: Fence,
        /// The deltas.
        deltas: Vec<DeltaEvent>,
        /// The deltas since the last chunk, these included, gathered to one a part where they lie together (L10).
        chunk: Option<Vec<Delta>>,
    },
    /// End a turn by its runner (T4, T6, T8), with the deltas that were not flushed yet.
    Finish {
        /// The runner's fence.
        fence: Fence,
        /// The last deltas.
        deltas: Vec<DeltaEvent>,
        /// The whole answer.
        parts: Vec<Part>,
        /// How it ends.
        end: End,
    },
    /// End a turn that the store shows as running on a node which has no runner for it (I21, T8).
    EndOwned {
        /// The turn.
        turn_id: String,
        /// The node.
        incarnation: Incarnation,
        /// The term that the store showed.
        term: u64,
        /// Failed as `lost`, or cancelled for the shutdown.
        end: End,
    },
    /// Cancel a turn: at once if it waits (T9) or its owner is dead (T7), by intent if it runs (T5).
    Cancel {
        /// The turn.
        turn_id: String,
        /// Who asks.
        asker: Asker,
    },
    /// Carry out an intent that its owner has not carried out in time (T6).
    Force {
        /// The turn.
        turn_id: String,
        /// The term under which the intent was seen.
        term: u64,
    },
    /// End the turns of dead owners (T7) and move the queue (T2).
    Reconcile,
    /// Delete the session, whatever runs in it. Its id is free from then on.
    Delete {
        /// Who asks; must be an admin.
        asker: Asker,
    },
    /// Change the session itself.
    Update {
        /// `Some(None)` clears it.
        title: Option<Option<String>>,
        /// A JSON object, replaced whole.
        metadata: Option<Box<RawValue>>,
        /// How many turns may run at once.
        max_running: Option<u32>,
        /// Who asks.
        asker: Asker,
    },
}

/// What an item needs to have loaded beside the session's row and its queued and running turns.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Lookups<'a> {
    /// A message by its id, with its first turn.
    pub message: Option<&'a str>,
    /// A turn by its id.
    pub turn: Option<&'a str>,
    /// Also every other turn of that turn's prompt.
    pub siblings: bool,
}

impl Op {
    /// What the store must look up for this item.
    pub fn lookups(&self) -> Lookups<'_> {
        match self {
            Self::Send { message_id, .. } => Lookups { message: Some(message_id), ..Lookups::default() },
            Self::Retry { turn_id, .. } => Lookups { turn: Some(turn_id), siblings: true, ..Lookups::default() },
            Self::Cancel { turn_id, .. } | Self::Force { turn_id, .. } | Self::EndOwned { turn_id, .. } => {
                Lookups { turn: Some(turn_id), ..Lookups::default() }
            }
            Self::Append { fence, .. } | Self::Finish { fence, .. } => {
                Lookups { turn: Some(&fence.turn_id), ..Lookups::default() }
            }
            Self::Create { .. } | Self::Reconcile | Self::Update { .. } | Self::Delete { .. } => Lookups::default(),
        }
    }
}

/// What an item did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// The session is there; whether this item made it.
    Created(bool),
    /// The message is there.
    Sent {
        /// Its id.
        message_id: String,
        /// The turn that answers it.
        turn_id: Option<String>,
        /// Its seq.
        seq: u64,
        /// Whether an earlier send had put it there.
        duplicate: bool,
        /// The turns that were asked to end for it.
        interrupted: Vec<String>,
    },
    /// The turn is there.
    Retried {
        /// Its id.
        turn_id: String,
        /// Its number among the prompt's turns.
        attempt: u32,
        /// Whether it was there before.
        duplicate: bool,
    },
    /// The deltas are in the log.
    Appended {
        /// Whether a cancel waits for the owner.
        intent: bool,
    },
    /// The turn has ended.
    Ended {
        /// How.
        status: TurnStatus,
        /// Why, if cancelled.
        reason: Option<EndReason>,
        /// Whether this item ended it.
        now: bool,
    },
    /// The intent is durable; the owner has to carry it out.
    Intended {
        /// The term under which it runs.
        term: u64,
    },
    /// Nothing more to tell.
    Reconciled,
    /// As it is now.
    Updated,
    /// The session is gone.
    Deleted {
        /// The random part of the epoch that it had.
        epoch: String,
        /// The turns that waited or ran; they have no end, as there is no log to have it in.
        turns: Vec<String>,
    },
}

/// Why an item changed nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The session or turn does not exist.
    NotFound(&'static str),
    /// Not the asker's to do.
    Unauthorized(&'static str),
    /// No slot is free and the send would not wait.
    Busy,
    /// The queue is full.
    QueueFull,
    /// The id is taken by something else.
    Conflict(&'static str),
    /// The item contradicts itself or the session.
    Invalid(&'static str),
    /// The node that was to take the turn takes no turns.
    Draining,
    /// The runner does not own the turn any more, or it has ended.
    Fenced,
    /// The store holds less than this runner has written: its history changed (L11).
    HistoryLost,
    /// The turn's partial answer must be loaded first; then the item is applied again.
    NeedsPartial(String),
}

/// What [`apply`] did: the answer, and the turns that the node has to run now.
#[derive(Debug, Clone)]
pub struct Applied {
    /// The answer.
    pub done: Done,
    /// Turns that were given to the item's node.
    pub started: Vec<Turn>,
}

impl Applied {
    /// Whether the item itself asked for this turn, as opposed to having made room for it.
    pub fn asked_for(&self, turn: &Turn) -> bool {
        match &self.done {
            Done::Sent { turn_id, .. } => turn_id.as_deref() == Some(&turn.id),
            Done::Retried { turn_id, .. } => *turn_id == turn.id,
            _ => false,
        }
    }
}
