//! The state machine of a session: what an item changes, decided in one place for every store.
//!
//! A store locks a session, loads it as a [`Session`], lets [`apply`] decide item by item, and writes the [`Writes`].
//! Nothing here does I/O or reads a clock. The invariants that hold after every item, whatever the order: `last_seq`
//! counts the events without a gap; a running turn has one owner, others have none (I6); an ended turn never changes
//! (I9); only a running turn whose owner is dead, or one that a person's intent names, is ended from outside (I10).

mod items;
mod state;

use std::sync::Arc;

use serde_json::value::RawValue;

pub use self::{
    items::{Applied, Asker, DeltaEvent, Done, End, Fence, Lookups, NewTurn, Op, Refused, WhenBusy},
    state::{Chunk, KnownMessage, Session, StoredMessage, Touch, World, Writes, create, in_order, is_gone, queue},
};
use super::{
    event::{self, Data, Event, EventKind},
    fold::{self, Delta},
    message::{Message, MessageStatus, Part, Person, Role},
    turn::{EndReason, Intent, Liveness, NodeState, Owner, Turn, TurnError, TurnStatus},
};
use crate::ids::Incarnation;

/// Applies one item to a session that exists. `node` is the node that will run what starts; without one nothing starts.
///
/// # Errors
/// Why the item changed nothing. The queue may have moved all the same: that is not the item's doing.
pub fn apply(
    session: &mut Session,
    world: World<'_>,
    node: Option<&Owner>,
    op: &Op,
    writes: &mut Writes,
) -> Result<Applied, Refused> {
    let mut work = Work { session, world, node, writes, started: Vec::new() };
    let done = work.op(op)?;
    if !matches!(op, Op::Append { .. } | Op::Create { .. } | Op::Delete { .. }) {
        work.advance();
    }
    Ok(Applied { done, started: work.started })
}

struct Work<'a> {
    session: &'a mut Session,
    world: World<'a>,
    node: Option<&'a Owner>,
    writes: &'a mut Writes,
    started: Vec<Turn>,
}

