//! What a reader of a session gets: the join's one consistent cut, pages of replay, history, lists.
//!
//! Everything is encoded from the texts that the store kept; nothing is parsed but deltas that lie side by side, which
//! are merged into one that carries the last seq and, as `first`, the seq of its first.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Error, Inner, Sessions, topic_of};
use crate::{
    clock::Timestamp,
    ids,
    model::{
        Message, Owner, Person, Turn, TurnStatus,
        event::write_event,
        fold::Delta,
        machine::{self, Op, Session},
        turn::{Liveness, WireTurn},
    },
    pubsub::LogId,
    store::{self, Catchup, Cut, From, ListQuery, Messages, PageLimits, Record, SnapshotReason, Stretch, status_of},
};

/// The answer to a join.
#[derive(Debug, Clone)]
pub struct Joined {
    /// The reply, as JSON.
    pub reply: String,
    /// The seq up to which the reader holds everything after it.
    pub position: u64,
    /// Whether that was the head; otherwise more pages follow.
    pub complete: bool,
    /// The epoch that the position belongs to.
    pub epoch: String,
    /// The log that it is the epoch of.
    pub log: LogId,
}

/// A page of replay, as it is pushed.
#[derive(Debug, Clone)]
pub struct Page {
    /// `{"prev":…,"events":[…]}`; nothing if there was nothing to send.
    pub payload: Option<String>,
    /// The seq up to which the reader holds everything after it.
    pub last: u64,
    /// Whether that was the head.
    pub complete: bool,
}

/// A page of older messages.
#[derive(Debug, Clone)]
pub struct History {
    /// `{"messages","ended","before","has_more"}`
    pub reply: String,
}

/// A session in a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Summary {
    /// Its id.
    #[schema(value_type = String)]
    id: Arc<str>,
    /// Its title.
    #[schema(required = true)]
    title: Option<String>,
    /// `idle`, `queued` or `running`.
    status: &'static str,
    /// How far its log reaches.
    last_seq: u64,
    /// The turns that run in it.
    running: Vec<SummaryTurn>,
    /// When its newest event that is not a delta was written.
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
    #[serde(skip)]
    key: i64,
}

/// A turn that runs, in a list.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
struct SummaryTurn {
    /// Its id.
    turn_id: String,
    /// The agent that answers.
    agent: String,
    /// Who asked.
    by: Person,
    /// `alive`, or `unknown` where its owner was not seen moving for its lease but is not judged.
    #[schema(value_type = String)]
    liveness: Liveness,
}

impl Summary {
    /// The session's id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// Whether it has a turn that waits or runs.
    pub(super) fn is_live(&self) -> bool {
        self.status != "idle"
    }

    /// Whether another look at the same session shows nothing new but how far its log reaches.
    pub(super) fn differs_in_place_only(&self, other: &Self) -> bool {
        self.status == other.status && self.title == other.title && self.running == other.running
    }
}

#[derive(Serialize)]
struct SessionView<'a> {
    id: &'a str,
    epoch: &'a str,
    status: &'static str,
    last_seq: u64,
    title: Option<&'a str>,
    metadata: &'a RawValue,
    max_running: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// What a reader was given to catch up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Given {
    Replay,
    Snapshot(SnapshotReason),
}

impl Given {
    fn of(catchup: &Catchup) -> Self {
        match catchup {
            Catchup::Replay(_) => Self::Replay,
            Catchup::Snapshot { reason, .. } => Self::Snapshot(*reason),
        }
    }
}

/// How often a look repeats its reconciliation before it answers with what it has: other nodes may be at work too.
const TRIES: usize = 3;

