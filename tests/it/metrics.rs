//! What `/metrics` says: the catalogue is the documented one, and numbers move as they should.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
};

use serde_json::json;

use crate::support::{
    client::SessionClient,
    form::{Form, Transport, Version},
    http::Http,
    scrape::Scrape,
    script::Script,
    server::TestServer,
    ws::TestClient,
};

async fn start() -> (TestServer, Script, Http) {
    let (server, script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    (server, script, http)
}

/// A family as people read of it.
#[derive(Debug, PartialEq, Eq)]
struct Row {
    kind: String,
    labels: BTreeSet<String>,
    meaning: String,
}

/// The tables of docs/metrics.md.
fn documented() -> BTreeMap<String, Row> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let text = fs::read_to_string(path).unwrap();
    let row = |line: &str| {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        // Other tables have other numbers of columns.
        let [name, kind, labels, meaning] = cells[..] else { return None };
        let name = name.strip_prefix('`')?.strip_suffix('`')?.to_owned();
        let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.is_empty()).collect();
        Some((name, Row { kind: kind.to_owned(), labels, meaning: meaning.to_owned() }))
    };
    let rows = text.lines().filter_map(row);
    let count = rows.clone().count();
    let rows: BTreeMap<_, _> = rows.collect();
    assert_eq!(rows.len(), count, "a family is documented twice");
    rows
}

#[tokio::test]
async fn the_catalogue_is_what_is_exported() {
    let (server, _script, http) = start().await;
    http.get("/healthz").await;
    let scrape = Scrape::of(&http).await;
    let exported: BTreeMap<String, Row> = scrape
        .0
        .iter()
        .map(|(name, family)| {
            let labels = family.labels().into_iter().map(str::to_owned).collect();
            (name.clone(), Row { kind: family.kind.clone(), labels, meaning: family.help.clone() })
        })
        .collect();
    let documented = documented();
    for (name, row) in &exported {
        assert_eq!(documented.get(name), Some(row), "docs/metrics.md on {name}");
    }
    let missing: Vec<_> = documented.keys().filter(|name| !exported.contains_key(*name)).collect();
    assert!(missing.is_empty(), "documented and not exported: {missing:?}");
    server.stop().await;
}

#[tokio::test]
async fn the_names_that_clients_may_rely_on_are_there() {
    let (server, _script, http) = start().await;
    http.get("/healthz").await;
    let scrape = Scrape::of(&http).await;
    let labels = |name: &str| scrape.0.get(name).map(|family| family.labels().into_iter().collect::<Vec<_>>());
    for (name, expected) in [
        ("rejoin_connections", &["transport"][..]),
        ("rejoin_channels", &["kind"]),
        ("rejoin_deliveries_total", &[]),
        ("rejoin_events_appended_total", &[]),
        ("rejoin_append_seconds", &[]),
        ("rejoin_replays_total", &["mode"]),
        ("rejoin_turns", &["status"]),
        ("rejoin_turns_ended_total", &["reason", "status"]),
        ("rejoin_nodes", &["state"]),
        ("rejoin_lease_renew_seconds", &[]),
        ("rejoin_slow_consumers_total", &[]),
        ("rejoin_bus_gaps_repaired_total", &[]),
        ("rejoin_http_requests_total", &["route", "status"]),
    ] {
        assert_eq!(labels(name).as_deref(), Some(expected), "{name}");
    }
    server.stop().await;
}

