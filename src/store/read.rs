//! What readers get — joins, replays, pages of history, contexts — decided once for every form of the store.
//!
//! A form gives a [`Snapshot`]: statements on one consistent state of its database. Everything else is here: which
//! cursor is honoured, how a partial is folded, what fits on a page. It knows no SQL.

use super::{
    Catchup, Cut, From, Messages, PageLimits, Record, Result, SnapshotReason, Stretch,
    rows::{self, signed, unsigned},
};
use crate::model::{
    Message, Node, Part, Turn, TurnStatus, fold,
    machine::{self, Session},
};

/// Events that one statement of a replay reads at most.
const STRIDE: usize = 512;
/// What an event counts on a page beside its body, in bytes.
pub(super) const RECORD_COST: usize = 24;

/// Statements on one consistent state of a database. Seqs and counts are the database's own signed numbers.
pub(super) trait Snapshot: Send {
    /// A session without its turns.
    fn session(&mut self, id: &str) -> impl Future<Output = Result<Option<Session>>> + Send;
    /// Its queued and running turns.
    fn live_turns(&mut self, key: i64) -> impl Future<Output = Result<Vec<Turn>>> + Send;
    /// Every node row.
    fn nodes(&mut self) -> impl Future<Output = Result<Vec<Node>>> + Send;
    /// The store's history.
    fn history(&mut self) -> impl Future<Output = Result<String>> + Send;
    /// The chunks of a turn in order: the seq up to which each reaches, and its deltas.
    fn chunks(&mut self, turn_id: &str) -> impl Future<Output = Result<Vec<(i64, String)>>> + Send;
    /// The bodies of a turn's deltas after a seq, in order.
    fn deltas(&mut self, key: i64, turn_id: &str, after: i64) -> impl Future<Output = Result<Vec<String>>> + Send;
    /// Seqs and bytes of the newest messages below a seq, newest first.
    fn sizes(&mut self, key: i64, before: i64, limit: i64) -> impl Future<Output = Result<Vec<(i64, i64)>>> + Send;
    /// Seq, id and text of the messages from a seq to below another, oldest first.
    fn messages(
        &mut self,
        key: i64,
        from: i64,
        before: i64,
    ) -> impl Future<Output = Result<Vec<(i64, String, String)>>> + Send;
    /// For each prompt its newest turn, if that has ended.
    fn ended(&mut self, key: i64, prompts: Vec<String>) -> impl Future<Output = Result<Vec<Turn>>> + Send;
    /// Events after a seq in order, without the deltas of turns that have ended: at most `limit`, and none before which
    /// there are `bytes` of them, each with its [`RECORD_COST`].
    fn records(
        &mut self,
        key: i64,
        after: i64,
        limit: i64,
        bytes: i64,
    ) -> impl Future<Output = Result<Vec<Record>>> + Send;
    /// A turn of any status.
    fn turn(&mut self, turn_id: &str) -> impl Future<Output = Result<Option<Turn>>> + Send;
    /// The text of a message.
    fn message(&mut self, key: i64, id: &str) -> impl Future<Output = Result<Option<String>>> + Send;
    /// The texts of the newest messages below a seq, newest first, without `prompt` and without prompts whose first
    /// turn still waits.
    fn said(
        &mut self,
        key: i64,
        below: i64,
        prompt: &str,
        limit: i64,
    ) -> impl Future<Output = Result<Vec<String>>> + Send;
}

/// The epoch of a session as clients hold it.
pub(super) fn epoch_of(own: &str, history: &str) -> String {
    format!("{own}.{history}")
}

/// See [`super::Store::cut`].
pub(super) async fn cut(
    db: &mut impl Snapshot,
    id: &str,
    from: Option<From>,
    limits: PageLimits,
) -> Result<Option<Cut>> {
    let Some(mut session) = db.session(id).await? else { return Ok(None) };
    session.turns = db.live_turns(session.key).await?;
    let epoch = epoch_of(&session.epoch, &db.history().await?);
    let needs_work = has_work(db, &session).await?;
    let catchup = match from {
        None => None,
        Some(from) => Some(match start_of(&from, &session, &epoch, limits) {
            Ok(after) => Catchup::Replay(read_stretch(db, &session, after, limits.bytes).await?),
            Err(reason) => snapshot(db, &session, reason, limits).await?,
        }),
    };
    Ok(Some(Cut { session, epoch, needs_work, catchup }))
}

/// Whether a session has an orphan, or a queued turn and a free slot.
async fn has_work(db: &mut impl Snapshot, session: &Session) -> Result<bool> {
    let running: Vec<&Turn> = session.turns.iter().filter(|turn| turn.status == TurnStatus::Running).collect();
    let slots = usize::try_from(session.max_running).unwrap_or(usize::MAX);
    if running.len() < session.turns.len() && running.len() < slots {
        return Ok(true);
    }
    if running.is_empty() {
        return Ok(false);
    }
    let nodes = db.nodes().await?;
    let is_orphan = |turn: &&Turn| turn.owner.as_ref().is_none_or(|owner| machine::is_gone(&nodes, owner));
    Ok(running.iter().any(is_orphan))
}

/// The seq to replay from, or why a snapshot is given instead (L9).
fn start_of(
    from: &From,
    session: &Session,
    epoch: &str,
    limits: PageLimits,
) -> std::result::Result<u64, SnapshotReason> {
    match from {
        From::Start(reason) => Err(*reason),
        From::Cursor { epoch: held, .. } if held != epoch => Err(SnapshotReason::EpochChanged),
        From::Cursor { seq, .. } if *seq > session.last_seq => Err(SnapshotReason::CursorAhead),
        From::Cursor { seq, .. } if session.last_seq - seq > limits.trim => Err(SnapshotReason::Trimmed),
        From::Cursor { seq, .. } => Ok(*seq),
    }
}

