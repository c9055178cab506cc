//! What operators and other servers ask: the nodes, who is on a topic, and a word to everybody on one.

use axum::extract::State;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Api, json,
    request::{Answer, Body, Segments, as_json, text, within},
    who::Who,
};
use crate::{
    auth::Access,
    channels::announce,
    session::{Error, fields},
};

/// `GET /api/nodes`
pub(super) async fn nodes(State(api): State<Api>, who: Who) -> Answer {
    who.may_on("*", Access::Admin)?;
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

impl Api {
    fn is_served(&self, topic: &str) -> Result<(), Error> {
        if self.host.serves(topic) {
            return Ok(());
        }
        Err(Error::NotFound("no channel serves this topic; use session:ID or room:NAME"))
    }
}
