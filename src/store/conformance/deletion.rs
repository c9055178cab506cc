//! Deletions: what is gone at once, what is removed later, and what is made under the same id meanwhile.

use super::{
    End, From, ListQuery, Op, PageLimits, S, SnapshotReason, World, ada, append, append_chunk, cancel, create, delete,
    finish, item, note,
};
use crate::{
    clock::Timestamp,
    model::machine::{Applied, Done, Refused},
    store::{Catchup, Purged},
};

/// The random part of the epoch of a session, and the whole.
async fn epoch(world: &World, session: &str) -> (String, String) {
    let cut = world.cut(session, None).await;
    (cut.session.epoch, cut.epoch)
}

/// Everything that is left of deleted sessions, removed: how many rows, and in how many steps.
async fn purge(world: &World, limit: usize) -> (usize, usize) {
    let (mut rows, mut steps) = (0, 0);
    loop {
        let step = world.store.purge(limit, Timestamp(0)).await.unwrap();
        assert!(step.rows <= limit, "{step:?}");
        if !step.more {
            return (rows, steps);
        }
        (rows, steps) = (rows + step.rows, steps + 1);
    }
}

pub(crate) async fn l12_a_deleted_session_is_gone_at_once_and_its_id_begins_another_log(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let waiting = world.wait(S, "m2").await;
    let (log, old) = epoch(world, S).await;
    let applied = world.op(S, delete()).await.unwrap();
    let Done::Deleted { epoch: told, mut turns } = applied.done else { panic!("{applied:?}") };
    turns.sort();
    let mut live = vec![turn.id.clone(), waiting];
    live.sort();
    assert_eq!((told, turns), (log, live));
    let own = &world.node.incarnation;
    for made_anew in [false, true] {
        assert!(world.store.renew(own, 1, 0).await.unwrap().turns.is_empty());
        assert!(world.store.at_work().await.unwrap().1.is_empty());
        assert!(world.store.needs_work(10).await.unwrap().is_empty());
        assert_eq!(world.store.cut(S, None, PageLimits::default()).await.unwrap().is_some(), made_anew);
        assert_eq!(world.store.heads(&[S.into()]).await.unwrap().len(), usize::from(made_anew));
        let all = ListQuery { limit: 10, ..ListQuery::default() };
        assert_eq!(world.store.list(&all).await.unwrap().len(), usize::from(made_anew));
        assert!(world.store.stretch(S, &old, 0, 1_000).await.unwrap().is_none());
        let history = world.store.history(S, u64::MAX, PageLimits::default()).await.unwrap();
        assert!(history.is_none_or(|history| history.messages.is_empty()));
        if !made_anew {
            assert!(matches!(world.op(S, note("n", "x")).await, Err(Refused::NotFound(_))));
            assert!(matches!(world.op(S, delete()).await, Err(Refused::NotFound(_))));
            world.create(S).await;
        }
    }
    let (_, new) = epoch(world, S).await;
    assert_ne!(new, old);
    let cut = world.cut(S, Some(From::Cursor { seq: 1, epoch: old })).await;
    assert_eq!((cut.session.last_seq, cut.session.turns.len()), (0, 0));
    assert!(matches!(cut.catchup, Some(Catchup::Snapshot { reason: SnapshotReason::EpochChanged, .. })));
    // Its ids are free too, and its slots.
    let again = world.start(S, "m1").await;
    assert_ne!(again.id, turn.id);
    assert_eq!(world.head(S).await, 2);
}

pub(crate) async fn l12_nothing_of_a_deleted_sessions_turns_is_written_into_the_next(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    world.say(&turn, 0, &["one"]).await;
    world.op(S, delete()).await.unwrap();
    let completed = || End::Completed { usage: None };
    for op in [append(&turn, 1, &["two"]), finish(&turn, 1, "one", completed()), cancel(&turn.id)] {
        assert!(matches!(world.op(S, op).await, Err(Refused::NotFound(_))));
    }
    world.create(S).await;
    let next = world.start(S, "m1").await;
    for op in [append(&turn, 1, &["two"]), finish(&turn, 1, "one", completed())] {
        let refused = world.op(S, op).await.unwrap_err();
        assert!(matches!(refused, Refused::Fenced | Refused::NotFound(_)), "{refused:?}");
    }
    assert!(matches!(world.op(S, cancel(&turn.id)).await, Err(Refused::NotFound(_))));
    let fresh = world.commit(vec![
        item(S, append(&next, 0, &["new"]), None),
        item(S, append(&turn, 1, &["old"]), None),
        item(S, append(&next, 1, &["er"]), None),
    ]);
    let outcomes = fresh.await.outcomes;
    assert!(outcomes[0].is_ok() && outcomes[2].is_ok());
    assert_eq!(outcomes[1].as_ref().err(), Some(&Refused::Fenced));
    assert_eq!(world.snapshot(S).await.1[0].plain_text(), "newer");
}

