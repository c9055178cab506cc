//! What readers get: partials, snapshots, history, replays, contexts, lists, and what compaction leaves.

use super::{
    super::{Catchup, Compacted, From, ListQuery, Messages, PageLimits, Pick, SnapshotReason, Stretch, Waiting},
    End, FUTURE, S, World, append, append_chunk, cancel, delta_events, fence, finish, item, note, retry, send, slots,
    turn_id,
};
use crate::{
    clock::Timestamp,
    model::{
        EndReason, EventKind, MessageStatus, Part, Person, Turn, TurnError,
        machine::{Asker, Op, Session},
    },
};

pub(crate) async fn l10_a_partial_is_chunks_and_the_deltas_after_them(world: &World) {
    let other = world.another("b").await;
    world.create(S).await;
    let turn = world.op_on(S, send("m"), Some(&other)).await.unwrap().started.remove(0);
    world.say(&turn, 0, &["a", "b"]).await;
    world.op(S, append_chunk(&turn, 1, &["c"], "abc")).await.unwrap();
    world.say(&turn, 2, &["d"]).await;
    world.op(S, append_chunk(&turn, 3, &["e", "f"], "def")).await.unwrap();
    let streaming = async || world.snapshot(S).await.1.remove(0);
    assert_eq!(streaming().await.plain_text(), "abcdef");
    world.say(&turn, 4, &["g"]).await;
    world.op(S, note("n", "between")).await.unwrap();
    world.say(&turn, 5, &["h"]).await;
    let message = streaming().await;
    assert_eq!((message.plain_text().as_str(), message.status), ("abcdefgh", MessageStatus::Streaming));
    assert_eq!((message.id.as_str(), message.seq), (turn.reply_id.as_str(), 2));
    world.bury(&other).await;
    // The last delta and the end in one batch: what is decided but not written yet is part of the answer.
    let batch = vec![item(S, append(&turn, 6, &["i"]), None), item(S, Op::Reconcile, None)];
    assert!(world.commit(batch).await.outcomes.iter().all(Result::is_ok));
    let event = world.last(S, EventKind::TurnCancelled);
    assert_eq!(event["data"]["message"]["parts"][0]["text"], "abcdefghi");
    let (messages, streaming) = world.snapshot(S).await;
    assert!(streaming.is_empty());
    assert_eq!(messages.iter().map(|message| message.plain_text()).collect::<Vec<_>>(), ["m", "abcdefghi", "between"]);
}

pub(crate) async fn i12_an_end_in_the_batch_of_its_last_deltas_keeps_them(world: &World) {
    world.create(S).await;
    let turn = world.start(S, "m").await;
    world.op(S, append_chunk(&turn, 0, &["one "], "one ")).await.unwrap();
    let last = Op::Finish {
        fence: fence(&turn, 2),
        deltas: delta_events(&turn, &["three"]),
        parts: vec![Part::text("one two three")],
        end: End::Failed(TurnError::lost()),
    };
    let batch = vec![item(S, append(&turn, 1, &["two "]), None), item(S, last, None)];
    assert!(world.commit(batch).await.outcomes.iter().all(Result::is_ok));
    let event = world.last(S, EventKind::TurnFailed);
    assert_eq!(event["data"]["message"]["parts"][0]["text"], "one two three");
    assert_eq!(event["seq"], 6);
}

async fn notes(world: &World, count: usize, text: &str) {
    world.create(S).await;
    let batch = (0..count).map(|n| item(S, note(&format!("n{n}"), text), Some(&world.node))).collect();
    assert!(world.commit(batch).await.outcomes.iter().all(Result::is_ok));
}

async fn first_join(world: &World, limits: PageLimits) -> Messages {
    let cut = world.cut_within(S, Some(From::Start(SnapshotReason::FirstJoin)), limits).await;
    match cut.catchup {
        Some(Catchup::Snapshot { messages, reason: SnapshotReason::FirstJoin, .. }) => messages,
        other => panic!("{other:?}"),
    }
}

fn seqs(messages: &Messages) -> Vec<u64> {
    messages.messages.iter().map(|(seq, _)| *seq).collect()
}

