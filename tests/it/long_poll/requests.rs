//! What each request is answered, and what of it is lost: nothing.

use std::time::{Duration, Instant};

use rejoin::{channel, pubsub::Kind, transport};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{NDJSON, Poller, T, read, send, with_window};
use crate::{
    channel_app::App,
    support::{
        raw,
        ws::{ok, within},
    },
};

#[tokio::test]
async fn l109_a_get_opens_a_session() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    assert!(poller.token.len() >= 32, "{}", poller.token);
    assert_ne!(Poller::open(&app).await.token, poller.token);
    assert_eq!(app.state.connections().count(), 2);
    app.stop().await;
}

#[tokio::test]
async fn l110_frames_are_posted_and_fetched_and_without_any_the_window_passes() {
    let window = Duration::from_millis(300);
    let app = with_window(window).await;
    let poller = Poller::open(&app).await;
    poller.frames(&[json!(["11", "1", T, "phx_join", {}])]).await;
    let frames = poller.fetch(3).await;
    assert_eq!(frames[0], json!(["11", "1", T, "phx_reply", ok()]));
    assert_eq!(frames[1], json!([null, null, T, "user_entered", { "user": null }]));
    assert_eq!(frames[2], json!(["11", null, T, "joined", { "status": "connected", "user_id": null }]));
    let begun = Instant::now();
    assert_eq!(poller.poll().await, json!({ "status": 204, "token": poller.token, "messages": [] }));
    assert!(begun.elapsed() >= window, "{:?}", begun.elapsed());
    app.stop().await;
}

#[tokio::test]
async fn l110_a_poll_that_waits_is_answered_as_soon_as_there_is_something() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    poller.join(T).await;
    let waiting = poller.parked().await;
    app.publish(T, Kind::Ephemeral, "said", json!({ "n": 1 }));
    let answer = within("the poll", waiting).await.unwrap();
    assert_eq!((&answer["status"], &answer["token"]), (&200.into(), &poller.token.clone().into()));
    assert_eq!(read(&answer), [json!([null, null, T, "said", { "n": 1 }])]);
    app.stop().await;
}

#[tokio::test]
async fn l111_the_token_travels_in_header_or_query_and_the_header_counts() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    let beat = json!([null, "1", "phoenix", "heartbeat", {}]).to_string();
    let request = |method: Method, query: &str, header: Option<&str>| {
        let request = poller.client.request(method, format!("{}{query}", poller.base)).header(NDJSON.0, NDJSON.1);
        header.into_iter().fold(request, |request, token| request.header("X-Phoenix-Longpoll-Token", token))
    };
    let (own, in_query) = (poller.token.as_str(), format!("&token={}", poller.token));
    for (query, header) in [("", Some(own)), (in_query.as_str(), None), ("&token=bogus", Some(own))] {
        let posted = send(request(Method::POST, query, header).body(beat.clone())).await.ok();
        assert_eq!(posted, json!({ "status": 200 }), "{query} {header:?}");
        let polled = send(request(Method::GET, query, header)).await.ok();
        assert_eq!(polled["status"], 200, "{query} {header:?}");
    }
    for (query, header) in [("&token=bogus", None), ("", Some("bogus")), (in_query.as_str(), Some("bogus")), ("", None)]
    {
        let posted = send(request(Method::POST, query, header).body(beat.clone())).await.ok();
        assert_eq!(posted, json!({ "status": 410 }), "{query} {header:?}");
        let polled = send(request(Method::GET, query, header)).await.ok();
        assert_eq!(polled["status"], 410, "{query} {header:?}");
        assert!(polled["token"].as_str().is_some_and(|token| token != own), "{query} {header:?}: {polled}");
    }
    app.stop().await;
}

#[tokio::test]
async fn l112_a_single_frame_may_be_called_anything() {
    let app = App::start().await;
    let poller = Poller::new(app.address, "vsn=1.0.0&").opened().await;
    let beat = r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}"#;
    let reply = json!({ "topic": "phoenix", "event": "phx_reply", "payload": ok(), "ref": "1" });
    for kind in [Some("application/json"), Some("text/plain; charset=utf-8"), Some("odd"), None] {
        let request = poller.request(Method::POST).body(beat);
        let request = kind.into_iter().fold(request, |request, kind| request.header("content-type", kind));
        assert_eq!(send(request).await.ok(), json!({ "status": 200 }), "{kind:?}");
        assert_eq!(poller.fetch(1).await, std::slice::from_ref(&reply), "{kind:?}");
    }
    assert_eq!(poller.post(format!("{beat}\n{beat}")).await.ok(), json!({ "status": 200 }));
    assert_eq!(poller.fetch(2).await, [reply.clone(), reply]);
    app.stop().await;
}

