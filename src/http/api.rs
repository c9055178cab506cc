//! Sessions as JSON.

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequestParts, Path, Query, State, rejection::BytesRejection},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::time;

use super::{Api, error::Problem, json};
use crate::{
    auth::{Access, Identity},
    ids,
    model::machine::Asker,
    session::{self, Send, Summary, Update, fields, topic_of},
};

/// Every request is answered within this.
const LIMIT: Duration = Duration::from_secs(8);
/// How many messages, events or sessions a page has if the request does not say, and at most.
const PAGE: (usize, usize) = (100, 500);

type Answer = Result<Response, Problem>;

/// Whom the request speaks for.
pub(super) struct Who(Identity);

impl FromRequestParts<Api> for Who {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, Problem> {
        #[derive(Deserialize)]
        struct Fields {
            user_id: Option<String>,
            name: Option<String>,
        }
        let Query(Fields { user_id, name }) =
            Query::try_from_uri(&parts.uri).map_err(|error| Problem::invalid(error.body_text()))?;
        Identity::open(user_id.as_deref(), name.as_deref()).map(Self).map_err(Problem::invalid)
    }
}

impl Who {
    fn may(&self, session: &str, needed: Access) -> Result<Access, Problem> {
        let access = self.0.access(&topic_of(session));
        if access < needed {
            return Err(Problem::unauthorized("this token does not allow this; ask for one that does"));
        }
        Ok(access)
    }

    fn asks(&self, session: &str) -> Result<Asker, Problem> {
        let access = self.may(session, Access::Write)?;
        Ok(Asker { person: self.0.person.clone(), admin: access >= Access::Admin })
    }
}

/// Query parameters, with a problem for those that cannot be read.
pub(super) struct Params<T>(T);

impl<T: DeserializeOwned> FromRequestParts<Api> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _api: &Api) -> Result<Self, Problem> {
        Query::try_from_uri(&parts.uri)
            .map(|Query(params)| Self(params))
            .map_err(|error| Problem::invalid(error.body_text()))
    }
}

/// The parameters in a path, with a problem for those that cannot be read.
pub(super) struct Segments<T>(T);

impl<T: DeserializeOwned + std::marker::Send> FromRequestParts<Api> for Segments<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, api).await;
        path.map(|Path(segments)| Self(segments)).map_err(|error| Problem::invalid(error.body_text()))
    }
}

/// A body's text.
type Body = Result<Bytes, BytesRejection>;

fn text(body: Body) -> Result<String, Problem> {
    let bytes = body.map_err(|error| match error.status() {
        StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is too large; send less at once")
        }
        _ => Problem::invalid("the body could not be read; send it whole"),
    })?;
    String::from_utf8(bytes.to_vec()).map_err(|_| Problem::invalid("the body is not UTF-8; send JSON as UTF-8"))
}

/// The outcome of a request about a session, or `unavailable` when it takes too long.
async fn within<T>(answer: impl Future<Output = Result<T, session::Error>>) -> Result<T, Problem> {
    let answer = time::timeout(LIMIT, Box::pin(answer)).await;
    answer.unwrap_or(Err(session::Error::Unavailable)).map_err(Problem::from)
}

fn as_json<T: Serialize>(value: &T) -> Result<String, Problem> {
    serde_json::to_string(value).map_err(|error| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "unavailable", format!("the answer cannot be encoded: {error}"))
    })
}

fn page(limit: Option<usize>) -> Result<usize, Problem> {
    match limit.unwrap_or(PAGE.0) {
        0 => Err(Problem::invalid(format!("limit is 0; use 1 to {}", PAGE.1))),
        limit => Ok(limit.min(PAGE.1)),
    }
}

#[derive(Deserialize)]
pub(super) struct ListParams {
    prefix: Option<String>,
    status: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(State(api): State<Api>, _who: Who, Params(params): Params<ListParams>) -> Answer {
    #[derive(Serialize)]
    struct List {
        sessions: Vec<Summary>,
        cursor: Option<String>,
    }
    let limit = page(params.limit)?;
    let prefix = params.prefix.unwrap_or_default();
    let (status, cursor) = (params.status.as_deref(), params.cursor.as_deref());
    let (sessions, cursor) = within(api.sessions.list(&prefix, status, limit, cursor)).await?;
    Ok(json(as_json(&List { sessions, cursor })?))
}

pub(super) async fn create(State(api): State<Api>, who: Who, body: Body) -> Answer {
    #[derive(Deserialize)]
    struct Fields {
        id: Option<String>,
    }
    let body = text(body)?;
    let Fields { id } = fields(&body)?;
    let id = id.unwrap_or_else(ids::fresh);
    who.may(&id, Access::Write)?;
    let update = Update::parse(&body)?;
    within(api.sessions.create(&id, update, true)).await?;
    let session = within(api.sessions.look(&id)).await?;
    Ok((StatusCode::CREATED, json(session)).into_response())
}

pub(super) async fn look(State(api): State<Api>, who: Who, Segments(id): Segments<String>) -> Answer {
    who.may(&id, Access::Read)?;
    Ok(json(within(api.sessions.look(&id)).await?))
}

#[derive(Deserialize)]
pub(super) struct HistoryParams {
    before: Option<u64>,
    limit: Option<usize>,
}

pub(super) async fn messages(
    State(api): State<Api>,
    who: Who,
    Segments(id): Segments<String>,
    Params(params): Params<HistoryParams>,
) -> Answer {
    who.may(&id, Access::Read)?;
    let limit = page(params.limit)?;
    let history = within(api.sessions.history(&id, params.before.unwrap_or(u64::MAX), limit)).await?;
    Ok(json(history.reply))
}

#[derive(Deserialize)]
pub(super) struct EventParams {
    after: Option<u64>,
    epoch: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn events(
    State(api): State<Api>,
    who: Who,
    Segments(id): Segments<String>,
    Params(params): Params<EventParams>,
) -> Answer {
    who.may(&id, Access::Read)?;
    let limit = page(params.limit)?;
    let events = api.sessions.events(&id, params.after.unwrap_or(0), params.epoch.as_deref(), limit);
    Ok(json(within(events).await?))
}

pub(super) async fn send(State(api): State<Api>, who: Who, Segments(id): Segments<String>, body: Body) -> Answer {
    let asker = who.asks(&id)?;
    let send = Send::parse(&text(body)?)?;
    let answer = within(async {
        api.sessions.admits(&send)?;
        // As a join does: a session that is not there yet is made.
        api.sessions.create(&id, Update::default(), false).await?;
        api.sessions.send(&id, asker, send).await?.await
    })
    .await?;
    Ok((StatusCode::ACCEPTED, json(as_json(&answer)?)).into_response())
}

pub(super) async fn cancel(
    State(api): State<Api>,
    who: Who,
    Segments((id, turn)): Segments<(String, String)>,
) -> Answer {
    let asker = who.asks(&id)?;
    let answer = within(api.sessions.cancel(&id, asker, turn)).await?;
    Ok(json(as_json(&answer)?))
}

pub(super) async fn retry(
    State(api): State<Api>,
    who: Who,
    Segments((id, turn)): Segments<(String, String)>,
) -> Answer {
    let asker = who.asks(&id)?;
    let answer = within(api.sessions.retry(&id, asker, turn)).await?;
    Ok((StatusCode::ACCEPTED, json(as_json(&answer)?)).into_response())
}
