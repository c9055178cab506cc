//! Sessions over HTTP: every route, its status codes and the shape of its answers.

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    client::SessionClient,
    http::{Http, keys},
    process::Process,
    server::TestServer,
    ws::within,
};

async fn start() -> (TestServer, crate::support::script::Script, Http) {
    let (server, script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    (server, script, http)
}

fn ids(list: &Value) -> Vec<&str> {
    list["sessions"].as_array().unwrap().iter().map(|session| session["id"].as_str().unwrap()).collect()
}

/// Waits until a session has this status, as anybody reads it.
async fn until_status(http: &Http, session: &str, status: &str) {
    let path = format!("/api/sessions/{session}");
    within(status, async { while http.get(&path).await.ok(200)["session"]["status"] != status {} }).await;
}

#[tokio::test]
async fn the_page_and_the_health_routes_answer() {
    let (server, _script, http) = start().await;
    let page = http.get("/").await;
    assert_eq!((page.status, page.kind.split(';').next()), (200, Some("text/html")));
    assert!(page.body.contains("<html") && page.body.contains("/app.js"));
    assert_eq!(http.get("/app.js").await.status, 200);
    http.get("/healthz").await.ok(200);
    assert_eq!(http.get("/readyz").await.ok(200)["ready"], true);
    assert_eq!(http.ask(Method::HEAD, "/healthz", &[], "").await.status, 200);
    server.stop().await;
}

#[tokio::test]
async fn a_session_is_created_once_with_what_it_was_asked_for() {
    let (server, _script, http) = start().await;
    let asked = json!({ "id": "s", "title": "Plans", "metadata": { "a": 1 }, "max_running": 3 });
    let made = http.post("/api/sessions", &asked).await.ok(201);
    assert_eq!(keys(&made), ["session", "turns"]);
    let session = &made["session"];
    assert_eq!((&session["id"], &session["title"], &session["last_seq"]), (&"s".into(), &"Plans".into(), &0.into()));
    assert_eq!((&session["metadata"], &session["max_running"]), (&json!({ "a": 1 }), &3.into()));
    assert_eq!((&session["status"], &made["turns"]), (&"idle".into(), &json!([])));
    http.post("/api/sessions", &asked).await.refuses(409, "conflict");
    http.post("/api/sessions", &json!({ "id": "s" })).await.refuses(409, "conflict");
    assert_eq!(http.get("/api/sessions/s").await.ok(200), made);
    let joined = SessionClient::join(&server.ws("ada"), "s").await.joined;
    assert_eq!(joined["session"], *session, "one that is joined is the same");
    http.post("/api/sessions", &json!({ "id": "s" })).await.refuses(409, "conflict");
    let named = http.post("/api/sessions", &json!({})).await.ok(201);
    assert!(named["session"]["id"].as_str().is_some_and(|id| id.len() > 20), "{named}");
    assert_eq!((&named["session"]["title"], &named["session"]["max_running"]), (&Value::Null, &1.into()));
    http.get("/api/sessions/none").await.refuses(404, "not_found");
    http.get("/api/sessions/none/messages").await.refuses(404, "not_found");
    http.get("/api/sessions/none/events").await.refuses(404, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn a_send_makes_the_session_and_speaks_for_the_user_that_it_names() {
    let (server, mut script, http) = start().await;
    let path = "/api/sessions/new/messages?user_id=u%201&name=Ada%20L.";
    let sent = http.post(path, &json!({ "id": "m", "text": "Hello?" })).await.ok(202);
    assert_eq!(keys(&sent), ["duplicate", "message_id", "seq", "turn_id"]);
    assert_eq!((&sent["message_id"], &sent["seq"], &sent["duplicate"]), (&"m".into(), &1.into(), &false.into()));
    let turn = script.turn().await;
    turn.say("Good morning").await;
    let running = http.get("/api/sessions/new").await.ok(200);
    assert_eq!((&running["session"]["status"], &running["turns"][0]["id"]), (&"running".into(), &sent["turn_id"]));
    assert_eq!(running["turns"][0]["by"], json!({ "id": "u 1", "name": "Ada L." }));
    turn.done().await;
    until_status(&http, "new", "idle").await;
    let mut again = http.post(path, &json!({ "id": "m", "text": "Hello?" })).await.ok(202);
    assert_eq!(again["duplicate"].take(), json!(true));
    assert_eq!((&again["turn_id"], &again["seq"]), (&sent["turn_id"], &sent["seq"]));
    let messages = http.get("/api/sessions/new/messages").await.ok(200);
    assert_eq!(keys(&messages), ["before", "ended", "has_more", "messages"]);
    assert_eq!(messages["messages"][0]["author"], json!({ "id": "u 1", "name": "Ada L." }));
    assert_eq!(messages["messages"][1]["parts"], json!([{ "kind": "text", "text": "Good morning" }]));
    assert_eq!(messages["ended"][0]["id"], sent["turn_id"]);
    // Without a name the id is shown; without an id, a random one.
    http.post("/api/sessions/new/messages?user_id=u2", &json!({ "text": "a", "answer": false })).await.ok(202);
    http.post("/api/sessions/new/messages", &json!({ "text": "b", "answer": false })).await.ok(202);
    let messages = http.get("/api/sessions/new/messages?limit=2").await.ok(200)["messages"].clone();
    assert_eq!(messages[0]["author"], json!({ "id": "u2", "name": "u2" }));
    assert!(messages[1]["author"]["id"].as_str().is_some_and(|id| id.starts_with("guest-")), "{messages}");
    server.stop().await;
}

#[tokio::test]
async fn no_cache_keeps_what_somebody_may_read() {
    let (server, _script, http) = start().await;
    http.post("/api/sessions", &json!({ "id": "s" })).await.ok(201);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/api/sessions", "/api/sessions/s", "/api/sessions/s/events", "/api/sessions/none", "/api/nodes"] {
        let answer = within("an answer", client.get(server.http(path)).send()).await.unwrap();
        assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn busy_and_full_sessions_refuse_with_their_codes() {
    let (server, _script) = TestServer::start_with(|config| config.max_queue = 1).await;
    let http = Http::new(&server.http("/"));
    let path = "/api/sessions/s/messages";
    http.post(path, &json!({ "text": "one" })).await.ok(202);
    http.post(path, &json!({ "text": "now", "when_busy": "reject" })).await.refuses(409, "busy");
    http.post(path, &json!({ "text": "two" })).await.ok(202);
    http.post(path, &json!({ "text": "three" })).await.refuses(429, "queue_full");
    server.stop().await;
}

#[tokio::test]
async fn turns_are_cancelled_and_retried_as_over_the_socket() {
    let (server, mut script, http) = start().await;
    let id = http.post("/api/sessions/s/messages", &json!({ "text": "a" })).await.ok(202)["turn_id"].clone();
    let path = |action: &str| format!("/api/sessions/s/turns/{}/{action}", id.as_str().unwrap());
    let turn = script.turn().await;
    let same = http.post(&path("retry"), &json!({})).await.ok(202);
    assert_eq!(same, json!({ "turn_id": id, "attempt": 1, "duplicate": true }));
    let cancelled = http.post(&path("cancel"), &json!({})).await.ok(200);
    assert_eq!(cancelled, json!({ "outcome": "cancelled", "status": "cancelled", "reason": "user" }));
    turn.dropped().await;
    let again = http.post(&path("cancel"), &json!({})).await.ok(200);
    assert_eq!(again, json!({ "outcome": "already_ended", "status": "cancelled", "reason": "user" }));
    let retried = http.post(&path("retry"), &json!({})).await.ok(202);
    assert_eq!((keys(&retried), &retried["attempt"]), (vec!["attempt", "duplicate", "turn_id"], &2.into()));
    script.turn().await.done().await;
    until_status(&http, "s", "idle").await;
    http.post("/api/sessions/s/turns/none/cancel", &json!({})).await.refuses(404, "not_found");
    server.stop().await;
}

#[tokio::test]
async fn the_list_shows_filters_and_pages() {
    let (server, mut script, http) = start().await;
    assert_eq!(http.get("/api/sessions").await.ok(200), json!({ "sessions": [], "cursor": null }));
    for number in 0..25 {
        http.post("/api/sessions", &json!({ "id": format!("a_{number}"), "title": format!("No. {number}") }))
            .await
            .ok(201);
    }
    for id in ["ab1", "A_1", "b%"] {
        let answer = http.post("/api/sessions", &json!({ "id": id })).await;
        assert_eq!(answer.status, if id == "b%" { 400 } else { 201 });
    }
    let sent = http.post("/api/sessions/ab1/messages?user_id=ada", &json!({ "text": "a" })).await.ok(202);
    let turn = script.turn().await;
    let queued = http.post("/api/sessions/ab1/messages?user_id=ben", &json!({ "text": "b" })).await.ok(202);
    // The newest first, each once, whatever the size of the pages.
    for limit in [1, 7, 26, 27, 100] {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let page = http.get(&format!("/api/sessions?limit={limit}{cursor}")).await.ok(200);
            assert_eq!(keys(&page), ["cursor", "sessions"]);
            found.extend(page["sessions"].as_array().unwrap().iter().cloned());
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        let mut unique: Vec<&Value> = found.iter().map(|session| &session["id"]).collect();
        unique.dedup();
        assert_eq!((found.len(), unique.len()), (27, 27), "with limit {limit}");
        let times: Vec<&str> = found.iter().map(|session| session["updated_at"].as_str().unwrap()).collect();
        assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    }
    let list = http.get("/api/sessions").await.ok(200);
    let summary = &list["sessions"][0];
    assert_eq!(keys(summary), ["id", "last_seq", "running", "status", "title", "updated_at"]);
    let by = json!({ "id": "ada", "name": "ada" });
    let running = json!([{ "turn_id": sent["turn_id"], "agent": "script", "by": by, "liveness": "alive" }]);
    assert_eq!((&summary["id"], &summary["status"], &summary["running"]), (&"ab1".into(), &"running".into(), &running));
    assert_eq!(summary["last_seq"], 4);
    // A prefix is letters as they are, no pattern.
    assert_eq!(ids(&http.get("/api/sessions?prefix=a_&limit=500").await.ok(200)).len(), 25);
    assert_eq!(ids(&http.get("/api/sessions?prefix=ab").await.ok(200)), ["ab1"]);
    assert_eq!(ids(&http.get("/api/sessions?prefix=A").await.ok(200)), ["A_1"]);
    assert_eq!(ids(&http.get("/api/sessions?prefix=%25").await.ok(200)), [""; 0]);
    assert_eq!(ids(&http.get("/api/sessions?status=running").await.ok(200)), ["ab1"]);
    assert_eq!(ids(&http.get("/api/sessions?status=queued").await.ok(200)), [""; 0]);
    assert_eq!(ids(&http.get("/api/sessions?status=idle&limit=500").await.ok(200)).len(), 26);
    assert_eq!(ids(&http.get("/api/sessions?status=idle&prefix=ab").await.ok(200)), [""; 0]);
    turn.done().await;
    script.turn().await.done().await;
    assert_ne!(queued["turn_id"], sent["turn_id"]);
    until_status(&http, "ab1", "idle").await;
    assert_eq!(ids(&http.get("/api/sessions?status=running").await.ok(200)), [""; 0]);
    server.stop().await;
}

#[tokio::test]
async fn events_are_read_page_by_page_from_any_place() {
    let (server, mut script, http) = start().await;
    let mut ada = SessionClient::join(&server.ws("ada"), "s").await;
    for number in 0..120 {
        ada.ok("send", json!({ "id": number.to_string(), "text": "x", "answer": false })).await;
    }
    ada.until("all of it", |ada| ada.view.last_seq == 120).await;
    for limit in [None, Some(1), Some(7), Some(500)] {
        let mut found = Vec::new();
        loop {
            let after = found.last().map_or(0, |event: &Value| event["seq"].as_u64().unwrap());
            let limited = limit.map_or_else(String::new, |limit| format!("&limit={limit}"));
            let page = http.get(&format!("/api/sessions/s/events?after={after}{limited}")).await.ok(200);
            assert_eq!((keys(&page), &page["last_seq"]), (vec!["epoch", "events", "last_seq"], &120.into()));
            let events = page["events"].as_array().unwrap().clone();
            assert!(events.len() <= limit.unwrap_or(100));
            if events.is_empty() {
                break;
            }
            found.extend(events);
        }
        assert_eq!(found, ada.events, "with limit {limit:?}");
    }
    let epoch = ada.view.epoch.clone();
    let page = http.get(&format!("/api/sessions/s/events?after=119&epoch={epoch}")).await.ok(200);
    assert_eq!((&page["events"][0]["seq"], &page["epoch"]), (&120.into(), &epoch.into()));
    http.get("/api/sessions/s/events?after=119&epoch=another").await.refuses(409, "conflict");
    http.get("/api/sessions/s/events?epoch=").await.refuses(409, "conflict");
    // From the start without `after`; what has ended comes without its deltas.
    let id = ada.send("and?").await["turn_id"].clone();
    let turn = script.turn().await;
    turn.say("a word").await;
    ada.until("a word", |ada| ada.answer_of(&id).as_deref() == Some("a word")).await;
    let kinds = |page: &Value| -> Vec<String> {
        page["events"].as_array().unwrap().iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    };
    let page = http.get("/api/sessions/s/events?after=120").await.ok(200);
    assert_eq!(kinds(&page), ["message_added", "turn_started", "turn_delta"]);
    turn.done().await;
    ada.end_of(&id).await;
    let page = http.get("/api/sessions/s/events?after=120").await.ok(200);
    assert_eq!(kinds(&page), ["message_added", "turn_started", "turn_completed"]);
    assert_eq!(http.get("/api/sessions/s/events").await.ok(200)["events"][0]["seq"], 1);
    server.stop().await;
}

#[tokio::test]
async fn messages_are_read_backwards_page_by_page() {
    let (server, mut script, http) = start().await;
    for number in 0..25 {
        let body = json!({ "id": format!("m{number}"), "text": "x", "answer": false });
        http.post("/api/sessions/s/messages", &body).await.ok(202);
    }
    let (mut found, mut query) = (Vec::new(), String::new());
    loop {
        let page = http.get(&format!("/api/sessions/s/messages?limit=10{query}")).await.ok(200);
        let ids = page["messages"].as_array().unwrap().iter().map(|message| message["id"].as_str().unwrap().to_owned());
        found.splice(0..0, ids);
        query = format!("&before={}", page["before"]);
        if page["has_more"] == false {
            break;
        }
    }
    assert_eq!(found, (0..25).map(|number| format!("m{number}")).collect::<Vec<_>>());
    // An answer is among them when it is whole.
    http.post("/api/sessions/s/messages", &json!({ "id": "asked", "text": "a" })).await.ok(202);
    let turn = script.turn().await;
    turn.say("half").await;
    let newest = http.get("/api/sessions/s/messages?limit=1").await.ok(200);
    assert_eq!(newest["messages"][0]["id"], "asked");
    turn.done().await;
    until_status(&http, "s", "idle").await;
    let newest = http.get("/api/sessions/s/messages?limit=1").await.ok(200);
    assert_eq!(newest["messages"][0]["role"], "assistant");
    server.stop().await;
}

#[tokio::test]
async fn nothing_shows_a_turn_as_running_whose_server_was_killed() {
    let folder = TempDir::new().unwrap();
    let first = Process::start(folder.path(), &["--echo-delay", "1m"]).await;
    let http = Http::new(&first.http("/"));
    let sent = http.post("/api/sessions/s/messages", &json!({ "text": "a b c" })).await.ok(202);
    http.post("/api/sessions/s/messages", &json!({ "id": "next", "text": "d" })).await.ok(202);
    assert_eq!(ids(&http.get("/api/sessions?status=running").await.ok(200)), ["s"]);
    first.kill().await;
    let second = Process::start(folder.path(), &["--echo-delay", "0ms"]).await;
    let http = Http::new(&second.http("/"));
    let list = http.get("/api/sessions").await.ok(200);
    let running = list["sessions"][0]["running"].as_array().unwrap();
    assert!(running.iter().all(|turn| turn["turn_id"] != sent["turn_id"]), "{list}");
    let events = http.get("/api/sessions/s/events").await.ok(200);
    let ends: Vec<&Value> =
        events["events"].as_array().unwrap().iter().filter(|event| event["turn_id"] == sent["turn_id"]).collect();
    let end = ends.last().unwrap();
    assert_eq!((&end["type"], &end["data"]["reason"]), (&"turn_cancelled".into(), &"owner_gone".into()));
    // What waited runs now.
    until_status(&http, "s", "idle").await;
    let messages = http.get("/api/sessions/s/messages?limit=1").await.ok(200);
    assert_eq!(messages["messages"][0]["parts"][0]["text"], "You said: d");
}
