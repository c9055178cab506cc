//! Version 1: JSON objects `{"topic","event","payload","ref"}`, in text frames or, from some clients, in binary ones.
//!
//! Knows no connection. What leaves has exactly those four keys; a `join_ref` is read and never written.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    Error, Frame, Payload, Ref, Reply, Topic, Wire, codes,
    envelope::{self, Envelope, quote},
};

/// What a frame looks like.
const SHAPE: &str = r#"{"topic","event","payload","ref"}, with "join_ref" if you have one"#;

#[derive(Deserialize)]
struct Parts<'a> {
    #[serde(borrow)]
    topic: &'a RawValue,
    #[serde(borrow)]
    event: &'a RawValue,
    #[serde(borrow)]
    payload: &'a RawValue,
    #[serde(borrow, rename = "ref")]
    reference: &'a RawValue,
    #[serde(borrow, default)]
    join_ref: Option<&'a RawValue>,
}

/// Reads one frame.
pub(super) fn decode(text: &str) -> Result<Frame, Error> {
    let malformed = |source| Error::Malformed { expected: SHAPE, source };
    if !text.trim_ascii_start().starts_with('{') {
        // The parser would take an array for the fields in their order.
        return Err(malformed(serde::de::Error::custom("expected an object")));
    }
    let Parts { topic, event, payload, reference, join_ref } = serde_json::from_str(text).map_err(malformed)?;
    Envelope { join_ref: join_ref.unwrap_or(RawValue::NULL), reference, topic, event, payload }.read(SHAPE)
}

/// Writes an answer.
pub(super) fn reply(reference: &Ref, topic: &Topic, reply: &Reply) -> Result<Wire, Error> {
    let response = reply.response.as_json().ok_or(Error::Binary)?;
    let mut answer = String::with_capacity(response.len() + 40);
    envelope::push_answer(&mut answer, &reply.status, response);
    Ok(write(reference, topic, codes::event::PHX_REPLY, &answer))
}

/// Writes a push; a broadcast is one without a ref.
pub(super) fn push(reference: &Ref, topic: &Topic, event: &str, payload: &Payload) -> Result<Wire, Error> {
    Ok(write(reference, topic, event, payload.as_json().ok_or(Error::Binary)?))
}

fn write(reference: &Ref, topic: &Topic, event: &str, payload: &str) -> Wire {
    let mut out = String::with_capacity(payload.len() + event.len() + 96);
    out.push_str(r#"{"topic":"#);
    envelope::push_topic(&mut out, topic);
    out.push_str(r#","event":"#);
    quote(&mut out, event);
    out.push_str(r#","payload":"#);
    out.push_str(payload);
    out.push_str(r#","ref":"#);
    out.push_str(reference.as_json());
    out.push('}');
    envelope::text(out)
}
