//! Every transition while somebody else holds its session: it waits, and then judges what is there after the wait.
//!
//! For a store that more than one server writes. The other server is an [`Intruder`]: it holds a session's lock, changes
//! something under it once the item at hand is seen waiting, and commits. What an item would have done before the change
//! must not happen.

use async_trait::async_trait;
use serde_json::{Value, json};

use super::{Compacted, End, FUTURE, S, World, append, cancel, ended, finish, item, send, slots, turn_id};
use crate::model::{
    EventKind, Turn, TurnStatus,
    machine::{Applied, Done, Op, Refused},
};

/// Another server's transaction on the same database.
#[async_trait]
pub(crate) trait Intruder: Send + Sync {
    /// Begins a transaction and locks a session.
    async fn hold(&self, session: &str);
    /// Begins a transaction that drops the deltas of a turn, as a compaction does.
    async fn compact(&self, turn_id: &str);
    /// Returns when somebody waits for one of its locks.
    async fn somebody_waits(&self);
    /// Changes the slots of the session.
    async fn set_slots(&self, session: &str, max_running: u32);
    /// Deletes the row of the session.
    async fn delete(&self, session: &str);
    /// Changes fields of a turn, in its row and in what is derived from it.
    async fn change_turn(&self, turn_id: &str, fields: Value);
    /// Commits.
    async fn release(&self);
}

const AT: &str = "2026-11-22T10:00:00.000Z";

/// What the held transaction does before it commits.
enum Change<'a> {
    Slots(u32),
    Turn(&'a str, Value),
    Deletion,
}

/// Writes `op` while the session is held, and lets `change` happen first.
async fn behind(world: &World, other: &dyn Intruder, op: Op, change: Change<'_>) -> Result<Applied, Refused> {
    other.hold(S).await;
    let meddle = async {
        other.somebody_waits().await;
        match change {
            Change::Slots(slots) => other.set_slots(S, slots).await,
            Change::Turn(id, fields) => other.change_turn(id, fields).await,
            Change::Deletion => other.delete(S).await,
        }
        other.release().await;
    };
    let (answer, ()) = tokio::join!(world.op(S, op), meddle);
    answer
}

fn completed() -> End {
    End::Completed { usage: None }
}

fn own(turn: &Turn, end: End) -> Op {
    let incarnation = turn.owner.as_ref().unwrap().incarnation.clone();
    Op::EndOwned { turn_id: turn.id.clone(), incarnation, term: turn.term, end }
}

pub(crate) async fn t1_a_send_takes_no_slot_that_went_while_it_waited(world: &World, other: &dyn Intruder) {
    world.create(S).await;
    let applied = behind(world, other, send("m1"), Change::Slots(0)).await.unwrap();
    assert!(applied.started.is_empty(), "I8: the slot is gone");
    assert_eq!(world.kinds(S), [EventKind::MessageAdded, EventKind::TurnQueued]);
    assert_eq!(world.op(S, slots(1)).await.unwrap().started.len(), 1);
}

pub(crate) async fn t2_a_start_takes_no_slot_that_went_while_it_waited(world: &World, other: &dyn Intruder) {
    world.create(S).await;
    let first = world.start(S, "m1").await;
    let second = world.wait(S, "m2").await;
    let end = finish(&first, 0, "x", completed());
    assert!(world.op_on(S, end, None).await.unwrap().started.is_empty());
    let applied = behind(world, other, Op::Reconcile, Change::Slots(0)).await.unwrap();
    assert!(applied.started.is_empty(), "I8: the slot is gone");
    assert_eq!(world.op(S, slots(1)).await.unwrap().started[0].id, second);
}

pub(crate) async fn t3_no_delta_lands_under_a_term_that_ended_while_it_waited(world: &World, other: &dyn Intruder) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    world.say(&turn, 0, &["a"]).await;
    let change = Change::Turn(&turn.id, json!({"term": 2}));
    assert_eq!(behind(world, other, append(&turn, 1, &["b"]), change).await.unwrap_err(), Refused::Fenced);
    assert_eq!(world.head(S).await, 3);
}

