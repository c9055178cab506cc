//! The log: seqs, batches, refusals, idempotent keys, the fence.

use futures::future::join_all;

use super::{
    super::Item, S, World, append, append_chunk, cancel, create, ended, finish, item, note, retry, send, send_text,
    turn_id,
};
use crate::{
    ids::Incarnation,
    model::{
        TurnError,
        machine::{Done, End, Op, Refused, WhenBusy},
    },
};

pub(crate) async fn l1_seqs_are_gapless_and_in_order_in_batches_of_many_sessions(world: &World) {
    let sessions: Vec<String> = (0..7).map(|n| format!("s{n}")).collect();
    let on = |session: &String, op: Op| item(session, op, Some(&world.node));
    let mut batch: Vec<Item> = sessions.iter().map(|session| on(session, create())).collect();
    for n in 0..10 {
        batch.extend(sessions.iter().map(|session| on(session, note(&format!("m{n}"), "x"))));
    }
    let committed = world.commit(batch).await;
    assert!(committed.outcomes.iter().all(Result::is_ok));
    assert_eq!(committed.appended.len(), 7, "one entry a session");
    for appended in &committed.appended {
        let ids: Vec<_> =
            appended.events.iter().map(|event| super::value(event)["data"]["message"]["id"].clone()).collect();
        assert_eq!(ids, (0..10).map(|n| format!("m{n}")).collect::<Vec<_>>(), "in the order of the batch");
        assert_eq!(appended.events.iter().map(|event| event.seq).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
    }
}

pub(crate) async fn l1_concurrent_commits_give_every_seq_once(world: &World) {
    for session in ["a", "b"] {
        world.create(session).await;
    }
    let commits = (0..40).map(|n| async move {
        let node = Some(&world.node);
        let (x, y) = (note(&format!("x{n}"), "1"), note(&format!("y{n}"), "2"));
        world.commit(vec![item("a", x.clone(), node), item("b", x, node), item("a", y, node)]).await
    });
    join_all(commits).await;
    assert_eq!((world.head("a").await, world.head("b").await), (80, 40));
}

pub(crate) async fn l3_a_refused_item_changes_nothing_and_fails_nobody(world: &World) {
    world.create(S).await;
    let running = world.start(S, "m1").await;
    let before = world.head(S).await;
    let mut stale = running.clone();
    stale.term += 1;
    let busy = match send("m9") {
        Op::Send { message_id, parts, turn, max_queue, asker, .. } => {
            Op::Send { message_id, parts, turn, when_busy: WhenBusy::Reject, max_queue, asker }
        }
        other => other,
    };
    let ops = vec![
        note("n1", "one"),
        note("m1", "another text"),
        cancel("nobody"),
        append(&stale, 0, &["x"]),
        busy,
        Op::Create { epoch: "e".into(), title: None, metadata: None, max_running: None, must_be_new: true },
        Op::Force { turn_id: running.id.clone(), term: running.term },
        note("n2", "two"),
    ];
    let mut batch: Vec<Item> = ops.into_iter().map(|op| item(S, op, Some(&world.node))).collect();
    batch.insert(3, item("not-there", note("n", "x"), Some(&world.node)));
    let outcomes = world.commit(batch).await.outcomes;
    let refused: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err()).collect();
    assert!(refused[0].is_none() && refused[8].is_none());
    assert!(matches!(refused[1], Some(Refused::Conflict(_))));
    assert!(matches!((refused[2], refused[3]), (Some(Refused::NotFound(_)), Some(Refused::NotFound(_)))));
    assert_eq!(
        (refused[4], refused[5], refused[7]),
        (Some(&Refused::Fenced), Some(&Refused::Busy), Some(&Refused::Fenced))
    );
    assert!(matches!(refused[6], Some(Refused::Conflict(_))));
    assert_eq!(world.head(S).await, before + 2, "the two notes and nothing else");
    assert!(world.store.cut("not-there", None, super::PageLimits::default()).await.unwrap().is_none());
}

pub(crate) async fn l3_items_of_one_session_see_those_before_them(world: &World) {
    let turn = super::new_turn();
    let id = turn.id.clone();
    let ops = vec![create(), send_text("m1", "hi", Some(turn)), send("m2"), cancel(&id), note("m1", "hi")];
    let outcomes = world.commit(ops.into_iter().map(|op| item(S, op, Some(&world.node))).collect()).await.outcomes;
    assert_eq!(outcomes[1].as_ref().unwrap().started.len(), 1, "the first takes the slot");
    assert!(outcomes[2].as_ref().unwrap().started.is_empty(), "so the second waits");
    assert_eq!(outcomes[3].as_ref().unwrap().done, Done::Intended { term: 1 });
    assert!(matches!(outcomes[4], Err(Refused::Conflict(_))), "the same id that asks for no answer is another message");
}

