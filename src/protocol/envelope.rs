//! What the encodings share: the five parts of a frame as they were written, how they are read and how large they may
//! be.
//!
//! Knows neither brackets nor keys. Its invariant: whatever cannot be handled is found before the payload is
//! copied, and refs and topic are known by then, so that it can be answered.

use serde_json::value::RawValue;

use super::{
    Error, Frame, MAX_EVENT_BYTES, MAX_REF_BYTES, MAX_TOPIC_BYTES, Ref, Text, Topic, Wire,
    error::{Fault, Refused},
    scan,
};

/// The parts of a frame, as JSON.
pub(super) struct Envelope<'a> {
    pub(super) join_ref: &'a RawValue,
    pub(super) reference: &'a RawValue,
    pub(super) topic: &'a RawValue,
    pub(super) event: &'a RawValue,
    pub(super) payload: &'a RawValue,
}

impl Envelope<'_> {
    /// The frame. `expected` is what the encoding looks like, for the error.
    pub(super) fn read(&self, expected: &'static str) -> Result<Frame, Error> {
        let malformed = |source| Error::Malformed { expected, source };
        let (join_ref, reference) = (Ref::from_json(self.join_ref.get()), Ref::from_json(self.reference.get()));
        let topic = self.topic().map_err(malformed)?;
        let read = self.event().map_err(malformed)?.and_then(|event| {
            check(&join_ref, &reference, &topic, &event)?;
            Ok((event, scan::keep(self.payload)?))
        });
        match read {
            Ok((event, payload)) => Ok(Frame { join_ref, reference, topic, event, payload }),
            Err(fault) => Err(Error::Refused(Box::new(Refused { join_ref, reference, topic, fault }))),
        }
    }

    fn event(&self) -> Result<Result<String, Fault>, serde_json::Error> {
        let text = self.event.get();
        if text.starts_with('"') { serde_json::from_str(text).map(Ok) } else { Ok(Err(Fault::NoEvent)) }
    }

    fn topic(&self) -> Result<Topic, serde_json::Error> {
        let text = self.topic.get();
        if text.starts_with('"') {
            let name: String = serde_json::from_str(text)?;
            return Ok(Topic::Name(name.into()));
        }
        Ok(Topic::Other(text.into()))
    }
}

/// Whether the parts of a frame keep to their limits.
pub(super) fn check(join_ref: &Ref, reference: &Ref, topic: &Topic, event: &str) -> Result<(), Fault> {
    let topic = match topic {
        Topic::Name(text) | Topic::Other(text) => text.len(),
    };
    let parts = [
        ("join_ref", join_ref.as_json().len(), MAX_REF_BYTES),
        ("ref", reference.as_json().len(), MAX_REF_BYTES),
        ("topic", topic, MAX_TOPIC_BYTES),
        ("event name", event.len(), MAX_EVENT_BYTES),
    ];
    match parts.into_iter().find(|(_, length, limit)| length > limit) {
        Some((part, _, limit)) => Err(Fault::TooLarge { part, limit }),
        None => Ok(()),
    }
}

/// Adds a topic as JSON.
pub(super) fn push_topic(out: &mut String, topic: &Topic) {
    match topic {
        Topic::Name(name) => quote(out, name),
        Topic::Other(json) => out.push_str(json),
    }
}

/// Adds the payload of an answer.
pub(super) fn push_answer(out: &mut String, status: &str, response: &str) {
    out.push_str(r#"{"status":"#);
    quote(out, status);
    out.push_str(r#","response":"#);
    out.push_str(response);
    out.push('}');
}

/// Adds `text` as a JSON string.
pub(super) fn quote(out: &mut String, text: &str) {
    let plain = text.bytes().all(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\');
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        // A `Value` of a string always has a text.
        out.push_str(&serde_json::Value::from(text).to_string());
    }
}

/// A whole text message.
pub(super) fn text(out: String) -> Wire {
    Wire::Text(Text::from(out))
}
