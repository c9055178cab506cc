//! Long-polling on the wire: what each request is answered, when a session ends, and what none of it loses.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures::future::Either;
use rejoin::{
    channel::{self, Leave},
    pubsub::Kind,
    transport,
};
use reqwest::{Method, RequestBuilder, Response, header::HeaderMap};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
};

use crate::{
    channel_app::App,
    support::{
        raw,
        server::TestServer,
        ws::{LIMIT, ok, until, within},
    },
};

const T: &str = "room:a";
const NDJSON: (&str, &str) = ("content-type", "application/x-ndjson");

/// An answer, whole.
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Answer {
    async fn read(answer: Response) -> Self {
        let (status, headers) = (answer.status().as_u16(), answer.headers().clone());
        Self { status, headers, body: answer.text().await.unwrap() }
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The JSON of an answer as all are.
    fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("access-control-allow-origin"), Some("*"));
        serde_json::from_str(&self.body).unwrap()
    }

    /// The same, of an answer that worked as far as HTTP knows.
    fn ok(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        self.json()
    }
}

async fn send(request: RequestBuilder) -> Answer {
    Answer::read(within("an answer", request.send()).await.unwrap()).await
}

/// A client of one session.
#[derive(Clone)]
struct Poller {
    client: reqwest::Client,
    base: String,
    token: String,
}

impl Poller {
    /// A client that has no session yet.
    fn new(address: SocketAddr, query: &str) -> Self {
        let client = reqwest::Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
        Self { client, base: format!("http://{address}/socket/longpoll?{query}"), token: String::new() }
    }

    /// A client with a session, that speaks version 2.
    async fn open(app: &App) -> Self {
        Self::new(app.address, "vsn=2.0.0&").opened().await
    }

    async fn opened(mut self) -> Self {
        let opened = send(self.client.get(&self.base)).await.ok();
        self.token = opened["token"].as_str().unwrap().to_owned();
        assert_eq!(opened, json!({ "status": 410, "token": self.token, "messages": [] }));
        self
    }

    fn request(&self, method: Method) -> RequestBuilder {
        self.client.request(method, format!("{}&token={}", self.base, self.token))
    }

    async fn poll(&self) -> Value {
        send(self.request(Method::GET)).await.ok()
    }

    /// A poll that waits at the server by now: one before it was answered because this one came.
    async fn parked(&self) -> JoinHandle<Value> {
        let poll = || {
            let poller = self.clone();
            tokio::spawn(async move { poller.poll().await })
        };
        let answered = within("one of the polls", futures::future::select(poll(), poll())).await;
        let (Either::Left((first, other)) | Either::Right((first, other))) = answered;
        assert_eq!(first.unwrap(), json!({ "status": 204, "token": self.token, "messages": [] }));
        other
    }

    async fn post(&self, body: impl Into<reqwest::Body>) -> Answer {
        send(self.request(Method::POST).header(NDJSON.0, NDJSON.1).body(body)).await
    }

    /// Posts frames, and expects them to be taken.
    async fn frames(&self, frames: &[Value]) {
        let lines: Vec<String> = frames.iter().map(Value::to_string).collect();
        assert_eq!(self.post(lines.join("\n")).await.ok(), json!({ "status": 200 }));
    }

    /// Polls until `count` frames are here.
    async fn fetch(&self, count: usize) -> Vec<Value> {
        let mut frames = Vec::new();
        within("frames", async {
            while frames.len() < count {
                frames.extend(read(&self.poll().await));
            }
        })
        .await;
        assert_eq!(frames.len(), count, "{frames:?}");
        frames
    }

    /// Polls until this frame is here; what comes beside it is dropped.
    async fn fetch_until(&self, which: impl Fn(&Value) -> bool) -> Value {
        within("a frame", async {
            loop {
                if let Some(frame) = read(&self.poll().await).into_iter().find(&which) {
                    return frame;
                }
            }
        })
        .await
    }

