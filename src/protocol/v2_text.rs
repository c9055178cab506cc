//! Version 2 as text: `[join_ref, ref, topic, event, payload]`.
//!
//! Knows no connection. Reads arrays of five or more (what is beyond five is skipped, not kept), writes compact
//! arrays of exactly five. Nothing in here recurses on what a client sent.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Error, Frame, Payload, Ref, Reply, Topic, Wire, codes,
    envelope::{self, Envelope, quote},
};

/// What a frame looks like.
const SHAPE: &str = "[join_ref, ref, topic, event, payload]";

/// Reads one text frame.
pub(super) fn decode(text: &str) -> Result<Frame, Error> {
    let parts: Parts<'_> = serde_json::from_str(text).map_err(|source| Error::Malformed { expected: SHAPE, source })?;
    let [join_ref, reference, topic, event, payload] = parts.0;
    Envelope { join_ref, reference, topic, event, payload }.read(SHAPE)
}

/// The first five elements of an array, as they are written.
struct Parts<'a>([&'a RawValue; 5]);

impl<'de> serde::Deserialize<'de> for Parts<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(PartsVisitor)
    }
}

struct PartsVisitor;

impl<'de> Visitor<'de> for PartsVisitor {
    type Value = Parts<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of five elements")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut parts = [RawValue::NULL; 5];
        for (index, part) in parts.iter_mut().enumerate() {
            *part = seq.next_element()?.ok_or_else(|| A::Error::invalid_length(index, &self))?;
        }
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Parts(parts))
    }
}

/// Writes an answer.
pub(super) fn reply(join_ref: &Ref, reference: &Ref, topic: &Topic, reply: &Reply) -> Result<Wire, Error> {
    let response = reply.response.as_json().ok_or(Error::Binary)?;
    let mut out = open(join_ref, reference, topic, codes::event::PHX_REPLY, response.len() + 40);
    envelope::push_answer(&mut out, &reply.status, response);
    out.push(']');
    Ok(envelope::text(out))
}

/// Writes a push; a broadcast is one without refs.
pub(super) fn push(
    join_ref: &Ref,
    reference: &Ref,
    topic: &Topic,
    event: &str,
    payload: &Payload,
) -> Result<Wire, Error> {
    let payload = payload.as_json().ok_or(Error::Binary)?;
    let mut out = open(join_ref, reference, topic, event, payload.len() + 1);
    out.push_str(payload);
    out.push(']');
    Ok(envelope::text(out))
}

/// The first four elements and the comma before the fifth, with room for `rest` bytes more.
fn open(join_ref: &Ref, reference: &Ref, topic: &Topic, event: &str, rest: usize) -> String {
    let topic_len = match topic {
        Topic::Name(text) | Topic::Other(text) => text.len(),
    };
    let head = join_ref.as_json().len() + reference.as_json().len() + topic_len + event.len() + 9;
    let mut out = String::with_capacity(head + rest);
    out.push('[');
    out.push_str(join_ref.as_json());
    out.push(',');
    out.push_str(reference.as_json());
    out.push(',');
    envelope::push_topic(&mut out, topic);
    out.push(',');
    quote(&mut out, event);
    out.push(',');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn names_come_back_as_they_went(topic in "\\PC{0,40}", event in ".{0,40}") {
            let wire = push(&Ref::NULL, &Ref::from_json("7"), &Topic::name(&topic), &event, &Payload::empty()).unwrap();
            let frame = decode(wire.as_text().unwrap()).unwrap();
            proptest::prop_assert_eq!(frame.topic.as_name(), Some(topic.as_str()));
            proptest::prop_assert_eq!(frame.event, event);
        }
    }
}
