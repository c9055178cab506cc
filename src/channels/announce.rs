//! What is said to everybody on a topic by the server's own side instead of by one of its clients.
//!
//! In the form in which members of that topic hear each other, and under the same rules. Nothing is kept.

use serde::Serialize;
use serde_json::value::RawValue;

use super::room;
use crate::{
    ids,
    model::Person,
    protocol::{Broadcast, Payload},
    pubsub::{Kind, PubSub, Published},
    session::{self, Error},
};

/// The longest name of a member's own event, in bytes.
const MAX_EVENT: usize = 255;

/// Shows `event` to everybody on `topic`, on all nodes: in a session as the push `broadcast` of `by`, elsewhere under its
/// own name.
///
/// # Errors
/// [`Error::Invalid`] where the topic, the event or the payload cannot be one, or the event has a meaning of its own.
pub fn announce(pubsub: &PubSub, by: &Person, topic: &str, event: &str, payload: Box<RawValue>) -> Result<(), Error> {
    let (event, payload) = match topic.strip_prefix(session::TOPIC_PREFIX) {
        Some(id) if ids::is_session_id(id) => ("broadcast", as_broadcast(by, event, &payload)?),
        Some(_) => return Err(Error::Invalid(ids::SESSION_ID_RULE.to_owned())),
        None => {
            let payload = Payload::Json(payload);
            room::check(topic, event, &payload)?;
            (event, payload)
        }
    };
    let broadcast = Broadcast::new(topic, event, payload);
    pubsub.publish(topic, Published { kind: Kind::Ephemeral, from: None, broadcast });
    Ok(())
}

/// The payload of the push `broadcast` in a session.
///
/// # Errors
/// [`Error::Invalid`] where `event` cannot be the name of one.
pub(super) fn as_broadcast(by: &Person, event: &str, payload: &RawValue) -> Result<Payload, Error> {
    #[derive(Serialize)]
    struct Sent<'a> {
        event: &'a str,
        payload: &'a RawValue,
        by: &'a Person,
    }
    if event.is_empty() || event.len() > MAX_EVENT {
        return Err(Error::Invalid(format!("event must have 1 to {MAX_EVENT} bytes")));
    }
    Ok(Payload::json(&Sent { event, payload, by }))
}
