//! Topic `admin` and the page that shows it: who may look, what is shown, and that it follows.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use rejoin::{
    auth::{Identity, Options, SharedSecret, Verifier},
    channel::{self, Host, Router},
    channels::{
        Renewals,
        admin::{self, Operators, Watch},
    },
    config::Auth,
    pubsub::Local,
    transport::{self, Connect, Refused, State},
};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::support::{
    client::SessionClient,
    cluster::{ClusterNode, SharedStore},
    http::{Http, keys},
    jwt::{SECRET, claims, hs256},
    operator::{Operator, turns},
    script::{Script, scripted},
    server::TestServer,
    ws::{TestClient, until, within},
};

const PARTS: [&str; 6] = ["at", "lost", "nodes", "queued", "server", "turns"];

async fn with_tokens() -> (TestServer, Script) {
    let secret = Some(SharedSecret::new(SECRET));
    let auth = Auth::Jwt(Box::new(Options { secret, keys: None, issuer: None, audience: None }));
    Box::pin(TestServer::start_with(|config| config.auth = auth)).await
}

fn url(server: &TestServer, topics: Value) -> String {
    let token = hs256(&claims("op", topics));
    format!("ws://{}/socket/websocket?vsn=2.0.0&token={token}", server.server.address())
}

#[tokio::test]
async fn only_who_may_everything_may_look() {
    let (server, _script) = with_tokens().await;
    for topics in [
        json!({}),
        json!({ "admin": "read" }),
        json!({ "admin": "admin" }),
        json!({ "session:*": "admin", "room:*": "admin" }),
        json!({ "*": "write" }),
    ] {
        let mut client = TestClient::connect(url(&server, topics.clone()).as_str()).await;
        client.frame(json!(["11", "1", "admin", "phx_join", {}])).await;
        let reply = client.next().await;
        assert_eq!((&reply[3], &reply[4]["status"]), (&"phx_reply".into(), &"error".into()), "{topics}");
        assert_eq!(reply[4]["response"]["reason"], "unauthorized", "{topics}");
    }
    let operator = Operator::watch(&url(&server, json!({ "*": "admin" }))).await;
    assert_eq!(keys(&Value::Object(operator.held)), PARTS);
    server.stop().await;
}

#[tokio::test]
async fn who_is_given_less_rights_is_shown_nothing_more() {
    let (server, _script) = with_tokens().await;
    let mut operator = Operator::watch(&url(&server, json!({ "*": "admin" }))).await;
    operator.next().await;
    let token = hs256(&claims("op", json!({ "session:*": "admin" })));
    assert_eq!(operator.ask("access_token", json!({ "token": token })).await.0, "ok");
    let (status, refused) = operator.cancel("s", &"t".into()).await;
    assert_eq!((status.as_str(), &refused["reason"]), ("error", &"not_found".into()), "sessions are still its own");
    let ended = operator.other().await;
    assert_eq!((&ended[2], &ended[3]), (&"admin".into(), &"phx_error".into()), "{ended}");
    server.stop().await;
}

