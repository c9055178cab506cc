//! What the application is told of those who connect: parameters, tokens, headers, at which mount.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use rejoin::{
    auth::Identity,
    channel::{self, Host},
    pubsub::PubSub,
    transport::{self, Origins, Param, Params, Refused, State, Transport},
};
use serde_json::Value;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::support::{
    raw::{self, header, status, upgrade},
    ws::{TestClient, within},
};

/// What the application was told of one client.
#[derive(Debug, Clone)]
struct Seen {
    mount: &'static str,
    transport: Transport,
    params: Params,
    token: Option<Vec<u8>>,
    peer: Option<SocketAddr>,
    uri: String,
    agent: Option<String>,
    headers: BTreeMap<String, String>,
}

type Record = Arc<Mutex<Vec<Seen>>>;

/// A server without channels that writes down who connects, at several mounts.
struct Edge {
    address: SocketAddr,
    /// That of the first mount.
    state: State,
    seen: Record,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

impl Edge {
    async fn start(mounts: &[(&'static str, transport::Options)]) -> Self {
        let seen = Record::default();
        let host = Host::new(channel::Router::new(), PubSub::new(), channel::Options::default());
        let mut first: Option<State> = None;
        let mut router = axum::Router::new();
        for (path, options) in mounts {
            let options = transport::Options { close_timeout: Duration::from_millis(100), ..options.clone() };
            let connect = recorder(path, &seen);
            let state = match &first {
                Some(first) => first.beside(connect, options),
                None => State::new(host.clone(), connect, options),
            };
            first.get_or_insert(state.clone());
            router = router.merge(transport::mount(path, state).unwrap());
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let state = first.unwrap();
        let lobby = state.lobby().clone();
        let serving = tokio::spawn(transport::serve(listener, router, lobby, shutdown.clone()));
        Self { address, state, seen, shutdown, serving }
    }

    /// One mount where a token is asked for.
    async fn with_tokens() -> Self {
        Self::start(&[("/socket", transport::Options { auth_token: true, ..Default::default() })]).await
    }

    /// The status and the sub-protocol with which a WebSocket is answered.
    async fn connect(&self, path: &str, headers: &[(&str, &str)]) -> (u16, Option<String>) {
        let head = raw::head(self.address, &upgrade(path, headers)).await;
        (status(&head), header(&head, "sec-websocket-protocol").map(str::to_owned))
    }

    /// Offers sub-protocols at the first mount.
    async fn offer(&self, protocols: &str) -> (u16, Option<String>) {
        self.connect("/socket/websocket?vsn=2.0.0", &[("Sec-WebSocket-Protocol", protocols)]).await
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The last that connected.
    fn last(&self) -> Seen {
        self.seen.lock().unwrap().last().cloned().expect("nobody has connected")
    }

    async fn stop(self) {
        self.state.connections().drain(Duration::ZERO, |_| false).await;
        self.shutdown.cancel();
        within("the server to end", self.serving).await.unwrap();
    }
}

fn recorder(mount: &'static str, seen: &Record) -> transport::Connect {
    let seen = Arc::clone(seen);
    Arc::new(move |client| {
        let headers = client.x_headers().chain(client.trace_context()).chain(client.sec_websocket_headers());
        seen.lock().unwrap().push(Seen {
            mount,
            transport: client.transport(),
            params: client.params().clone(),
            token: client.auth_token().map(|token| token.bytes().to_vec()),
            peer: client.peer(),
            uri: client.uri().to_string(),
            agent: client.user_agent().map(Into::into),
            headers: headers.map(|(name, value)| (name.to_owned(), value.into_owned())).collect(),
        });
        Identity::open(client.get("user_id"), None).map_err(|_| Refused::default()).into()
    })
}

async fn poll(url: String, headers: &[(&str, &str)]) -> Value {
    let mut request = reqwest::Client::builder().no_proxy().build().unwrap().get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let answer = within("an answer", request.send()).await.unwrap();
    assert_eq!(answer.status(), 200);
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a12_two_mounts_have_rules_of_their_own_and_end_together() {
    let origins = |list: &[&str]| transport::Options { origins: Origins::parse(list).unwrap(), ..Default::default() };
    let app = Edge::start(&[("/one", origins(&["one.example"])), ("/two", origins(&["two.example"]))]).await;
    for (path, origin, expected) in [
        ("/one", "http://one.example", 101),
        ("/one", "http://two.example", 403),
        ("/two", "http://two.example", 101),
        ("/two", "http://one.example", 403),
    ] {
        let answer = app.connect(&format!("{path}/websocket?vsn=2.0.0"), &[("Origin", origin)]).await;
        assert_eq!(answer.0, expected, "{path} {origin}");
        let polled = poll(app.url(&format!("{path}/longpoll?vsn=2.0.0")), &[("Origin", origin)]).await;
        assert_eq!(polled["status"], if expected == 101 { 410 } else { 403 }, "{path} {origin}");
    }
    let mounts: Vec<&str> = app.seen.lock().unwrap().iter().map(|seen| seen.mount).collect();
    assert_eq!(mounts, ["/one", "/one", "/two", "/two"]);

    let url = |path: &str| format!("ws://{}{path}/websocket?vsn=2.0.0", app.address);
    let (mut one, mut two) = (TestClient::connect(url("/one")).await, TestClient::connect(url("/two")).await);
    let connections = app.state.connections().clone();
    let drain = tokio::spawn(async move { connections.drain(Duration::ZERO, |_| false).await });
    assert_eq!((one.close_code().await, two.close_code().await), (1012, 1012));
    within("the drain", drain).await.unwrap();
    assert_eq!(TestClient::refused(url("/two")).await, 503);
    app.stop().await;
}

#[tokio::test]
async fn a13_a14_a_token_stands_beside_the_subprotocol_of_phoenix() {
    let app = Edge::with_tokens().await;
    let (phoenix, tok) = (Some("phoenix".to_owned()), Some(b"tok".to_vec()));
    assert_eq!(app.offer("phoenix, base64url.bearer.phx.dG9r").await, (101, phoenix.clone()));
    assert_eq!(app.last().token, tok);
    assert_eq!(app.offer("base64url.bearer.phx.dG9r").await, (101, None));
    assert_eq!(app.last().token, tok);
    let two = "base64url.bearer.phx.dG9r, base64url.bearer.phx.dG9y, phoenix";
    assert_eq!(app.offer(two).await, (101, phoenix));
    assert_eq!(app.last().token, None);
    assert_eq!(app.connect("/socket/websocket?vsn=2.0.0", &[]).await, (101, None));
    let accepted = app.seen.lock().unwrap().len();
    assert_eq!(app.offer("mqtt").await, (403, None));
    assert_eq!(app.seen.lock().unwrap().len(), accepted, "the application is not asked");
    app.stop().await;
}

#[tokio::test]
async fn a14_a_server_that_asks_for_no_token_ignores_what_else_is_offered() {
    let app = Edge::start(&[("/socket", transport::Options::default())]).await;
    assert_eq!(app.offer("mqtt").await, (101, None));
    assert_eq!(app.offer("base64url.bearer.phx.%%%, phoenix").await, (101, Some("phoenix".to_owned())));
    assert_eq!(app.last().token, None);
    let polled = poll(app.url("/socket/longpoll?vsn=2.0.0"), &[("X-Phoenix-AuthToken", "tok")]).await;
    assert_eq!((&polled["status"], app.last().token), (&410.into(), None));
    app.stop().await;
}

#[tokio::test]
async fn a15_tokens_are_bytes_in_either_alphabet() {
    let app = Edge::with_tokens().await;
    for (text, bytes) in [
        ("dPZrPz5lbg", &[0x74, 0xf6, 0x6b, 0x3f, 0x3e, 0x65, 0x6e][..]),
        ("+/+/", &[0xfb, 0xff, 0xbf]),
        ("-_-_", &[0xfb, 0xff, 0xbf]),
        ("dG8=", b"to"),
    ] {
        assert_eq!(app.offer(&format!("phoenix, base64url.bearer.phx.{text}")).await.0, 101, "{text}");
        assert_eq!(app.last().token.as_deref(), Some(bytes), "{text}");
    }
    assert_eq!(app.offer("phoenix, base64url.bearer.phx.a!b").await, (403, None));
    let polled = poll(app.url("/socket/longpoll?vsn=2.0.0"), &[("X-Phoenix-AuthToken", "to.k en")]).await;
    assert_eq!(polled["status"], 410);
    assert_eq!(app.last().token.as_deref(), Some(&b"to.k en"[..]));
    app.stop().await;
}

#[tokio::test]
async fn a16_nested_parameters_are_maps() {
    let app = Edge::start(&[("/socket", transport::Options::default())]).await;
    let query = "nested%5Ba%5D=b&name=Ada%20L.+X&list[]=1&list[]=2&vsn=2.0.0&";
    assert_eq!(app.connect(&format!("/socket/websocket?{query}"), &[]).await.0, 101);
    assert_eq!(poll(app.url(&format!("/socket/longpoll?{query}")), &[]).await["status"], 410);
    let text = |text: &str| Param::Text(text.to_owned());
    let seen = app.seen.lock().unwrap().clone();
    assert_eq!(seen.iter().map(|seen| seen.transport).collect::<Vec<_>>(), [Transport::WebSocket, Transport::LongPoll]);
    for Seen { params, .. } in seen {
        assert_eq!(params.get("name"), Some("Ada L. X"));
        assert_eq!(params.map()["nested"], Param::Map(BTreeMap::from([("a".to_owned(), text("b"))])));
        assert_eq!(params.map()["list"], Param::List(vec![text("1"), text("2")]));
    }
    let many = "a=1&".repeat(transport::MAX_PARAMS);
    assert_eq!(app.connect(&format!("/socket/websocket?{many}vsn=2.0.0"), &[]).await.0, 400);
    app.stop().await;
}

#[tokio::test]
async fn a17_variables_of_the_path_are_parameters_and_overrule_the_query() {
    let app = Edge::start(&[("/ws/{user_id}/in/{room}", transport::Options::default())]).await;
    let path = "/ws/ada%20l/in/r1/websocket?vsn=2.0.0&room=other&x=1";
    assert_eq!(app.connect(path, &[]).await.0, 101);
    let params = app.last().params;
    assert_eq!((params.get("user_id"), params.get("room"), params.get("x")), (Some("ada l"), Some("r1"), Some("1")));
    assert_eq!(poll(app.url("/ws/bob/in/r2/longpoll?vsn=2.0.0"), &[]).await["status"], 410);
    assert_eq!(app.last().params.get("user_id"), Some("bob"));
    assert_eq!(app.connect("/ws/ada/websocket?vsn=2.0.0", &[]).await.0, 404);
    app.stop().await;
}

#[tokio::test]
async fn a18_the_application_sees_who_calls_but_no_cookies() {
    let app = Edge::start(&[("/socket", transport::Options::default())]).await;
    let path = "/socket/websocket?a%5Bb%5D=1&vsn=2.0.0&";
    let headers = [
        ("User-Agent", "Rooms/7"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Twice", "1"),
        ("traceparent", "00-abc-def-01"),
        ("tracestate", "v=1"),
        ("Cookie", "secret=1"),
        ("Authorization", "Bearer secret"),
    ];
    let (stream, head) = raw::ask(app.address, &upgrade(path, &headers)).await;
    assert_eq!(status(&head), 101);
    let seen = app.last();
    assert_eq!(seen.peer, Some(stream.local_addr().unwrap()));
    assert_eq!(seen.uri, path);
    assert_eq!(seen.agent.as_deref(), Some("Rooms/7"));
    let expected = [
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
        ("traceparent", "00-abc-def-01"),
        ("tracestate", "v=1"),
        ("x-forwarded-for", "10.0.0.1"),
        ("x-twice", "1"),
    ];
    assert_eq!(seen.headers, expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into());
    drop(stream);
    app.stop().await;
}

#[tokio::test]
async fn what_is_no_path_cannot_be_mounted() {
    let app = Edge::start(&[("/socket", transport::Options::default())]).await;
    let refused = transport::mount("/ws/{", app.state.clone()).unwrap_err();
    assert!(refused.to_string().contains("/ws/{"), "{refused}");
    app.stop().await;
}
