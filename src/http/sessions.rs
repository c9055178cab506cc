//! Sessions as JSON: the list, one of them, its messages and events, and what people ask of it.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};

use super::{
    Api,
    error::Problem,
    event_stream, json,
    request::{Answer, Body, Params, Segments, as_json, page, text, within},
    who::Who,
};
use crate::{
    auth::Access,
    ids,
    session::{LIST_TOPIC, Send, Summary, Update, fields},
    transport::not_now,
};

#[derive(Deserialize)]
pub(super) struct ListParams {
    prefix: Option<String>,
    status: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

pub(super) async fn list(State(api): State<Api>, who: Who, Params(params): Params<ListParams>) -> Answer {
    #[derive(Serialize)]
    struct List {
        sessions: Vec<Summary>,
        cursor: Option<String>,
    }
    let limit = page(params.limit)?;
    // Who may look at the live list may ask for it here, too.
    who.may_on(LIST_TOPIC, Access::Read)?;
    let (status, cursor) = (params.status.as_deref(), params.cursor.as_deref());
    let prefix = params.prefix.unwrap_or_default();
    // What the token may not see is not even looked for, as far as its patterns say where that is.
    let (sessions, cursor) = match who.narrow(&prefix) {
        Some(prefix) => {
            let shows = |id: &str| who.may(id, Access::Read).is_ok();
            within(api.sessions.list_where(&prefix, status, limit, cursor, shows)).await?
        }
        None => (Vec::new(), None),
    };
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

pub(super) async fn update(State(api): State<Api>, who: Who, Segments(id): Segments<String>, body: Body) -> Answer {
    let asker = who.asks(&id)?;
    let update = Update::parse(&text(body)?)?;
    within(api.sessions.update(&id, asker, update)).await?;
    Ok(json(within(api.sessions.look(&id)).await?))
}

pub(super) async fn delete(State(api): State<Api>, who: Who, Segments(id): Segments<String>) -> Answer {
    who.may(&id, Access::Admin)?;
    within(api.sessions.delete(&id, who.asks(&id)?)).await?;
    Ok(json("{}".to_owned()))
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
    who: Result<Who, Problem>,
    Segments(id): Segments<String>,
    Params(params): Params<EventParams>,
    headers: HeaderMap,
) -> Answer {
    let who = match who {
        Ok(who) => who,
        // A browser would not come back from an error that passes.
        Err(problem) if problem.will_pass() && event_stream::is_wanted(&headers) => return Ok(not_now()),
        Err(problem) => return Err(problem),
    };
    who.may(&id, Access::Read)?;
    if event_stream::is_wanted(&headers) {
        return event_stream::open(&api, &who, &id, &headers, (params.after, params.epoch)).await;
    }
    let limit = page(params.limit)?;
    let events = api.sessions.events(&id, params.after.unwrap_or(0), params.epoch.as_deref(), limit);
    let mut answer = json(within(events).await?);
    // A cache must not give it to those who ask for a stream.
    answer.headers_mut().insert(header::VARY, HeaderValue::from_static("accept"));
    Ok(answer)
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
