//! The cases of `protocol/vectors/frames`, which clients in other languages run as well.

use bytes::Bytes;
use serde_json::Value;

use super::{
    Error, Frame, MAX_DEPTH, MAX_EVENT_BYTES, MAX_REF_BYTES, MAX_TOPIC_BYTES, Payload, Ref, Reply, Serializer, Topic,
    Wire,
};

const TEXT: [(Serializer, &str); 2] = [
    (Serializer::V1, include_str!("../../protocol/vectors/frames/v1.json")),
    (Serializer::V2, include_str!("../../protocol/vectors/frames/v2_text.json")),
];
const BINARY: &str = include_str!("../../protocol/vectors/frames/v2_binary.json");

fn text_of<'a>(case: &'a Value, key: &str) -> &'a str {
    case[key].as_str().unwrap_or_else(|| panic!("{key} of {case}"))
}

fn cases(file: &str, key: &str) -> Vec<Value> {
    let file: Value = serde_json::from_str(file).unwrap();
    file[key].as_array().unwrap_or_else(|| panic!("{key}")).clone()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn check_frame(frame: &Frame, case: &Value) {
    assert_eq!(frame.join_ref.as_json(), text_of(case, "join_ref"), "{case}");
    assert_eq!(frame.reference.as_json(), text_of(case, "ref"), "{case}");
    assert_eq!(frame.topic.as_name(), case["topic"].as_str(), "{case}");
    assert_eq!(frame.event, text_of(case, "event"), "{case}");
    match &frame.payload {
        Payload::Json(payload) => assert_eq!(payload.get(), text_of(case, "payload"), "{case}"),
        Payload::Binary(payload) => assert_eq!(**payload, bytes(text_of(case, "payload_hex")), "{case}"),
    }
}

fn topic_of(case: &Value) -> Topic {
    match &case["topic"] {
        Value::String(name) => Topic::name(name),
        other => Topic::Other(other.to_string().into()),
    }
}

fn write(serializer: Serializer, case: &Value, payload: Payload) -> Result<Wire, Error> {
    let reference = |key: &str| Ref::from_json(case[key].as_str().unwrap_or("null"));
    let (join_ref, reference, topic) = (reference("join_ref"), reference("ref"), topic_of(case));
    match (case["status"].as_str(), case["kind"].as_str()) {
        (Some(status), _) => {
            let reply = Reply { status: status.to_owned().into(), response: payload };
            serializer.reply(&join_ref, &reference, &topic, &reply)
        }
        (None, Some("broadcast")) => serializer.broadcast(topic.as_name().unwrap(), text_of(case, "event"), &payload),
        (None, _) => serializer.push(&join_ref, &reference, &topic, text_of(case, "event"), &payload),
    }
}

#[test]
fn h82_h85_client_frames_are_read_as_the_vectors_say() {
    for (serializer, file) in TEXT {
        for case in cases(file, "decode") {
            let text = text_of(&case, "text");
            check_frame(&serializer.decode_text(text).unwrap_or_else(|error| panic!("{case}: {error}")), &case);
        }
    }
    for case in cases(BINARY, "decode") {
        let frame = Serializer::V2.decode_binary(&bytes(text_of(&case, "hex")));
        check_frame(&frame.unwrap_or_else(|error| panic!("{case}: {error}")), &case);
    }
}

#[test]
fn i89_version_1_may_come_in_binary_frames() {
    for case in cases(TEXT[0].1, "decode") {
        check_frame(&Serializer::V1.decode_binary(text_of(&case, "text").as_bytes()).unwrap(), &case);
    }
    assert!(Serializer::V1.decode_binary(&[0xff]).is_err());
}

#[test]
fn g77_g78_what_is_no_frame_is_refused() {
    for (serializer, file) in TEXT {
        for case in cases(file, "refuse") {
            let error = serializer.decode_text(case.as_str().unwrap()).unwrap_err();
            assert!(matches!(error, Error::Malformed { .. }), "{case}: {error}");
        }
    }
    for case in cases(BINARY, "refuse") {
        let error = Serializer::V2.decode_binary(&bytes(case.as_str().unwrap())).unwrap_err();
        assert!(matches!(error, Error::Layout(_)), "{case}: {error}");
    }
}

#[test]
fn server_frames_are_written_as_the_vectors_say() {
    for (serializer, file) in TEXT {
        for case in cases(file, "encode") {
            let wire = write(serializer, &case, Payload::raw(text_of(&case, "payload").to_owned())).unwrap();
            assert_eq!(wire.as_text().unwrap(), text_of(&case, "text"));
        }
    }
    for case in cases(BINARY, "encode") {
        let payload = Payload::Binary(bytes(text_of(&case, "payload_hex")).into());
        assert_eq!(write(Serializer::V2, &case, payload).unwrap(), Wire::Binary(bytes(text_of(&case, "hex")).into()));
    }
}

#[test]
fn h84_what_does_not_fit_into_a_byte_of_length_is_an_error() {
    for case in cases(BINARY, "too_long") {
        let written = write(Serializer::V2, &case, Payload::Binary(Bytes::new()));
        assert!(matches!(written, Err(Error::TooLong { .. })), "{case}");
    }
}

#[test]
fn bytes_do_not_fit_into_text() {
    let case = serde_json::json!({ "kind": "push", "join_ref": "\"1\"", "topic": "t", "event": "e" });
    for serializer in [Serializer::V1, Serializer::V2Text] {
        let payload = Payload::Binary(Bytes::from_static(b"x"));
        assert!(matches!(write(serializer, &case, payload), Err(Error::Binary)));
    }
}

/// One frame in both text versions.
fn both(topic: &str, reference: &str, event: &str, payload: &str) -> [Result<Frame, Error>; 2] {
    let v1 = format!(r#"{{"topic":"{topic}","event":"{event}","payload":{payload},"ref":{reference}}}"#);
    let v2 = format!(r#"[null,{reference},"{topic}","{event}",{payload}]"#);
    [Serializer::V1.decode_text(&v1), Serializer::V2.decode_text(&v2)]
}

#[test]
fn a_hundred_thousand_levels_do_not_overflow_the_stack() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for read in both("t", "1", "e", &nested(100_000)) {
        let Err(Error::Refused(refused)) = read else { panic!("it was taken") };
        assert_eq!(refused.reference.as_json(), "1");
        assert!(refused.reply().response.as_json().unwrap().contains("\"invalid\""));
    }
    assert!(both("t", "1", "e", &nested(MAX_DEPTH)).iter().all(Result::is_ok));
    for read in both("t", "1", "e", &"{\"a\":".repeat(100_000)) {
        assert!(matches!(read, Err(Error::Malformed { .. })));
    }
}

#[test]
fn parts_are_bounded_and_the_answer_says_so() {
    let (topic, event) = ("t".repeat(MAX_TOPIC_BYTES), "e".repeat(MAX_EVENT_BYTES));
    assert!(both(&topic, "1", &event, "{}").iter().all(Result::is_ok));
    let long_ref = "1".repeat(MAX_REF_BYTES + 1);
    let cases = [(format!("{topic}t"), "1", "e".to_owned()), ("t".to_owned(), "1", format!("{event}e"))];
    for (topic, reference, event) in cases.into_iter().chain([("t".to_owned(), &*long_ref, "e".to_owned())]) {
        for read in both(&topic, reference, &event, "{}") {
            let Err(Error::Refused(refused)) = read else { panic!("it was taken") };
            assert_eq!((refused.topic.as_name(), refused.reference.as_json()), (Some(&*topic), reference));
            assert!(refused.reply().response.as_json().unwrap().contains("\"too_large\""));
        }
    }
}

#[test]
fn a_ref_in_bytes_is_bounded_as_it_is_in_text() {
    let frame = |kind: u8, tail: &[u8]| [&[kind, 90, 0, 1, 1][..], tail, &[1; 90], b"te{}"].concat();
    for bytes in [frame(0, &[]), frame(3, &[0, 1])] {
        let Err(Error::Refused(refused)) = Serializer::V2.decode_binary(&bytes) else { panic!("it was taken") };
        assert!(refused.reply().response.as_json().unwrap().contains("\"too_large\""));
    }
}

#[test]
fn an_event_that_is_no_string_is_answered() {
    let v1 = Serializer::V1.decode_text(r#"{"topic":"t","event":5,"payload":{},"ref":"1"}"#);
    for read in [v1, Serializer::V2.decode_text(r#"[null,"1","t",5,{}]"#)] {
        let Err(Error::Refused(refused)) = read else { panic!("it was taken") };
        assert!(refused.reply().response.as_json().unwrap().contains("\"invalid\""));
    }
}

proptest::proptest! {
    #[test]
    fn anything_is_refused_or_read_without_a_panic(text in ".*", bytes in proptest::collection::vec(0_u8.., 0..64)) {
        for serializer in [Serializer::V1, Serializer::V2, Serializer::V2Text] {
            let _ = serializer.decode_text(&text);
            let _ = serializer.decode_binary(&bytes);
        }
    }
}
