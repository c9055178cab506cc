//! Tokens of every kind, right and wrong, over HTTP, WebSockets and long-polling.

use aws_lc_rs::hmac;
use rejoin::{
    auth::{Options, SharedSecret, Source},
    config::Auth,
};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    form::Version,
    http::Http,
    jwt::{Issuer, SECRET, claims, guarded, hmac_with, hs256, key_set, lasting, now, signed_part},
    poll::Poller,
    process,
    server::TestServer,
    ws::TestClient,
};

/// Four issuers whose keys are published, a secret, and a server that asks for issuer and audience.
struct World {
    rsa: Issuer,
    p256: Issuer,
    p384: Issuer,
    ed: Issuer,
    server: TestServer,
    _folder: TempDir,
}

impl World {
    async fn start() -> Self {
        let (rsa, p256) = (Issuer::rsa("r1"), Issuer::p256("e1"));
        let (p384, ed) = (Issuer::p384("e2"), Issuer::ed25519("d1"));
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("keys.json");
        std::fs::write(&path, key_set(&[&rsa, &p256, &p384, &ed])).unwrap();
        let auth = Auth::Jwt(Box::new(Options {
            secret: Some(SharedSecret::new(SECRET)),
            keys: Some(Source::File(path)),
            issuer: Some("https://login.test".to_owned()),
            audience: Some("rejoin".to_owned()),
        }));
        let (server, _) = Box::pin(TestServer::start_with(|config| config.auth = auth)).await;
        Self { rsa, p256, p384, ed, server, _folder: folder }
    }

    fn at(&self, path: &str) -> String {
        self.server.http(path)
    }
}

/// The claims of a sound token, with `change` in it; null takes a claim out.
fn sound(change: &Value) -> Value {
    let mut all = claims("u1", json!({"session:*": "write", "sessions": "read"}));
    (all["iss"], all["aud"]) = ("https://login.test".into(), "rejoin".into());
    for (key, value) in change.as_object().unwrap() {
        match value {
            Value::Null => drop(all.as_object_mut().unwrap().remove(key)),
            value => all[key] = value.clone(),
        }
    }
    all
}

/// The same token with another payload under the old signature.
fn tampered(token: &str, claims: &Value) -> String {
    let parts: Vec<&str> = token.split('.').collect();
    let payload = signed_part(&json!({}), claims);
    format!("{}.{}.{}", parts[0], payload.split('.').nth(1).unwrap(), parts[2])
}

