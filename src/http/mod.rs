//! The HTTP face: the demo page, health, and sessions as JSON.
//!
//! Handlers check the request, ask [`crate::session`], and hand its texts through. Nothing here decides what a session
//! does; [`error`] is the only place where an error becomes a status.

mod cluster;
mod cors;
mod credentials;
pub mod error;
mod event_stream;
mod guard;
mod health;
pub mod metrics;
mod openapi;
mod page;
mod request;
mod sessions;
mod trace;
mod who;

use std::{num::NonZeroU32, sync::Arc};

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};

use self::{error::Problem, who::Writer};
pub use self::{guard::Guard, trace::traced};
use crate::{
    auth::Verifier,
    channel::Host,
    metrics::Metrics,
    presence::Tracker,
    session::Sessions,
    transport::{self, Disconnects, Rates},
};

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    sessions: Sessions,
    verifier: Verifier,
    host: Host,
    streams: transport::State,
    presence: Tracker,
    metrics: Metrics,
    disconnects: Disconnects,
    guard: Arc<Guard>,
    writes: Arc<Rates<Writer>>,
}

impl Api {
    /// Handlers over these sessions, the channels, presence and metrics of this node; `verifier` says for whom a request
    /// speaks, `streams` keeps those who listen, `guard` says which pages may ask.
    pub fn new(
        sessions: Sessions,
        verifier: Verifier,
        host: Host,
        streams: transport::State,
        presence: Tracker,
        metrics: Metrics,
        guard: Guard,
    ) -> Self {
        let disconnects = Disconnects::new(streams.connections().clone(), host.pubsub().clone());
        let (guard, writes) = (Arc::new(guard), Arc::new(Rates::new(None, 1)));
        Self { sessions, verifier, host, streams, presence, metrics, disconnects, guard, writes }
    }

    /// The same, in which one user, or one address where nobody says who asks, writes so often in a second at most, and
    /// twice as often at once.
    #[must_use]
    pub fn limited(self, rate: Option<NonZeroU32>) -> Self {
        let burst = rate.map_or(1, |rate| rate.get().saturating_mul(2));
        Self { writes: Arc::new(Rates::new(rate, burst)), ..self }
    }

    /// Every route but the sockets'. `max_body` bounds what a request may carry, in bytes.
    pub fn routes(self, max_body: usize) -> Router {
        let guarded = middleware::from_fn_with_state(self.clone(), guard::check);
        let api = api().into_iter().map(|(path, methods)| (path, methods.route_layer(guarded.clone())));
        let routes = api.chain(others()).chain(pages());
        routes
            .fold(Router::new(), |router, (path, methods)| router.route(path, methods))
            .fallback(not_found)
            .method_not_allowed_fallback(wrong_method)
            .layer(DefaultBodyLimit::max(max_body))
            .layer(middleware::from_fn_with_state(self.clone(), cors::share))
            .with_state(self)
    }
}

type Route = (&'static str, MethodRouter<Api>);

/// What programs ask, by an identity.
fn api() -> Vec<Route> {
    vec![
        ("/api/sessions", get(sessions::list).post(sessions::create)),
        ("/api/sessions/{id}", get(sessions::look).patch(sessions::update).delete(sessions::delete)),
        ("/api/sessions/{id}/messages", get(sessions::messages).post(sessions::send)),
        ("/api/sessions/{id}/events", get(sessions::events)),
        ("/api/sessions/{id}/turns/{turn}/cancel", post(sessions::cancel)),
        ("/api/sessions/{id}/turns/{turn}/retry", post(sessions::retry)),
        ("/api/nodes", get(cluster::nodes)),
        ("/api/presence/{topic}", get(cluster::presence)),
        ("/api/broadcast", post(cluster::broadcast)),
        ("/api/disconnect", post(cluster::disconnect)),
    ]
}

/// What programs ask, whoever they are.
fn others() -> Vec<Route> {
    vec![
        ("/healthz", get(health::alive)),
        ("/readyz", get(health::ready)),
        ("/metrics", get(metrics::scrape)),
        ("/openapi.json", get(openapi::serve)),
    ]
}

/// What browsers show. No part of the document that describes the rest.
fn pages() -> Vec<Route> {
    vec![
        ("/", get(page::index)),
        ("/app.js", get(page::script)),
        ("/app.css", get(page::style)),
        ("/admin", get(page::admin_index)),
        ("/admin/app.js", get(page::admin_script)),
        ("/admin/app.css", get(page::admin_style)),
    ]
}

async fn not_found(uri: Uri) -> Problem {
    let detail =
        format!("there is nothing at {}; /openapi.json lists what there is, and sockets are at /socket", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

/// The header `Allow` says what would be answered.
async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not answer {method}; the header Allow says what it answers", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid", detail)
}

/// A response of JSON text.
fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
