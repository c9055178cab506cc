//! The agent that asks for chat completions, against an endpoint that does everything that endpoints do.

use std::time::Duration;

use futures::StreamExt;
use rejoin::{
    agent::{Agent, OpenAi, Output, Secret, openai::Options},
    model::{Part, PartKind, TurnError, message::plain_text},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, time::timeout};

use crate::support::upstream::{LIMIT, Script, Step, Upstream, collect, context};

const KEY: &str = "sk-very-secret";

fn agent(base_url: String) -> OpenAi {
    let options = Options {
        base_url,
        model: "m1".to_owned(),
        api_key: Some(Secret::new(KEY)),
        system: Some("Be brief.".to_owned()),
        max_messages: None,
    };
    OpenAi::new("helper", options).unwrap()
}

async fn ask_at(base_url: String) -> (Vec<Part>, Result<Option<Value>, TurnError>) {
    let agent = agent(base_url);
    let outcome = timeout(LIMIT, async { collect(agent.answer(context("hi")).await).await }).await.unwrap();
    if let Err(error) = &outcome.1 {
        assert!(!error.message.contains(KEY), "the key is shown: {}", error.message);
        assert!(error.message.len() < 700 && error.message.ends_with('.'), "{}", error.message);
    }
    outcome
}

async fn ask(script: Script) -> (Vec<Part>, Result<Option<Value>, TurnError>) {
    let upstream = Upstream::start(script).await;
    ask_at(upstream.base_url()).await
}

fn text(text: &str) -> String {
    json!({"choices": [{"index": 0, "delta": {"content": text}}]}).to_string()
}

fn finish(reason: &str) -> String {
    json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}).to_string()
}

