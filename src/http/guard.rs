//! Who may write over HTTP: a web page of another site must not be able to, whatever it makes a browser send.
//!
//! A write carries `application/json`, which a page of another site cannot send unasked; an `Origin`, if there is one,
//! must be allowed; and on a loopback address the `Host` must be a name of this machine or of an allowed origin, so
//! that a name that was pointed at 127.0.0.1 does not pass for it.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Api, error::Problem};
use crate::transport::Origins;

/// The rules for writes.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Which origins may write.
    pub origins: Origins,
    /// Whether the server listens on a loopback address.
    pub loopback: bool,
}

/// Middleware before the API's handlers.
pub(super) async fn check(State(api): State<Api>, request: Request, next: Next) -> Response {
    if !matches!(*request.method(), Method::GET | Method::HEAD)
        && let Err(problem) = api.guard.admit(request.headers())
    {
        return problem.into_response();
    }
    next.run(request).await
}

impl Guard {
    fn admit(&self, headers: &HeaderMap) -> Result<(), Problem> {
        // A header that is no text counts as one that cannot be understood, not as one that is not there.
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
        let kind = text(header::CONTENT_TYPE).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            let detail = "a write needs the header Content-Type: application/json";
            return Err(Problem::invalid(detail));
        }
        let host = text(header::HOST);
        if !self.origins.allow(text(header::ORIGIN), host) {
            return Err(Problem::unauthorized("this origin may not write; add it to allowed-origins"));
        }
        if self.loopback && !self.origins.may_be_called(host) {
            return Err(Problem::unauthorized("this Host is not this machine; add it to allowed-origins"));
        }
        Ok(())
    }
}
