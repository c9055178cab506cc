//! A database that is not the one it was: a new history, and a restore of an older state.

use std::time::Duration;

use crate::support::{
    fleet::{Fleet, Plan},
    oracle::soon,
    process::run,
    recorder::Recorder,
};

/// Follows a session on each node while a turn of `n0` runs.
pub(super) async fn followed(cluster: &Fleet) -> (Vec<Recorder>, String) {
    let mut recorders = Vec::new();
    for node in 0..cluster.nodes.len() {
        recorders.push(Recorder::start(cluster, &[node], "s", &format!("u{node}")).await);
    }
    let first = cluster.turn(0, "s", 5).await;
    for recorder in &recorders {
        assert_eq!(recorder.end(&first).await, "completed");
    }
    let turn = cluster.turn(0, "s", 3_000).await;
    for recorder in &recorders {
        recorder.words(&turn, 20).await;
    }
    (recorders, turn)
}

/// Every channel ends with `phx_error`, every client comes back and is given a snapshot for this reason, and the
/// session goes on.
pub(super) async fn renewed(cluster: &Fleet, recorders: &[Recorder], reason: &str) {
    for recorder in recorders {
        recorder.until("a channel that ends", |record| record.endings.iter().any(|end| end == "phx_error")).await;
        let is_it = |join: &String| join == reason;
        recorder.until("a snapshot", |record| record.joins[1..].iter().any(is_it) && record.is_joined).await;
    }
    let next = cluster.turn(1, "s", 3).await;
    for recorder in recorders {
        assert_eq!(recorder.end(&next).await, "completed");
    }
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_12_l11_a_new_history_ends_every_channel_and_clients_get_a_snapshot() {
    let cluster = Fleet::start(Plan::patient(3)).await;
    let (recorders, turn) = followed(&cluster).await;
    let mut command = cluster.tool();
    command.args(["migrate", "--new-history", "--database-url", &cluster.url()]);
    let (status, out, err) = run(command).await;
    assert!(status.success(), "{out} {err}");
    let mut sql = cluster.sql().await;
    let ended = format!("SELECT count(*) FROM turns WHERE id = '{turn}' AND status = 'failed'");
    sql.until("its runner to be dropped", &ended, 1).await;
    renewed(&cluster, &recorders, "epoch_changed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn case_12_l11_a_restore_of_an_older_state_ends_the_channels_that_were_shown_more() {
    let cluster = Fleet::start(Plan::patient(3)).await;
    let (recorders, turn) = followed(&cluster).await;
    let everybody = |lost: bool| (0..3).for_each(|node| cluster.lose_both(node, lost));
    everybody(true);
    cluster.copy_database().await;
    everybody(false);
    for recorder in &recorders {
        let more = recorder.now().answer(&turn).len();
        recorder.words(&turn, more + 50).await;
    }
    everybody(true);
    cluster.restore_copy().await;
    everybody(false);
    let mut sql = cluster.sql().await;
    let ended = format!("SELECT count(*) FROM turns WHERE id = '{turn}' AND status = 'failed'");
    sql.until("its runner to be dropped", &ended, 1).await;
    for node in 0..3 {
        let ready = async || (cluster.get(node, "/readyz").await.0 == 200).then_some(());
        soon("a node to be ready", Duration::from_secs(10), ready).await;
    }
    renewed(&cluster, &recorders, "cursor_ahead").await;
}