    /// Joins, and fetches what follows.
    async fn join(&self, topic: &str) {
        self.frames(&[json!(["11", "1", topic, "phx_join", {}])]).await;
        let events: Vec<Value> = self.fetch(3).await.iter().map(|frame| frame[3].clone()).collect();
        assert_eq!(events, ["phx_reply", "user_entered", "joined"]);
    }
}

/// The frames of an answer, each a string.
fn read(answer: &Value) -> Vec<Value> {
    assert!(answer["status"] == 200 || answer["status"] == 204, "{answer}");
    let messages = answer["messages"].as_array().unwrap().iter();
    messages.map(|message| serde_json::from_str(message.as_str().unwrap()).unwrap()).collect()
}

/// An app whose polls wait for this long.
async fn with_window(window: Duration) -> App {
    let options = transport::Options { poll_window: window, ..Default::default() };
    App::start_with(channel::Options::default(), options).await
}

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
async fn l116_a_session_that_is_not_polled_ends_with_its_channels() {
    let window = Duration::from_millis(300);
    let app = with_window(window).await;
    let poller = Poller::open(&app).await;
    poller.join(T).await;
    // As long as it is polled it lives, however long that is.
    for _ in 0..3 {
        assert_eq!(poller.poll().await["status"], 204);
    }
    let begun = Instant::now();
    until("the session to end", || app.state.connections().count() == 0).await;
    assert!(begun.elapsed() >= window, "{:?}", begun.elapsed());
    until("its channel to end", || app.hooks.ended(T) == [Leave::Closed]).await;
    assert_eq!(poller.post("[]").await.ok(), json!({ "status": 410 }));
    let anew = poller.poll().await;
    assert!(anew["status"] == 410 && anew["token"] != poller.token.as_str(), "{anew}");
    app.stop().await;
}

