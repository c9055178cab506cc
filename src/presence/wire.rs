//! How nodes tell each other who is there: one JSON object per message.
//!
//! Pure; knows no bus and no list. Its invariant: metas leave the other node with the same bytes, and what is unknown —
//! a version, a kind, a field — is skipped, so that nodes of two releases can share a bus.

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{
    members::{Change, Located, Member, by_topic},
    state::Meta,
};
use crate::ids::Incarnation;

/// The version that is written, and the only one that is read.
const VERSION: u32 = 1;
/// What a message is filled up to, in bytes: as much as the smallest bus carries in one piece. A message with one
/// change may be longer.
const FULL: usize = 5_000;
/// About what a change costs beside its texts.
const OVERHEAD: usize = 40;
/// Into how many parts a list may be cut.
const MAX_PARTS: usize = 1 << 20;

/// A message of one node, about itself or to another one.
#[derive(Debug, Clone)]
pub(super) struct Message {
    /// Whose list it speaks of.
    pub(super) of: Incarnation,
    pub(super) said: Said,
}

/// What is said.
#[derive(Debug, Clone)]
pub(super) enum Said {
    /// The changes with this number, to everyone.
    Delta { number: u64, changes: Vec<Located> },
    /// A part of the whole list, as it is after the changes with this number.
    List { number: u64, part: usize, parts: usize, members: Vec<Member> },
    /// The number of the last changes.
    Position { number: u64 },
    /// The sender, who stands at this number of its own, wants to know where everybody stands.
    Hello { number: u64 },
    /// The sender has the receiver's changes up to this number and wants the rest.
    Ask { have: u64 },
    /// There will be no more: everything that was on the list has left.
    Bye,
}

#[derive(Serialize, Deserialize)]
struct Body<'a> {
    v: u32,
    #[serde(borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    of: Cow<'a, str>,
    #[serde(default)]
    n: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    part: usize,
    #[serde(default, skip_serializing_if = "is_zero")]
    parts: usize,
    #[serde(borrow, default, skip_serializing_if = "Vec::is_empty")]
    topics: Vec<Section<'a>>,
}

#[derive(Serialize, Deserialize)]
struct Section<'a> {
    #[serde(borrow)]
    topic: Cow<'a, str>,
    #[serde(borrow)]
    ops: Vec<Op<'a>>,
}

/// A join; with `old` a replacement; without `meta` a leave.
#[derive(Serialize, Deserialize)]
struct Op<'a> {
    #[serde(borrow)]
    key: Cow<'a, str>,
    #[serde(borrow, rename = "ref")]
    phx_ref: Cow<'a, str>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    old: Option<Cow<'a, str>>,
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    meta: Option<&'a RawValue>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

impl<'a> Op<'a> {
    fn of(change: &'a Change) -> Self {
        let (key, phx_ref, old, meta) = match change {
            Change::Join { key, meta } => (key, meta.phx_ref(), None, Some(meta.raw())),
            Change::Replace { key, old, meta } => (key, meta.phx_ref(), Some(Cow::Borrowed(&**old)), Some(meta.raw())),
            Change::Leave { key, phx_ref } => (key, &**phx_ref, None, None),
        };
        Self { key: Cow::Borrowed(key), phx_ref: Cow::Borrowed(phx_ref), old, meta }
    }

    fn change(&self) -> Change {
        let (key, phx_ref): (Arc<str>, Arc<str>) = (self.key.as_ref().into(), self.phx_ref.as_ref().into());
        match (self.meta, &self.old) {
            (None, _) => Change::Leave { key, phx_ref },
            (Some(meta), None) => Change::Join { key, meta: Meta::read(phx_ref, meta) },
            (Some(meta), Some(old)) => {
                Change::Replace { key, old: old.as_ref().into(), meta: Meta::read(phx_ref, meta) }
            }
        }
    }
}

/// A message without members.
pub(super) fn short(of: &Incarnation, said: &Said) -> Bytes {
    let (kind, number) = match said {
        Said::Position { number } => ("position", *number),
        Said::Hello { number } => ("hello", *number),
        Said::Ask { have } => ("ask", *have),
        Said::Bye => ("bye", 0),
        Said::Delta { number, changes } => return delta(of, *number, changes),
        Said::List { number, part, parts, members } => return list(of, *number, *part, *parts, members),
    };
    encode(&body(of, kind, number))
}

