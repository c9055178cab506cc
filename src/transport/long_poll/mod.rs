//! Long-polling: a connection made of requests, for networks that let no WebSocket through.
//!
//! A `GET` opens a session and then fetches what waits, or waits for it; a `POST` brings frames. Knows HTTP, and no
//! frame from the inside. A session is named by a token that only its node knows: behind several nodes a request that
//! reaches another one is answered 410, and the client starts anew there. What a poll fetches is taken out of the
//! outbox in the moment in which its answer is made: a request that its client gives up while it waits loses nothing,
//! an answer that is lost on its way is lost, as frames are on a WebSocket that breaks. The invariant: a client that
//! does not poll costs a bounded amount of memory for one and a half windows.

mod answer;
mod lines;
mod post;
mod session;
mod sessions;

use std::{net::SocketAddr, sync::Arc};

use axum::{
    extract::{self, RawPathParams, Request, State as Shared},
    http::Method,
    response::Response,
};

pub use self::lines::{BadLine, Line, MAX_LINES, lines};
use self::session::{Poll, Session};
pub(super) use self::sessions::Sessions;
use super::{Admission, AuthToken, ConnectInfo, Refused, State, Transport, admission, connections::NoRoom};
use crate::{protocol::Serializer, telemetry::trace::Trace};

/// The header that names a session; it goes before the parameter `token`.
const SESSION_HEADER: &str = "x-phoenix-longpoll-token";
/// The header with the application's token.
const AUTH_TOKEN_HEADER: &str = "x-phoenix-authtoken";
/// The parameter that names a session.
const SESSION_PARAM: &str = "token";

/// Answers a request on the path of long-polling.
pub(super) async fn serve(Shared(state): Shared<State>, path: RawPathParams, request: Request) -> Response {
    match *request.method() {
        Method::OPTIONS => answer::preflight(request.headers()),
        Method::GET => {
            let step = get(&state, &path, &request);
            // While a request waits nothing of it is kept.
            drop((path, request));
            match step {
                Step::Answer(response) => response,
                Step::Wait(poll) => {
                    drop(state);
                    poll.answer().await
                }
                Step::Open(serializer, identity, trace) => Box::pin(open(state, serializer, identity, trace)).await,
            }
        }
        Method::POST => Box::pin(post(state, request)).await,
        _ => answer::wrong_method(),
    }
}

/// What follows from a `GET`.
enum Step {
    Answer(Response),
    Wait(Poll),
    Open(Serializer, Admission, Trace),
}

fn get(state: &State, path: &RawPathParams, request: &Request) -> Step {
    if admission::check_page(state, request, true).is_err() {
        return Step::Answer(answer::forbidden());
    }
    let token = named(request);
    if let Some(session) = find(state, token) {
        return Step::Wait(Poll::begin(session));
    }
    if let Err(why) = check_room(state, request) {
        // Whoever had a session begins anew; whoever had none tries again, perhaps elsewhere.
        return Step::Answer(if token.is_some() { answer::ended() } else { answer::unavailable(why) });
    }
    match admit(state, path, request) {
        Ok((serializer, identity, trace)) => Step::Open(serializer, identity, trace),
        Err(refused) => Step::Answer(refuse(&refused)),
    }
}

/// Whether there is room for another session, of this address too.
fn check_room(state: &State, request: &Request) -> Result<(), NoRoom> {
    state.connections().check_room()?;
    let peer = request.extensions().get::<extract::ConnectInfo<SocketAddr>>();
    if peer.is_none_or(|peer| state.lobby().may_begin(peer.ip())) { Ok(()) } else { Err(NoRoom::Full) }
}

fn admit(state: &State, path: &RawPathParams, request: &Request) -> Result<(Serializer, Admission, Trace), Refused> {
    let header = request.headers().get(AUTH_TOKEN_HEADER).filter(|_| state.options().auth_token);
    let auth_token = header.map(|value| AuthToken::new(value.as_bytes()));
    let query = for_application(request.uri().query().unwrap_or_default());
    let info = ConnectInfo::new(Transport::LongPoll, request, path, &query, auth_token)?;
    let (serializer, identity) = admission::admit(state, &info)?;
    Ok((serializer, identity, info.trace()))
}

async fn open(state: State, serializer: Serializer, identity: Admission, trace: Trace) -> Response {
    match identity.decided().await {
        Ok(identity) => match Sessions::open(&state, serializer, identity, trace) {
            Ok(session) => answer::opened(session.token()),
            Err(why) => answer::unavailable(why),
        },
        Err(refused) => refuse(&refused),
    }
}

/// What a client is answered that may not begin. It tries again where the server is at fault.
fn refuse(refused: &Refused) -> Response {
    tracing::info!(status = %refused.status(), "a long-polling client was refused");
    if refused.status().is_server_error() { answer::unavailable(NoRoom::Full) } else { answer::forbidden() }
}

async fn post(state: State, request: Request) -> Response {
    if admission::check_page(&state, &request, true).is_err() {
        return answer::forbidden();
    }
    let Some(session) = find(&state, named(&request)) else { return answer::gone() };
    let kind = post::Kind::of(request.headers());
    post::take(&session, kind, request.into_body(), state.options()).await
}

/// The token of the session that a request names, if it names one. The application may have a parameter of the same
/// name; a session's token is known by its form.
fn named(request: &Request) -> Option<&str> {
    if let Some(token) = request.headers().get(SESSION_HEADER) {
        return Some(token.to_str().unwrap_or_default());
    }
    request.uri().query().unwrap_or_default().split('&').rev().find_map(session_token)
}

fn find(state: &State, token: Option<&str>) -> Option<Arc<Session>> {
    state.sessions().find(token?)
}

/// The token in a part of a query.
fn session_token(part: &str) -> Option<&str> {
    let (key, token) = part.split_once('=')?;
    (key == SESSION_PARAM && sessions::is_token(token)).then_some(token)
}

/// The query without the session's token.
fn for_application(query: &str) -> String {
    let parts: Vec<&str> = query.split('&').filter(|part| session_token(part).is_none()).collect();
    parts.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_applications_own_token_is_told_from_the_sessions() {
        let token = "0123456789abcdef".repeat(4);
        for (query, named_in, left) in [
            (format!("token=jwt&vsn=2.0.0&token={token}"), true, "token=jwt&vsn=2.0.0"),
            (format!("token=jwt&vsn=2.0.0&&token={token}&"), true, "token=jwt&vsn=2.0.0&&"),
            (format!("vsn=2.0.0&token={token}"), true, "vsn=2.0.0"),
            ("token=jwt&vsn=2.0.0&".to_owned(), false, "token=jwt&vsn=2.0.0&"),
            (format!("token={}", &token[1..]), false, &format!("token={}", &token[1..])),
            (format!("mytoken={token}"), false, &format!("mytoken={token}")),
            (String::new(), false, ""),
        ] {
            assert_eq!(for_application(&query), left, "{query}");
            let request = Request::get(format!("/socket/longpoll?{query}")).body(axum::body::Body::empty()).unwrap();
            assert_eq!(named(&request), named_in.then_some(token.as_str()), "{query}");
        }
    }
}
