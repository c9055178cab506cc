//! What a backend is sent, and the proof of who sends it.
//!
//! Pure but for the time of day. The signature covers the whole body, the time at which it was sent included, so that
//! what somebody recorded is of no use for long, and of none at all to a backend that remembers the ids of turns.

use aws_lc_rs::hmac;
use serde::Serialize;

use crate::{
    agent::{Context, Secret, SessionContext, TurnContext},
    clock::{self, Timestamp},
    model::Message,
};

/// The header that carries the signature.
pub(super) const SIGNATURE_HEADER: &str = "X-Rejoin-Signature";

#[derive(Serialize)]
struct Body<'a> {
    session: &'a SessionContext,
    turn: &'a TurnContext,
    messages: &'a [Message],
    sent_at: Timestamp,
}

/// The body of the request for an answer to `context`.
pub(super) fn body(context: &Context) -> Vec<u8> {
    let Context { session, turn, messages } = context;
    let body = Body { session, turn, messages, sent_at: clock::now() };
    // Texts, numbers and JSON that was read before: there is nothing in it that cannot be written.
    serde_json::to_vec(&body).unwrap_or_default()
}

/// The HMAC-SHA256 of `body` under `secret`, in lower-case hexadecimal.
pub(super) fn signature(secret: &Secret, body: &[u8]) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.expose().as_bytes());
    let tag = hmac::sign(&key, body);
    tag.as_ref().iter().fold(String::new(), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(digit.into(), 16));
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json, value::RawValue};

    use super::*;
    use crate::{
        agent::testing::{context, message, person},
        model::{MessageStatus, Role},
    };

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        for (key, data, expected) in [
            (
                "Jefe",
                &b"what do ya want for nothing?"[..],
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
            (
                "\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}\u{b}",
                b"Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7",
            ),
        ] {
            assert_eq!(signature(&Secret::new(key), data), expected);
        }
    }

    #[test]
    fn the_body_holds_session_turn_and_messages_in_the_forms_of_the_protocol() {
        let cut = Message { status: MessageStatus::Partial, ..message(Role::Assistant, None, "Once") };
        let mut asked = context(vec![cut, message(Role::User, Some(person("u1")), "hi")]);
        asked.session.metadata = RawValue::from_string("{\"k\":1e400}".to_owned()).unwrap();
        let body = body(&asked);
        let text = std::str::from_utf8(&body).unwrap();
        assert!(text.contains("\"metadata\":{\"k\":1e400}"), "what users keep is passed on as it is: {text}");
        let body: Value = serde_json::from_str(&text.replace("1e400", "1")).unwrap();
        assert_eq!(body["session"]["id"], "s");
        assert_eq!(body["turn"]["by"], json!({"id": "u1", "name": "u1"}));
        assert_eq!((&body["turn"]["attempt"], &body["turn"]["retry_of"]), (&json!(1), &json!(null)));
        assert_eq!(
            (&body["messages"][0]["status"], &body["messages"][1]["status"]),
            (&json!("partial"), &json!("complete"))
        );
        assert_eq!(body["messages"][1]["parts"], json!([{"kind": "text", "text": "hi"}]));
        assert!(body["sent_at"].as_str().unwrap().ends_with('Z'), "{body}");
    }
}
