//! Rows of the database as values of the model.

use std::{collections::HashMap, sync::Arc};

use serde_json::value::RawValue;
use sqlx::{Row, sqlite::SqliteRow};

use super::super::{Error, Result, RunningTurn};
use crate::{
    clock::Timestamp,
    ids::Incarnation,
    model::{Node, NodeState, Owner, Turn, machine::Session},
};

/// The columns that [`session`] reads.
pub(super) const SESSION: &str = "s.key, s.id, s.epoch,
    coalesce((SELECT max(e.seq) FROM events e WHERE e.session_key = s.key), 0),
    s.title, s.metadata, s.max_running, s.created_at, s.updated_at";

/// The columns that [`turn`] reads.
pub(super) const TURN: &str = "t.row";

/// A number that was never negative when it was written.
pub(super) fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// A seq or count as the database holds it.
pub(super) fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A session without its turns.
pub(super) fn session(row: &SqliteRow) -> Result<Session> {
    Ok(Session {
        key: row.get(0),
        id: Arc::from(row.get::<&str, _>(1)),
        epoch: row.get(2),
        last_seq: unsigned(row.get(3)),
        title: row.get(4),
        metadata: RawValue::from_string(row.get(5)).map_err(|error| corrupt("a session's metadata", &error))?,
        max_running: u32::try_from(row.get::<i64, _>(6)).unwrap_or(1),
        created_at: Timestamp(row.get(7)),
        updated_at: Timestamp(row.get(8)),
        turns: Vec::new(),
        messages: HashMap::new(),
        partials: HashMap::new(),
    })
}

/// A turn.
pub(super) fn turn(row: &SqliteRow) -> Result<Turn> {
    serde_json::from_str(row.get(0)).map_err(|error| corrupt("a turn", &error))
}

/// A node: `incarnation, name, state, beat, lease_ttl_ms, exclusive`.
pub(super) fn node(row: &SqliteRow) -> Result<Node> {
    let state: &str = row.get(2);
    Ok(Node {
        owner: Owner { node: row.get(1), incarnation: Incarnation(row.get(0)) },
        state: NodeState::parse(state).ok_or_else(|| Error::Corrupt { what: format!("a node in state {state:?}") })?,
        beat: row.get(3),
        lease_ttl_ms: unsigned(row.get(4)),
        exclusive: row.get::<i64, _>(5) != 0,
    })
}

/// A running turn: session id, turn id, owner, term, intent.
pub(super) fn running(row: &SqliteRow) -> RunningTurn {
    RunningTurn {
        session: Arc::from(row.get::<&str, _>(0)),
        turn_id: row.get(1),
        owner: Incarnation(row.get(2)),
        term: unsigned(row.get(3)),
        intent: row.get::<i64, _>(4) != 0,
    }
}

/// What was found where something else should be.
pub(super) fn corrupt(what: &str, error: &serde_json::Error) -> Error {
    Error::Corrupt { what: format!("{what} ({error})") }
}
