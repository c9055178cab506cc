//! The durable truth: sessions, logs, turns and nodes.
//!
//! A store knows no topic, no connection and no agent. It gives seqs, it evaluates fences on rows that it has locked,
//! and it commits many sessions' items in one transaction; what it decides comes from [`crate::model::machine`], so
//! that every form of it decides alike. Its invariant: when [`Store::commit`] answers, what it answers survives a
//! power cut, and every seq up to `last_seq` is there exactly once.

mod batch;
pub mod postgres;
mod read;
mod rows;
pub mod sqlite;

#[cfg(test)]
mod conformance;

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use async_trait::async_trait;

pub use self::{postgres::Postgres, sqlite::Sqlite};
use crate::{
    clock::Timestamp,
    ids::Incarnation,
    model::{
        Event, Message, Node, Owner, Person, Turn, TurnStatus,
        machine::{Applied, Op, Refused, Session},
    },
};

/// What went wrong with the store itself, as opposed to an item that it refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be reached or cannot write now; whether the last write happened is open. Repeat it.
    #[error("the store is not available while {doing}")]
    Unavailable {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: Option<sqlx::Error>,
    },
    /// It refuses the content of a write; nothing of the batch was written.
    #[error("the store refuses what was to be written while {doing}")]
    Content {
        /// What was being done.
        doing: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// What it holds cannot be understood.
    #[error("the store holds something that this version does not understand: {what}")]
    Corrupt {
        /// What was found.
        what: String,
    },
    /// Another server uses it.
    #[error("{path} is in use by another rejoin server: stop that one, or use another database file")]
    Locked {
        /// The database file.
        path: PathBuf,
    },
    /// It cannot be opened, for a reason that a person must mend.
    #[error("{place}: {why}")]
    Refused {
        /// The database, as it may be shown: a file, or a server's address and a database's name.
        place: String,
        /// What is wrong and what to do.
        why: String,
    },
}

/// The answer of a store, or why there is none.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// One write: an operation on a session, and the node that runs what it starts.
#[derive(Debug, Clone)]
pub struct Item {
    /// The session's id.
    pub session: Arc<str>,
    /// The node that takes what can start; nothing starts without one.
    pub node: Option<Owner>,
    /// What to do; shared, since it is kept until its answer is known and a repetition is the same again.
    pub op: Arc<Op>,
}

/// What a committed batch did.
#[derive(Debug, Default)]
pub struct Committed {
    /// One answer per item, in the batch's order.
    pub outcomes: Vec<std::result::Result<Applied, Refused>>,
    /// What was appended, one entry per session, events in order of seq.
    pub appended: Vec<Appended>,
}

/// What one step of a compaction did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compacted {
    /// How many deltas are gone.
    pub deltas: usize,
    /// Whether another step may find more.
    pub more: bool,
}

/// Events that a batch appended to one session.
#[derive(Debug, Clone)]
pub struct Appended {
    /// The session's id.
    pub session: Arc<str>,
    /// In order of seq, without a gap.
    pub events: Vec<Event>,
}

/// A turn that the store shows as running, as far as a renewal needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningTurn {
    /// Its session.
    pub session: Arc<str>,
    /// Its id.
    pub turn_id: String,
    /// Its owner.
    pub owner: Incarnation,
    /// Its term.
    pub term: u64,
    /// Whether a cancel waits for the owner.
    pub intent: bool,
}

/// What one renewal wrote and read, in one transaction.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Whether the own row was there, not dead, and has the new beat now.
    pub renewed: bool,
    /// Every node row.
    pub nodes: Vec<Node>,
    /// The running turns of this node, and those of other nodes that a cancel waits for.
    pub turns: Vec<RunningTurn>,
    /// The store's history: a part of every epoch.
    pub history: String,
}

/// The nodes, and how many turns run on them.
pub type AtWork = (Vec<Node>, HashMap<Incarnation, u64>);

/// Where a reader of a session stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// Nothing is held.
    Start(SnapshotReason),
    /// Everything up to this seq of this epoch is held.
    Cursor {
        /// The last seq held.
        seq: u64,
        /// The epoch it belongs to.
        epoch: String,
    },
}

/// Why a join is answered with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotReason {
    /// No cursor was given.
    FirstJoin,
    /// What was given is no cursor.
    CursorInvalid,
    /// The cursor belongs to another log.
    EpochChanged,
    /// The cursor is ahead of the log.
    CursorAhead,
    /// The cursor is too far behind.
    Trimmed,
}

impl SnapshotReason {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstJoin => "first_join",
            Self::CursorInvalid => "cursor_invalid",
            Self::EpochChanged => "epoch_changed",
            Self::CursorAhead => "cursor_ahead",
            Self::Trimmed => "trimmed",
        }
    }
}