async fn snapshot(
    db: &mut impl Snapshot,
    session: &Session,
    reason: SnapshotReason,
    limits: PageLimits,
) -> Result<Catchup> {
    let messages = page(db, session, u64::MAX, limits).await?;
    let mut streaming = Vec::new();
    for turn in session.turns.iter().filter(|turn| turn.status == TurnStatus::Running) {
        let seq = turn.started_seq.unwrap_or(0);
        let parts = streamed(db, session.key, &turn.id, seq).await?;
        let at = turn.started_at.unwrap_or(turn.queued_at);
        streaming.push(Message { parts, ..Message::answer(&turn.id, &turn.reply_id, &turn.agent, seq, at) });
    }
    Ok(Catchup::Snapshot { reason, messages, streaming })
}

/// What a turn has streamed so far (L10).
pub(super) async fn streamed(db: &mut impl Snapshot, key: i64, turn_id: &str, started_seq: u64) -> Result<Vec<Part>> {
    let chunks = db.chunks(turn_id).await?;
    let after = chunks.last().map_or(signed(started_seq), |(upto, _)| *upto);
    let deltas = db.deltas(key, turn_id, after).await?;
    folded(chunks.iter().map(|(_, text)| text), &deltas)
}

/// The fold of a turn's chunks and of the deltas after the last one.
pub(super) fn folded<'a>(chunks: impl Iterator<Item = &'a String>, deltas: &[String]) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for text in chunks {
        rows::chunk(text)?.iter().for_each(|delta| fold::apply(&mut parts, delta));
    }
    for body in deltas {
        fold::apply(&mut parts, &rows::delta(body)?);
    }
    Ok(parts)
}

/// The newest messages below `before`, as many as the limits allow and at least one, without a hole.
async fn page(db: &mut impl Snapshot, session: &Session, before: u64, limits: PageLimits) -> Result<Messages> {
    // Sizes first, so that a page of long messages does not read what it will not carry.
    let sizes = db.sizes(session.key, signed(before), signed(limits.messages + 1)).await?;
    let mut bytes = 0;
    let fitting = sizes
        .iter()
        .take(limits.messages)
        .take_while(|(_, size)| {
            let first = bytes == 0;
            bytes += usize::try_from(*size).unwrap_or(usize::MAX).max(1);
            first || bytes <= limits.bytes
        })
        .count();
    let Some(&(oldest, _)) = fitting.checked_sub(1).and_then(|last| sizes.get(last)) else {
        return Ok(Messages { before: before.min(session.last_seq + 1), ..Messages::default() });
    };
    let found = db.messages(session.key, oldest, signed(before)).await?;
    let ids = found.iter().map(|(_, id, _)| id.clone()).collect();
    Ok(Messages {
        ended: db.ended(session.key, ids).await?,
        messages: found.into_iter().map(|(seq, _, text)| (unsigned(seq), text)).collect(),
        before: unsigned(oldest),
        has_more: sizes.len() > fitting,
    })
}

/// See [`super::Store::history`].
pub(super) async fn history(
    db: &mut impl Snapshot,
    id: &str,
    before: u64,
    limits: PageLimits,
) -> Result<Option<Messages>> {
    let Some(session) = db.session(id).await? else { return Ok(None) };
    page(db, &session, before, limits).await.map(Some)
}

/// See [`super::Store::stretch`].
pub(super) async fn stretch(
    db: &mut impl Snapshot,
    id: &str,
    epoch: &str,
    after: u64,
    bytes: usize,
) -> Result<Option<Stretch>> {
    let Some(session) = db.session(id).await? else { return Ok(None) };
    if epoch_of(&session.epoch, &db.history().await?) != epoch || session.last_seq < after {
        return Ok(None);
    }
    read_stretch(db, &session, after, bytes).await.map(Some)
}

async fn read_stretch(db: &mut impl Snapshot, session: &Session, after: u64, bytes: usize) -> Result<Stretch> {
    let mut stretch = Stretch { from: after, upto: after, ..Stretch::default() };
    let mut size = 0;
    loop {
        let found = db.records(session.key, signed(stretch.upto), signed(STRIDE), signed(bytes - size)).await?;
        let all = found.len() < STRIDE;
        size += found.iter().map(|record| record.body.len() + RECORD_COST).sum::<usize>();
        stretch.upto = found.last().map_or(stretch.upto, |record| record.seq);
        stretch.records.extend(found);
        if size >= bytes {
            stretch.complete = stretch.upto == session.last_seq;
            return Ok(stretch);
        }
        if all {
            stretch.upto = session.last_seq;
            stretch.complete = true;
            return Ok(stretch);
        }
    }
}

/// See [`super::Store::context`].
pub(super) async fn context(db: &mut impl Snapshot, id: &str, turn_id: &str, limit: usize) -> Result<Vec<Message>> {
    let Some(session) = db.session(id).await? else { return Ok(Vec::new()) };
    let Some(turn) = db.turn(turn_id).await? else { return Ok(Vec::new()) };
    let prompt = db.message(session.key, &turn.prompt_id).await?;
    let prompt = prompt.as_deref().map(rows::message).transpose()?;
    let first_attempt = turn.attempt == 1;
    let below = if first_attempt { turn.started_seq } else { prompt.as_ref().map(|prompt| prompt.seq) };
    let below = signed(below.unwrap_or(0));
    let texts = db.said(session.key, below, &turn.prompt_id, signed(limit.saturating_sub(1))).await?;
    let mut messages = texts.iter().rev().map(|text| rows::message(text)).collect::<Result<Vec<_>>>()?;
    messages.extend(prompt);
    Ok(messages)
}
