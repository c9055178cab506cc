//! The live list while owners die: no viewer is left with a turn that nobody runs.

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::support::{
    chance::Chance,
    fleet::{Fleet, Plan},
    ws::{TestClient, within},
};

async fn view(cluster: &Fleet, node: usize) -> (TestClient, Value) {
    let mut raw = TestClient::connect(cluster.ws(node, "eve")).await;
    raw.frame(json!(["1", "1", "sessions", "phx_join", {}])).await;
    let reply = raw.next().await;
    assert_eq!(reply[4]["status"], "ok", "{reply}");
    (raw, reply[4]["response"]["sessions"].clone())
}

/// Reads until a session has this status.
async fn until(raw: &mut TestClient, session: &str, status: &str) -> Value {
    within("a status in the list", async {
        loop {
            let frame = raw.next().await;
            if frame[3] == "session_changed" && frame[4]["id"] == session && frame[4]["status"] == status {
                return frame[4].clone();
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_list_shows_the_end_of_turns_whose_owner_was_killed() {
    let mut cluster = Fleet::start(Plan::short(2)).await;
    let (mut viewer, sessions) = view(&cluster, 1).await;
    assert_eq!(sessions, json!([]));
    cluster.turn(0, "s", 10_000).await;
    assert_eq!(until(&mut viewer, "s", "running").await["running"][0]["liveness"], "alive");
    let killed = Instant::now();
    cluster.kill(0).await;
    let ended = timeout(cluster.plan.liveness(), until(&mut viewer, "s", "idle")).await;
    let ended = ended.unwrap_or_else(|_| panic!("not within {:?}", cluster.plan.liveness()));
    println!("the list showed the end {:?} after the kill", killed.elapsed());
    assert_eq!(ended["running"], json!([]));
    let (_, sessions) = view(&cluster, 1).await;
    assert_eq!((&sessions[0]["id"], &sessions[0]["status"]), (&"s".into(), &"idle".into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bus_that_loses_a_fifth_leaves_no_viewer_behind() {
    let chance = Chance::new("lossy bus of the list");
    let cluster = Fleet::start(Plan::patient(2).nats().losing(20, chance)).await;
    let (mut viewer, _) = view(&cluster, 1).await;
    let mut ended = Vec::new();
    // How many messages that makes is the bus's affair: it goes on until some of them were lost.
    within("a bad network", async {
        while ended.len() < 30 || cluster.lossy.as_ref().unwrap().lost() <= 5 {
            let session = format!("s{}", ended.len());
            cluster.turn(0, &session, 2).await;
            ended.push(session);
        }
    })
    .await;
    within("every session is shown at its end", async {
        let mut open: std::collections::HashSet<String> = ended.into_iter().collect();
        while !open.is_empty() {
            let frame = viewer.next().await;
            if frame[4]["status"] == "idle" && frame[4]["last_seq"].as_u64() > Some(2) {
                open.remove(frame[4]["id"].as_str().unwrap());
            }
        }
    })
    .await;
}