/// A stored event as a replay reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its seq.
    pub seq: u64,
    /// The name of its type; may be one of a newer version.
    pub kind: String,
    /// The turn that it is about.
    pub turn_id: Option<String>,
    /// Its text after the seq.
    pub body: String,
}

/// A stretch of a log under the replay rules: deltas of turns that have ended are left out.
#[derive(Debug, Clone, Default)]
pub struct Stretch {
    /// The seq after which it was read.
    pub from: u64,
    /// In order of seq.
    pub records: Vec<Record>,
    /// The seq up to which the reader now holds everything: the last record's, or the head if nothing is left.
    pub upto: u64,
    /// Whether `upto` was the head when this was read.
    pub complete: bool,
}

/// Folded messages of a session, oldest first, and how their prompts' turns ended.
#[derive(Debug, Clone, Default)]
pub struct Messages {
    /// As they are sent, with their seqs.
    pub messages: Vec<(u64, String)>,
    /// For each prompt among them its newest turn, if that has ended.
    pub ended: Vec<Turn>,
    /// The seq to ask with for older ones.
    pub before: u64,
    /// Whether there are older ones.
    pub has_more: bool,
}

/// What a reader gets to catch up.
#[derive(Debug, Clone)]
pub enum Catchup {
    /// What it missed.
    Replay(Stretch),
    /// Everything anew.
    Snapshot {
        /// Why.
        reason: SnapshotReason,
        /// The newest messages.
        messages: Messages,
        /// The answers of the running turns as they are now.
        streaming: Vec<Message>,
    },
}

/// One consistent look at a session.
#[derive(Debug, Clone)]
pub struct Cut {
    /// Its row, with the queued and running turns.
    pub session: Session,
    /// Its whole epoch.
    pub epoch: String,
    /// Whether it needs work: an orphan, or a queued turn and a free slot.
    pub needs_work: bool,
    /// What the reader gets; nothing if nothing was asked for.
    pub catchup: Option<Catchup>,
}

/// What one step of emptying deleted sessions did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// Rows that it removed.
    pub rows: usize,
    /// Whether there may be more to remove.
    pub more: bool,
}

/// The part of an epoch that is the session's own: it names one log, whatever becomes of the store's history.
pub fn log_of(epoch: &str) -> &str {
    epoch.split('.').next().unwrap_or(epoch)
}

/// Which sessions a list shows.
#[derive(Debug, Clone, Default)]
pub struct ListQuery {
    /// Only ids that begin with this.
    pub prefix: String,
    /// Only sessions of this status: `idle`, `queued` or `running`.
    pub status: Option<String>,
    /// At most this many.
    pub limit: usize,
    /// Only what comes after this in the list: `updated_at` and key of the last one seen.
    pub after: Option<(i64, i64)>,
}

/// Which sessions are read beside those of a page of the list.
#[derive(Debug, Clone)]
pub enum Pick {
    /// Those of these ids, none of them twice, that are there.
    These(Vec<Arc<str>>),
    /// Those with a queued or running turn; at most so many, the same ones as long as they have one.
    Live(usize),
    /// Those with one of the so many running turns that began first, or of the so many queued ones that wait longest.
    Oldest(usize),
}

/// Limits of what one answer carries.
#[derive(Debug, Clone, Copy)]
pub struct PageLimits {
    /// At most this many messages.
    pub messages: usize,
    /// About this many bytes.
    pub bytes: usize,
    /// A cursor further behind than this gets a snapshot.
    pub trim: u64,
}

impl Default for PageLimits {
    fn default() -> Self {
        Self { messages: 100, bytes: 256 * 1024, trim: 5_000 }
    }
}

/// What waits in a store, of all nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Waiting {
    /// Turns that wait for a slot.
    pub queued: u64,
    /// When the oldest of them was accepted.
    pub oldest: Option<Timestamp>,
}

/// A turn whose owner was gone.
#[derive(Debug, Clone)]
pub struct LostTurn {
    /// The session's id.
    pub session: Arc<str>,
    /// The session's title.
    pub title: Option<String>,
    /// The turn.
    pub turn: Turn,
}

/// The connections of one server to its store, but for those that only it itself uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pool {
    /// As many as there may be.
    pub most: usize,
    /// Those that are being used.
    pub busy: usize,
    /// Those that are open and wait to be used.
    pub idle: usize,
}

/// A node's own row, as it is inserted.
#[derive(Debug, Clone)]
pub struct NewNode {
    /// Label and identity.
    pub owner: Owner,
    /// The first beat.
    pub beat: i64,
    /// The lease's length.
    pub lease_ttl_ms: u64,
    /// The operator's promise that the name is never used twice at once.
    pub exclusive: bool,
    /// Whether this is a process start, as opposed to a return after retirement.
    pub process_start: bool,
}

