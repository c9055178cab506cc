//! How what one node tells the others is written: a frame is a header and one or more envelopes, each a JSON object.
//!
//! Pure; knows no bus. Text, because one of the buses carries nothing else; payloads are in it as they are, so that
//! they leave the other node with the same bytes. Its invariant: a node skips what it does not know — a version, a
//! kind, a field — so that nodes of two releases can share a bus.

use std::{borrow::Cow, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    Control, Kind, NodeId, Published,
    bus::{Address, Parcel},
};
use crate::protocol::{Broadcast, Payload};

/// The version of the frames that are written, and the only one that is read.
const VERSION: u32 = 1;
/// Every bus carries an envelope of so many bytes; only a longer one may have to be sent as something shorter.
const SHORT: usize = 1_024;

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    v: u32,
    #[serde(borrow)]
    node: Cow<'a, str>,
}

/// Every field of every kind; each kind has its own.
#[derive(Serialize, Deserialize, Default)]
struct Fields<'a> {
    /// The sender's number for it, by which repeats are found.
    n: u64,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    topic: Option<Cow<'a, str>>,
    /// Which log the topic's records belong to.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    scope: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    first: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    last: Option<u64>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    json: Option<&'a RawValue>,
    /// Base64.
    #[serde(borrow, skip_serializing_if = "Option::is_none", default)]
    bytes: Option<Cow<'a, str>>,
}

/// What an envelope says.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one at a time, on its way through")]
pub(super) enum Content {
    /// A message for a topic's subscribers, of a log of this scope if it is part of one.
    Publish { scope: Option<String>, message: Published },
    /// A message for the receivers of a name.
    Say { name: String, body: Bytes },
    /// What the sender said under this name, or anything it sent, may be missing.
    Gap { name: Option<Arc<str>> },
}

/// An envelope that was read.
#[derive(Debug)]
pub(super) struct Envelope {
    pub(super) number: u64,
    pub(super) content: Content,
}

/// A frame of these envelopes.
pub(super) fn frame<'a>(node: &NodeId, envelopes: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = json(&Header { v: VERSION, node: Cow::Borrowed(&node.0) });
    envelopes.into_iter().for_each(|envelope| text.push_str(envelope));
    text
}

/// Reads a frame: its sender, and what is understood of it. `None` if it is no frame of this version. The last is
/// whether all of it could be read.
pub(super) fn read(frame: &[u8]) -> Option<(NodeId, Vec<Envelope>, bool)> {
    let text = std::str::from_utf8(frame).ok()?;
    let mut head = serde_json::Deserializer::from_str(text).into_iter::<Header<'_>>();
    let header = head.next()?.ok().filter(|header| header.v == VERSION)?;
    let rest = &text[head.byte_offset()..];
    let node = NodeId(header.node.as_ref().into());
    let (mut envelopes, mut whole) = (Vec::new(), true);
    for fields in serde_json::Deserializer::from_str(rest).into_iter::<Fields<'_>>() {
        match fields {
            Ok(fields) => envelopes.extend(fields.understand()),
            Err(_) => whole = false,
        }
    }
    Some((node, envelopes, whole))
}

impl Fields<'_> {
    /// `None` for what a newer release may mean by it.
    fn understand(self) -> Option<Envelope> {
        let number = self.n;
        let content = match &*self.kind {
            "log" => self.publish(Kind::Logged { first: self.first?, last: self.last? })?,
            "head" => self.publish(Kind::Head { last: self.last? })?,
            "broadcast" => self.publish(Kind::Ephemeral)?,
            "close" => self.publish(Kind::Control(Control::Close))?,
            "say" => Content::Say { name: self.name?.into_owned(), body: bytes_of(self.bytes.as_deref()?)? },
            "gap" => Content::Gap { name: self.name.as_deref().map(Arc::from) },
            _ => return None,
        };
        Some(Envelope { number, content })
    }

    fn publish(&self, kind: Kind) -> Option<Content> {
        let payload = match (self.json, self.bytes.as_deref()) {
            (Some(json), _) => Payload::Json(json.to_owned()),
            (None, Some(bytes)) => Payload::Binary(bytes_of(bytes)?),
            // A JSON null reads as an absent field.
            (None, None) => Payload::json(&()),
        };
        let broadcast = Broadcast::new(self.topic.as_deref()?, self.event.as_deref().unwrap_or_default(), payload);
        let message = Published { kind, from: None, broadcast };
        Some(Content::Publish { scope: self.scope.as_deref().map(str::to_owned), message })
    }
}

