//! A batch between its reading and its writing: what the state machine decides item by item, and the rows that this
//! makes, as JSON that a database takes apart in one statement each. The same for every form of the store.
//!
//! It knows no SQL and no lock. Its invariant: an item that is refused leaves nothing in [`Rows`].

use std::{collections::HashMap, sync::Arc};

use serde::Serialize;

use super::{
    Appended, Item, Result,
    rows::{self, signed},
};
use crate::{
    clock,
    model::{
        Event, EventKind, Node, Part, Person, Turn, fold,
        machine::{self, Applied, Done, Refused, Session, Touch, Writes},
    },
};

/// Sessions by their ids.
pub(super) type Sessions = HashMap<Arc<str>, Session>;
/// What must be written, by session id.
pub(super) type Written = HashMap<Arc<str>, Writes>;

/// What an item came to, or what must be read first.
pub(super) enum Step {
    /// Its answer.
    Done(std::result::Result<Applied, Refused>),
    /// What this turn has streamed must be put into its session's partials; then the item is tried again.
    NeedsPartial(String),
}

/// Decides one item. `birth` gives a session that this item makes its key.
pub(super) fn decide(
    sessions: &mut Sessions,
    written: &mut Written,
    nodes: &[Node],
    item: &Item,
    birth: impl FnOnce(Session) -> Session,
) -> Step {
    let now = clock::now();
    let Some(session) = sessions.get_mut(&item.session) else {
        let Some(session) = machine::create(&item.session, &item.op, now) else {
            return Step::Done(Err(Refused::NotFound("there is no session with this id")));
        };
        sessions.insert(item.session.clone(), birth(session));
        written.entry(item.session.clone()).or_default().created = true;
        return Step::Done(Ok(Applied { done: Done::Created(true), started: Vec::new() }));
    };
    let writes = written.entry(item.session.clone()).or_default();
    if writes.deleted.is_some() {
        return Step::Done(Err(Refused::NotFound("the session with this id has just been deleted")));
    }
    match machine::apply(session, machine::World { nodes, now }, item.node.as_ref(), &item.op, writes) {
        Err(Refused::NeedsPartial(turn_id)) => Step::NeedsPartial(turn_id),
        outcome => Step::Done(outcome),
    }
}

/// Adds what this batch has decided of a turn to what the database shows of it, so that its end has both.
pub(super) fn with_pending(mut parts: Vec<Part>, turn_id: &str, pending: Option<&Writes>) -> Result<Vec<Part>> {
    let of_turn = |event: &&Event| event.kind == EventKind::TurnDelta && event.turn_id.as_deref() == Some(turn_id);
    for event in pending.iter().flat_map(|writes| &writes.events).filter(of_turn) {
        fold::apply(&mut parts, &rows::delta(&event.body)?);
    }
    Ok(parts)
}

/// The seq of a turn's start, after which its deltas are.
pub(super) fn started_seq(session: &Session, turn_id: &str) -> u64 {
    session.turns.iter().find(|turn| turn.id == turn_id).and_then(|turn| turn.started_seq).unwrap_or(0)
}

/// What was appended, for those who publish it.
pub(super) fn appended(written: Written) -> Vec<Appended> {
    written
        .into_iter()
        .filter(|(_, writes)| !writes.events.is_empty() && writes.deleted.is_none())
        .map(|(session, writes)| Appended { session, events: writes.events })
        .collect()
}

/// One entry for each session, of what several transactions have appended in this order.
pub(super) fn merged(parts: Vec<Appended>) -> Vec<Appended> {
    let mut merged: Vec<Appended> = Vec::with_capacity(parts.len());
    let mut places: HashMap<Arc<str>, usize> = HashMap::new();
    for part in parts {
        match places.get(&part.session).and_then(|&place| merged.get_mut(place)) {
            Some(first) => first.events.extend(part.events),
            None => {
                places.insert(part.session.clone(), merged.len());
                merged.push(part);
            }
        }
    }
    merged
}

#[derive(Serialize)]
pub(super) struct EventRow<'a>(i64, i64, &'a str, Option<&'a str>, Option<i64>, &'a str);

#[derive(Serialize)]
pub(super) struct MessageRow<'a>(i64, i64, &'a str, &'a str);

#[derive(Serialize)]
pub(super) struct ChunkRow<'a>(&'a str, i64, &'a str);

#[derive(Serialize)]
pub(super) struct SessionRow<'a> {
    key: i64,
    id: &'a str,
    epoch: &'a str,
    last_seq: i64,
    title: Option<&'a str>,
    /// Text within text: the database keeps it as it is.
    metadata: &'a str,
    max_running: u32,
    created_at: i64,
    updated_at: i64,
}

#[derive(Serialize)]
pub(super) struct DeletedRow<'a> {
    pub(super) key: i64,
    id: &'a str,
    epoch: &'a str,
    by: String,
    at: i64,
}