impl Sessions {
    /// A join: reconciles, then takes one cut. A session that does not exist is made if `create`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an id that cannot be one, [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn join(&self, session: &str, from: From, create: bool) -> Result<Joined, Error> {
        let begun = Instant::now();
        let cut = self.inner.reconciled_cut(session, Some(&from), create).await?;
        let others = self.inner.pubsub.subscribers(&topic_of(session)) > 1;
        if let Some(before) = self.inner.heads.joined(&cut)
            && others
        {
            self.inner.log_gone(session, &before).await?;
        }
        let joined = self.inner.joined(&cut);
        self.inner.tally.joined(cut.catchup.as_ref().map(Given::of), begun.elapsed());
        Ok(joined)
    }

    /// `{"session","turns"}`, reconciled.
    ///
    /// # Errors
    /// [`Error::Invalid`], [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn look(&self, session: &str) -> Result<String, Error> {
        let cut = self.inner.reconciled_cut(session, None, false).await?;
        let mut text = String::from("{");
        self.inner.write_session_and_turns(&mut text, &cut);
        text.push('}');
        Ok(text)
    }

    /// The next page of a replay. `None` if the log is not the one that the reader knows: it must join anew.
    ///
    /// # Errors
    /// [`Error::Unavailable`], also where the session was deleted: its readers are about to be told.
    pub async fn page(&self, session: &str, epoch: &str, after: u64) -> Result<Option<Page>, Error> {
        let bytes = PageLimits::default().bytes;
        let Some(stretch) = self.inner.store.stretch(session, epoch, after, bytes).await? else {
            let deleted = self.inner.store.deleted(session, epoch).await?.is_some();
            return if deleted { Err(Error::Unavailable) } else { Ok(None) };
        };
        let payload = (!stretch.records.is_empty()).then(|| {
            let mut text = format!("{{\"prev\":{after},\"events\":");
            write_events(&mut text, &stretch.records);
            text.push('}');
            text
        });
        Ok(Some(Page { payload, last: stretch.upto, complete: stretch.complete }))
    }

    /// Messages below `before`, at most `limit` of them.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Unavailable`].
    pub async fn history(&self, session: &str, before: u64, limit: usize) -> Result<History, Error> {
        check_id(session)?;
        let limits = PageLimits { messages: limit, ..PageLimits::default() };
        let messages = self.inner.store.history(session, before, limits).await?;
        let messages = messages.ok_or(Error::NotFound("there is no session with this id"))?;
        let mut reply = String::from("{");
        self.inner.write_messages(&mut reply, &messages, &[]);
        reply.push('}');
        Ok(History { reply })
    }

    /// `{"events","epoch","last_seq"}`: at most `limit` events after a seq, under the replay rules, never trimmed.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Conflict`] if `epoch` is another log's, [`Error::Invalid`] if `after` is ahead of
    /// the log, [`Error::Unavailable`].
    pub async fn events(&self, session: &str, after: u64, epoch: Option<&str>, limit: usize) -> Result<String, Error> {
        let cut = self.inner.reconciled_cut(session, None, false).await?;
        if epoch.is_some_and(|epoch| epoch != cut.epoch) {
            return Err(Error::Conflict("this epoch is another log's; read from the start, without after and epoch"));
        }
        let bytes = PageLimits::default().bytes;
        let stretch = self.inner.store.stretch(session, &cut.epoch, after, bytes).await?;
        let Stretch { mut records, .. } = stretch
            .ok_or_else(|| Error::Invalid(format!("after is {after}, ahead of the log's {}", cut.session.last_seq)))?;
        records.truncate(limit);
        let mut text = String::from("{\"events\":");
        write_events(&mut text, &records);
        text.push_str(&format!(",\"epoch\":{},\"last_seq\":{}}}", json(&cut.epoch), cut.session.last_seq));
        Ok(text)
    }

    /// A page of the list, reconciled, and what to ask with for the next one.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a cursor or status that cannot be one, [`Error::Unavailable`].
    pub async fn list(
        &self,
        prefix: &str,
        status: Option<&str>,
        limit: usize,
        cursor: Option<&str>,
    ) -> Result<(Vec<Summary>, Option<String>), Error> {
        if status.is_some_and(|status| !matches!(status, "idle" | "queued" | "running")) {
            return Err(Error::Invalid("status must be idle, queued or running".to_owned()));
        }
        let after = cursor.map(parse_cursor).transpose()?;
        // What no id begins with is not looked for: not every store can even be asked for any text.
        if !prefix.is_empty() && !ids::is_session_id(prefix) {
            return Ok((Vec::new(), None));
        }
        let query = ListQuery { prefix: prefix.to_owned(), status: status.map(str::to_owned), limit: limit + 1, after };
        let mut sessions = self.inner.reconciled(|| self.inner.store.list(&query)).await?;
        let more = sessions.len() > limit;
        sessions.truncate(limit);
        let summaries: Vec<Summary> = sessions.iter().map(|session| self.inner.summary(session)).collect();
        let next = summaries.last().filter(|_| more).map(Summary::cursor);
        Ok((summaries, next))
    }

    /// As [`Sessions::list`], without the sessions that `shows` leaves out. Looks at a bounded number of them: a page
    /// may hold fewer than `limit`, or none, and yet say what to ask with for the next.
    ///
    /// # Errors
    /// As [`Sessions::list`].
    pub async fn list_where(
        &self,
        prefix: &str,
        status: Option<&str>,
        limit: usize,
        cursor: Option<&str>,
        shows: impl Fn(&str) -> bool,
    ) -> Result<(Vec<Summary>, Option<String>), Error> {
        let (mut found, mut next) = (Vec::new(), cursor.map(str::to_owned));
        for _ in 0..LOOKS {
            let (page, following) = self.list(prefix, status, limit.max(LOOK), next.as_deref()).await?;
            for summary in page.into_iter().filter(|summary| shows(&summary.id)) {
                if found.len() == limit {
                    let last = found.last().map(Summary::cursor);
                    return Ok((found, last));
                }
                found.push(summary);
            }
            next = following;
            if next.is_none() {
                break;
            }
        }
        Ok((found, next))
    }
}