pub(crate) async fn a_snapshot_has_the_newest_messages_without_a_hole_and_at_least_one(world: &World) {
    notes(world, 150, &"x".repeat(3_000)).await;
    let page = first_join(world, PageLimits { bytes: usize::MAX, ..PageLimits::default() }).await;
    assert_eq!(seqs(&page), (51..=150).collect::<Vec<_>>(), "a hundred");
    assert_eq!((page.before, page.has_more), (51, true));
    let page = first_join(world, PageLimits::default()).await;
    let size: usize = page.messages.iter().map(|(_, text)| text.len()).sum();
    assert!(size <= 256 * 1024 && size > 250 * 1024, "{size}");
    let count = u64::try_from(page.messages.len()).unwrap();
    assert_eq!(seqs(&page), (151 - count..=150).collect::<Vec<_>>());
    world.op(S, note("big", &"y".repeat(300_000))).await.unwrap();
    let page = first_join(world, PageLimits::default()).await;
    assert_eq!((seqs(&page), page.before, page.has_more), (vec![151], 151, true), "at least one");
    world.op(S, note("small", "z")).await.unwrap();
    let page = first_join(world, PageLimits::default()).await;
    assert_eq!(seqs(&page), [152], "none is left out to fit an older one");
    world.create("empty").await;
    let (messages, streaming) = world.snapshot("empty").await;
    assert!(messages.is_empty() && streaming.is_empty());
}

pub(crate) async fn history_pages_meet_without_a_gap_or_a_repeat(world: &World) {
    notes(world, 25, "x").await;
    let turn = world.start(S, "last").await;
    world.say(&turn, 0, &["not yet"]).await;
    let limits = PageLimits { messages: 10, ..PageLimits::default() };
    let (mut before, mut found) = (u64::MAX, Vec::new());
    for expected in [10, 10, 6] {
        let page = world.store.history(S, before, limits).await.unwrap().unwrap();
        assert_eq!(page.messages.len(), expected);
        assert_eq!(page.has_more, expected == 10);
        found.splice(0..0, seqs(&page));
        before = page.before;
    }
    assert_eq!(found, (1..=26).collect::<Vec<_>>(), "the answer that streams is not among them");
    let none = world.store.history(S, before, limits).await.unwrap().unwrap();
    assert!(none.messages.is_empty() && !none.has_more);
    assert!(world.store.history("nobody", 1, limits).await.unwrap().is_none());
}

pub(crate) async fn ended_is_the_newest_turn_of_each_prompt_if_that_has_ended(world: &World) {
    world.create(S).await;
    let fail = |turn: &Turn| finish(turn, 0, "", End::Failed(TurnError::lost()));
    let first = world.start(S, "m1").await;
    world.op(S, fail(&first)).await.unwrap();
    let second = world.start(S, "m2").await;
    world.op(S, fail(&second)).await.unwrap();
    let again = world.op(S, retry(&second.id)).await.unwrap().started.remove(0);
    let ended = async || {
        let page = first_join(world, PageLimits::default()).await;
        page.ended.iter().map(|turn| turn.id.clone()).collect::<Vec<_>>()
    };
    assert_eq!(ended().await, std::slice::from_ref(&first.id), "the newest of the second runs");
    world.op(S, fail(&again)).await.unwrap();
    assert_eq!(ended().await, [first.id, again.id.clone()]);
    assert_eq!((again.attempt, again.retry_of.as_deref()), (2, Some(second.id.as_str())));
}

async fn stretch(world: &World, after: u64, bytes: usize) -> Stretch {
    let epoch = world.cut(S, None).await.epoch;
    world.store.stretch(S, &epoch, after, bytes).await.unwrap().unwrap()
}

pub(crate) async fn a_replay_leaves_out_deltas_of_ended_turns(world: &World) {
    world.create(S).await;
    world.op(S, slots(2)).await.unwrap();
    let (one, two) = (world.start(S, "m1").await, world.start(S, "m2").await);
    for flush in 0..3 {
        world.say(&one, flush, &["a"]).await;
        world.say(&two, flush, &["b"]).await;
    }
    assert_eq!(stretch(world, 0, usize::MAX).await.records.len(), 11);
    world.op(S, finish(&one, 3, "aaa", End::Failed(TurnError::lost()))).await.unwrap();
    let replay = stretch(world, 0, usize::MAX).await;
    assert!(replay.complete && replay.upto == 12 && replay.from == 0);
    let deltas = replay.records.iter().filter(|record| record.kind == "turn_delta");
    assert!(deltas.clone().all(|record| record.turn_id.as_deref() == Some(&*two.id)));
    assert_eq!(deltas.count(), 3);
    // A reader who holds everything but deltas that are left out now holds the head.
    world.say(&two, 3, &["b"]).await;
    world.op(S, finish(&two, 4, "bbbb", End::Completed { usage: None })).await.unwrap();
    let kinds: Vec<_> = stretch(world, 12, usize::MAX).await.records.into_iter().map(|record| record.kind).collect();
    assert_eq!(kinds, ["turn_completed"]);
    let none = stretch(world, 14, usize::MAX).await;
    assert!(none.records.is_empty() && none.complete && none.upto == 14);
    let bodies: Vec<String> =
        world.events(S).into_iter().filter(|e| e.kind != EventKind::TurnDelta).map(|e| e.body).collect();
    let stored: Vec<String> =
        stretch(world, 0, usize::MAX).await.records.into_iter().map(|record| record.body).collect();
    assert_eq!(stored, bodies, "the text that was sent is the text that is kept");
}

