//! The agent that asks a user's own backend, against one that does everything that backends do.

use std::time::Duration;

use futures::StreamExt;
use rejoin::{
    agent::{Agent, Http, Output, Secret, http::Options},
    config::Config,
    model::{Part, TurnError, message::plain_text},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};

use crate::support::{
    client::SessionClient,
    server::TestServer,
    upstream::{LIMIT, Script, Step, Upstream, collect, context},
};

const SECRET: &str = "s3cret-of-both";
const NDJSON: &str = "application/x-ndjson";
const SAID: &str = r#"{"kind":"text","text":"par"}"#;
const DONE: &str = r#"{"kind":"done"}"#;

fn agent(url: String) -> Http {
    Http::new("helper", Options { url, secret: Some(Secret::new(SECRET)), max_messages: None }).unwrap()
}

async fn ask_at(url: String) -> (Vec<Part>, Result<Option<Value>, TurnError>) {
    let agent = agent(url);
    let outcome = timeout(LIMIT, async { collect(agent.answer(context("hi")).await).await }).await.unwrap();
    if let Err(error) = &outcome.1 {
        assert!(!error.message.contains(SECRET), "the secret is shown: {}", error.message);
        assert!(error.message.len() < 700 && error.message.ends_with('.'), "{}", error.message);
    }
    outcome
}

async fn ask(script: Script) -> (Vec<Part>, Result<Option<Value>, TurnError>) {
    let upstream = Upstream::start(script).await;
    ask_at(upstream.base_url()).await
}

fn lines(lines: &[&str]) -> Script {
    Script::body(200, NDJSON, &lines.iter().map(|line| format!("{line}\n")).collect::<String>())
}

#[tokio::test]
async fn the_request_is_signed_and_holds_session_turn_and_messages() {
    let upstream = Upstream::start(Script::events(&[SAID, DONE])).await;
    let url = upstream.base_url();
    ask_at(url.clone()).await.1.unwrap();
    let unsigned = Http::new("helper", Options { url, secret: None, max_messages: None }).unwrap();
    collect(unsigned.answer(context("hi")).await).await.1.unwrap();
    let asked = upstream.asked();
    assert_eq!((asked.len(), asked[0].path.as_str()), (2, "/v1"));
    assert_eq!(asked[0].header("content-type"), Some("application/json"));
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = asked[0].header("x-rejoin-signature").unwrap().to_owned();
    let bytes = |at: usize| u8::from_str_radix(&signature[2 * at..2 * at + 2], 16).unwrap();
    let tag: Vec<u8> = (0..32).map(bytes).collect();
    assert_eq!(signature.len(), 64);
    aws_lc_rs::hmac::verify(&key, &asked[0].bytes, &tag).unwrap();
    assert_eq!(asked[1].header("x-rejoin-signature"), None);
    let body = &asked[0].body;
    assert_eq!((&body["session"]["title"], &body["session"]["metadata"]), (&json!("Plans"), &json!({"k": 1})));
    assert_eq!((&body["turn"]["agent"], &body["turn"]["by"]["name"]), (&json!("helper"), &json!("Ada")));
    assert_eq!(body["messages"][0]["parts"], json!([{"kind": "text", "text": "hi"}]));
}

#[tokio::test]
async fn events_and_lines_are_the_same_answer_however_they_arrive() {
    let said = [
        r#"{"kind":"reasoning","text":"hm"}"#,
        r#"{"kind":"text","text":"Hé"}"#,
        r#"{"kind":"text","text":"llo"}"#,
        r#"{"kind":"data","value":{"n":1}}"#,
        r#"{"kind":"done","usage":{"words":2}}"#,
    ];
    let expected = json!([
        {"kind": "reasoning", "text": "hm"}, {"kind": "text", "text": "Héllo"}, {"kind": "data", "value": {"n": 1}},
    ]);
    let noisy = Script::body(200, "text/event-stream; charset=utf-8", ": ping\n\nevent: x\nid: 1\n\n");
    let noisy = said.iter().fold(noisy, |script, line| {
        script.then(Step::Send(format!("event: line\r\ndata: {line}\r\n\r\n").into_bytes()))
    });
    for script in [
        Script::events(&said),
        Script::events(&said).byte_by_byte(),
        lines(&said),
        lines(&said).byte_by_byte(),
        Script::body(200, "application/jsonl; charset=utf-8", &said.join("\r\n\r\n")),
        noisy,
    ] {
        let (parts, end) = ask(script).await;
        assert_eq!(serde_json::to_value(parts).unwrap(), expected);
        assert_eq!(end, Ok(Some(json!({"words": 2}))));
    }
}

