//! What every store must do, run unchanged by each form.
//!
//! [`exercise!`] makes one test of each case below, on a store that the form opens afresh. The cases know nothing but
//! the trait [`Store`]: no statement, no file, no server. Their helper is a [`World`]: a store, one live node in it,
//! and everything that was ever appended, so that seqs can be checked to be without a gap.

pub(super) mod deletion;
pub(super) mod locks;
pub(super) mod log;
pub(super) mod nodes;
pub(super) mod reads;
pub(super) mod turns;

use std::{
    any::Any,
    collections::HashMap,
    sync::{Arc, Mutex},
};

use serde_json::Value;

use super::{
    Catchup, Committed, Compacted, Cut, From, Item, ListQuery, NewNode, PageLimits, Result, SnapshotReason, Store,
};
use crate::{
    clock::{self, Timestamp},
    ids::{self, Incarnation},
    model::{
        Event, EventKind, Message, Owner, Part, PartKind, Person, Turn, TurnStatus,
        event::{self, Data},
        fold::Delta,
        machine::{Applied, Asker, DeltaEvent, Done, End, Fence, NewTurn, Op, Refused, WhenBusy},
    },
};

/// One test for each case, each on a store of its own: `$open` is an expression for a future of the store and of what
/// must live as long as it. With the name of a group, only those of that.
macro_rules! exercise {
    ($open:expr; $($group:ident: $($case:ident),+ $(,)?);+ $(;)?) => {
        $(mod $group {
            use super::*;
            $(#[tokio::test]
            async fn $case() {
                let (store, keep) = $open.await;
                let world = $crate::store::conformance::World::new(store, keep).await;
                $crate::store::conformance::$group::$case(&world).await;
                world.check().await;
            })+
        })+
    };
    ($open:expr; log) => {
        $crate::store::conformance::exercise! { $open;
            log:
                l1_seqs_are_gapless_and_in_order_in_batches_of_many_sessions,
                l1_concurrent_commits_give_every_seq_once,
                l3_a_refused_item_changes_nothing_and_fails_nobody,
                l3_items_of_one_session_see_those_before_them,
                l3_nothing_of_a_turn_follows_its_terminal_event,
                l4_what_is_written_again_is_there_once,
                l4_a_flush_that_the_store_never_saw_the_one_before_of_says_so,
                i7_a_stale_owner_or_term_changes_nothing,
                i16_one_id_in_many_commits_at_once_makes_one_message
        }
    };
    ($open:expr; turns) => {
        $crate::store::conformance::exercise! { $open;
            turns:
                t1_a_turn_runs_at_once_where_a_slot_is_free_and_nobody_waits,
                t1_only_a_live_node_takes_turns,
                t2_the_head_of_the_queue_starts_where_a_slot_is_free,
                t2_the_transaction_that_frees_a_slot_starts_the_head,
                t3_t4_the_owner_appends_and_ends,
                t5_the_first_intent_stays_and_the_owner_is_told,
                t6_an_intent_is_carried_out_by_the_owner_or_under_the_same_term,
                t7_only_a_dead_owners_turn_is_ended_and_keeps_what_it_said,
                t7_an_intent_gives_its_own_reason,
                t8_a_draining_owner_ends_what_it_still_owns,
                t9_a_waiting_turn_is_cancelled_and_the_queue_closes_up,
                i8_never_more_than_max_running_run,
                i9_of_a_complete_a_cancel_and_a_force_exactly_one_wins,
                i10_a_thousand_reconciles_make_one_end,
                i13_the_queue_survives_its_node_and_runs_in_order_once
        }
    };
    ($open:expr; reads) => {
        $crate::store::conformance::exercise! { $open;
            reads:
                l10_a_partial_is_chunks_and_the_deltas_after_them,
                i12_an_end_in_the_batch_of_its_last_deltas_keeps_them,
                a_snapshot_has_the_newest_messages_without_a_hole_and_at_least_one,
                history_pages_meet_without_a_gap_or_a_repeat,
                ended_is_the_newest_turn_of_each_prompt_if_that_has_ended,
                a_replay_leaves_out_deltas_of_ended_turns,
                a_replay_comes_in_pages_by_bytes,
                l9_each_cursor_that_cannot_be_honoured_has_its_reason,
                the_context_of_a_first_attempt_and_of_a_retry,
                a_list_filters_and_pages,
                sessions_are_picked_by_id_or_by_having_a_turn,
                l5_compaction_drops_only_deltas_of_turns_that_ended_before,
                l5_compaction_goes_in_small_steps_and_comes_to_an_end,
                a_new_history_changes_every_epoch,
                l7_heads_of_many_sessions_are_read_at_once,
                what_waits_is_counted_and_the_oldest_of_it_known,
                sessions_are_picked_by_the_age_of_their_turns,
                turns_whose_owner_was_gone_are_found_newest_first
        }
    };
    ($open:expr; deletion) => {
        $crate::store::conformance::exercise! { $open;
            deletion:
                l12_a_deleted_session_is_gone_at_once_and_its_id_begins_another_log,
                l12_nothing_of_a_deleted_sessions_turns_is_written_into_the_next,
                l12_who_may_not_delete_changes_nothing,
                l12_what_follows_a_deletion_in_its_batch_finds_nothing,
                l12_a_create_beside_a_deletion_makes_what_it_says,
                l12_what_is_left_is_removed_in_small_steps_and_nothing_else,
                l12_who_deleted_is_known_until_it_is_forgotten
        }
    };
    ($open:expr; nodes) => {
        $crate::store::conformance::exercise! { $open;
            nodes:
                i2_a_node_never_goes_back,
                a_renewal_of_a_dead_or_missing_row_says_so,
                a_tombstone_compares_the_beat,
                a_dead_row_with_a_running_turn_stays,
                a_renewal_reads_every_node_and_this_nodes_turns,
                i20_what_needs_work_is_found
        }
    };
    ($open:expr) => {
        $crate::store::conformance::exercise! { $open; log }
        $crate::store::conformance::exercise! { $open; turns }
        $crate::store::conformance::exercise! { $open; reads }
        $crate::store::conformance::exercise! { $open; nodes }
        $crate::store::conformance::exercise! { $open; deletion }
    };
}
pub(crate) use exercise;

