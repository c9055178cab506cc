//! Owners that are killed without a word.

use std::time::Duration;

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use crate::support::{
    chance::Chance,
    fleet::{Fleet, Plan},
    recorder::Recorder,
};

const ROUNDS: usize = 17;
const VICTIMS: usize = 3;
/// What a machine with two busy cores may add to any limit.
const BUSY: Duration = Duration::from_secs(4);

/// One kill: the session of this round, its turn, what its recorder had seen, when.
struct Kill {
    recorder: Recorder,
    turn: String,
    seen: String,
    at: Instant,
}

/// Sends to the victim, lets it run for a moment, and kills it.
async fn strike(cluster: &Fleet, victim: usize, session: String, moment: Duration) -> Kill {
    let recorder = Recorder::start(cluster, &[VICTIMS], &session, "ada").await;
    let turn = cluster.turn(victim, &session, 12).await;
    sleep(moment).await;
    cluster.signal(victim, "KILL").await;
    let at = Instant::now();
    Kill { seen: recorder.now().answer(&turn), recorder, turn, at }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_1_a_killed_owner_s_turn_ends_once_keeps_what_was_seen_and_is_seen_elsewhere() {
    let mut chance = Chance::new("owner killed");
    let mut cluster = Fleet::start(Plan::short(VICTIMS + 1).direct().echo("10ms")).await;
    let (mut times, mut completed) = (Vec::new(), 0);
    for round in 0..ROUNDS {
        // From before the first word, through the middle, to about the end.
        let moments: Vec<_> = (0..VICTIMS).map(|_| Duration::from_millis(chance.below(220))).collect();
        let strikes = moments.into_iter().enumerate().map(|(victim, moment)| {
            let session = format!("r{round}-{victim}");
            strike(&cluster, victim, session, moment)
        });
        let kills = join_all(strikes).await;
        for kill in &kills {
            let end = kill.recorder.end(&kill.turn).await;
            assert!(["completed", "cancelled owner_gone"].contains(&end.as_str()), "{end}");
            let record = kill.recorder.now();
            assert!(record.answer(&kill.turn).starts_with(&kill.seen), "seen {:?}, kept {:?}", kill.seen, record.view);
            match record.end(&kill.turn) {
                Some(seen) if end != "completed" => times.push(seen.at.saturating_duration_since(kill.at)),
                _ => completed += 1,
            }
        }
        for victim in 0..VICTIMS {
            cluster.kill(victim).await;
        }
        let recorders: Vec<_> = kills.iter().map(|kill| &kill.recorder).collect();
        for victim in 0..VICTIMS {
            cluster.launch(victim).await;
        }
        cluster.check(&recorders).await;
    }
    times.sort_unstable();
    let (half, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!("kill to terminal event: p50 {half:?}, max {most:?} of {} cut turns; {completed} completed", times.len());
    assert!(times.len() >= ROUNDS, "too few turns were cut");
    assert!(most <= cluster.plan.liveness() + BUSY, "{most:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_8_i13_what_waits_at_a_node_that_dies_runs_elsewhere_in_order_and_once() {
    let mut cluster = Fleet::start(Plan::short(3).direct().echo("10ms")).await;
    let ada = Recorder::start(&cluster, &[1], "s", "ada").await;
    let first = cluster.turn(0, "s", 1_000).await;
    let mut waiting = Vec::new();
    for _ in 0..6 {
        waiting.push(cluster.turn(0, "s", 3).await);
    }
    ada.words(&first, 20).await;
    cluster.kill(0).await;
    assert_eq!(ada.end(&first).await, "cancelled owner_gone");
    for turn in &waiting {
        assert_eq!(ada.end(turn).await, "completed");
    }
    let record = ada.now();
    let starts: Vec<_> = record.events.iter().filter(|seen| seen.event["type"] == "turn_started").collect();
    let order: Vec<_> = starts.iter().map(|seen| seen.event["turn_id"].as_str().unwrap()).collect();
    assert_eq!(order[1..], waiting.iter().map(String::as_str).collect::<Vec<_>>(), "in order, once");
    for turn in &waiting {
        assert_eq!(record.answer(turn), "You said: word word word ");
    }
    cluster.check(&[&ada]).await;
}