fn bytes_of(text: &str) -> Option<Bytes> {
    BASE64.decode(text).ok().map(Bytes::from)
}

/// Whether other nodes are told of a message of this kind, and whether that needs a shared log.
pub(super) fn concerns_others(kind: Kind) -> Option<Needs> {
    match kind {
        Kind::Logged { .. } | Kind::Control(Control::Close) => Some(Needs::SharedLog),
        Kind::Ephemeral => Some(Needs::Nothing),
        Kind::Head { .. } | Kind::Presence | Kind::Control(Control::Restart | Control::Deleted(_)) => None,
    }
}

/// What telling others of a message takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Needs {
    /// A bus.
    Nothing,
    /// Nodes that read the same log.
    SharedLog,
}

/// An envelope for a message on a topic.
pub(super) fn publish(number: u64, scope: Option<&str>, message: &Published) -> Parcel {
    let broadcast = &message.broadcast;
    let (kind, first, last) = match message.kind {
        Kind::Logged { first, last } => ("log", Some(first), Some(last)),
        Kind::Head { last } => ("head", None, Some(last)),
        Kind::Control(_) => ("close", None, None),
        Kind::Ephemeral | Kind::Presence => ("broadcast", None, None),
    };
    let (json_payload, bytes) = match broadcast.payload() {
        Payload::Json(raw) => (Some(&**raw), None),
        Payload::Binary(bytes) => (None, Some(Cow::Owned(BASE64.encode(bytes)))),
    };
    let fields = Fields {
        n: number,
        kind: kind.into(),
        topic: Some(broadcast.topic().into()),
        scope: scope.filter(|_| kind != "broadcast").map(Cow::Borrowed),
        first,
        last,
        event: Some(broadcast.event().into()),
        json: json_payload,
        bytes,
        ..Fields::default()
    };
    let to = Address::Topic(broadcast.topic().into());
    let text = json(&fields);
    let short = match message.kind {
        Kind::Logged { last, .. } if text.len() > SHORT => Some(head(number, scope, broadcast.topic(), last).text),
        _ => None,
    };
    Parcel { to, text, short }
}

/// An envelope that says how far a topic's log reaches.
pub(super) fn head(number: u64, scope: Option<&str>, topic: &str, last: u64) -> Parcel {
    let fields = Fields {
        n: number,
        kind: "head".into(),
        topic: Some(topic.into()),
        scope: scope.map(Cow::Borrowed),
        last: Some(last),
        ..Fields::default()
    };
    Parcel { to: Address::Topic(topic.into()), text: json(&fields), short: None }
}

/// An envelope for the receivers of a name.
pub(super) fn say(number: u64, to: Option<&NodeId>, name: &str, body: &[u8]) -> Parcel {
    let bytes = Some(Cow::Owned(BASE64.encode(body)));
    let fields = Fields { n: number, kind: "say".into(), name: Some(name.into()), bytes, ..Fields::default() };
    let to = to.map_or(Address::Everyone, |node| Address::Node(node.clone()));
    Parcel { to, text: json(&fields), short: None }
}

/// An envelope that says that something of the sender's may be missing.
pub(super) fn gap(number: u64, name: Option<&str>) -> Parcel {
    let fields = Fields { n: number, kind: "gap".into(), name: name.map(Cow::Borrowed), ..Fields::default() };
    Parcel { to: Address::Everyone, text: json(&fields), short: None }
}