/// Wrong tokens: what is wrong, the token, and a part of what the client is told.
fn wrong(world: &World) -> Vec<(&'static str, String, &'static str)> {
    let good = sound(&json!({}));
    let with = |change: Value| hs256(&sound(&change));
    let hs = |header: Value, secret: &[u8]| hmac_with(&header, &good, hmac::HMAC_SHA256, secret);
    let none = |name: &str| format!("{}.", signed_part(&json!({"alg": name, "typ": "JWT"}), &good));
    let rs = world.rsa.token("RS256", &good);
    let public = world.rsa.jwk()["n"].as_str().unwrap().to_owned();
    let set = key_set(&[&world.rsa]);
    let stranger = Issuer::rsa("r1");
    vec![
        ("empty", String::new(), "a token is needed"),
        ("no JWT", "abc".into(), "no signed JWT"),
        ("two parts", "e30.e30".into(), "no signed JWT"),
        ("four parts", format!("{rs}.x"), "no signed JWT"),
        ("header that is no JSON", format!("YWJj{}", &rs[rs.find('.').unwrap()..]), "no signed JWT"),
        ("longer than 16 KiB", with(json!({"pad": "x".repeat(17_000)})), "longer than 16 KiB"),
        ("alg none", none("none"), "algorithm is not accepted"),
        ("alg None", none("None"), "algorithm is not accepted"),
        ("alg none with a signature of HS256", hs(json!({"alg": "none"}), SECRET.as_bytes()), "not accepted"),
        ("no alg", hs(json!({"typ": "JWT"}), SECRET.as_bytes()), "no signed JWT"),
        (
            "alg HS512 with the secret",
            hmac_with(&json!({"alg": "HS512"}), &good, hmac::HMAC_SHA512, SECRET.as_bytes()),
            "not accepted",
        ),
        ("alg ES512", hs(json!({"alg": "ES512"}), SECRET.as_bytes()), "not accepted"),
        (
            "HS256 with another secret",
            hs(json!({"alg": "HS256"}), b"another secret, which nobody here knows"),
            "signature is wrong",
        ),
        ("HS256 with an empty secret", hs(json!({"alg": "HS256"}), b""), "signature is wrong"),
        (
            "HS256 with the public modulus as secret",
            hs(json!({"alg": "HS256", "kid": "r1"}), public.as_bytes()),
            "signature is wrong",
        ),
        (
            "HS256 with the published set as secret",
            hs(json!({"alg": "HS256", "kid": "r1"}), set.as_bytes()),
            "signature is wrong",
        ),
        ("RS256 that is an HMAC", hs(json!({"alg": "RS256", "kid": "r1"}), SECRET.as_bytes()), "signature is wrong"),
        (
            "RS256 that is a PS256",
            world.rsa.sign("PS256", &json!({"alg": "RS256", "kid": "r1"}), &good),
            "signature is wrong",
        ),
        (
            "RS256 under the id of an EC key",
            world.rsa.sign("RS256", &json!({"alg": "RS256", "kid": "e1"}), &good),
            "no key fits",
        ),
        (
            "ES256 under the id of a P-384 key",
            world.p256.sign("ES256", &json!({"alg": "ES256", "kid": "e2"}), &good),
            "no key fits",
        ),
        (
            "EdDSA under the id of an RSA key",
            world.ed.sign("EdDSA", &json!({"alg": "EdDSA", "kid": "r1"}), &good),
            "no key fits",
        ),
        ("a stranger's key under a known id", stranger.token("RS256", &good), "signature is wrong"),
        ("an unknown id", Issuer::p256("nobody").token("ES256", &good), "no key fits"),
        (
            "the key in its own header (jwk)",
            stranger.sign("RS256", &json!({"alg": "RS256", "jwk": stranger.jwk()}), &good),
            "signature is wrong",
        ),
        ("crit", world.rsa.sign("RS256", &json!({"alg": "RS256", "kid": "r1", "crit": ["x"], "x": 1}), &good), "crit"),
        ("a changed payload", tampered(&rs, &sound(&json!({"sub": "root"}))), "signature is wrong"),
        ("a cut signature", rs[..rs.len() - 4].to_owned(), "signature is wrong"),
        ("no signature", format!("{}.", &rs[..rs.rfind('.').unwrap()]), "signature is wrong"),
        ("expired a second ago", with(json!({"exp": now() - 1})), "has expired"),
        (
            "expired, and with a wrong signature",
            tampered(&with(json!({"exp": 1})), &sound(&json!({"exp": 2}))),
            "signature is wrong",
        ),
        ("exp that is a text", with(json!({"exp": "tomorrow"})), "claims cannot be used"),
        ("not valid yet", with(json!({"nbf": now() + 60})), "not valid yet"),
        ("another issuer", with(json!({"iss": "https://evil.test"})), "another issuer"),
        ("no issuer", with(json!({"iss": null})), "another issuer"),
        ("another audience", with(json!({"aud": ["a", "b"]})), "another audience"),
        ("no audience", with(json!({"aud": null})), "another audience"),
        ("no sub", with(json!({"sub": null})), "sub is missing"),
        ("sub of an agent", with(json!({"sub": "agent:echo"})), "reserved"),
        ("sub that is a number", with(json!({"sub": 1})), "claims cannot be used"),
        ("topics that are a list", with(json!({"topics": ["session:*"]})), "an object of patterns"),
        ("a pattern with * inside", with(json!({"topics": {"s*n": "read"}})), "has the pattern"),
        ("an access that is none", with(json!({"topics": {"*": "root"}})), "not read, write or admin"),
        ("claims that are no object", hs256(&json!([1])), "claims cannot be used"),
    ]
}

