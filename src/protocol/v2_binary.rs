//! Version 2 as bytes: a kind, the lengths of the head's parts in a byte each, the parts, and the payload to the end.
//!
//! Knows no connection. Clients send kind 0, and kind 3 for a broadcast under a name of their own, as the clients of
//! one popular service do; the server sends kinds 0, 1 and 2. Refs are text in here: a ref that is a JSON string loses
//! its quotes, and an empty one is none.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::{
    Error, Frame, MAX_BINARY_PART, Payload, Ref, Topic, Wire,
    envelope::{self, quote},
    error::{Fault, Refused},
    scan,
};

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;
const USER_BROADCAST: u8 = 3;

/// The event under which a broadcast of kind 3 arrives.
const USER_BROADCAST_EVENT: &str = "broadcast";

/// Reads one frame.
pub(super) fn decode(bytes: &[u8]) -> Result<Frame, Error> {
    let mut rest = Reader(bytes);
    match rest.byte()? {
        PUSH => push_frame(rest),
        USER_BROADCAST => user_broadcast(rest),
        _ => Err(Error::Layout("a client sends kind 0")),
    }
}

fn push_frame(mut rest: Reader<'_>) -> Result<Frame, Error> {
    let lengths = [rest.byte()?, rest.byte()?, rest.byte()?, rest.byte()?];
    let [join_ref, reference, topic, event] = rest.texts(lengths)?;
    finish(join_ref, reference, topic, event, || Ok(Payload::Binary(Bytes::copy_from_slice(rest.0))))
}

/// The frame of these parts. A ref may be larger as JSON than it was.
fn finish(
    join_ref: &str,
    reference: &str,
    topic: &str,
    event: &str,
    payload: impl FnOnce() -> Result<Payload, Fault>,
) -> Result<Frame, Error> {
    let (join_ref, reference, topic) = (read_ref(join_ref), read_ref(reference), Topic::name(topic));
    match envelope::check(&join_ref, &reference, &topic, event).and_then(|()| payload()) {
        Ok(payload) => Ok(Frame { join_ref, reference, topic, event: event.to_owned(), payload }),
        Err(fault) => Err(Error::Refused(Box::new(Refused { join_ref, reference, topic, fault }))),
    }
}

/// A broadcast under the client's own name for it, with JSON inside; it arrives as that service's clients send it as
/// text.
fn user_broadcast(mut rest: Reader<'_>) -> Result<Frame, Error> {
    let lengths = [rest.byte()?, rest.byte()?, rest.byte()?, rest.byte()?, rest.byte()?];
    let encoding = rest.byte()?;
    let [join_ref, reference, topic, event, meta] = rest.texts(lengths)?;
    if encoding != 1 {
        return Err(Error::Layout("the payload of a frame of kind 3 must be JSON (encoding 1)"));
    }
    let text = std::str::from_utf8(rest.0).map_err(|_| Error::Layout("the payload is not UTF-8"))?;
    let data = json(text, "the payload is not JSON")?;
    let meta = if meta.is_empty() { None } else { Some(json(meta, "the metadata is not JSON")?) };
    finish(join_ref, reference, topic, USER_BROADCAST_EVENT, || {
        Ok(user_payload(event, &scan::keep(data)?, meta.map(scan::keep).transpose()?.as_ref()))
    })
}

fn user_payload(event: &str, data: &Payload, meta: Option<&Payload>) -> Payload {
    let mut out = String::from(r#"{"type":"broadcast","event":"#);
    quote(&mut out, event);
    for (key, value) in [("payload", Some(data)), ("meta", meta)] {
        if let Some(value) = value.and_then(Payload::as_json) {
            out.push_str(&format!(r#","{key}":{value}"#));
        }
    }
    out.push('}');
    Payload::raw(out)
}

fn json<'a>(text: &'a str, problem: &'static str) -> Result<&'a RawValue, Error> {
    serde_json::from_str(text).map_err(|_| Error::Layout(problem))
}

/// Writes an answer that carries bytes.
pub(super) fn reply(
    join_ref: &Ref,
    reference: &Ref,
    topic: &Topic,
    status: &str,
    response: &[u8],
) -> Result<Wire, Error> {
    let parts = [
        ("join_ref", &*write_ref(join_ref)),
        ("ref", &*write_ref(reference)),
        ("topic", name(topic)?),
        ("status", status),
    ];
    write(REPLY, &parts, response)
}

/// Writes a push that carries bytes; it has no ref.
pub(super) fn push(join_ref: &Ref, topic: &Topic, event: &str, payload: &[u8]) -> Result<Wire, Error> {
    write(PUSH, &[("join_ref", &*write_ref(join_ref)), ("topic", name(topic)?), ("event", event)], payload)
}

/// Writes a broadcast that carries bytes.
pub(super) fn broadcast(topic: &str, event: &str, payload: &[u8]) -> Result<Wire, Error> {
    write(BROADCAST, &[("topic", topic), ("event", event)], payload)
}

fn write(kind: u8, parts: &[(&'static str, &str)], payload: &[u8]) -> Result<Wire, Error> {
    let texts: usize = parts.iter().map(|(_, text)| text.len()).sum();
    let mut out = Vec::with_capacity(1 + parts.len() + texts + payload.len());
    out.push(kind);
    for (part, text) in parts {
        let length = u8::try_from(text.len()).map_err(|_| Error::TooLong { part, limit: MAX_BINARY_PART })?;
        out.push(length);
    }
    parts.iter().for_each(|(_, text)| out.extend_from_slice(text.as_bytes()));
    out.extend_from_slice(payload);
    Ok(Wire::Binary(out.into()))
}

fn name(topic: &Topic) -> Result<&str, Error> {
    topic.as_name().ok_or(Error::Layout("its topic is not a string"))
}

fn read_ref(text: &str) -> Ref {
    if text.is_empty() {
        return Ref::NULL;
    }
    let mut json = String::with_capacity(text.len() + 2);
    quote(&mut json, text);
    Ref::from_json(&json)
}

fn write_ref(reference: &Ref) -> String {
    if reference.is_null() {
        return String::new();
    }
    serde_json::from_str(reference.as_json()).unwrap_or_else(|_| reference.as_json().to_owned())
}

/// What is left of a message.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, Error> {
        let (byte, rest) = self.0.split_first().ok_or(Error::Layout("it ends in its head"))?;
        self.0 = rest;
        Ok(*byte)
    }

    fn texts<const N: usize>(&mut self, lengths: [u8; N]) -> Result<[&'a str; N], Error> {
        let mut texts = [""; N];
        for (text, length) in texts.iter_mut().zip(lengths) {
            *text = self.text(length.into())?;
        }
        Ok(texts)
    }

    fn text(&mut self, length: usize) -> Result<&'a str, Error> {
        let (part, rest) = self.0.split_at_checked(length).ok_or(Error::Layout("it ends in its head"))?;
        self.0 = rest;
        std::str::from_utf8(part).map_err(|_| Error::Layout("a part of its head is not UTF-8"))
    }
}