pub(crate) async fn l3_nothing_of_a_turn_follows_its_terminal_event(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let completed = || End::Completed { usage: None };
    let ops = vec![
        append(&turn, 0, &["a"]),
        finish(&turn, 1, "a", completed()),
        append(&turn, 1, &["b"]),
        finish(&turn, 1, "ab", End::Failed(TurnError::lost())),
        cancel(&turn.id),
    ];
    let outcomes = world.commit(ops.into_iter().map(|op| item(S, op, Some(&world.node))).collect()).await.outcomes;
    assert!(outcomes[0].is_ok());
    assert_eq!(ended(outcomes[1].as_ref().unwrap()), ("completed", None, true));
    assert_eq!(outcomes[2].as_ref().unwrap_err(), &Refused::Fenced);
    assert_eq!(ended(outcomes[3].as_ref().unwrap()), ("completed", None, false));
    assert_eq!(ended(outcomes[4].as_ref().unwrap()), ("completed", None, false));
    assert_eq!(world.head(S).await, 4, "message, start, delta, end");
}

pub(crate) async fn l4_what_is_written_again_is_there_once(world: &World) {
    world.create(S).await;
    let head = async || world.head(S).await;
    let first = send("m1");
    let turn = world.op(S, first.clone()).await.unwrap().started.remove(0);
    let again = world.op(S, first).await.unwrap();
    assert!(matches!(again.done, Done::Sent { duplicate: false, seq: 1, .. }), "{:?}", again.done);
    assert_eq!(again.started[0].id, turn.id, "the runner that the lost answer was to begin");
    let other = world.op(S, send("m1")).await.unwrap();
    assert!(matches!(other.done, Done::Sent { duplicate: true, seq: 1, .. }), "{:?}", other.done);
    assert_eq!(turn_id(&other), turn.id);
    assert_eq!(head().await, 2);
    for _ in 0..3 {
        world.op(S, append_chunk(&turn, 0, &["a", "b"], "ab")).await.unwrap();
        world.op(S, create()).await.unwrap();
    }
    assert_eq!(head().await, 4);
    assert_eq!(world.snapshot(S).await.1[0].plain_text(), "ab");
    for ends_now in [true, false] {
        assert_eq!(ended(&world.finish(&turn, 1, "ab").await), ("completed", None, ends_now));
    }
    assert_eq!(head().await, 5);
    let next = retry(&turn.id);
    let retried = world.op(S, next.clone()).await.unwrap();
    let again = world.op(S, next).await.unwrap();
    assert_eq!(retried.done, again.done);
    assert_eq!(turn_id(&again), again.started[0].id);
    assert!(matches!(world.op(S, retry(&turn.id)).await.unwrap().done, Done::Retried { duplicate: true, .. }));
    assert_eq!(head().await, 6);
}

pub(crate) async fn l4_a_flush_that_the_store_never_saw_the_one_before_of_says_so(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    world.say(&turn, 0, &["a"]).await;
    assert_eq!(world.op(S, append(&turn, 2, &["c"])).await.unwrap_err(), Refused::HistoryLost);
    let end = finish(&turn, 2, "abc", End::Completed { usage: None });
    assert_eq!(world.op(S, end).await.unwrap_err(), Refused::HistoryLost);
    assert_eq!(world.head(S).await, 3);
    assert_eq!(world.snapshot(S).await.1[0].plain_text(), "a");
}

pub(crate) async fn i7_a_stale_owner_or_term_changes_nothing(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let (mut other, mut later) = (turn.clone(), turn.clone());
    other.owner.as_mut().unwrap().incarnation = Incarnation::mint();
    later.term += 1;
    for stale in [&other, &later] {
        for op in [append(stale, 0, &["x"]), finish(stale, 0, "x", End::Completed { usage: None }), end_owned(stale)] {
            assert_eq!(world.op(S, op).await.unwrap_err(), Refused::Fenced);
        }
    }
    assert_eq!(world.head(S).await, 2);
    world.say(&turn, 0, &["mine"]).await;
    assert_eq!(world.head(S).await, 3);
}

fn end_owned(turn: &crate::model::Turn) -> Op {
    let incarnation = turn.owner.as_ref().unwrap().incarnation.clone();
    Op::EndOwned { turn_id: turn.id.clone(), incarnation, term: turn.term, end: End::Shutdown }
}

pub(crate) async fn i16_one_id_in_many_commits_at_once_makes_one_message(world: &World) {
    world.create(S).await;
    let outcomes = join_all((0..50).map(|_| world.op(S, send("m1")))).await;
    let answers: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap()).collect();
    let fresh = answers.iter().filter(|answer| matches!(answer.done, Done::Sent { duplicate: false, .. })).count();
    assert_eq!(fresh, 1);
    assert_eq!(answers.iter().map(|answer| answer.started.len()).sum::<usize>(), 1);
    assert!(answers.iter().all(|answer| turn_id(answer) == turn_id(&answers[0])));
    assert_eq!(world.head(S).await, 2);
}