/// How many sessions are looked at together for those that may be shown, and how many times.
const LOOK: usize = 250;
const LOOKS: usize = 8;

impl Summary {
    /// What to ask with for those that follow this one in the list.
    fn cursor(&self) -> String {
        format!("{}.{}", self.updated_at.0, self.key)
    }
}

pub(super) fn check_id(session: &str) -> Result<(), Error> {
    if ids::is_session_id(session) { Ok(()) } else { Err(Error::Invalid(ids::SESSION_ID_RULE.to_owned())) }
}

fn parse_cursor(cursor: &str) -> Result<(i64, i64), Error> {
    let parts = cursor.split_once('.').and_then(|(at, key)| Some((at.parse().ok()?, key.parse().ok()?)));
    parts.ok_or_else(|| Error::Invalid("cursor must be one that an earlier page gave".to_owned()))
}

impl Inner {
    async fn reconciled_cut(&self, id: &str, from: Option<&From>, create: bool) -> Result<Cut, Error> {
        check_id(id)?;
        let session: Arc<str> = Arc::from(id);
        let mut tries = 0;
        loop {
            let cut = self.store.cut(id, from.cloned(), PageLimits::default()).await?;
            let op = match cut {
                None if create && tries <= TRIES => Op::Create {
                    epoch: ids::short(),
                    title: None,
                    metadata: None,
                    max_running: None,
                    must_be_new: false,
                },
                None => return Err(Error::NotFound("there is no session with this id")),
                Some(cut) if cut.needs_work && tries < TRIES => Op::Reconcile,
                Some(cut) => return Ok(cut),
            };
            tries += 1;
            self.write(&session, op).await?;
        }
    }

    /// Sessions as `read` finds them once those that need it are reconciled.
    pub(super) async fn reconciled<F>(&self, read: impl Fn() -> F) -> Result<Vec<Session>, Error>
    where
        F: Future<Output = store::Result<Vec<Session>>> + std::marker::Send,
    {
        let mut sessions = read().await?;
        for _ in 0..TRIES {
            if !self.reconcile_all(&sessions).await? {
                break;
            }
            sessions = read().await?;
        }
        Ok(sessions)
    }

    /// Reconciles those of a list that need it, all at once; whether there were any.
    async fn reconcile_all(&self, sessions: &[Session]) -> Result<bool, Error> {
        let is_running = |turn: &Turn| turn.status == TurnStatus::Running;
        if !sessions.iter().any(|session| !session.turns.is_empty()) {
            return Ok(false);
        }
        // Read after the list: whoever was gone then is gone here.
        let nodes = self.store.nodes().await?;
        let is_orphan =
            |turn: &Turn| is_running(turn) && turn.owner.as_ref().is_none_or(|owner| machine::is_gone(&nodes, owner));
        let takes_turns = !self.draining.load(Ordering::Acquire);
        let mut written = Vec::new();
        for session in sessions {
            let running = session.turns.iter().filter(|turn| is_running(turn)).count();
            let slots = usize::try_from(session.max_running).unwrap_or(usize::MAX);
            let waits = takes_turns && running < session.turns.len() && running < slots;
            if waits || session.turns.iter().any(is_orphan) {
                written.push(self.log.submit(self.item(&session.id, Op::Reconcile)).await);
            }
        }
        let any = !written.is_empty();
        for pending in written {
            // A session that is gone meanwhile is not in what is read next.
            let _refused = pending.answer().await.map_err(Error::from)?;
        }
        Ok(any)
    }

