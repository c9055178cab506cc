//! One frame as a client sent it, and the answer to it.
//!
//! Knows no encoding. Its invariant: [`Ref`] is a JSON value nobody looks into: it is compared and echoed as the
//! bytes it came in, so `11` and `"11"` are two refs.

use std::{borrow::Cow, fmt, sync::Arc};

use serde::Serialize;

use super::{Payload, codes};

/// A client's `ref` or `join_ref`: any JSON value, `null` included.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Ref(Option<Arc<str>>);

impl Ref {
    /// The absent ref.
    pub const NULL: Self = Self(None);

    /// The ref that has this JSON text.
    pub fn from_json(text: &str) -> Self {
        Self((text != "null").then(|| text.into()))
    }

    /// Its JSON text.
    pub fn as_json(&self) -> &str {
        self.0.as_deref().unwrap_or("null")
    }

    /// Whether it is `null`.
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }
}

impl fmt::Display for Ref {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_json())
    }
}

/// Where a frame belongs.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Topic {
    /// A topic's name.
    Name(Arc<str>),
    /// A JSON value that is not a string: no channel can have it, but its sender gets it back.
    Other(Arc<str>),
}

impl Topic {
    /// The topic with this name.
    pub fn name(name: &str) -> Self {
        Self::Name(name.into())
    }

    /// Its name; `None` where it is not a string.
    pub fn as_name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Other(_) => None,
        }
    }
}

/// A frame from a client.
#[derive(Debug, Clone)]
pub struct Frame {
    /// The ref of the join that the sender believes to be in; null where it does not care.
    pub join_ref: Ref,
    /// What the answer has to carry; `ref` on the wire.
    pub reference: Ref,
    /// Whom it is for.
    pub topic: Topic,
    /// What it asks.
    pub event: String,
    /// With what.
    pub payload: Payload,
}

/// An answer to one frame.
#[derive(Debug, Clone)]
pub struct Reply {
    /// `ok`, `error`, or a word of the channel's own.
    pub status: Cow<'static, str>,
    /// Any JSON.
    pub response: Payload,
}

impl Reply {
    /// It worked.
    pub fn ok(response: Payload) -> Self {
        Self { status: Cow::Borrowed("ok"), response }
    }

    /// It did not; `response` says why.
    pub fn error(response: Payload) -> Self {
        Self { status: Cow::Borrowed("error"), response }
    }

    /// It did not, for one of the reasons of [`codes::reason`], with a message for a person.
    pub fn refuse(reason: &str, message: &str) -> Self {
        #[derive(Serialize)]
        struct Refused<'a> {
            reason: &'a str,
            message: &'a str,
        }
        Self::error(Payload::json(&Refused { reason, message }))
    }

    /// The answer of the protocol itself, which carries a reason only.
    pub(crate) fn protocol(reason: &str) -> Self {
        #[derive(Serialize)]
        struct Refused<'a> {
            reason: &'a str,
        }
        Self::error(Payload::json(&Refused { reason }))
    }

    /// The answer to a frame for a topic that nobody serves or that is not joined.
    pub fn unmatched_topic() -> Self {
        Self::protocol(codes::protocol_reason::UNMATCHED_TOPIC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_compared_as_they_were_written() {
        assert_ne!(Ref::from_json("11"), Ref::from_json("\"11\""));
        assert_eq!(Ref::from_json("11"), Ref::from_json("11"));
        assert_eq!(Ref::from_json("null"), Ref::NULL);
        assert!(Ref::from_json("null").is_null());
        assert!(!Ref::from_json("0").is_null());
        assert_eq!(Ref::NULL.as_json(), "null");
    }

    #[test]
    fn the_protocol_refuses_with_a_reason_only() {
        assert_eq!(Reply::unmatched_topic().response.as_json(), Some(r#"{"reason":"unmatched topic"}"#));
        assert_eq!(Reply::refuse("busy", "later").response.as_json(), Some(r#"{"reason":"busy","message":"later"}"#));
    }
}
