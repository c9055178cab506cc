//! A bus that restarts, breaks and loses: it is a hint, and the log is what clients see.

use std::{collections::HashMap, time::Duration};

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::{
    chance::Chance,
    fleet::{Fleet, Plan},
    recorder::Recorder,
};

/// By comparing heads where a turn runs, and what a busy machine adds.
const LATEST: Duration = Duration::from_millis(2_000 + 1_500);

/// How much later than where they were written events were seen elsewhere: median and longest.
fn delays(here: &Recorder, there: &[&Recorder]) -> (Duration, Duration) {
    let first: HashMap<_, _> =
        here.now().events.iter().map(|seen| (seen.event["seq"].as_u64().unwrap(), seen.at)).collect();
    let mut delays = Vec::new();
    for recorder in there {
        let events = recorder.now().events;
        let late = |seq: u64, at: Instant| first.get(&seq).map(|first| at.saturating_duration_since(*first));
        delays.extend(events.iter().filter_map(|seen| late(seen.event["seq"].as_u64().unwrap(), seen.at)));
    }
    delays.sort_unstable();
    assert!(delays.len() > 10, "too few to mean anything");
    (delays[delays.len() / 2], delays[delays.len() - 1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_10_of_a_bus_that_loses_a_fifth_nothing_is_lost_and_little_is_late() {
    let chance = Chance::new("lossy bus");
    let cluster = Fleet::start(Plan::patient(3).nats().losing(20, chance)).await;
    let here = Recorder::start(&cluster, &[0], "s", "ada").await;
    let (ben, eve) =
        (Recorder::start(&cluster, &[1], "s", "ben").await, Recorder::start(&cluster, &[2], "s", "eve").await);
    for words in [3, 200, 1, 100, 2] {
        let turn = cluster.turn(0, "s", words).await;
        for recorder in [&here, &ben, &eve] {
            assert_eq!(recorder.end(&turn).await, "completed");
        }
    }
    let (half, most) = delays(&here, &[&ben, &eve]);
    let lost = cluster.lossy.as_ref().unwrap().lost();
    println!("{lost} messages of the bus lost; events elsewhere: median {half:?}, longest {most:?}");
    assert!(lost > 20, "a good network: {lost}");
    assert!(most < LATEST, "{most:?}");
    cluster.check(&[&here, &ben, &eve]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_10_a_bus_that_restarts_loses_and_cancels_nothing() {
    let mut chance = Chance::new("bus restarted");
    let mut cluster = Fleet::start(Plan::patient(3).nats()).await;
    let here = Recorder::start(&cluster, &[0], "s", "ada").await;
    let ben = Recorder::start(&cluster, &[1], "s", "ben").await;
    let turn = cluster.turn(0, "s", 4_000).await;
    for _ in 0..4 {
        let more = here.now().answer(&turn).len();
        here.words(&turn, more + 200).await;
        cluster.nats.as_mut().unwrap().kill();
        sleep(Duration::from_millis(chance.below(1_500))).await;
        cluster.nats.as_mut().unwrap().start_again();
    }
    cluster.post(2, &format!("s/turns/{turn}/cancel"), json!({})).await;
    assert_eq!(ben.end(&turn).await, "cancelled user", "it ran until then");
    let (half, most) = delays(&here, &[&ben]);
    println!("events elsewhere: median {half:?}, longest {most:?}");
    assert!(most < LATEST, "{most:?}");
    assert_eq!((here.now().joins.len(), ben.now().joins.len()), (1, 1), "no client notices");
    cluster.check(&[&here, &ben]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_10_a_bus_over_postgres_that_breaks_loses_and_cancels_nothing() {
    let mut chance = Chance::new("bus over Postgres broken");
    let cluster = Fleet::start(Plan::patient(3)).await;
    let here = Recorder::start(&cluster, &[0], "s", "ada").await;
    let ben = Recorder::start(&cluster, &[1], "s", "ben").await;
    let turn = cluster.turn(0, "s", 4_000).await;
    for round in 0..8 {
        let more = here.now().answer(&turn).len();
        here.words(&turn, more + 200).await;
        let bus = &cluster.nodes[round % 3].bus;
        if round.is_multiple_of(2) {
            bus.cut();
        } else {
            bus.go_silent(true);
            sleep(Duration::from_millis(chance.below(800))).await;
            bus.go_silent(false);
        }
    }
    cluster.post(2, &format!("s/turns/{turn}/cancel"), json!({})).await;
    assert_eq!(ben.end(&turn).await, "cancelled user", "it ran until then");
    let (half, most) = delays(&here, &[&ben]);
    println!("events elsewhere: median {half:?}, longest {most:?}");
    assert!(most < LATEST, "{most:?}");
    assert_eq!((here.now().joins.len(), ben.now().joins.len()), (1, 1), "no client notices");
    cluster.check(&[&here, &ben]).await;
}
