//! The HTTP face: the demo page, health, and sessions as JSON.
//!
//! Handlers check the request, ask [`crate::session`], and hand its texts through. Nothing here decides what a session
//! does; [`error`] is the only place where an error becomes a status.

mod cluster;
pub mod error;
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
use crate::{channel::Host, metrics::Metrics, presence::Tracker, session::Sessions, transport::Rates};

/// What the handlers share. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    sessions: Sessions,
    host: Host,
    presence: Tracker,
    metrics: Metrics,
    guard: Arc<Guard>,
    writes: Arc<Rates<Writer>>,
}

impl Api {
    /// Handlers over these sessions, the channels, presence and metrics of this node; `guard` says who may write.
    pub fn new(sessions: Sessions, host: Host, presence: Tracker, metrics: Metrics, guard: Guard) -> Self {
        let writes = Arc::new(Rates::new(None, 1));
        Self { sessions, host, presence, metrics, guard: Arc::new(guard), writes }
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
            .route("/api/sessions/{id}", get(sessions::look).patch(sessions::update))
            .route("/api/sessions/{id}/messages", get(sessions::messages).post(sessions::send))
            .route("/api/sessions/{id}/events", get(sessions::events))
            .route("/api/sessions/{id}/turns/{turn}/cancel", post(sessions::cancel))
            .route("/api/sessions/{id}/turns/{turn}/retry", post(sessions::retry))
            .route("/api/nodes", get(cluster::nodes))
            .route("/api/presence/{topic}", get(cluster::presence))
            .route("/api/broadcast", post(cluster::broadcast))
            .layer(middleware::from_fn_with_state(self.clone(), guard::check));
        Router::new()
            .merge(api)
            .route("/", get(page::index))
            .route("/app.js", get(page::script))
            .route("/app.css", get(page::style))
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

/// Ready: the store answered the newest renewal, the lease holds, and nothing is shutting down. A bus that is away does
/// not end that: events of other nodes come all the same, later.
async fn readyz(State(api): State<Api>) -> Response {
    let (ready, draining) = (api.sessions.is_ready(), api.sessions.is_draining());
    let bus = api.sessions.bus().name();
    let body = json(format!("{{\"ready\":{ready},\"draining\":{draining},\"bus\":\"{bus}\"}}"));
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
