//! Traces of the real server, as a collector gets them: built with the feature `otlp`, in a binary of its own.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests fail by panicking")]

mod backend;
mod collector;
mod server;

use std::time::{Duration, Instant};

use reqwest::Client;
use serde_json::json;

use self::{
    backend::Backend,
    collector::{Collector, Span},
    server::Server,
};

/// What is said in these tests and must be in no span.
const SAID: &str = "MARKER-of-a-person";
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CLIENT: &str = "b7ad6b7169203331";

fn traceparent() -> String {
    format!("00-{TRACE}-{CLIENT}-01")
}

/// The only span of that name under this parent.
fn child<'a>(spans: &'a [Span], name: &str, parent: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.name == name && span.parent == parent).collect();
    assert_eq!(found.len(), 1, "{name} under {parent}: {spans:#?}");
    found[0]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_from_the_clients_frame_to_the_commit_and_the_agents_request() {
    let (collector, backend) = (Collector::start().await, Backend::start().await);
    let mut server = Server::start(&backend, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    let mut client = server.connect(&format!("&traceparent={}", traceparent())).await;
    client.push("phx_join", json!({})).await;
    let turn = client.push("send", json!({ "text": SAID })).await["turn_id"].as_str().unwrap().to_owned();
    backend.answer().await;
    client.event("turn_completed").await;
    server.stop().await;

    let spans = collector.spans();
    let own: Vec<_> = spans.iter().filter(|span| span.trace == TRACE).cloned().collect();
    let join = child(&own, "channel.join", CLIENT);
    assert_eq!(join.attribute("rejoin.topic"), Some("session:s"));
    let push = child(&own, "channel.push", CLIENT);
    assert_eq!((push.kind, push.attribute("rejoin.event")), (collector::SERVER, Some("send")));
    let write = child(&own, "session.write", &push.id);
    assert_eq!(write.attribute("rejoin.session"), Some("s"));
    child(&own, "store.commit", &write.id);
    let running = child(&own, "turn", &write.id);
    assert_eq!(
        (running.attribute("rejoin.turn"), running.attribute("rejoin.status")),
        (Some(&*turn), Some("completed"))
    );
    let asking = child(&own, "agent.request", &running.id);
    assert_eq!(asking.kind, collector::CLIENT);
    assert_eq!(backend.traceparents(), [Some(format!("00-{TRACE}-{}-01", asking.id))]);
    // The end of the turn is a write in its trace too; its deltas are not.
    let end = child(&own, "session.write", &running.id);
    child(&own, "store.commit", &end.id);
    assert_eq!(collector.resource("service.name").as_deref(), Some("rejoin"));
    assert_eq!(collector.resource("rejoin.node").as_deref(), Some("n1"));
    assert!(!collector.holds(SAID) && !collector.holds(backend::SAID), "a span holds what somebody said");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_is_traced_by_its_header_and_a_queued_turn_has_a_trace_of_its_own() {
    let (collector, backend) = (Collector::start().await, Backend::start().await);
    let mut server = Server::start(&backend, &[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &collector.traces_url())]).await;
    let mut client = server.connect("").await;
    client.push("phx_join", json!({})).await;
    for text in ["one", "two"] {
        let request = Client::new().post(server.http("/api/sessions/s/messages")).json(&json!({ "text": text }));
        let answer = request.header("traceparent", traceparent()).send().await.unwrap();
        assert_eq!(answer.status(), 202);
    }
    for _ in 0..2 {
        backend.answer().await;
        client.event("turn_completed").await;
    }
    server.stop().await;

    let spans = collector.spans();
    let requests: Vec<_> = spans.iter().filter(|span| span.name == "POST /api/sessions/{id}/messages").collect();
    assert_eq!(requests.len(), 2);
    assert!(requests.iter().all(|span| (&*span.trace, &*span.parent) == (TRACE, CLIENT)));
    assert!(requests.iter().all(|span| span.attribute("http.response.status_code") == Some("202")));
    let turns: Vec<_> = spans.iter().filter(|span| span.name == "turn").collect();
    let (first, second): (Vec<_>, Vec<_>) = turns.into_iter().partition(|turn| turn.trace == TRACE);
    assert_eq!((first.len(), second.len()), (1, 1));
    assert_eq!((second[0].parent.as_str(), second[0].links.as_slice()), ("", &[TRACE.to_owned()][..]));
    child(&spans, "agent.request", &second[0].id);
    // Whoever says nothing of a trace begins one.
    let join = spans.iter().find(|span| span.name == "channel.join").unwrap();
    assert!(join.parent.is_empty() && join.trace != TRACE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_turn_says_so_and_a_caller_that_does_not_sample_is_followed() {
    let (collector, backend) = (Collector::start().await, Backend::start().await);
    let mut server = Server::start(&backend, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)]).await;
    let mut quiet = server.connect(&format!("&traceparent=00-{TRACE}-{CLIENT}-00")).await;
    quiet.push("phx_join", json!({})).await;
    quiet.push("send", json!({ "text": "one" })).await;
    backend.answer().await;
    quiet.event("turn_completed").await;
    let mut client = server.connect("&traceparent=nonsense").await;
    client.push("phx_join", json!({})).await;
    client.push("send", json!({ "text": "two" })).await;
    backend.break_off().await;
    client.event("turn_failed").await;
    server.stop().await;

    let spans = collector.spans();
    assert!(spans.iter().all(|span| span.trace != TRACE), "what is not sampled is not sent");
    let told = backend.traceparents();
    assert!(
        told[0].as_ref().unwrap().starts_with(&format!("00-{TRACE}-")) && told[0].as_ref().unwrap().ends_with("-00")
    );
    let turn = spans.iter().find(|span| span.name == "turn").unwrap();
    assert_eq!((turn.status.as_str(), turn.attribute("rejoin.status")), ("agent_incomplete", Some("failed")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_says_nothing_delays_the_end_by_a_limit_only() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let backend = Backend::start().await;
    let mut server = Server::start(&backend, &[("OTEL_EXPORTER_OTLP_ENDPOINT", &url)]).await;
    let mut client = server.connect("").await;
    client.push("phx_join", json!({})).await;
    let asked = Instant::now();
    server.stop().await;
    let took = asked.elapsed();
    assert!(took > Duration::from_secs(2) && took < Duration::from_secs(8), "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_traced_unless_a_variable_asks_for_it() {
    let collector = Collector::start().await;
    for variables in [
        vec![],
        vec![("OTEL_TRACES_EXPORTER", "none"), ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)],
        vec![("OTEL_SDK_DISABLED", "true"), ("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url)],
    ] {
        let backend = Backend::start().await;
        let mut server = Server::start(&backend, &variables).await;
        let mut client = server.connect(&format!("&traceparent={}", traceparent())).await;
        client.push("phx_join", json!({})).await;
        client.push("send", json!({ "text": "hi" })).await;
        backend.answer().await;
        client.event("turn_completed").await;
        server.stop().await;
        assert_eq!((backend.traceparents(), collector.spans().len()), (vec![None], 0), "{variables:?}");
    }
}

#[tokio::test]
async fn variables_that_cannot_be_followed_stop_the_start_with_one_line() {
    for (variables, said) in [
        (
            [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://h"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            "is \"grpc\": traces are sent as http/protobuf",
        ),
        (
            [("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_EXPORTER_OTLP_ENDPOINT", "-*/ no url")],
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ] {
        let error = Server::refused(&variables).await;
        assert!(error.starts_with("error: ") && error.trim_end().lines().count() == 1, "{error}");
        assert!(error.contains(said), "{error}");
    }
}
