//! What went wrong at an endpoint, in words for the people of the session.
//!
//! Every text says what to do. It knows the endpoint's host and the key, so that no text shows the key, whoever wrote
//! it; texts of the endpoint itself are cut to a length. Codes: `agent_unavailable`, `agent_unauthorized`,
//! `agent_bad_request`, `agent_rate_limited`, `agent_error`, `agent_incomplete`.

use std::{error::Error as _, time::Duration};

use futures::StreamExt;
use reqwest::{Response, StatusCode, Url, header};
use serde_json::Value;

use super::{Options, assembler::Fault};
use crate::{agent::Secret, model::TurnError};

/// The most bytes of an error's body that are read, and how long that may take.
const MAX_BODY_BYTES: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The most characters of the endpoint's own words that are shown.
const MAX_QUOTE_CHARS: usize = 300;

/// Whom errors speak of.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    host: String,
    model: String,
    key: Option<Secret>,
}

impl Endpoint {
    pub(super) fn new(base: &Url, options: &Options) -> Self {
        let host = base.host_str().unwrap_or_default();
        let host = base.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Self { host, model: options.model.clone(), key: options.api_key.clone() }
    }

    /// The response, if it is a stream of events.
    pub(super) async fn check(&self, response: Response) -> Result<Response, TurnError> {
        let status = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_page = kind.starts_with("text/html");
        let is_json = kind.starts_with("application/json");
        if status.is_redirection() {
            return Err(self.redirected(status));
        }
        if status.is_success() && is_page {
            return Err(self.not_an_endpoint("a web page"));
        }
        if status.is_success() && !is_json {
            return Ok(response);
        }
        let retry_after = seconds(response.headers());
        let body = body(response).await;
        let report = if is_page { Report::default() } else { Report::read(&body) };
        if !status.is_success() {
            return Err(self.refused(status, retry_after, &report));
        }
        match serde_json::from_str::<Value>(&body).ok().as_ref().and_then(|body| body.get("error")) {
            Some(error) => Err(self.reported(error)),
            None => Err(self.not_an_endpoint("one JSON document instead of a stream")),
        }
    }

