//! A batch, from its items to its commit.
//!
//! It goes in up to three parts, no session in two of them: appends alone, in one statement ([`appends`]); everything
//! else, in one transaction that takes the sessions it can lock at once; and what was skipped or not plain, in order, in
//! a transaction that waits for its locks. What the database refuses for its content is repeated item by item, so that
//! what fails alone fails alone. It knows no connection but the one that it is lent.

use std::collections::{HashMap, HashSet};

use super::{
    super::{
        Appended, Committed, Error, Item, Result,
        batch::{self, Sessions, Step, Written},
        read::{Snapshot, streamed},
    },
    appends::Plan,
    connect::{Begin, Connections},
    db::Db,
    load,
    read::Reader,
    write,
};
use crate::model::{
    Node, Part,
    machine::{Applied, Op, Refused, Session},
};
/// How often the waiting part is tried: locks have limits, so whoever holds one is gone after the first.
const TRIES: usize = 3;

const APPENDING: &str = "appending deltas";

type Outcome = std::result::Result<Applied, Refused>;

/// Writes batches.
#[derive(Clone)]
pub(super) struct Committer {
    /// One for each batch that is committed at once.
    pub(super) connections: Connections,
    /// How writing transactions begin.
    pub(super) begin: Begin,
    /// Whether the appends' statement needs a transaction around it.
    pub(super) pooled: bool,
}

/// What has been answered of a batch.
struct Progress {
    outcomes: Vec<Option<Outcome>>,
    appended: Vec<Appended>,
}

impl Progress {
    fn open(&self) -> Vec<usize> {
        (0..self.outcomes.len()).filter(|&index| self.outcomes[index].is_none()).collect()
    }

    fn is_untouched(&self) -> bool {
        self.outcomes.iter().all(Option::is_none)
    }

    fn take(&mut self, indices: &[usize], part: Judged) {
        for (&index, outcome) in indices.iter().zip(part.outcomes) {
            self.outcomes[index] = outcome;
        }
        self.appended.extend(part.appended);
    }
}

/// What a transaction did with its items; nothing with those whose session was locked.
struct Judged {
    outcomes: Vec<Option<Outcome>>,
    appended: Vec<Appended>,
}

