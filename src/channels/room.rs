//! Topic `room:<name>`: an ephemeral channel.
//!
//! Passes every event that has no meaning of its own on to the others under its own name, and shows who is here.
//! Knows no store: what is said here is not kept. Its invariant: nothing reaches the others that their clients take for
//! a word of the protocol, or stumble over.

use async_trait::async_trait;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::shown::{Shown, Stage};
use crate::{
    auth::Access,
    channel::{Channel, Context, Joined, Leave, Next, Refusal},
    protocol::{Payload, Reply, codes, strict},
    session::{Error, lenient_fields},
};

/// What the names of rooms' topics begin with.
pub const TOPIC_PREFIX: &str = "room:";
/// The longest name of a room, and of an event in it, in bytes: what a binary frame can carry.
const MAX_NAME: usize = 255;
/// What the names of events that clients keep to themselves, or to their presence, begin with.
const RESERVED_PREFIXES: [&str; 3] = ["phx_", "chan_reply_", "presence_"];

/// What all rooms share. Cheap to clone.
#[derive(Clone)]
pub struct Shared {
    stage: Stage,
}

impl Shared {
    /// For rooms that show their clients on `stage`.
    pub fn new(stage: Stage) -> Self {
        Self { stage }
    }

    /// A channel for one joined topic.
    pub fn channel(&self) -> Box<dyn Channel> {
        Box::new(Room { shown: Shown::new(&self.stage), to_self: false })
    }
}

/// One room joined on one connection.
struct Room {
    shown: Shown,
    /// Whether the client gets what it sends itself.
    to_self: bool,
}

#[derive(Deserialize, Default)]
struct JoinParams<'a> {
    #[serde(rename = "self")]
    to_self: Option<bool>,
    #[serde(borrow, default)]
    presence: Option<&'a RawValue>,
}

/// The parameters of a join. Clients send anything there; what is no object says nothing.
fn join_params(params: &Payload) -> Result<JoinParams<'_>, Error> {
    match params.as_json() {
        Some(text) if params.is_object() => lenient_fields(text),
        _ => Ok(JoinParams::default()),
    }
}

fn check_name(topic: &str) -> Result<(), Error> {
    let name = topic.strip_prefix(TOPIC_PREFIX).unwrap_or_default();
    if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
        let rule = format!("a room's name has 1 to {MAX_NAME} bytes, none of them a control character");
        return Err(Error::Invalid(rule));
    }
    Ok(())
}

/// Whether an event may be passed on under its own name.
fn check_event(event: &str) -> Result<(), Error> {
    if event.is_empty() || event.len() > MAX_NAME || event.chars().any(char::is_control) {
        let rule = format!("an event's name has 1 to {MAX_NAME} bytes, none of them a control character");
        return Err(Error::Invalid(rule));
    }
    let reserved = RESERVED_PREFIXES.iter().any(|prefix| event.starts_with(prefix));
    if reserved || codes::event::ALL.contains(&event) {
        return Err(Error::Invalid(format!("the event {event:?} has a meaning of its own; use another name")));
    }
    Ok(())
}

/// Whether a payload may be passed on: bytes if a binary frame can name their topic, JSON if every client can read it.
fn check_payload(topic: &str, payload: &Payload) -> Result<(), Error> {
    let Some(text) = payload.as_json() else {
        let long = || Error::Invalid(format!("bytes need a topic of at most {MAX_NAME} bytes; send a JSON object"));
        return if topic.len() > MAX_NAME { Err(long()) } else { Ok(()) };
    };
    if !payload.is_object() {
        return Err(Error::Invalid("the payload must be a JSON object, or bytes".to_owned()));
    }
    strict::check(text).map_err(|unsound| Error::Invalid(unsound.to_string()))
}

/// Whether `event` may be said on `topic`, a room or a channel of somebody's own, by the server's own side.
pub(super) fn check(topic: &str, event: &str, payload: &Payload) -> Result<(), Error> {
    if topic.starts_with(TOPIC_PREFIX) {
        check_name(topic)?;
    }
    check_event(event)?;
    check_payload(topic, payload)
}

fn refusal(error: &Error) -> Refusal {
    Refusal::because(error.reason(), &error.to_string())
}