#[tokio::test]
async fn l113_a_batch_is_handled_in_order_and_stale_frames_are_left_out() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    poller.join(T).await;
    // Kind 0, join_ref "11", ref "3", the topic, the event to_json, and three bytes.
    let bytes = [&[0, 2, 1, 6, 7][..], b"113room:ato_json", &[1, 2, 3]].concat();
    let lines = [
        json!(["11", "2", T, "echo", { "n": 1 }]).to_string(),
        base64(&bytes),
        json!(["10", "4", T, "echo", { "n": 2 }]).to_string(),
        json!(["11", "5", T, "echo", { "n": 3 }]).to_string(),
    ];
    assert_eq!(poller.post(lines.join("\n")).await.ok(), json!({ "status": 200 }));
    let answers: Vec<(Value, Value)> =
        poller.fetch(3).await.iter().map(|frame| (frame[1].clone(), frame[4]["response"].clone())).collect();
    let expected = [("2", json!({ "n": 1 })), ("3", json!({ "bytes": 3 })), ("5", json!({ "n": 3 }))];
    assert_eq!(answers, expected.map(|(reference, response)| (reference.into(), response)));
    app.stop().await;
}

/// Base64 with its own alphabet, as a client without a library would write it.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = |three: &[u8]| {
        let number = (0..3).fold(0_usize, |number, at| number << 8 | usize::from(*three.get(at).unwrap_or(&0)));
        (0..4).map(move |at| DIGITS[number >> (18 - 6 * at) & 63] as char).collect::<String>()
    };
    let text: String = bytes.chunks(3).map(digits).collect();
    let fill = (3 - bytes.len() % 3) % 3;
    format!("{}{}", &text[..text.len() - fill], "=".repeat(fill))
}

#[tokio::test]
async fn l113_of_a_hundred_and_one_lines_a_hundred_are_handled() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    let beats: Vec<Value> = (1..=101).map(|n| json!([null, n, "phoenix", "heartbeat", {}])).collect();
    poller.frames(&beats).await;
    poller.frames(&[json!([null, "last", "phoenix", "heartbeat", {}])]).await;
    let frames = poller.fetch(101).await;
    let refs: Vec<Value> = frames.iter().map(|frame| frame[1].clone()).collect();
    let expected: Vec<Value> = (1..=100).map(Value::from).chain(["last".into()]).collect();
    assert_eq!(refs, expected);
    app.stop().await;
}

#[tokio::test]
async fn l114_who_posts_and_does_not_poll_waits_and_is_told_and_loses_nothing() {
    let options = channel::Options { max_queue_bytes: 1_000, ..Default::default() };
    let transport = transport::Options { poll_window: Duration::from_secs(2), ..Default::default() };
    let app = App::start_with(options, transport).await;
    let poller = Poller::open(&app).await;
    poller.join(T).await;
    let pad = "x".repeat(3_000);
    let mut taken = 0;
    let timed_out = within("a post that waits too long", async {
        loop {
            let frame = json!(["11", (taken + 2).to_string(), T, "echo", { "pad": pad }]).to_string();
            let answer = poller.post(frame).await.ok();
            if answer["status"] != 200 {
                return answer;
            }
            taken += 1;
        }
    })
    .await;
    assert_eq!(timed_out, json!({ "status": 408 }));
    let answers = poller.fetch(taken).await;
    assert!(answers.iter().all(|frame| frame[4]["response"]["pad"] == pad));
    poller.frames(&[json!(["11", "last", T, "echo", {}])]).await;
    assert_eq!(poller.fetch(1).await[0][1], "last");
    app.stop().await;
}

#[tokio::test]
async fn a_batch_waits_for_the_one_before_it() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    let beat = |reference: &str| json!([null, reference, "phoenix", "heartbeat", {}]).to_string();
    let first = beat("first");
    let request = format!(
        "POST /socket/longpoll?vsn=2.0.0&token={} HTTP/1.1\r\nHost: h\r\nContent-Type: application/x-ndjson\r\n\
         Content-Length: {}\r\nExpect: 100-continue\r\n\r\n",
        poller.token,
        first.len()
    );
    // The server says so when it begins to read the body.
    let (mut stream, head) = raw::ask(app.address, &request).await;
    assert_eq!(raw::status(&head), 100);
    let second = {
        let (poller, body) = (poller.clone(), beat("second"));
        tokio::spawn(async move { poller.post(body).await.ok() })
    };
    let mut second = std::pin::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(200), second.as_mut()).await;
    assert!(early.is_err(), "the second batch overtook the first");
    stream.write_all(first.as_bytes()).await.unwrap();
    assert_eq!(within("the second batch", second).await.unwrap(), json!({ "status": 200 }));
    let refs: Vec<Value> = poller.fetch(2).await.iter().map(|frame| frame[1].clone()).collect();
    assert_eq!(refs, ["first", "second"]);
    drop(stream);
    app.stop().await;
}