pub(crate) async fn a_replay_comes_in_pages_by_bytes(world: &World) {
    notes(world, 700, &"x".repeat(500)).await;
    let (mut after, mut all, mut pages) = (0, Vec::new(), 0);
    loop {
        let page = stretch(world, after, 64 * 1024).await;
        let size: usize = page.records.iter().map(|record| record.body.len()).sum();
        assert!(size < 66 * 1024, "{size}");
        assert_eq!((page.from, Some(page.upto)), (after, page.records.last().map(|record| record.seq)));
        all.extend(page.records.iter().map(|record| record.seq));
        (after, pages) = (page.upto, pages + 1);
        if page.complete {
            break;
        }
    }
    assert_eq!(all, (1..=700).collect::<Vec<_>>());
    assert!(pages > 5, "{pages}");
    // A page ends with the event that fills it, however long those are that follow.
    for id in ["long 1", "long 2", "long 3"] {
        world.op(S, note(id, &"y".repeat(100_000))).await.unwrap();
    }
    let lengths = async |after, bytes| {
        let page = stretch(world, after, bytes).await;
        (page.records.len(), page.upto, page.complete)
    };
    assert_eq!(lengths(690, 64 * 1024).await, (11, 701, false));
    assert_eq!(lengths(701, 64 * 1024).await, (1, 702, false));
    assert_eq!(lengths(702, 64 * 1024).await, (1, 703, true));
    let one = stretch(world, 0, 1).await;
    assert_eq!((one.records.len(), one.upto, one.complete), (1, 1, false), "always at least one");
    let epoch = world.cut(S, None).await.epoch;
    assert!(world.store.stretch(S, "another", 0, 1).await.unwrap().is_none());
    assert!(world.store.stretch(S, &epoch, 704, 1).await.unwrap().is_none(), "ahead of the log");
    assert!(world.store.stretch("nobody", &epoch, 0, 1).await.unwrap().is_none());
}

pub(crate) async fn l9_each_cursor_that_cannot_be_honoured_has_its_reason(world: &World) {
    notes(world, 5_002, "x").await;
    let epoch = world.cut(S, None).await.epoch;
    let ask = async |seq: u64, epoch: &str| {
        let from = From::Cursor { seq, epoch: epoch.to_owned() };
        match world.cut(S, Some(from)).await.catchup.unwrap() {
            Catchup::Snapshot { reason, messages, .. } => Err((reason.name(), messages.messages.len())),
            Catchup::Replay(stretch) => Ok(stretch.from),
        }
    };
    assert_eq!(ask(5_002, &epoch).await, Ok(5_002));
    assert_eq!(ask(2, &epoch).await, Ok(2), "5,000 behind");
    assert_eq!(ask(1, &epoch).await, Err(("trimmed", 100)));
    assert_eq!(ask(0, &epoch).await, Err(("trimmed", 100)));
    assert_eq!(ask(5_003, &epoch).await, Err(("cursor_ahead", 100)));
    assert_eq!(ask(u64::MAX, &epoch).await, Err(("cursor_ahead", 100)));
    assert_eq!(ask(5_002, "another").await, Err(("epoch_changed", 100)));
}