#[tokio::test]
async fn openmetrics_is_sent_to_those_who_accept_it_and_says_the_same() {
    let (server, _script, http) = start().await;
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5";
    let open = http.ask(reqwest::Method::GET, "/metrics", &[("accept", accept)], "").await;
    assert_eq!(open.kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(
        open.body.ends_with("# EOF\n") && open.body.contains("# TYPE rejoin_deliveries counter\n"),
        "{}",
        open.body
    );
    let older = open.body.replace("# EOF\n", "");
    let counter = |line: &str| line.ends_with(" counter").then(|| line.split(' ').nth(2).unwrap().to_owned());
    let counters: Vec<String> = older.lines().filter_map(counter).collect();
    let rename = |text: String, name: &String| {
        text.replace(&format!("# HELP {name} "), &format!("# HELP {name}_total "))
            .replace(&format!("# TYPE {name} "), &format!("# TYPE {name}_total "))
    };
    let open = Scrape::read(&counters.iter().fold(older, rename));
    let plain = Scrape::of(&http).await;
    assert_eq!(open.0.keys().collect::<Vec<_>>(), plain.0.keys().collect::<Vec<_>>());
    server.stop().await;
}

#[tokio::test]
async fn connections_channels_and_deliveries_are_counted() {
    let (server, _script, http) = start().await;
    let address = server.server.address();
    let websocket = Form { transport: Transport::WebSocket, version: Version::V2 };
    let mut ada = TestClient::open(address, websocket, "").await;
    let mut bo = TestClient::open(address, Form { transport: Transport::LongPoll, ..websocket }, "").await;
    ada.join("room:r", json!({})).await;
    bo.join("room:r", json!({})).await;
    let cleo = SessionClient::join_at(&server, "cleo", "s").await;
    let scrape = Scrape::of(&http).await;
    let before = scrape.value("rejoin_deliveries_total", &[]);
    for (name, label, value, count) in [
        ("rejoin_connections", "transport", "websocket", 2.0),
        ("rejoin_connections", "transport", "longpoll", 1.0),
        ("rejoin_channels", "kind", "room", 2.0),
        ("rejoin_channels", "kind", "session", 1.0),
    ] {
        assert_eq!(scrape.value(name, &[(label, value)]), count, "{name} {value}");
    }
    assert_eq!((scrape.value("rejoin_topics", &[]), scrape.value("rejoin_presence_topics", &[])), (2.0, 2.0));
    ada.push("room:r", "hello", json!({})).await;
    Scrape::until(&http, "a delivery", |scrape| scrape.value("rejoin_deliveries_total", &[]) > before).await;
    drop((ada, cleo));
    Scrape::until(&http, "the sockets to be gone", |scrape| {
        scrape.value("rejoin_connections", &[("transport", "websocket")]) == 0.0
            && scrape.value("rejoin_channels", &[("kind", "session")]) == 0.0
            && scrape.value("rejoin_channels", &[("kind", "room")]) == 1.0
    })
    .await;
    server.stop().await;
}

#[tokio::test]
async fn joins_are_counted_by_what_they_were_given() {
    let (server, _script, http) = start().await;
    let mut client = SessionClient::join_at(&server, "ada", "s").await;
    client.ok("send", json!({ "text": "hi", "answer": false })).await;
    client.until("the message", |client| client.view.last_seq == 1).await;
    client.return_to(&server.ws("ada")).await;
    SessionClient::join_with(&server.ws("bo"), "s", json!({ "last_seq": 9, "epoch": client.view.epoch })).await;
    let scrape = Scrape::of(&http).await;
    let given = |mode| scrape.value("rejoin_replays_total", &[("mode", mode)]);
    assert_eq!((given("replay"), given("snapshot")), (1.0, 2.0));
    let because = |reason| scrape.value("rejoin_snapshots_total", &[("reason", reason)]);
    assert_eq!((because("first_join"), because("cursor_ahead"), because("trimmed")), (1.0, 1.0, 0.0));
    assert_eq!(scrape.value("rejoin_join_seconds_count", &[]), 3.0);
    server.stop().await;
}

/// How often turns have ended in each way.
fn ends(scrape: &Scrape) -> BTreeMap<(&str, &str), f64> {
    let ways = [("completed", ""), ("failed", "timeout"), ("failed", "other"), ("cancelled", "user")];
    let more = [("cancelled", "owner_gone"), ("cancelled", "superseded"), ("cancelled", "shutdown")];
    let count = |(status, reason)| scrape.value("rejoin_turns_ended_total", &[("status", status), ("reason", reason)]);
    ways.into_iter().chain(more).map(|way| (way, count(way))).filter(|(_, count)| *count > 0.0).collect()
}

#[tokio::test]
async fn turns_are_counted_as_they_wait_run_and_end() {
    let (server, mut script, http) = start().await;
    let mut client = SessionClient::join_at(&server, "ada", "s").await;
    let first = client.send("one").await;
    let second = client.send("two").await;
    let third = client.send("three").await;
    let turn = script.turn().await;
    turn.say("well").await;
    let answers = |client: &SessionClient| client.answer_of(&first["turn_id"]).is_some_and(|text| text == "well");
    client.until("the first word", answers).await;
    let scrape = Scrape::of(&http).await;
    let turns = |scrape: &Scrape, status| scrape.value("rejoin_turns", &[("status", status)]);
    assert_eq!((turns(&scrape, "running"), turns(&scrape, "queued")), (1.0, 2.0));
    assert!(scrape.value("rejoin_oldest_running_seconds", &[]) > 0.0);
    assert!(scrape.find("rejoin_oldest_queued_seconds", &[]).is_some());
    assert_eq!(scrape.value("rejoin_turn_first_output_seconds_count", &[("agent", "script")]), 1.0);
    assert_eq!(scrape.value("rejoin_turns_started_total", &[]), 1.0);
    turn.done().await;
    client.end_of(&first["turn_id"]).await;
    script.turn().await.fail("a_code_of_its_own").await;
    client.end_of(&second["turn_id"]).await;
    let _held = script.turn().await;
    client.ok("cancel", json!({ "turn_id": third["turn_id"] })).await;
    let over = |scrape: &Scrape| scrape.value("rejoin_turn_seconds_count", &[("agent", "script")]) == 3.0;
    let scrape = Scrape::until(&http, "the runners' ends", over).await;
    assert_eq!((turns(&scrape, "running"), turns(&scrape, "queued")), (0.0, 0.0));
    assert_eq!(scrape.value("rejoin_oldest_running_seconds", &[]), 0.0);
    let expected = [(("completed", ""), 1.0), (("failed", "other"), 1.0), (("cancelled", "user"), 1.0)];
    assert_eq!(ends(&scrape), BTreeMap::from(expected));
    let events = scrape.value("rejoin_events_appended_total", &[]);
    client.until("everything", |client| client.view.last_seq as f64 == events).await;
    let batches = scrape.value("rejoin_append_seconds_count", &[]);
    assert!(batches > 3.0 && scrape.value("rejoin_append_batch_items_count", &[]) == batches, "{batches}");
    server.stop().await;
}

#[tokio::test]
async fn an_interrupted_turn_is_counted_as_superseded() {
    let (server, mut script, http) = start().await;
    let mut client = SessionClient::join_at(&server, "ada", "s").await;
    let interrupted = client.send("one").await;
    let _held = script.turn().await;
    client.ok("send", json!({ "text": "two", "when_busy": "interrupt" })).await;
    client.end_of(&interrupted["turn_id"]).await;
    assert_eq!(ends(&Scrape::of(&http).await), BTreeMap::from([(("cancelled", "superseded"), 1.0)]));
    server.stop().await;
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path() {
    let (server, _script, http) = start().await;
    http.post("/api/sessions", &json!({ "id": "secret-name" })).await.ok(201);
    http.get("/api/sessions/secret-name").await.ok(200);
    http.get("/api/sessions/unknown-name").await.refuses(404, "not_found");
    http.get("/no/such/path").await.refuses(404, "not_found");
    http.ask(reqwest::Method::DELETE, "/healthz", &[], "").await;
    let mut client = TestClient::connect(server.ws("ada").as_str()).await;
    client.heartbeat().await;
    let scrape = Scrape::of(&http).await;
    let count = |route, status| scrape.value("rejoin_http_requests_total", &[("route", route), ("status", status)]);
    for (route, status) in [
        ("/api/sessions", "201"),
        ("/api/sessions/{id}", "200"),
        ("/api/sessions/{id}", "404"),
        ("none", "404"),
        ("/healthz", "405"),
        ("/socket/websocket", "101"),
    ] {
        assert_eq!(count(route, status), 1.0, "{route} {status}");
    }
    let text = http.get("/metrics").await.body;
    for private in ["secret-name", "unknown-name", "no/such", "ada"] {
        assert!(!text.contains(private), "{private} in\n{text}");
    }
    assert_eq!(
        Scrape::read(&text).value("rejoin_http_requests_total", &[("route", "/metrics"), ("status", "200")]),
        1.0
    );
    server.stop().await;
}

#[tokio::test]
async fn a_node_alone_is_ready_and_shows_its_lease() {
    let (server, _script, http) = start().await;
    let renewed = |scrape: &Scrape| scrape.value("rejoin_lease_renew_seconds_count", &[]) >= 1.0;
    let scrape = Scrape::until(&http, "a renewal", renewed).await;
    for (name, labels, value) in [
        ("rejoin_nodes", &[("state", "live")][..], 1.0),
        ("rejoin_nodes", &[("state", "dead")], 0.0),
        ("rejoin_ready", &[], 1.0),
        ("rejoin_lease_failures_total", &[], 0.0),
        ("rejoin_bus", &[("state", "alone")], 1.0),
        ("rejoin_bus", &[("state", "away")], 0.0),
        ("rejoin_build_info", &[("version", env!("CARGO_PKG_VERSION")), ("store", "sqlite")], 1.0),
    ] {
        assert_eq!(scrape.value(name, labels), value, "{name} {labels:?}");
    }
    assert!(scrape.value("rejoin_lease_age_seconds", &[]) < 6.0);
    assert!(scrape.value("process_resident_memory_bytes", &[]) > 1e6);
    assert!(scrape.value("process_open_fds", &[]) > 3.0);
    server.stop().await;
}