/// A store, a live node in it, and what was appended.
pub(super) struct World {
    store: Arc<dyn Store>,
    node: Owner,
    seen: Mutex<HashMap<Arc<str>, Vec<Event>>>,
    _keep: Box<dyn Any + Send + Sync>,
}

/// The session of most cases.
const S: &str = "s";
/// A time after every other.
const FUTURE: Timestamp = Timestamp(i64::MAX);

impl World {
    pub(super) async fn new(store: Arc<dyn Store>, keep: Box<dyn Any + Send + Sync>) -> Self {
        let node = owner("a");
        store.start_node(new_node(&node, true)).await.unwrap();
        Self { store, node, seen: Mutex::default(), _keep: keep }
    }

    /// Another live node.
    async fn another(&self, name: &str) -> Owner {
        let node = owner(name);
        self.store.start_node(new_node(&node, false)).await.unwrap();
        node
    }

    /// How many turns run on a node, as a list of all sessions shows them.
    async fn running(&self, node: &Owner) -> usize {
        let query = ListQuery { limit: 1_000, ..ListQuery::default() };
        let sessions = self.store.list(&query).await.unwrap();
        let turns = sessions.iter().flat_map(|session| &session.turns);
        turns.filter(|turn| turn.status == TurnStatus::Running && turn.owner.as_ref() == Some(node)).count()
    }

    /// Waits until what is written next has a later time.
    async fn pass(&self) {
        let before = clock::now();
        while clock::now() == before {
            tokio::task::yield_now().await;
        }
    }

    async fn bury(&self, node: &Owner) {
        assert!(self.store.bury_node(&node.incarnation, None).await.unwrap());
    }

    async fn try_commit(&self, items: Vec<Item>) -> Result<Committed> {
        let sessions: Vec<Arc<str>> = items.iter().map(|item| item.session.clone()).collect();
        let committed = self.store.commit(Arc::new(items)).await?;
        let mut seen = self.seen.lock().unwrap();
        for (session, outcome) in sessions.iter().zip(&committed.outcomes) {
            if matches!(outcome, Ok(Applied { done: Done::Deleted { .. }, .. })) {
                seen.remove(session);
            }
        }
        for appended in &committed.appended {
            let events = seen.entry(appended.session.clone()).or_default();
            events.extend(appended.events.iter().cloned());
        }
        Ok(committed)
    }