/// Every value here has a form in JSON; one that had none would be an envelope that nobody understands.
fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> NodeId {
        NodeId("a".into())
    }

    fn published(kind: Kind, payload: Payload) -> Published {
        Published { kind, from: None, broadcast: Broadcast::new("room:\"ü\" 1", "a \"b\"", payload) }
    }

    fn back(parcels: &[Parcel]) -> Vec<Envelope> {
        let (from, envelopes, whole) =
            read(frame(&node(), parcels.iter().map(|parcel| parcel.text.as_str())).as_bytes()).unwrap();
        assert_eq!((from, whole), (node(), true));
        envelopes
    }

    #[test]
    fn messages_come_back_with_the_same_bytes() {
        let json = Payload::raw("{ \"a\" :1.50,\n\"ü\":\"\\u0041\"}".to_owned());
        let payloads = [json, Payload::json(&()), Payload::Binary(Bytes::from_static(&[0, 255, 7]))];
        let kinds = [Kind::Logged { first: 4, last: 6 }, Kind::Ephemeral, Kind::Control(Control::Close)];
        for (payload, kind) in payloads.iter().zip(kinds) {
            let envelopes = back(&[publish(9, Some("s"), &published(kind, payload.clone()))]);
            let [Envelope { number: 9, content: Content::Publish { scope, message } }] = &envelopes[..] else {
                panic!("{envelopes:?}")
            };
            assert_eq!((message.kind, scope.is_some()), (kind, kind != Kind::Ephemeral));
            assert_eq!((message.broadcast.topic(), message.broadcast.event()), ("room:\"ü\" 1", "a \"b\""));
            match (payload, message.broadcast.payload()) {
                (Payload::Json(sent), Payload::Json(read)) => assert_eq!(sent.get(), read.get()),
                (Payload::Binary(sent), Payload::Binary(read)) => assert_eq!(sent, read),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_frame_carries_many_and_every_kind() {
        let parcels = [head(1, None, "t", 5), say(2, Some(&node()), "x", &[0, 159]), gap(3, Some("x")), gap(4, None)];
        assert_eq!(parcels[1].to, Address::Node(node()));
        let envelopes = back(&parcels);
        assert_eq!(envelopes.iter().map(|envelope| envelope.number).collect::<Vec<_>>(), [1, 2, 3, 4]);
        assert!(matches!(&envelopes[1].content, Content::Say { name, body } if name == "x" && body[..] == [0, 159]));
        assert!(matches!(&envelopes[2].content, Content::Gap { name: Some(name) } if &**name == "x"));
        let logged = |payload| publish(7, Some("s"), &published(Kind::Logged { first: 1, last: 3 }, payload)).short;
        assert_eq!(logged(Payload::empty()), None);
        let short = logged(Payload::json(&"x".repeat(SHORT)));
        let envelopes = back(&[Parcel { to: Address::Everyone, text: short.unwrap(), short: None }]);
        assert!(
            matches!(&envelopes[0].content, Content::Publish { message, .. } if message.kind == Kind::Head { last: 3 })
        );
    }

    #[test]
    fn what_is_unknown_is_skipped_and_what_is_broken_is_noticed() {
        let known = r#"{"n":2,"kind":"gap","new":[1,{"x":null}]}"#;
        let text = frame(&node(), [r#"{"n":1,"kind":"sing","topic":"t","tune":{}}"#, known]);
        let (_, envelopes, whole) = read(text.as_bytes()).unwrap();
        assert_eq!((envelopes.len(), envelopes[0].number, whole), (1, 2, true));
        assert!(read(br#"{"v":2,"node":"a"}{"n":1,"kind":"gap"}"#).is_none());
        for bad in ["", "{}", "[]", "nothing", "{\"v\":1}"] {
            assert!(read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(read(&[0xff]).is_none());
        let (_, envelopes, whole) = read(frame(&node(), [known, r#"{"n":"#]).as_bytes()).unwrap();
        assert_eq!((envelopes.len(), whole), (1, false));
        let lacking = frame(&node(), [r#"{"n":1,"kind":"log","topic":"t","first":1}"#, r#"{"n":1,"kind":"say"}"#]);
        assert!(read(lacking.as_bytes()).unwrap().1.is_empty());
    }
}