impl Committer {
    /// See [`super::Store::commit`].
    pub(super) async fn commit(&self, items: &[Item]) -> Result<Committed> {
        let mut progress = Progress { outcomes: items.iter().map(|_| None).collect(), appended: Vec::new() };
        let plan = Plan::of(items);
        let plain: HashSet<usize> = plan.indices().collect();
        let mixed: Vec<usize> = (0..items.len()).filter(|index| !plain.contains(index)).collect();
        if !mixed.is_empty() {
            let part = self.judge(items, &mixed, true).await?;
            progress.take(&mixed, part);
        }
        if !plan.is_empty() {
            match self.append(&plan).await {
                Ok(written) => {
                    for (index, applied) in written.answers {
                        progress.outcomes[index] = Some(Ok(applied));
                    }
                    progress.appended.extend(written.appended);
                }
                // It is found again below, item by item.
                Err(Error::Content { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        self.finish(items, &mut progress).await?;
        let unanswered = || Err(Refused::Invalid("the store has no answer to this"));
        let outcomes = progress.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(unanswered)).collect();
        Ok(Committed { outcomes, appended: batch::merged(progress.appended) })
    }

    async fn append(&self, plan: &Plan<'_>) -> Result<super::appends::Written> {
        if self.pooled {
            let mut transaction = self.connections.begin(APPENDING, self.begin).await?;
            let written = plan.write(transaction.db()).await;
            return transaction.end(written).await;
        }
        loop {
            let mut loan = self.connections.lend().await?;
            match plan.write(loan.db()).await {
                // What may have been written is found to be so the second time.
                Err(error) if loan.used && error.is_broken_connection() => self.connections.forget_idle(),
                written => return loan.settle(written),
            }
        }
    }

    /// What was skipped or is not plain, waiting for the locks.
    async fn finish(&self, items: &[Item], progress: &mut Progress) -> Result<()> {
        let mut tries = 0;
        loop {
            let open = progress.open();
            if open.is_empty() {
                return Ok(());
            }
            tries += 1;
            match self.judge(items, &open, false).await {
                Ok(part) => progress.take(&open, part),
                Err(error @ Error::Content { .. }) if progress.is_untouched() => return Err(error),
                Err(Error::Content { .. }) => return self.one_by_one(items, &open, progress).await,
                Err(error) if tries < TRIES && error.is_locked_out() => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Other items of the batch are committed already: only what fails alone is refused.
    async fn one_by_one(&self, items: &[Item], open: &[usize], progress: &mut Progress) -> Result<()> {
        for index in open {
            match self.judge(items, &[*index], false).await {
                Ok(part) => progress.take(&[*index], part),
                Err(Error::Content { .. }) => {
                    progress.outcomes[*index] =
                        Some(Err(Refused::Invalid("the store refuses this content; change it")));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// One transaction in which the state machine judges these items. With `skip`, those of sessions that somebody else
    /// has locked are left open.
    async fn judge(&self, items: &[Item], indices: &[usize], skip: bool) -> Result<Judged> {
        let items: Vec<&Item> = indices.iter().filter_map(|&index| items.get(index)).collect();
        let mut transaction = self.connections.begin("writing a batch", self.begin).await?;
        let judged = Box::pin(judge(transaction.db(), &items, skip)).await;
        transaction.end(judged).await
    }
}

async fn judge(connection: &mut Db, items: &[&Item], skip: bool) -> Result<Judged> {
    load::lock_nodes(connection, items).await?;
    let mut born = load::create_sessions(connection, items).await?;
    let locked = load::lock_sessions(connection, items, skip).await?;
    let mut sessions: Sessions = locked
        .into_iter()
        .filter(|session| !born.contains_key(&*session.id))
        .map(|session| (session.id.clone(), session))
        .collect();
    let mut skipped = if skip { skipped(connection, items, &sessions, &born).await? } else { HashSet::new() };
    skipped.extend(vanished(items, &sessions, &born));
    load::turns(connection, &mut sessions, items).await?;
    load::messages(connection, &mut sessions, items).await?;
    let nodes = Reader(connection).nodes().await?;
    let streamed = load::partials(connection, &sessions, items, &nodes).await?;
    let mut judge = Judge { sessions, written: Written::new(), nodes, streamed };
    let mut outcomes = Vec::with_capacity(items.len());
    for item in items {
        outcomes.push(match skipped.contains(&*item.session) {
            true => None,
            false => Some(judge.item(connection, item, &mut born).await?),
        });
    }
    write::all(connection, &judge.sessions, &judge.written).await?;
    Ok(Judged { outcomes, appended: batch::appended(judge.written) })
}

/// The items' sessions that are there and were not locked. One that appears only now is judged as not there: it was not.
async fn skipped(
    connection: &mut Db,
    items: &[&Item],
    locked: &Sessions,
    born: &HashMap<String, i64>,
) -> Result<HashSet<String>> {
    let is_open = |item: &&&Item| !locked.contains_key(&item.session) && !born.contains_key(&*item.session);
    let open: Vec<&str> = items.iter().filter(is_open).map(|item| &*item.session).collect();
    if open.is_empty() { Ok(HashSet::new()) } else { load::existing(connection, open).await }
}

/// The sessions that items make and that were there when they were to be made, but no more when they were to be locked:
/// deleted in between. They are made by the next try.
fn vanished(items: &[&Item], locked: &Sessions, born: &HashMap<String, i64>) -> HashSet<String> {
    let makes = |item: &&&Item| matches!(*item.op, Op::Create { .. });
    let is_open = |item: &&&Item| !locked.contains_key(&item.session) && !born.contains_key(&*item.session);
    items.iter().filter(makes).filter(is_open).map(|item| item.session.to_string()).collect()
}

/// What a transaction knows while it decides.
struct Judge {
    sessions: Sessions,
    written: Written,
    nodes: Vec<Node>,
    /// What turns have streamed, read beforehand.
    streamed: HashMap<String, Vec<Part>>,
}

impl Judge {
    async fn item(&mut self, connection: &mut Db, item: &Item, born: &mut HashMap<String, i64>) -> Result<Outcome> {
        loop {
            let birth = |session: Session| {
                let key = born.remove(&*session.id).unwrap_or_default();
                Session { key, ..session }
            };
            match batch::decide(&mut self.sessions, &mut self.written, &self.nodes, item, birth) {
                Step::Done(outcome) => return Ok(outcome),
                Step::NeedsPartial(turn_id) => self.load_partial(connection, item, turn_id).await?,
            }
        }
    }

    async fn load_partial(&mut self, connection: &mut Db, item: &Item, turn_id: String) -> Result<()> {
        let Some(session) = self.sessions.get_mut(&item.session) else { return Ok(()) };
        let parts = match self.streamed.remove(&turn_id) {
            Some(parts) => parts,
            None => {
                let started = batch::started_seq(session, &turn_id);
                streamed(&mut Reader(connection), session.key, &turn_id, started).await?
            }
        };
        let parts = batch::with_pending(parts, &turn_id, self.written.get(&item.session))?;
        session.partials.insert(turn_id, parts);
        Ok(())
    }
}
