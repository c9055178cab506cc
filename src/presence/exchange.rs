//! What a node says to the others of presence, and what it makes of what they say: the whole protocol, pure.
//!
//! Between the own list ([`Ledger`]) and what is known of the others ([`Replica`]). Knows no bus and no clock: bytes go
//! in, bytes and changes come out. Its invariant: whatever is lost, repeated or reordered, every question is answered
//! and asked again until each node has every other one's list.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use bytes::Bytes;

use super::{
    members::Located,
    own::{Ledger, List, Rest},
    replica::{Ask, News, Replica, Roster},
    wire::{self, Message, Said},
};
use crate::{ids::Incarnation, pubsub::NodeId};

/// Parts of lists that are said at once; others come between, and no queue to the bus fills up.
const PARTS: usize = 32;

/// Something for one node, or for all.
#[derive(Debug, Clone)]
pub(super) struct Say {
    pub(super) to: Option<NodeId>,
    pub(super) body: Bytes,
}

/// What follows from something.
#[derive(Debug, Default)]
#[must_use = "what is not done here is done too late by others"]
pub(super) struct Outcome {
    pub(super) changes: Vec<Located>,
    pub(super) say: Vec<Say>,
}

impl From<Vec<Located>> for Outcome {
    fn from(changes: Vec<Located>) -> Self {
        Self { changes, say: Vec::new() }
    }
}

/// One node's side of the talk.
pub(super) struct Exchange {
    ledger: Arc<Ledger>,
    pub(super) replica: Replica,
    /// Lists on their way, and who gets each.
    lists: VecDeque<(Option<NodeId>, VecDeque<Bytes>)>,
    /// A life of this node that ends when the lists before it have been said.
    ending: Option<Incarnation>,
}

impl Exchange {
    /// Begins to speak of `ledger` as of the list of `own`.
    pub(super) fn new(ledger: Arc<Ledger>, own: Incarnation, chance: u64) -> Self {
        ledger.lock().begin(own.clone());
        Self { ledger, replica: Replica::new(own, chance), lists: VecDeque::new(), ending: None }
    }

    /// Asks everybody where they stand: at the beginning, and where anything may have been missed.
    pub(super) fn hello(&self, to: Option<NodeId>) -> Option<Say> {
        self.say(to, |number| Said::Hello { number })
    }

    /// Tells everybody how far this node's list has come.
    pub(super) fn position(&self) -> Option<Say> {
        self.say(None, |number| Said::Position { number })
    }

    /// Takes its list away from everybody.
    pub(super) fn bye(&self) -> Option<Say> {
        self.say(None, |_| Said::Bye)
    }

    fn say(&self, to: Option<NodeId>, said: impl FnOnce(u64) -> Said) -> Option<Say> {
        let own = self.ledger.lock();
        let (life, number) = own.position()?;
        Some(Say { to, body: wire::short(life, &said(number)) })
    }

    /// What has changed here since the last time.
    pub(super) fn flush(&self) -> Vec<Say> {
        let messages = self.ledger.lock().flush();
        messages.into_iter().map(|body| Say { to: None, body }).collect()
    }

    /// Takes in what was said at `from`.
    pub(super) fn hear(&mut self, from: &NodeId, body: &[u8], now: Instant) -> Outcome {
        let Some(Message { of, said }) = wire::read(body) else { return Outcome::default() };
        let news = match said {
            Said::Delta { number, changes } => News::Delta { number, changes },
            Said::List { number, part, parts, members } => News::List { number, part, parts, members },
            Said::Position { number } => News::Position { number },
            Said::Hello { number } => {
                let changes = self.replica.hear(from, &of, News::Position { number }, now);
                // What waits is said before, so that the answer is that of this moment.
                let mut say = self.flush();
                say.extend(self.say(Some(from.clone()), |number| Said::Position { number }));
                return Outcome { changes, say };
            }
            Said::Ask { have } => return self.answer(from, &of, have),
            Said::Bye => return self.replica.end(&of).into(),
        };
        self.replica.hear(from, &of, news, now).into()
    }

    /// Gives `from` what it lacks.
    fn answer(&mut self, from: &NodeId, of: &Incarnation, have: u64) -> Outcome {
        let mut own = self.ledger.lock();
        let told = own.flush();
        let rest = own.rest(of, have);
        drop(own);
        let mut say: Vec<Say> = told.into_iter().map(|body| Say { to: None, body }).collect();
        match rest {
            // It asks for a life that is over, or has been told by now.
            Rest::Nothing => say.extend(self.say(Some(from.clone()), |number| Said::Position { number })),
            Rest::Messages(messages) => {
                say.extend(messages.into_iter().map(|body| Say { to: Some(from.clone()), body }));
            }
            Rest::List(list) => self.send_list(Some(from.clone()), list),
        }
        Outcome { changes: Vec::new(), say }
    }

    /// Has a list said, unless the same node is being told one at the moment.
    fn send_list(&mut self, to: Option<NodeId>, list: List) {
        if !self.lists.iter().any(|(under_way, _)| *under_way == to) {
            self.lists.push_back((to, list.parts().into()));
        }
    }

    /// Some more of the lists on their way, to each in turn.
    pub(super) fn more(&mut self) -> Vec<Say> {
        let mut say = Vec::new();
        while say.len() < PARTS
            && let Some((to, mut parts)) = self.lists.pop_front()
        {
            say.extend(parts.pop_front().map(|body| Say { to: to.clone(), body }));
            if !parts.is_empty() {
                self.lists.push_back((to, parts));
            }
        }
        if self.lists.is_empty()
            && let Some(life) = self.ending.take()
        {
            say.push(Say { to: None, body: wire::short(&life, &Said::Bye) });
        }
        say
    }

    /// Whether lists are on their way.
    pub(super) fn has_more(&self) -> bool {
        !self.lists.is_empty() || self.ending.is_some()
    }

    /// Takes in who lives. Where this node goes on under a new name, its list is told under that one first, and the old
    /// one ends after it: nobody sees anybody leave.
    pub(super) fn look(&mut self, roster: &Roster) -> Outcome {
        let mut own = self.ledger.lock();
        let before = own.position().map(|(life, _)| life.clone());
        let renamed = before.filter(|before| *before != roster.own);
        let list = renamed.is_some().then(|| {
            own.begin(roster.own.clone());
            own.list()
        });
        drop(own);
        if let Some(old) = renamed {
            // Lists under the old name mean nothing any more.
            self.lists.clear();
            self.ending = Some(old);
        }
        if let Some(list) = list.flatten() {
            self.send_list(None, list);
        }
        self.replica.look(roster).into()
    }

    /// The questions whose time has come.
    pub(super) fn ask(&mut self, now: Instant) -> Vec<Say> {
        let say = |Ask { to, of, have }| Say { to: Some(to), body: wire::short(&of, &Said::Ask { have }) };
        self.replica.ask(now).into_iter().map(say).collect()
    }
}

#[cfg(test)]
#[path = "exchange_tests.rs"]
mod tests;
