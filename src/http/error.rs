//! The one place where an error becomes a status: `application/problem+json` with the contract's `code`.

use std::time::Duration;

use axum::{
    extract::rejection::QueryRejection,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::{protocol::codes::reason, session, transport::NotOpened};

/// A refused request.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: String,
    retry_after: Option<u64>,
    /// What is asked for with a 401.
    challenge: Option<Box<HeaderValue>>,
}

impl Problem {
    /// A problem of this status, with one of the contract's codes and a text that says what to do.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        let retry_after = (status == StatusCode::SERVICE_UNAVAILABLE).then_some(1);
        Self { status, code, detail: detail.into(), retry_after, challenge: None }
    }

    /// 401, with what to answer it by.
    pub fn unidentified(detail: impl Into<String>, challenge: HeaderValue) -> Self {
        let problem = Self::new(StatusCode::UNAUTHORIZED, "unauthorized", detail);
        Self { challenge: Some(Box::new(challenge)), ..problem }
    }

    /// Whether the same request may go well a little later.
    pub(super) fn will_pass(&self) -> bool {
        self.status == StatusCode::SERVICE_UNAVAILABLE
    }

    /// 400
    pub fn invalid(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid", detail)
    }

    /// 400 for parameters in a URL that cannot be read
    pub fn parameters(error: &QueryRejection) -> Self {
        let text = error.body_text();
        let why = text.rsplit_once("query string: ").map_or(text.as_str(), |(_, why)| why);
        Self::invalid(format!("the parameters in the URL cannot be read ({why}); /openapi.json says what each may be"))
    }

    /// 429 until `wait` is over
    pub fn rate_limited(wait: Duration) -> Self {
        let detail = "too many writes; wait as long as Retry-After says";
        let retry_after = Some(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        Self { retry_after, ..Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail) }
    }

    /// 403
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "unauthorized", detail)
    }
}

/// The status of a reason of the protocol's.
fn status_of(reason: &str) -> StatusCode {
    match reason {
        "unauthorized" => StatusCode::FORBIDDEN,
        "not_found" => StatusCode::NOT_FOUND,
        "busy" | "conflict" => StatusCode::CONFLICT,
        "too_large" => StatusCode::PAYLOAD_TOO_LARGE,
        "queue_full" => StatusCode::TOO_MANY_REQUESTS,
        "draining" | "unavailable" => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::BAD_REQUEST,
    }
}

impl From<session::Error> for Problem {
    fn from(error: session::Error) -> Self {
        Self::new(status_of(error.reason()), error.reason(), error.to_string())
    }
}

impl From<NotOpened> for Problem {
    fn from(NotOpened { reason, message }: NotOpened) -> Self {
        match reason::ALL.iter().find(|known| **known == reason) {
            Some(code) => Self::new(status_of(code), code, message),
            // What the protocol says in words of its own: the server is at fault, or serves no such topic.
            None => Self::new(StatusCode::INTERNAL_SERVER_ERROR, reason::UNAVAILABLE, reason),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::json!({
            "type": "about:blank",
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "code": self.code,
            "detail": self.detail,
        });
        let mut response = (self.status, body.to_string()).into_response();
        let kind = HeaderValue::from_static("application/problem+json");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = self.challenge {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, *challenge);
        }
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
