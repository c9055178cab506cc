//! Whether this server lives, and whether it can be sent work: what load balancers and orchestrators ask.

use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, json};

/// Lives.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always true.
    ok: bool,
}

/// How ready it is.
#[derive(Serialize, ToSchema)]
pub(super) struct Readiness {
    /// The store answered the newest renewal, the lease holds, there are keys to check tokens with, and nothing is
    /// shutting down.
    ready: bool,
    /// It is shutting down.
    draining: bool,
    /// How the bus between nodes is. Without it events of other nodes come all the same, later.
    bus: &'static str,
    /// What is wrong with the keys, if they are the reason.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    keys: Option<String>,
}

/// Whether the process lives
#[utoipa::path(get, path = "/healthz", tag = "operations", operation_id = "alive",
    responses((status = 200, description = "It does.", body = Health)))]
pub(super) async fn alive() -> Response {
    encoded(&Health { ok: true })
}

/// Whether it can be sent work
///
/// A bus that is away does not end that: events of other nodes come all the same, later.
#[utoipa::path(get, path = "/readyz", tag = "operations", operation_id = "ready",
    responses((status = 200, description = "It can.", body = Readiness),
              (status = 503, description = "Not now.", body = Readiness)))]
pub(super) async fn ready(State(api): State<Api>) -> Response {
    let keys = api.verifier.problem();
    let state = Readiness {
        ready: api.sessions.is_ready() && keys.is_none(),
        draining: api.sessions.is_draining(),
        bus: api.sessions.bus().name(),
        keys,
    };
    let body = encoded(&state);
    if state.ready { body } else { (StatusCode::SERVICE_UNAVAILABLE, body).into_response() }
}

fn encoded<T: Serialize>(value: &T) -> Response {
    // Truths and texts: there is nothing here that JSON cannot hold.
    json(serde_json::to_string(value).unwrap_or_default())
}
