//! Rows and texts of a database as values of the model, the same for every database.
//!
//! Each form of the store selects the columns that a struct here names, in its own SQL; what is in them means the same
//! everywhere. Its invariant: what cannot be understood is [`Error::Corrupt`], never a guess.

use std::{collections::HashMap, sync::Arc};

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Compacted, Error, LostTurn, Record, Result, RunningTurn, Waiting};
use crate::{
    clock::Timestamp,
    ids::Incarnation,
    model::{Message, Node, NodeState, Owner, Person, Turn, fold::Delta, machine::Session},
};

/// A number that was never negative when it was written.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A seq, a count or a limit as a database holds it.
pub(super) fn signed<N: TryInto<i64>>(value: N) -> i64 {
    value.try_into().unwrap_or(i64::MAX)
}

/// What waits, by the number of queued turns and when the oldest was accepted.
pub(super) fn waiting((queued, oldest): (i64, Option<String>)) -> Result<Waiting> {
    let read = |at: String| serde_json::from_value(at.into()).map_err(corrupt("when a turn was accepted"));
    Ok(Waiting { queued: unsigned(queued), oldest: oldest.map(read).transpose()? })
}

/// Turns with the ids and titles of their sessions.
pub(super) fn lost(found: Vec<(String, Option<String>, String)>) -> Result<Vec<LostTurn>> {
    let read =
        |(session, title, row): (String, _, String)| Ok(LostTurn { session: session.into(), title, turn: turn(&row)? });
    found.into_iter().map(read).collect()
}

/// A session without its turns.
#[derive(sqlx::FromRow)]
pub(super) struct SessionRow {
    key: i64,
    id: String,
    epoch: String,
    last_seq: i64,
    title: Option<String>,
    metadata: String,
    max_running: i64,
    created_at: i64,
    updated_at: i64,
}

impl SessionRow {
    /// The store's own key of it.
    pub(super) fn key(&self) -> i64 {
        self.key
    }

    /// The session, as yet without turns.
    pub(super) fn session(self) -> Result<Session> {
        Ok(Session {
            key: self.key,
            id: self.id.into(),
            epoch: self.epoch,
            last_seq: unsigned(self.last_seq),
            title: self.title,
            metadata: RawValue::from_string(self.metadata).map_err(corrupt("a session's metadata"))?,
            max_running: u32::try_from(self.max_running).unwrap_or(1),
            created_at: Timestamp(self.created_at),
            updated_at: Timestamp(self.updated_at),
            turns: Vec::new(),
            messages: HashMap::new(),
            partials: HashMap::new(),
        })
    }
}

/// A node.
#[derive(sqlx::FromRow)]
pub(super) struct NodeRow {
    incarnation: String,
    name: String,
    state: String,
    beat: i64,
    lease_ttl_ms: i64,
    exclusive: bool,
    connections: i64,
}

impl NodeRow {
    pub(super) fn node(self) -> Node {
        Node {
            owner: Owner { node: self.name, incarnation: Incarnation(self.incarnation) },
            // What only a newer version knows is no tombstone, and no promise to take turns either.
            state: NodeState::parse(&self.state).unwrap_or(NodeState::Draining),
            beat: self.beat,
            lease_ttl_ms: unsigned(self.lease_ttl_ms),
            exclusive: self.exclusive,
            connections: unsigned(self.connections),
        }
    }
}

/// A running turn, as far as a renewal needs it.
#[derive(sqlx::FromRow)]
pub(super) struct RunningRow {
    session: String,
    turn_id: String,
    owner: String,
    term: i64,
    intent: bool,
}

impl RunningRow {
    pub(super) fn turn(self) -> RunningTurn {
        RunningTurn {
            session: self.session.into(),
            turn_id: self.turn_id,
            owner: Incarnation(self.owner),
            term: unsigned(self.term),
            intent: self.intent,
        }
    }
}