pub(crate) async fn t4_no_end_under_a_term_that_ended_while_it_waited(world: &World, other: &dyn Intruder) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let change = Change::Turn(&turn.id, json!({"term": 2}));
    let answer = behind(world, other, finish(&turn, 0, "x", completed()), change).await;
    assert_eq!(answer.unwrap_err(), Refused::Fenced);
    assert_eq!(world.head(S).await, 2);
}

/// The turn ends, as far as its row tells, while `op` waits: the answer says how, and nothing is appended.
async fn ends_meanwhile(world: &World, other: &dyn Intruder, turn: &Turn, op: Op) {
    let head = world.head(S).await;
    let change = Change::Turn(&turn.id, json!({"status": "completed", "owner": null, "ended_at": AT, "intent": null}));
    let applied = behind(world, other, op, change).await.unwrap();
    assert_eq!(ended(&applied), ("completed", None, false));
    assert_eq!(world.head(S).await, head);
}

pub(crate) async fn t5_no_intent_on_a_turn_that_ended_while_it_waited(world: &World, other: &dyn Intruder) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    ends_meanwhile(world, other, &turn, cancel(&turn.id)).await;
}

pub(crate) async fn t6_no_intent_is_carried_out_on_a_turn_that_ended_while_it_waited(
    world: &World,
    other: &dyn Intruder,
) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    world.op(S, cancel(&turn.id)).await.unwrap();
    ends_meanwhile(world, other, &turn, Op::Force { turn_id: turn.id.clone(), term: turn.term }).await;
}

pub(crate) async fn t7_no_orphan_is_ended_that_found_an_owner_while_it_waited(world: &World, other: &dyn Intruder) {
    let gone = world.another("b").await;
    world.create(S).await;
    let turn = world.op_on(S, send("m1"), Some(&gone)).await.unwrap().started.remove(0);
    world.bury(&gone).await;
    let owner = json!({"owner": {"node": world.node.node, "incarnation": world.node.incarnation}});
    behind(world, other, Op::Reconcile, Change::Turn(&turn.id, owner)).await.unwrap();
    assert_eq!(world.head(S).await, 2, "I10");
    assert_eq!(world.running(&world.node).await, 1);
}

pub(crate) async fn t8_no_shutdown_ends_a_turn_that_changed_hands_while_it_waited(world: &World, other: &dyn Intruder) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let change = Change::Turn(&turn.id, json!({"term": 2}));
    assert_eq!(behind(world, other, own(&turn, End::Shutdown), change).await.unwrap_err(), Refused::Fenced);
    assert_eq!(world.head(S).await, 2);
}

pub(crate) async fn t9_a_turn_that_started_while_its_cancel_waited_is_asked_to_end(
    world: &World,
    other: &dyn Intruder,
) {
    world.create(S).await;
    world.start(S, "m1").await;
    let waiting = turn_id(&world.op(S, send("m2")).await.unwrap());
    let owner = json!({"node": world.node.node, "incarnation": world.node.incarnation});
    let running = json!({"status": "running", "term": 1, "owner": owner, "started_at": AT, "started_seq": 2});
    let answer = behind(world, other, cancel(&waiting), Change::Turn(&waiting, running)).await;
    assert_eq!(answer.unwrap().done, Done::Intended { term: 1 });
    let turns = world.cut(S, None).await.session.turns;
    assert!(turns.iter().any(|turn| turn.id == waiting && turn.status == TurnStatus::Running));
}

pub(crate) async fn a_batch_does_not_leave_out_what_is_held(world: &World, other: &dyn Intruder) {
    let sessions: Vec<String> = ["held", "free"].map(str::to_owned).to_vec();
    let mut turns = Vec::new();
    for session in &sessions {
        world.create(session).await;
        turns.push(world.start(session, "m1").await);
    }
    other.hold("held").await;
    let mut batch = Vec::new();
    for (session, turn) in sessions.iter().zip(&turns) {
        batch.push(item(session, append(turn, 0, &["a", "b"]), None));
        batch.push(item(session, append(turn, 1, &["c"]), None));
    }
    batch.push(item("free", cancel(&turns[1].id), None));
    let release = async {
        other.somebody_waits().await;
        other.release().await;
    };
    let (committed, ()) = tokio::join!(world.commit(batch), release);
    assert!(committed.outcomes.iter().all(Result::is_ok), "{:?}", committed.outcomes);
    for session in &sessions {
        assert_eq!(world.head(session).await, 5, "{session}");
    }
}