/// A durable store of sessions. All methods may be called at once. Dropping a future leaves open whether its write
/// happens.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// How many batches it can be committing at once. Whoever commits so many puts no session into two of them.
    fn lanes(&self) -> usize {
        1
    }

    /// Writes a batch in one transaction: the items of one session take effect in order, each seeing the ones before.
    /// An item that is refused changes nothing and fails nobody else. What follows an [`Op::Delete`] in its batch finds
    /// no session, not even to make one.
    async fn commit(&self, batch: Arc<Vec<Item>>) -> Result<Committed>;

    /// Inserts this node's row. At a process start, tombstones every row whose death is proved: those of a file that
    /// this process has locked, and those of its own exclusive name.
    async fn start_node(&self, node: NewNode) -> Result<()>;

    /// Writes `beat`, and how many clients the node has, into its row and reads everything that a node must know, in one
    /// transaction.
    async fn renew(&self, node: &Incarnation, beat: i64, connections: u64) -> Result<Renewal>;

    /// `live → draining`. False if the row was not live.
    async fn drain_node(&self, node: &Incarnation) -> Result<bool>;

    /// The tombstone: `state <> dead AND beat = the one seen`; without a beat, the node's own last word.
    /// False if nothing changed. Also deletes rows that have been dead and without a running turn.
    async fn bury_node(&self, node: &Incarnation, beat: Option<i64>) -> Result<bool>;

    /// The whole epoch and the head of each of these sessions that is there, in no order: one query for all.
    async fn heads(&self, sessions: &[Arc<str>]) -> Result<Vec<(Arc<str>, String, u64)>>;

    /// Names what this store holds, the same for all nodes that share it and for nobody else; `None` where no other
    /// node can share it. Known once the store is open.
    fn scope(&self) -> Option<Arc<str>> {
        None
    }

    /// Sessions with an orphan, or with a queued turn and a free slot; at most `limit`.
    async fn needs_work(&self, limit: usize) -> Result<Vec<Arc<str>>>;

    /// Every node row, and how many turns each owner runs, of those that run any.
    async fn at_work(&self) -> Result<AtWork>;

    /// What waits: one query over the queued turns.
    async fn waiting(&self) -> Result<Waiting>;

    /// The turns that were cut last because their owner was gone, newest first, each with its session's id and title.
    async fn lost(&self, limit: usize) -> Result<Vec<LostTurn>>;

    /// How its connections are used at this moment.
    fn pool(&self) -> Pool;

    /// One consistent look at a session, with what a reader needs to catch up from `from`.
    async fn cut(&self, session: &str, from: Option<From>, limits: PageLimits) -> Result<Option<Cut>>;

    /// The next stretch of a log after a seq, of about `bytes` bytes. `None` if the session is not there any more, or
    /// its epoch is not `epoch`, or its head is below `after`.
    async fn stretch(&self, session: &str, epoch: &str, after: u64, bytes: usize) -> Result<Option<Stretch>>;

    /// Messages below a seq, without answers that are still streaming. `None` if there is no such session.
    async fn history(&self, session: &str, before: u64, limits: PageLimits) -> Result<Option<Messages>>;

    /// What the agent of a running turn is to answer, oldest first, the prompt last.
    async fn context(&self, session: &str, turn_id: &str, limit: usize) -> Result<Vec<Message>>;

    /// Sessions by `updated_at`, newest first, each with its queued and running turns.
    async fn list(&self, query: &ListQuery) -> Result<Vec<Session>>;

    /// These sessions in no order, each with its queued and running turns: two queries for all.
    async fn pick(&self, pick: &Pick) -> Result<Vec<Session>>;

    /// Every node row.
    async fn nodes(&self) -> Result<Vec<Node>>;

    /// One step of dropping the deltas of turns that ended before `ended_before`: at most `limit` of them.
    async fn compact(&self, ended_before: Timestamp, limit: usize) -> Result<Compacted>;

    /// Who deleted the session of this id that had this epoch, or this random part of one; `None` if nobody did, or long
    /// ago.
    async fn deleted(&self, session: &str, epoch: &str) -> Result<Option<Person>>;

    /// Removes at most `limit` rows of what deleted sessions have left behind; those that were deleted before
    /// `forget_before`, and have left nothing, are forgotten.
    async fn purge(&self, limit: usize, forget_before: Timestamp) -> Result<Purged>;

    /// Raises the history number: every epoch changes, every cursor gets a snapshot.
    async fn new_history(&self) -> Result<String>;

    /// Finishes what was begun and closes; everything after it is answered with [`Error::Unavailable`]. Gives a database
    /// file free for another server.
    async fn close(&self);
}

/// The status of a session, from its queued and running turns.
pub fn status_of(turns: &[Turn]) -> &'static str {
    if turns.iter().any(|turn| turn.status == TurnStatus::Running) {
        "running"
    } else if turns.iter().any(|turn| turn.status == TurnStatus::Queued) {
        "queued"
    } else {
        "idle"
    }
}
