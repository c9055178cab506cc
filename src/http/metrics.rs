//! `GET /metrics`, and the count of what was answered.

use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};

use super::Api;
use crate::metrics::{Format, Metrics};

/// What Prometheus scrapes
#[utoipa::path(get, path = "/metrics", tag = "operations", operation_id = "scrape_metrics",
    responses((status = 200, description = "Metrics in the text format that `Accept` asks for.",
               content((String = "text/plain"), (String = "application/openmetrics-text")))))]
pub(super) async fn scrape(State(api): State<Api>, headers: HeaderMap) -> Response {
    let format = Format::accepted(headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()));
    let text = api.metrics.scrape(format).await;
    ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
}

/// These routes, each answer of theirs counted.
pub fn counted(routes: Router, metrics: Metrics) -> Router {
    routes.layer(middleware::from_fn_with_state(metrics, count))
}

async fn count(State(metrics): State<Metrics>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = next.run(request).await;
    metrics.requests().count(route.as_ref().map(MatchedPath::as_str), response.status().as_u16());
    response
}
