//! Servers that are asked to end, with work under way.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use futures::{StreamExt as _, future::join_all, stream};
use tokio::time::{Instant, sleep};

use crate::support::{
    chance::Chance,
    fleet::{Caller, Fleet, Plan},
    recorder::Recorder,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_9_t8_of_two_hundred_live_turns_at_sigterm_half_finish_and_the_rest_are_cancelled_for_it() {
    let mut cluster = Fleet::start(Plan::patient(2).echo("40ms").with(&["--drain-timeout", "14s"])).await;
    let mut sql = cluster.sql().await;
    let recorders =
        join_all((0..6).map(async |number| Recorder::start(&cluster, &[1], &format!("s{number}"), "ada").await)).await;
    let begin = |number: usize| {
        let (cluster, words) = (&cluster, if number.is_multiple_of(2) { 200 } else { 5_000 });
        async move { cluster.turn(0, &format!("s{number}"), words).await }
    };
    let turns: Vec<String> = stream::iter(0..200).map(begin).buffer_unordered(16).collect().await;
    assert_eq!(turns.len(), 200);
    assert_eq!(sql.number("SELECT count(*) FROM turns WHERE status = 'running'").await, 200, "all live");
    let begun = Instant::now();
    cluster.signal(0, "TERM").await;
    let mut process = cluster.take(0);
    let status = process.ended().await;
    println!("ended after {:?}", begun.elapsed());
    assert_eq!(status.code(), Some(0));
    let count = |end: &str| {
        format!("SELECT count(*) FROM turns WHERE status || coalesce(' ' || (row::json ->> 'reason'), '') = '{end}'")
    };
    let ends = (sql.number(count("completed")).await, sql.number(count("cancelled shutdown")).await);
    assert_eq!(ends, (100, 100));
    let empty = "SELECT count(*) FROM events WHERE kind = 'turn_cancelled' AND body NOT LIKE '%You said: word%'";
    assert_eq!(sql.number(empty).await, 0, "what was streamed is kept");
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
}

/// Sends short turns to any node until it is told to stop.
async fn load(caller: &Caller, session: String, mut chance: Chance, stop: &AtomicBool, sent: &AtomicUsize) {
    while !stop.load(Ordering::Relaxed) {
        let node = usize::try_from(chance.below(3)).unwrap();
        let text = "word ".repeat(usize::try_from(chance.below(20)).unwrap() + 1);
        caller.send(node, &session, &rejoin::ids::fresh(), &text).await;
        sent.fetch_add(1, Ordering::Relaxed);
        sleep(Duration::from_millis(chance.below(300))).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_9_ten_rolling_restarts_under_load_lose_repeat_and_cancel_nothing() {
    const SESSIONS: usize = 6;
    let mut chance = Chance::new("rolling restart");
    let mut cluster = Fleet::start(Plan::patient(3).direct().echo("10ms").with(&["--max-queue", "10000"])).await;
    let mut recorders = Vec::new();
    for number in 0..2 * SESSIONS {
        let around = [number % 3, (number + 1) % 3, (number + 2) % 3];
        let user = format!("u{number}");
        recorders.push(Recorder::start(&cluster, &around, &format!("s{}", number % SESSIONS), &user).await);
    }
    let (caller, stop, sent) = (cluster.caller(), AtomicBool::new(false), AtomicUsize::new(0));
    let loads = (0..SESSIONS).map(|number| load(&caller, format!("s{number}"), chance.fork(), &stop, &sent));
    let loads = join_all(loads.collect::<Vec<_>>());
    let begun = Instant::now();
    let restarts = async {
        for _ in 0..10 {
            for node in 0..3 {
                cluster.signal(node, "TERM").await;
                assert_eq!(cluster.take(node).ended().await.code(), Some(0));
                cluster.launch(node).await;
            }
        }
        stop.store(true, Ordering::Relaxed);
    };
    tokio::join!(loads, restarts);
    let sent = sent.into_inner();
    println!("30 restarts under load in {:?}: {sent} turns", begun.elapsed());
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
    let mut sql = cluster.sql().await;
    let turns = i64::try_from(sent).unwrap();
    assert_eq!(sql.number("SELECT count(*) FROM turns WHERE status = 'completed'").await, turns);
    assert_eq!(sql.number("SELECT count(*) FROM turns").await, turns, "none cancelled, none twice");
    let returns: usize = recorders.iter().map(|recorder| recorder.now().joins.len() - 1).sum();
    assert!(returns >= 30, "they came back {returns} times");
    for recorder in &recorders {
        let joins = recorder.now().joins;
        assert!(joins[1..].iter().all(|mode| mode == "replay"), "{joins:?}");
    }
}
