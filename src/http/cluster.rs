//! What operators and other servers ask: the nodes, who is on a topic, a word to everybody on one, and that a user be
//! disconnected.

use axum::{extract::State, http::StatusCode};
use serde::Deserialize;
use serde_json::value::RawValue;

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
    session::{Error, fields},
    transport::Disconnected,
};

/// `GET /api/nodes`
pub(super) async fn nodes(State(api): State<Api>, who: Who) -> Answer {
    who.operates()?;
    Ok(json(as_json(&within(api.sessions.node_list()).await?)?))
}

/// `GET /api/presence/{topic}`
pub(super) async fn presence(State(api): State<Api>, who: Who, Segments(topic): Segments<String>) -> Answer {
    who.may_on(&topic, Access::Admin)?;
    api.is_served(&topic)?;
    let state = api.presence.state(&topic);
    Ok(json(format!("{{\"presence\":{}}}", state.as_json().unwrap_or("{}"))))
}

/// `POST /api/broadcast`
pub(super) async fn broadcast(State(api): State<Api>, who: Who, body: Body) -> Answer {
    #[derive(Deserialize)]
    struct Fields {
        topic: String,
        event: String,
        payload: Option<Box<RawValue>>,
    }
    let Fields { topic, event, payload } = fields(&text(body)?)?;
    who.may_on(&topic, Access::Admin)?;
    api.is_served(&topic)?;
    let nothing = || RawValue::from_string("{}".to_owned()).unwrap_or_default();
    announce(api.host.pubsub(), who.person(), &topic, &event, payload.unwrap_or_else(nothing))?;
    Ok(json("{}".to_owned()))
}

/// `POST /api/disconnect`
pub(super) async fn disconnect(State(api): State<Api>, who: Who, body: Body) -> Answer {
    #[derive(Deserialize)]
    struct Fields {
        user_id: String,
    }
    let Fields { user_id } = fields(&text(body)?)?;
    who.operates()?;
    let Disconnected { here, told } = api.disconnects.user(&user_id);
    if !told {
        let text = "the user was disconnected from this node, and the others cannot be told now; repeat this";
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", text));
    }
    Ok(json(format!("{{\"disconnected\":{here}}}")))
}

impl Api {
    fn is_served(&self, topic: &str) -> Result<(), Error> {
        if self.host.serves(topic) {
            return Ok(());
        }
        Err(Error::NotFound("no channel serves this topic; use session:ID or room:NAME"))
    }
}