    /// The request could not be sent, or its answer did not begin.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> TurnError {
        let cause = if error.is_timeout() { "it did not answer in time".to_owned() } else { root_cause(error) };
        let text = format!(
            "The agent's endpoint {} cannot be reached ({}). Check that it runs and that the base URL is right, then \
             retry.",
            self.host,
            self.quote(&cause)
        );
        failure("agent_unavailable", text, true)
    }

    /// The stream broke, or was not one of events.
    pub(super) fn broken(&self, error: &sse_stream::Error) -> TurnError {
        match error {
            sse_stream::Error::Body(cause) => match cause.downcast_ref::<super::BodyError>() {
                Some(super::BodyError::TooLong) => self.garbled("an event that is too long"),
                _ => self.incomplete(),
            },
            _ => self.garbled("something that is not a stream of events"),
        }
    }

    /// The stream ended and the answer did not.
    pub(super) fn incomplete(&self) -> TurnError {
        let text = format!(
            "The connection to the agent's endpoint {} ended before the answer did. Retry to ask again.",
            self.host
        );
        failure("agent_incomplete", text, true)
    }

    /// The endpoint's rules cut the answer.
    pub(super) fn filtered(&self) -> TurnError {
        let text = format!(
            "The content filter of the agent's endpoint {} stopped this answer. Change the message and send it again.",
            self.host
        );
        failure("agent_error", text, false)
    }

    /// A chunk that could not be taken.
    pub(super) fn fault(&self, fault: &Fault) -> TurnError {
        match fault {
            Fault::Malformed => self.garbled("a chunk that is not the JSON of a chat completion"),
            Fault::Reported(error) => self.reported(error),
        }
    }

    fn garbled(&self, what: &str) -> TurnError {
        let text = format!(
            "The agent's endpoint {} sent {what}. Retry; if it happens again, check that the base URL is that of a \
             chat-completions API.",
            self.host
        );
        failure("agent_error", text, true)
    }

    fn not_an_endpoint(&self, what: &str) -> TurnError {
        let text = format!(
            "The agent's endpoint {} answered with {what}. Check that the base URL is that of a streaming \
             chat-completions API; often it ends with /v1.",
            self.host
        );
        failure("agent_bad_request", text, false)
    }

    fn redirected(&self, status: StatusCode) -> TurnError {
        let text = format!(
            "The agent's endpoint {} answered with a redirect ({}). Set the base URL to the address that it points to.",
            self.host,
            status.as_u16()
        );
        failure("agent_bad_request", text, false)
    }

    /// An error that came with status 200: as an object in the stream, or instead of it.
    fn reported(&self, error: &Value) -> TurnError {
        let report = Report::of(error);
        let status = report.status.and_then(|status| StatusCode::from_u16(status).ok());
        match status.filter(|status| status.is_client_error() || status.is_server_error()) {
            Some(status) => self.refused(status, None, &report),
            None => self.failed(&report),
        }
    }

    fn refused(&self, status: StatusCode, retry_after: Option<u64>, report: &Report) -> TurnError {
        match status.as_u16() {
            401 | 403 => self.unauthorized(status, report),
            429 => self.rate_limited(retry_after, report),
            408 | 425 => self.failed(report),
            400..=499 => {
                let (host, model, code) = (&self.host, &self.model, status.as_u16());
                let text = format!(
                    "The agent's endpoint {host} refused the request for the model {model:?} ({code}){}. Check the \
                     model's name, the base URL and the length of the session.",
                    self.own_words(report)
                );
                failure("agent_bad_request", text, false)
            }
            _ => self.failed(report),
        }
    }

    fn unauthorized(&self, status: StatusCode, report: &Report) -> TurnError {
        // What is said about a wrong key often quotes a good part of it.
        let words = if status == StatusCode::FORBIDDEN { self.own_words(report) } else { String::new() };
        let text = format!(
            "The agent's endpoint {} refused the API key ({}){words}. Check the key and what it may use.",
            self.host,
            status.as_u16()
        );
        failure("agent_unauthorized", text, false)
    }

    fn rate_limited(&self, retry_after: Option<u64>, report: &Report) -> TurnError {
        let spent = report.code.as_deref() == Some("insufficient_quota");
        let advice = match retry_after {
            _ if spent => "Check the account's plan and budget".to_owned(),
            Some(seconds) => format!("Retry after {seconds} s"),
            None => "Wait a little, then retry".to_owned(),
        };
        let text = format!(
            "The agent's endpoint {} takes no more requests at the moment{}. {advice}.",
            self.host,
            self.own_words(report)
        );
        failure("agent_rate_limited", text, !spent)
    }

    fn failed(&self, report: &Report) -> TurnError {
        let text = format!(
            "The agent's endpoint {} failed{}. Retry; if it happens again, look at the endpoint's own status.",
            self.host,
            self.own_words(report)
        );
        failure("agent_error", text, true)
    }

    fn own_words(&self, report: &Report) -> String {
        report.message.as_deref().map(|words| format!(": {}", self.quote(words))).unwrap_or_default()
    }

    /// Words of others: without the key, on one line, not too long.
    fn quote(&self, words: &str) -> String {
        let words = self.key.as_ref().map_or_else(|| words.to_owned(), |key| key.redact(words));
        let line = words.split_whitespace().collect::<Vec<_>>().join(" ");
        let line = line.trim_end_matches('.');
        match line.char_indices().nth(MAX_QUOTE_CHARS) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line.to_owned(),
        }
    }
}

/// What an endpoint says of its error.
#[derive(Debug, Default, PartialEq, Eq)]
struct Report {
    message: Option<String>,
    code: Option<String>,
    status: Option<u16>,
}

impl Report {
    /// A body: JSON in one of the usual forms, else text.
    fn read(body: &str) -> Self {
        match serde_json::from_str::<Value>(body) {
            Ok(json) => Self::of(json.get("error").filter(|error| !error.is_null()).unwrap_or(&json)),
            Err(_) => Self { message: words(body), ..Self::default() },
        }
    }

    fn of(error: &Value) -> Self {
        if let Some(text) = error.as_str() {
            return Self { message: words(text), ..Self::default() };
        }
        let message = ["message", "detail", "error"].into_iter().find_map(|key| match error.get(key)? {
            Value::String(text) => words(text),
            Value::Null => None,
            // Some put a list of complaints here.
            other => words(&other.to_string()),
        });
        let code = error.get("code").or_else(|| error.get("type"));
        let status = [error.get("code"), error.get("status")].into_iter().flatten().find_map(Value::as_u64);
        Self {
            message,
            code: code.and_then(Value::as_str).map(str::to_owned),
            status: status.and_then(|status| u16::try_from(status).ok()),
        }
    }
}

