//! A standby that takes the place of the server that all nodes write to, with clients on them.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::{
    history::{followed, renewed},
    refusals::refused,
};
use crate::support::{
    fleet::{Caller, Fleet, Plan},
    oracle::soon,
    recorder::Recorder,
    standby::Pair,
    ws::TestClient,
};

/// Fewer sends than this mean nothing.
const SENDS: usize = 10;

/// Sends to one node after the other until it is told to stop; the ids of what was answered.
async fn say_on(caller: &Caller, session: &str, stop: &AtomicBool) -> Vec<String> {
    let mut answered = Vec::new();
    while answered.len() < SENDS || !stop.load(Ordering::Relaxed) {
        let id = rejoin::ids::fresh();
        caller.send(answered.len() % 3, session, &id, "one two").await;
        answered.push(id);
        sleep(Duration::from_millis(20)).await;
    }
    answered
}

async fn nodes_are_ready(cluster: &Fleet) {
    for node in 0..cluster.nodes.len() {
        let ready = async || (cluster.get(node, "/readyz").await.0 == 200).then_some(());
        soon("a node to be ready", Duration::from_secs(15), ready).await;
    }
}

/// The failure with which a turn ends whose runner was dropped.
fn lost(turn: &str) -> String {
    format!(
        "SELECT count(*) FROM turns WHERE id = '{turn}' AND status = 'failed' AND row::json -> 'error' ->> 'code' = 'lost'"
    )
}

