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

use std::sync::Arc;

use axum::{
    extract::{RawPathParams, Request, State as Shared},
    http::{HeaderMap, Method},
    response::Response,
};

pub use self::lines::{BadLine, Line, MAX_LINES, lines};
use self::session::{Poll, Session};
pub(super) use self::sessions::Sessions;
use super::{AuthToken, ConnectInfo, Params, Refused, State, Transport, admission};

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
            drop((state, path, request));
            match step {
                Step::Answer(response) => response,
                Step::Wait(poll) => poll.answer().await,
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
}

fn get(state: &State, path: &RawPathParams, request: &Request) -> Step {
    if admission::check_page(state, request.headers()).is_err() {
        return Step::Answer(answer::forbidden());
    }
    let named = Named::of(request);
    if let Some(session) = named.session(state) {
        return Step::Wait(Poll::begin(session));
    }
    if state.connections().is_draining() {
        // Whoever had a session begins anew; whoever had none tries again, perhaps elsewhere.
        return Step::Answer(if named.token.is_some() { answer::ended() } else { answer::unavailable() });
    }
    Step::Answer(match open(state, path, request, &named) {
        Ok(session) => answer::opened(session.token()),
        Err(refused) => {
            tracing::info!(status = %refused.status(), "a long-polling client was refused");
            answer::forbidden()
        }
    })
}

fn open(state: &State, path: &RawPathParams, request: &Request, named: &Named<'_>) -> Result<Arc<Session>, Refused> {
    let header = request.headers().get(AUTH_TOKEN_HEADER).filter(|_| state.options().auth_token);
    let auth_token = header.map(|value| AuthToken::new(value.as_bytes()));
    let info = ConnectInfo::new(Transport::LongPoll, request, path, named.query, auth_token)?;
    let (serializer, identity) = admission::admit(state, &info)?;
    Ok(Sessions::open(state, serializer, identity))
}

async fn post(state: State, request: Request) -> Response {
    if admission::check_page(&state, request.headers()).is_err() {
        return answer::forbidden();
    }
    let Some(session) = Named::of(&request).session(&state) else { return answer::gone() };
    let kind = post::Kind::of(request.headers());
    post::take(&session, kind, request.into_body(), state.options()).await
}

/// Which session a request names, and what of its query is left for the application.
struct Named<'a> {
    token: Option<String>,
    query: &'a str,
}

impl<'a> Named<'a> {
    fn of(request: &'a Request) -> Self {
        let query = request.uri().query().unwrap_or_default();
        if let Some(token) = header(request.headers()) {
            return Self { token: Some(token), query };
        }
        let token = Params::parse(query).ok().and_then(|params| params.get(SESSION_PARAM).map(str::to_owned));
        Self { token, query: without_session(query) }
    }

    fn session(&self, state: &State) -> Option<Arc<Session>> {
        state.sessions().find(self.token.as_deref()?)
    }
}

fn header(headers: &HeaderMap) -> Option<String> {
    headers.get(SESSION_HEADER).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The query without the session's token, which clients write behind everything else; a `token` before it is the
/// application's own. A single one may be either, and stays.
fn without_session(query: &str) -> &str {
    let is_token = |part: &str| part.split_once('=').is_some_and(|(key, _)| key == SESSION_PARAM);
    let whole = query.trim_end_matches('&');
    match whole.rsplit_once('&') {
        Some((before, last)) if is_token(last) && before.split('&').any(is_token) => before,
        _ => query,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_applications_own_token_is_told_from_the_sessions() {
        for (query, left) in [
            ("token=jwt&vsn=2.0.0&token=abc", "token=jwt&vsn=2.0.0"),
            ("token=jwt&vsn=2.0.0&token=abc&", "token=jwt&vsn=2.0.0"),
            ("token=jwt&vsn=2.0.0&", "token=jwt&vsn=2.0.0&"),
            ("vsn=2.0.0&token=abc", "vsn=2.0.0&token=abc"),
            ("token=a&token=b&vsn=2.0.0", "token=a&token=b&vsn=2.0.0"),
            ("token=abc", "token=abc"),
            ("", ""),
        ] {
            assert_eq!(without_session(query), left, "{query}");
        }
    }
}
