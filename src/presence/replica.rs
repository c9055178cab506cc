//! What the other nodes show, as far as this one knows. Pure: what it hears goes in, changes of topics and questions
//! come out.
//!
//! Each life of a node numbers what it says, from the empty list at 0. What comes in order is taken in; where something
//! is missing the rest is asked for, again and again, until it is there. Whether a node lives is not its business: rows
//! of nodes decide, or a node's own goodbye — never silence, and never time. Its invariant: a member is shown as long
//! as a node that is not gone has it on its list, and no longer; what a list repeats changes nothing.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    time::{Duration, Instant},
};

use super::members::{Change, Located, Member, Members, apply};
use crate::{ids::Incarnation, pubsub::NodeId};

/// How long what is missing may still come by itself, as it does where two messages have changed places.
const PATIENCE: Duration = Duration::from_millis(20);
/// How long an answer is waited for before it is asked for again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_millis(800));
/// Messages of one node that are held while one before them is missing.
const MAX_HELD: usize = 1_024;
/// Lives that are remembered as gone, so that what they said late is not taken for news.
const MAX_GONE: usize = 4_096;
/// Lives of nodes that are followed at most; a cluster has a few.
const MAX_LIVES: usize = 4_096;

/// The nodes of the cluster, as one look at the store showed them.
#[derive(Debug, Clone)]
pub struct Roster {
    /// This node.
    pub own: Incarnation,
    /// Every node row, and whether it is dead. A row that is not there any more was dead.
    pub rows: Vec<(Incarnation, bool)>,
    /// A moment before the look: whoever had spoken by then had a row.
    pub asked: Instant,
}

/// A question to a node: what it has said after `have`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ask {
    pub(super) to: NodeId,
    pub(super) of: Incarnation,
    pub(super) have: u64,
}

/// Something that was heard.
#[derive(Debug)]
pub(super) enum News {
    Delta { number: u64, changes: Vec<Located> },
    List { number: u64, part: usize, parts: usize, members: Vec<Member> },
    Position { number: u64 },
}

/// What is known of the other nodes.
#[derive(Debug)]
pub(super) struct Replica {
    own: Incarnation,
    lives: HashMap<Incarnation, Life>,
    gone: Gone,
    /// Live rows of other nodes, when they were last looked at.
    expected: Option<HashSet<Incarnation>>,
    /// How often something came from a node of which not everything was known.
    progress: u64,
    chance: u64,
}

/// One life of another node.
#[derive(Debug)]
struct Life {
    at: NodeId,
    /// When it was first heard of.
    heard: Instant,
    /// Its row was seen.
    has_row: bool,
    members: Members,
    /// Everything up to this number is in `members`.
    number: u64,
    /// The highest number that is known to exist.
    known: u64,
    /// It has said how far its list has come; before, there may be more than `known`.
    spoke: bool,
    /// What came before its turn.
    held: BTreeMap<u64, Vec<Located>>,
    list: Option<Gathered>,
    /// When to ask for what is missing, and how long to wait after that.
    ask: Option<(Instant, Duration)>,
}

/// A list that is not complete yet.
#[derive(Debug)]
struct Gathered {
    number: u64,
    parts: Vec<Option<Vec<Member>>>,
    missing: usize,
}

/// Lives that have ended.
#[derive(Debug, Default)]
struct Gone {
    names: HashSet<Incarnation>,
    order: VecDeque<Incarnation>,
}