async fn takes_over(crash: bool) {
    let pair = Pair::start().await;
    if crash {
        pair.in_step().await;
    }
    let mut cluster = Fleet::start_on(pair.primary.clone(), Plan::patient(3).direct()).await;
    let (recorders, turn) = followed(&cluster).await;
    let waiting = [cluster.turn(1, "s", 3).await, cluster.turn(2, "s", 2).await];
    let (caller, stop) = (cluster.caller(), AtomicBool::new(false));
    let failover = async {
        let more = recorders[0].now().answer(&turn).len();
        recorders[0].words(&turn, more + 100).await;
        pair.primary.end(if crash { "QUIT" } else { "INT" }).await;
        let shown: Vec<String> = recorders.iter().map(|recorder| recorder.now().answer(&turn)).collect();
        pair.promote().await;
        let at = Instant::now();
        cluster.move_to(pair.standby.clone());
        let mut sql = cluster.sql().await;
        sql.until("its runner to be dropped", &lost(&turn), 1).await;
        println!("crash {crash}: from the new address to the end of a turn of before: {:?}", at.elapsed());
        for turn in &waiting {
            let done = format!("SELECT count(*) FROM turns WHERE id = '{turn}' AND status = 'completed'");
            sql.until("what waited to run", &done, 1).await;
        }
        nodes_are_ready(&cluster).await;
        stop.store(true, Ordering::Relaxed);
        shown
    };
    let (answered, shown) = tokio::join!(say_on(&caller, "t", &stop), failover);
    renewed(&cluster, &recorders, "epoch_changed").await;
    for (recorder, shown) in recorders.iter().zip(&shown) {
        let kept = recorder.now().answer(&turn);
        assert!(kept.starts_with(shown.as_str()), "{} was shown {shown:?}, kept is {kept:?}", recorder.name());
    }
    let mut sql = cluster.sql().await;
    let kept = format!("SELECT count(*) FROM messages WHERE id IN ('{}')", answered.join("', '"));
    println!("{} sends answered", answered.len());
    assert_eq!(usize::try_from(sql.number(kept).await).unwrap(), answered.len(), "no send that was answered is lost");
    let verdicts = "SELECT count(*) FROM nodes WHERE state <> 'live'";
    assert_eq!(sql.number(verdicts).await, 0, "nobody was judged");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_12_l11_a_switch_to_a_standby_that_has_everything_loses_nothing() {
    Box::pin(takes_over(false)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_12_l11_a_crash_of_a_server_that_waits_for_its_standby_loses_nothing() {
    Box::pin(takes_over(true)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_12_l11_a_standby_without_the_last_second_ends_what_was_shown_of_it() {
    let pair = Pair::start().await;
    let mut cluster = Fleet::start_on(pair.primary.clone(), Plan::patient(3)).await;
    let (recorders, turn) = followed(&cluster).await;
    let kept = recorders[0].now().answer(&turn);
    pair.catches_up().await;
    pair.part();
    // A life of a node, a session with a turn, a message and a turn: the standby hears of none of them.
    cluster.signal(2, "TERM").await;
    cluster.take(2).ended().await;
    cluster.launch(2).await;
    let eve = Recorder::start(&cluster, &[2, 1], "u", "eve").await;
    let unheard = cluster.turn(2, "u", 3_000).await;
    eve.words(&unheard, 20).await;
    let (caller, id) = (cluster.caller(), rejoin::ids::fresh());
    assert_eq!(caller.send(1, "s", &id, "unheard").await["duplicate"], false);
    for recorder in &recorders {
        recorder.until("the message", |record| record.view.messages.iter().any(|message| message.id == id)).await;
        recorder.words(&turn, kept.len() + 200).await;
    }
    pair.primary.end("QUIT").await;
    let shown = recorders[0].now().view.last_seq;
    pair.promote().await;
    cluster.move_to(pair.standby.clone());
    let mut sql = cluster.sql().await;
    let head = u64::try_from(sql.number("SELECT last_seq FROM sessions WHERE id = 's'").await).unwrap();
    println!("shown up to {shown}, the log of the standby reaches to {head}");
    assert!(head + 20 < shown, "too little was lost to mean anything");
    sql.until("its runner to be dropped", &lost(&turn), 1).await;
    nodes_are_ready(&cluster).await;
    renewed(&cluster, &recorders, "epoch_changed").await;
    eve.until("its channel to end", |record| record.endings.iter().any(|end| end == "phx_error")).await;
    eve.until("a snapshot", |record| record.joins[1..] == ["epoch_changed"] && record.is_joined).await;
    assert_eq!(eve.now().view.messages, [], "nothing of the session is left");
    for recorder in &recorders {
        let record = recorder.now();
        assert!(record.view.messages.iter().all(|message| message.id != id), "what was lost is not shown");
        assert!(record.answer(&turn).starts_with(&kept), "what the standby had is kept");
    }
    assert_eq!(caller.send(0, "s", &id, "unheard").await["duplicate"], false, "it may be sent anew");
    let again = cluster.turn(2, "u", 3).await;
    assert_eq!(eve.end(&again).await, "completed");
    let lives = "SELECT count(*) FROM nodes WHERE name = 'n2' AND state = 'live'";
    sql.until("the life that ended unheard to be judged", lives, 1).await;
    let everybody: Vec<_> = recorders.iter().chain([&eve]).collect();
    cluster.check(&everybody).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_12_a_server_in_recovery_is_an_outage_until_it_is_promoted() {
    let pair = Pair::start().await;
    let plan = Plan { ttl: Duration::from_secs(2), renew: Duration::from_millis(400), ..Plan::short(3) };
    let mut cluster = Fleet::start_on(pair.primary.clone(), plan).await;
    let (recorders, turn) = followed(&cluster).await;
    pair.primary.end("INT").await;
    cluster.move_to(pair.standby.clone());
    let begun = Instant::now();
    let mut sql = cluster.sql().await;
    for node in 0..3 {
        let unready = async || (cluster.get(node, "/readyz").await.0 == 503).then_some(());
        soon("a node to say that it is not ready", Duration::from_secs(10), unready).await;
        let mut raw = TestClient::connect(cluster.ws(node, "eve")).await;
        raw.frame(json!(["1", "1", "session:s", "phx_join", {}])).await;
        let reply = raw.next().await;
        assert_eq!(reply[4]["response"]["reason"], "unavailable", "{reply}");
    }
    refused(&cluster, &cluster.url(), &["read-only", "promote", cluster.database()]).await;
    cluster.pause_until(begun + 3 * cluster.plan.ttl).await;
    assert_eq!(sql.status(&turn).await, "running");
    for recorder in &recorders {
        assert_eq!(recorder.now().endings, Vec::<String>::new(), "clients wait");
    }
    pair.promote().await;
    sql.until("its runner to be dropped", &lost(&turn), 1).await;
    nodes_are_ready(&cluster).await;
    let verdicts = "SELECT count(*) FROM nodes WHERE state <> 'live'";
    assert_eq!(sql.number(verdicts).await, 0, "nobody was judged");
    renewed(&cluster, &recorders, "epoch_changed").await;
}
