//! The HTTP face: the demo page, health, and sessions as JSON.
//!
//! Handlers check the request, ask [`crate::session`], and hand its texts through. Nothing here decides what a session
//! does; [`error`] is the only place where an error becomes a status.

mod cluster;
mod credentials;
pub mod error;
mod event_stream;
mod guard;
pub mod metrics;
mod page;
mod request;
mod sessions;
mod trace;
mod who;

use std::{num::NonZeroU32, sync::Arc};

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{Method, StatusCode, Uri, header},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post},
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
        let api = Router::new()
            .route("/api/sessions", get(sessions::list).post(sessions::create))
            .route("/api/sessions/{id}", get(sessions::look).patch(sessions::update).delete(sessions::delete))
            .route("/api/sessions/{id}/messages", get(sessions::messages).post(sessions::send))
            .route("/api/sessions/{id}/events", get(sessions::events))
            .route("/api/sessions/{id}/turns/{turn}/cancel", post(sessions::cancel))
            .route("/api/sessions/{id}/turns/{turn}/retry", post(sessions::retry))
            .route("/api/nodes", get(cluster::nodes))
            .route("/api/presence/{topic}", get(cluster::presence))
            .route("/api/broadcast", post(cluster::broadcast))
            .route("/api/disconnect", post(cluster::disconnect))
            .layer(middleware::from_fn_with_state(self.clone(), guard::check));
        Router::new()
            .merge(api)
            .route("/", get(page::index))
            .route("/app.js", get(page::script))
            .route("/app.css", get(page::style))
            .route("/admin", get(page::admin_index))
            .route("/admin/app.js", get(page::admin_script))
            .route("/admin/app.css", get(page::admin_style))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics::scrape))
            .fallback(not_found)
            .method_not_allowed_fallback(wrong_method)
            .layer(DefaultBodyLimit::max(max_body))
            .with_state(self)
    }
}

async fn healthz() -> Response {
    json("{\"ok\":true}".to_owned())
}

/// Ready: the store answered the newest renewal, the lease holds, there are keys to check tokens with, and nothing is
/// shutting down. A bus that is away does
/// not end that: events of other nodes come all the same, later.
async fn readyz(State(api): State<Api>) -> Response {
    let problem = api.verifier.problem();
    let (ready, draining) = (api.sessions.is_ready() && problem.is_none(), api.sessions.is_draining());
    let mut state = serde_json::json!({"ready": ready, "draining": draining, "bus": api.sessions.bus().name()});
    if let Some(problem) = problem {
        state["keys"] = problem.into();
    }
    let body = json(state.to_string());
    if ready { body } else { (StatusCode::SERVICE_UNAVAILABLE, body).into_response() }
}

async fn not_found(uri: Uri) -> Problem {
    let detail = format!("there is nothing at {}; the API is under /api, the sockets under /socket", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not answer {method}; see the documentation for its methods", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid", detail)
}

/// A response of JSON text.
fn json(text: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], text).into_response()
}
