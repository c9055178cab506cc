//! Pages of other origins: an allowed one may ask and read, any other is told nothing and drives nothing.

use reqwest::{
    Client, Method, Response,
    header::{HeaderMap, HeaderName},
};
use serde_json::json;

use crate::support::{
    http::Http,
    server::TestServer,
    ws::{LIMIT, within},
};

const APP: &str = "https://app.example.com";
const EVIL: &str = "https://evil.example";

/// A server that the pages of one origin may use.
async fn start() -> TestServer {
    let (server, _script) = TestServer::start_with(|config| config.allowed_origins = Some(vec![APP.to_owned()])).await;
    server
}

/// A request as a browser sends it for a page of `origin`.
async fn ask(server: &TestServer, method: Method, path: &str, origin: &str, more: &[(&str, &str)]) -> Response {
    let client = Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
    let mut request = client.request(method, server.http(path)).header("origin", origin);
    for (name, value) in more {
        request = request.header(*name, *value);
    }
    within("an answer", request.send()).await.unwrap()
}

async fn preflight(server: &TestServer, path: &str, origin: &str, method: &str) -> Response {
    let asks =
        [("access-control-request-method", method), ("access-control-request-headers", "authorization,content-type")];
    ask(server, Method::OPTIONS, path, origin, &asks).await
}

/// The headers that tell a browser something about sharing, and their values.
fn shared(headers: &HeaderMap) -> Vec<(&str, &str)> {
    let told = |name: &HeaderName| name.as_str().starts_with("access-control-");
    headers
        .iter()
        .filter(|(name, _)| told(name))
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap()))
        .collect()
}

/// Whether a cache is told that the answer depends on the origin.
fn varies(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all("vary").iter().flat_map(|value| value.to_str().unwrap().split(','));
    lines.any(|name| name.trim().eq_ignore_ascii_case("origin"))
}

#[tokio::test]
async fn a_preflight_of_an_allowed_page_is_told_methods_and_headers() {
    let server = start().await;
    for (path, method) in [
        ("/api/sessions", "POST"),
        ("/api/sessions/s", "PATCH"),
        ("/api/sessions/s", "DELETE"),
        ("/api/sessions/s/messages", "POST"),
        ("/api/sessions/s/events", "GET"),
        ("/api/nodes", "GET"),
    ] {
        let answer = preflight(&server, path, APP, method).await;
        let headers = answer.headers();
        let list = |name: &str| headers[name].to_str().unwrap().to_ascii_lowercase();
        assert_eq!((answer.status().as_u16(), list("access-control-allow-origin")), (204, APP.to_owned()), "{path}");
        assert!(list("access-control-allow-methods").contains(&method.to_ascii_lowercase()), "{headers:?}");
        for header in ["authorization", "content-type", "last-event-id", "traceparent", "tracestate"] {
            assert!(list("access-control-allow-headers").contains(header), "{headers:?}");
        }
        assert!(headers.contains_key("access-control-max-age") && varies(headers), "{headers:?}");
        assert!(!headers.contains_key("access-control-allow-credentials"), "{headers:?}");
        assert_eq!(answer.text().await.unwrap(), "");
    }
    server.stop().await;
}

#[tokio::test]
async fn an_allowed_page_may_read_every_kind_of_answer() {
    let server = start().await;
    let http = Http::new(&server.http("/"));
    http.post("/api/sessions", &json!({ "id": "s" })).await.ok(201);
    let stream = [("accept", "text/event-stream")];
    for (method, path, more, status) in [
        (Method::GET, "/api/sessions", &[][..], 200),
        (Method::GET, "/api/sessions/none", &[], 404),
        (Method::GET, "/nothing", &[], 404),
        (Method::PUT, "/api/sessions/s", &[], 405),
        (Method::POST, "/api/sessions", &[], 400),
        (Method::GET, "/api/sessions/s/events", &stream, 200),
        (Method::GET, "/openapi.json", &[], 200),
    ] {
        let answer = ask(&server, method, path, APP, more).await;
        let headers = answer.headers();
        assert_eq!(answer.status().as_u16(), status, "{path}");
        assert_eq!(headers["access-control-allow-origin"], APP, "{path}");
        let exposed = headers["access-control-expose-headers"].to_str().unwrap();
        assert!(exposed.contains("Retry-After") && varies(headers), "{path} {headers:?}");
    }
    let sent = ask(&server, Method::DELETE, "/api/sessions/s", APP, &[]).await;
    assert_eq!((sent.status().as_u16(), &sent.headers()["access-control-allow-origin"]), (200, &APP.parse().unwrap()));
    server.stop().await;
}

#[tokio::test]
async fn a_page_of_another_origin_is_told_nothing_and_changes_nothing() {
    let server = start().await;
    let http = Http::new(&server.http("/"));
    http.post("/api/sessions", &json!({ "id": "s", "title": "Plans" })).await.ok(201);
    let before = http.get("/api/sessions/s").await.ok(200);
    let json_kind = [("content-type", "application/json")];
    for origin in [EVIL, "null", "https://app.example.com.evil.example", "http://app.example.com"] {
        for (path, method) in [("/api/sessions/s", "DELETE"), ("/api/sessions/s", "PATCH"), ("/api/sessions", "POST")] {
            let answer = preflight(&server, path, origin, method).await;
            assert_eq!((shared(answer.headers()), varies(answer.headers())), (vec![], true), "{origin} {path}");
            assert_eq!(answer.text().await.unwrap(), "", "{origin} {path}");
            let answer = ask(&server, method.parse().unwrap(), path, origin, &json_kind).await;
            assert_eq!((answer.status().as_u16(), shared(answer.headers())), (403, vec![]), "{origin} {path}");
        }
        for path in ["/api/sessions", "/api/sessions/s", "/api/sessions/none", "/api/nodes", "/readyz", "/openapi.json"]
        {
            let answer = ask(&server, Method::GET, path, origin, &[]).await;
            assert_eq!((shared(answer.headers()), varies(answer.headers())), (vec![], true), "{origin} {path}");
        }
        // What exists and what does not are asked about in vain alike.
        let known = preflight(&server, "/api/sessions/s", origin, "GET").await;
        let unknown = preflight(&server, "/nothing", origin, "GET").await;
        assert_eq!(known.status(), unknown.status());
    }
    assert_eq!(http.get("/api/sessions/s").await.ok(200), before);
    server.stop().await;
}

#[tokio::test]
async fn as_delivered_only_pages_of_this_machine_may_use_a_server_on_it() {
    let (server, _script) = TestServer::start().await;
    let port = server.server.address().port();
    let host = format!("localhost:{port}");
    for (origin, host, allowed) in [
        // A development server beside it.
        ("http://localhost:5173", host.as_str(), true),
        ("http://localhost:5173", "127.0.0.1:4000", false),
        (EVIL, host.as_str(), false),
        // A name that somebody pointed here: the page and the server have the same one.
        ("http://evil.example:4000", "evil.example:4000", false),
        ("null", host.as_str(), false),
    ] {
        let asked = [("host", host), ("access-control-request-method", "POST")];
        let answer = ask(&server, Method::OPTIONS, "/api/sessions", origin, &asked).await;
        assert_eq!(!shared(answer.headers()).is_empty(), allowed, "{origin} {host}");
        let answer = ask(&server, Method::GET, "/api/sessions", origin, &asked[..1]).await;
        let told = answer.headers().get("access-control-allow-origin").map(|value| value.to_str().unwrap());
        assert_eq!(told, allowed.then_some(origin), "{origin} {host}");
    }
    server.stop().await;
}
