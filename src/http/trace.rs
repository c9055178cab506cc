//! Requests as parts of their callers' traces.

use std::borrow::Cow;

use axum::{
    Router,
    extract::{MatchedPath, Request},
    middleware::{self, Next},
    response::Response,
};

use crate::telemetry::trace::{BUILT_IN, Trace};

/// `routes` with a span for each request that a route of the API answers; as they were where nothing can be traced.
pub fn traced(routes: Router) -> Router {
    if BUILT_IN { routes.layer(middleware::from_fn(trace)) } else { routes }
}

async fn trace(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let Some(route) = route.filter(|route| route.starts_with("/api/")) else { return next.run(request).await };
    let headers = ["traceparent", "tracestate"].into_iter().filter_map(|name| {
        let value = request.headers().get(name)?;
        Some((name, String::from_utf8_lossy(value.as_bytes())))
    });
    let span = Trace::of_client(headers).serve(Cow::Owned(format!("{} {route}", request.method())));
    span.note("http.route", route);
    span.note("http.request.method", request.method().as_str());
    let response = span.run(next.run(request)).await;
    span.note("http.response.status_code", response.status().as_str());
    if response.status().is_server_error() {
        span.failed(response.status().as_str());
    }
    response
}