impl Room {
    fn admit(&mut self, cx: &mut Context, params: &Payload) -> Result<(), Error> {
        let identity = cx.identity();
        if identity.access(cx.topic()) < Access::Read {
            return Err(Error::Unauthorized("this token does not open this room"));
        }
        check_name(cx.topic())?;
        let params = join_params(params)?;
        self.to_self = params.to_self.unwrap_or_default();
        self.shown.take(&identity.person, params.presence)?;
        self.shown.enter(cx)
    }

    async fn handle(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Result<(), Error> {
        let identity = cx.identity();
        let text = || {
            let bytes = || Error::Invalid(format!("bytes mean nothing to {event:?}; send a JSON object"));
            payload.as_json().ok_or_else(bytes)
        };
        match event {
            "access_token" => self.shown.renewals().renew(cx, text()?).await,
            "presence" if identity.access(cx.topic()) >= Access::Read => self.shown.replace(&identity.person, text()?),
            _ if identity.access(cx.topic()) < Access::Write => {
                Err(Error::Unauthorized("this token does not allow this"))
            }
            _ => self.pass_on(cx, event, payload),
        }
    }

    fn pass_on(&self, cx: &Context, event: &str, payload: Payload) -> Result<(), Error> {
        check_event(event)?;
        check_payload(cx.topic(), &payload)?;
        if self.to_self {
            cx.broadcast(event, payload);
        } else {
            cx.broadcast_from(event, payload);
        }
        Ok(())
    }
}

#[async_trait]
impl Channel for Room {
    async fn join(&mut self, cx: &mut Context, params: Payload) -> Result<Joined, Refusal> {
        self.admit(cx, &params).map_err(|error| refusal(&error))?;
        Ok(Joined::default())
    }

    async fn handle_in(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Next {
        Next::Reply(match self.handle(cx, event, payload).await {
            Ok(()) => Reply::ok(Payload::empty()),
            Err(error) => Reply::refuse(error.reason(), &error.to_string()),
        })
    }

    async fn presence_state(&mut self, cx: &mut Context) -> Option<Payload> {
        Some(self.shown.state(cx))
    }

    async fn terminate(&mut self, _cx: &mut Context, _reason: Leave) {
        self.shown.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_rooms_are_checked_by_bytes_and_characters() {
        for good in ["room:a", "room: ", "room:ü/:😀", &format!("room:{}", "x".repeat(MAX_NAME))] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["room:", "room:a\nb", "room:\u{0}", "room:\u{85}", &format!("room:{}", "ü".repeat(128))] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn events_of_the_protocol_are_not_passed_on() {
        let own = ["phx_anything", "chan_reply_4", "presence_diff", "presence_x", "", "a\u{0}", &"x".repeat(256)];
        for bad in codes::event::ALL.iter().chain(&own) {
            assert!(check_event(bad).is_err(), "{bad}");
        }
        for good in ["shout", "phx", "a presence", "😀", &"x".repeat(255)] {
            assert_eq!(check_event(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn bytes_are_refused_where_no_frame_can_carry_them() {
        let bytes = Payload::Binary(bytes::Bytes::from_static(&[0, 255]));
        assert_eq!(check_payload(&"x".repeat(255), &bytes), Ok(()));
        assert!(check_payload(&"x".repeat(256), &bytes).is_err());
        assert_eq!(check_payload(&"x".repeat(260), &Payload::empty()), Ok(()));
    }

    #[test]
    fn parameters_that_are_no_object_say_nothing() {
        for text in ["null", "[]", "[1]", "1", "\"x\"", "true", "{}", r#"{"self":null,"presence":null}"#] {
            let payload = Payload::raw(text.to_owned());
            let params = join_params(&payload).unwrap();
            assert!(params.to_self.is_none() && params.presence.is_none(), "{text}");
        }
        assert!(join_params(&Payload::Binary(bytes::Bytes::from_static(b"{\"self\":1}"))).is_ok());
        for text in [r#"{"self":1}"#, r#"{"self":"true"}"#, r#"{"self":[]}"#] {
            assert!(join_params(&Payload::raw(text.to_owned())).is_err(), "{text}");
        }
    }
}
