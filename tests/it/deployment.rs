//! What `docs/deploy` ships, as far as it can be run without a container: two nodes behind the proxy's own
//! configuration, deployed anew while people are at work; and the command that a container's health check runs.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::support::{
    client::SessionClient,
    fleet::{Fleet, Plan},
    haproxy::HaProxy,
    http::Http,
    process::{self, Process},
    recorder::Recorder,
};

/// Waits until the proxy leads requests to somebody.
async fn is_open(http: &Http) {
    let limit = Instant::now() + Duration::from_secs(20);
    while http.get("/readyz").await.status != 200 {
        assert!(Instant::now() < limit, "the proxy leads nowhere");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until the proxy has seen a node come back and leads somebody to it.
async fn leads_to(url: &str, node: &str) {
    let limit = Instant::now() + Duration::from_secs(20);
    while SessionClient::join(url, "probe").await.joined["node"]["name"] != node {
        assert!(Instant::now() < limit, "the proxy does not lead to {node}");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_deploy_behind_the_shipped_proxy_loses_nothing_and_answers_every_send() {
    let mut cluster = Fleet::start(Plan::patient(2).nats().echo("10ms")).await;
    let proxy = HaProxy::before(cluster.address(0), cluster.address(1));
    let http = Http::new(&format!("http://{}", proxy.address));
    is_open(&http).await;
    let url = |user: &str| format!("ws://{}/socket/websocket?vsn=2.0.0&user_id={user}&name={user}", proxy.address);
    let mut recorders = Vec::new();
    for user in ["ada", "bob", "cyd", "dan"] {
        recorders.push(Recorder::at(vec![url(user)], "deploy", user).await);
    }
    let mut turns = Vec::new();
    let send = async |number: usize| {
        let body = json!({ "id": format!("m{number}"), "text": "word ".repeat(40) });
        let limit = Instant::now() + Duration::from_secs(30);
        loop {
            // The same person and id each time: repeated until somebody takes it.
            let answer = http.post("/api/sessions/deploy/messages?user_id=ada", &body).await;
            match answer.status {
                202 => return answer.ok(202)["turn_id"].as_str().expect("a turn").to_owned(),
                502..=504 => assert!(Instant::now() < limit, "nobody takes it: {answer:?}"),
                _ => panic!("{answer:?}"),
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    turns.push(send(0).await);
    for node in [0, 1] {
        cluster.signal(node, "TERM").await;
        turns.push(send(2 * node + 1).await);
        assert_eq!(cluster.take(node).ended().await.code(), Some(0));
        cluster.launch(node).await;
        turns.push(send(2 * node + 2).await);
        leads_to(&url("eve"), &format!("n{node}")).await;
    }
    for turn in &turns {
        for recorder in &recorders {
            assert_eq!(recorder.end(turn).await, "completed", "{}", recorder.name());
        }
    }
    assert_eq!(http.get("/metrics").await.status, 404, "not for the public");
    cluster.check(&recorders.iter().collect::<Vec<_>>()).await;
    for recorder in &recorders {
        let joins = recorder.now().joins;
        assert!(joins.len() >= 2 && joins[1..].iter().all(|mode| mode == "replay"), "{joins:?}");
    }
}

#[tokio::test]
async fn the_health_command_says_whether_a_server_is_ready() {
    let folder = tempfile::TempDir::new().unwrap();
    let server = Process::start(folder.path(), &[]).await;
    let health = async |listen: &str| {
        let mut command = process::command(folder.path());
        command.arg("health").env("REJOIN_LISTEN", listen);
        process::run(command).await
    };
    let address = server.address.to_string();
    let (status, said, _) = health(&address).await;
    assert!(status.success() && said.contains("\"ready\":true"), "{said}");
    // From inside a container that listens everywhere.
    let everywhere = format!("0.0.0.0:{}", server.address.port());
    let mut command = process::command(folder.path());
    command.args(["health", "--insecure"]).env("REJOIN_LISTEN", everywhere);
    assert!(process::run(command).await.0.success());
    server.kill().await;
    let (status, said, complaint) = health(&address).await;
    assert_eq!((status.code(), said.as_str()), (Some(1), ""));
    assert!(complaint.contains("check that the server runs there"), "{complaint}");
}
