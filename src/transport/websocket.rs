//! The request that becomes a WebSocket.
//!
//! Knows HTTP and nothing of frames. The order of the checks is part of the protocol: method, room, origin, version,
//! identity, and last whether this is an upgrade at all. Its invariant: whoever is refused costs no task.

use std::sync::Arc;

use axum::{
    extract::{Request, State as Shared},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{
            CONNECTION, HOST, HeaderName, ORIGIN, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
            SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
        },
    },
    response::{IntoResponse as _, Response},
};
use futures::future::BoxFuture;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::{Options, Params, State, connections::Place, link::Link};
use crate::{auth::Identity, protocol::Serializer, socket::Socket};

/// The sub-protocol that Phoenix clients offer beside a token.
const SUBPROTOCOL: &str = "phoenix";
/// Seconds after which a client may try a server that is about to stop again.
const RETRY_AFTER_SECONDS: &str = "1";

/// Answers a request on the path of the WebSocket.
pub(super) async fn upgrade(Shared(state): Shared<State>, mut request: Request) -> Response {
    let admitted = match admit(&state, &request) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let socket = Arc::new(Socket::new(state.host(), admitted.serializer, admitted.identity));
    let place = state.connections().enter(&socket);
    let (tracker, state) = (state.connections().tasks().clone(), state.clone());
    tracker.spawn(async move { serve(upgrade, socket, place, &state).await });
    switching(&admitted.accept, offers_subprotocol(request.headers()))
}

/// What is known of a client that may connect.
struct Admitted {
    serializer: Serializer,
    identity: Identity,
    accept: HeaderValue,
}

#[expect(clippy::result_large_err, reason = "a response is as large as it is; refusals are rare")]
fn admit(state: &State, request: &Request) -> Result<Admitted, Response> {
    let headers = request.headers();
    if request.method() != Method::GET {
        return Err(StatusCode::BAD_REQUEST.into_response());
    }
    if state.connections().is_draining() {
        return Err((StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, RETRY_AFTER_SECONDS)]).into_response());
    }
    // A header that is no text counts as one that cannot be understood.
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or(""));
    if !state.options().origins.allow(text(ORIGIN), text(HOST)) {
        tracing::warn!(origin = text(ORIGIN), "a page may not connect: add its origin to allowed-origins");
        return Err(StatusCode::FORBIDDEN.into_response());
    }
    if state.options().loopback && text(ORIGIN).is_some() && !state.options().origins.may_be_called(text(HOST)) {
        tracing::warn!(host = text(HOST), "a page may not connect by this name: add it to allowed-origins");
        return Err(StatusCode::FORBIDDEN.into_response());
    }
    let params = Params::parse(request.uri().query().unwrap_or_default());
    let serializer = negotiate(&params).ok_or_else(|| StatusCode::FORBIDDEN.into_response())?;
    let identity = state.identify(&params).map_err(|status| status.into_response())?;
    let accept = handshake(headers).map_err(|text| (StatusCode::BAD_REQUEST, text).into_response())?;
    Ok(Admitted { serializer, identity, accept })
}

fn negotiate(params: &Params) -> Option<Serializer> {
    if params.is_nested("vsn") {
        return None;
    }
    let spoken = Serializer::negotiate(params.get("vsn"));
    spoken.inspect_err(|error| tracing::warn!(%error, "a client asked for another version")).ok()
}

/// The value of `Sec-WebSocket-Accept`, or what is wrong with the request.
fn handshake(headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    if !has_token(headers, &CONNECTION, "upgrade") {
        return Err("this is a WebSocket: the 'connection' header must contain 'upgrade'");
    }
    if !has_token(headers, &UPGRADE, "websocket") {
        return Err("this is a WebSocket: the 'upgrade' header must contain 'websocket'");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("this is a WebSocket: the 'sec-websocket-version' header must be 13");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| is_key(key.as_bytes()));
    let key = key.ok_or("this is a WebSocket: the 'sec-websocket-key' header must hold 16 bytes in base64")?;
    HeaderValue::from_str(&derive_accept_key(key.as_bytes())).map_err(|_| "the key cannot be accepted")
}

/// Whether these are 16 bytes in base64: 22 characters and two fillers.
fn is_key(key: &[u8]) -> bool {
    let (digits, fill) = key.split_at(key.len().saturating_sub(2));
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    digits.len() == 22 && fill == b"==" && digits.iter().all(is_digit)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
}

fn offers_subprotocol(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|part| part.trim() == SUBPROTOCOL)
}

fn switching(accept: &HeaderValue, subprotocol: bool) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
    if subprotocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

/// Runs an accepted connection to its end. Its place is given up after everything else.
async fn serve(upgrade: OnUpgrade, socket: Arc<Socket>, place: Place, state: &State) {
    match upgrade.await {
        Ok(upgraded) => run(upgraded, socket, state).await,
        Err(error) => tracing::debug!(%error, "a connection was gone before it began"),
    }
    drop(place);
}

async fn run(upgraded: Upgraded, socket: Arc<Socket>, state: &State) {
    let options = state.options();
    // The bare stream where this server accepted it, whatever hyper was handed otherwise.
    match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(Parts { io, read_buf, .. }) => {
            let read = read_buf.to_vec();
            // It holds on to the buffer of the request, which is larger than all that a connection needs.
            drop(read_buf);
            follow(io.into_inner(), read, socket, options).await;
        }
        Err(upgraded) => follow(TokioIo::new(upgraded), Vec::new(), socket, options).await,
    }
}

/// Boxed, so that a connection's task does not also keep the room that its beginning took.
fn follow<'a, S>(stream: S, read: Vec<u8>, socket: Arc<Socket>, options: &'a Options) -> BoxFuture<'a, ()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'a,
{
    Box::pin(async move {
        let mut link = Box::pin(Link::new(stream, read, socket, options)).await;
        link.run().await;
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    const GOOD: [(&str, &str); 4] = [
        ("connection", "keep-alive, Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];

    #[test]
    fn a_sound_request_is_accepted_as_the_standard_says() {
        assert_eq!(handshake(&headers(&GOOD)).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn each_part_of_the_handshake_is_asked_for() {
        for missing in GOOD {
            let pairs: Vec<_> = GOOD.into_iter().filter(|pair| *pair != missing).collect();
            assert!(handshake(&headers(&pairs)).is_err(), "without {missing:?}");
        }
        for (at, bad) in [(0, "close"), (1, "h2c"), (2, "8"), (3, "c2hvcnQ="), (3, "dGhlIHNhbXBsZSBub25jZ@==")] {
            let mut pairs = GOOD.to_vec();
            pairs[at].1 = bad;
            assert!(handshake(&headers(&pairs)).is_err(), "with {bad}");
        }
    }

    #[test]
    fn the_subprotocol_is_found_in_any_list() {
        assert!(offers_subprotocol(&headers(&[("sec-websocket-protocol", "base64url.bearer.phx.dG9r, phoenix")])));
        assert!(!offers_subprotocol(&headers(&[("sec-websocket-protocol", "mqtt, phoenix2")])));
        assert!(!offers_subprotocol(&headers(&[])));
    }
}