#[tokio::test]
async fn wrong_tokens_are_refused_everywhere_and_told_why() {
    let world = World::start().await;
    let http = Http::new(&world.at("/"));
    println!("| token | HTTP | WebSocket | long-poll | what is told |\n|---|---|---|---|---|");
    for (what, token, told) in wrong(&world) {
        let bearer = format!("Bearer {token}");
        let answer = http.ask(reqwest::Method::GET, "/api/sessions", &[("authorization", &bearer)], "").await;
        answer.refuses(401, "unauthorized");
        let problem: Value = serde_json::from_str(&answer.body).unwrap();
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(told), "{what}: {detail}");
        let in_query = http.get(&format!("/api/sessions?token={token}")).await;
        in_query.refuses(401, "unauthorized");
        // Who it is decides before anything is said of the handshake.
        let socket = http.get(&format!("/socket/websocket?vsn=2.0.0&token={token}")).await;
        assert_eq!((socket.status, socket.body.contains(told)), (403, true), "{what}: {socket:?}");
        let url = world.at(&format!("/socket/longpoll?vsn=2.0.0&token={token}"));
        let polled = Poller::open(&url, Version::V2).await.err();
        assert_eq!(polled, Some(403), "{what}");
        println!("| {what} | {} | {} | 403 | {detail} |", answer.status, socket.status);
    }
}

#[tokio::test]
async fn sound_tokens_of_every_kind_are_taken() {
    let world = World::start().await;
    let http = Http::new(&world.at("/"));
    let good = sound(&json!({}));
    let mut tokens = vec![("HS256", hs256(&good))];
    for algorithm in ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"] {
        tokens.push((algorithm, world.rsa.token(algorithm, &good)));
    }
    tokens.push(("ES256", world.p256.token("ES256", &good)));
    tokens.push(("ES384", world.p384.token("ES384", &good)));
    tokens.push(("EdDSA", world.ed.token("EdDSA", &good)));
    tokens.push(("ES256 without kid", world.p256.sign("ES256", &json!({"alg": "ES256"}), &good)));
    tokens.push(("aud in a list", hs256(&sound(&json!({"aud": ["x", "rejoin"]})))));
    tokens.push(("without exp", hs256(&sound(&json!({"exp": null})))));
    tokens.push(("nbf within the leeway", hs256(&sound(&json!({"nbf": now() + 3})))));
    for (what, token) in tokens {
        let bearer = format!("Bearer {token}");
        let answer = http.ask(reqwest::Method::GET, "/api/sessions", &[("authorization", &bearer)], "").await;
        assert_eq!(answer.status, 200, "{what}: {answer:?}");
        let url = format!("{}/socket/websocket?vsn=2.0.0&token={token}", world.at("").replace("http", "ws"));
        let mut client = TestClient::connect(url).await;
        join(&mut client, "session:s1").await;
        let url = world.at(&format!("/socket/longpoll?vsn=2.0.0&token={token}"));
        assert!(Poller::open(&url, Version::V2).await.is_ok(), "{what}");
    }
}

#[tokio::test]
async fn without_a_token_nobody_is_let_in_and_everybody_is_told_how() {
    let world = World::start().await;
    let response = reqwest::Client::builder().no_proxy().build().unwrap().get(world.at("/api/sessions")).send();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"rejoin\"");
    let http = Http::new(&world.at("/"));
    let refused = http.get("/socket/websocket?vsn=2.0.0&user_id=u1").await;
    assert_eq!((refused.status, refused.body.contains("a token is needed")), (403, true), "{refused:?}");
    for open in ["/healthz", "/readyz", "/"] {
        assert_eq!(http.get(open).await.status, 200, "{open}");
    }
}

async fn enter(server: &TestServer, token: &str) -> TestClient {
    let url = server.http(&format!("/socket/websocket?vsn=2.0.0&token={token}")).replace("http://", "ws://");
    TestClient::connect(url).await
}

/// Joins a topic whatever else is joined and pushed.
async fn join(client: &mut TestClient, topic: &str) {
    let reference = client.push(topic, "phx_join", json!({})).await;
    client.assert_reply(&reference, "ok").await;
}

#[tokio::test]
async fn an_expired_token_ends_the_connection_and_a_renewed_one_does_not() {
    let (server, _script) = guarded().await;
    let topics = || json!({"room:*": "write"});
    let mut ends = enter(&server, &lasting("u1", topics(), 2)).await;
    let mut stays = enter(&server, &lasting("u2", topics(), 2)).await;
    for client in [&mut ends, &mut stays] {
        join(client, "room:a").await;
    }
    let later = json!({ "token": lasting("u2", topics(), 3_600) });
    let reference = stays.push("room:a", "access_token", later).await;
    stays.assert_reply(&reference, "ok").await;
    assert_eq!(ends.close_code().await, 1008);
    let reference = stays.push("room:a", "shout", json!({"still": "here"})).await;
    stays.assert_reply(&reference, "ok").await;
}

