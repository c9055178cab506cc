//! A model check: every interleaving, up to a depth, of two nodes and two people at work on one session.
//!
//! The steps are the machine's own items; runners that have lost their turn go on trying, as frozen processes do when
//! they thaw. After each step the invariants are looked at, and every step is tried in every state that is reached.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use super::{
    EventKind, Node, NodeState, Owner, Part, PartKind, Person, Turn, TurnStatus,
    fold::Delta,
    machine::{self, Asker, DeltaEvent, Done, End, Fence, NewTurn, Op, Refused, Session, WhenBusy, World, Writes},
};
use crate::{clock::Timestamp, ids::Incarnation};

const NOW: Timestamp = Timestamp(0);
const MESSAGES: usize = 2;

#[derive(Debug, Clone)]
struct Runner {
    fence: Fence,
    /// It has been told that the turn is not its own; it tries again all the same.
    fenced: bool,
}

#[derive(Debug, Clone)]
struct System {
    session: Session,
    nodes: Vec<Node>,
    runners: Vec<Runner>,
    sent: usize,
    log: Vec<(EventKind, Option<String>)>,
}

#[derive(Debug, Clone)]
enum Step {
    Send(usize),
    Append(usize),
    Finish(usize),
    CarryOut(usize),
    Cancel(usize, usize),
    Force(usize, usize),
    Look(usize),
    Drain(usize),
    Tombstone(usize),
    Renew(usize),
}

fn owner(name: &str) -> Owner {
    Owner { node: name.chars().take(1).collect(), incarnation: Incarnation(name.to_owned()) }
}

fn node(name: &str) -> Node {
    Node { owner: owner(name), state: NodeState::Live, beat: 0, lease_ttl_ms: 1, exclusive: false, connections: 0 }
}

fn asker() -> Asker {
    Asker { person: Person { id: "u".into(), name: "u".into() }, admin: true }
}

impl System {
    fn new(slots: u32) -> Self {
        let create =
            Op::Create { epoch: "e".into(), title: None, metadata: None, max_running: Some(slots), must_be_new: true };
        let session = machine::create(&Arc::from("s"), &create, NOW).unwrap();
        Self { session, nodes: vec![node("a"), node("b")], runners: Vec::new(), sent: 0, log: Vec::new() }
    }

    fn steps(&self) -> Vec<Step> {
        let (turns, runners) = (0..self.session.turns.len(), 0..self.runners.len());
        let mut steps = Vec::new();
        for node in 0..self.nodes.len() {
            if self.sent < MESSAGES {
                steps.push(Step::Send(node));
            }
            steps.extend([Step::Look(node), Step::Drain(node), Step::Tombstone(node), Step::Renew(node)]);
            steps.extend(turns.clone().map(|turn| Step::Cancel(node, turn)));
            steps.extend(turns.clone().map(|turn| Step::Force(node, turn)));
        }
        steps.extend(runners.flat_map(|runner| [Step::Append(runner), Step::Finish(runner), Step::CarryOut(runner)]));
        steps
    }

    /// Takes a step and looks whether everything still holds.
    fn take(&mut self, step: &Step) {
        let before = self.clone();
        match step {
            Step::Drain(index) if self.nodes[*index].state == NodeState::Live => {
                self.nodes[*index].state = NodeState::Draining;
            }
            Step::Drain(_) => {}
            Step::Tombstone(index) => self.nodes[*index].state = NodeState::Dead,
            Step::Renew(index) => self.renew(*index),
            step => self.write(step),
        }
        self.check(&before, step);
    }

    /// I3: who finds its row dead drops everything and goes on under a new name, here once.
    fn renew(&mut self, index: usize) {
        let name = self.nodes[index].owner.incarnation.0.clone();
        let again = format!("{name}'");
        let known = self.nodes.iter().any(|node| node.owner.incarnation.0 == again);
        if self.nodes[index].state == NodeState::Dead && name.len() == 1 && !known {
            self.runners.retain(|runner| runner.fence.incarnation.0 != name);
            self.nodes.push(node(&again));
        }
    }