pub(crate) async fn l12_what_waited_for_a_deletion_finds_nothing_and_makes_it_anew(
    world: &World,
    other: &dyn Intruder,
) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    world.seen.lock().unwrap().clear();
    let refused = behind(world, other, append(&turn, 0, &["a"]), Change::Deletion).await;
    assert!(matches!(refused, Err(Refused::NotFound(_))), "{refused:?}");
    world.create(S).await;
    let before = world.cut(S, None).await.session;
    other.hold(S).await;
    let batch = vec![item(S, super::create(), Some(&world.node)), item(S, super::note("n", "x"), Some(&world.node))];
    let meddle = async {
        other.somebody_waits().await;
        other.delete(S).await;
        other.release().await;
    };
    let (committed, ()) = tokio::join!(world.commit(batch), meddle);
    assert_eq!(committed.outcomes[0].as_ref().unwrap().done, Done::Created(true));
    assert!(committed.outcomes[1].is_ok(), "{:?}", committed.outcomes[1]);
    let session = world.cut(S, None).await.session;
    assert_eq!((session.last_seq, session.key > before.key), (1, true));
}

/// Two turns of one session, of which the first has ended, with deltas that lie between each other.
async fn ended_and_running(world: &World) -> (Turn, Turn) {
    world.create(S).await;
    world.op(S, slots(2)).await.unwrap();
    let (gone, runs) = (world.start(S, "m1").await, world.start(S, "m2").await);
    for flush in 0..3 {
        world.say(&gone, flush, &["a"]).await;
        world.say(&runs, flush, &["b"]).await;
    }
    world.finish(&gone, 3, "aaa").await;
    (gone, runs)
}

pub(crate) async fn l5_a_compaction_waits_for_no_session(world: &World, other: &dyn Intruder) {
    ended_and_running(world).await;
    other.hold(S).await;
    let step = world.store.compact(FUTURE, 2).await.unwrap();
    assert_eq!(step, Compacted { deltas: 2, more: true });
    other.release().await;
}

pub(crate) async fn l5_nobody_waits_for_a_compaction(world: &World, other: &dyn Intruder) {
    let (gone, runs) = ended_and_running(world).await;
    other.compact(&gone.id).await;
    world.say(&runs, 3, &["b"]).await;
    world.finish(&runs, 4, "bbbb").await;
    world.start(S, "m3").await;
    let step = world.store.compact(FUTURE, 10).await.unwrap();
    assert_eq!(
        step,
        Compacted { deltas: 4, more: false },
        "those of the other turn; the first is the other's to finish"
    );
    other.release().await;
}

/// One test for each case above: `$open` is an expression for a future of the store, of what must live as long as it,
/// and of an intruder.
macro_rules! exercise_locks {
    ($open:expr; $($case:ident),+ $(,)?) => {
        $(#[tokio::test]
        async fn $case() {
            let (store, keep, intruder) = $open.await;
            let world = $crate::store::conformance::World::new(store, keep).await;
            $crate::store::conformance::locks::$case(&world, &*intruder).await;
        })+
    };
    ($open:expr) => {
        $crate::store::conformance::locks::exercise_locks! { $open;
            t1_a_send_takes_no_slot_that_went_while_it_waited,
            t2_a_start_takes_no_slot_that_went_while_it_waited,
            t3_no_delta_lands_under_a_term_that_ended_while_it_waited,
            t4_no_end_under_a_term_that_ended_while_it_waited,
            t5_no_intent_on_a_turn_that_ended_while_it_waited,
            t6_no_intent_is_carried_out_on_a_turn_that_ended_while_it_waited,
            t7_no_orphan_is_ended_that_found_an_owner_while_it_waited,
            t8_no_shutdown_ends_a_turn_that_changed_hands_while_it_waited,
            t9_a_turn_that_started_while_its_cancel_waited_is_asked_to_end,
            l12_what_waited_for_a_deletion_finds_nothing_and_makes_it_anew,
            a_batch_does_not_leave_out_what_is_held,
            l5_a_compaction_waits_for_no_session,
            l5_nobody_waits_for_a_compaction,
        }
    };
}
pub(crate) use exercise_locks;