pub(crate) async fn the_context_of_a_first_attempt_and_of_a_retry(world: &World) {
    world.create(S).await;
    let context = async |turn: &str, limit| {
        let messages = world.store.context(S, turn, limit).await.unwrap();
        messages.iter().map(|message| format!("{}/{:?}", message.plain_text(), message.status)).collect::<Vec<_>>()
    };
    let first = world.start(S, "m1").await;
    let (second, third) = (world.wait(S, "m2").await, world.wait(S, "m3").await);
    assert_eq!(context(&first.id, 100).await, ["m1/Complete"], "not what still waits");
    world.say(&first, 0, &["half"]).await;
    world.op(S, cancel(&first.id)).await.unwrap();
    let started = world.op(S, finish(&first, 1, "half", End::Intent)).await.unwrap().started;
    assert_eq!(started[0].id, second);
    world.op(S, note("n", "by the way")).await.unwrap();
    assert_eq!(context(&second, 100).await, ["m1/Complete", "half/Partial", "m2/Complete"], "below its start");
    let started = world.finish(&started[0], 0, "two").await.started;
    assert_eq!(started[0].id, third);
    let all = ["m1/Complete", "half/Partial", "m2/Complete", "two/Complete", "by the way/Complete", "m3/Complete"];
    assert_eq!(context(&third, 100).await, all, "in order of seq, its own prompt last");
    assert_eq!(context(&third, 2).await.len(), 2);
    assert_eq!(context(&third, 1).await, ["m3/Complete"]);
    world.finish(&started[0], 0, "three").await;
    let again = turn_id(&world.op(S, retry(&second)).await.unwrap());
    let before = ["m1/Complete", "half/Partial", "m2/Complete"];
    assert_eq!(context(&again, 100).await, before, "what was there before the prompt");
    assert!(context("nobody", 100).await.is_empty());
}

pub(crate) async fn a_list_filters_and_pages(world: &World) {
    for n in 0..7 {
        world.create(&format!("a{n}")).await;
    }
    world.create("b%").await;
    world.start("a1", "m").await;
    world.start("a2", "m").await;
    world.wait("a2", "m2").await;
    let end = finish(&world.start("a3", "m").await, 0, "x", End::Completed { usage: None });
    world.op("a3", end).await.unwrap();
    let list = async |query: ListQuery| world.store.list(&query).await.unwrap();
    let all = list(ListQuery { limit: 100, ..ListQuery::default() }).await;
    assert_eq!(all.len(), 8);
    assert!(all.is_sorted_by(|a, b| (a.updated_at, a.key) > (b.updated_at, b.key)), "newest first");
    let turns = |id: &str| all.iter().find(|session| &*session.id == id).unwrap().turns.len();
    assert_eq!((turns("a0"), turns("a1"), turns("a2"), turns("a3")), (0, 1, 2, 0));
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = list(ListQuery { prefix: "a".into(), limit: 3, after, ..ListQuery::default() }).await;
        let Some(last) = page.last() else { break };
        after = Some((last.updated_at.0, last.key));
        found.extend(page.iter().map(|session| session.id.clone()));
    }
    let expected: Vec<_> = all.iter().map(|session| session.id.clone()).filter(|id| id.starts_with('a')).collect();
    assert_eq!(found, expected);
    let of = async |status: &str| {
        let query = ListQuery { status: Some(status.to_owned()), limit: 100, ..ListQuery::default() };
        let mut ids: Vec<_> = list(query).await.iter().map(|session| session.id.to_string()).collect();
        ids.sort();
        ids
    };
    assert_eq!(of("running").await, ["a1", "a2"]);
    assert_eq!(of("queued").await, Vec::<String>::new());
    assert_eq!(of("idle").await.len(), 6);
    assert_eq!(list(ListQuery { prefix: "b%".into(), limit: 9, ..ListQuery::default() }).await.len(), 1);
    assert!(list(ListQuery { prefix: "%".into(), limit: 9, ..ListQuery::default() }).await.is_empty());
    assert!(list(ListQuery { prefix: "A".into(), limit: 9, ..ListQuery::default() }).await.is_empty());
}

pub(crate) async fn sessions_are_picked_by_id_or_by_having_a_turn(world: &World) {
    for session in ["idle", "runs", "waits", "ended"] {
        world.create(session).await;
    }
    let runs = world.start("runs", "m").await;
    world.op("runs", append(&runs, 0, &["a", "b"])).await.unwrap();
    world.start("waits", "m").await;
    world.wait("waits", "m2").await;
    let end = finish(&world.start("ended", "m").await, 0, "x", End::Completed { usage: None });
    world.op("ended", end).await.unwrap();
    let pick = async |pick: Pick| {
        let found = world.store.pick(&pick).await.unwrap();
        let shown = |session: &Session| (session.id.to_string(), session.last_seq, session.turns.len());
        let mut found: Vec<_> = found.iter().map(shown).collect();
        found.sort();
        found
    };
    let these = ["waits", "nobody", "runs", "idle"].map(Into::into).to_vec();
    let (idle, runs, waits) = (("idle".into(), 0, 0), ("runs".into(), 4, 1), ("waits".into(), 4, 2));
    assert_eq!(pick(Pick::These(these)).await, [idle, runs.clone(), waits.clone()]);
    assert_eq!(pick(Pick::Live(10)).await, [runs, waits]);
    assert_eq!(pick(Pick::Live(1)).await, pick(Pick::Live(1)).await, "the same ones");
    assert_eq!(pick(Pick::Live(1)).await.len(), 1);
    assert!(pick(Pick::These(Vec::new())).await.is_empty());
    let nodes = world.store.nodes().await.unwrap();
    assert_eq!(nodes.iter().map(|node| &node.owner).collect::<Vec<_>>(), [&world.node]);
}