    fn item(&self, step: &Step) -> (Option<Owner>, Op) {
        let at = |index: usize| Some(self.nodes[index].owner.clone());
        let of = |runner: usize| {
            let fence = self.runners[runner].fence.clone();
            (Some(Owner { node: "x".into(), incarnation: fence.incarnation.clone() }), fence)
        };
        let finish = |runner, end| {
            let (owner, fence) = of(runner);
            (owner, Op::Finish { fence, deltas: Vec::new(), parts: vec![Part::text("x")], end })
        };
        match step {
            Step::Send(node) => {
                let id = format!("m{}", self.sent);
                let turn =
                    NewTurn { id: format!("t{}", self.sent), reply_id: format!("r{}", self.sent), agent: "e".into() };
                let when_busy = if self.sent == 0 { WhenBusy::Queue } else { WhenBusy::Interrupt };
                let parts = vec![Part::text("x")];
                (
                    at(*node),
                    Op::Send { message_id: id, parts, turn: Some(turn), when_busy, max_queue: 9, asker: asker() },
                )
            }
            Step::Append(runner) => {
                let (owner, fence) = of(*runner);
                let delta = Delta { part: 0, kind: PartKind::Text, text: Some("x".into()), value: None };
                (owner, Op::Append { fence, deltas: vec![DeltaEvent { delta, body: String::new() }], chunk: None })
            }
            Step::Finish(runner) => finish(*runner, End::Completed { usage: None }),
            Step::CarryOut(runner) => finish(*runner, End::Intent),
            Step::Cancel(node, turn) => {
                (at(*node), Op::Cancel { turn_id: self.session.turns[*turn].id.clone(), asker: asker() })
            }
            Step::Force(node, turn) => {
                let turn = &self.session.turns[*turn];
                (at(*node), Op::Force { turn_id: turn.id.clone(), term: turn.term })
            }
            Step::Look(node) => (at(*node), Op::Reconcile),
            Step::Drain(_) | Step::Tombstone(_) | Step::Renew(_) => unreachable!("not an item"),
        }
    }

    fn write(&mut self, step: &Step) {
        let (node, op) = self.item(step);
        let mut writes = Writes::default();
        let outcome = loop {
            let world = World { nodes: &self.nodes, now: NOW };
            match machine::apply(&mut self.session, world, node.as_ref(), &op, &mut writes) {
                Err(Refused::NeedsPartial(turn)) => {
                    self.session.partials.insert(turn, Vec::new());
                }
                outcome => break outcome,
            }
        };
        self.session.partials.clear();
        self.log.extend(writes.events.iter().map(|event| (event.kind, event.turn_id.as_deref().map(str::to_owned))));
        let applied = match outcome {
            Ok(applied) => applied,
            Err(refused) => {
                if let (Refused::Fenced, Step::Append(runner) | Step::Finish(runner) | Step::CarryOut(runner)) =
                    (refused, step)
                {
                    self.runners[*runner].fenced = true;
                }
                return;
            }
        };
        for turn in applied.started {
            let incarnation = turn.owner.as_ref().unwrap().incarnation.clone();
            let fence = Fence { turn_id: turn.id, incarnation, term: turn.term, flush: turn.flushed };
            self.runners.push(Runner { fence, fenced: false });
        }
        match (step, applied.done) {
            (Step::Send(_), Done::Sent { .. }) => self.sent += 1,
            (Step::Append(runner), Done::Appended { .. }) => self.runners[*runner].fence.flush += 1,
            _ => {}
        }
    }

