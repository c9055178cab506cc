//! What went wrong with whom an agent asks, in words for the people of the session.
//!
//! Every text says what to do. It knows the other side's host and the secret, so that no text shows the secret, whoever
//! wrote it; texts of the other side itself are cut to a length. Codes: `agent_unavailable`, `agent_unauthorized`,
//! `agent_bad_request`, `agent_rate_limited`, `agent_error`, `agent_incomplete`.

use std::{error::Error as _, time::Duration};

use futures::StreamExt;
use reqwest::{Response, StatusCode, Url, header};
use serde_json::Value;

use super::{Secret, stream::Broken};
use crate::model::TurnError;

/// The most bytes of an error's body that are read, and how long that may take.
const MAX_BODY_BYTES: usize = 16 * 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// The most characters of the other side's own words that are shown.
const MAX_QUOTE_CHARS: usize = 300;

/// What the errors of a kind of agent call things, and what they tell people to do.
#[derive(Debug)]
pub(super) struct Terms {
    /// What is asked.
    pub(super) noun: &'static str,
    /// What was set to find it.
    pub(super) address: &'static str,
    /// What it is asked with.
    pub(super) credential: &'static str,
    /// Where the credential is refused.
    pub(super) check_credential: &'static str,
    /// Whether what is said of a bad credential may be shown. It often quotes a good part of a key.
    pub(super) quote_unauthorized: bool,
    /// Where the request is refused.
    pub(super) check_request: &'static str,
    /// Where the answer is of a wrong type.
    pub(super) check_service: &'static str,
    /// Where something in the answer cannot be read.
    pub(super) check_stream: &'static str,
    /// Where to look when it failed.
    pub(super) look_at: &'static str,
}

/// Whom errors speak of.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    terms: &'static Terms,
    host: String,
    /// What is asked for: "the request", perhaps with more about it.
    request: String,
    secret: Option<Secret>,
}

impl Endpoint {
    pub(super) fn new(terms: &'static Terms, url: &Url, request: String, secret: Option<Secret>) -> Self {
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        Self { terms, host, request, secret }
    }

    /// How errors name it.
    pub(super) fn name(&self) -> String {
        format!("The agent's {} {}", self.terms.noun, self.host)
    }

    /// The response, if it is a success.
    pub(super) async fn admit(&self, response: Response) -> Result<Response, TurnError> {
        let status = response.status();
        if status.is_redirection() {
            return Err(self.redirected(status));
        }
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = seconds(response.headers());
        let is_page = content_type(&response).starts_with("text/html");
        let body = body(response).await;
        let report = if is_page { Report::default() } else { Report::read(&body) };
        Err(self.refused(status, retry_after, &report))
    }

    /// The request could not be sent, or its answer did not begin.
    pub(super) fn unreachable(&self, error: &reqwest::Error) -> TurnError {
        let cause = if error.is_timeout() { "it did not answer in time".to_owned() } else { root_cause(error) };
        let text = format!(
            "{} cannot be reached ({}). Check that it runs and that the {} is right, then retry.",
            self.name(),
            self.quote(&cause),
            self.terms.address
        );
        failure("agent_unavailable", text, true)
    }

    /// The stream broke.
    pub(super) fn broken(&self, broken: Broken) -> TurnError {
        match broken {
            Broken::Connection => self.incomplete(),
            Broken::TooLong => self.garbled(&format!("{broken}")),
            Broken::NotText => self.garbled(&format!("{broken}")),
        }
    }

    /// The stream ended and the answer did not.
    pub(super) fn incomplete(&self) -> TurnError {
        let (noun, host) = (self.terms.noun, &self.host);
        let text =
            format!("The connection to the agent's {noun} {host} ended before the answer did. Retry to ask again.");
        failure("agent_incomplete", text, true)
    }

    /// Something in the stream cannot be read.
    pub(super) fn garbled(&self, what: &str) -> TurnError {
        let text = format!(
            "{} sent {}. Retry; if it happens again, {}.",
            self.name(),
            self.quote(what),
            self.terms.check_stream
        );
        failure("agent_error", text, true)
    }

    /// The answer is of a type that no answer has.
    pub(super) fn wrong_type(&self, what: &str) -> TurnError {
        let text = format!("{} answered with {}. {}.", self.name(), self.quote(what), self.terms.check_service);
        failure("agent_bad_request", text, false)
    }

    fn redirected(&self, status: StatusCode) -> TurnError {
        let text = format!(
            "{} answered with a redirect ({}). Set the {} to the address that it points to.",
            self.name(),
            status.as_u16(),
            self.terms.address
        );
        failure("agent_bad_request", text, false)
    }

    /// An error that came with status 200: as an object in the stream, or instead of it.
    pub(super) fn reported(&self, error: &Value) -> TurnError {
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
                let text = format!(
                    "{} refused {} ({}){}. {}.",
                    self.name(),
                    self.request,
                    status.as_u16(),
                    self.own_words(report),
                    self.terms.check_request
                );
                failure("agent_bad_request", text, false)
            }
            _ => self.failed(report),
        }
    }

    fn unauthorized(&self, status: StatusCode, report: &Report) -> TurnError {
        let shown = status == StatusCode::FORBIDDEN || self.terms.quote_unauthorized;
        let words = if shown { self.own_words(report) } else { String::new() };
        let text = format!(
            "{} refused the {} ({}){words}. {}.",
            self.name(),
            self.terms.credential,
            status.as_u16(),
            self.terms.check_credential
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
        let text = format!("{} takes no more requests at the moment{}. {advice}.", self.name(), self.own_words(report));
        failure("agent_rate_limited", text, !spent)
    }

    fn failed(&self, report: &Report) -> TurnError {
        let text = format!(
            "{} failed{}. Retry; if it happens again, look at {}.",
            self.name(),
            self.own_words(report),
            self.terms.look_at
        );
        failure("agent_error", text, true)
    }

    fn own_words(&self, report: &Report) -> String {
        report.message.as_deref().map(|words| format!(": {}", self.quote(words))).unwrap_or_default()
    }

    /// Words of others: without the secret, on one line, not too long.
    fn quote(&self, words: &str) -> String {
        let line = self.redact(words).split_whitespace().collect::<Vec<_>>().join(" ");
        cut(line.trim_end_matches('.'), MAX_QUOTE_CHARS)
    }

    /// `words` without the secret.
    pub(super) fn redact(&self, words: &str) -> String {
        self.secret.as_ref().map_or_else(|| words.to_owned(), |secret| secret.redact(words))
    }
}

/// At most the first `chars` characters of `text`; where some are left out, `…` says so.
pub(super) fn cut(text: &str, chars: usize) -> String {
    match text.char_indices().nth(chars) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The type of a response's body; empty if it names none.
pub(super) fn content_type(response: &Response) -> &str {
    response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// What the other side says of its error.
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

/// The error of a turn.
pub(super) fn failure(code: &str, message: String, retryable: bool) -> TurnError {
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
pub(super) async fn body(response: Response) -> String {
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

    const TERMS: Terms = Terms {
        noun: "endpoint",
        address: "URL",
        credential: "key",
        check_credential: "Check the key",
        quote_unauthorized: false,
        check_request: "Check the request",
        check_service: "Check the address",
        check_stream: "check the stream",
        look_at: "its status",
    };

    fn endpoint() -> Endpoint {
        let url = Url::parse("https://u:p@api.test/v1").unwrap();
        Endpoint::new(&TERMS, &url, "the request".to_owned(), Some(Secret::new("sk-hidden")))
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
