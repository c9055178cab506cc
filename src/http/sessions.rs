//! Sessions as JSON: the list, one of them, its messages and events, and what people ask of it.

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, ToSchema,
    openapi::schema::{ObjectBuilder, Schema, Type},
};

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
    session::{
        CancelAnswer, LIST_TOPIC, RetryAnswer, Send, SendAnswer, SendFields, Summary, Update, UpdateFields, fields,
    },
    transport::not_now,
};

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only sessions whose ids begin with this.
    prefix: Option<String>,
    /// Only sessions of this status.
    #[param(schema_with = status)]
    status: Option<String>,
    /// How many at most; more than 500 are 500.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 4294967295u32, default = 100)]
    limit: Option<u32>,
    /// What the page before said.
    #[param(pattern = "^-?[0-9]{1,18}\\.[0-9]{1,18}$", example = "1795341600123.7")]
    cursor: Option<String>,
}

fn status() -> Schema {
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["idle", "queued", "running"])).build().into()
}

/// A page of the list of sessions.
#[derive(Serialize, ToSchema)]
pub(super) struct List {
    /// Those that changed last come first.
    sessions: Vec<Summary>,
    /// What to ask with for the next page; null after the last.
    #[schema(required = true)]
    cursor: Option<String>,
}

/// The list of sessions
///
/// Those that the token may read, last changed first. A page may hold fewer than `limit`, or none: ask on until `cursor`
/// is null. Needs the right to read the topic `sessions`.
#[utoipa::path(get, path = "/api/sessions", tag = "sessions", operation_id = "list_sessions", params(ListParams),
    responses((status = 200, description = "A page of it.", body = List)))]
pub(super) async fn list(State(api): State<Api>, who: Who, Params(params): Params<ListParams>) -> Answer {
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

/// A session to make: its id, and what it is to be like.
#[derive(Deserialize, ToSchema)]
#[schema(as = SessionId)]
pub(super) struct CreateFields {
    /// Its id; a random one if left out.
    #[schema(pattern = "^[A-Za-z0-9_.:-]{1,128}$")]
    id: Option<String>,
}

/// Makes a session
///
/// Joining one that does not exist, or sending to it, makes it, too.
#[utoipa::path(post, path = "/api/sessions", tag = "sessions", operation_id = "create_session",
    request_body(content = ref("#/components/schemas/Create")),
    responses((status = 201, description = "It is made.", body = ref("#/components/schemas/SessionAndTurns")),
              (status = 409, description = "There is one with this id.")))]
pub(super) async fn create(State(api): State<Api>, who: Who, body: Body) -> Answer {
    let body = text(body)?;
    let CreateFields { id } = fields(&body)?;
    let id = id.unwrap_or_else(ids::fresh);
    who.may(&id, Access::Write)?;
    let update = Update::parse(&body)?;
    within(api.sessions.create(&id, update, true)).await?;
    let session = within(api.sessions.look(&id)).await?;
    Ok((StatusCode::CREATED, json(session)).into_response())
}

/// A session and its turns
///
/// With the turns that wait or run. A turn whose owner is gone is never among them.
#[utoipa::path(get, path = "/api/sessions/{id}", tag = "sessions", operation_id = "read_session",
    responses((status = 200, description = "As it is now.", body = ref("#/components/schemas/SessionAndTurns"))))]
pub(super) async fn look(State(api): State<Api>, who: Who, Segments(id): Segments<String>) -> Answer {
    who.may(&id, Access::Read)?;
    Ok(json(within(api.sessions.look(&id)).await?))
}

/// Changes title, metadata or slots
///
/// What is left out stays. The change is an event of the session's log.
#[utoipa::path(patch, path = "/api/sessions/{id}", tag = "sessions", operation_id = "update_session",
    request_body = UpdateFields,
    responses((status = 200, description = "As it is now.", body = ref("#/components/schemas/SessionAndTurns"))))]
pub(super) async fn update(State(api): State<Api>, who: Who, Segments(id): Segments<String>, body: Body) -> Answer {
    let asker = who.asks(&id)?;
    let update = Update::parse(&text(body)?)?;
    within(async { api.sessions.update(&id, asker, update).await.await }).await?;
    Ok(json(within(api.sessions.look(&id)).await?))
}

/// Deletes a session
///
/// It is gone with all it held, whatever ran in it; members on all nodes are shown `deleted` and let go. Its id is free
/// at once. Needs the admin right on it.
#[utoipa::path(delete, path = "/api/sessions/{id}", tag = "sessions", operation_id = "delete_session",
    responses((status = 200, description = "It is gone.", body = ref("#/components/schemas/Nothing"))))]