#[tokio::test]
async fn each_refusal_has_its_code_and_says_what_to_do() {
    let error = |message: &str| json!({"error": {"message": message}}).to_string();
    let json = |status, message: &str| Script::body(status, "application/json", &error(message));
    for (script, code, retryable, said) in [
        (
            json(401, "signed with s3cret-of-both"),
            "agent_unauthorized",
            false,
            "(401): signed with ***. Check that the secret",
        ),
        (json(403, "answered before"), "agent_unauthorized", false, "(403): answered before. Check"),
        (
            Script::body(404, "text/html", "<h1>nginx"),
            "agent_bad_request",
            false,
            "refused the request (404). Check that the URL",
        ),
        (json(400, "no such field"), "agent_bad_request", false, "no such field"),
        (json(429, "slow down").header("retry-after", "7"), "agent_rate_limited", true, "Retry after 7 s."),
        (
            Script::body(500, "text/plain", "boom"),
            "agent_error",
            true,
            "failed: boom. Retry; if it happens again, look at the backend's own logs.",
        ),
        (Script::body(502, "text/html", "<html>nginx</html>"), "agent_error", true, "failed. Retry"),
        (
            Script::body(302, "text/plain", "").header("location", "/login"),
            "agent_bad_request",
            false,
            "a redirect (302). Set the URL",
        ),
        (
            Script::body(200, "text/html; charset=utf-8", "<html>"),
            "agent_bad_request",
            false,
            "the content type text/html. Let the backend stream",
        ),
        (Script::body(200, "application/json", DONE), "agent_bad_request", false, "the content type application/json."),
        (Script::body(200, "", DONE), "agent_bad_request", false, "no content type"),
    ] {
        let (parts, end) = ask(script).await;
        let error = end.unwrap_err();
        assert!(parts.is_empty());
        assert_eq!((error.code.as_str(), error.retryable), (code, retryable), "{}", error.message);
        assert!(error.message.contains(said), "{:?} does not say {said:?}", error.message);
        assert!(!error.message.contains("nginx"), "{}", error.message);
    }
}

#[tokio::test]
async fn a_backend_that_cannot_be_reached_is_unavailable() {
    let upstream = Upstream::start(lines(&[DONE])).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let rude = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rude_address = rude.local_addr().unwrap();
    let hang_up = tokio::spawn(async move {
        loop {
            drop(rude.accept().await);
        }
    });
    for (url, said) in [
        (format!("http://{closed}/agent"), "refused"),
        (upstream.base_url().replace("http://", "https://"), "Check that it runs and that the URL is right"),
        (format!("http://{rude_address}/agent"), "cannot be reached"),
        ("http://no-such-host.invalid/agent".to_owned(), "no-such-host.invalid cannot be reached"),
    ] {
        let error = ask_at(url).await.1.unwrap_err();
        assert_eq!((error.code.as_str(), error.retryable), ("agent_unavailable", true), "{}", error.message);
        assert!(error.message.contains(said), "{:?} does not say {said:?}", error.message);
    }
    hang_up.abort();
}