pub(crate) async fn sessions_are_picked_by_the_age_of_their_turns(world: &World) {
    let sessions = ["d", "b", "c", "a"];
    for session in sessions {
        world.create(session).await;
        world.start(session, "m").await;
        world.pass().await;
    }
    for session in sessions.into_iter().rev() {
        world.wait(session, "m2").await;
        world.pass().await;
    }
    let oldest = async |limit| {
        let found = world.store.pick(&Pick::Oldest(limit)).await.unwrap();
        let mut found: Vec<_> = found.iter().map(|s| (s.id.to_string(), s.turns.len())).collect();
        found.sort();
        found
    };
    assert_eq!(oldest(1).await, [("a".into(), 2), ("d".into(), 2)], "the first that runs and the first that waits");
    assert_eq!(oldest(10).await.len(), 4, "each once");
    let asker = Asker { person: Person { id: "op".to_owned(), name: "Op".to_owned() }, admin: true };
    world.op("d", Op::Delete { asker }).await.unwrap();
    assert_eq!(oldest(1).await, [("a".into(), 2), ("b".into(), 2)], "what was deleted takes no place");
}

pub(crate) async fn l5_compaction_drops_only_deltas_of_turns_that_ended_before(world: &World) {
    world.create(S).await;
    world.op(S, slots(2)).await.unwrap();
    let (gone, runs) = (world.start(S, "m1").await, world.start(S, "m2").await);
    for flush in 0..2 {
        world.op(S, append_chunk(&gone, flush, &["a"], "a")).await.unwrap();
        world.op(S, append_chunk(&runs, flush, &["b"], "b")).await.unwrap();
    }
    world.say(&runs, 2, &["c"]).await;
    world.op(S, finish(&gone, 2, "aa", End::Completed { usage: None })).await.unwrap();
    let before = (world.head(S).await, stretch(world, 0, usize::MAX).await.records, world.snapshot(S).await);
    let compact = async |before: Timestamp| world.store.compact(before, 10).await.unwrap();
    assert_eq!(compact(Timestamp(0)).await, Compacted { deltas: 0, more: false }, "it ended later");
    assert_eq!(compact(FUTURE).await, Compacted { deltas: 2, more: false }, "the one that has ended");
    assert_eq!(compact(FUTURE).await, Compacted { deltas: 0, more: false }, "once");
    let after = (world.head(S).await, stretch(world, 0, usize::MAX).await.records, world.snapshot(S).await);
    assert_eq!(before, after, "no reader sees a difference");
    assert_eq!(after.2.1[0].plain_text(), "bbc");
    world.say(&runs, 3, &["d"]).await;
    world.op(S, finish(&runs, 4, "bbcd", End::Completed { usage: None })).await.unwrap();
}

pub(crate) async fn l5_compaction_goes_in_small_steps_and_comes_to_an_end(world: &World) {
    world.create(S).await;
    world.op(S, slots(30)).await.unwrap();
    // More turns than a step looks at, one of them with more deltas than a step drops.
    let mut all = 0;
    for number in 0..25_u64 {
        let turn = world.start(S, &format!("m{number}")).await;
        let flushes = if number == 3 { 12 } else { number % 3 };
        for flush in 0..flushes {
            world.say(&turn, flush, &["a"]).await;
        }
        world.finish(&turn, flushes, "x").await;
        all += usize::try_from(flushes).unwrap();
    }
    let seen = async || (world.head(S).await, stretch(world, 0, usize::MAX).await.records, world.snapshot(S).await);
    let (before, mut dropped) = (seen().await, Vec::new());
    loop {
        let step = world.store.compact(FUTURE, 5).await.unwrap();
        dropped.push(step.deltas);
        assert!(step.deltas <= 5 && dropped.len() < 40, "{dropped:?}");
        assert_eq!(seen().await, before, "no reader sees a difference");
        if !step.more {
            break;
        }
    }
    assert_eq!(dropped.iter().sum::<usize>(), all, "{dropped:?}");
}