#[tokio::test]
async fn turns_are_shown_as_they_wait_and_run() {
    let (server, mut script) = TestServer::start().await;
    let mut operator = Operator::watch(&server.ws("op")).await;
    assert_eq!((&operator.held["turns"], &operator.held["queued"]["count"]), (&json!([]), &json!(0)));
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    ada.ok("update", json!({ "title": "Plans" })).await;
    let first = ada.send("one").await;
    let second = ada.send("two").await;
    operator.until("both turns", |held| held["turns"].as_array().unwrap().len() == 2).await;
    let (running, queued) = (turns(&operator.held, "running"), turns(&operator.held, "queued"));
    assert_eq!((running[0]["session"].as_str(), running[0]["title"].as_str()), (Some("s"), Some("Plans")));
    let turn = &running[0]["turn"];
    assert_eq!((&turn["id"], &turn["by"]["id"], &turn["agent"]), (&first["turn_id"], &"ada".into(), &"script".into()));
    let owner =
        json!({ "node": "test", "incarnation": operator.held["server"]["node"]["incarnation"], "liveness": "alive" });
    assert_eq!(turn["owner"], owner);
    assert_eq!((&queued[0]["turn"]["id"], &queued[0]["turn"]["position"]), (&second["turn_id"], &json!(1)));
    operator.until("the count of what waits", |held| held["queued"]["count"] == 1).await;
    assert!(operator.held["queued"]["oldest"].is_string());
    let busy = |node: &Value| node["running_turns"] == 1 && node["connections"] == 2 && node["rates"]["channels"] == 2;
    operator.until("the node to be busy", |held| busy(&held["nodes"][0])).await;
    assert_eq!(operator.held["nodes"][0]["lease_ttl_ms"], 6_000);
    script.turn().await.done().await;
    script.turn().await.done().await;
    operator.until("the end of both", |held| held["turns"] == json!([]) && held["queued"]["count"] == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again_and_nothing_oftener_than_once_a_second() {
    let (server, _script) = TestServer::start().await;
    let mut operator = Operator::watch(&server.ws("op")).await;
    let began = Instant::now();
    for _ in 0..4 {
        operator.next().await;
    }
    assert!(began.elapsed() > Duration::from_millis(2_500), "{:?}", began.elapsed());
    for push in &operator.pushes {
        assert!(push.iter().all(|part| ["at", "nodes"].contains(&part.as_str())), "{push:?}");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_operator_cancels_anybody_s_turn() {
    let (server, mut script) = TestServer::start().await;
    let mut ada = SessionClient::join_at(&server, "ada", "s").await;
    let sent = ada.send("one").await;
    let turn = script.turn().await;
    let mut operator = Operator::watch(&server.ws("op")).await;
    let (status, answer) = operator.cancel("s", &sent["turn_id"]).await;
    let expected = json!({ "outcome": "cancelled", "status": "cancelled", "reason": "user" });
    assert_eq!((status.as_str(), &answer), ("ok", &expected));
    turn.dropped().await;
    ada.end_of(&sent["turn_id"]).await;
    let ended = ada.events.iter().find(|event| event["type"] == "turn_cancelled").unwrap();
    assert_eq!(ended["by"]["id"], "op");
    let (_, again) = operator.cancel("s", &sent["turn_id"]).await;
    assert_eq!(again["outcome"], "already_ended");
    for (event, payload, reason) in [
        ("cancel", json!({ "session": "s", "turn_id": "none" }), "not_found"),
        ("cancel", json!({ "session": "none", "turn_id": sent["turn_id"] }), "not_found"),
        ("cancel", json!({ "turn_id": sent["turn_id"] }), "invalid"),
        ("send", json!({ "text": "hi" }), "invalid"),
    ] {
        let (status, refused) = operator.ask(event, payload.clone()).await;
        assert_eq!((status.as_str(), &refused["reason"]), ("error", &reason.into()), "{event} {payload}");
    }
    server.stop().await;
}

/// A node with the topic alone, over a store that counts how often it is read.
struct Bare {
    store: SharedStore,
    node: ClusterNode,
    operators: Operators,
    watch: Watch,
    state: State,
    script: Script,
    address: SocketAddr,
    serving: JoinHandle<()>,
    stop: CancellationToken,
}

impl Bare {
    async fn start() -> Self {
        let store = SharedStore::open().await;
        let (agents, script) = scripted();
        let node = ClusterNode::start(&store, Arc::new(Local::new()), agents).await;
        let operators = Operators::new(node.sessions.clone(), Renewals::new(Verifier::open()), TaskTracker::new());
        let channels = operators.clone();
        let router = Router::new().route(admin::TOPIC, move || channels.channel());
        let host = Host::new(router, node.pubsub.clone(), channel::Options::default());
        let watch = operators.watch(host.clone(), None);
        let connect: Connect = Arc::new(|client| {
            Identity::open(client.get("user_id"), client.get("name")).map_err(|_| Refused::default()).into()
        });
        let state = State::new(host, connect, transport::Options::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let (routes, lobby) = (transport::routes(state.clone()), state.lobby().clone());
        let serving = tokio::spawn(transport::serve(listener, routes, lobby, stop.clone()));
        Self { store, node, operators, watch, state, script, address, serving, stop }
    }

    fn ws(&self) -> String {
        format!("ws://{}/socket/websocket?vsn=2.0.0&user_id=op", self.address)
    }

    async fn stop(self) {
        self.state.connections().drain(Duration::ZERO, |_| false).await;
        self.stop.cancel();
        within("the server to end", self.serving).await.unwrap();
        within("the look to end", self.watch.stop()).await;
        self.node.stop().await;
    }
}

#[tokio::test]
async fn where_nobody_watches_nothing_is_read_and_two_cost_no_more_than_one() {
    let mut bare = Bare::start().await;
    bare.node.sessions.create("s", Default::default(), true).await.unwrap();
    bare.node.send("s", "one", true).await;
    let _held = bare.script.turn().await;
    assert_eq!((bare.store.picked(), bare.operators.is_looking()), (0, false));
    let (mut one, mut two) = (Operator::watch(&bare.ws()).await, Operator::watch(&bare.ws()).await);
    let before = bare.store.picked();
    for _ in 0..3 {
        one.next().await;
        two.next().await;
    }
    assert!(bare.store.picked() - before <= 4, "{before} {}", bare.store.picked());
    drop((one, two));
    until("it has given up", || !bare.operators.is_looking()).await;
    let before = bare.store.picked();
    bare.node.send("s", "two", true).await;
    assert_eq!(bare.store.picked(), before);
    // What was known before is not what it shows next.
    let operator = Operator::watch(&bare.ws()).await;
    assert_eq!((turns(&operator.held, "running").len(), turns(&operator.held, "queued").len()), (1, 1));
    bare.stop().await;
}

#[tokio::test]
async fn the_page_needs_no_token_and_may_talk_to_its_own_server_only() {
    let (server, _script) = with_tokens().await;
    let http = Http::new(&server.http("/"));
    for (path, kind, part) in [
        ("/admin", "text/html; charset=utf-8", "/admin/app.js"),
        ("/admin/app.js", "text/javascript; charset=utf-8", "Contains phoenix"),
        ("/admin/app.css", "text/css; charset=utf-8", "--ground"),
    ] {
        let answer = http.get(path).await;
        assert_eq!((answer.status, answer.kind.as_str()), (200, kind), "{path}");
        assert!(answer.body.contains(part), "{path}");
    }
    let answer = reqwest::get(server.http("/admin")).await.unwrap();
    let policy = answer.headers()["content-security-policy"].to_str().unwrap().to_owned();
    for rule in ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(rule), "{policy}");
    }
    server.stop().await;
}