#[tokio::test]
async fn a_token_of_another_user_or_a_bad_one_is_refused_and_the_old_one_stays() {
    let (server, _script) = guarded().await;
    let mut client = enter(&server, &lasting("u1", json!({"room:*": "write"}), 3_600)).await;
    join(&mut client, "room:a").await;
    for token in [lasting("u2", json!({"*": "admin"}), 3_600), "abc".to_owned(), lasting("u1", json!({}), -1)] {
        let reference = client.push("room:a", "access_token", json!({ "token": token })).await;
        assert_eq!(client.assert_reply(&reference, "error").await["reason"], "unauthorized", "{token}");
    }
    let reference = client.push("room:a", "access_token", json!({ "no": "token" })).await;
    assert_eq!(client.assert_reply(&reference, "error").await["reason"], "invalid");
    let reference = client.push("room:a", "shout", json!({})).await;
    client.assert_reply(&reference, "ok").await;
}

#[tokio::test]
async fn a_renewal_with_fewer_rights_ends_what_it_does_not_open_any_more() {
    let (server, _script) = guarded().await;
    let mut client = enter(&server, &lasting("u1", json!({"room:*": "write"}), 3_600)).await;
    join(&mut client, "room:a").await;
    join(&mut client, "room:b").await;
    let fewer = json!({ "token": lasting("u1", json!({"room:a": "read"}), 3_600) });
    let reference = client.push("room:a", "access_token", fewer).await;
    client.assert_reply(&reference, "ok").await;
    assert_eq!(client.assert_push("room:b", "phx_error").await, json!({ "reason": "unauthorized" }));
    let reference = client.push("room:b", "phx_join", json!({})).await;
    assert_eq!(client.assert_reply(&reference, "error").await["reason"], "unauthorized");
    let reference = client.push("room:a", "shout", json!({})).await;
    assert_eq!(client.assert_reply(&reference, "error").await["reason"], "unauthorized", "read, and no more");
}

#[tokio::test]
async fn i15_a_turn_goes_on_when_the_token_of_who_asked_runs_out() {
    let (server, mut script) = guarded().await;
    let asks = json!({"session:*": "write"});
    let mut client = enter(&server, &lasting("u1", asks.clone(), 2)).await;
    join(&mut client, "session:s").await;
    let reference = client.push("session:s", "send", json!({ "text": "hello" })).await;
    let turn = client.assert_reply(&reference, "ok").await["turn_id"].clone();
    let running = script.turn().await;
    running.say("before ").await;
    assert_eq!(client.close_code().await, 1008);
    running.say("and after").await;
    running.done().await;
    let token = lasting("u1", asks, 3_600);
    let url = server.http(&format!("/socket/websocket?vsn=2.0.0&token={token}")).replace("http://", "ws://");
    let mut back = crate::support::client::SessionClient::join(&url, "s").await;
    assert_eq!(back.end_of(&turn).await, "completed");
    assert_eq!(back.answer_of(&turn).as_deref(), Some("before and after"));
}

#[tokio::test]
async fn a_minted_token_opens_a_server_with_the_same_secret() {
    let (server, _script) = guarded().await;
    let folder = TempDir::new().unwrap();
    let mint = async |args: &[&str]| {
        let mut command = process::command(folder.path());
        command.arg("token").args(args);
        process::run(command).await
    };
    let (status, token, _) = mint(&["--auth=jwt", "--jwt-secret", SECRET, "--sub", "u9"]).await;
    assert!(status.success());
    let bearer = format!("Bearer {}", token.trim());
    let http = Http::new(&server.http("/"));
    let answer = http.ask(reqwest::Method::GET, "/api/nodes", &[("authorization", &bearer)], "").await;
    assert_eq!(answer.status, 200, "an admin unless something else is asked for: {answer:?}");
    for (args, word) in [
        (&["--sub", "u9"][..], "set auth to jwt"),
        (&["--auth=jwt", "--jwt-secret", SECRET, "--topics", "all"], "--topics is no JSON"),
        (&["--auth=jwt", "--jwt-secret", SECRET, "--ttl", "soon"], "--ttl: give a number"),
        (&["--auth=jwt", "--jwt-secret", SECRET, "--sub", "agent:x"], "reserved"),
    ] {
        let (status, _, complaint) = mint(args).await;
        assert!(status.code() == Some(2) && complaint.contains(word), "{complaint}");
    }
}

