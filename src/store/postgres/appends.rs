//! Deltas, which are nearly all that is ever written: any number of sessions' in one statement, which is its own
//! transaction, so that no lock outlives it.
//!
//! The statement writes what is plain: the session's lock is free, and the turn's row, as it is when it is locked, runs
//! under this owner and term and has exactly the flushes before this one. Whatever is not plain — a fence, a repeated
//! flush, a lost one, a locked session — is left untouched, and for the state machine to judge. So nothing is decided
//! twice in two languages.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    super::{
        Appended, Error, Item, Result,
        rows::{signed, unsigned},
    },
    db::Db,
};
use crate::model::{
    Event, EventKind,
    machine::{Applied, DeltaEvent, Done, Fence, Op},
};

/// An append as the statement takes it.
struct Append<'a> {
    index: usize,
    session: &'a Arc<str>,
    fence: &'a Fence,
    deltas: &'a [DeltaEvent],
    chunk: Option<String>,
}

/// What one turn's appends in a batch have in common.
struct Group<'a> {
    /// Its place among the groups, from 1, by which the statement knows it.
    number: i64,
    session: &'a Arc<str>,
    owner: &'a str,
    term: i64,
    first: i64,
    count: i64,
}

/// The appends of a batch that one statement can write.
pub(super) struct Plan<'a> {
    appends: Vec<Append<'a>>,
    turns: HashMap<&'a str, Group<'a>>,
}

/// What the statement wrote.
#[derive(Default)]
pub(super) struct Written {
    /// The items' answers by their indices; those that are missing changed nothing and are to be judged.
    pub(super) answers: Vec<(usize, Applied)>,
    /// What was appended.
    pub(super) appended: Vec<Appended>,
}

impl<'a> Plan<'a> {
    /// The items of those sessions that have nothing but appends in this batch, each turn's with flush numbers that
    /// follow one another.
    pub(super) fn of(items: &'a [Item]) -> Self {
        let mixed: HashSet<&str> =
            items.iter().filter(|item| plain(item).is_none()).map(|item| &*item.session).collect();
        let mut plan = Plan { appends: Vec::new(), turns: HashMap::new() };
        let mut odd = HashSet::new();
        for (index, item) in items.iter().enumerate().filter(|(_, item)| !mixed.contains(&*item.session)) {
            let Some((fence, deltas, chunk)) = plain(item) else { continue };
            if !plan.joins(item, fence) {
                odd.insert(&item.session);
            }
            let chunk = chunk.map(|chunk| serde_json::to_string(chunk).unwrap_or_default());
            plan.appends.push(Append { index, session: &item.session, fence, deltas, chunk });
        }
        plan.appends.retain(|append| !odd.contains(append.session));
        plan.turns.retain(|_, group| !odd.contains(&group.session));
        for (number, group) in (1..).zip(plan.turns.values_mut()) {
            group.number = number;
        }
        plan
    }

    /// Whether an append continues its turn's in this batch.
    fn joins(&mut self, item: &'a Item, fence: &'a Fence) -> bool {
        let (owner, term, flush) = (fence.incarnation.0.as_str(), signed(fence.term), signed(fence.flush));
        let new = || Group { number: 0, session: &item.session, owner, term, first: flush, count: 0 };
        let group = self.turns.entry(&fence.turn_id).or_insert_with(new);
        let next = group.first + group.count;
        group.count += 1;
        *group.session == item.session && group.owner == owner && group.term == term && flush == next
    }

    pub(super) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    /// The indices of its items.
    pub(super) fn indices(&self) -> impl Iterator<Item = usize> {
        self.appends.iter().map(|append| append.index)
    }

    /// Writes what is plain of it. To be repeated only as a whole batch: what was written is then judged as written.
    pub(super) async fn write(&self, connection: &mut Db) -> Result<Written> {
        let groups = || self.turns.values();
        let mut events: (Vec<i64>, Vec<i64>, Vec<&str>) = Default::default();
        let mut chunks: (Vec<i64>, Vec<&str>) = Default::default();
        for append in &self.appends {
            let number = self.group(append).number;
            for event in append.deltas {
                events.0.push(number);
                events.1.push(signed(append.fence.flush));
                events.2.push(&event.body);
            }
            if let Some(text) = &append.chunk {
                chunks.0.push(signed(events.0.len()));
                chunks.1.push(text);
            }
        }
        let found: Vec<(i64, bool, i64)> = sqlx::query_as(STATEMENT)
            .bind(self.turns.keys().copied().collect::<Vec<_>>())
            .bind(groups().map(|group| &**group.session).collect::<Vec<_>>())
            .bind(groups().map(|group| group.owner).collect::<Vec<_>>())
            .bind(groups().map(|group| group.term).collect::<Vec<_>>())
            .bind(groups().map(|group| group.first).collect::<Vec<_>>())
            .bind(groups().map(|group| group.count).collect::<Vec<_>>())
            .bind(events.0)
            .bind(events.1)
            .bind(events.2)
            .bind(chunks.0)
            .bind(chunks.1)
            .fetch_all(connection)
            .await
            .map_err(Error::in_postgres("appending deltas"))?;
        Ok(self.written(&found))
    }