#[tokio::test]
async fn the_request_holds_the_session_and_the_answer_its_text_and_usage() {
    let usage = json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}).to_string();
    let script = Script::events(&[&text("Hé"), &text("llo"), &finish("stop"), &usage, "[DONE]"]);
    let upstream = Upstream::start(script.byte_by_byte()).await;
    let (parts, end) = ask_at(upstream.base_url()).await;
    assert_eq!(plain_text(&parts), "Héllo");
    assert_eq!(end.unwrap(), Some(json!({"prompt_tokens": 3, "completion_tokens": 2})));
    let asked = upstream.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].path, "/v1/chat/completions");
    assert_eq!(asked[0].header("authorization"), Some("Bearer sk-very-secret"));
    assert_eq!(
        asked[0].body,
        json!({"model": "m1", "stream": true, "stream_options": {"include_usage": true},
               "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]})
    );
}

#[tokio::test]
async fn comments_and_events_of_other_kinds_do_not_matter() {
    let script = Script::events(&[&text("a")])
        .then(Step::Send(b": keep-alive\n\nevent: ping\nid: 1\n\n".to_vec()))
        .then(Step::Send(format!("data: {}\r\n\r\ndata: [DONE]\r\n\r\n", text("b")).into_bytes()));
    let (parts, end) = ask(script).await;
    assert_eq!((plain_text(&parts).as_str(), end), ("ab", Ok(None)));
}

#[tokio::test]
async fn thoughts_and_tool_calls_are_parts_of_their_own() {
    let chunk = |delta: Value| json!({"choices": [{"index": 0, "delta": delta}]}).to_string();
    let call = |index: u32, id: Value, name: Value, arguments: &str| {
        chunk(json!({"tool_calls": [{"index": index, "id": id, "function": {"name": name, "arguments": arguments}}]}))
    };
    let (parts, end) = ask(Script::events(&[
        &chunk(json!({"reasoning_content": "think "})),
        &chunk(json!({"reasoning_content": "hard"})),
        &text("Calling."),
        &call(0, json!("c0"), json!("look"), "{\"q\":"),
        &call(1, json!("c1"), json!("send"), "{}"),
        &call(0, json!(null), json!(null), "\"x\"}"),
        &finish("tool_calls"),
        "[DONE]",
    ]))
    .await;
    let kinds: Vec<_> = parts.iter().map(|part| part.kind).collect();
    assert_eq!(kinds, [PartKind::Reasoning, PartKind::Text, PartKind::ToolCall, PartKind::ToolCall]);
    assert_eq!(parts[0].text.as_deref(), Some("think hard"));
    let value = |part: &Part| serde_json::from_str::<Value>(part.value.as_ref().unwrap().get()).unwrap();
    assert_eq!(value(&parts[2]), json!({"id": "c0", "name": "look", "arguments": "{\"q\":\"x\"}"}));
    assert_eq!(value(&parts[3]), json!({"id": "c1", "name": "send", "arguments": "{}"}));
    assert_eq!(end.unwrap(), Some(json!({"finish_reason": "tool_calls"})));
}

#[tokio::test]
async fn each_refusal_has_its_code_and_says_what_to_do() {
    let error = |message: &str| json!({"error": {"message": message, "code": "x"}}).to_string();
    let json = |status, message: &str| Script::body(status, "application/json", &error(message));
    for (script, code, retryable, said) in [
        (json(401, "bad key sk-very-secret"), "agent_unauthorized", false, "refused the API key (401). Check the key"),
        (json(403, "no sk-very-secret here"), "agent_unauthorized", false, "no *** here"),
        (json(404, "model m1 does not exist"), "agent_bad_request", false, "model m1 does not exist"),
        (json(400, "context too long"), "agent_bad_request", false, "context too long"),
        (json(422, "extra field"), "agent_bad_request", false, "extra field"),
        (json(429, "slow down").header("retry-after", "7"), "agent_rate_limited", true, "Retry after 7 s."),
        (json(429, "slow down"), "agent_rate_limited", true, "Wait a little, then retry."),
        (json(500, "oops"), "agent_error", true, "failed: oops. Retry"),
        (Script::body(503, "text/plain", &"x".repeat(100_000)), "agent_error", true, "xxx…"),
        (Script::body(502, "text/html", "<html>nginx</html>"), "agent_error", true, "failed. Retry"),
        (
            Script::body(307, "text/plain", "").header("location", "http://127.0.0.1:1/v1"),
            "agent_bad_request",
            false,
            "answered with a redirect (307)",
        ),
        (Script::body(200, "text/html; charset=utf-8", "<html>"), "agent_bad_request", false, "a web page"),
        (Script::body(200, "application/json", "{\"choices\":[]}"), "agent_bad_request", false, "instead of a stream"),
        (json(200, "no such model"), "agent_error", true, "no such model"),
        (Script::body(200, "text/event-stream", "Hello there"), "agent_incomplete", true, "ended before the answer"),
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
async fn an_endpoint_that_is_not_there_is_unavailable() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let (_, end) = ask_at(format!("http://{address}/v1")).await;
    let error = end.unwrap_err();
    assert_eq!((error.code.as_str(), error.retryable), ("agent_unavailable", true));
    assert!(error.message.contains(&address.to_string()) && error.message.contains("refused"), "{}", error.message);
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_tls_or_hangs_up_at_once_is_unavailable() {
    let upstream = Upstream::start(Script::events(&["[DONE]"])).await;
    let tls = upstream.base_url().replace("http://", "https://");
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let rude = format!("http://{}/v1", listener.local_addr().unwrap());
    let hang_up = tokio::spawn(async move {
        loop {
            drop(listener.accept().await);
        }
    });
    for base_url in [tls, rude] {
        let (_, end) = ask_at(base_url).await;
        assert_eq!(end.unwrap_err().code, "agent_unavailable");
    }
    hang_up.abort();
}

#[tokio::test]
async fn what_came_before_a_failure_in_the_stream_is_kept() {
    let error = json!({"error": {"message": "overloaded", "code": 529}}).to_string();
    let limited = json!({"error": {"message": "slow down", "code": 429}}).to_string();
    let huge = Step::Send(format!("data: {}", "x".repeat(2 << 20)).into_bytes());
    let said = text("par");
    for (script, code, words) in [
        (Script::events(&[&said, &error]), "agent_error", "overloaded"),
        (Script::events(&[&said, &limited]), "agent_rate_limited", "slow down"),
        (Script::events(&[&said, "{\"choices\": ["]), "agent_error", "not the JSON of a chat completion"),
        (Script::events(&[&said, "[1]"]), "agent_error", "not the JSON of a chat completion"),
        (Script::events(&[&said]).then(huge), "agent_error", "an event that is too long"),
        (
            Script::events(&[&said]).then(Step::Send(b"data: \xff\n\n".to_vec())),
            "agent_error",
            "not a stream of events",
        ),
        (Script::events(&[&said]), "agent_incomplete", "ended before the answer did"),
        (Script::events(&[&said]).then(Step::Break), "agent_incomplete", "ended before the answer did"),
        (Script::events(&[&said, &finish("content_filter"), "[DONE]"]), "agent_error", "content filter"),
    ] {
        let (parts, end) = ask(script).await;
        let error = end.unwrap_err();
        assert_eq!((plain_text(&parts).as_str(), error.code.as_str()), ("par", code), "{}", error.message);
        assert_eq!(error.retryable, words != "content filter", "{}", error.message);
        assert!(error.message.contains(words), "{:?} does not say {words:?}", error.message);
    }
}

#[tokio::test]
async fn an_answer_whose_end_was_announced_is_whole_however_the_stream_ends() {
    let cut = json!({"finish_reason": "length"});
    for (script, usage) in [
        (Script::events(&[&text("whole"), &finish("stop")]), None),
        (Script::events(&[&text("whole"), &finish("stop")]).then(Step::Break), None),
        (Script::events(&[&text("whole"), &finish("stop")]).then(Step::Hold), None),
        (Script::events(&[&text("whole"), "[DONE]"]).then(Step::Hold), None),
        (Script::events(&[&text("whole"), &finish("length"), "[DONE]"]), Some(cut)),
    ] {
        let (parts, end) = ask(script).await;
        assert_eq!((plain_text(&parts).as_str(), end), ("whole", Ok(usage)));
    }
}

#[tokio::test]
async fn dropping_the_answer_closes_the_request() {
    let upstream = Upstream::start(Script::events(&[&text("one")]).then(Step::Hold)).await;
    let mut answer = agent(upstream.base_url()).answer(context("hi")).await.unwrap();
    assert!(matches!(answer.next().await, Some(Ok(Output::Delta(_)))));
    // It is held open for as long as the answer is: its next piece is awaited in vain.
    assert!(timeout(Duration::from_millis(50), answer.next()).await.is_err());
    assert!(!upstream.is_gone());
    drop(answer);
    upstream.gone().await;
}

#[tokio::test]
async fn giving_up_on_an_endpoint_that_says_nothing_closes_the_request() {
    let upstream = Upstream::start(Script::silence()).await;
    let agent = agent(upstream.base_url());
    let asking = tokio::spawn(async move { agent.answer(context("hi")).await.map(drop) });
    upstream.arrived().await;
    assert!(!upstream.is_gone());
    asking.abort();
    upstream.gone().await;
}

#[tokio::test]
async fn an_answer_that_nobody_pulls_is_not_read_ahead_without_end() {
    let flood = Step::Send(format!("data: {}\n\n", text(&"x".repeat(60_000))).into_bytes());
    let mut script = Script::events(&[&text("first")]);
    for _ in 0..1_000 {
        script = script.then(flood.clone());
    }
    let upstream = Upstream::start(script).await;
    let mut answer = agent(upstream.base_url()).answer(context("hi")).await.unwrap();
    assert!(matches!(answer.next().await, Some(Ok(Output::Delta(_)))));
    // 60 MB do not fit into the sockets' buffers, so an endpoint that is done was read into memory here.
    assert!(timeout(Duration::from_millis(300), upstream.gone()).await.is_err());
    drop(answer);
    upstream.gone().await;
}