#[derive(Serialize)]
pub(super) struct TurnRow<'a> {
    id: &'a str,
    session: i64,
    status: &'a str,
    prompt: &'a str,
    attempt: u32,
    owner: Option<&'a str>,
    term: i64,
    flushed: i64,
    intent: i64,
    ended_at: Option<i64>,
    row: String,
}

#[derive(Serialize)]
pub(super) struct FlushRow<'a>(&'a str, i64);

#[derive(Serialize)]
pub(super) struct HeadRow(i64, i64, i64);

/// The rows of one batch, by the statement that writes them.
#[derive(Default)]
pub(super) struct Rows<'a> {
    /// `[session key, seq, kind, turn, flush, body]`
    pub(super) events: Vec<EventRow<'a>>,
    /// `[session key, seq, id, text]`
    pub(super) messages: Vec<MessageRow<'a>>,
    /// `[turn, upto, parts]`
    pub(super) chunks: Vec<ChunkRow<'a>>,
    /// Sessions that are new or of which more than the head changed.
    pub(super) sessions: Vec<SessionRow<'a>>,
    /// `[session key, last_seq, updated_at]` of every session that has events.
    pub(super) heads: Vec<HeadRow>,
    /// Turns of which more than the flush number changed.
    pub(super) turns: Vec<TurnRow<'a>>,
    /// `[turn, number of flushes]` of the turns of which only that changed.
    pub(super) flushes: Vec<FlushRow<'a>>,
    /// Turns that have ended: they are never folded from their chunks again.
    pub(super) ended: Vec<&'a str>,
    /// Sessions that are gone; nothing else here is about them.
    pub(super) deleted: Vec<DeletedRow<'a>>,
}

impl<'a> Rows<'a> {
    /// The rows of everything that a batch decided.
    pub(super) fn of(sessions: &'a Sessions, written: &'a Written) -> Self {
        let mut rows = Self::default();
        for (id, writes) in written {
            if let Some(session) = sessions.get(id).filter(|_| !writes.is_empty()) {
                rows.add(session, writes);
            }
        }
        rows
    }

    fn add(&mut self, session: &'a Session, writes: &'a Writes) {
        let key = session.key;
        if let Some(by) = &writes.deleted {
            self.deleted.push(deleted_row(session, by));
            return;
        }
        for event in &writes.events {
            let (seq, kind, flush) = (signed(event.seq), event.kind.name(), event.flush.map(signed));
            self.events.push(EventRow(key, seq, kind, event.turn_id.as_deref(), flush, &event.body));
        }
        for message in &writes.messages {
            self.messages.push(MessageRow(key, signed(message.seq), &message.id, &message.text));
        }
        let deltas_only = writes.events.iter().all(|event| event.kind == EventKind::TurnDelta);
        if writes.created || writes.updated || !deltas_only {
            self.sessions.push(session_row(session));
        }
        if !writes.events.is_empty() {
            self.heads.push(HeadRow(key, signed(session.last_seq), session.updated_at.0));
        }
        for turn in &session.turns {
            match writes.turns.get(&turn.id) {
                None => {}
                Some(Touch::Flushed) => self.flushes.push(FlushRow(&turn.id, signed(turn.flushed))),
                Some(Touch::Changed | Touch::New) => {
                    if turn.is_ended() {
                        self.ended.push(&turn.id);
                    }
                    self.turns.push(turn_row(key, turn));
                }
            }
        }
        for chunk in writes.chunks.iter().filter(|chunk| !self.ended.contains(&chunk.turn_id.as_str())) {
            self.chunks.push(ChunkRow(&chunk.turn_id, signed(chunk.upto), &chunk.parts));
        }
    }
}

pub(super) fn session_row(session: &Session) -> SessionRow<'_> {
    SessionRow {
        key: session.key,
        id: &session.id,
        epoch: &session.epoch,
        last_seq: signed(session.last_seq),
        title: session.title.as_deref(),
        metadata: session.metadata.get(),
        max_running: session.max_running,
        created_at: session.created_at.0,
        updated_at: session.updated_at.0,
    }
}

fn deleted_row<'a>(session: &'a Session, by: &Person) -> DeletedRow<'a> {
    // Two strings: there is nothing in a person that JSON cannot hold.
    let by = serde_json::to_string(by).unwrap_or_default();
    DeletedRow { key: session.key, id: &session.id, epoch: &session.epoch, by, at: clock::now().0 }
}

fn turn_row(session: i64, turn: &Turn) -> TurnRow<'_> {
    TurnRow {
        id: &turn.id,
        session,
        status: turn.status.name(),
        prompt: &turn.prompt_id,
        attempt: turn.attempt,
        owner: turn.owner.as_ref().map(|owner| owner.incarnation.0.as_str()),
        term: signed(turn.term),
        flushed: signed(turn.flushed),
        intent: i64::from(turn.intent.is_some()),
        ended_at: turn.ended_at.map(|at| at.0),
        // Strings and numbers: there is nothing in a turn that JSON cannot hold.
        row: serde_json::to_string(turn).unwrap_or_default(),
    }
}