    /// The group of an append's turn: each has one.
    fn group(&self, append: &Append<'_>) -> &Group<'a> {
        &self.turns[append.fence.turn_id.as_str()]
    }

    /// What was written, given for each group that passed its intent and the head of its session before.
    fn written(&self, found: &[(i64, bool, i64)]) -> Written {
        let passed: HashMap<i64, (bool, u64)> =
            found.iter().map(|(group, intent, base)| (*group, (*intent, unsigned(*base)))).collect();
        let mut logs: HashMap<&Arc<str>, (u64, Vec<Event>)> = HashMap::new();
        let mut answers = Vec::with_capacity(self.appends.len());
        for append in &self.appends {
            let Some(&(intent, base)) = passed.get(&self.group(append).number) else { continue };
            let (head, events) = logs.entry(append.session).or_insert_with(|| (base, Vec::new()));
            let turn: Arc<str> = append.fence.turn_id.as_str().into();
            for delta in append.deltas {
                *head += 1;
                events.push(Event {
                    seq: *head,
                    kind: EventKind::TurnDelta,
                    turn_id: Some(turn.clone()),
                    flush: Some(append.fence.flush),
                    reason: None,
                    body: delta.body.clone(),
                });
            }
            answers.push((append.index, Applied { done: Done::Appended { intent }, started: Vec::new() }));
        }
        let appended =
            logs.into_iter().map(|(session, (_, events))| Appended { session: session.clone(), events }).collect();
        Written { answers, appended }
    }
}

type Plain<'a> = (&'a Fence, &'a [DeltaEvent], Option<&'a [crate::model::fold::Delta]>);

fn plain(item: &Item) -> Option<Plain<'_>> {
    match &*item.op {
        Op::Append { fence, deltas, chunk } if !deltas.is_empty() => Some((fence, deltas, chunk.as_deref())),
        _ => None,
    }
}

/// The fence is in the statement that locks the turn's row, which looks again at the row that it has locked. Seqs are
/// counted from the session's row as it is under the lock. `locked` waits for nobody. The planner takes all lists for ten
/// long, so no two of them are joined but by a hash, and turns are found by nothing but their ids: hence the empty text
/// behind their status and the nothing that is added to their session's key, which keep it from going through all that
/// run, or all that the session has had, once for each.
const STATEMENT: &str = "WITH locked AS MATERIALIZED (
        SELECT s.key, s.last_seq, g.turn, g.owner, g.term, g.first, g.count, g.number
        FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[])
            WITH ORDINALITY AS g (turn, session, owner, term, first, count, number) JOIN sessions s ON s.id = g.session
        ORDER BY s.key FOR UPDATE OF s SKIP LOCKED
    ), fenced AS (
        UPDATE turns t SET flushed = t.flushed + l.count FROM locked l
        WHERE t.id = l.turn AND t.session_key + 0 = l.key AND t.status || '' = 'running' AND t.owner = l.owner
            AND t.term = l.term AND t.flushed = l.first
        RETURNING t.id, t.session_key, t.intent, l.last_seq AS base, l.number
    ), new AS (
        SELECT f.session_key, f.base, e.place, f.id AS turn, e.flush, e.body,
               row_number() OVER (PARTITION BY f.session_key ORDER BY e.place) AS nth
        FROM unnest($7::bigint[], $8::bigint[], $9::text[]) WITH ORDINALITY AS e (number, flush, body, place)
        JOIN fenced f ON f.number = e.number
    ), heads AS (
        UPDATE sessions s SET last_seq = s.last_seq + n.count
        FROM (SELECT session_key, count(*) AS count FROM new GROUP BY session_key) n WHERE s.key = n.session_key
    ), logged AS (
        INSERT INTO events (session_key, seq, kind, turn_id, flush, body)
        SELECT n.session_key, n.base + n.nth, 'turn_delta', n.turn, n.flush, n.body FROM new n
    ), chunked AS (
        INSERT INTO chunks (turn_id, upto, parts)
        SELECT n.turn, n.base + n.nth, c.parts
        FROM unnest($10::bigint[], $11::text[]) AS c (place, parts) JOIN new n ON n.place = c.place
    )
    SELECT f.number, f.intent, f.base FROM fenced f";
