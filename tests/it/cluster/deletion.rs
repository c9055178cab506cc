//! A session that is deleted has members on every node: all of them are told, whatever the bus does.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{
    client::SessionClient,
    fleet::{Fleet, Plan},
    ws::within,
};

/// Reads up to `phx_close`: the payload of `deleted`, which must come before it.
async fn told(client: &mut SessionClient) -> Value {
    within("the end of the channel", async {
        let mut told = Value::Null;
        loop {
            let frame = client.raw.next().await;
            match frame[3].as_str().unwrap() {
                "phx_close" => return told,
                "deleted" => told = frame[4].clone(),
                "phx_error" => panic!("{frame}"),
                _ => {}
            }
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn l12_members_on_every_node_are_told_also_where_the_bus_is_away() {
    for lost in [None, Some(2)] {
        let cluster = Fleet::start(Plan::patient(3)).await;
        let mut members = Vec::new();
        for (node, user) in ["ada", "ben", "eve"].into_iter().enumerate() {
            members.push(SessionClient::join(&cluster.ws(node, user), "s").await);
        }
        if let Some(node) = lost {
            cluster.lose_bus(node, true);
        }
        // It runs on the node that is told last.
        let turn = cluster.turn(2, "s", 2_000).await;
        let runs = |member: &SessionClient| member.answer_of(&json!(turn)).is_some_and(|text| text.len() > 20);
        members[2].until("words", runs).await;
        let begun = Instant::now();
        assert_eq!(cluster.caller().delete(0, "/api/sessions/s?user_id=ops&name=Ops").await, (200, json!({})));
        for member in &mut members {
            assert_eq!(told(member).await, json!({ "by": { "id": "ops", "name": "Ops" } }));
        }
        let took = begun.elapsed();
        println!("everybody was told after {took:?}, a node without its bus among them: {}", lost.is_some());
        let limit = if lost.is_some() { Duration::from_millis(3_500) } else { Duration::from_secs(2) };
        assert!(took < limit, "{took:?}");
        let mut sql = cluster.sql().await;
        sql.until("nothing to run", "SELECT count(*) FROM turns WHERE status IN ('queued', 'running')", 0).await;
        sql.until("everything to be removed", "SELECT count(*) FROM events", 0).await;
        // One new session for all of them.
        let mut epochs = Vec::new();
        for (node, user) in ["ada", "ben", "eve"].into_iter().enumerate() {
            let cursor = json!({ "last_seq": members[node].view.last_seq, "epoch": members[node].view.epoch });
            let client = SessionClient::join_with(&cluster.ws(node, user), "s", cursor).await;
            assert_eq!(client.joined["replay"]["reason"], "epoch_changed");
            assert_eq!(client.joined["turns"], json!([]));
            epochs.push(client.view.epoch);
        }
        epochs.dedup();
        assert_eq!(epochs.len(), 1);
        assert_eq!(sql.number("SELECT count(*) FROM sessions").await, 1);
    }
}