#[tokio::test]
async fn what_came_before_a_failure_in_the_stream_is_kept() {
    let long = format!(r#"{{"kind":"text","text":"{}"}}"#, "x".repeat(2 << 20));
    let own = r#"{"kind":"error","code":"quota","message":"No more today.","retryable":false}"#;
    for (bad, code, retryable, said) in [
        ("<p>oops</p>", "agent_error", true, "sent a line that is not a JSON object with a \"kind\""),
        (r#"{"kind":"message","text":"x"}"#, "agent_error", true, "unknown kind \"message\""),
        (r#"{"kind":"text","part":5,"text":"x"}"#, "agent_error", true, "for part 5 where the next new one is 1"),
        (r#"{"kind":"tool_call"}"#, "agent_error", true, "without \"value\" or \"text\""),
        (long.as_str(), "agent_error", true, "too long"),
        (own, "quota", false, "No more today."),
        (r#"{"kind":"error"}"#, "agent_error", true, "failed and does not say why"),
        ("", "agent_incomplete", true, "without a line of kind done or error"),
    ] {
        for script in [Script::events(&[SAID, bad]), lines(&[SAID, bad])] {
            let (parts, end) = ask(script).await;
            let error = end.unwrap_err();
            assert_eq!((plain_text(&parts).as_str(), error.code.as_str()), ("par", code), "{}", error.message);
            assert_eq!(error.retryable, retryable, "{}", error.message);
            assert!(error.message.contains(said), "{:?} does not say {said:?}", error.message);
        }
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_incomplete_and_one_without_text_is_not_read() {
    for script in [Script::events(&[SAID]).then(Step::Break), lines(&[SAID]).then(Step::Break)] {
        let (parts, end) = ask(script).await;
        assert_eq!((plain_text(&parts).as_str(), end.unwrap_err().code.as_str()), ("par", "agent_incomplete"));
    }
    for script in [
        Script::events(&[SAID]).then(Step::Send(b"data: \xff\n\n".to_vec())),
        lines(&[SAID]).then(Step::Send(b"\xff\n".to_vec())),
    ] {
        let (parts, end) = ask(script).await;
        let error = end.unwrap_err();
        assert_eq!((plain_text(&parts).as_str(), error.code.as_str()), ("par", "agent_error"));
        assert!(error.message.contains("UTF-8"), "{}", error.message);
    }
}

#[tokio::test]
async fn nothing_is_read_after_the_end_and_an_answer_that_is_held_open_ends_all_the_same() {
    for script in [
        lines(&[SAID, DONE, "garbage", SAID]),
        Script::events(&[SAID, DONE, "garbage"]),
        Script::events(&[SAID, DONE]).then(Step::Hold),
    ] {
        let (parts, end) = ask(script).await;
        assert_eq!((plain_text(&parts).as_str(), end), ("par", Ok(None)));
    }
}

#[tokio::test]
async fn dropping_the_answer_closes_the_request() {
    let upstream = Upstream::start(Script::events(&[SAID]).then(Step::Hold)).await;
    let mut answer = agent(upstream.base_url()).answer(context("hi")).await.unwrap();
    assert!(matches!(answer.next().await, Some(Ok(Output::Delta(_)))));
    assert!(timeout(Duration::from_millis(50), answer.next()).await.is_err(), "the next piece is awaited in vain");
    assert!(!upstream.is_gone());
    drop(answer);
    upstream.gone().await;
}

#[tokio::test]
async fn an_answer_that_nobody_pulls_is_not_read_ahead_without_end() {
    let flood = format!("{{\"kind\":\"text\",\"text\":\"{}\"}}\n", "x".repeat(60_000)).into_bytes();
    let script = (0..1_000).fold(lines(&[SAID]), |script, _| script.then(Step::Send(flood.clone())));
    let upstream = Upstream::start(script).await;
    let mut answer = agent(upstream.base_url()).answer(context("hi")).await.unwrap();
    assert!(matches!(answer.next().await, Some(Ok(Output::Delta(_)))));
    // 60 MB do not fit into the sockets' buffers, so a backend that is done was read into memory here.
    assert!(timeout(Duration::from_millis(300), upstream.gone()).await.is_err());
    drop(answer);
    upstream.gone().await;
}

/// A server whose agent asks `upstream`.
async fn server(upstream: &Upstream, change: impl FnOnce(&mut Config)) -> TestServer {
    let agents = rejoin::agent::Registry::new(
        "http",
        [("http".to_owned(), std::sync::Arc::new(agent(upstream.base_url())) as std::sync::Arc<dyn Agent>)].into(),
    );
    TestServer::start_in(tempfile::TempDir::new().unwrap(), agents.unwrap(), change).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_backend_and_an_endless_one_fail_their_turns_with_what_came() {
    let value = format!(r#"{{"kind":"data","value":"{}"}}"#, "x".repeat(5_000));
    for (script, code, text) in [
        (lines(&[SAID]).then(Step::Hold), "timeout", "par"),
        (Script::silence(), "timeout", ""),
        (lines(&[SAID, &value, DONE]), "too_large", "par"),
    ] {
        let upstream = Upstream::start(script).await;
        let server = server(&upstream, |config| {
            config.agent_idle_timeout = Duration::from_millis(300);
            config.max_message_bytes = 4_096;
        })
        .await;
        let mut ada = SessionClient::join_at(&server, "ada", "s").await;
        let turn = ada.send("hi").await["turn_id"].clone();
        assert_eq!(ada.end_of(&turn).await, "failed");
        assert_eq!(ada.events.last().unwrap()["data"]["error"]["code"], code);
        assert_eq!(ada.answer_of(&turn).unwrap_or_default(), text);
        upstream.gone().await;
        server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn u0000_in_any_place_is_stored_as_a_character_that_can_be() {
    let said = [r#"{"kind":"text","text":"a\u0000b"}"#, r#"{"kind":"data","value":{"k\u0000":"\\u0000\u0000"}}"#, DONE];
    let upstream = Upstream::start(lines(&said)).await;
    let server = server(&upstream, |_| {}).await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let turn = ada.send("hi").await["turn_id"].clone();
    assert_eq!(ada.end_of(&turn).await, "completed");
    let parts = &ada.events.last().unwrap()["data"]["message"]["parts"];
    assert_eq!(parts[0]["text"], "a\u{fffd}b");
    assert_eq!(parts[1]["value"], json!({"k\u{fffd}": "\\u0000\u{fffd}"}));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i7_a_backend_of_a_fenced_runner_is_left_at_once() {
    let upstream = Upstream::start(Script::events(&[SAID]).then(Step::Hold)).await;
    let server = server(&upstream, |config| {
        config.lease_renew = Duration::from_millis(100);
        config.lease_ttl = Duration::from_millis(400);
    })
    .await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let turn = ada.send("hi").await["turn_id"].clone();
    ada.until("the first words", |ada| ada.answer_of(&turn).as_deref() == Some("par")).await;
    let mut db = crate::support::db::Db::open(&server.database()).await;
    assert!(!upstream.is_gone());
    assert_eq!(db.run("UPDATE nodes SET state = 'dead'".to_owned()).await, 1);
    upstream.gone().await;
    assert_eq!(ada.end_of(&turn).await, "cancelled");
    server.stop().await;
}
