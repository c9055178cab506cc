//! The oracle itself: whatever is wrong in a database, it sees.

use crate::support::{
    fleet::{Fleet, Plan},
    oracle::{LAWS, violations},
    recorder::Recorder,
};

/// What breaks each law, in the order of the laws.
const CRIMES: [(&str, &str); 9] = [
    ("L1", "DELETE FROM events WHERE seq = 3"),
    ("L1", "UPDATE sessions SET last_seq = last_seq + 1"),
    ("I2", "UPDATE nodes SET state = 'dead'; UPDATE nodes SET state = 'live'"),
    ("I2", "UPDATE turns SET status = 'running', term = term - 1"),
    ("I6", "UPDATE turns SET owner = 'somebody'"),
    ("I9: one", "DELETE FROM events WHERE kind = 'turn_completed'; UPDATE sessions SET last_seq = last_seq - 1"),
    (
        "L3",
        "INSERT INTO events SELECT session_key, seq + 1, 'turn_delta', turn_id, 99, body FROM events
         WHERE kind = 'turn_completed'; UPDATE sessions SET last_seq = last_seq + 1",
    ),
    (
        "I9: every",
        "INSERT INTO turns SELECT 'another', session_key, status, prompt_id, attempt, owner, term, flushed, intent,
         ended_at, compacted, row FROM turns",
    ),
    ("I11", "UPDATE turns SET status = 'running', owner = 'of the dead'"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oracle_sees_each_violation() {
    let cluster = Fleet::start(Plan::patient(1)).await;
    let ada = Recorder::start(&cluster, &[0], "s", "ada").await;
    let turn = cluster.turn(0, "s", 3).await;
    assert_eq!(ada.end(&turn).await, "completed");
    cluster.check(&[&ada]).await;
    let mut sql = cluster.sql().await;
    for (law, crime) in CRIMES {
        sql.run("BEGIN").await;
        sql.run(crime).await;
        let seen = violations(&mut sql).await;
        assert!(seen.iter().any(|(seen, rows)| seen.starts_with(law) && !rows.is_empty()), "{law}: {crime}: {seen:?}");
        sql.run("ROLLBACK").await;
    }
    let judged: Vec<_> =
        LAWS.iter().filter(|(law, _)| !CRIMES.iter().any(|(crime, _)| law.starts_with(crime))).collect();
    assert!(judged.is_empty(), "no crime breaks {judged:?}");
    assert!(violations(&mut sql).await.is_empty());
}
