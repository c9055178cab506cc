//! A session under its lock, what surrounds it, and what must be written of it.

use std::{collections::HashMap, sync::Arc};

use serde_json::value::RawValue;

use super::items::Op;
use crate::{
    clock::Timestamp,
    ids::Incarnation,
    model::{Event, Message, Node, NodeState, Owner, Part, Person, Turn, TurnStatus},
};

/// A session under its lock: its row, and of its turns and messages what the items at hand are about.
#[derive(Debug, Clone)]
pub struct Session {
    /// The store's own key.
    pub key: i64,
    /// The id that its users gave it.
    pub id: Arc<str>,
    /// The random part of its epoch.
    pub epoch: String,
    /// The seq of its newest event; 0 if it has none.
    pub last_seq: u64,
    /// What people call it.
    pub title: Option<String>,
    /// Its users' own JSON object.
    pub metadata: Box<RawValue>,
    /// How many turns may run at once.
    pub max_running: u32,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its newest event that is not a delta was written.
    pub updated_at: Timestamp,
    /// Every queued and running turn, and those ended ones that an item names.
    pub turns: Vec<Turn>,
    /// The messages that items name, by id.
    pub messages: HashMap<String, KnownMessage>,
    /// What running turns have streamed, folded; loaded when [`Refused::NeedsPartial`] asks for it.
    pub partials: HashMap<String, Vec<Part>>,
}

/// What must be known of a message that exists to answer a repeated send.
#[derive(Debug, Clone)]
pub struct KnownMessage {
    /// Whole.
    pub message: Message,
    /// The first turn that it asked for.
    pub turn_id: Option<String>,
}

/// A row to write of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Only its flush number changed.
    Flushed,
    /// Something else changed.
    Changed,
    /// It is new.
    New,
}

/// A message to store.
#[derive(Debug, Clone)]
pub struct StoredMessage {
    /// Its id.
    pub id: String,
    /// Its seq.
    pub seq: u64,
    /// The message as it is sent.
    pub text: String,
}

/// A chunk of a running answer (L10).
#[derive(Debug, Clone)]
pub struct Chunk {
    /// The turn.
    pub turn_id: String,
    /// The seq of the last delta that it holds.
    pub upto: u64,
    /// The gathered deltas since the chunk before, as JSON.
    pub parts: String,
}

/// What must be written for a session, all of it in the transaction that loaded it.
#[derive(Debug, Default)]
pub struct Writes {
    /// In order of seq.
    pub events: Vec<Event>,
    /// New messages, answers of ended turns among them.
    pub messages: Vec<StoredMessage>,
    /// New chunks.
    pub chunks: Vec<Chunk>,
    /// Turns to write, by id.
    pub turns: HashMap<String, Touch>,
    /// Whether the session itself is new.
    pub created: bool,
    /// Whether title, metadata or slots changed.
    pub updated: bool,
    /// Who deleted the session: then it is gone, and so is everything else in here.
    pub deleted: Option<Person>,
}

impl Writes {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.events.is_empty() && self.turns.is_empty() && !self.created && !self.updated && self.deleted.is_none()
    }

    pub(super) fn touch(&mut self, turn_id: &str, touch: Touch) {
        match self.turns.get_mut(turn_id) {
            Some(Touch::New) => {}
            Some(old) if *old == Touch::Changed && touch == Touch::Flushed => {}
            Some(old) => *old = touch,
            None => {
                self.turns.insert(turn_id.to_owned(), touch);
            }
        }
    }
}

/// What is true while a batch is decided.
#[derive(Debug, Clone, Copy)]
pub struct World<'a> {
    /// Every node row, as locked by this transaction.
    pub nodes: &'a [Node],
    /// What is written as the time. Decides nothing.
    pub now: Timestamp,
}

impl World<'_> {
    pub(super) fn state(&self, incarnation: &Incarnation) -> NodeState {
        state_of(self.nodes, incarnation)
    }

    pub(super) fn is_gone(&self, owner: &Owner) -> bool {
        is_gone(self.nodes, owner)
    }
}

fn state_of(nodes: &[Node], incarnation: &Incarnation) -> NodeState {
    nodes.iter().find(|node| node.owner.incarnation == *incarnation).map_or(NodeState::Dead, |node| node.state)
}

/// Owner is gone ⇔ its node row is dead. A row that is missing was dead before it was deleted.
pub fn is_gone(nodes: &[Node], owner: &Owner) -> bool {
    state_of(nodes, &owner.incarnation) == NodeState::Dead
}

/// Makes the session that an [`Op::Create`] asks for; `None` for any other item. The caller has looked: it is not there.
pub fn create(id: &Arc<str>, op: &Op, now: Timestamp) -> Option<Session> {
    let Op::Create { epoch, title, metadata, max_running, .. } = op else { return None };
    Some(Session {
        key: 0,
        id: id.clone(),
        epoch: epoch.clone(),
        last_seq: 0,
        title: title.clone(),
        metadata: metadata.clone().unwrap_or_else(empty_object),
        max_running: max_running.unwrap_or(1),
        created_at: now,
        updated_at: now,
        turns: Vec::new(),
        messages: HashMap::new(),
        partials: HashMap::new(),
    })
}

/// `{}`
fn empty_object() -> Box<RawValue> {
    RawValue::from_string("{}".to_owned()).unwrap_or_default()
}

impl Session {
    /// Forgets what only one transaction's items needed; its row and live turns stay true.
    pub fn settle(&mut self) {
        self.turns.retain(|turn| matches!(turn.status, TurnStatus::Queued | TurnStatus::Running));
        self.messages.clear();
        self.partials.clear();
    }
}

/// The queued turns, as indices, in the order in which they will run.
pub fn queue(turns: &[Turn]) -> Vec<usize> {
    let mut queue: Vec<usize> = (0..turns.len()).filter(|&index| turns[index].status == TurnStatus::Queued).collect();
    queue.sort_by_key(|&index| turns[index].order);
    queue
}

/// The queued and running turns as clients see them: the running ones by start, then the queued ones in the order in
/// which they will run, each with its position (from 1).
pub fn in_order(turns: &[Turn]) -> Vec<(&Turn, Option<usize>)> {
    let mut running: Vec<&Turn> = turns.iter().filter(|turn| turn.status == TurnStatus::Running).collect();
    running.sort_by_key(|turn| turn.started_seq);
    let queued = queue(turns).into_iter().enumerate().map(|(place, index)| (&turns[index], Some(place + 1)));
    running.into_iter().map(|turn| (turn, None)).chain(queued).collect()
}
