//! What the server logs at its most talkative, and what it never does.

use std::fs::File;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD as BASE64URL};
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::support::{
    backend::{Backend, Language, SECRET},
    client::SessionClient,
    form::Version,
    jwt,
    nats::NatsServer,
    poll::Poller,
    process::{Process, command},
    upstream::{Script, Upstream},
    ws::{TestClient, within},
};

/// Begins everything that must be in no line.
const MARKER: &str = "MARKER";

/// A server that logs everything into a file, as JSON.
async fn server(folder: &TempDir, args: &[&str]) -> Process {
    let log = File::create(folder.path().join("log")).unwrap();
    let mut command = command(folder.path());
    command.stderr(log).args(["--listen", "127.0.0.1:0", "--node-name", "n1"]);
    command.args(["--log-level", "trace", "--log-format", "json"]).args(args);
    Process::spawn(command).await
}

/// Ends the server: the lines that it logged, as they are and as they are read.
async fn lines(folder: &TempDir, mut server: Process) -> (String, Vec<Value>) {
    server.signal("TERM").await;
    assert!(server.ended().await.success());
    let text = std::fs::read_to_string(folder.path().join("log")).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}")));
    let lines = lines.collect();
    (text, lines)
}

/// One line of the log by its message.
fn find<'a>(lines: &'a [Value], message: &str) -> &'a Value {
    lines.iter().find(|line| line["message"] == message).unwrap_or_else(|| panic!("no line says {message:?}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_name_session_turn_and_node_and_hold_neither_texts_nor_tokens() {
    let (folder, backend, nats) = (TempDir::new().unwrap(), Backend::start(Language::Node).await, NatsServer::start());
    let failing = r#"{"kind":"error","code":"quota","message":"MARKER-error"}"#;
    let failing = Upstream::start(Script::body(200, "application/x-ndjson", failing)).await;
    let url = backend.url.replace("http://", "http://user:MARKER-password@");
    let bus = nats.url().replace("nats://", "nats://user:MARKER-bus@");
    let file = format!(
        "[agents.failing]\ntype = \"openai\"\nbase-url = {:?}\nmodel = \"m\"\napi-key = \"MARKER-key\"\n\
         [agents.quota]\ntype = \"http\"\nurl = {:?}\nsecret = \"MARKER-secret\"\n",
        failing.base_url(),
        failing.base_url()
    );
    std::fs::write(folder.path().join("rejoin.toml"), file).unwrap();
    let args = ["--agent", "http", "--http-agent-url", &url, "--http-agent-secret", SECRET, "--bus", &bus];
    let server = server(&folder, &args).await;

    let mut request = format!("{}&token=MARKER-param", server.ws("ada")).into_client_request().unwrap();
    let protocols = "phoenix, base64url.bearer.phx.TUFSS0VSLXN1YnByb3RvY29s".parse().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", protocols);
    request.headers_mut().insert("cookie", "session=MARKER-cookie".parse().unwrap());
    let mut raw = TestClient::connect(request).await;
    raw.frame(json!(["1", "1", "session:raw", "phx_join", { "presence": { "mood": "MARKER-mood" } }])).await;
    raw.frame(json!(["1", "2", "session:raw", "MARKER-event", { "text": "MARKER-unknown" }])).await;
    raw.frame(json!(["1", "3", "session:raw", "send", { "text": ["MARKER-type"] }])).await;
    raw.frame(json!(["1", "4", "session:raw", "broadcast", { "event": "typing", "payload": "MARKER-typing" }])).await;
    raw.frame(json!("MARKER-no-frame")).await;

    let mut ada = SessionClient::join(&server.ws("ada"), "plans").await;
    ada.ok("update", json!({ "title": "MARKER-title", "metadata": { "k": "MARKER-metadata" } })).await;
    let told = ada.send("MARKER-text").await["turn_id"].clone();
    assert_eq!(ada.end_of(&told).await, "completed");
    assert!(ada.answer_of(&told).unwrap().contains("MARKER-text"), "the agent says it too");
    for agent in ["failing", "quota"] {
        let turn = ada.ok("send", json!({ "text": "MARKER-again", "agent": agent })).await["turn_id"].clone();
        assert_eq!(ada.end_of(&turn).await, "failed");
    }
    let asked = ada.events.last().unwrap()["data"]["error"]["message"].clone();
    assert_eq!(asked, "MARKER-error", "people are shown it");

    let polled = format!("{}&token=MARKER-polled", server.http("/socket/longpoll?vsn=2.0.0"));
    if let Ok(mut poller) = within("a session", Box::pin(Poller::open(&polled, Version::V2))).await {
        poller.post(json!(["1", "1", "session:plans", "phx_join", {}]).to_string()).await;
    }
    for (body, status) in [(r#"{"text":"MARKER-http"}"#, 202), (r#"{"text":"MARKER-broken"#, 400)] {
        let request = Client::new().post(server.http("/api/sessions/plans/messages?token=MARKER-query"));
        let request = request.bearer_auth("MARKER-bearer").header("content-type", "application/json").body(body);
        assert_eq!(request.send().await.unwrap().status().as_u16(), status);
    }
    let last = ada.events.len();
    ada.until("the answer to the request", |ada| ada.types()[last..].contains(&"turn_completed")).await;

    let (text, lines) = lines(&folder, server).await;
    let failed = find(&lines, "a turn failed");
    assert_eq!(
        (&failed["session"], &failed["node"], &failed["agent"]),
        (&json!("plans"), &json!("n1"), &json!("failing"))
    );
    assert_eq!(failed["level"], "WARN");
    assert!(lines.iter().any(|line| line["message"] == "a turn failed" && line["code"] == "quota"));
    let answered = find(&lines, "a turn has had its answer");
    assert_eq!(
        (&answered["session"], &answered["turn"], &answered["status"]),
        (&json!("plans"), &told, &json!("completed"))
    );
    assert!(lines.iter().any(|line| line["level"] == "TRACE"), "the most talkative level is on");
    let leak = text.lines().find(|line| line.contains(MARKER) || line.contains(SECRET) || line.contains("TUFSS0VS"));
    assert_eq!(leak, None, "a line holds what nobody may read there");
    let hex: String = MARKER.bytes().map(|byte| format!("{byte:02x}")).collect();
    assert!(!text.to_lowercase().contains(&hex), "a line holds it in hexadecimal");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_part_of_a_token_is_logged_wherever_it_comes_from_and_whatever_becomes_of_it() {
    let folder = TempDir::new().unwrap();
    let server = server(&folder, &["--auth", "jwt", "--jwt-secret", jwt::SECRET]).await;
    let rights = || json!({"session:*": "write", "sessions": "read"});
    let mut used = Vec::new();
    let mut token = |sub: &str, topics: Value| {
        used.push(jwt::token(sub, topics));
        used.last().unwrap().clone()
    };
    let at = |path: &str| server.http(path);
    let socket = at("/socket/websocket?vsn=2.0.0").replace("http://", "ws://");
    let mut ada = SessionClient::join(&format!("{socket}&token={}", token("ada", rights())), "plans").await;
    ada.ok("access_token", json!({ "token": token("ada", json!({"session:plans": "write"})) })).await;
    for refused in [token("ben", rights()), format!("{}x", token("ada", rights()))] {
        assert_eq!(ada.refused("access_token", json!({ "token": refused })).await, "unauthorized");
    }
    let mut request = socket.clone().into_client_request().unwrap();
    let protocol = format!("phoenix, base64url.bearer.phx.{}", BASE64URL.encode(token("eve", rights())));
    request.headers_mut().insert("sec-websocket-protocol", protocol.parse().unwrap());
    drop(TestClient::connect(request).await);
    let polled = format!("{}&token={}", at("/socket/longpoll?vsn=2.0.0"), token("eve", rights()));
    drop(within("a session", Box::pin(Poller::open(&polled, Version::V2))).await.unwrap());
    for (token, status) in
        [(token("eve", rights()), 200), (token("eve", json!({})), 403), (token("agent:x", rights()), 401)]
    {
        let asked = Client::new().get(at("/api/sessions/plans")).bearer_auth(&token).send().await.unwrap();
        assert_eq!(asked.status().as_u16(), status);
        let asked = Client::new().get(at(&format!("/api/sessions/plans?token={token}"))).send().await.unwrap();
        assert_eq!(asked.status().as_u16(), status);
        let url = at(&format!("/api/sessions/plans/events?token={token}"));
        let asked = Client::new().get(url).header("accept", "text/event-stream").send().await.unwrap();
        assert_eq!(asked.status().as_u16(), status);
        let url = at(&format!("/socket/websocket?vsn=2.0.0&token={token}"));
        Client::new().get(url).send().await.unwrap();
    }
    let (text, lines) = lines(&folder, server).await;
    assert!(lines.iter().any(|line| line["why"] == "claims"), "refusals are logged, and why");
    for token in used {
        let parts = token.split('.').skip(1);
        for part in parts {
            let encoded = BASE64URL.encode(part);
            let leak = text.lines().find(|line| line.contains(part) || line.contains(&encoded[..20]));
            assert_eq!(leak, None, "a line holds a part of a token");
        }
    }
    assert!(!text.contains(jwt::SECRET));
}