pub(crate) async fn a_new_history_changes_every_epoch(world: &World) {
    for session in ["a", "b"] {
        world.create(session).await;
        world.op(session, note("n", "x")).await.unwrap();
    }
    let epochs = async || (world.cut("a", None).await.epoch, world.cut("b", None).await.epoch);
    let history = async || world.store.renew(&world.node.incarnation, 1, 0).await.unwrap().history;
    let (before, old) = (epochs().await, history().await);
    assert_ne!(before.0, before.1, "each log has its own");
    let new = world.store.new_history().await.unwrap();
    assert_ne!(new, old);
    assert_eq!(history().await, new);
    let after = epochs().await;
    assert_ne!(before.0, after.0);
    assert_ne!(before.1, after.1);
    let from = From::Cursor { seq: 1, epoch: before.0.clone() };
    let catchup = world.cut("a", Some(from)).await.catchup;
    assert!(matches!(catchup, Some(Catchup::Snapshot { reason: SnapshotReason::EpochChanged, .. })));
    assert!(world.store.stretch("a", &before.0, 0, 1).await.unwrap().is_none());
    let item = send("m");
    assert!(world.op("a", item).await.is_ok(), "the log goes on");
}

pub(crate) async fn l7_heads_of_many_sessions_are_read_at_once(world: &World) {
    for (session, notes) in [("a", 0), ("b", 1), ("c", 3)] {
        world.create(session).await;
        for n in 0..notes {
            world.op(session, note(&format!("n{n}"), "x")).await.unwrap();
        }
    }
    let ids = ["c", "nobody", "a", "b"].map(Into::into);
    let mut heads = world.store.heads(&ids).await.unwrap();
    heads.sort();
    let mut expected = Vec::new();
    for (session, head) in [("a", 0), ("b", 1), ("c", 3)] {
        expected.push((session.into(), world.cut(session, None).await.epoch, head));
    }
    assert_eq!(heads, expected, "those that are there, with their whole epochs");
    assert!(world.store.heads(&[]).await.unwrap().is_empty());
}

pub(crate) async fn what_waits_is_counted_and_the_oldest_of_it_known(world: &World) {
    assert_eq!(world.store.waiting().await.unwrap(), Waiting::default());
    for session in ["a", "b"] {
        world.create(session).await;
        world.start(session, "runs").await;
        world.wait(session, "first").await;
    }
    let second = world.wait("b", "second").await;
    let accepted = world.cut("a", None).await.session.turns.iter().map(|turn| turn.queued_at).max();
    assert_eq!(world.store.waiting().await.unwrap(), Waiting { queued: 3, oldest: accepted });
    world.op("b", cancel(&second)).await.unwrap();
    assert_eq!(world.store.waiting().await.unwrap().queued, 2);
    let pool = world.store.pool();
    // A connection may take a moment to be back after its last use.
    assert!((1..=pool.most).contains(&(pool.busy + pool.idle)), "{pool:?}");
}

pub(crate) async fn turns_whose_owner_was_gone_are_found_newest_first(world: &World) {
    let other = world.another("b").await;
    for session in ["a", "b", "c", "mine"] {
        world.create(session).await;
    }
    let mut started = Vec::new();
    for session in ["a", "b", "c"] {
        started.push(world.op_on(session, send("m"), Some(&other)).await.unwrap().started.remove(0).id);
    }
    let mine = world.start("mine", "m").await;
    world.op("mine", cancel(&mine.id)).await.unwrap();
    assert!(world.store.lost(10).await.unwrap().is_empty());
    world.bury(&other).await;
    for session in ["b", "c", "a"] {
        world.op(session, Op::Reconcile).await.unwrap();
        world.pass().await;
    }
    let found = world.store.lost(2).await.unwrap();
    let sessions: Vec<&str> = found.iter().map(|lost| &*lost.session).collect();
    assert_eq!(sessions, ["a", "c"]);
    assert_eq!((&found[0].turn.id, found[0].turn.reason), (&started[0], Some(EndReason::OwnerGone)));
    assert_eq!(world.store.lost(10).await.unwrap().len(), 3);
}