/// Changes under a number.
pub(super) fn delta(of: &Incarnation, number: u64, changes: &[Located]) -> Bytes {
    let sorted = by_topic(changes.iter().cloned());
    encode(&Body { topics: sections(&sorted), ..body(of, "delta", number) })
}

/// A part of a list.
pub(super) fn list(of: &Incarnation, number: u64, part: usize, parts: usize, members: &[Member]) -> Bytes {
    let sorted = by_topic(members.iter().map(Member::join));
    encode(&Body { part, parts, topics: sections(&sorted), ..body(of, "list", number) })
}

fn body<'a>(of: &'a Incarnation, kind: &'a str, n: u64) -> Body<'a> {
    Body { v: VERSION, kind: Cow::Borrowed(kind), of: Cow::Borrowed(&of.0), n, part: 0, parts: 0, topics: Vec::new() }
}

fn sections(sorted: &[(Arc<str>, Vec<Change>)]) -> Vec<Section<'_>> {
    let mut sections = Vec::with_capacity(sorted.len());
    for (topic, changes) in sorted {
        sections.push(Section { topic: Cow::Borrowed(topic), ops: changes.iter().map(Op::of).collect() });
    }
    sections
}

/// Every value here has a form in JSON; one that had none would be a message that nobody understands.
fn encode(body: &Body<'_>) -> Bytes {
    serde_json::to_vec(body).unwrap_or_default().into()
}

/// Reads a message; nothing if it is not understood.
pub(super) fn read(bytes: &[u8]) -> Option<Message> {
    let body: Body<'_> = serde_json::from_slice(bytes).ok().filter(|body: &Body<'_>| body.v == VERSION)?;
    let said = match &*body.kind {
        "delta" => Said::Delta { number: body.n, changes: changes(&body.topics) },
        "list" if body.part < body.parts && body.parts <= MAX_PARTS => {
            let members = changes(&body.topics).into_iter().filter_map(member).collect();
            Said::List { number: body.n, part: body.part, parts: body.parts, members }
        }
        "position" => Said::Position { number: body.n },
        "hello" => Said::Hello { number: body.n },
        "ask" => Said::Ask { have: body.n },
        "bye" => Said::Bye,
        _ => return None,
    };
    Some(Message { of: Incarnation(body.of.into_owned()), said })
}

fn changes(sections: &[Section<'_>]) -> Vec<Located> {
    let mut all = Vec::new();
    for section in sections {
        let topic: Arc<str> = section.topic.as_ref().into();
        all.extend(section.ops.iter().map(|op| (topic.clone(), op.change())));
    }
    all
}

fn member((topic, change): Located) -> Option<Member> {
    match change {
        Change::Join { key, meta } => Some(Member { topic, key, meta }),
        Change::Replace { .. } | Change::Leave { .. } => None,
    }
}

/// Cuts what is told into stretches that fill a message each; `size` is what one thing takes.
pub(super) fn cut<T>(all: Vec<T>, size: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let (mut stretches, mut filled) = (Vec::new(), FULL);
    for one in all {
        let more = size(&one) + OVERHEAD;
        if filled + more > FULL {
            stretches.push(Vec::new());
            filled = 0;
        }
        filled += more;
        if let Some(stretch) = stretches.last_mut() {
            stretch.push(one);
        }
    }
    stretches
}

/// About how many bytes a change takes.
pub(super) fn size_of_change((topic, change): &Located) -> usize {
    topic.len()
        + match change {
            Change::Join { key, meta } => key.len() + meta.phx_ref().len() + meta.as_json().len(),
            Change::Replace { key, old, meta } => key.len() + old.len() + meta.phx_ref().len() + meta.as_json().len(),
            Change::Leave { key, phx_ref } => key.len() + phx_ref.len(),
        }
}

/// About how many bytes a member takes.
pub(super) fn size_of_member(member: &Member) -> usize {
    let Member { topic, key, meta } = member;
    topic.len() + key.len() + meta.phx_ref().len() + meta.as_json().len()
}
