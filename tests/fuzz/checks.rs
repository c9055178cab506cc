//! What must hold whatever a client sends. The fuzzer looks for inputs for which it does not; the integration tests run
//! the inputs that it has kept.

#![allow(dead_code, reason = "each target runs one of the checks")]

use rejoin::{
    protocol::{Error, Frame, Payload, Ref, Reply, Serializer, Wire},
    transport::{
        MAX_DEPTH, MAX_PARAMS, Param, Params,
        long_poll::{Line, MAX_LINES, lines},
    },
};
use serde_json::value::RawValue;

/// Version 1, as text and as bytes.
pub(crate) fn v1(data: &[u8]) {
    let as_bytes = Serializer::V1.decode_binary(data);
    let Ok(text) = std::str::from_utf8(data) else {
        assert!(as_bytes.is_err());
        return;
    };
    let as_text = Serializer::V1.decode_text(text);
    assert_eq!(as_text.is_ok(), as_bytes.is_ok());
    read(Serializer::V1, as_text);
}

/// Version 2 as text.
pub(crate) fn v2_text(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        read(Serializer::V2, Serializer::V2.decode_text(text));
    }
}

/// Version 2 as bytes.
pub(crate) fn v2_binary(data: &[u8]) {
    read(Serializer::V2, Serializer::V2.decode_binary(data));
}

/// The query of a request.
pub(crate) fn params(data: &[u8]) {
    let Ok(query) = std::str::from_utf8(data) else { return };
    let Ok(params) = Params::parse(query) else { return };
    for key in ["vsn", "user_id", "a", ""] {
        let plain = params.get(key);
        assert!(plain.is_none() || !params.is_nested(key));
    }
    assert!(params.map().values().map(size).sum::<usize>() <= MAX_PARAMS * (MAX_DEPTH + 1));
}

/// How many values lie in one.
fn size(param: &Param) -> usize {
    let list = param.as_list().into_iter().flatten();
    1 + list.chain(param.as_map().into_iter().flat_map(|map| map.values())).map(size).sum::<usize>()
}

/// The body of a long-poll request.
pub(crate) fn long_poll(data: &[u8]) {
    const MAX_BYTES: usize = 4_096;
    let mut count = 0;
    for line in lines(data, MAX_BYTES) {
        count += 1;
        match line {
            Ok(Line::Text(text)) => {
                assert!(text.len() <= MAX_BYTES);
                read(Serializer::V2Text, Serializer::V2Text.decode_text(text));
            }
            Ok(Line::Binary(bytes)) => {
                assert!(bytes.len() <= MAX_BYTES);
                read(Serializer::V2Text, Serializer::V2Text.decode_binary(&bytes));
            }
            Err(_) => {}
        }
    }
    assert!(count <= MAX_LINES);
}

/// What was read can be written, and reads the same again.
fn read(serializer: Serializer, frame: Result<Frame, Error>) {
    match frame {
        Ok(frame) => echo(serializer, &frame),
        Err(Error::Refused(refused)) => {
            let reply = serializer.reply(&refused.join_ref, &refused.reference, &refused.topic, &refused.reply());
            assert!(matches!(reply, Ok(Wire::Text(_))));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn echo(serializer: Serializer, frame: &Frame) {
    if matches!(frame.payload, Payload::Binary(_)) {
        return echo_bytes(serializer, frame);
    }
    let text = match serializer.push(&frame.join_ref, &frame.reference, &frame.topic, &frame.event, &frame.payload) {
        Ok(Wire::Text(text)) => text,
        other => panic!("JSON was not written as text: {other:?}"),
    };
    let again = serializer.decode_text(text.as_str()).unwrap();
    let join_ref = if serializer == Serializer::V1 { Ref::NULL } else { frame.join_ref.clone() };
    assert_eq!(again.join_ref, join_ref);
    assert_eq!(again.reference, frame.reference);
    assert_eq!(again.topic, frame.topic);
    assert_eq!(again.event, frame.event);
    assert_eq!(again.payload.as_json(), frame.payload.as_json());
    let reply = serializer.reply(&frame.join_ref, &frame.reference, &frame.topic, &Reply::ok(frame.payload.clone()));
    let Ok(Wire::Text(reply)) = reply else { panic!("no answer in text") };
    assert!(serde_json::from_str::<&RawValue>(reply.as_str()).is_ok());
}

fn echo_bytes(serializer: Serializer, frame: &Frame) {
    let pushed = serializer.push(&frame.join_ref, &frame.reference, &frame.topic, &frame.event, &frame.payload);
    let replied = serializer.reply(&frame.join_ref, &frame.reference, &frame.topic, &Reply::ok(frame.payload.clone()));
    if serializer == Serializer::V2Text {
        assert!(matches!((pushed, replied), (Err(Error::Binary), Err(Error::Binary))));
        return;
    }
    let (Ok(Wire::Binary(pushed)), Ok(Wire::Binary(replied))) = (pushed, replied) else {
        panic!("what came as bytes was not written as bytes")
    };
    let Payload::Binary(payload) = &frame.payload else { return };
    assert!(pushed.ends_with(payload) && replied.ends_with(payload));
    assert_eq!((pushed[0], replied[0]), (0, 1));
}
