//! The backends that users begin with, as real processes, under a real server.

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    backend::{Backend, Language, SECRET},
    client::SessionClient,
    process::Process,
    upstream::Upstream,
};

const BOTH: [Language; 2] = [Language::Node, Language::Python];

/// A server whose default agent is a backend.
async fn server(folder: &TempDir, backend: &Backend) -> Process {
    let args = ["--agent", "http", "--http-agent-url", &backend.url, "--http-agent-secret", SECRET];
    Process::start(folder.path(), &args).await
}

async fn join(server: &Process) -> SessionClient {
    SessionClient::join(&server.ws("ada"), "s").await
}

/// Asks for a long answer and waits for its first words: the turn's id.
async fn begin(ada: &mut SessionClient) -> Value {
    let turn = ada.send("count to 100000").await["turn_id"].clone();
    ada.until("some words", |ada| ada.answer_of(&turn).is_some_and(|text| text.starts_with("1 2 3"))).await;
    turn
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_answers_with_thoughts_text_and_usage() {
    for language in BOTH {
        let (folder, mut backend) = (TempDir::new().unwrap(), Backend::start(language).await);
        let server = server(&folder, &backend).await;
        let mut ada = join(&server).await;
        ada.ok("update", json!({ "title": "Plans" })).await;
        let turn = ada.send("naïve café 🎉").await["turn_id"].clone();
        assert_eq!(ada.end_of(&turn).await, "completed");
        let end = &ada.events.last().unwrap()["data"];
        assert_eq!(
            end["message"]["parts"],
            json!([{"kind": "reasoning", "text": "ada asks in Plans."}, {"kind": "text", "text": "You said: naïve café 🎉"}]),
            "{language:?}"
        );
        assert_eq!(end["usage"], json!({"words": 5, "messages": 1}));
        backend.says("answered", turn.as_str().unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_is_seen_by_the_backend_at_once() {
    for language in BOTH {
        let (folder, mut backend) = (TempDir::new().unwrap(), Backend::start(language).await);
        let server = server(&folder, &backend).await;
        let mut ada = join(&server).await;
        let turn = begin(&mut ada).await;
        let answer = ada.ok("cancel", json!({ "turn_id": turn })).await;
        assert_eq!((&answer["outcome"], &answer["reason"]), (&json!("cancelled"), &json!("user")), "{language:?}");
        backend.says("left", turn.as_str().unwrap()).await;
        let again = ada.ok("retry", json!({ "turn_id": turn })).await["turn_id"].clone();
        backend.says("asked", again.as_str().unwrap()).await;
        // A server that dies leaves its backend too.
        ada.until("more words", |ada| ada.answer_of(&again).is_some_and(|text| text.starts_with("1 2"))).await;
        server.kill().await;
        backend.says("left", again.as_str().unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i19_a_backend_that_is_killed_in_the_middle_fails_its_turn_with_what_it_said() {
    for language in BOTH {
        let (folder, backend) = (TempDir::new().unwrap(), Backend::start(language).await);
        let server = server(&folder, &backend).await;
        let mut ada = join(&server).await;
        let turn = begin(&mut ada).await;
        backend.kill().await;
        assert_eq!(ada.end_of(&turn).await, "failed");
        let end = &ada.events.last().unwrap()["data"];
        assert_eq!((&end["error"]["code"], &end["error"]["retryable"]), (&json!("agent_incomplete"), &json!(true)));
        assert_eq!(end["message"]["status"], "partial");
        assert!(ada.answer_of(&turn).unwrap().starts_with("1 2 3"));
        // And with nobody there at all.
        let again = ada.ok("retry", json!({ "turn_id": turn })).await["turn_id"].clone();
        assert_eq!(ada.end_of(&again).await, "failed");
        assert_eq!(ada.events.last().unwrap()["data"]["error"]["code"], "agent_unavailable");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_who_knows_the_secret_is_answered_and_only_once() {
    // What a real request looks like is learned from a server that asks a listener of the test's own.
    let recorder = Upstream::start(crate::support::upstream::Script::body(500, "text/plain", "")).await;
    let folder = TempDir::new().unwrap();
    let args = ["--agent", "http", "--http-agent-url", &recorder.base_url(), "--http-agent-secret", SECRET];
    let server = Process::start(folder.path(), &args).await;
    join(&server).await.send("hello").await;
    recorder.arrived().await;
    let asked = recorder.asked().remove(0);
    let signature = asked.header("x-rejoin-signature").unwrap().to_owned();
    for language in BOTH {
        let mut backend = Backend::start(language).await;
        let post = async |signature: &str, body: Vec<u8>| {
            let request =
                Client::new().post(&backend.url).header("X-Rejoin-Signature", signature.as_bytes()).body(body);
            request.send().await.unwrap()
        };
        let body = asked.bytes.to_vec();
        let changed = String::from_utf8(body.clone()).unwrap().replace("hello", "jello").into_bytes();
        for (signature, body) in [
            ("", &body),
            ("sha256", &body),
            (&format!("sha256={signature}")[..], &body),
            (&signature.replace(['1', '2', '3'], "4")[..], &body),
            ("é", &body),
            (&signature[..], &changed),
        ] {
            let status = post(signature, body.clone()).await.status();
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{language:?} {signature}");
        }
        let answer = post(&signature, body.clone()).await;
        assert_eq!(answer.status(), StatusCode::OK, "{language:?}");
        assert!(answer.text().await.unwrap().contains("\"kind\""), "{language:?}");
        assert_eq!(post(&signature, body).await.status(), StatusCode::FORBIDDEN, "a turn is asked once");
        backend.says("answered", asked.body["turn"]["id"].as_str().unwrap()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_fails_the_turn_and_says_so() {
    let (folder, backend) = (TempDir::new().unwrap(), Backend::start(Language::Node).await);
    let args = ["--agent", "http", "--http-agent-url", &backend.url, "--http-agent-secret", "another"];
    let server = Process::start(folder.path(), &args).await;
    let mut ada = join(&server).await;
    let turn = ada.send("hi").await["turn_id"].clone();
    assert_eq!(ada.end_of(&turn).await, "failed");
    let error = &ada.events.last().unwrap()["data"]["error"];
    assert_eq!((&error["code"], &error["retryable"]), (&json!("agent_unauthorized"), &json!(false)));
    let said = error["message"].as_str().unwrap();
    assert!(said.contains("(401): the signature is wrong. Check that the secret is the same on both sides."), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_backends_are_chosen_by_name_and_an_unknown_name_is_told_the_known_ones() {
    let folder = TempDir::new().unwrap();
    let (mut node, mut python) = (Backend::start(Language::Node).await, Backend::start(Language::Python).await);
    let file = format!(
        "agent = \"planner\"\n[agents.planner]\ntype = \"http\"\nurl = {:?}\nsecret = {SECRET:?}\n\
         [agents.writer]\ntype = \"http\"\nurl = {:?}\nsecret = {SECRET:?}\nmax-messages = 2\n",
        node.url, python.url
    );
    std::fs::write(folder.path().join("rejoin.toml"), file).unwrap();
    let server = Process::start(folder.path(), &[]).await;
    let mut ada = join(&server).await;
    let first = ada.send("one").await["turn_id"].clone();
    node.says("asked", first.as_str().unwrap()).await;
    ada.end_of(&first).await;
    let second = ada.ok("send", json!({ "text": "two", "agent": "writer" })).await["turn_id"].clone();
    python.says("asked", second.as_str().unwrap()).await;
    assert_eq!(ada.end_of(&second).await, "completed");
    let end = &ada.events.last().unwrap()["data"];
    assert_eq!((&end["usage"]["messages"], &end["message"]["author"]["id"]), (&json!(2), &json!("agent:writer")));
    let (status, response) = ada.ask("send", json!({ "text": "three", "agent": "nobody" })).await;
    assert_eq!((status.as_str(), &response["reason"]), ("error", &json!("invalid")));
    let said = response["message"].as_str().unwrap();
    assert!(said.contains("no agent \"nobody\"") && said.contains("echo, planner, writer"), "{said}");
}
