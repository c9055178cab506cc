//! What operators and other servers ask: the nodes, who is on a topic, a word to everybody on one, and that a user be
//! disconnected.

use axum::{extract::State, http::StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Api,
    error::Problem,
    json,
    request::{Answer, Body, Segments, as_json, text, within},
    who::Who,
};
use crate::{
    auth::Access,
    channels::announce,
    ids,
    protocol::compacted,
    session::{Error, NodeList, fields},
    transport::Disconnected,
};

/// Every node of the cluster
///
/// Each with how long ago it was seen moving by the clock of the node that answers, and how much it has to do.
#[utoipa::path(get, path = "/api/nodes", tag = "operations", operation_id = "list_nodes",
    responses((status = 200, description = "The nodes.", body = NodeList)))]
pub(super) async fn nodes(State(api): State<Api>, who: Who) -> Answer {
    who.operates()?;
    Ok(json(as_json(&within(api.sessions.node_list()).await?)?))
}

/// Who is on a topic
///
/// As `presence_state` shows it to its members. Needs the admin right on the topic.
#[utoipa::path(get, path = "/api/presence/{topic}", tag = "operations", operation_id = "read_presence",
    params(("topic" = String, Path, description = "The topic, percent-encoded.", example = "session:planning")),
    responses((status = 200, description = "Who is there.", body = ref("#/components/schemas/Presence")),
              (status = 404, description = "No channel serves this topic.")))]
pub(super) async fn presence(State(api): State<Api>, who: Who, Segments(topic): Segments<String>) -> Answer {
    who.may_on(&topic, Access::Admin)?;
    api.is_open(&topic)?;
    let state = api.presence.state(&topic);
    Ok(json(format!("{{\"presence\":{}}}", state.as_json().unwrap_or("{}"))))
}

/// A word to everybody on a topic.
#[derive(Deserialize, ToSchema)]
#[schema(as = Broadcast, example = json!({"topic": "room:lobby", "event": "news", "payload": {"text": "Hello"}}))]
pub(super) struct BroadcastFields {
    /// The topic.
    topic: String,
    /// The event's name, at most 255 bytes. In a room some are reserved.
    #[schema(min_length = 1, max_length = 255)]
    event: String,
    /// What it says; `{}` if left out. In a room it must be an object.
    #[schema(value_type = Option<Object>)]
    payload: Option<Box<RawValue>>,
}

/// A word to everybody on a topic
///
/// On all nodes, now or never: nothing is kept. In a session it is the push `broadcast` with `by`, in a room it has its
/// own name. Needs the admin right on the topic.
#[utoipa::path(post, path = "/api/broadcast", tag = "operations", operation_id = "broadcast",
    request_body = BroadcastFields,
    responses((status = 200, description = "It is said.", body = ref("#/components/schemas/Nothing")),
              (status = 404, description = "No channel serves this topic.")))]
pub(super) async fn broadcast(State(api): State<Api>, who: Who, body: Body) -> Answer {
    let BroadcastFields { topic, event, payload } = fields(&text(body)?)?;
    who.may_on(&topic, Access::Admin)?;
    api.is_open(&topic)?;
    let nothing = || RawValue::from_string("{}".to_owned()).unwrap_or_default();
    announce(api.host.pubsub(), who.person(), &topic, &event, payload.map_or_else(nothing, compacted))?;
    Ok(json("{}".to_owned()))
}

/// Whom to disconnect.
#[derive(Deserialize, ToSchema)]
#[schema(as = Disconnect, example = json!({"user_id": "u1"}))]
pub(super) struct DisconnectFields {
    /// The user's id.
    #[schema(pattern = "^[^\\u0000-\\u001f\\u007f-\\u009f]{1,128}$")]
    user_id: String,
}

/// How many connections were ended.
#[derive(Serialize, ToSchema)]
struct Ended {
    /// Those of the node that answers; others end theirs in the same moment.
    disconnected: usize,
}

/// Ends every live connection of a user
///
/// On all nodes. Whoever may come back does so at once: take the token's rights away first.
#[utoipa::path(post, path = "/api/disconnect", tag = "operations", operation_id = "disconnect",
    request_body = DisconnectFields,
    responses((status = 200, description = "They are ended.", body = Ended)))]
pub(super) async fn disconnect(State(api): State<Api>, who: Who, body: Body) -> Answer {
    let DisconnectFields { user_id } = fields(&text(body)?)?;
    who.operates()?;
    if !ids::is_client_id(&user_id) {
        return Err(Problem::invalid("user_id must have 1 to 128 characters, none of them a control character"));
    }
    let Disconnected { here, told } = api.disconnects.user(&user_id);
    if !told {
        let text = "the user was disconnected from this node, and the others cannot be told now; repeat this";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text));
    }
    Ok(json(as_json(&Ended { disconnected: here })?))
}

impl Api {
    fn is_open(&self, topic: &str) -> Result<(), Error> {
        if self.host.is_open(topic) {
            return Ok(());
        }
        Err(Error::NotFound("no channel serves this topic; use session:ID or room:NAME"))
    }
}
