//! The turn: every transition, by whom it may be made, and what it leaves.

use futures::future::join_all;

use super::{S, World, append, cancel, ended, finish, item, note, retry, send, slots, turn_id};
use crate::model::{
    EndReason, EventKind, Person, Turn, TurnError, TurnStatus,
    machine::{Asker, Done, End, Op, Refused},
};

fn force(turn: &Turn, term: u64) -> Op {
    Op::Force { turn_id: turn.id.clone(), term }
}

pub(crate) async fn t1_a_turn_runs_at_once_where_a_slot_is_free_and_nobody_waits(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    assert_eq!((turn.status, turn.term, turn.started_seq), (TurnStatus::Running, 1, Some(2)));
    assert_eq!(turn.owner.as_ref(), Some(&world.node));
    let waiting = world.wait(S, "m2").await;
    use EventKind::{MessageAdded, TurnQueued, TurnStarted};
    assert_eq!(world.kinds(S), [MessageAdded, TurnStarted, MessageAdded, TurnQueued]);
    let queued = world.last(S, TurnQueued);
    assert_eq!((&queued["turn_id"], &queued["data"]["turn"]["position"]), (&waiting.into(), &1.into()));
    let turns = world.cut(S, None).await.session.turns;
    assert!(turns.iter().all(|turn| turn.owner.is_some() == (turn.status == TurnStatus::Running)), "I6");
    world.op(S, note("n", "no answer")).await.unwrap();
    assert_eq!(world.cut(S, None).await.session.turns.len(), 2);
}

pub(crate) async fn t1_only_a_live_node_takes_turns(world: &World) {
    world.create(S).await;
    let (draining, dead) = (world.another("b").await, world.another("c").await);
    assert!(world.store.drain_node(&draining.incarnation).await.unwrap());
    world.bury(&dead).await;
    for node in [None, Some(&draining), Some(&dead)] {
        assert_eq!(world.op_on(S, send("m"), node).await.unwrap_err(), Refused::Draining);
        assert_eq!(world.op_on(S, note("m", "x"), node).await.unwrap_err(), Refused::Draining);
    }
    assert_eq!(world.head(S).await, 0, "a refused send leaves no trace");
}

pub(crate) async fn t2_the_head_of_the_queue_starts_where_a_slot_is_free(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let (second, third) = (world.wait(S, "m2").await, world.wait(S, "m3").await);
    assert!(world.op(S, Op::Reconcile).await.unwrap().started.is_empty(), "no slot is free");
    let end = finish(&turn, 0, "", End::Completed { usage: None });
    assert!(world.op_on(S, end, None).await.unwrap().started.is_empty(), "nobody to run it");
    let draining = world.another("b").await;
    assert!(world.store.drain_node(&draining.incarnation).await.unwrap());
    assert!(world.op_on(S, Op::Reconcile, Some(&draining)).await.unwrap().started.is_empty());
    let started = world.op(S, Op::Reconcile).await.unwrap().started;
    assert_eq!(started.iter().map(|turn| &turn.id).collect::<Vec<_>>(), [&second], "the head only");
    assert_eq!((started[0].term, started[0].owner.as_ref()), (1, Some(&world.node)));
    let started = world.op(S, slots(3)).await.unwrap().started;
    assert_eq!(started.iter().map(|turn| &turn.id).collect::<Vec<_>>(), [&third], "a rise starts at once");
}

pub(crate) async fn t2_the_transaction_that_frees_a_slot_starts_the_head(world: &World) {
    world.create(S).await;
    let mut running = world.start(S, "m0").await;
    let mut waiting = Vec::new();
    for n in 1..=4 {
        waiting.push(world.wait(S, &format!("m{n}")).await);
    }
    for (way, next) in waiting.iter().enumerate() {
        let applied = match way {
            0 => world.finish(&running, 0, "x").await,
            1 => world.op(S, finish(&running, 0, "", End::Failed(TurnError::lost()))).await.unwrap(),
            2 => {
                world.op(S, cancel(&running.id)).await.unwrap();
                world.op(S, finish(&running, 0, "", End::Intent)).await.unwrap()
            }
            _ => {
                world.op(S, cancel(&running.id)).await.unwrap();
                world.op(S, force(&running, running.term)).await.unwrap()
            }
        };
        assert_eq!(applied.started.iter().map(|turn| &turn.id).collect::<Vec<_>>(), [next], "way {way}");
        running = applied.started.into_iter().next().unwrap();
    }
}

