//! `GET /openapi.json`: the description of this API, made from what serves it.
//!
//! Parameters, bodies and answers that are types are described by these types; what is put together from stored texts is
//! described in [`shapes`]; what holds for many operations alike is added by [`complete`]. A test holds the routes and
//! the document to each other, and another one real answers to the shapes.

mod complete;
mod shapes;

use std::sync::LazyLock;

use axum::{extract::State, response::Response};
use utoipa::OpenApi;

use super::{Api, cluster, health, json, metrics, sessions};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Rejoin",
        description = "Sessions of people and agents over HTTP: one durable log each, turns that are owned under a lease, \
                       and the live stream of both. Sockets are described in protocol/PROTOCOL.md.",
    ),
    tags(
        (name = "sessions", description = "Sessions, their messages and their logs."),
        (name = "turns", description = "Messages that are sent, and the turns that answer them."),
        (name = "operations", description = "The cluster and this server."),
    ),
    paths(
        sessions::list, sessions::create, sessions::look, sessions::update, sessions::delete, sessions::messages,
        sessions::send, sessions::events, sessions::cancel, sessions::retry, cluster::nodes, cluster::presence,
        cluster::broadcast, cluster::disconnect, health::alive, health::ready, metrics::scrape, serve,
    ),
    components(schemas(sessions::CreateFields)),
)]
struct Document;

/// The document as a server sends it that asks for no tokens, and as one that does; each made once.
static OPEN: LazyLock<String> = LazyLock::new(|| text(false));
static CLOSED: LazyLock<String> = LazyLock::new(|| text(true));

fn text(wants_token: bool) -> String {
    let mut document = serde_json::to_value(Document::openapi()).unwrap_or_default();
    complete::complete(&mut document, wants_token);
    document.to_string()
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "operations", operation_id = "describe",
    responses((status = 200, description = "OpenAPI 3.1.", body = ref("#/components/schemas/Anything"))))]
pub(super) async fn serve(State(api): State<Api>) -> Response {
    json(if api.verifier.wants_token() { CLOSED.clone() } else { OPEN.clone() })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    /// Both forms of the document.
    fn documents() -> [Value; 2] {
        [&*OPEN, &*CLOSED].map(|text| serde_json::from_str(text).unwrap())
    }

    /// Every `$ref` in a value.
    fn references(value: &Value, found: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn it_describes_the_routes_and_no_others() {
        for document in documents() {
            assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
            let described: BTreeSet<&str> = document["paths"].as_object().unwrap().keys().map(String::as_str).collect();
            let routes = crate::http::api().into_iter().chain(crate::http::others());
            assert_eq!(described, routes.map(|(path, _)| path).collect());
        }
    }

    #[test]
    fn every_reference_leads_somewhere_and_every_shape_is_used() {
        for document in documents() {
            let mut used = BTreeSet::new();
            references(&document, &mut used);
            let pointer = |reference: &str| document.pointer(reference.trim_start_matches('#')).is_some();
            let broken: Vec<&String> = used.iter().filter(|reference| !pointer(reference)).collect();
            assert!(broken.is_empty(), "{broken:?}");
            for kind in ["schemas", "responses"] {
                let shapes = document["components"][kind].as_object().unwrap().keys();
                let unused: Vec<&String> =
                    shapes.filter(|name| !used.contains(&format!("#/components/{kind}/{name}"))).collect();
                assert!(unused.is_empty(), "{unused:?}");
            }
        }
    }

    #[test]
    fn every_operation_says_what_it_does_who_may_ask_and_how_it_is_refused() {
        let [open, closed] = documents();
        check(&open, &[json!({}), json!({ "bearer": [] }), json!({ "token": [] })], true);
        check(&closed, &[json!({ "bearer": [] }), json!({ "token": [] })], false);
    }

    fn check(document: &Value, security: &[Value], says_who: bool) {
        let mut ids = BTreeSet::new();
        for (path, methods) in document["paths"].as_object().unwrap() {
            for (method, operation) in methods.as_object().unwrap() {
                let place = format!("{method} {path}");
                assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{place}");
                assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{place}");
                let answers = operation["responses"].as_object().unwrap();
                assert!(answers.keys().any(|status| status.starts_with('2')), "{place}");
                if !path.starts_with("/api/") {
                    assert!(operation.get("security").is_none(), "{place}");
                    continue;
                }
                for status in ["400", "401", "403", "503"] {
                    assert!(answers.contains_key(status), "{place} lacks {status}");
                }
                assert_eq!(answers.contains_key("429"), method != "get", "{place}");
                assert_eq!(operation["security"], Value::from(security), "{place}");
                let names = |name: &str| operation["parameters"].as_array().unwrap().iter().any(|p| p["name"] == name);
                assert_eq!((names("user_id"), names("name")), (says_who, says_who), "{place}");
                for (status, answer) in answers.iter().filter(|(status, _)| status.starts_with(['4', '5'])) {
                    let refusal = answer["$ref"].as_str().unwrap().trim_start_matches('#');
                    let content = &document.pointer(refusal).unwrap()["content"];
                    assert!(content["application/problem+json"].is_object(), "{place} {status}");
                }
            }
        }
    }
}