pub(super) async fn delete(State(api): State<Api>, who: Who, Segments(id): Segments<String>) -> Answer {
    who.may(&id, Access::Admin)?;
    within(api.sessions.delete(&id, who.asks(&id)?)).await?;
    Ok(json("{}".to_owned()))
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct HistoryParams {
    /// Only messages with a lower seq; what the page before said.
    #[param(value_type = Option<usize>, minimum = 0, maximum = 18446744073709551615usize)]
    before: Option<u64>,
    /// How many at most; more than 500 are 500.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 4294967295u32, default = 100)]
    limit: Option<u32>,
}

/// Messages, the newest page first
///
/// Without answers that are still streaming. Each page is oldest first and holds at most about 256 KiB.
#[utoipa::path(get, path = "/api/sessions/{id}/messages", tag = "sessions", operation_id = "list_messages",
    params(HistoryParams),
    responses((status = 200, description = "A page of them.", body = ref("#/components/schemas/History"))))]
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

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct EventParams {
    /// Only events with a higher seq.
    #[param(value_type = Option<usize>, minimum = 0, maximum = 18446744073709551615usize)]
    after: Option<u64>,
    /// The log that `after` belongs to: where the session has another by now, a page is refused, and a stream begins with
    /// a snapshot.
    epoch: Option<String>,
    /// How many at most, in a page; more than 500 are 500.
    #[param(value_type = Option<i64>, minimum = 1, maximum = 4294967295u32, default = 100)]
    limit: Option<u32>,
}

/// The log: a page of it, or the live stream
///
/// A page is read under the replay rules, from the start without `after`, however old. With
/// `Accept: text/event-stream` the answer goes on: first the event `joined`, the reply to a join, then `events`, each
/// with an id to resume from, and in the end `deleted`, or `retry` where the server is about to stop. A comment comes
/// every 15 seconds.
#[utoipa::path(get, path = "/api/sessions/{id}/events", tag = "sessions", operation_id = "read_events",
    params(EventParams,
        ("Last-Event-ID" = Option<String>, Header,
         description = "For a stream: the id of the last event that was received. Goes before `after` and `epoch`.")),
    responses((status = 200, description = "A page of it, or the stream.",
               content((ref("#/components/schemas/Events") = "application/json"),
                       (ref("#/components/schemas/EventStream") = "text/event-stream"))),
              (status = 409, description = "The epoch is another log's.")))]
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
    answer.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    Ok(answer)
}

/// Sends a message
///
/// And asks for an answer, unless `answer` is false. Answered when it is durable. A session that does not exist is made.
/// Repeat it with the same `id` when its outcome is open.
#[utoipa::path(post, path = "/api/sessions/{id}/messages", tag = "turns", operation_id = "send_message",
    request_body = SendFields,
    responses((status = 202, description = "It is in the log.", body = SendAnswer),
              (status = 409, description = "The id stands for something else, or as many turns run as may.")))]
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

/// Cancels a turn
///
/// Answered when it has ended, at latest after seven seconds; from any node, also when its owner is dead. One's own
/// turns, or with the admin right anybody's.
#[utoipa::path(post, path = "/api/sessions/{id}/turns/{turn}/cancel", tag = "turns", operation_id = "cancel_turn",
    request_body(content = ref("#/components/schemas/Unread"), description = "Is not looked at, and may be empty where `Content-Type` is sent."),
    responses((status = 200, description = "How it ended.", body = CancelAnswer)))]
pub(super) async fn cancel(
    State(api): State<Api>,
    who: Who,
    Segments((id, turn)): Segments<(String, String)>,
) -> Answer {
    let asker = who.asks(&id)?;
    let answer = within(api.sessions.cancel(&id, asker, turn)).await?;
    Ok(json(as_json(&answer)?))
}

/// Asks again for an answer to the prompt of a turn that has ended
///
/// While an attempt waits or runs, that one is answered as a duplicate.
#[utoipa::path(post, path = "/api/sessions/{id}/turns/{turn}/retry", tag = "turns", operation_id = "retry_turn",
    request_body(content = ref("#/components/schemas/Unread"), description = "Is not looked at, and may be empty where `Content-Type` is sent."),
    responses((status = 202, description = "The new turn.", body = RetryAnswer)))]
pub(super) async fn retry(
    State(api): State<Api>,
    who: Who,
    Segments((id, turn)): Segments<(String, String)>,
) -> Answer {
    let asker = who.asks(&id)?;
    let answer = within(async { api.sessions.retry(&id, asker, turn).await?.await }).await?;
    Ok((StatusCode::ACCEPTED, json(as_json(&answer)?)).into_response())
}
