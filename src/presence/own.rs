//! What this node shows itself, and what the other nodes have not been told of it.
//!
//! Pure but for its one short lock and the bell of whoever tells the others. The list is the authority for everything
//! that its node shows. Its invariant: list and number belong together — whoever takes in every numbered message up to
//! a number, or the list that was given out under it, holds what this list held then. All queues are bounded: what does
//! not fit leaves a hole in the numbers, and whoever sees it asks for the list.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    members::{Change, Located, Member, Members, apply},
    wire,
};
use crate::ids::Incarnation;

/// Changes that wait to be told; more of them, and the others ask for the list.
const MAX_PENDING: usize = 16_384;
/// Bytes of messages that are kept for those who miss one of them.
const MAX_KEPT: usize = 256 * 1024;
/// A change larger than this is not carried by every bus.
const MAX_CHANGE: usize = 512 * 1024;

/// The own list, shared by those who change it and the one who tells it.
#[derive(Default)]
pub(super) struct Ledger {
    own: Mutex<Own>,
    /// Rung when there is something to tell.
    pub(super) bell: Notify,
}

impl Ledger {
    /// Takes a change in, which the topic has made already.
    pub(super) fn record(&self, topic: &Arc<str>, change: Change) {
        if self.lock().record(topic, change) {
            self.bell.notify_one();
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The list, its number, and what was told lately.
#[derive(Default)]
pub(super) struct Own {
    /// Whose list it is; nobody's before it began.
    life: Option<Incarnation>,
    members: Members,
    /// The number of the last message.
    number: u64,
    pending: Vec<Located>,
    /// More than could wait.
    overflowed: bool,
    /// The last messages, each with its number, without a hole.
    kept: VecDeque<(u64, Bytes)>,
    kept_bytes: usize,
    /// There is nobody to tell any more.
    closed: bool,
}

/// What brings another node up to date.
#[derive(Debug)]
pub(super) enum Rest {
    /// It is.
    Nothing,
    /// Messages that it has not got.
    Messages(Vec<Bytes>),
    /// The list.
    List(List),
}

/// A whole list under its number.
#[derive(Debug)]
pub(super) struct List {
    of: Incarnation,
    number: u64,
    members: Vec<Member>,
}

impl Own {
    /// Whether it is the first that waits.
    fn record(&mut self, topic: &Arc<str>, change: Change) -> bool {
        if self.closed {
            return false;
        }
        let mut located = (topic.clone(), change);
        if wire::size_of_change(&located) > MAX_CHANGE {
            tracing::error!(%topic, "a presence of more than {MAX_CHANGE} bytes is shown on this node only: show less");
            // The others must not go on showing what is not here any more.
            let Change::Replace { key, old, .. } = located.1 else { return false };
            located.1 = Change::Leave { key, phx_ref: old };
        }
        apply(&mut self.members, topic, &located.1);
        if self.life.is_none() || self.overflowed {
            return false;
        }
        if self.pending.len() >= MAX_PENDING {
            self.pending = Vec::new();
            self.overflowed = true;
            return false;
        }
        self.pending.push(located);
        self.pending.len() == 1
    }

    /// The list is now that of `life`, and told from the beginning.
    pub(super) fn begin(&mut self, life: Incarnation) {
        self.life = Some(life);
        self.pending = Vec::new();
        self.overflowed = false;
        self.forget_messages();
        // Number 0 is the empty list, that of a life nobody has heard of.
        self.number = u64::from(!self.members.is_empty());
    }

    /// Takes nothing in any more.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// Whose list it is, and its number.
    pub(super) fn position(&self) -> Option<(&Incarnation, u64)> {
        self.life.as_ref().map(|life| (life, self.number))
    }

    /// What waits, as messages for everybody.
    pub(super) fn flush(&mut self) -> Vec<Bytes> {
        let Some(life) = self.life.clone() else { return Vec::new() };
        if std::mem::take(&mut self.overflowed) {
            self.number += 1;
            self.forget_messages();
            return Vec::new();
        }
        let mut messages = Vec::new();
        for changes in wire::cut(std::mem::take(&mut self.pending), wire::size_of_change) {
            self.number += 1;
            let message = wire::delta(&life, self.number, &changes);
            self.keep(message.clone());
            messages.push(message);
        }
        messages
    }

    /// What somebody needs who has everything up to `have` of the list of `of`. To be called when nothing waits.
    pub(super) fn rest(&self, of: &Incarnation, have: u64) -> Rest {
        if self.life.as_ref() != Some(of) || have >= self.number {
            return Rest::Nothing;
        }
        let first = self.kept.front().map_or(u64::MAX, |(number, _)| *number);
        if first <= have + 1 {
            let missing = self.kept.iter().filter(|(number, _)| *number > have);
            return Rest::Messages(missing.map(|(_, message)| message.clone()).collect());
        }
        self.list().map_or(Rest::Nothing, Rest::List)
    }

    /// The whole list. To be called when nothing waits.
    pub(super) fn list(&self) -> Option<List> {
        let of = self.life.clone()?;
        Some(List { of, number: self.number, members: self.members.values().cloned().collect() })
    }

    fn keep(&mut self, message: Bytes) {
        self.kept_bytes += message.len();
        self.kept.push_back((self.number, message));
        while self.kept_bytes > MAX_KEPT {
            let Some((_, oldest)) = self.kept.pop_front() else { return };
            self.kept_bytes -= oldest.len();
        }
    }

    fn forget_messages(&mut self) {
        self.kept = VecDeque::new();
        self.kept_bytes = 0;
    }

    #[cfg(test)]
    pub(super) fn members(&self) -> &Members {
        &self.members
    }
}

impl List {
    /// Its parts as messages, at least one. The same list under the same number has the same parts.
    pub(super) fn parts(mut self) -> Vec<Bytes> {
        let place = |member: &Member| (member.topic.clone(), member.meta.shared_ref().clone());
        self.members.sort_by_cached_key(place);
        let mut parts = wire::cut(self.members, wire::size_of_member);
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let count = parts.len();
        let part = |(number, members): (usize, &Vec<Member>)| wire::list(&self.of, self.number, number, count, members);
        parts.iter().enumerate().map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::presence::{
        state::Meta,
        wire::{Message, Said},
    };

    fn life(name: &str) -> Incarnation {
        Incarnation(name.to_owned())
    }

    fn meta(phx_ref: &str, size: usize) -> Meta {
        let fields = Map::from_iter([("x".to_owned(), json!("y".repeat(size)))]);
        Meta::new(phx_ref, None, &fields)
    }

    fn join(ledger: &Ledger, number: usize, size: usize) {
        let change = Change::Join { key: "u".into(), meta: meta(&format!("r{number}"), size) };
        ledger.record(&"t".into(), change);
    }

    fn begun(name: &str) -> Ledger {
        let ledger = Ledger::default();
        ledger.lock().begin(life(name));
        ledger
    }

    fn read(message: &Bytes) -> Said {
        let Message { of, said } = wire::read(message).unwrap();
        assert_eq!(of, life("a"));
        said
    }

    #[test]
    fn who_misses_a_message_is_given_it_again_and_who_misses_more_the_list() {
        let ledger = begun("a");
        for number in 0..3 {
            join(&ledger, number, 1);
            assert_eq!(ledger.lock().flush().len(), 1);
        }
        let own = ledger.lock();
        let Rest::Messages(messages) = own.rest(&life("a"), 1) else { panic!("it is kept") };
        let numbers: Vec<u64> = messages
            .iter()
            .map(|message| match read(message) {
                Said::Delta { number, changes } if changes.len() == 1 => number,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(numbers, [2, 3]);
        assert!(matches!(own.rest(&life("a"), 3), Rest::Nothing));
        assert!(matches!(own.rest(&life("b"), 0), Rest::Nothing), "it is another life's list");
        drop(own);
        (3..3_000).for_each(|number| join(&ledger, number, 200));
        let told = ledger.lock().flush();
        assert!(told.len() > 100 && told.iter().all(|message| message.len() < 5_600), "what fills a message");
        let Rest::List(list) = ledger.lock().rest(&life("a"), 1) else { panic!("that much is not kept") };
        let mut members = 0;
        let parts = list.parts();
        for (place, part) in parts.iter().enumerate() {
            let Said::List { number, part, parts: count, members: some } = read(part) else { panic!("a list") };
            assert_eq!((number, part, count), (told.len() as u64 + 3, place, parts.len()));
            members += some.len();
        }
        assert_eq!(members, 3_000);
        assert!(ledger.lock().kept_bytes <= MAX_KEPT);
    }

    #[test]
    fn more_than_may_wait_is_a_hole_in_the_numbers() {
        let ledger = begun("a");
        (0..=MAX_PENDING).for_each(|number| join(&ledger, number, 1));
        join(&ledger, MAX_PENDING + 1, 1);
        let mut own = ledger.lock();
        assert!(own.pending.capacity() == 0 && own.flush().is_empty());
        assert_eq!(own.position(), Some((&life("a"), 1)));
        let Rest::List(list) = own.rest(&life("a"), 0) else { panic!("the list") };
        assert_eq!(list.members.len(), MAX_PENDING + 2);
        drop(own);
        join(&ledger, MAX_PENDING + 2, 1);
        assert_eq!(ledger.lock().flush().len(), 1, "and goes on");
    }

    #[test]
    fn a_new_life_begins_with_the_list_and_an_empty_one_with_nothing() {
        let ledger = Ledger::default();
        ledger.lock().begin(life("a"));
        assert_eq!(ledger.lock().position(), Some((&life("a"), 0)));
        join(&ledger, 1, 1);
        ledger.lock().begin(life("b"));
        let own = ledger.lock();
        assert_eq!(own.position(), Some((&life("b"), 1)));
        assert!(matches!(own.rest(&life("b"), 0), Rest::List(list) if list.members.len() == 1));
    }

    #[test]
    fn what_nobody_can_be_told_of_is_not_kept() {
        let ledger = begun("a");
        ledger.lock().close();
        join(&ledger, 1, 1);
        assert!(ledger.lock().flush().is_empty() && ledger.lock().members().is_empty());
        let ledger = begun("a");
        join(&ledger, 1, MAX_CHANGE);
        assert!(ledger.lock().flush().is_empty() && ledger.lock().members().is_empty());
    }

    #[test]
    fn changes_come_back_as_they_were_and_what_is_unknown_is_skipped() {
        let meta = Meta::read("r\"2".into(), serde_json::from_str(r#"{ "a" :1.50,"ü":"\u0041"}"#).unwrap());
        let changes = [
            ("t".into(), Change::Join { key: "u\\".into(), meta: meta.clone() }),
            ("t2".into(), Change::Leave { key: "u".into(), phx_ref: "r1".into() }),
            ("t".into(), Change::Replace { key: "u".into(), old: "r1".into(), meta }),
        ];
        let Said::Delta { number: 7, changes } = read(&wire::delta(&life("a"), 7, &changes)) else { panic!() };
        let texts: Vec<String> = changes.iter().map(|change| format!("{change:?}")).collect();
        assert!(texts[0].contains(r#"{ \"a\" :1.50"#) || texts[0].contains(r#"{ "a" :1.50"#), "{texts:?}");
        assert!(texts[0].contains("Join") && texts[1].contains("Replace") && texts[2].contains("Leave"), "{texts:?}");
        for said in [Said::Position { number: 1 }, Said::Hello { number: 2 }, Said::Ask { have: 3 }, Said::Bye] {
            assert_eq!(format!("{:?}", read(&wire::short(&life("a"), &said))), format!("{said:?}"));
        }
        for bad in [r#"{"v":2,"kind":"bye","of":"a"}"#, r#"{"v":1,"kind":"sing","of":"a"}"#, "", "[]", "{}"] {
            assert!(wire::read(bad.as_bytes()).is_none(), "{bad}");
        }
        assert!(wire::read(br#"{"v":1,"kind":"list","of":"a","n":1,"part":2,"parts":2}"#).is_none());
    }
}