#[tokio::test]
async fn a_server_whose_keys_cannot_be_read_says_so_and_lets_nobody_in() {
    // Nobody listens there.
    let url = format!("http://{}/keys", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let keys = Some(Source::Url(url.parse().unwrap()));
    let auth = Auth::Jwt(Box::new(Options { keys, ..Options::default() }));
    let (server, _script) = Box::pin(TestServer::start_with(|config| config.auth = auth)).await;
    let http = Http::new(&server.http("/"));
    let ready = http.get("/readyz").await;
    let state: Value = serde_json::from_str(&ready.body).unwrap();
    assert_eq!((ready.status, &state["ready"]), (503, &json!(false)), "{state}");
    assert!(state["keys"].as_str().unwrap().starts_with(&format!("{url}: it cannot be fetched")), "{state}");
    let token = Issuer::p256("k1").token("ES256", &sound(&json!({})));
    http.get(&format!("/api/sessions?token={token}")).await.refuses(503, "unavailable");
    let socket = http.get(&format!("/socket/websocket?vsn=2.0.0&token={token}")).await;
    assert_eq!((socket.status, socket.retry_after), (503, Some(5)), "it is not the token's fault: {socket:?}");
    let polled = http.get(&format!("/socket/longpoll?vsn=2.0.0&token={token}")).await;
    assert_eq!((polled.status, polled.body.as_str()), (503, r#"{"status":500}"#));
    http.get("/api/sessions").await.refuses(401, "unauthorized");
}

#[tokio::test]
async fn the_command_line_brings_a_token_and_tells_which_keys_there_are() {
    let (server, mut script) = guarded().await;
    let folder = TempDir::new().unwrap();
    let run = async |args: &[&str], token: &str| {
        let mut command = process::command(folder.path());
        command.args(args).args(["--url", &server.http(""), "--token", token]);
        Box::pin(process::run(command)).await
    };
    let token = lasting("u1", json!({"session:*": "write"}), 3_600);
    let answer = async {
        let turn = script.turn().await;
        turn.say("hello").await;
        turn.done().await;
    };
    let ((status, said, complaint), ()) = tokio::join!(run(&["send", "s", "hi"], &token), answer);
    assert!(status.success() && said == "hello\n", "{said} {complaint}");
    let (status, _, complaint) = run(&["tail", "session:s"], &lasting("u1", json!({}), 3_600)).await;
    assert!(status.code() == Some(1) && complaint.contains("unauthorized"), "{complaint}");
    let (_, _, complaint) = run(&["tail", "session:s"], &lasting("u1", json!({}), -5)).await;
    assert!(complaint.contains("403") && complaint.contains("check --token"), "{complaint}");

    let (one, two) = (Issuer::rsa("r1"), Issuer::ed25519("d1"));
    let mut set: Value = serde_json::from_str(&key_set(&[&one, &two])).unwrap();
    set["keys"].as_array_mut().unwrap().push(json!({"kty": "oct", "k": "c2VjcmV0", "kid": "h1"}));
    std::fs::write(folder.path().join("keys.json"), set.to_string()).unwrap();
    let mut command = process::command(folder.path());
    command.args(["check-config", "--auth=jwt", "--jwks-file=keys.json", "--jwt-secret", SECRET]);
    let (status, shown, doubts) = process::run(command).await;
    assert!(status.success());
    for line in [
        "jwt-secret = \"***\"  # --jwt-secret",
        "key (shared secret) = \"HS256\"  # jwt-secret",
        "key \"r1\" = \"RS256 RS384 RS512 PS256 PS384 PS512\"  # keys.json",
        "key \"d1\" = \"EdDSA\"  # keys.json",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    assert!(doubts.contains("keys.json: key 3 of the set is left out: a shared secret is not published"), "{doubts}");
    assert!(!shown.contains(SECRET) && !doubts.contains("c2VjcmV0"));
}
