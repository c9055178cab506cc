//! The checks that a client passes before it has a connection, the same for every transport.
//!
//! Knows requests and no frames. The order is part of the protocol: the page's origin, then the version, then who it
//! is. Its invariant: whoever is refused has cost nothing that stays.

use axum::{extract::Request, http::header::ORIGIN};

use super::{Admission, ConnectInfo, Params, Refused, State, origin::host_called};
use crate::protocol::Serializer;

/// Whether the page that asks may. A browser names the origin of every page that opens a WebSocket, but not of one that
/// sends a plain request to the host that it came from: where `always`, the host is looked at without one too.
pub(super) fn check_page(state: &State, request: &Request, always: bool) -> Result<(), Refused> {
    // A header that is no text counts as one that cannot be understood.
    let headers = request.headers();
    let origin = headers.get(ORIGIN).map(|value| value.to_str().unwrap_or(""));
    let (host, options) = (host_called(headers, request.uri()), state.options());
    if !options.origins.allow(origin, host) {
        tracing::warn!(origin, "a page may not connect: add its origin to allowed-origins");
        return Err(Refused::default());
    }
    if options.loopback && (always || origin.is_some()) && !options.origins.may_be_called(host) {
        tracing::warn!(host, "a page may not connect by this name: add it to allowed-origins");
        return Err(Refused::default());
    }
    Ok(())
}

/// How the client wants to be spoken to, and who it is.
pub(super) fn admit(state: &State, info: &ConnectInfo<'_>) -> Result<(Serializer, Admission), Refused> {
    let serializer = negotiate(info.params()).ok_or_else(Refused::default)?;
    match state.identify(info) {
        Admission::Now(Err(refused)) => Err(refused),
        admission => Ok((serializer, admission)),
    }
}

fn negotiate(params: &Params) -> Option<Serializer> {
    if params.is_nested("vsn") {
        tracing::warn!("a client asked for a version that is no text: connect with vsn=2.0.0");
        return None;
    }
    let spoken = Serializer::negotiate(params.get("vsn"));
    spoken.inspect_err(|error| tracing::warn!(%error, "a client asked for another version")).ok()
}