    fn check(&self, before: &Self, step: &Step) {
        let at = || format!("after {step:?} in {before:#?}");
        for (old, new) in before.nodes.iter().zip(&self.nodes) {
            let rank = |state| [NodeState::Live, NodeState::Draining, NodeState::Dead].iter().position(|s| *s == state);
            assert!(rank(old.state) <= rank(new.state), "I2 {}", at());
        }
        let running: Vec<&Turn> = self.session.turns.iter().filter(|t| t.status == TurnStatus::Running).collect();
        let slots = usize::try_from(self.session.max_running).unwrap();
        assert!(running.len() <= slots, "I8 {}", at());
        assert_eq!(self.session.last_seq, self.log.len() as u64, "L1 {}", at());
        for turn in &self.session.turns {
            assert_eq!(turn.owner.is_some(), turn.status == TurnStatus::Running, "I6 {}", at());
            self.check_end(turn, &at);
            if let Some(old) = before.session.turns.iter().find(|old| old.id == turn.id) {
                check_change(before, old, turn, step, &at);
            }
        }
    }

    /// I9 and L3: one terminal event, exactly when it has ended, and nothing of the turn after it.
    fn check_end(&self, turn: &Turn, at: &dyn Fn() -> String) {
        let own: Vec<EventKind> =
            self.log.iter().filter(|(_, id)| id.as_ref() == Some(&turn.id)).map(|(kind, _)| *kind).collect();
        let ends = |kind: &EventKind| {
            matches!(kind, EventKind::TurnCompleted | EventKind::TurnFailed | EventKind::TurnCancelled)
        };
        let terminal = own.iter().filter(|kind| ends(kind)).count();
        assert_eq!(terminal, usize::from(turn.is_ended()), "I9 {}", at());
        assert!(terminal == 0 || own.last().is_some_and(ends), "L3 {}", at());
        assert!(own.iter().filter(|kind| **kind == EventKind::TurnStarted).count() <= 1, "I14 {}", at());
    }

    /// What makes two states the same for what can happen next.
    fn key(&self) -> String {
        let turns: Vec<_> = self
            .session
            .turns
            .iter()
            .map(|t| {
                (
                    t.status,
                    t.term,
                    t.flushed.min(1),
                    t.intent.is_some(),
                    t.order,
                    t.owner.as_ref().map(|o| &o.incarnation.0),
                )
            })
            .collect();
        let nodes: Vec<_> = self.nodes.iter().map(|node| (&node.owner.incarnation.0, node.state)).collect();
        let runners: Vec<_> = self
            .runners
            .iter()
            .map(|r| (&r.fence.turn_id, &r.fence.incarnation.0, r.fence.term, r.fence.flush.min(1), r.fenced))
            .collect();
        format!("{turns:?} {nodes:?} {runners:?} {}", self.sent)
    }
}

/// I7, I10: who may change a running turn from outside, and that an ended one never changes.
fn check_change(before: &System, old: &Turn, new: &Turn, step: &Step, at: &dyn Fn() -> String) {
    let changed = (old.status, old.term, old.flushed) != (new.status, new.term, new.flushed);
    assert!(!(old.is_ended() && changed), "I9 {}", at());
    if old.status != TurnStatus::Running || !changed {
        return;
    }
    let owner = old.owner.as_ref().unwrap();
    match step {
        Step::Append(runner) | Step::Finish(runner) | Step::CarryOut(runner) => {
            let fence = &before.runners[*runner].fence;
            assert!(
                fence.turn_id == old.id && fence.term == old.term && fence.incarnation == owner.incarnation,
                "I7 {}",
                at()
            );
        }
        Step::Force(..) => assert!(old.intent.is_some() || machine::is_gone(&before.nodes, owner), "I10 {}", at()),
        _ => assert!(machine::is_gone(&before.nodes, owner), "I10 {}", at()),
    }
}

#[test]
fn i2_i6_i7_i8_i9_i10_hold_in_every_interleaving() {
    for (slots, depth) in [(1, 7), (2, 6)] {
        let start = System::new(slots);
        let mut known = HashSet::from([start.key()]);
        let mut queue = VecDeque::from([(start, 0)]);
        while let Some((system, steps)) = queue.pop_front() {
            for step in system.steps() {
                let mut next = system.clone();
                next.take(&step);
                if steps + 1 < depth && known.insert(next.key()) {
                    queue.push_back((next, steps + 1));
                }
            }
        }
        assert!(known.len() > 1_000, "only {} states were reached with {slots} slots", known.len());
    }
}