/// An event as a replay reads it.
#[derive(sqlx::FromRow)]
pub(super) struct RecordRow {
    seq: i64,
    kind: String,
    turn_id: Option<String>,
    body: String,
}

impl RecordRow {
    pub(super) fn record(self) -> Record {
        Record { seq: unsigned(self.seq), kind: self.kind, turn_id: self.turn_id, body: self.body }
    }
}

/// Sessions, each with those of `turns`, given with their sessions' keys, that are its own.
pub(super) fn with_turns(rows: Vec<SessionRow>, turns: Vec<(String, i64)>) -> Result<Vec<Session>> {
    let mut by_key: HashMap<i64, Vec<Turn>> = HashMap::new();
    for (text, key) in &turns {
        by_key.entry(*key).or_default().push(turn(text)?);
    }
    let of = |row: SessionRow| {
        let turns = by_key.remove(&row.key).unwrap_or_default();
        Ok(Session { turns, ..row.session()? })
    };
    rows.into_iter().map(of).collect()
}

/// Turns that one step of a compaction looks at.
pub(super) const DUE: usize = 20;

/// What one step of a compaction takes up.
pub(super) struct Due {
    /// The first turns that are due and have about so many deltas as a step may drop: at least one, if any is.
    pub(super) turns: Vec<String>,
    /// Whether there are others.
    rest: bool,
}

impl Due {
    /// Of turns that are due, each with the length of its part of the log, if it has one.
    pub(super) fn of(found: Vec<(String, Option<i64>)>, limit: usize) -> Self {
        let (all, mut sum) = (found.len(), 0);
        let fits = |(_, length): &(String, Option<i64>)| {
            let (before, after) = (sum, sum + length.unwrap_or(0));
            sum = after;
            before == 0 || after <= signed(limit)
        };
        let turns: Vec<String> = found.into_iter().take_while(fits).map(|(id, _)| id).collect();
        let rest = turns.len() < all || all == DUE;
        Self { turns, rest }
    }

    /// What the step has come to, given how many deltas it has dropped. Turns of which there may be more are not done.
    pub(super) fn dropped(&self, deltas: u64, limit: usize) -> Compacted {
        let deltas = usize::try_from(deltas).unwrap_or(usize::MAX);
        Compacted { deltas, more: self.rest || deltas >= limit }
    }
}

/// A turn, as its row holds it.
pub(super) fn turn(text: &str) -> Result<Turn> {
    serde_json::from_str(text).map_err(corrupt("a turn"))
}

/// A stored message.
pub(super) fn message(text: &str) -> Result<Message> {
    serde_json::from_str(text).map_err(corrupt("a message"))
}

/// Who deleted a session.
pub(super) fn person(text: &str) -> Result<Person> {
    serde_json::from_str(text).map_err(corrupt("a person"))
}

/// The gathered deltas of a chunk.
pub(super) fn chunk(text: &str) -> Result<Vec<Delta>> {
    serde_json::from_str(text).map_err(corrupt("a chunk"))
}

/// The delta in the body of a `turn_delta`.
pub(super) fn delta(body: &str) -> Result<Delta> {
    #[derive(Deserialize)]
    struct Body<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let text = format!("{{{body}");
    let body: Body<'_> = serde_json::from_str(&text).map_err(corrupt("a delta"))?;
    serde_json::from_str(body.data.get()).map_err(corrupt("a delta"))
}

/// The ids among texts, as a set without repeats.
pub(super) fn ids(texts: Vec<String>) -> Vec<Arc<str>> {
    texts.into_iter().map(Arc::from).collect()
}

/// How many of something each owner has.
pub(super) fn counts(found: Vec<(String, i64)>) -> HashMap<Incarnation, u64> {
    found.into_iter().map(|(owner, count)| (Incarnation(owner), unsigned(count))).collect()
}

/// What was found where something else should be.
fn corrupt(what: &'static str) -> impl Fn(serde_json::Error) -> Error {
    move |error| Error::Corrupt { what: format!("{what} ({error})") }
}