    fn joined(&self, cut: &Cut) -> Joined {
        let mut reply = String::with_capacity(1024);
        reply.push('{');
        self.write_session_and_turns(&mut reply, cut);
        reply.push_str(",\"replay\":");
        let (position, complete) = self.write_replay(&mut reply, cut);
        let Owner { node, incarnation } = self.owner();
        reply.push_str(&format!(",\"node\":{{\"name\":{},\"incarnation\":{}}}}}", json(&node), json(&incarnation)));
        Joined { reply, position, complete, epoch: cut.epoch.clone(), log: LogId::of(&cut.session.epoch) }
    }

    fn write_replay(&self, text: &mut String, cut: &Cut) -> (u64, bool) {
        match &cut.catchup {
            Some(Catchup::Replay(stretch)) => {
                let from = stretch.from;
                text.push_str(&format!("{{\"mode\":\"replay\",\"from\":{from},\"to\":{},\"events\":", stretch.upto));
                write_events(text, &stretch.records);
                text.push('}');
                (stretch.upto, stretch.complete)
            }
            Some(Catchup::Snapshot { reason, messages, streaming }) => {
                let to = cut.session.last_seq;
                text.push_str(&format!("{{\"mode\":\"snapshot\",\"reason\":\"{}\",\"to\":{to},", reason.name()));
                self.write_messages(text, messages, streaming);
                text.push('}');
                (to, true)
            }
            None => {
                text.push_str("null");
                (cut.session.last_seq, true)
            }
        }
    }

    /// `"messages":[…],"ended":[…],"before":…,"has_more":…`, the streaming ones where their seq puts them.
    fn write_messages(&self, text: &mut String, messages: &Messages, streaming: &[Message]) {
        let mut all: Vec<(u64, String)> = messages.messages.clone();
        all.extend(streaming.iter().map(|message| (message.seq, json(message))));
        all.sort_by_key(|(seq, _)| *seq);
        text.push_str("\"messages\":[");
        join_texts(text, all.iter().map(|(_, message)| message.as_str()));
        let ended: Vec<WireTurn<'_>> = messages.ended.iter().map(|turn| turn.wire(None, Liveness::Alive)).collect();
        let (before, more) = (messages.before, messages.has_more);
        text.push_str(&format!("],\"ended\":{},\"before\":{before},\"has_more\":{more}", json(&ended)));
    }

    fn write_session_and_turns(&self, text: &mut String, cut: &Cut) {
        let session = &cut.session;
        let view = SessionView {
            id: &session.id,
            epoch: &cut.epoch,
            status: status_of(&session.turns),
            last_seq: session.last_seq,
            title: session.title.as_deref(),
            metadata: &session.metadata,
            max_running: session.max_running,
            created_at: session.created_at,
            updated_at: session.updated_at,
        };
        let turns: Vec<WireTurn<'_>> = machine::in_order(&session.turns)
            .into_iter()
            .map(|(turn, position)| turn.wire(position, self.liveness(turn)))
            .collect();
        text.push_str(&format!("\"session\":{},\"turns\":{}", json(&view), json(&turns)));
    }

    pub(super) fn summary(&self, session: &Session) -> Summary {
        let running = machine::in_order(&session.turns)
            .into_iter()
            .filter(|(turn, _)| turn.status == TurnStatus::Running)
            .map(|(turn, _)| SummaryTurn {
                turn_id: turn.id.clone(),
                agent: turn.agent.clone(),
                by: turn.by.clone(),
                liveness: self.liveness(turn),
            })
            .collect();
        Summary {
            id: session.id.clone(),
            title: session.title.clone(),
            status: status_of(&session.turns),
            last_seq: session.last_seq,
            running,
            updated_at: session.updated_at,
            key: session.key,
        }
    }
}

/// JSON of a value that has nothing in it that JSON cannot hold.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn join_texts<'a>(text: &mut String, items: impl Iterator<Item = &'a str>) {
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(',');
        }
        text.push_str(item);
    }
}

/// `[EVENT,…]` of records in order of seq, adjacent deltas of one turn and part merged.
fn write_events(text: &mut String, records: &[Record]) {
    text.push('[');
    let mut merged: Option<Merged<'_>> = None;
    let mut first = true;
    let mut separate = |text: &mut String| {
        if !std::mem::take(&mut first) {
            text.push(',');
        }
    };
    for record in records {
        let next = Merged::begin(record);
        merged = match (merged.take(), next) {
            (Some(mut run), Some(next)) if run.takes(&next) => {
                run.take(next);
                Some(run)
            }
            (run, next) => {
                if let Some(run) = run {
                    separate(text);
                    run.write_to(text);
                }
                if next.is_none() {
                    separate(text);
                    write_event(text, record.seq, &record.body);
                }
                next
            }
        };
    }
    if let Some(run) = merged {
        separate(text);
        run.write_to(text);
    }
    text.push(']');
}