impl Gone {
    fn add(&mut self, life: &Incarnation) {
        if self.names.insert(life.clone()) {
            self.order.push_back(life.clone());
        }
        if self.order.len() > MAX_GONE
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

impl Replica {
    /// Knows nobody yet. `chance` spreads the questions of many nodes over time.
    pub(super) fn new(own: Incarnation, chance: u64) -> Self {
        let (lives, gone) = (HashMap::new(), Gone::default());
        Self { own, lives, gone, expected: None, progress: 0, chance: chance | 1 }
    }

    /// Takes in what the node at `from` said of its own life `of`: what changes by it.
    pub(super) fn hear(&mut self, from: &NodeId, of: &Incarnation, news: News, now: Instant) -> Vec<Located> {
        let full = self.lives.len() >= MAX_LIVES && !self.lives.contains_key(of);
        if *of == self.own || full || self.gone.names.contains(of) {
            return Vec::new();
        }
        let life = self.lives.entry(of.clone()).or_insert_with(|| Life::new(from.clone(), now));
        life.at = from.clone();
        let lacked = life.lacks();
        let mut told = Vec::new();
        match news {
            News::Delta { number, changes } => life.hold(number, changes),
            News::List { number, part, parts, members } => {
                if let Some(list) = life.gather(number, part, parts, members, now) {
                    life.take_list(list, &mut told);
                }
            }
            News::Position { number } => {
                life.known = life.known.max(number);
                life.spoke = true;
            }
        }
        life.catch_up(&mut told);
        self.progress += u64::from(lacked);
        let chance = draw(&mut self.chance);
        life.plan(now, chance);
        self.shown(of, told)
    }

    /// The life has ended: what leaves with it.
    pub(super) fn end(&mut self, of: &Incarnation) -> Vec<Located> {
        self.gone.add(of);
        let Some(life) = self.lives.remove(of) else { return Vec::new() };
        let told = life.members.values().map(Member::leave).collect();
        self.shown(of, told)
    }

    /// Takes in who lives: what leaves by it.
    pub(super) fn look(&mut self, roster: &Roster) -> Vec<Located> {
        if self.own != roster.own {
            self.gone.add(&self.own);
            self.own = roster.own.clone();
        }
        let rows: HashMap<&Incarnation, bool> = roster.rows.iter().map(|(life, dead)| (life, *dead)).collect();
        let live = rows.iter().filter(|(life, dead)| !**dead && ***life != self.own);
        self.expected = Some(live.map(|(life, _)| (*life).clone()).collect());
        let mut ended: Vec<Incarnation> =
            rows.iter().filter(|(_, dead)| **dead).map(|(life, _)| (*life).clone()).collect();
        for (name, life) in &mut self.lives {
            if rows.contains_key(name) {
                life.has_row = true;
            } else if life.has_row || life.heard < roster.asked {
                ended.push(name.clone());
            }
        }
        ended.iter().flat_map(|life| self.end(life)).collect()
    }

    /// The questions whose time has come.
    pub(super) fn ask(&mut self, now: Instant) -> Vec<Ask> {
        let mut asks = Vec::new();
        for (of, life) in &mut self.lives {
            if let Some((at, pause)) = life.ask
                && at <= now
            {
                asks.push(Ask { to: life.at.clone(), of: of.clone(), have: life.number });
                let wait = pause + pause * draw(&mut self.chance) / 512;
                life.ask = Some((now + wait, (pause * 2).min(PAUSES.1)));
            }
        }
        asks
    }

    /// When the next question is due.
    pub(super) fn next_ask(&self) -> Option<Instant> {
        self.lives.values().filter_map(|life| life.ask).map(|(at, _)| at).min()
    }

    /// How many nodes live, by their rows, of which not everything is known; nothing before rows were looked at.
    pub(super) fn missing(&self) -> Option<usize> {
        let lacks =
            |life: &&Incarnation| !self.gone.names.contains(*life) && self.lives.get(*life).is_none_or(Life::lacks);
        self.expected.as_ref().map(|expected| expected.iter().filter(lacks).count())
    }

    /// Grows as long as nodes of which not everything is known go on telling it.
    pub(super) fn progress(&self) -> u64 {
        self.progress
    }

    /// What topics are told: not of a member that another life shows too, as it does when a node goes on under a new
    /// name.
    fn shown(&self, of: &Incarnation, mut told: Vec<Located>) -> Vec<Located> {
        let others: Vec<&Members> =
            self.lives.iter().filter(|(name, _)| *name != of).map(|(_, life)| &life.members).collect();
        let elsewhere = |phx_ref: &str| others.iter().any(|members| members.contains_key(phx_ref));
        told.retain_mut(|(_, change)| match change {
            Change::Join { meta, .. } => !elsewhere(meta.phx_ref()),
            Change::Leave { phx_ref, .. } => !elsewhere(phx_ref),
            Change::Replace { key, old, meta } => {
                let (shows_old, shows_new) = (elsewhere(old), elsewhere(meta.phx_ref()));
                match (shows_old, shows_new) {
                    (false, false) => true,
                    (true, false) => {
                        *change = Change::Join { key: key.clone(), meta: meta.clone() };
                        true
                    }
                    (false, true) => {
                        *change = Change::Leave { key: key.clone(), phx_ref: old.clone() };
                        true
                    }
                    (true, true) => false,
                }
            }
        });
        told
    }

    #[cfg(test)]
    pub(super) fn members(&self) -> Members {
        let all = self.lives.values().flat_map(|life| &life.members);
        all.map(|(phx_ref, member)| (phx_ref.clone(), member.clone())).collect()
    }
}

impl Life {
    fn new(at: NodeId, heard: Instant) -> Self {
        Self {
            at,
            heard,
            has_row: false,
            members: Members::new(),
            number: 0,
            known: 0,
            spoke: false,
            held: BTreeMap::new(),
            list: None,
            ask: None,
        }
    }

    /// Whether there is, or may be, more than is known of it.
    fn lacks(&self) -> bool {
        !self.spoke || self.number < self.known
    }

    fn hold(&mut self, number: u64, changes: Vec<Located>) {
        self.known = self.known.max(number);
        // The lowest are the ones that are of use first.
        if number > self.number && (self.held.len() < MAX_HELD || number == self.number + 1) {
            self.held.insert(number, changes);
        }
    }

    /// Puts a part to the others of its list: the list, once it is complete and newer than what is held.
    fn gather(
        &mut self,
        number: u64,
        part: usize,
        parts: usize,
        members: Vec<Member>,
        now: Instant,
    ) -> Option<Gathered> {
        self.known = self.known.max(number);
        if number <= self.number || part >= parts {
            return None;
        }
        let fits = |list: &Gathered| list.number > number || (list.number == number && list.parts.len() == parts);
        if !self.list.as_ref().is_some_and(fits) {
            let parts = std::iter::repeat_with(|| None).take(parts).collect::<Vec<_>>();
            self.list = Some(Gathered { number, missing: parts.len(), parts });
        }
        let list = self.list.as_mut().filter(|list| list.number == number)?;
        if list.parts[part].replace(members).is_none() {
            list.missing -= 1;
            // The others are on their way.
            self.ask = self.ask.map(|(_, pause)| (now + pause, pause));
        }
        if list.missing == 0 { self.list.take() } else { None }
    }

    /// Makes the list what this life shows: only what differs is told.
    fn take_list(&mut self, list: Gathered, told: &mut Vec<Located>) {
        let new: Members = list
            .parts
            .into_iter()
            .flatten()
            .flatten()
            .map(|member| (member.meta.shared_ref().clone(), member))
            .collect();
        told.extend(new.iter().filter(|(name, _)| !self.members.contains_key(*name)).map(|(_, member)| member.join()));
        told.extend(self.members.iter().filter(|(name, _)| !new.contains_key(*name)).map(|(_, member)| member.leave()));
        self.members = new;
        self.number = list.number;
    }

    /// Takes in what is held and has its turn.
    fn catch_up(&mut self, told: &mut Vec<Located>) {
        while let Some(changes) = self.held.remove(&(self.number + 1)) {
            self.number += 1;
            for (topic, change) in changes {
                if self.changes(&change) {
                    apply(&mut self.members, &topic, &change);
                    told.push((topic, change));
                }
            }
        }
        if self.held.first_key_value().is_some_and(|(first, _)| *first <= self.number) {
            self.held = self.held.split_off(&(self.number + 1));
        }
    }

    /// Whether a change is news: a member that is there does not come, one that is not there does not leave.
    fn changes(&self, change: &Change) -> bool {
        match change {
            Change::Join { meta, .. } | Change::Replace { meta, .. } => !self.members.contains_key(meta.phx_ref()),
            Change::Leave { phx_ref, .. } => self.members.contains_key(phx_ref),
        }
    }

    /// Asks soon where something is missing, and not where nothing is.
    fn plan(&mut self, now: Instant, chance: u32) {
        if self.number >= self.known {
            self.ask = None;
            self.list = None;
        } else if self.ask.is_none() {
            self.ask = Some((now + PATIENCE + PATIENCE * chance / 256, PAUSES.0));
        }
    }
}

/// A number below 256 (xorshift).
fn draw(chance: &mut u64) -> u32 {
    *chance ^= *chance << 13;
    *chance ^= *chance >> 7;
    *chance ^= *chance << 17;
    u32::try_from(*chance >> 56).unwrap_or(0)
}

#[cfg(test)]
#[path = "replica_tests.rs"]
mod tests;