impl Work<'_> {
    fn op(&mut self, op: &Op) -> Result<Done, Refused> {
        match op {
            Op::Create { must_be_new: true, .. } => {
                Err(Refused::Conflict("a session with this id exists already; choose another id"))
            }
            Op::Create { .. } => Ok(Done::Created(false)),
            Op::Send { message_id, parts, turn, when_busy, max_queue, asker } => {
                self.reconcile()?;
                self.send(message_id, parts, turn.as_ref(), *when_busy, *max_queue, asker)
            }
            Op::Retry { turn_id, turn, max_queue, asker } => {
                self.reconcile()?;
                self.retry(turn_id, turn, *max_queue, asker)
            }
            Op::Append { fence, deltas, chunk } => self.append(fence, deltas, chunk.as_deref()),
            Op::Finish { fence, deltas, parts, end } => self.finish(fence, deltas, parts, end),
            Op::EndOwned { turn_id, incarnation, term, end } => self.end_owned(turn_id, incarnation, *term, end),
            Op::Cancel { turn_id, asker } => self.cancel(turn_id, asker),
            Op::Force { turn_id, term } => self.force(turn_id, *term),
            Op::Reconcile => {
                self.reconcile()?;
                Ok(Done::Reconciled)
            }
            Op::Delete { asker } => self.delete(asker),
            Op::Update { title, metadata, max_running, asker } => {
                self.reconcile()?;
                self.update(title.as_ref(), metadata.as_deref(), *max_running, &asker.person)
            }
        }
    }

    // -- what every look at a session does -------------------------------------------------------------------------

    /// T7 for every orphan, then the queue.
    fn reconcile(&mut self) -> Result<(), Refused> {
        let orphans: Vec<usize> = self.running().filter(|&index| self.is_orphan(index)).collect();
        for &index in &orphans {
            self.needs_partial(index)?;
        }
        for index in orphans {
            let intent = self.session.turns[index].intent.clone();
            let (reason, by) = intent.map_or((EndReason::OwnerGone, None), |i| (i.reason, Some(i.by)));
            self.cancel_by_force(index, reason, by.as_ref());
        }
        self.advance();
        Ok(())
    }

    /// T2: the head of the queue takes a free slot, while there is one of each and the node may.
    fn advance(&mut self) {
        let Some(node) = self.node else { return };
        if self.world.state(&node.incarnation) != NodeState::Live {
            return;
        }
        while self.running().count() < self.slots() {
            let Some(head) = self.queue().first().copied() else { return };
            self.start(head, node);
        }
    }

    fn start(&mut self, index: usize, node: &Owner) {
        let (now, seq) = (self.world.now, self.session.last_seq + 1);
        let turn = &mut self.session.turns[index];
        turn.status = TurnStatus::Running;
        turn.term += 1;
        turn.owner = Some(node.clone());
        turn.started_at = Some(now);
        turn.started_seq = Some(seq);
        let turn = turn.clone();
        let shown = turn.wire(None, Liveness::Alive);
        let data = Data::Turn { turn: &shown };
        self.event(EventKind::TurnStarted, Some(&turn.by), Some(&turn.id), &data);
        self.session.partials.insert(turn.id.clone(), Vec::new());
        self.writes.touch(&turn.id, Touch::Changed);
        self.started.push(turn);
    }

    // -- people's requests -----------------------------------------------------------------------------------------

    fn send(
        &mut self,
        message_id: &str,
        parts: &[Part],
        turn: Option<&NewTurn>,
        when_busy: WhenBusy,
        max_queue: usize,
        asker: &Asker,
    ) -> Result<Done, Refused> {
        if let Some(known) = self.session.messages.get(message_id) {
            let done = answer_again(known, parts, turn, &asker.person)?;
            self.take_up_again(turn);
            return Ok(done);
        }
        if self.session.turns.iter().any(|turn| turn.reply_id == message_id) {
            // The answer is not stored before its end, and could not be if its id were taken meanwhile.
            return Err(Refused::Conflict("this message id is that of an answer; use a new id"));
        }
        self.node_takes_turns()?;
        let mut interrupted = Vec::new();
        if turn.is_some() && !self.has_room() {
            match when_busy {
                WhenBusy::Reject => return Err(Refused::Busy),
                WhenBusy::Queue => {}
                WhenBusy::Interrupt => interrupted = self.victims(asker)?,
            }
            // Who makes a place takes it, so that the queue does not grow for long.
            if interrupted.is_empty() && self.queue().len() >= max_queue {
                return Err(Refused::QueueFull);
            }
        }
        for &index in &interrupted {
            self.intend(index, EndReason::Superseded, &asker.person);
        }
        let message = Message {
            id: message_id.to_owned(),
            seq: self.session.last_seq + 1,
            role: Role::User,
            author: Some(asker.person.clone()),
            turn_id: None,
            status: MessageStatus::Complete,
            parts: parts.to_vec(),
            created_at: self.world.now,
        };
        self.event(EventKind::MessageAdded, Some(&asker.person), None, &Data::Message { message: &message });
        self.store_message(&message);
        let seq = message.seq;
        let known = KnownMessage { message, turn_id: turn.map(|turn| turn.id.clone()) };
        self.session.messages.insert(message_id.to_owned(), known);
        if let Some(new) = turn {
            let at_head = when_busy == WhenBusy::Interrupt;
            self.accept(new, new.agent.clone(), message_id, 1, None, &asker.person, at_head);
        }
        Ok(Done::Sent {
            message_id: message_id.to_owned(),
            turn_id: turn.map(|turn| turn.id.clone()),
            seq,
            duplicate: false,
            interrupted: interrupted.iter().map(|&index| self.session.turns[index].id.clone()).collect(),
        })
    }

    fn retry(&mut self, turn_id: &str, new: &NewTurn, max_queue: usize, asker: &Asker) -> Result<Done, Refused> {
        let old = self.find(turn_id)?;
        let old = self.session.turns[old].clone();
        if !asker.may_end(&old) {
            return Err(Refused::Unauthorized("only the person who asked, or an admin, may retry this turn"));
        }
        let attempts = || self.session.turns.iter().filter(|turn| turn.prompt_id == old.prompt_id);
        if let Some(turn) = attempts().find(|turn| !turn.is_ended() || turn.id == new.id) {
            let duplicate = turn.id != new.id;
            let done = Done::Retried { turn_id: turn.id.clone(), attempt: turn.attempt, duplicate };
            self.take_up_again(Some(new));
            return Ok(done);
        }
        let attempt = attempts().map(|turn| turn.attempt).max().unwrap_or(0) + 1;
        self.node_takes_turns()?;
        if !self.has_room() && self.queue().len() >= max_queue {
            return Err(Refused::QueueFull);
        }
        self.accept(new, old.agent.clone(), &old.prompt_id, attempt, Some(old.id.clone()), &asker.person, false);
        Ok(Done::Retried { turn_id: new.id.clone(), attempt, duplicate: false })
    }

    /// An item that is written again because nobody knew whether its commit had happened (L4): the turn that it had
    /// started here still needs its runner.
    fn take_up_again(&mut self, turn: Option<&NewTurn>) {
        let Some((new, node)) = turn.zip(self.node) else { return };
        let mine = |turn: &&Turn| turn.id == new.id && turn.is_owned_by(&node.incarnation, turn.term);
        self.started.extend(self.session.turns.iter().find(mine).cloned());
    }

    /// T1: the turn exists from here on, and runs at once if a slot is free and nobody waits.
    #[expect(clippy::too_many_arguments, reason = "one call for a send, one for a retry; each names its values")]
    fn accept(
        &mut self,
        new: &NewTurn,
        agent: String,
        prompt_id: &str,
        attempt: u32,
        retry_of: Option<String>,
        by: &Person,
        at_head: bool,
    ) {
        let orders = self.queue().into_iter().map(|index| self.session.turns[index].order);
        let order = if at_head { orders.min().map_or(0, |o| o - 1) } else { orders.max().map_or(0, |o| o + 1) };
        let room = self.has_room();
        self.session.turns.push(Turn {
            id: new.id.clone(),
            status: TurnStatus::Queued,
            prompt_id: prompt_id.to_owned(),
            reply_id: new.reply_id.clone(),
            agent,
            attempt,
            retry_of,
            by: by.clone(),
            order,
            owner: None,
            term: 0,
            flushed: 0,
            intent: None,
            queued_at: self.world.now,
            started_at: None,
            started_seq: None,
            ended_at: None,
            ended_seq: None,
            ended_by: None,
            reason: None,
            error: None,
            usage: None,
        });
        self.writes.touch(&new.id, Touch::New);
        let index = self.session.turns.len() - 1;
        match self.node {
            Some(node) if room => self.start(index, node),
            _ => {
                let turn = self.session.turns[index].clone();
                let position = self.queue().iter().position(|&i| i == index).map(|p| p + 1);
                let shown = turn.wire(position, Liveness::Alive);
                let data = Data::Turn { turn: &shown };
                self.event(EventKind::TurnQueued, Some(by), Some(&turn.id), &data);
            }
        }
    }

    fn cancel(&mut self, turn_id: &str, asker: &Asker) -> Result<Done, Refused> {
        let index = self.find(turn_id)?;
        let turn = &self.session.turns[index];
        if !asker.may_end(turn) {
            return Err(Refused::Unauthorized("only the person who asked, or an admin, may cancel this turn"));
        }
        match turn.status {
            TurnStatus::Queued => {
                self.end(index, TurnStatus::Cancelled, Some(EndReason::User), None, Some(&asker.person));
                Ok(self.ended(index, true))
            }
            TurnStatus::Running if self.is_orphan(index) => {
                self.needs_partial(index)?;
                let intent =
                    turn.intent.clone().unwrap_or(Intent { reason: EndReason::User, by: asker.person.clone() });
                self.cancel_by_force(index, intent.reason, Some(&intent.by));
                Ok(self.ended(index, true))
            }
            TurnStatus::Running => {
                let term = turn.term;
                self.intend(index, EndReason::User, &asker.person);
                Ok(Done::Intended { term })
            }
            TurnStatus::Other(_) if !turn.is_ended() => Err(NEWER),
            _ => Ok(self.ended(index, false)),
        }
    }

    fn force(&mut self, turn_id: &str, term: u64) -> Result<Done, Refused> {
        let index = self.find(turn_id)?;
        let turn = &self.session.turns[index];
        if turn.is_ended() {
            return Ok(self.ended(index, false));
        }
        let stands = turn.status == TurnStatus::Running && turn.term == term;
        let Some(intent) = turn.intent.clone().filter(|_| stands) else {
            return Err(Refused::Fenced);
        };
        self.needs_partial(index)?;
        self.cancel_by_force(index, intent.reason, Some(&intent.by));
        Ok(self.ended(index, true))
    }

    fn update(
        &mut self,
        title: Option<&Option<String>>,
        metadata: Option<&RawValue>,
        max_running: Option<u32>,
        by: &Person,
    ) -> Result<Done, Refused> {
        if title.is_none() && metadata.is_none() && max_running.is_none() {
            return Ok(Done::Updated);
        }
        if let Some(title) = title {
            self.session.title.clone_from(title);
        }
        if let Some(metadata) = metadata {
            self.session.metadata = metadata.to_owned();
        }
        if let Some(slots) = max_running {
            self.session.max_running = slots;
        }
        let (title, metadata) = (self.session.title.clone(), self.session.metadata.clone());
        let data =
            Data::Updated { title: title.as_deref(), metadata: &metadata, max_running: self.session.max_running };
        self.event(EventKind::SessionUpdated, Some(by), None, &data);
        self.writes.updated = true;
        Ok(Done::Updated)
    }

    /// Nothing of the session is left for an item after this one; what it holds under its key is the store's to remove.
    fn delete(&mut self, asker: &Asker) -> Result<Done, Refused> {
        if !asker.admin {
            return Err(Refused::Unauthorized("only an admin may delete a session"));
        }
        let live = self.session.turns.iter().filter(|turn| !turn.is_ended());
        let turns = live.map(|turn| turn.id.clone()).collect();
        self.writes.deleted = Some(asker.person.clone());
        Ok(Done::Deleted { epoch: self.session.epoch.clone(), turns })
    }

    // -- the runner's writes ---------------------------------------------------------------------------------------

    fn append(&mut self, fence: &Fence, deltas: &[DeltaEvent], chunk: Option<&[Delta]>) -> Result<Done, Refused> {
        let index = self.fenced(fence)?;
        self.flush(index, fence.flush, deltas, chunk)?;
        Ok(Done::Appended { intent: self.session.turns[index].intent.is_some() })
    }

    fn finish(&mut self, fence: &Fence, deltas: &[DeltaEvent], parts: &[Part], end: &End) -> Result<Done, Refused> {
        let index = self.find(&fence.turn_id)?;
        if self.session.turns[index].is_ended() {
            return Ok(self.ended(index, false));
        }
        let index = self.fenced(fence)?;
        self.flush(index, fence.flush, deltas, None)?;
        self.session.partials.insert(fence.turn_id.clone(), parts.to_vec());
        self.end_as(index, end)?;
        Ok(self.ended(index, true))
    }

    fn end_owned(&mut self, turn_id: &str, incarnation: &Incarnation, term: u64, end: &End) -> Result<Done, Refused> {
        let index = self.find(turn_id)?;
        if self.session.turns[index].is_ended() {
            return Ok(self.ended(index, false));
        }
        if !self.session.turns[index].is_owned_by(incarnation, term) {
            return Err(Refused::Fenced);
        }
        self.needs_partial(index)?;
        self.session.turns[index].term += 1;
        self.end_as(index, end)?;
        Ok(self.ended(index, true))
    }

    fn end_as(&mut self, index: usize, end: &End) -> Result<(), Refused> {
        match end {
            End::Completed { usage } => {
                self.session.turns[index].usage.clone_from(usage);
                self.end(index, TurnStatus::Completed, None, None, None);
            }
            End::Failed(error) => self.end(index, TurnStatus::Failed, None, Some(error.clone()), None),
            End::Shutdown => self.end(index, TurnStatus::Cancelled, Some(EndReason::Shutdown), None, None),
            End::Intent => {
                let intent = self.session.turns[index].intent.clone();
                let intent = intent.ok_or(Refused::Invalid("no cancel waits for this turn"))?;
                self.end(index, TurnStatus::Cancelled, Some(intent.reason), None, Some(&intent.by));
            }
        }
        Ok(())
    }

    fn flush(
        &mut self,
        index: usize,
        flush: u64,
        deltas: &[DeltaEvent],
        chunk: Option<&[Delta]>,
    ) -> Result<(), Refused> {
        let turn = &mut self.session.turns[index];
        match turn.flushed.cmp(&flush) {
            std::cmp::Ordering::Less => return Err(Refused::HistoryLost),
            std::cmp::Ordering::Greater => return Ok(()),
            std::cmp::Ordering::Equal if deltas.is_empty() => return Ok(()),
            std::cmp::Ordering::Equal => turn.flushed += 1,
        }
        let id = turn.id.clone();
        let shared: Arc<str> = id.as_str().into();
        for event in deltas {
            self.session.last_seq += 1;
            self.writes.events.push(Event {
                seq: self.session.last_seq,
                kind: EventKind::TurnDelta,
                turn_id: Some(shared.clone()),
                flush: Some(flush),
                reason: None,
                body: event.body.clone(),
            });
            if let Some(parts) = self.session.partials.get_mut(&id) {
                fold::apply(parts, &event.delta);
            }
        }
        if let Some(parts) = chunk {
            let parts = serde_json::to_string(parts).unwrap_or_default();
            self.writes.chunks.push(Chunk { turn_id: id.clone(), upto: self.session.last_seq, parts });
        }
        self.writes.touch(&id, Touch::Flushed);
        Ok(())
    }

    // -- ends ------------------------------------------------------------------------------------------------------

    fn cancel_by_force(&mut self, index: usize, reason: EndReason, by: Option<&Person>) {
        self.session.turns[index].term += 1;
        self.end(index, TurnStatus::Cancelled, Some(reason), None, by);
    }

    /// The one place where a turn ends: the row, the answer that it leaves, and the terminal event (I9, I12).
    fn end(
        &mut self,
        index: usize,
        status: TurnStatus,
        reason: Option<EndReason>,
        error: Option<TurnError>,
        by: Option<&Person>,
    ) {
        let parts = self.session.partials.remove(&self.session.turns[index].id).unwrap_or_default();
        let turn = &mut self.session.turns[index];
        turn.status = status;
        turn.reason = reason;
        turn.error = error;
        turn.ended_at = Some(self.world.now);
        turn.ended_seq = Some(self.session.last_seq + 1);
        turn.ended_by = by.cloned();
        turn.owner = None;
        turn.intent = None;
        let turn = turn.clone();
        let complete = status == TurnStatus::Completed;
        let message = turn.started_seq.filter(|_| complete || !parts.is_empty()).map(|seq| Message {
            status: if complete { MessageStatus::Complete } else { MessageStatus::Partial },
            parts,
            ..Message::answer(&turn.id, &turn.reply_id, &turn.agent, seq, turn.started_at.unwrap_or(self.world.now))
        });
        let (kind, data) = match (&message, &turn.error, reason) {
            (Some(message), None, None) => {
                (EventKind::TurnCompleted, Data::Completed { message, usage: turn.usage.as_deref() })
            }
            (message, Some(error), _) => (EventKind::TurnFailed, Data::Failed { error, message: message.as_ref() }),
            (message, None, reason) => {
                let reason = reason.unwrap_or(EndReason::OwnerGone);
                (EventKind::TurnCancelled, Data::Cancelled { reason, message: message.as_ref() })
            }
        };
        self.event(kind, by, Some(&turn.id), &data);
        if let Some(message) = &message {
            self.store_message(message);
        }
        self.writes.touch(&turn.id, Touch::Changed);
    }

    // -- small questions -------------------------------------------------------------------------------------------

    fn running(&self) -> impl Iterator<Item = usize> + '_ {
        self.session
            .turns
            .iter()
            .enumerate()
            .filter(|(_, turn)| turn.status == TurnStatus::Running)
            .map(|(index, _)| index)
    }

    fn queue(&self) -> Vec<usize> {
        queue(&self.session.turns)
    }

    fn slots(&self) -> usize {
        usize::try_from(self.session.max_running).unwrap_or(usize::MAX)
    }

    /// Whether a new turn would run at once: a slot is free and nobody waits for it.
    fn has_room(&self) -> bool {
        self.running().count() < self.slots() && self.queue().is_empty()
    }

    fn node_takes_turns(&self) -> Result<(), Refused> {
        match self.node {
            Some(node) if self.world.state(&node.incarnation) == NodeState::Live => Ok(()),
            _ => Err(Refused::Draining),
        }
    }

    fn is_orphan(&self, index: usize) -> bool {
        self.session.turns[index].owner.as_ref().is_none_or(|owner| self.world.is_gone(owner))
    }

    fn find(&self, turn_id: &str) -> Result<usize, Refused> {
        self.session
            .turns
            .iter()
            .position(|turn| turn.id == turn_id)
            .ok_or(Refused::NotFound("this session has no turn with this id"))
    }

    fn fenced(&self, fence: &Fence) -> Result<usize, Refused> {
        let index = self.find(&fence.turn_id).map_err(|_| Refused::Fenced)?;
        if self.session.turns[index].is_owned_by(&fence.incarnation, fence.term) {
            Ok(index)
        } else {
            Err(Refused::Fenced)
        }
    }

    fn needs_partial(&self, index: usize) -> Result<(), Refused> {
        let id = &self.session.turns[index].id;
        if self.session.partials.contains_key(id) { Ok(()) } else { Err(Refused::NeedsPartial(id.clone())) }
    }

    /// The running turns to supersede so that a slot will be free: the asker's own, oldest first.
    fn victims(&self, asker: &Asker) -> Result<Vec<usize>, Refused> {
        let mut running: Vec<usize> = self.running().collect();
        running.sort_by_key(|&index| self.session.turns[index].started_seq);
        let leaving = running.iter().filter(|&&index| self.session.turns[index].intent.is_some()).count();
        let needed = (running.len() - leaving + 1).saturating_sub(self.slots());
        let victims: Vec<usize> = running
            .into_iter()
            .filter(|&index| self.session.turns[index].intent.is_none() && asker.may_end(&self.session.turns[index]))
            .take(needed)
            .collect();
        if victims.len() < needed {
            return Err(Refused::Unauthorized("the running turns are other people's; wait in the queue instead"));
        }
        Ok(victims)
    }

    /// T5. The first intent stays.
    fn intend(&mut self, index: usize, reason: EndReason, by: &Person) {
        let turn = &mut self.session.turns[index];
        if turn.intent.is_none() {
            turn.intent = Some(Intent { reason, by: by.clone() });
            let id = turn.id.clone();
            self.writes.touch(&id, Touch::Changed);
        }
    }

    fn ended(&self, index: usize, now: bool) -> Done {
        let turn = &self.session.turns[index];
        Done::Ended { status: turn.status, reason: turn.reason, now }
    }

    fn event(&mut self, kind: EventKind, by: Option<&Person>, turn_id: Option<&str>, data: &Data<'_>) {
        self.session.last_seq += 1;
        self.session.updated_at = self.world.now;
        self.writes.events.push(Event {
            seq: self.session.last_seq,
            kind,
            turn_id: turn_id.map(Arc::from),
            flush: None,
            reason: data.reason().map(Arc::from),
            body: event::body(kind, self.world.now, by, turn_id, data),
        });
    }

    fn store_message(&mut self, message: &Message) {
        self.writes.messages.push(StoredMessage {
            id: message.id.clone(),
            seq: message.seq,
            text: serde_json::to_string(message).unwrap_or_default(),
        });
    }
}

/// The answer to who would end a turn in a state that this version does not know.
const NEWER: Refused =
    Refused::Conflict("only newer servers know the state that this turn is in; ask again when all are of that version");

fn answer_again(known: &KnownMessage, parts: &[Part], turn: Option<&NewTurn>, by: &Person) -> Result<Done, Refused> {
    let message = &known.message;
    let same_author = message.author.as_ref().is_some_and(|author| author.id == by.id);
    if !same_author || message.role != Role::User || message.parts != parts || known.turn_id.is_some() != turn.is_some()
    {
        return Err(Refused::Conflict("this message id is taken by another message; use a new id"));
    }
    Ok(Done::Sent {
        message_id: message.id.clone(),
        turn_id: known.turn_id.clone(),
        seq: message.seq,
        duplicate: turn.is_none() || known.turn_id.as_ref() != turn.map(|turn| &turn.id),
        interrupted: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
