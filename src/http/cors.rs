//! What a browser lets a page of another origin see of an answer (CORS).
//!
//! By the same list, `allowed-origins`, that says which pages may connect and ask. Tokens travel in a header, never in
//! a cookie, so that no answer allows credentials. Its invariant: a page that is not allowed is told nothing that makes
//! its browser hand it an answer; whether the request itself is answered is not decided here.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{Api, Guard};

/// What pages may send.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PATCH, DELETE");
const HEADERS: HeaderValue =
    HeaderValue::from_static("Authorization, Content-Type, Last-Event-ID, traceparent, tracestate");
/// What they may see of an answer beside what they always may.
const EXPOSED: HeaderValue = HeaderValue::from_static("Retry-After, WWW-Authenticate");
/// For how many seconds a browser need not ask again; browsers keep to limits of their own.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");

/// Middleware around every route.
pub(super) async fn share(State(api): State<Api>, request: Request, next: Next) -> Response {
    let page = api.guard.page(request.headers(), request.uri());
    let is_preflight =
        *request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = match &page {
        _ if !is_preflight => next.run(request).await,
        Some(_) => preflight(),
        None => StatusCode::NO_CONTENT.into_response(),
    };
    let headers = response.headers_mut();
    // Of two pages only one may be allowed: a cache must not give one what is the other's.
    headers.append(header::VARY, HeaderValue::from_static("origin"));
    if let Some(origin) = page {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

fn preflight() -> Response {
    let headers: [(HeaderName, HeaderValue); 3] = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
        (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
    ];
    (StatusCode::NO_CONTENT, headers).into_response()
}

impl Guard {
    /// The origin of the page that asks, if it may see answers.
    fn page(&self, headers: &HeaderMap, uri: &Uri) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.check_page(headers, uri).is_ok().then(|| origin.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Origins;

    #[test]
    fn only_pages_that_may_connect_see_answers() {
        let list = Origins::parse(&["https://app.example.com"]).unwrap();
        for (origins, loopback, origin, host, allowed) in [
            (&list, false, "https://app.example.com", "api.example.com", true),
            (&list, false, "https://evil.example", "api.example.com", false),
            (&list, false, "null", "api.example.com", false),
            (&list, true, "https://app.example.com", "127.0.0.1:4000", true),
            (&list, true, "https://app.example.com", "evil.example:4000", false),
            (&Origins::SameHost, true, "http://localhost:3000", "localhost:4000", true),
            (&Origins::SameHost, false, "https://evil.example", "api.example.com", false),
            (&Origins::Any, false, "https://evil.example", "api.example.com", true),
        ] {
            let guard = Guard { origins: origins.clone(), loopback };
            let headers = [(header::ORIGIN, origin), (header::HOST, host)];
            let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value))).into_iter().collect();
            assert_eq!(guard.page(&headers, &Uri::from_static("/")).is_some(), allowed, "{origins:?} {origin} {host}");
        }
        let guard = Guard { origins: Origins::Any, loopback: false };
        assert_eq!(guard.page(&HeaderMap::new(), &Uri::from_static("/")), None, "no page asks");
    }
}