#[tokio::test]
async fn l116_posts_are_no_polls() {
    let app = with_window(Duration::from_millis(200)).await;
    let poller = Poller::open(&app).await;
    let gone = within("the end of the session", async {
        loop {
            let answer = poller.post(json!([null, "1", "phoenix", "heartbeat", {}]).to_string()).await.ok();
            if answer["status"] != 200 {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(gone, json!({ "status": 410 }));
    app.stop().await;
}

#[tokio::test]
async fn l117_a_disconnect_ends_a_poll_that_waits_and_the_next_one() {
    let app = App::start().await;
    let poller = Poller::new(app.address, "vsn=2.0.0&user_id=u1").opened().await;
    let other = Poller::new(app.address, "vsn=2.0.0&user_id=u2").opened().await;
    poller.frames(&[json!(["11", "1", T, "phx_join", {}])]).await;
    poller.fetch(3).await;
    let waiting = poller.parked().await;
    assert_eq!(app.state.connections().disconnect(|identity| identity.person.id == "u1"), 1);
    assert_eq!(within("the poll", waiting).await.unwrap(), json!({ "status": 410, "messages": [] }));
    until("the session to go", || app.state.connections().count() == 1).await;
    until("its channel to end", || app.hooks.ended(T) == [Leave::Closed]).await;
    assert_eq!(poller.poll().await["status"], 410);
    assert_eq!(poller.post("[]").await.ok(), json!({ "status": 410 }));
    other.frames(&[json!([null, "1", "phoenix", "heartbeat", {}])]).await;
    other.fetch(1).await;
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

#[tokio::test]
async fn a_body_that_is_no_frame_ends_the_session_and_says_why() {
    let options = transport::Options { max_body_bytes: 600_000, ..Default::default() };
    let app = App::start_with(channel::Options::default(), options).await;
    let frame = |bytes: usize| json!([null, "1", "phoenix", "heartbeat", { "pad": "x".repeat(bytes) }]).to_string();
    for (body, status) in [
        ("{}".to_owned(), 400),
        ("[1,2]".to_owned(), 400),
        ("[".to_owned(), 400),
        ("not base64!".to_owned(), 400),
        ("AAEC".to_owned(), 400),
        (frame(300_000), 413),
        (vec![frame(200_000); 4].join("\n"), 413),
    ] {
        let poller = Poller::open(&app).await;
        poller.join(T).await;
        let waiting = poller.parked().await;
        let answer = poller.post(body.clone()).await;
        let (told, shown) = (answer.json(), body.get(..20).unwrap_or(&body));
        assert_eq!((answer.status, &told["status"]), (status, &status.into()), "{shown}");
        assert!(told["reason"].as_str().is_some_and(|reason| reason.len() > 10), "{told}");
        assert_eq!(within("the poll", waiting).await.unwrap()["status"], 410, "{shown}");
        assert_eq!(poller.post(frame(1)).await.ok(), json!({ "status": 410 }), "{shown}");
    }
    assert_eq!(Poller::open(&app).await.post("[9\n".repeat(200)).await.status, 400);
    app.stop().await;
}

#[tokio::test]
async fn g76_a_drain_shows_a_last_frame_and_ends_the_session() {
    let app = App::start().await;
    let (poller, bare, away) = (Poller::open(&app).await, Poller::open(&app).await, Poller::open(&app).await);
    for poller in [&poller, &away] {
        poller.frames(&[json!(["11", "1", "log:a", "phx_join", {}])]).await;
        poller.fetch(1).await;
    }
    let (waiting, bare_waits) = (poller.parked().await, bare.parked().await);
    let connections = app.state.connections().clone();
    let drain = tokio::spawn(async move { connections.drain(Duration::ZERO, |_| false).await });
    let last = read(&within("the poll", waiting).await.unwrap());
    assert_eq!(last.iter().map(|frame| &frame[3]).collect::<Vec<_>>(), ["draining"]);
    assert_eq!(within("the poll", bare_waits).await.unwrap(), json!({ "status": 410, "messages": [] }));
    assert_eq!(poller.poll().await, json!({ "status": 410, "messages": [] }));
    // The application's own token names no session: this client begins, and is to come back later.
    for query in ["vsn=2.0.0", "token=jwt&vsn=2.0.0"] {
        let anew = Poller::new(app.address, query);
        let answer = send(anew.client.get(&anew.base)).await;
        assert_eq!((answer.status, answer.header("retry-after")), (503, Some("1")), "{query}");
        assert_eq!(answer.json(), json!({ "status": 500 }));
    }
    // The client that is away has a moment to come for its last frame; then nobody waits for it.
    let drained = within("the drain", drain).await.unwrap();
    assert_eq!((drained.told, drained.left), (3, 0));
    app.stop().await;
}

#[tokio::test]
async fn a_session_of_chat_is_served_over_requests_and_ends_with_the_server() {
    let (server, script) = TestServer::start().await;
    let poller = Poller::new(server.server.address(), "user_id=ada&name=Ada&vsn=2.0.0&").opened().await;
    poller.frames(&[json!(["1", "1", "session:s1", "phx_join", {}])]).await;
    let joined = poller.fetch_until(|frame| frame[1] == "1").await;
    assert_eq!(joined[4]["response"]["replay"]["mode"], "snapshot", "{joined}");
    poller.frames(&[json!(["1", "2", "session:s1", "send", { "text": "hi", "answer": false }])]).await;
    let sent = poller.fetch_until(|frame| frame[1] == "2").await;
    assert_eq!(sent[4]["status"], "ok", "{sent}");
    assert_eq!(server.server.connections().count(), 1);
    drop(script);
    let waiting = poller.parked().await;
    within("the server to stop", Box::pin(server.stop())).await;
    let last = within("the poll", waiting).await.unwrap();
    assert!(last["status"] == 410 || last.to_string().contains("draining"), "{last}");
}
