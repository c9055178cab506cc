//! Which pages may ask over HTTP: one of another site must not be able to, whatever it makes a browser send.
//!
//! An `Origin`, if there is one, must be allowed; on a loopback address the `Host` must be a name of this machine or of
//! an allowed origin, so that a name that was pointed at 127.0.0.1 does not pass for it, neither to write nor to read;
//! and a write carries `application/json`, which a page of another site cannot send unasked (a `DELETE` need not say
//! so). Whoever may write does so at the rate of one connection, however many connections there are.

use axum::{
    extract::{FromRequestParts as _, Request, State},
    http::{HeaderMap, HeaderValue, Method, Uri, header, header::HeaderName},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Api, error::Problem, who::Who};
use crate::transport::{Origins, host_called};

/// The rules for pages.
#[derive(Debug, Clone)]
pub struct Guard {
    /// Which origins may ask.
    pub origins: Origins,
    /// Whether the server listens on a loopback address.
    pub loopback: bool,
}

/// Middleware before the API's handlers: a method that a path does not answer never comes here.
pub(super) async fn check(State(api): State<Api>, request: Request, next: Next) -> Response {
    let mut response = answer(&api, request, next).await;
    // What one may read is no other's, also where the token is in the URL and a cache does not see that there is one.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn answer(api: &Api, request: Request, next: Next) -> Response {
    if let Err(problem) = api.guard.check_page(request.headers(), request.uri()) {
        return problem.into_response();
    }
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    match admit(api, request).await {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// A write that may go on, and who writes, so that it is not found out twice.
async fn admit(api: &Api, request: Request) -> Result<Request, Problem> {
    check_kind(request.method(), request.headers())?;
    let (mut parts, body) = request.into_parts();
    let who = Who::from_request_parts(&mut parts, api).await?;
    if let Some(writer) = who.writer(&parts) {
        api.writes.take(&writer).map_err(Problem::rate_limited)?;
    }
    parts.extensions.insert(who);
    Ok(Request::from_parts(parts, body))
}

impl Guard {
    /// Whether a page of this origin may ask a server of this name.
    pub(super) fn check_page(&self, headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
        let host = host_called(headers, uri);
        if !self.origins.allow(text(headers, header::ORIGIN), host) {
            return Err(Problem::unauthorized("this origin may not ask; add it to allowed-origins"));
        }
        if self.loopback && !self.origins.may_be_called(host) {
            return Err(Problem::unauthorized("this Host is not this machine; add it to allowed-origins"));
        }
        Ok(())
    }
}

/// Whether a write is of the type that no page can send unasked.
fn check_kind(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    let json =
        |kind: &str| kind.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    // No page can make a browser send a DELETE unasked, and most have no body that could be of a type.
    let may_say_nothing = *method == Method::DELETE;
    if text(headers, header::CONTENT_TYPE).map_or(may_say_nothing, json) {
        return Ok(());
    }
    Err(Problem::invalid("a write needs the header Content-Type: application/json"))
}

/// A header's text. One that is no text counts as one that cannot be understood, not as one that is not there.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).map(|value| value.to_str().unwrap_or(""))
}
