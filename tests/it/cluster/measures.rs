//! What README says of several nodes, measured: they take minutes, so they run only when they are asked for.
//!
//! `cargo test --test it measures -- --ignored --nocapture --test-threads 1`, with the variables that each names.

use std::{fmt::Debug, str::FromStr, sync::Arc, time::Duration};

use futures::future::join_all;
use tokio::time::{Instant, sleep};

use crate::support::{
    chance::Chance,
    client::SessionClient,
    fleet::{Fleet, Plan, Sql},
    postgres::Server,
    recorder::Recorder,
};

/// What a machine with two busy cores may add to any limit.
const BUSY: Duration = Duration::from_secs(4);

fn variable<T: FromStr<Err: Debug>>(name: &str, default: &str) -> T {
    std::env::var(name)
        .unwrap_or_else(|_| default.to_owned())
        .parse()
        .unwrap_or_else(|error| panic!("{name}: {error:?}"))
}

fn duration(name: &str, default: &str) -> Duration {
    humantime::parse_duration(&variable::<String>(name, default)).unwrap()
}

/// `KILL_TTL` (6s), `KILL_RENEW` (1s), `KILLS` (50), `KILL_VICTIMS` (10): owners that die by `kill -9`, so many at once,
/// each at a moment of its own in the time between two renewals; from there to the end of their turn at a client of
/// another node.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and more"]
async fn i11_from_a_kill_to_the_end_of_its_turn_elsewhere() {
    let (kills, victims): (usize, usize) = (variable("KILLS", "50"), variable("KILL_VICTIMS", "10"));
    let mut chance = Chance::new("kills");
    let plan =
        Plan { ttl: duration("KILL_TTL", "6s"), renew: duration("KILL_RENEW", "1s"), ..Plan::short(victims + 2) };
    let between = u64::try_from(plan.renew.as_millis()).unwrap();
    let mut cluster = Fleet::start(plan.direct()).await;
    let mut times = Vec::new();
    while times.len() < kills {
        let round = times.len();
        let moments: Vec<_> = (0..victims).map(|_| Duration::from_millis(chance.below(between))).collect();
        let strikes = moments.into_iter().enumerate().map(|(victim, moment)| {
            let (cluster, session) = (&cluster, format!("s{round}-{victim}"));
            async move {
                let ada = Recorder::start(cluster, &[victims + victim % 2], &session, "ada").await;
                let turn = cluster.turn(victim, &session, 5_000).await;
                ada.words(&turn, 20).await;
                sleep(moment).await;
                cluster.signal(victim, "KILL").await;
                let at = Instant::now();
                assert_eq!(ada.end(&turn).await, "cancelled owner_gone");
                let end = ada.now().end(&turn).unwrap().at;
                (ada, end.saturating_duration_since(at))
            }
        });
        let ended = join_all(strikes).await;
        times.extend(ended.iter().map(|(_, took)| *took));
        for victim in 0..victims {
            cluster.kill(victim).await;
            cluster.launch(victim).await;
        }
        let recorders: Vec<_> = ended.iter().map(|(ada, _)| ada).collect();
        cluster.check(&recorders).await;
    }
    times.sort_unstable();
    let (half, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "ttl {:?}, renewed every {:?}: kill -9 to the terminal event at a client of another node: p50 {half:?}, max \
         {most:?} of {}",
        cluster.plan.ttl,
        cluster.plan.renew,
        times.len()
    );
    assert!(most <= cluster.plan.liveness() + BUSY, "{most:?}");
}

/// What a database has been asked and has written.
struct Cost {
    statements: i64,
    transactions: i64,
    rows: i64,
    wal: i64,
}

async fn cost(sql: &mut Sql) -> Cost {
    let base = "FROM pg_stat_database WHERE datname = current_database()";
    Cost {
        statements: sql
            .number("SELECT sum(calls)::bigint FROM pg_stat_statements WHERE query !~ 'pg_stat|pg_current'")
            .await,
        transactions: sql.number(format!("SELECT xact_commit + xact_rollback {base}")).await,
        rows: sql.number(format!("SELECT tup_inserted + tup_updated + tup_deleted {base}")).await,
        wal: sql.number("SELECT (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint").await,
    }
}

/// `IDLE_NODES` (3), `IDLE_SESSIONS` (0), `IDLE_SECONDS` (30), `IDLE_TOP` (0): what so many nodes with default leases cost
/// their database while nobody says anything, with so many sessions joined at them in all; and the statements that are
/// run most.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes a minute and more"]
async fn what_idle_nodes_cost_their_database() {
    let (nodes, sessions): (usize, usize) = (variable("IDLE_NODES", "3"), variable("IDLE_SESSIONS", "0"));
    let (seconds, top): (u32, usize) = (variable("IDLE_SECONDS", "30"), variable("IDLE_TOP", "0"));
    let settings = ["shared_preload_libraries=pg_stat_statements", "full_page_writes=on", "autovacuum=off"];
    let server = tokio::task::spawn_blocking(move || Server::start_with(&settings, &[])).await.unwrap();
    let plan = Plan { ttl: Duration::from_secs(6), renew: Duration::from_secs(1), ..Plan::short(nodes) };
    let cluster = Fleet::start_on(Arc::new(server), plan.direct()).await;
    let mut sql = cluster.sql().await;
    sql.run("CREATE EXTENSION pg_stat_statements").await;
    let mut joined = Vec::new();
    for session in 0..sessions {
        joined.push(SessionClient::join(&cluster.ws(session % nodes, "ada"), &format!("s{session}")).await);
    }
    // Whatever a start and a join bring with them is over, and the pages that are written all the time are known.
    sleep(Duration::from_secs(5)).await;
    let (before, begun) = (cost(&mut sql).await, Instant::now());
    sleep(Duration::from_secs(1) * seconds).await;
    let (after, took) = (cost(&mut sql).await, begun.elapsed().as_secs_f64());
    let each = |after: i64, before: i64| (after - before) as f64 / took;
    let statements = each(after.statements, before.statements);
    println!(
        "{nodes} nodes, {sessions} sessions joined: {statements:.1} statements, {:.1} transactions, {:.1} rows written, \
         {:.0} bytes of WAL a second",
        each(after.transactions, before.transactions),
        each(after.rows, before.rows),
        each(after.wal, before.wal),
    );
    let most = format!(
        "SELECT round(calls / {took}, 2) || ' a second, ' || round((total_exec_time / calls)::numeric, 3) || ' ms: ' \
         || left(regexp_replace(query, '\\s+', ' ', 'g'), 90) FROM pg_stat_statements ORDER BY calls DESC LIMIT {top}"
    );
    sql.texts(most).await.iter().for_each(|line| println!("    {line}"));
    assert!(statements < 40.0 * nodes as f64, "an idle node is not idle");
    drop(joined);
}