    async fn commit(&self, items: Vec<Item>) -> Committed {
        self.try_commit(items).await.unwrap()
    }

    /// One item on behalf of the world's node.
    async fn op(&self, session: &str, op: Op) -> std::result::Result<Applied, Refused> {
        self.op_on(session, op, Some(&self.node)).await
    }

    /// One item on behalf of a node, or of none.
    async fn op_on(&self, session: &str, op: Op, node: Option<&Owner>) -> std::result::Result<Applied, Refused> {
        self.commit(vec![item(session, op, node)]).await.outcomes.remove(0)
    }

    async fn create(&self, session: &str) {
        self.op(session, create()).await.unwrap();
    }

    /// Sends a message and takes its turn, which must have started.
    async fn start(&self, session: &str, id: &str) -> Turn {
        let applied = self.op(session, send(id)).await.unwrap();
        let turn = applied.started.into_iter().next();
        turn.unwrap_or_else(|| panic!("the turn of {id} waits"))
    }

    /// Sends a message whose turn must wait; the turn's id.
    async fn wait(&self, session: &str, id: &str) -> String {
        let applied = self.op(session, send(id)).await.unwrap();
        assert!(applied.started.is_empty());
        turn_id(&applied)
    }

    async fn say(&self, turn: &Turn, flush: u64, texts: &[&str]) {
        self.op(S, append(turn, flush, texts)).await.unwrap();
    }

    async fn finish(&self, turn: &Turn, flush: u64, text: &str) -> Applied {
        self.op(S, finish(turn, flush, text, End::Completed { usage: None })).await.unwrap()
    }

    async fn cut(&self, session: &str, from: Option<From>) -> Cut {
        self.cut_within(session, from, PageLimits::default()).await
    }

    async fn cut_within(&self, session: &str, from: Option<From>, limits: PageLimits) -> Cut {
        self.store.cut(session, from, limits).await.unwrap().unwrap()
    }

    async fn head(&self, session: &str) -> u64 {
        self.cut(session, None).await.session.last_seq
    }

    /// A snapshot: stored messages, then streaming ones.
    async fn snapshot(&self, session: &str) -> (Vec<Message>, Vec<Message>) {
        let cut = self.cut(session, Some(From::Start(SnapshotReason::FirstJoin))).await;
        let Some(Catchup::Snapshot { messages, streaming, .. }) = cut.catchup else { panic!("no snapshot") };
        let messages = messages.messages.iter().map(|(_, text)| serde_json::from_str(text).unwrap()).collect();
        (messages, streaming)
    }

    /// The events that were appended to a session so far.
    fn events(&self, session: &str) -> Vec<Event> {
        let mut events = self.seen.lock().unwrap().get(session).cloned().unwrap_or_default();
        events.sort_by_key(|event| event.seq);
        events
    }

    /// The kinds of a session's events so far, deltas left out.
    fn kinds(&self, session: &str) -> Vec<EventKind> {
        let kinds = self.events(session).into_iter().map(|event| event.kind);
        kinds.filter(|kind| *kind != EventKind::TurnDelta).collect()
    }

    /// The last event of a kind about a turn.
    fn last(&self, session: &str, kind: EventKind) -> Value {
        let events = self.events(session);
        let event = events.iter().rev().find(|event| event.kind == kind);
        value(event.unwrap_or_else(|| panic!("no {kind:?}")))
    }

    /// After every case: each session's seqs are 1..n, and n is its head.
    pub(super) async fn check(&self) {
        let sessions: Vec<Arc<str>> = self.seen.lock().unwrap().keys().cloned().collect();
        for session in sessions {
            let seqs: Vec<u64> = self.events(&session).iter().map(|event| event.seq).collect();
            let head = self.head(&session).await;
            assert_eq!(seqs, (1..=head).collect::<Vec<_>>(), "{session}");
        }
    }
}

fn owner(name: &str) -> Owner {
    Owner { node: name.to_owned(), incarnation: Incarnation::mint() }
}

fn new_node(owner: &Owner, process_start: bool) -> NewNode {
    NewNode { owner: owner.clone(), beat: ids::beat(), lease_ttl_ms: 6_000, exclusive: false, process_start }
}

