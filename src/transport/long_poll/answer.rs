//! The answers to long-polling requests.
//!
//! Knows the form that Phoenix clients read: HTTP 200 whose JSON body says the `status`, among those that they know,
//! since they break on others. No answer is kept by a cache, and pages of any origin may read one: what a page may do
//! is decided before.

use axum::{
    http::{
        HeaderMap, HeaderValue, StatusCode,
        header::{
            ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER,
        },
    },
    response::{IntoResponse as _, Response},
};

use super::super::connections::NoRoom;
use crate::protocol::Wire;

/// Frames on their way into an answer, written as they are taken.
#[derive(Debug)]
pub(super) struct Messages {
    json: Vec<u8>,
}

impl Messages {
    pub(super) fn new() -> Self {
        Self { json: Vec::new() }
    }

    /// Adds a frame. Binary ones cannot be carried, and are not made for a connection of text.
    pub(super) fn add(&mut self, wire: &Wire) {
        let Some(text) = wire.as_text() else {
            tracing::error!("a binary frame was left out: long-polling carries text only");
            return;
        };
        self.json.reserve(text.len() + text.len() / 4);
        self.json.extend_from_slice(if self.json.is_empty() { br#"{"messages":["# } else { b"," });
        // A text is written as JSON to a vector: neither fails.
        let _ = serde_json::to_writer(&mut self.json, text);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.json.is_empty()
    }

    /// How many bytes they take in the answer.
    pub(super) fn len(&self) -> usize {
        self.json.len()
    }
}

/// A session was opened.
pub(super) fn opened(token: &str) -> Response {
    json(StatusCode::OK, format!(r#"{{"status":410,"token":"{token}","messages":[]}}"#))
}

/// Frames.
pub(super) fn frames(token: &str, messages: Messages) -> Response {
    let mut body = messages.json;
    body.extend_from_slice(format!(r#"],"status":200,"token":"{token}"}}"#).as_bytes());
    json(StatusCode::OK, body)
}

/// Nothing has come in the window.
pub(super) fn nothing(token: &str) -> Response {
    json(StatusCode::OK, format!(r#"{{"status":204,"token":"{token}","messages":[]}}"#))
}

/// The session of a poll has ended.
pub(super) fn ended() -> Response {
    json(StatusCode::OK, r#"{"status":410,"messages":[]}"#)
}

/// The session of a batch has ended, or was never here.
pub(super) fn gone() -> Response {
    json(StatusCode::OK, r#"{"status":410}"#)
}

/// The client may not connect.
pub(super) fn forbidden() -> Response {
    json(StatusCode::OK, r#"{"status":403}"#)
}

/// The frames were taken.
pub(super) fn taken() -> Response {
    json(StatusCode::OK, r#"{"status":200}"#)
}

/// Some frames were not taken in the window.
pub(super) fn timed_out() -> Response {
    json(StatusCode::OK, r#"{"status":408}"#)
}

/// A body that cannot be taken; `reason` is for a person.
pub(super) fn refused(status: StatusCode, reason: &str) -> Response {
    json(status, serde_json::json!({ "status": status.as_u16(), "reason": reason }).to_string())
}

/// There is no room for another session. Clients know no status for it but that of any failure, which they try again
/// after.
pub(super) fn unavailable(why: NoRoom) -> Response {
    let mut response = json(StatusCode::SERVICE_UNAVAILABLE, r#"{"status":500}"#);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(why.retry_after()));
    response
}

/// Neither a poll nor a batch.
pub(super) fn wrong_method() -> Response {
    refused(StatusCode::BAD_REQUEST, "this is a path for long-polling: use GET, POST or OPTIONS")
}

/// What a browser asks before it lets a page of another origin send its headers.
pub(super) fn preflight(asked: &HeaderMap) -> Response {
    let mut response = json(StatusCode::OK, "");
    let headers = response.headers_mut();
    if let Some(wanted) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("get, post, options"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("3600"));
    response
}

fn json(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let mut response = (status, body.into()).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    response
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::protocol::Text;

    #[tokio::test]
    async fn frames_are_strings_in_their_order() {
        let mut messages = Messages::new();
        for text in [r#"[null,"1","a","b",{"c":"\"é\n"}]"#, "[]"] {
            messages.add(&Wire::Text(Text::from(text.to_owned())));
        }
        messages.add(&Wire::Binary(bytes::Bytes::from_static(b"no")));
        let response = frames("t", messages);
        let body = axum::body::to_bytes(response.into_body(), 1_000).await.unwrap();
        let expected =
            json!({ "status": 200, "token": "t", "messages": [r#"[null,"1","a","b",{"c":"\"é\n"}]"#, "[]"] });
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
    }
}