pub(crate) async fn t3_t4_the_owner_appends_and_ends(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let applied = world.op(S, append(&turn, 0, &["a", "b"])).await.unwrap();
    assert_eq!(applied.done, Done::Appended { intent: false });
    let usage = Some(serde_json::value::RawValue::from_string(r#"{"tokens": 1.50}"#.to_owned()).unwrap());
    let done = world.op(S, finish(&turn, 1, "ab", End::Completed { usage })).await.unwrap();
    assert_eq!(ended(&done), ("completed", None, true));
    let event = world.events(S).pop().unwrap();
    assert!(event.body.contains(r#"{"tokens": 1.50}"#), "kept as the text that it was: {}", event.body);
    let event = world.last(S, EventKind::TurnCompleted);
    assert_eq!(
        (&event["data"]["message"]["status"], &event["data"]["message"]["seq"]),
        (&"complete".into(), &2.into())
    );
    let turn = world.start(S, "m2").await;
    world.say(&turn, 0, &["half"]).await;
    world.op(S, finish(&turn, 1, "half", End::Failed(TurnError::lost()))).await.unwrap();
    let event = world.last(S, EventKind::TurnFailed);
    assert_eq!((&event["data"]["error"]["code"], &event["data"]["error"]["retryable"]), (&"lost".into(), &true.into()));
    assert_eq!(event["data"]["message"]["parts"][0]["text"], "half");
    assert_eq!(event["data"]["message"]["status"], "partial");
    let turn = world.start(S, "m3").await;
    world.op(S, finish(&turn, 0, "", End::Failed(TurnError::lost()))).await.unwrap();
    assert!(world.last(S, EventKind::TurnFailed)["data"]["message"].is_null(), "nothing was streamed");
    assert_eq!(world.snapshot(S).await.0.len(), 5, "and so the empty answer is not there");
}

pub(crate) async fn t5_the_first_intent_stays_and_the_owner_is_told(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let stranger = Asker { person: Person { id: "bob".into(), name: "Bob".into() }, admin: false };
    let theirs = Op::Cancel { turn_id: turn.id.clone(), asker: stranger.clone() };
    assert!(matches!(world.op(S, theirs.clone()).await, Err(Refused::Unauthorized(_))));
    assert_eq!(world.op(S, cancel(&turn.id)).await.unwrap().done, Done::Intended { term: 1 });
    let admin = Op::Cancel { turn_id: turn.id.clone(), asker: Asker { admin: true, ..stranger } };
    assert_eq!(world.op(S, admin).await.unwrap().done, Done::Intended { term: 1 });
    assert_eq!(world.head(S).await, 2, "an intent is no event");
    let kept = world.cut(S, None).await.session.turns[0].intent.clone().unwrap();
    assert_eq!((kept.reason, kept.by.id.as_str()), (EndReason::User, "ada"));
    let applied = world.op(S, append(&turn, 0, &["a"])).await.unwrap();
    assert_eq!(applied.done, Done::Appended { intent: true });
}

pub(crate) async fn t6_an_intent_is_carried_out_by_the_owner_or_under_the_same_term(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    assert_eq!(world.op(S, force(&turn, 1)).await.unwrap_err(), Refused::Fenced, "nobody asked for it");
    world.say(&turn, 0, &["said"]).await;
    world.op(S, cancel(&turn.id)).await.unwrap();
    assert_eq!(world.op(S, force(&turn, 2)).await.unwrap_err(), Refused::Fenced, "another term");
    let other = world.another("b").await;
    let applied = world.op_on(S, force(&turn, 1), Some(&other)).await.unwrap();
    assert_eq!(ended(&applied), ("cancelled", Some("user"), true));
    assert_eq!(ended(&world.op(S, force(&turn, 1)).await.unwrap()), ("cancelled", Some("user"), false));
    let event = world.last(S, EventKind::TurnCancelled);
    assert_eq!((&event["by"]["id"], &event["data"]["message"]["parts"][0]["text"]), (&"ada".into(), &"said".into()));
    assert_eq!(world.op(S, append(&turn, 1, &["late"])).await.unwrap_err(), Refused::Fenced);
    let own = world.start(S, "m2").await;
    world.op(S, cancel(&own.id)).await.unwrap();
    let applied = world.op(S, finish(&own, 0, "more", End::Intent)).await.unwrap();
    assert_eq!(ended(&applied), ("cancelled", Some("user"), true));
}

pub(crate) async fn t7_only_a_dead_owners_turn_is_ended_and_keeps_what_it_said(world: &World) {
    let other = world.another("b").await;
    world.create(S).await;
    let turn = world.op_on(S, send("m1"), Some(&other)).await.unwrap().started.remove(0);
    world.op_on(S, append(&turn, 0, &["so ", "far"]), None).await.unwrap();
    world.op(S, Op::Reconcile).await.unwrap();
    assert!(world.store.drain_node(&other.incarnation).await.unwrap());
    world.op(S, Op::Reconcile).await.unwrap();
    assert_eq!(world.head(S).await, 4, "I10: a live or draining owner's turn is left alone");
    world.bury(&other).await;
    let next = world.op(S, send("m2")).await.unwrap();
    assert_eq!(next.started.len(), 1, "a send looks too, and takes the slot");
    let event = world.last(S, EventKind::TurnCancelled);
    assert_eq!((&event["turn_id"], &event["data"]["reason"]), (&turn.id.clone().into(), &"owner_gone".into()));
    assert_eq!(event["data"]["message"]["parts"][0]["text"], "so far");
    assert!(event["by"].is_null());
    assert_eq!(world.op_on(S, append(&turn, 1, &["zombie"]), None).await.unwrap_err(), Refused::Fenced);
    let late = world.op_on(S, finish(&turn, 1, "so far zombie", End::Completed { usage: None }), None).await.unwrap();
    assert_eq!(ended(&late), ("cancelled", Some("owner_gone"), false));
    let retried = world.op(S, retry(&turn.id)).await.unwrap();
    assert!(
        matches!(retried.done, Done::Retried { attempt: 2, duplicate: false, .. }),
        "I14: only a person asks again"
    );
}

pub(crate) async fn t7_an_intent_gives_its_own_reason(world: &World) {
    let other = world.another("b").await;
    for (session, by_cancel) in [("reconciled", false), ("cancelled", true)] {
        world.create(session).await;
        let turn = world.op_on(session, send("m1"), Some(&other)).await.unwrap().started.remove(0);
        world.op(session, cancel(&turn.id)).await.unwrap();
        if by_cancel {
            world.bury(&other).await;
            let applied = world.op(session, cancel(&turn.id)).await.unwrap();
            assert_eq!(ended(&applied), ("cancelled", Some("user"), true));
        }
    }
    world.op("reconciled", Op::Reconcile).await.unwrap();
    for session in ["reconciled", "cancelled"] {
        let event = world.last(session, EventKind::TurnCancelled);
        assert_eq!((&event["data"]["reason"], &event["by"]["id"]), (&"user".into(), &"ada".into()));
    }
}

pub(crate) async fn t8_a_draining_owner_ends_what_it_still_owns(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let waiting = world.wait(S, "m2").await;
    world.say(&turn, 0, &["half"]).await;
    assert!(world.store.drain_node(&world.node.incarnation).await.unwrap());
    world.op(S, append(&turn, 1, &[" more"])).await.unwrap();
    let incarnation = world.node.incarnation.clone();
    let op = Op::EndOwned { turn_id: turn.id.clone(), incarnation, term: turn.term, end: End::Shutdown };
    let applied = world.op(S, op).await.unwrap();
    assert_eq!(ended(&applied), ("cancelled", Some("shutdown"), true));
    assert!(applied.started.is_empty(), "a draining node starts nothing");
    let event = world.last(S, EventKind::TurnCancelled);
    assert_eq!(event["data"]["message"]["parts"][0]["text"], "half more");
    let other = world.another("b").await;
    let started = world.op_on(S, Op::Reconcile, Some(&other)).await.unwrap().started;
    assert_eq!((started[0].id.as_str(), started[0].owner.as_ref()), (waiting.as_str(), Some(&other)));
}

pub(crate) async fn t9_a_waiting_turn_is_cancelled_and_the_queue_closes_up(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let (second, third) = (world.wait(S, "m2").await, world.wait(S, "m3").await);
    // Any node may, also one that takes no turns.
    let applied = world.op_on(S, cancel(&second), None).await.unwrap();
    assert_eq!(ended(&applied), ("cancelled", Some("user"), true));
    assert!(world.last(S, EventKind::TurnCancelled)["data"]["message"].is_null());
    assert_eq!(ended(&world.op(S, cancel(&second)).await.unwrap()), ("cancelled", Some("user"), false));
    let started = world.finish(&turn, 0, "x").await.started;
    assert_eq!(started[0].id, third);
}

pub(crate) async fn i8_never_more_than_max_running_run(world: &World) {
    world.create(S).await;
    world.op(S, slots(3)).await.unwrap();
    let ids: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    let sent = join_all(ids.iter().map(|id| world.op(S, send(id)))).await;
    let mut running: Vec<Turn> = sent.into_iter().flat_map(|applied| applied.unwrap().started).collect();
    let mut ended = 0;
    while !running.is_empty() {
        assert_eq!(running.len(), 3.min(20 - ended));
        assert_eq!(world.running(&world.node).await, running.len());
        let turn = running.remove(0);
        let more = join_all((0..5).map(|_| world.op(S, Op::Reconcile))).await;
        assert!(more.iter().all(|applied| applied.as_ref().unwrap().started.is_empty()));
        running.extend(world.finish(&turn, 0, "x").await.started);
        ended += 1;
    }
    assert_eq!(ended, 20);
    world.op(S, slots(1)).await.unwrap();
}

pub(crate) async fn i9_of_a_complete_a_cancel_and_a_force_exactly_one_wins(world: &World) {
    world.create(S).await;
    for n in 0..60 {
        let turn = world.start(S, &format!("m{n}")).await;
        let mut ops = vec![
            finish(&turn, 0, "x", End::Completed { usage: None }),
            cancel(&turn.id),
            force(&turn, turn.term),
            finish(&turn, 0, "x", End::Intent),
            force(&turn, turn.term),
        ];
        ops.rotate_left(n % 5);
        if n % 2 == 1 {
            ops.reverse();
        }
        let outcomes = join_all(ops.into_iter().map(|op| world.op(S, op))).await;
        let answers = outcomes.iter().flatten().filter(|applied| matches!(applied.done, Done::Ended { .. }));
        let answers: Vec<_> = answers.map(ended).collect();
        assert_eq!(answers.iter().filter(|(.., now)| *now).count(), 1, "{outcomes:?}");
        let (status, reason, _) = answers[0];
        assert!(answers.iter().all(|answer| (answer.0, answer.1) == (status, reason)), "{answers:?}");
        let terminal = world.events(S).into_iter().filter(|event| event.turn_id.as_deref() == Some(&*turn.id));
        assert_eq!(terminal.filter(|event| event.kind != EventKind::TurnStarted).count(), 1);
    }
}

pub(crate) async fn i10_a_thousand_reconciles_make_one_end(world: &World) {
    let other = world.another("b").await;
    world.create(S).await;
    let turn = world.op_on(S, send("m1"), Some(&other)).await.unwrap().started.remove(0);
    let thousand = || (0..1_000).map(|_| item(S, Op::Reconcile, Some(&world.node))).collect();
    world.commit(thousand()).await;
    assert_eq!(world.head(S).await, 2);
    world.bury(&other).await;
    world.commit(thousand()).await;
    join_all((0..50).map(|_| world.op(S, Op::Reconcile))).await;
    assert_eq!(world.head(S).await, 3);
    assert_eq!(world.last(S, EventKind::TurnCancelled)["turn_id"], turn.id);
}

pub(crate) async fn i13_the_queue_survives_its_node_and_runs_in_order_once(world: &World) {
    let other = world.another("b").await;
    world.create(S).await;
    world.op_on(S, send("m0"), Some(&other)).await.unwrap();
    let mut waiting = Vec::new();
    for n in 1..=5 {
        waiting.push(turn_id(&world.op_on(S, send(&format!("m{n}")), Some(&other)).await.unwrap()));
    }
    world.bury(&other).await;
    let mut started = world.op(S, Op::Reconcile).await.unwrap().started;
    let mut order = Vec::new();
    while let Some(turn) = started.pop() {
        order.push(turn.id.clone());
        started = world.finish(&turn, 0, "x").await.started;
    }
    assert_eq!(order, waiting);
    assert_eq!(world.kinds(S).iter().filter(|kind| **kind == EventKind::TurnStarted).count(), 6);
}
