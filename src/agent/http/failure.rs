//! What only a user's own backend can do wrong; the rest is shared ([`crate::agent::failure`]).

use reqwest::{Response, Url};

use super::{Options, lines::Report};
use crate::{
    agent::{
        failure::{self, Endpoint, Terms, cut, failure},
        stream::{self, Texts},
    },
    model::TurnError,
};

/// The most characters of a backend's own error that are shown, and of its code.
const MAX_MESSAGE_CHARS: usize = 1_000;
const MAX_CODE_CHARS: usize = 64;

const TERMS: Terms = Terms {
    noun: "backend",
    address: "URL",
    credential: "request's signature",
    check_credential: "Check that the secret is the same on both sides",
    quote_unauthorized: true,
    check_request: "Check that the URL is that of the backend's agent, and what the backend accepts",
    check_service: "Let the backend stream server-sent events (text/event-stream) or JSON lines (application/x-ndjson)",
    check_stream: "mend the backend",
    look_at: "the backend's own logs",
};

/// The backend as errors speak of it.
pub(super) fn endpoint(url: &Url, options: &Options) -> Endpoint {
    Endpoint::new(&TERMS, url, "the request".to_owned(), options.secret.clone())
}

/// The texts of an answer, in whichever of the two forms it comes.
pub(super) async fn texts(endpoint: &Endpoint, response: Response) -> Result<Texts, TurnError> {
    let response = endpoint.admit(response).await?;
    let kind = failure::content_type(&response).split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "text/event-stream" => Ok(stream::events(response)),
        "application/x-ndjson" | "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => {
            Ok(stream::lines(response))
        }
        "" => Err(endpoint.wrong_type("something that has no content type")),
        kind => Err(endpoint.wrong_type(&format!("the content type {kind}"))),
    }
}

/// The stream ended properly and the answer did not.
pub(super) fn unfinished(endpoint: &Endpoint) -> TurnError {
    let text = format!(
        "{} ended its answer without a line of kind done or error. Retry; if it happens again, look at the backend's \
         own logs.",
        endpoint.name()
    );
    failure("agent_incomplete", text, true)
}

/// The backend says itself that it failed: its own code and words.
pub(super) fn reported(endpoint: &Endpoint, report: Report) -> TurnError {
    let code = report.code.filter(|code| is_code(code)).unwrap_or_else(|| "agent_error".to_owned());
    let words = report.message.map(|words| endpoint.redact(words.trim())).filter(|words| !words.is_empty());
    let message = match words {
        Some(words) => cut(&words, MAX_MESSAGE_CHARS),
        None => format!("{} failed and does not say why. Retry, or look at its own logs.", endpoint.name()),
    };
    failure(&code, message, report.retryable.unwrap_or(true))
}

/// Whether `code` is a word for programs.
fn is_code(code: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    (1..=MAX_CODE_CHARS).contains(&code.len()) && code.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Secret;

    #[test]
    fn a_backends_own_error_is_shown_as_it_is_said_within_limits() {
        let options = Options { url: String::new(), secret: Some(Secret::new("s3cret")), max_messages: None };
        let endpoint = endpoint(&Url::parse("http://b:1/").unwrap(), &options);
        let said = |code: Option<&str>, message: Option<&str>, retryable| {
            let report = Report { code: code.map(Into::into), message: message.map(Into::into), retryable };
            let error = reported(&endpoint, report);
            (error.code, error.message, error.retryable)
        };
        let own = said(Some("quota"), Some("No more today. Ask Ada."), Some(false));
        assert_eq!(own, ("quota".to_owned(), "No more today. Ask Ada.".to_owned(), false));
        assert_eq!(said(Some("a b"), Some("x"), None), ("agent_error".to_owned(), "x".to_owned(), true));
        assert_eq!(said(None, Some("key s3cret"), None).1, "key ***");
        assert_eq!(said(None, Some(&"é".repeat(2_000)), None).1.chars().count(), MAX_MESSAGE_CHARS + 1);
        for silent in [None, Some(" ")] {
            assert!(
                said(Some("x"), silent, None).1.starts_with("The agent's backend b:1 failed and does not say why.")
            );
        }
    }
}