fn item(session: &str, op: Op, node: Option<&Owner>) -> Item {
    Item { session: session.into(), node: node.cloned(), op: Arc::new(op) }
}

fn ada() -> Asker {
    Asker { person: Person { id: "ada".to_owned(), name: "Ada".to_owned() }, admin: false }
}

fn create() -> Op {
    Op::Create { epoch: ids::short(), title: None, metadata: None, max_running: None, must_be_new: false }
}

fn new_turn() -> NewTurn {
    NewTurn { id: ids::fresh(), reply_id: ids::fresh(), agent: "echo".to_owned() }
}

/// A message that asks for an answer; its text is its id.
fn send(id: &str) -> Op {
    send_text(id, id, Some(new_turn()))
}

/// A message that asks for none.
fn note(id: &str, text: &str) -> Op {
    send_text(id, text, None)
}

fn send_text(id: &str, text: &str, turn: Option<NewTurn>) -> Op {
    Op::Send {
        message_id: id.to_owned(),
        parts: vec![Part::text(text)],
        turn,
        when_busy: WhenBusy::Queue,
        max_queue: 100,
        asker: ada(),
    }
}

fn retry(turn_id: &str) -> Op {
    Op::Retry { turn_id: turn_id.to_owned(), turn: new_turn(), max_queue: 100, asker: ada() }
}

fn cancel(turn_id: &str) -> Op {
    Op::Cancel { turn_id: turn_id.to_owned(), asker: ada() }
}

fn delete() -> Op {
    Op::Delete { asker: Asker { admin: true, ..ada() } }
}

fn slots(max_running: u32) -> Op {
    Op::Update { title: None, metadata: None, max_running: Some(max_running), asker: ada() }
}

fn fence(turn: &Turn, flush: u64) -> Fence {
    let incarnation = turn.owner.as_ref().unwrap().incarnation.clone();
    Fence { turn_id: turn.id.clone(), incarnation, term: turn.term, flush }
}

fn text_delta(text: &str) -> Delta {
    Delta { part: 0, kind: PartKind::Text, text: Some(text.to_owned()), value: None }
}

fn delta_events(turn: &Turn, texts: &[&str]) -> Vec<DeltaEvent> {
    let encode = |text: &&str| {
        let delta = text_delta(text);
        let body = event::body(EventKind::TurnDelta, Timestamp(0), None, Some(&turn.id), &Data::Delta(&delta));
        DeltaEvent { delta, body }
    };
    texts.iter().map(encode).collect()
}

fn append(turn: &Turn, flush: u64, texts: &[&str]) -> Op {
    Op::Append { fence: fence(turn, flush), deltas: delta_events(turn, texts), chunk: None }
}

/// An append that also writes a chunk of `chunk`, the text since the chunk before, these deltas included.
fn append_chunk(turn: &Turn, flush: u64, texts: &[&str], chunk: &str) -> Op {
    let chunk = Some(vec![text_delta(chunk)]);
    Op::Append { fence: fence(turn, flush), deltas: delta_events(turn, texts), chunk }
}

/// The end by the runner, with its whole answer and no deltas left.
fn finish(turn: &Turn, flush: u64, text: &str, end: End) -> Op {
    let parts = if text.is_empty() { Vec::new() } else { vec![Part::text(text)] };
    Op::Finish { fence: fence(turn, flush), deltas: Vec::new(), parts, end }
}

fn value(event: &Event) -> Value {
    let mut text = String::new();
    event.write_to(&mut text);
    serde_json::from_str(&text).unwrap()
}

fn turn_id(applied: &Applied) -> String {
    match &applied.done {
        Done::Sent { turn_id: Some(id), .. } | Done::Retried { turn_id: id, .. } => id.clone(),
        other => panic!("no turn in {other:?}"),
    }
}

/// How an item says that a turn has ended: status, reason, whether by this item.
fn ended(applied: &Applied) -> (&str, Option<&str>, bool) {
    match &applied.done {
        Done::Ended { status, reason, now } => {
            (status.name(), reason.as_ref().map(crate::model::EndReason::name), *now)
        }
        other => panic!("not ended: {other:?}"),
    }
}
