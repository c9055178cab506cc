//! The request that becomes a WebSocket.
//!
//! Knows HTTP and nothing of frames. The order of the checks is part of the protocol: method, room, origin,
//! sub-protocol, version, identity, whether this is an upgrade at all, and room again, which then is taken. Its invariant: whoever is refused costs
//! no task.

use std::sync::Arc;

use axum::{
    extract::{RawPathParams, Request, State as Shared},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode, Version,
        header::{
            CONNECTION, HeaderName, RETRY_AFTER, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
            SEC_WEBSOCKET_VERSION, UPGRADE, USER_AGENT,
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

use super::{
    Admission, ConnectInfo, Refused, State, Transport, admission,
    connections::{NoRoom, Place},
    link::{Farewell, Link},
    lobby::Guest,
    patient::Patient,
    subprotocol::{self, Offer},
    write_now::WriteNow,
};
use crate::{protocol::Serializer, socket::Socket, telemetry::trace::Trace};

/// Answers a request on the path of the WebSocket.
pub(super) async fn upgrade(Shared(state): Shared<State>, path: RawPathParams, mut request: Request) -> Response {
    let admitted = match admit(&state, &path, &request) {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let farewell = farewell(request.headers());
    drop((path, request));
    let (identity, accept) = match (admitted.identity.decided().await, admitted.accept) {
        (Ok(identity), Ok(accept)) => (identity, accept),
        (Err(refused), _) => return refused.into_response(),
        (Ok(_), Err(text)) => return (StatusCode::BAD_REQUEST, text).into_response(),
    };
    let socket = Arc::new(Socket::new(state.host(), admitted.serializer, identity).traced(admitted.trace));
    let place = match state.connections().enter(&socket, Transport::WebSocket) {
        Ok(place) => place,
        Err(full) => return no_room(full),
    };
    let tracker = state.connections().tasks().clone();
    tracker.spawn(async move { serve(upgrade, socket, place, farewell, &state).await });
    switching(&accept, admitted.phoenix)
}

/// What is known of a client that may connect, unless its identity is refused after all.
struct Admitted {
    serializer: Serializer,
    identity: Admission,
    trace: Trace,
    /// Of a proper handshake; what is wrong with any other one counts less than who it is.
    accept: Result<HeaderValue, &'static str>,
    /// Whether the sub-protocol `phoenix` is answered.
    phoenix: bool,
}

#[expect(clippy::result_large_err, reason = "a response is as large as it is; refusals are rare")]
fn admit(state: &State, path: &RawPathParams, request: &Request) -> Result<Admitted, Response> {
    if request.method() != Method::GET {
        return Err(StatusCode::BAD_REQUEST.into_response());
    }
    state.connections().check_room().map_err(no_room)?;
    let headers = request.headers();
    let refused = Refused::into_response;
    admission::check_page(state, request, false).map_err(refused)?;
    let Offer { phoenix, token } = offer(state, headers).map_err(refused)?;
    let query = request.uri().query().unwrap_or_default();
    let info = ConnectInfo::new(Transport::WebSocket, request, path, query, token);
    let info = info.map_err(|bad| Refused::from(bad).into_response())?;
    let (serializer, identity) = admission::admit(state, &info).map_err(refused)?;
    let accept = if request.version() < Version::HTTP_11 {
        Err("this is a WebSocket: use HTTP/1.1")
    } else {
        handshake(headers)
    };
    Ok(Admitted { serializer, identity, trace: info.trace(), accept, phoenix })
}

fn no_room(full: NoRoom) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, full.retry_after())]).into_response()
}

fn offer(state: &State, headers: &HeaderMap) -> Result<Offer, Refused> {
    if !state.options().auth_token {
        return Ok(subprotocol::without_token(headers));
    }
    let offer = subprotocol::with_token(headers);
    offer.inspect_err(|bad| tracing::info!(%bad, "a socket was refused")).map_err(|_| Refused::default())
}

/// Apple's own client takes any close frame for the end it wanted, and comes back only from a connection that broke.
/// Browsers that are built on it call themselves Mozilla too, and know better.
fn farewell(headers: &HeaderMap) -> Farewell {
    let agent = headers.get(USER_AGENT).map(HeaderValue::as_bytes).unwrap_or_default();
    let names = |word: &[u8]| agent.windows(word.len()).any(|part| part == word);
    if names(b"CFNetwork") && !names(b"Mozilla") { Farewell::Abrupt } else { Farewell::CloseFrame }
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

fn switching(accept: &HeaderValue, phoenix: bool) -> Response {
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept.clone());
    if phoenix {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(subprotocol::PHOENIX));
    }
    response
}

/// Runs an accepted connection to its end. Its place is given up after everything else.
async fn serve(upgrade: OnUpgrade, socket: Arc<Socket>, place: Place, farewell: Farewell, state: &State) {
    match upgrade.await {
        Ok(upgraded) => run(upgraded, socket, farewell, state).await,
        Err(error) => tracing::debug!(%error, "a connection was gone before it began"),
    }
    drop(place);
}

async fn run(upgraded: Upgraded, socket: Arc<Socket>, farewell: Farewell, state: &State) {
    // The bare stream where this server accepted it, whatever hyper was handed otherwise.
    match upgraded.downcast::<TokioIo<Patient<TcpStream, Arc<Guest>>>>() {
        Ok(Parts { io, read_buf, .. }) => {
            let read = read_buf.to_vec();
            // It holds on to the buffer of the request, which is larger than all that a connection needs.
            drop(read_buf);
            let (stream, guest) = io.into_inner().into_parts();
            follow(stream, read, socket, farewell, state).await;
            drop(guest);
        }
        Err(upgraded) => follow(TokioIo::new(upgraded), Vec::new(), socket, farewell, state).await,
    }
}

/// Boxed, so that a connection's task does not also keep the room that its beginning took.
fn follow<'a, S>(
    stream: S,
    read: Vec<u8>,
    socket: Arc<Socket>,
    farewell: Farewell,
    state: &'a State,
) -> BoxFuture<'a, ()>
where
    S: AsyncRead + AsyncWrite + WriteNow + Unpin + Send + 'a,
{
    Box::pin(async move {
        let mut link = Box::pin(Link::new(stream, read, socket, farewell, state.options())).await;
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
    fn apples_own_client_is_told_from_browsers_that_are_built_on_it() {
        for (agent, expected) in [
            ("Rooms/7 CFNetwork/1494.0.7 Darwin/23.4.0", Farewell::Abrupt),
            ("Mozilla/5.0 (Macintosh) AppleWebKit/605 CFNetwork/1494", Farewell::CloseFrame),
            ("okhttp/4.12.0", Farewell::CloseFrame),
            ("", Farewell::CloseFrame),
        ] {
            assert_eq!(farewell(&headers(&[("user-agent", agent)])), expected, "{agent}");
        }
        assert_eq!(farewell(&HeaderMap::new()), Farewell::CloseFrame);
    }
}
