//! Servers on a Postgres database: a session survives a restart, a second node ends what a killed one left, and a
//! database that cannot be used is refused in one line without its password.

use rejoin::{agent::Secret, config::Database};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    client::SessionClient,
    http::Http,
    postgres::{OWNER, PASSWORD, server},
    process::{Process, command, run},
    server::TestServer,
};

async fn new_database() -> String {
    let server = server();
    server.url(OWNER, &server.database().await)
}

#[tokio::test]
async fn a_session_is_streamed_and_is_there_after_a_restart() {
    let url = new_database().await;
    let database = || Database::Postgres(Secret::new(url.clone()));
    let (first, mut script) = TestServer::start_with(|config| config.database = database()).await;
    let mut ada = SessionClient::join(&first.ws("ada"), "s").await;
    let sent = ada.send("Hello?").await;
    let turn = script.turn().await;
    turn.say("Good ").await;
    let id = sent["turn_id"].clone();
    ada.until("the first words", |ada| ada.answer_of(&id).as_deref() == Some("Good ")).await;
    let window = SessionClient::join(&first.ws("ben"), "s").await;
    assert_eq!(window.answer_of(&id).as_deref(), Some("Good "));
    turn.say("morning").await;
    turn.done().await;
    assert_eq!(ada.end_of(&id).await, "completed");
    first.stop().await;
    let (second, _script) = TestServer::start_with(|config| config.database = database()).await;
    ada.return_to(&second.ws("ada")).await;
    assert_eq!(ada.joined["replay"]["mode"], "replay", "the epoch is the same");
    let newcomer = SessionClient::join(&second.ws("ben"), "s").await;
    assert_eq!(newcomer.answer_of(&id).as_deref(), Some("Good morning"));
    assert_eq!(newcomer.view.messages, ada.view.messages);
    second.stop().await;
}

#[tokio::test]
async fn a_node_ends_what_a_killed_one_left() {
    let (url, folder) = (new_database().await, TempDir::new().unwrap());
    let more = ["--database-url", &url, "--lease-renew", "100ms", "--lease-ttl", "600ms", "--echo-delay", "5s"];
    let killed = Process::start(folder.path(), &more).await;
    let other = Process::start(folder.path(), &more).await;
    let mut ada = SessionClient::join(&killed.ws("ada"), "s").await;
    let id = ada.send("a long one").await["turn_id"].clone();
    let seen = SessionClient::join(&other.ws("ben"), "s").await;
    assert_eq!(seen.joined["turns"][0]["status"], "running", "I10: a live node's turn is left alone");
    killed.kill().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let running = async || {
        let session = http.get(other.http("/api/sessions?status=running")).send().await.unwrap().text().await.unwrap();
        session.contains("\"s\"")
    };
    let gone = async { while running().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("the orphan does not end");
    ada.return_to(&other.ws("ada")).await;
    assert_eq!(ada.end_of(&id).await, "cancelled");
    let ends: Vec<_> = ada.events.iter().filter(|event| event["type"] == "turn_cancelled").collect();
    assert_eq!((ends.len(), &ends[0]["data"]["reason"]), (1, &json!("owner_gone")));
}

#[tokio::test]
async fn a_database_that_cannot_be_used_is_refused_in_one_line_without_its_password() {
    let (server, folder) = (server(), TempDir::new().unwrap());
    let database = server.database().await;
    let url = server.tcp_url(server.port(), &database);
    for (url, more, reason) in [
        (url.replace(PASSWORD, "wrong-secret"), &[][..], "the user or the password"),
        (server.tcp_url(server.port(), "nowhere"), &[], "create it"),
        (url, &["--no-migrate"], "rejoin migrate"),
    ] {
        let mut serve = command(folder.path());
        serve.args(["serve", "--listen", "127.0.0.1:0"]).args(more).env("DATABASE_URL", &url);
        let (status, out, err) = run(serve).await;
        assert_eq!((status.code(), out.as_str()), (Some(1), ""), "{err}");
        assert_eq!(err.lines().count(), 1, "one line: {err}");
        assert!(err.starts_with("error: database ") && err.contains(reason), "{err}");
        assert!(!err.contains(PASSWORD) && !err.contains("wrong-secret"), "{err}");
    }
}

#[tokio::test]
async fn what_a_database_cannot_be_asked_for_is_not_there() {
    let url = new_database().await;
    let (server, _script) =
        TestServer::start_with(|config| config.database = Database::Postgres(Secret::new(url.clone()))).await;
    let http = Http::new(&server.http("/"));
    http.post("/api/sessions", &json!({ "id": "s" })).await.ok(201);
    for prefix in ["%00", "s%00", "%FF", "%F0%9F%98%80", &"s".repeat(5_000)] {
        let list = http.get(&format!("/api/sessions?prefix={prefix}")).await.ok(200);
        assert_eq!(list, json!({ "sessions": [], "cursor": null }), "{prefix}");
    }
    for turn in ["%00", "a%00b", &"t".repeat(5_000)] {
        for action in ["cancel", "retry"] {
            let path = format!("/api/sessions/s/turns/{turn}/{action}");
            http.post(&path, &json!({})).await.refuses(404, "not_found");
        }
    }
    http.get("/api/sessions/s/events?epoch=%00").await.refuses(409, "conflict");
    server.stop().await;
}

#[tokio::test]
async fn migrate_makes_the_schema_and_begins_a_new_history() {
    let (url, folder) = (new_database().await, TempDir::new().unwrap());
    let (mut migrate, mut again) = (command(folder.path()), command(folder.path()));
    migrate.arg("migrate").env("DATABASE_URL", &url);
    assert!(run(migrate).await.0.success());
    let (server, _script) = TestServer::start_with(|config| {
        config.database = Database::Postgres(Secret::new(url.clone()));
        config.migrate = false;
    })
    .await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    server.stop().await;
    again.args(["migrate", "--new-history"]).env("DATABASE_URL", &url);
    assert!(run(again).await.0.success());
    let (server, _script) =
        TestServer::start_with(|config| config.database = Database::Postgres(Secret::new(url.clone()))).await;
    ada.return_to(&server.ws("ada")).await;
    assert_eq!(ada.joined["replay"]["reason"], "epoch_changed");
    server.stop().await;
}
