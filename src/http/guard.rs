//! Who may write over HTTP: a web page of another site must not be able to, whatever it makes a browser send.
//!
//! A write carries `application/json`, which a page of another site cannot send unasked (a `DELETE` need not say so);
//! an `Origin`, if there is one, must be allowed; and on a loopback address the `Host` must be a name of this machine or of an allowed origin, so
//! that a name that was pointed at 127.0.0.1 does not pass for it. Whoever may write does so at the rate of one
//! connection, however many connections there are.

use axum::{
    extract::{FromRequestParts as _, Request, State},
    http::{HeaderMap, Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Api, error::Problem, who::Who};
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
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    match admit(&api, request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// A write that may go on, and who writes, so that it is not found out twice.
async fn admit(api: &Api, request: Request) -> Result<Request, Problem> {
    api.guard.admit(request.method(), request.headers())?;
    let (mut parts, body) = request.into_parts();
    let who = Who::from_request_parts(&mut parts, api).await?;
    if let Some(writer) = who.writer(&parts) {
        api.writes.take(&writer).map_err(Problem::rate_limited)?;
    }
    parts.extensions.insert(who);
    Ok(Request::from_parts(parts, body))
}

impl Guard {
    fn admit(&self, method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
        // A header that is no text counts as one that cannot be understood, not as one that is not there.
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or(""));
        let kind = text(header::CONTENT_TYPE);
        let json = |kind: &str| {
            kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
        };
        // No page can make a browser send a DELETE unasked, and most have no body that could be of a type.
        let may_say_nothing = *method == Method::DELETE;
        if !kind.map_or(may_say_nothing, json) {
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