pub(crate) async fn l12_who_may_not_delete_changes_nothing(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m1").await;
    let before = epoch(world, S).await;
    let refused = world.op(S, Op::Delete { asker: ada() }).await;
    assert!(matches!(refused, Err(Refused::Unauthorized(_))), "{refused:?}");
    assert_eq!(epoch(world, S).await, before);
    world.say(&turn, 0, &["on it goes"]).await;
    assert!(matches!(world.op("nobody", delete()).await, Err(Refused::NotFound(_))));
    assert_eq!(world.store.purge(10, Timestamp(0)).await.unwrap(), Purged { rows: 0, more: false });
}

pub(crate) async fn l12_what_follows_a_deletion_in_its_batch_finds_nothing(world: &World) {
    for session in [S, "beside"] {
        world.create(session).await;
    }
    let node = Some(&world.node);
    let batch = vec![
        item(S, note("before", "x"), node),
        item("beside", note("n1", "x"), node),
        item(S, delete(), node),
        item(S, note("after", "x"), node),
        item(S, create(), node),
        item("new", create(), node),
        item("new", delete(), node),
        item("beside", note("n2", "x"), node),
    ];
    let committed = world.commit(batch).await;
    let ok: Vec<bool> = committed.outcomes.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, true, true, false, false, true, true, true]);
    assert!(matches!(committed.outcomes[3], Err(Refused::NotFound(_))));
    assert!(matches!(committed.outcomes[4], Err(Refused::NotFound(_))));
    let appended: Vec<&str> = committed.appended.iter().map(|appended| &*appended.session).collect();
    assert_eq!(appended, ["beside"], "nobody is shown what was never there");
    for session in [S, "new"] {
        assert!(world.store.cut(session, None, PageLimits::default()).await.unwrap().is_none());
        world.create(session).await;
        assert_eq!(world.head(session).await, 0);
    }
    assert_eq!(world.head("beside").await, 2);
}

pub(crate) async fn l12_a_create_beside_a_deletion_makes_what_it_says(world: &World) {
    for _ in 0..40 {
        world.op(S, create()).await.unwrap();
        let made = async { world.op(S, create()).await.unwrap() };
        let noted = async { world.op(S, note("n", "x")).await };
        let (deleted, made, noted) = tokio::join!(world.op(S, delete()), made, noted);
        assert!(matches!(deleted, Ok(Applied { done: Done::Deleted { .. }, .. })), "{deleted:?}");
        assert!(noted.is_ok() || matches!(noted, Err(Refused::NotFound(_))), "{noted:?}");
        let there = world.store.cut(S, None, PageLimits::default()).await.unwrap().is_some();
        assert_eq!(matches!(made.done, Done::Created(true)), there, "{made:?}");
        if there {
            world.op(S, note("more", "x")).await.unwrap();
        }
    }
    world.op(S, create()).await.unwrap();
}

pub(crate) async fn l12_what_is_left_is_removed_in_small_steps_and_nothing_else(world: &World) {
    for session in [S, "beside"] {
        world.create(session).await;
        for n in 0..10 {
            world.op(session, note(&format!("n{n}"), "x")).await.unwrap();
        }
    }
    let done = world.start(S, "m1").await;
    world.say(&done, 0, &["a", "b"]).await;
    world.finish(&done, 1, "ab").await;
    let cut = world.start(S, "m2").await;
    world.op(S, append_chunk(&cut, 0, &["c"], "c")).await.unwrap();
    world.op(S, append_chunk(&cut, 1, &["d"], "d")).await.unwrap();
    let events = usize::try_from(world.head(S).await).unwrap();
    world.op(S, delete()).await.unwrap();
    world.create(S).await;
    world.op(S, note("new", "x")).await.unwrap();
    // The notes and both prompts, the answer that was finished, two turns, two chunks.
    let expected = events + 10 + 2 + 1 + 2 + 2;
    let (rows, steps) = purge(world, 7).await;
    assert_eq!(rows, expected);
    assert!(steps >= expected / 7, "{steps} steps");
    assert_eq!(purge(world, 7).await, (0, 0));
    assert_eq!(world.snapshot(S).await.0.len(), 1);
    assert_eq!(world.snapshot("beside").await.0.len(), 10);
    for _ in 0..3 {
        world.op("beside", delete()).await.unwrap();
        world.create("beside").await;
    }
    assert_eq!(purge(world, 1_000).await, (20, 3), "a small one takes one step");
}

pub(crate) async fn l12_who_deleted_is_known_until_it_is_forgotten(world: &World) {
    world.create(S).await;
    let (log, whole) = epoch(world, S).await;
    let by = async |epoch: &str| world.store.deleted(S, epoch).await.unwrap().map(|person| person.name);
    assert_eq!(by(&whole).await, None);
    world.op(S, delete()).await.unwrap();
    world.create(S).await;
    let (_, new) = epoch(world, S).await;
    assert_eq!((by(&whole).await, by(&log).await, by(&new).await), (Some("Ada".into()), Some("Ada".into()), None));
    assert_eq!(world.store.deleted("other", &whole).await.unwrap(), None);
    purge(world, 100).await;
    assert!(by(&whole).await.is_some(), "it is not long ago");
    let step = world.store.purge(100, super::FUTURE).await.unwrap();
    assert_eq!((step, by(&whole).await), (Purged { rows: 0, more: false }, None));
}
