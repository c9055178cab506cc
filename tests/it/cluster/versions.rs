//! Old and new version side by side: what only the newer one knows is left alone and passed on, and each node is judged by
//! the lease in its own row.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    client::SessionClient,
    fleet::{Fleet, Plan, Sql},
    recorder::Recorder,
};

/// Writes what a newer version might: an event of its own, and beside each turn another attempt in a state of its own.
async fn newer_version_writes(sql: &mut Sql, session: &str, statuses: [(&str, &str); 2]) {
    let key = format!("(SELECT key FROM sessions WHERE id = '{session}')");
    for (turn, status) in statuses {
        let body = format!(
            r#""type":"turn_{status}","at":"2026-01-01T00:00:00.000Z","by":null,"turn_id":"{status}","data":{{"until":[1]}}}}"#
        );
        let ended = if status == "expired" { "ended_at" } else { "NULL" };
        sql.run(&format!(
            "BEGIN;
             UPDATE sessions SET last_seq = last_seq + 1 WHERE id = '{session}';
             INSERT INTO events (session_key, seq, kind, turn_id, body)
                 SELECT key, last_seq, 'turn_{status}', '{status}', '{body}' FROM sessions WHERE id = '{session}';
             INSERT INTO turns (id, session_key, status, prompt_id, attempt, owner, term, flushed, intent, ended_at, row)
                 SELECT '{status}', session_key, '{status}', prompt_id, attempt + 1, NULL, term, flushed, intent, {ended},
                     (row::jsonb || jsonb_build_object('id', '{status}', 'status', '{status}', 'attempt', attempt + 1,
                         'reason', 'out_of_credit', 'of_a_newer_version', true)
                      || CASE WHEN '{ended}' = 'NULL' THEN '{{\"ended_at\":null,\"ended_seq\":null}}'::jsonb
                              ELSE '{{}}'::jsonb END)::text
                 FROM turns WHERE id = '{turn}' AND session_key = {key};
             COMMIT"
        ))
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_14_what_only_a_newer_version_knows_is_left_alone_and_passed_on() {
    let cluster = Fleet::start(Plan::patient(2)).await;
    let mut sql = cluster.sql().await;
    let (ada, ben) =
        (Recorder::start(&cluster, &[0], "s", "ada").await, Recorder::start(&cluster, &[1], "s", "ben").await);
    let turns = [cluster.turn(0, "s", 2).await, cluster.turn(1, "s", 2).await];
    for turn in &turns {
        assert_eq!(ben.end(turn).await, "completed");
    }
    newer_version_writes(&mut sql, "s", [(&turns[0], "paused"), (&turns[1], "expired")]).await;
    let rows = "SELECT id || status || row FROM turns WHERE status IN ('paused', 'expired') ORDER BY id";
    let written = sql.texts(rows).await;
    assert_eq!(written.len(), 2);
    for recorder in [&ada, &ben] {
        recorder
            .until("the events", |record| record.events.iter().any(|seen| seen.is("expired", "turn_expired")))
            .await;
        let record = recorder.now();
        let seen = record.events.iter().find(|seen| seen.is("paused", "turn_paused")).unwrap();
        assert_eq!(seen.event["data"], json!({ "until": [1] }), "as it was written");
    }
    // It takes no slot, it is not cancelled or tried again, and nobody else's write fails with it.
    let caller = cluster.caller();
    let ask = |node: usize, path: &'static str| caller.try_post(node, path, json!({}));
    let other = cluster.turn(0, "other", 30);
    let asked = async {
        for node in [0, 1] {
            let (status, answer) = ask(node, "s/turns/paused/cancel").await.unwrap();
            assert_eq!((status, &answer["code"]), (409, &json!("conflict")), "{answer}");
            let (status, answer) = ask(node, "s/turns/paused/retry").await.unwrap();
            assert_eq!((status, &answer["turn_id"], &answer["duplicate"]), (202, &json!("paused"), &json!(true)));
            let (status, answer) = ask(node, "s/turns/expired/cancel").await.unwrap();
            assert_eq!((status, &answer["outcome"]), (200, &json!("already_ended")), "{answer}");
            assert_eq!((&answer["status"], &answer["reason"]), (&json!("expired"), &json!("out_of_credit")));
        }
    };
    let (other, ()) = tokio::join!(other, asked);
    let next = cluster.turn(1, "s", 2).await;
    assert_eq!(ada.end(&next).await, "completed");
    let shown = SessionClient::join(&cluster.ws(1, "eve"), "s").await.view;
    let expired = shown.ended.values().find(|turn| turn.id == "expired").expect("how it ended is shown");
    assert_eq!((expired.status.as_str(), expired.reason.as_deref()), ("expired", Some("out_of_credit")));
    sql.until(
        "another's turn",
        &format!("SELECT count(*) FROM turns WHERE id = '{other}' AND status = 'completed'"),
        1,
    )
    .await;
    cluster.pause_until(Instant::now() + 3 * cluster.plan.renew).await;
    assert_eq!(sql.texts(rows).await, written, "as they were");
    let again = cluster.post(0, "s/turns/expired/retry", json!({})).await;
    assert_eq!(
        (&again["attempt"], &again["duplicate"]),
        (&json!(3), &json!(false)),
        "what has ended may be tried again"
    );
    sql.until("it", "SELECT count(*) FROM turns WHERE attempt = 3 AND status = 'completed'", 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_14_each_node_is_judged_by_the_lease_in_its_own_row() {
    let mut cluster = Fleet::prepare(Plan::short(3)).await;
    let long = Duration::from_secs(6);
    cluster.nodes[1].lease = Some((long, cluster.plan.renew));
    for node in 0..3 {
        cluster.launch(node).await;
    }
    cluster.audit().await;
    let (ada, ben) =
        (Recorder::start(&cluster, &[2], "s0", "ada").await, Recorder::start(&cluster, &[2], "s1", "ben").await);
    let turns = [cluster.turn(0, "s0", 2_000).await, cluster.turn(1, "s1", 2_000).await];
    ada.words(&turns[0], 20).await;
    ben.words(&turns[1], 20).await;
    let killed = Instant::now();
    cluster.kill(0).await;
    cluster.kill(1).await;
    assert_eq!(ada.end(&turns[0]).await, "cancelled owner_gone");
    let short = killed.elapsed();
    assert_eq!(ben.end(&turns[1]).await, "cancelled owner_gone");
    let (took, renew) = (killed.elapsed(), cluster.plan.renew);
    println!("a lease of {:?} was over after {short:?}, one of {long:?} after {took:?}", cluster.plan.ttl);
    assert!(short < long - renew, "{short:?}");
    assert!(took > long - renew && took < long + 2 * renew + Duration::from_secs(5), "{took:?}");
    cluster.check(&[&ada, &ben]).await;
}