/// A run of deltas of one turn and part with no event between them.
struct Merged<'a> {
    first: u64,
    last: &'a Record,
    delta: Delta,
}

#[derive(Deserialize, Serialize)]
struct DeltaBody<'a> {
    #[serde(borrow)]
    r#type: &'a RawValue,
    #[serde(borrow)]
    at: &'a RawValue,
    #[serde(borrow)]
    by: &'a RawValue,
    #[serde(borrow)]
    turn_id: &'a RawValue,
    data: Delta,
}

impl<'a> Merged<'a> {
    /// A run of one; nothing if the record is no delta of a kind that this version knows.
    fn begin(record: &'a Record) -> Option<Self> {
        if record.kind != "turn_delta" {
            return None;
        }
        let text = format!("{{{}", record.body);
        let body: DeltaBody<'_> = serde_json::from_str(&text).ok()?;
        let delta = body.data;
        Some(Self { first: record.seq, last: record, delta })
    }

    fn takes(&self, next: &Self) -> bool {
        self.last.turn_id == next.last.turn_id && self.delta.part == next.delta.part
    }

    fn take(&mut self, next: Self) {
        self.last = next.last;
        self.delta.merge(&next.delta);
    }

    fn write_to(&self, text: &mut String) {
        if self.first == self.last.seq {
            write_event(text, self.last.seq, &self.last.body);
            return;
        }
        let whole = format!("{{{}", self.last.body);
        let Ok(body) = serde_json::from_str::<DeltaBody<'_>>(&whole) else { return };
        let body = json(&DeltaBody { data: self.delta.clone(), ..body });
        let body = body.strip_prefix('{').unwrap_or(&body);
        write_event(text, self.last.seq, &format!("\"first\":{},{body}", self.first));
    }
}

#[cfg(test)]
impl Summary {
    /// A session as a test says: its id, status, title and place.
    pub(super) fn sample(id: &str, status: &'static str, title: Option<&str>, last_seq: u64) -> Self {
        let running = (status == "running").then(|| SummaryTurn {
            turn_id: "t".to_owned(),
            agent: "echo".to_owned(),
            by: Person { id: "u1".to_owned(), name: "Ada".to_owned() },
            liveness: Liveness::Alive,
        });
        let (title, running) = (title.map(str::to_owned), running.into_iter().collect());
        Self { id: id.into(), title, status, last_seq, running, updated_at: Timestamp(0), key: 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delta(seq: u64, turn: &str, part: u32, text: &str) -> Record {
        Record {
            seq,
            kind: "turn_delta".into(),
            turn_id: Some(turn.into()),
            body: format!(
                r#""type":"turn_delta","at":"t{seq}","by":null,"turn_id":"{turn}","data":{{"part":{part},"kind":"text","text":"{text}"}}}}"#
            ),
        }
    }

    fn events(records: &[Record]) -> Vec<serde_json::Value> {
        let mut text = String::new();
        write_events(&mut text, records);
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn adjacent_deltas_of_one_part_become_one_that_carries_the_last_seq_and_the_first() {
        let all = events(&[delta(3, "t", 0, "a"), delta(4, "t", 0, "b"), delta(5, "t", 1, "c"), delta(6, "u", 1, "d")]);
        assert_eq!(all.len(), 3);
        assert_eq!((&all[0]["seq"], &all[0]["first"], &all[0]["data"]["text"]), (&4.into(), &3.into(), &"ab".into()));
        assert_eq!(all[0]["at"], "t4");
        assert_eq!((&all[1]["seq"], all[1].get("first")), (&5.into(), None));
        assert_eq!(all[2]["turn_id"], "u");
    }

    #[test]
    fn an_event_between_two_deltas_keeps_them_apart_and_unknown_kinds_are_passed_on() {
        let other = Record { seq: 4, kind: "novelty".into(), turn_id: None, body: "\"type\":\"novelty\"}".into() };
        let all = events(&[delta(3, "t", 0, "a"), other, delta(5, "t", 0, "b")]);
        assert_eq!(all.iter().map(|e| e["seq"].as_u64().unwrap()).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(all[1]["type"], "novelty");
    }
}
