//! Version 2 as text: `[join_ref, ref, topic, event, payload]`.
//!
//! Knows no connection. Reads arrays of five or more (what is beyond five is skipped, not kept), writes compact
//! arrays of exactly five. Nothing in here recurses on what a client sent.

use std::fmt;

use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{
    Error, Frame, MAX_EVENT_BYTES, MAX_REF_BYTES, MAX_TOPIC_BYTES, Payload, Ref, Reply, Text, Topic, Wire, codes, scan,
};

/// Reads one text frame.
pub(super) fn decode(text: &str) -> Result<Frame, Error> {
    let parts: Parts<'_> = serde_json::from_str(text).map_err(Error::Malformed)?;
    let [join_ref, reference, topic, event, payload] = parts.0;
    Ok(Frame {
        join_ref: read_ref(join_ref)?,
        reference: read_ref(reference)?,
        topic: read_topic(topic)?,
        event: read_event(event)?,
        payload: scan::keep(payload)?,
    })
}

fn bounded<'a>(raw: &'a RawValue, part: &'static str, limit: usize) -> Result<&'a str, Error> {
    // A character takes at most six bytes when it is written as an escape; the quotes are two more.
    if raw.get().len() > limit * 6 + 2 { Err(Error::TooLarge { part, limit }) } else { Ok(raw.get()) }
}

fn read_ref(raw: &RawValue) -> Result<Ref, Error> {
    if raw.get().len() > MAX_REF_BYTES {
        return Err(Error::TooLarge { part: "ref", limit: MAX_REF_BYTES });
    }
    Ok(Ref::from_json(raw.get()))
}

fn read_topic(raw: &RawValue) -> Result<Topic, Error> {
    let text = bounded(raw, "topic", MAX_TOPIC_BYTES)?;
    if !text.starts_with('"') {
        return Ok(Topic::Other(text.into()));
    }
    let name: String = serde_json::from_str(text).map_err(Error::Malformed)?;
    if name.len() > MAX_TOPIC_BYTES {
        return Err(Error::TooLarge { part: "topic", limit: MAX_TOPIC_BYTES });
    }
    Ok(Topic::Name(name.into()))
}

fn read_event(raw: &RawValue) -> Result<String, Error> {
    let event: String = serde_json::from_str(bounded(raw, "event", MAX_EVENT_BYTES)?).map_err(Error::Malformed)?;
    if event.len() > MAX_EVENT_BYTES {
        return Err(Error::TooLarge { part: "event", limit: MAX_EVENT_BYTES });
    }
    Ok(event)
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
    out.push_str(r#"{"status":"#);
    quote(&mut out, &reply.status);
    out.push_str(r#","response":"#);
    out.push_str(response);
    out.push_str("}]");
    Ok(Wire::Text(Text::from(out)))
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
    Ok(Wire::Text(Text::from(out)))
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
    match topic {
        Topic::Name(name) => quote(&mut out, name),
        Topic::Other(json) => out.push_str(json),
    }
    out.push(',');
    quote(&mut out, event);
    out.push(',');
    out
}

fn quote(out: &mut String, text: &str) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn vectors() -> Value {
        serde_json::from_str(include_str!("../../protocol/vectors/frames/v2_json.json")).unwrap()
    }

    fn text_of(case: &Value, key: &str) -> String {
        case[key].as_str().unwrap_or_else(|| panic!("{key} of {case}")).to_owned()
    }

    #[test]
    fn client_frames_are_read_as_the_vectors_say() {
        for case in vectors()["decode"].as_array().unwrap() {
            let frame = decode(&text_of(case, "text")).unwrap_or_else(|error| panic!("{case}: {error}"));
            assert_eq!(frame.join_ref.as_json(), text_of(case, "join_ref"), "{case}");
            assert_eq!(frame.reference.as_json(), text_of(case, "ref"), "{case}");
            assert_eq!(frame.topic.as_name(), case["topic"].as_str(), "{case}");
            assert_eq!(frame.event, text_of(case, "event"), "{case}");
            assert_eq!(frame.payload.as_json().unwrap(), text_of(case, "payload"), "{case}");
        }
    }

    #[test]
    fn g77_what_is_no_frame_is_refused() {
        for case in vectors()["refuse"].as_array().unwrap() {
            assert!(decode(case.as_str().unwrap()).is_err(), "{case}");
        }
    }

    #[test]
    fn server_frames_are_written_as_the_vectors_say() {
        for case in vectors()["encode"].as_array().unwrap() {
            let join_ref = Ref::from_json(&text_of(case, "join_ref"));
            let reference = Ref::from_json(&text_of(case, "ref"));
            let topic = match &case["topic"] {
                Value::String(name) => Topic::name(name),
                other => Topic::Other(other.to_string().into()),
            };
            let payload = Payload::raw(text_of(case, "payload"));
            let wire = match case["status"].as_str() {
                Some(status) => {
                    let answer = Reply { status: status.to_owned().into(), response: payload };
                    reply(&join_ref, &reference, &topic, &answer)
                }
                None => push(&join_ref, &reference, &topic, &text_of(case, "event"), &payload),
            };
            assert_eq!(wire.unwrap().as_text().unwrap(), text_of(case, "text"));
        }
    }

    #[test]
    fn a_hundred_thousand_levels_do_not_overflow_the_stack() {
        let deep = format!("[null,null,\"t\",\"e\",{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(decode(&deep), Err(Error::TooDeep)));
        let open = format!("[null,null,\"t\",\"e\",{}", "{\"a\":".repeat(100_000));
        assert!(matches!(decode(&open), Err(Error::Malformed(_))));
        let extra = format!("[null,null,\"t\",\"e\",{{}},{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert!(decode(&extra).is_ok() || matches!(decode(&extra), Err(Error::Malformed(_))));
    }

    #[test]
    fn parts_are_bounded() {
        let frame =
            |reference: &str, topic: &str, event: &str| format!("[null,{reference},\"{topic}\",\"{event}\",{{}}]");
        assert!(decode(&frame("1", &"t".repeat(MAX_TOPIC_BYTES), &"e".repeat(MAX_EVENT_BYTES))).is_ok());
        assert!(decode(&frame("1", &"t".repeat(MAX_TOPIC_BYTES + 1), "e")).is_err());
        assert!(decode(&frame("1", "t", &"e".repeat(MAX_EVENT_BYTES + 1))).is_err());
        assert!(decode(&frame(&"1".repeat(MAX_REF_BYTES + 1), "t", "e")).is_err());
    }

    #[test]
    fn bytes_do_not_fit_into_text() {
        let bytes = Payload::Binary(bytes::Bytes::from_static(b"x"));
        assert!(matches!(push(&Ref::NULL, &Ref::NULL, &Topic::name("t"), "e", &bytes), Err(Error::Binary)));
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_refused_or_read_without_a_panic(text in ".*") {
            let _ = decode(&text);
        }

        #[test]
        fn names_come_back_as_they_went(topic in "\\PC{0,40}", event in ".{0,40}") {
            let wire = push(&Ref::NULL, &Ref::from_json("7"), &Topic::name(&topic), &event, &Payload::empty()).unwrap();
            let frame = decode(wire.as_text().unwrap()).unwrap();
            proptest::prop_assert_eq!(frame.topic.as_name(), Some(topic.as_str()));
            proptest::prop_assert_eq!(frame.event, event);
        }
    }
}
