//! What is refused at the start, what is only warned of, and names that nodes share.

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::support::{
    fleet::{Fleet, Plan},
    oracle::soon,
    process::run,
    recorder::Recorder,
};

/// A start that is refused in one line which says this.
pub(super) async fn refused(cluster: &Fleet, url: &str, says: &[&str]) {
    let mut command = cluster.tool();
    command.args(["serve", "--listen", "127.0.0.1:0", "--database-url", url]);
    let begun = Instant::now();
    let (status, out, err) = run(command).await;
    assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
    let line = err.lines().last().unwrap_or_default();
    for part in says {
        assert!(line.contains(part), "{part:?} is not in: {err}");
    }
    assert!(!err.contains("secret"), "no password: {err}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_13_a_database_that_cannot_be_used_is_refused_in_one_line() {
    let cluster = Fleet::start(Plan::patient(1)).await;
    let mut sql = cluster.sql().await;
    let (url, name) = (cluster.url(), cluster.database());
    sql.run("CREATE ROLE stranger LOGIN PASSWORD 'stranger-secret'").await;
    let stranger = url.replace("app:app-secret", "stranger:stranger-secret");
    refused(&cluster, &stranger, &["grant it", name]).await;
    sql.run(&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")).await;
    refused(&cluster, &url, &["read-only", name]).await;
    sql.run(&format!("ALTER DATABASE {name} RESET default_transaction_read_only")).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9999, 'from the future', true, 'x', 0)";
    sql.run(newer).await;
    refused(&cluster, &url, &["newer", name]).await;
    sql.run("DELETE FROM _sqlx_migrations WHERE version = 9999").await;
    // Whatever was refused left the one that runs alone.
    let ada = Recorder::start(&cluster, &[0], "s", "ada").await;
    let turn = cluster.turn(0, "s", 3).await;
    assert_eq!(ada.end(&turn).await, "completed");
    cluster.check(&[&ada]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_13_without_its_bus_a_node_starts_says_so_and_finds_it_when_it_answers() {
    let mut cluster = Fleet::prepare(Plan::patient(2).nats()).await;
    for node in &cluster.nodes {
        node.bus.refuse(true);
    }
    cluster.launch(0).await;
    cluster.launch(1).await;
    cluster.audit().await;
    for node in 0..2 {
        assert!(cluster.log(node).contains("bus"), "a warning: {}", cluster.log(node));
        let (_, answer) = cluster.get(node, "/readyz").await;
        assert_ne!(answer["bus"], "connected", "{answer}");
    }
    let (ada, ben) =
        (Recorder::start(&cluster, &[0], "s", "ada").await, Recorder::start(&cluster, &[1], "s", "ben").await);
    let turn = cluster.turn(0, "s", 20).await;
    assert_eq!(ben.end(&turn).await, "completed", "the log is enough");
    for node in &cluster.nodes {
        node.bus.refuse(false);
    }
    for node in 0..2 {
        soon("the bus", Duration::from_secs(15), async || {
            (cluster.get(node, "/readyz").await.1["bus"] == "connected").then_some(())
        })
        .await;
    }
    let turn = cluster.turn(0, "s", 20).await;
    assert_eq!(ben.end(&turn).await, "completed");
    let late = ben.now().end(&turn).unwrap().at.saturating_duration_since(ada.now().end(&turn).unwrap().at);
    println!("over the bus, the end came {late:?} later");
    assert!(late < Duration::from_millis(1_500), "{late:?}");
    cluster.check(&[&ada, &ben]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_13_i1_two_nodes_of_one_name_are_two_unless_the_name_was_promised_to_be_one_s() {
    let mut cluster = Fleet::prepare(Plan::patient(3)).await;
    for (node, name) in cluster.nodes.iter_mut().zip(["same", "same", "only"]) {
        name.clone_into(&mut node.name);
    }
    cluster.launch(0).await;
    cluster.launch(1).await;
    cluster.launch_as(2, &["--exclusive-node-name"], &[]).await;
    cluster.audit().await;
    let mut sql = cluster.sql().await;
    let ada = Recorder::start(&cluster, &[1], "s0", "ada").await;
    let ben = Recorder::start(&cluster, &[1], "s1", "ben").await;
    let eve = Recorder::start(&cluster, &[1], "s2", "eve").await;
    let turns =
        [cluster.turn(0, "s0", 3_000).await, cluster.turn(1, "s1", 3_000).await, cluster.turn(2, "s2", 3_000).await];
    for (recorder, turn) in [&ada, &ben, &eve].into_iter().zip(&turns) {
        recorder.words(turn, 20).await;
    }
    assert_eq!(sql.number("SELECT count(*) FROM nodes WHERE state = 'live'").await, 3);
    // A restart under a name that is not promised frees nothing before the lease is over.
    cluster.kill(0).await;
    let killed = Instant::now();
    cluster.launch(0).await;
    assert_eq!(sql.status(&turns[0]).await, "running", "a name proves nothing");
    // Under one that is, at once.
    cluster.kill(2).await;
    let begun = Instant::now();
    cluster.launch_as(2, &["--exclusive-node-name"], &[]).await;
    assert_eq!(eve.end(&turns[2]).await, "cancelled owner_gone");
    let took = begun.elapsed();
    println!("an exclusive name freed its predecessor's turn after {took:?}");
    assert!(took < Duration::from_secs(3), "{took:?}");
    assert_eq!(ada.end(&turns[0]).await, "cancelled owner_gone");
    assert!(killed.elapsed() > cluster.plan.ttl - cluster.plan.renew, "{:?}", killed.elapsed());
    assert_eq!(sql.status(&turns[1]).await, "running", "the other of that name is another");
    cluster.post(2, &format!("s1/turns/{}/cancel", turns[1]), json!({})).await;
    cluster.check(&[&ada, &ben, &eve]).await;
}