fn words(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn failure(code: &str, message: String, retryable: bool) -> TurnError {
    TurnError { code: code.to_owned(), message, retryable }
}

/// The innermost error: the others only say that a request failed.
fn root_cause(error: &reqwest::Error) -> String {
    let mut cause = error.source();
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    cause.map_or_else(|| "the request failed".to_owned(), ToString::to_string)
}

fn seconds(headers: &header::HeaderMap) -> Option<u64> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()
}

/// The beginning of a body, or as much of it as comes in time.
async fn body(response: Response) -> String {
    let mut read = Vec::new();
    let mut pieces = response.bytes_stream();
    let reading = async {
        while let Some(Ok(piece)) = pieces.next().await {
            read.extend_from_slice(&piece[..piece.len().min(MAX_BODY_BYTES - read.len())]);
            if read.len() == MAX_BODY_BYTES {
                break;
            }
        }
    };
    // What was read before the limit is worth showing, so the outcome does not matter.
    let _ = tokio::time::timeout(BODY_TIMEOUT, reading).await;
    String::from_utf8_lossy(&read).into_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn endpoint() -> Endpoint {
        Endpoint { host: "api.test".to_owned(), model: "m1".to_owned(), key: Some(Secret::new("sk-hidden")) }
    }

    #[test]
    fn reports_are_read_in_all_their_forms() {
        for (body, message, code) in [
            (
                r#"{"error":{"message":"no such model","code":"model_not_found"}}"#,
                "no such model",
                Some("model_not_found"),
            ),
            (r#"{"error":{"message":"slow","type":"overloaded"}}"#, "slow", Some("overloaded")),
            (r#"{"error":"plain"}"#, "plain", None),
            (r#"{"message":"flat"}"#, "flat", None),
            (r#"{"detail":[{"msg":"extra"}]}"#, r#"[{"msg":"extra"}]"#, None),
            ("Bad gateway\n", "Bad gateway", None),
        ] {
            let report = Report::read(body);
            assert_eq!((report.message.as_deref(), report.code.as_deref()), (Some(message), code), "{body}");
        }
        assert_eq!(Report::read(""), Report::default());
    }

    #[test]
    fn each_status_has_its_code_and_says_whether_to_retry() {
        for (status, code, retryable) in [
            (400, "agent_bad_request", false),
            (401, "agent_unauthorized", false),
            (403, "agent_unauthorized", false),
            (404, "agent_bad_request", false),
            (408, "agent_error", true),
            (422, "agent_bad_request", false),
            (429, "agent_rate_limited", true),
            (500, "agent_error", true),
            (529, "agent_error", true),
        ] {
            let error = endpoint().refused(StatusCode::from_u16(status).unwrap(), None, &Report::default());
            assert_eq!((error.code.as_str(), error.retryable), (code, retryable), "{status}");
            assert!(error.message.contains("api.test"), "{}", error.message);
        }
    }

    #[test]
    fn a_spent_budget_is_not_worth_a_retry() {
        let report = Report::read(r#"{"error":{"message":"out of money","code":"insufficient_quota"}}"#);
        let error = endpoint().refused(StatusCode::TOO_MANY_REQUESTS, Some(3), &report);
        assert!(!error.retryable);
        assert!(error.message.contains("out of money. Check the account"), "{}", error.message);
    }

    #[test]
    fn an_error_in_the_stream_is_judged_by_its_number_where_it_has_one() {
        for (error, code) in [
            (json!({"code": 429, "message": "slow down"}), "agent_rate_limited"),
            (json!({"code": 502, "message": "upstream"}), "agent_error"),
            (json!({"code": "weird", "message": "x"}), "agent_error"),
            (json!("text"), "agent_error"),
        ] {
            assert_eq!(endpoint().reported(&error).code, code, "{error}");
        }
    }

    #[test]
    fn quotes_are_one_short_line_without_the_key() {
        let quote = endpoint().quote(&format!("a\n b sk-hidden.{}", "x".repeat(1_000)));
        assert!(quote.starts_with("a b ***.xxx") && quote.ends_with('…'), "{quote}");
        assert_eq!(quote.chars().count(), MAX_QUOTE_CHARS + 1);
    }
}