#[tokio::test]
async fn l115_whoever_may_not_connect_is_told_by_http_200() {
    let app = App::start().await;
    for query in ["vsn=2.0.0&user_id=__proto__", "vsn=2.0.0&token=busy", "vsn=3.0.0", "vsn=", "vsn[]=2.0.0"] {
        let poller = Poller::new(app.address, query);
        assert_eq!(send(poller.client.get(&poller.base)).await.ok(), json!({ "status": 403 }), "{query}");
    }
    let evil = ("origin", "http://evil.example");
    let poller = Poller::open(&app).await;
    for request in [
        poller.client.get(&poller.base).header(evil.0, evil.1),
        poller.request(Method::GET).header(evil.0, evil.1),
        poller.request(Method::POST).header(evil.0, evil.1),
    ] {
        assert_eq!(send(request).await.ok(), json!({ "status": 403 }));
    }
    assert_eq!(app.state.connections().count(), 1);
    app.stop().await;

    let options = transport::Options { loopback: true, origins: transport::Origins::SameHost, ..Default::default() };
    let app = App::start_with(channel::Options::default(), options).await;
    let poller = Poller::new(app.address, "vsn=2.0.0");
    for (host, status) in [("rebound.example", 403), ("localhost", 410)] {
        let request = poller.client.get(&poller.base).header("host", host).header("origin", format!("http://{host}"));
        assert_eq!(send(request).await.ok()["status"], status, "{host}");
    }
    app.stop().await;
}

#[tokio::test]
async fn l118_a_browser_may_ask_before_and_other_methods_are_refused() {
    let app = App::start().await;
    let poller = Poller::new(app.address, "vsn=2.0.0");
    let wanted = "content-type,x-phoenix-authtoken";
    let asking = poller.client.request(Method::OPTIONS, &poller.base).header("access-control-request-headers", wanted);
    let answer = send(asking.header("origin", "http://other.example")).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-headers", wanted),
        ("access-control-allow-methods", "get, post, options"),
        ("access-control-max-age", "3600"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::HEAD] {
        assert_eq!(send(poller.client.request(method.clone(), &poller.base)).await.status, 400, "{method}");
    }
    app.stop().await;
}

#[tokio::test]
async fn l119_bytes_for_a_client_are_an_error_that_its_channel_sees() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    poller.join(T).await;
    poller.frames(&[json!(["11", "2", T, "push_binary", 5]), json!(["11", "3", T, "to_binary", {}])]).await;
    let answers = poller.fetch(2).await;
    assert_eq!(answers[0][4], json!({ "status": "ok", "response": { "pushed": false } }));
    assert_eq!(answers[1][4]["status"], "error", "{answers:?}");
    poller.frames(&[json!(["11", "4", T, "echo", {}])]).await;
    assert_eq!(poller.fetch(1).await, [json!(["11", "4", T, "phx_reply", ok()])]);
    app.stop().await;
}

#[tokio::test]
async fn of_two_polls_the_newer_one_goes_on_and_the_other_is_answered_at_once() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    poller.join(T).await;
    let newer = poller.parked().await;
    app.publish(T, Kind::Ephemeral, "said", json!({ "n": 1 }));
    assert_eq!(read(&within("the newer poll", newer).await.unwrap()).len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn a_poll_that_its_client_gives_up_loses_nothing() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    poller.join(T).await;
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    let request = format!("GET /socket/longpoll?vsn=2.0.0&token={} HTTP/1.1\r\nHost: h\r\n\r\n", poller.token);
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    // Once the server has closed too, the request is gone.
    let mut rest = Vec::new();
    within("the server to close", stream.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    app.publish(T, Kind::Ephemeral, "said", json!({ "n": 1 }));
    assert_eq!(poller.fetch(1).await, [json!([null, null, T, "said", { "n": 1 }])]);
    app.stop().await;
}

#[tokio::test]
async fn one_answer_has_a_limit_and_the_rest_comes_with_the_next_in_order() {
    let app = App::start().await;
    let poller = Poller::open(&app).await;
    poller.join(T).await;
    let pad = "x".repeat(16 * 1024);
    for n in 0..40 {
        app.publish(T, Kind::Ephemeral, "said", json!({ "n": n, "pad": pad }));
    }
    let (mut seen, mut answers) = (Vec::new(), 0);
    while seen.len() < 40 {
        let frames = read(&poller.poll().await);
        assert!(!frames.is_empty() && frames.len() <= 17, "{} frames in one answer", frames.len());
        seen.extend(frames.into_iter().map(|frame| frame[4]["n"].clone()));
        answers += 1;
    }
    assert_eq!(seen, (0..40).map(Value::from).collect::<Vec<_>>());
    assert_eq!(answers, 3);
    app.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_poll_falls_behind_and_costs_a_bounded_amount() {
    let options = channel::Options { max_queue_bytes: 20_000, ..Default::default() };
    let app = App::start_with(options, transport::Options::default()).await;
    let poller = Poller::open(&app).await;
    poller.frames(&[json!(["11", "1", "log:a", "phx_join", {}])]).await;
    poller.fetch(1).await;
    for _ in 0..200 {
        app.append("log:a", 1_000);
    }
    assert_eq!(app.host.counts().slow_consumers, 1);
    assert!(app.host.counts().deliveries < 25, "{:?}", app.host.counts());
    let mut last = 0;
    within("the whole log", async {
        while last < 200 {
            for frame in read(&poller.poll().await) {
                assert_eq!(frame[4]["prev"], last, "a gap or a repeat");
                last = frame[4]["events"].as_array().unwrap().last().unwrap()["seq"].as_u64().unwrap();
            }
        }
    })
    .await;
    app.stop().await;
}
