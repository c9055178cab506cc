//! The seam between what is meant and how it is written: one variant per form of the protocol.
//!
//! Knows no connection. A form that joins gets a file of its own and a variant here; callers do not change. Its
//! invariant: what it accepts as `vsn` it can read and write.

use super::{Error, Frame, Payload, Ref, Reply, Topic, Wire, event_stream, v1, v2_binary, v2_text};

/// How a connection's frames are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Serializer {
    /// Version 1: JSON objects, no binary payloads.
    V1,
    /// Version 2: JSON arrays of five in text frames, and binary payloads in binary frames.
    V2,
    /// Version 2 to a client that can be sent text only. Its own binary frames are read.
    V2Text,
    /// Server-sent events to a reader that listens to one topic with a log. Nothing is read from it.
    EventStream,
}

const NOTHING_IS_READ: Error = Error::Layout("an event stream carries nothing to the server");

impl Serializer {
    /// The serializer for the `vsn` that a client asks for. Without one it means 1.0.0.
    ///
    /// # Errors
    /// [`Error::Version`] for everything but 1.0.x and 2.0.x: other versions, pre-releases, and what is no version at
    /// all.
    pub fn negotiate(vsn: Option<&str>) -> Result<Self, Error> {
        let asked = vsn.unwrap_or("1.0.0");
        match version(asked) {
            Some((1, 0, _)) => Ok(Self::V1),
            Some((2, 0, _)) => Ok(Self::V2),
            _ => Err(Error::Version { asked: asked.chars().take(64).collect() }),
        }
    }

    /// The same version for a transport that carries no binary to the client.
    #[must_use]
    pub fn text_only(self) -> Self {
        match self {
            Self::V1 => Self::V1,
            Self::V2 | Self::V2Text => Self::V2Text,
            Self::EventStream => Self::EventStream,
        }
    }

    /// Reads a text message.
    ///
    /// # Errors
    /// Whatever makes it no frame; the connection cannot go on. [`Error::Refused`] is to be answered instead.
    pub fn decode_text(self, text: &str) -> Result<Frame, Error> {
        match self {
            Self::V1 => v1::decode(text),
            Self::V2 | Self::V2Text => v2_text::decode(text),
            Self::EventStream => Err(NOTHING_IS_READ),
        }
    }

    /// Reads a binary message. In version 1 that is text all the same.
    ///
    /// # Errors
    /// As [`Serializer::decode_text`].
    pub fn decode_binary(self, bytes: &[u8]) -> Result<Frame, Error> {
        match self {
            Self::V1 => v1::decode(std::str::from_utf8(bytes).map_err(|_| Error::Layout("it is not UTF-8"))?),
            Self::V2 | Self::V2Text => v2_binary::decode(bytes),
            Self::EventStream => Err(NOTHING_IS_READ),
        }
    }

    /// Writes an answer.
    ///
    /// # Errors
    /// [`Error::Binary`] and [`Error::TooLong`] where the response cannot be carried.
    pub fn reply(self, join_ref: &Ref, reference: &Ref, topic: &Topic, reply: &Reply) -> Result<Wire, Error> {
        match (self, &reply.response) {
            (Self::V1, _) => v1::reply(reference, topic, reply),
            (Self::EventStream, _) => event_stream::reply(reply),
            (Self::V2, Payload::Binary(bytes)) => v2_binary::reply(join_ref, reference, topic, &reply.status, bytes),
            (Self::V2 | Self::V2Text, _) => v2_text::reply(join_ref, reference, topic, reply),
        }
    }

    /// Writes a message to one client. `reference` is null but for the end of a channel.
    ///
    /// # Errors
    /// [`Error::Binary`] and [`Error::TooLong`] where the payload cannot be carried.
    pub fn push(
        self,
        join_ref: &Ref,
        reference: &Ref,
        topic: &Topic,
        event: &str,
        payload: &Payload,
    ) -> Result<Wire, Error> {
        match (self, payload) {
            (Self::V1, _) => v1::push(reference, topic, event, payload),
            (Self::EventStream, _) => event_stream::push(event, payload),
            (Self::V2, Payload::Binary(bytes)) => v2_binary::push(join_ref, topic, event, bytes),
            (Self::V2 | Self::V2Text, _) => v2_text::push(join_ref, reference, topic, event, payload),
        }
    }

    /// Writes a message to everybody on `topic`.
    ///
    /// # Errors
    /// [`Error::Binary`] and [`Error::TooLong`] where the payload cannot be carried.
    pub fn broadcast(self, topic: &str, event: &str, payload: &Payload) -> Result<Wire, Error> {
        match (self, payload) {
            (Self::V2, Payload::Binary(bytes)) => v2_binary::broadcast(topic, event, bytes),
            _ => self.push(&Ref::NULL, &Ref::NULL, &Topic::name(topic), event, payload),
        }
    }
}

/// A strict version of three numbers. A pre-release sorts below its release and so never matches; build metadata
/// does not count.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let core = text.split_once('+').map_or(text, |(core, _)| core);
    let mut numbers = core.split('.').map(number);
    let version = (numbers.next()??, numbers.next()??, numbers.next()??);
    numbers.next().is_none().then_some(version)
}

fn number(digits: &str) -> Option<u32> {
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    let padded = digits.len() > 1 && digits.starts_with('0');
    (plain && !padded).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a3_a4_patch_versions_of_one_and_two_are_spoken() {
        for good in ["2.0.0", "2.0.7", "2.0.123", "2.0.1+build.5"] {
            assert_eq!(Serializer::negotiate(Some(good)).unwrap(), Serializer::V2, "{good}");
        }
        for good in [None, Some("1.0.0"), Some("1.0.9")] {
            assert_eq!(Serializer::negotiate(good).unwrap(), Serializer::V1, "{good:?}");
        }
    }

    #[test]
    fn a5_other_versions_are_refused() {
        let bad = [
            "123.1.1",
            "2.1.0",
            "1.1.0",
            "3.0.0",
            "2",
            "2.0",
            "abc",
            "",
            "2.0.0-rc.1",
            "1.0.0-beta",
            "2.0.0.0",
            "02.0.0",
            "2.0.-1",
            "2.0.+1",
            " 2.0.0",
            "2.0.99999999999",
        ];
        for vsn in bad {
            assert!(Serializer::negotiate(Some(vsn)).is_err(), "{vsn}");
        }
    }
}
