//! The whole matrix: every state of a turn against everything that may be asked of it.

use std::collections::HashMap;

use super::*;
use crate::{
    clock::Timestamp,
    model::{Node, View},
};

const NOW: Timestamp = Timestamp(1_795_341_600_000);

fn owner(name: &str) -> Owner {
    Owner { node: name.to_owned(), incarnation: Incarnation(name.to_owned()) }
}

fn nodes() -> Vec<Node> {
    let node = |name: &str, state| Node {
        owner: owner(name),
        state,
        beat: 1,
        lease_ttl_ms: 6_000,
        exclusive: false,
        connections: 0,
    };
    vec![
        node("a", NodeState::Live),
        node("b", NodeState::Live),
        node("gone", NodeState::Dead),
        node("leaving", NodeState::Draining),
    ]
}

fn person(id: &str) -> Person {
    Person { id: id.to_owned(), name: id.to_owned() }
}

fn asker(id: &str) -> Asker {
    Asker { person: person(id), admin: id == "admin" }
}

/// A session with a log, driven item by item as a store drives it.
struct Bench {
    session: Session,
    events: Vec<Event>,
    nodes: Vec<Node>,
    /// What a store would find when it is asked for a partial.
    streamed: HashMap<String, Vec<Part>>,
}

impl Bench {
    fn new() -> Self {
        let op = Op::Create { epoch: "e".into(), title: None, metadata: None, max_running: None, must_be_new: true };
        let session = create(&Arc::from("s"), &op, NOW).unwrap();
        Self { session, events: Vec::new(), nodes: nodes(), streamed: HashMap::new() }
    }

    fn slots(mut self, slots: u32) -> Self {
        self.session.max_running = slots;
        self
    }

    fn apply(&mut self, node: Option<&str>, op: &Op) -> Result<Applied, Refused> {
        let mut writes = Writes::default();
        let node = node.map(owner);
        let before = self.session.last_seq;
        let outcome = loop {
            let world = World { nodes: &self.nodes, now: NOW };
            match apply(&mut self.session, world, node.as_ref(), op, &mut writes) {
                Err(Refused::NeedsPartial(turn)) => {
                    let parts = self.streamed.get(&turn).cloned().unwrap_or_default();
                    self.session.partials.insert(turn, parts);
                }
                outcome => break outcome,
            }
        };
        let seqs: Vec<u64> = writes.events.iter().map(|event| event.seq).collect();
        assert_eq!(seqs, (before + 1..=self.session.last_seq).collect::<Vec<_>>(), "L1: gapless");
        self.events.extend(writes.events);
        self.session.partials.clear();
        outcome
    }

    fn send(&mut self, node: &str, id: &str, by: &str, when_busy: WhenBusy) -> Result<Done, Refused> {
        let turn = NewTurn { id: format!("turn-{id}"), reply_id: format!("reply-{id}"), agent: "echo".into() };
        let op = Op::Send {
            message_id: id.to_owned(),
            parts: vec![Part::text(id)],
            turn: Some(turn),
            when_busy,
            max_queue: 3,
            asker: asker(by),
        };
        self.apply(Some(node), &op).map(|applied| applied.done)
    }

    fn turn(&self, id: &str) -> &Turn {
        self.session.turns.iter().find(|turn| turn.id == format!("turn-{id}")).unwrap()
    }

    fn kinds(&self) -> Vec<EventKind> {
        self.events.iter().map(|event| event.kind).collect()
    }

    fn last(&self) -> serde_json::Value {
        let mut text = String::new();
        self.events.last().unwrap().write_to(&mut text);
        serde_json::from_str(&text).unwrap()
    }
}

fn fence(id: &str, node: &str, term: u64, flush: u64) -> Fence {
    Fence { turn_id: format!("turn-{id}"), incarnation: Incarnation(node.to_owned()), term, flush }
}

fn delta(text: &str) -> DeltaEvent {
    let delta = Delta { part: 0, kind: crate::model::PartKind::Text, text: Some(text.to_owned()), value: None };
    let body = event::body(EventKind::TurnDelta, NOW, None, Some("turn-m1"), &Data::Delta(&delta));
    DeltaEvent { delta, body }
}

fn append(node: &str, term: u64, flush: u64) -> Op {
    Op::Append { fence: fence("m1", node, term, flush), deltas: vec![delta("a")], chunk: None }
}

fn finish(node: &str, term: u64, flush: u64, end: End) -> Op {
    Op::Finish { fence: fence("m1", node, term, flush), deltas: Vec::new(), parts: vec![Part::text("a")], end }
}

fn cancel(by: &str) -> Op {
    Op::Cancel { turn_id: "turn-m1".into(), asker: asker(by) }
}

fn retry(by: &str, id: &str) -> Op {
    let turn = NewTurn { id: format!("turn-{id}"), reply_id: format!("reply-{id}"), agent: String::new() };
    Op::Retry { turn_id: "turn-m1".into(), turn, max_queue: 3, asker: asker(by) }
}

fn end_owned(node: &str, term: u64, end: End) -> Op {
    Op::EndOwned { turn_id: "turn-m1".into(), incarnation: Incarnation(node.into()), term, end }
}

fn force(term: u64) -> Op {
    Op::Force { turn_id: "turn-m1".into(), term }
}

fn completed() -> End {
    End::Completed { usage: None }
}

fn failed() -> End {
    End::Failed(TurnError::lost())
}

/// The states of `turn-m1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Queued,
    Running,
    Intended,
    Orphan,
    OrphanIntended,
    Ended,
}

fn in_state(state: State) -> Bench {
    let mut bench = Bench::new();
    if state == State::Queued {
        bench.send("b", "m0", "u2", WhenBusy::Queue).unwrap();
    }
    bench.send("a", "m1", "u1", WhenBusy::Queue).unwrap();
    if matches!(state, State::Intended | State::OrphanIntended) {
        bench.apply(Some("b"), &cancel("u1")).unwrap();
    }
    if matches!(state, State::Orphan | State::OrphanIntended) {
        bench.nodes[0].state = NodeState::Dead;
    }
    if state == State::Ended {
        bench.apply(Some("a"), &finish("a", 1, 0, completed())).unwrap();
    }
    bench
}

/// What one cell of the matrix expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cell {
    /// The item is refused as fenced, and nothing changes.
    Fenced,
    /// Nothing changes and the answer tells how it ended before.
    EndedBefore,
    /// It goes on running, a delta longer.
    Appends,
    /// It goes on running, an intent is set.
    Intends,
    /// It ends so.
    Ends(TurnStatus, Option<EndReason>),
    /// Nothing changes; the answer is that of a look.
    Nothing,
    /// The item asks for what is not there.
    Invalid,
    /// The attempt that is queued or running is the answer.
    Duplicate,
    /// A new attempt.
    Again,
}

#[test]
fn the_whole_matrix_of_states_and_items() {
    use Cell::*;
    use EndReason::{OwnerGone, Shutdown, User};
    use State::*;
    use TurnStatus::{Cancelled, Completed, Failed};
    let by_user = Ends(Cancelled, Some(User));
    let gone = Ends(Cancelled, Some(OwnerGone));
    let states = [Queued, Running, Intended, Orphan, OrphanIntended, State::Ended];
    // A dead owner's writes are refused from the moment at which somebody has ended its turn, and not before: the
    // tombstone alone changes no turn row.
    let rows: Vec<(&str, Op, [Cell; 6])> = vec![
        ("append", append("a", 1, 0), [Fenced, Appends, Appends, Appends, Appends, Fenced]),
        ("append of another term", append("a", 2, 0), [Fenced; 6]),
        ("append of another node", append("b", 1, 0), [Fenced; 6]),
        (
            "complete",
            finish("a", 1, 0, completed()),
            [
                Fenced,
                Ends(Completed, None),
                Ends(Completed, None),
                Ends(Completed, None),
                Ends(Completed, None),
                EndedBefore,
            ],
        ),
        (
            "fail",
            finish("a", 1, 0, failed()),
            [Fenced, Ends(Failed, None), Ends(Failed, None), Ends(Failed, None), Ends(Failed, None), EndedBefore],
        ),
        (
            "shutdown",
            finish("a", 1, 0, End::Shutdown),
            [
                Fenced,
                Ends(Cancelled, Some(Shutdown)),
                Ends(Cancelled, Some(Shutdown)),
                Ends(Cancelled, Some(Shutdown)),
                Ends(Cancelled, Some(Shutdown)),
                EndedBefore,
            ],
        ),
        (
            "carry out an intent",
            finish("a", 1, 0, End::Intent),
            [Fenced, Invalid, by_user, Invalid, by_user, EndedBefore],
        ),
        (
            "complete under another term",
            finish("a", 2, 0, completed()),
            [Fenced, Fenced, Fenced, Fenced, Fenced, EndedBefore],
        ),
        (
            "end as lost",
            end_owned("a", 1, failed()),
            [Fenced, Ends(Failed, None), Ends(Failed, None), Ends(Failed, None), Ends(Failed, None), EndedBefore],
        ),
        ("end another's as lost", end_owned("b", 1, failed()), [Fenced, Fenced, Fenced, Fenced, Fenced, EndedBefore]),
        ("cancel", cancel("u1"), [by_user, Intends, Intends, by_user, by_user, EndedBefore]),
        ("force", force(1), [Fenced, Fenced, by_user, Fenced, by_user, EndedBefore]),
        ("force under another term", force(2), [Fenced, Fenced, Fenced, Fenced, Fenced, EndedBefore]),
        ("reconcile", Op::Reconcile, [Nothing, Nothing, Nothing, gone, by_user, Nothing]),
        ("retry", retry("u1", "m1b"), [Duplicate, Duplicate, Duplicate, Again, Again, Again]),
    ];
    for (name, op, cells) in rows {
        for (state, cell) in states.into_iter().zip(cells) {
            check_cell(name, &op, state, cell);
        }
    }
}

fn check_cell(name: &str, op: &Op, state: State, cell: Cell) {
    let at = format!("{name} meets {state:?}");
    let mut bench = in_state(state);
    let before = (bench.turn("m1").clone(), bench.events.len());
    let outcome = bench.apply(Some("b"), op).map(|applied| applied.done);
    let turn = bench.turn("m1").clone();
    let unchanged = |bench: &Bench| {
        assert_eq!(bench.events.len(), before.1, "{at}");
        assert_eq!((turn.status, turn.term, turn.flushed), (before.0.status, before.0.term, before.0.flushed), "{at}");
    };
    match cell {
        Cell::Fenced => {
            assert_eq!(outcome, Err(Refused::Fenced), "{at}");
            unchanged(&bench);
        }
        Cell::Invalid => {
            assert!(matches!(outcome, Err(Refused::Invalid(_))), "{at}: {outcome:?}");
            unchanged(&bench);
        }
        Cell::EndedBefore => {
            assert!(matches!(outcome, Ok(Done::Ended { now: false, .. })), "{at}: {outcome:?}");
            unchanged(&bench);
        }
        Cell::Nothing => {
            assert_eq!(outcome, Ok(Done::Reconciled), "{at}");
            unchanged(&bench);
        }
        Cell::Appends => {
            assert!(matches!(outcome, Ok(Done::Appended { .. })), "{at}: {outcome:?}");
            assert_eq!((bench.kinds().last(), turn.flushed), (Some(&EventKind::TurnDelta), 1), "{at}");
        }
        Cell::Intends => {
            assert_eq!(outcome, Ok(Done::Intended { term: 1 }), "{at}");
            assert_eq!(turn.intent.map(|intent| intent.reason), Some(EndReason::User), "{at}");
            assert_eq!(bench.events.len(), before.1, "{at}");
        }
        Cell::Ends(status, reason) => {
            assert_eq!((turn.status, turn.reason), (status, reason), "{at}: {outcome:?}");
            assert_eq!(turn.owner, None, "I6, {at}");
            let terminal = bench.events[before.1..].iter().filter(|event| is_terminal(event.kind)).count();
            assert_eq!(terminal, 1, "I9, {at}");
        }
        Cell::Duplicate => {
            assert!(matches!(outcome, Ok(Done::Retried { duplicate: true, .. })), "{at}: {outcome:?}");
            unchanged(&bench);
        }
        Cell::Again => {
            let again = Done::Retried { turn_id: "turn-m1b".into(), attempt: 2, duplicate: false };
            assert_eq!(outcome, Ok(again), "{at}");
            assert_eq!(bench.turn("m1b").status, TurnStatus::Running, "{at}");
        }
    }
}

fn is_terminal(kind: EventKind) -> bool {
    matches!(kind, EventKind::TurnCompleted | EventKind::TurnFailed | EventKind::TurnCancelled)
}

#[test]
fn a_send_appends_its_message_and_either_a_start_or_a_place_in_the_queue() {
    use EventKind::{MessageAdded, TurnQueued, TurnStarted};
    let mut bench = Bench::new();
    bench.send("a", "m1", "u1", WhenBusy::Queue).unwrap();
    bench.send("b", "m2", "u1", WhenBusy::Queue).unwrap();
    assert_eq!(bench.kinds(), [MessageAdded, TurnStarted, MessageAdded, TurnQueued]);
    assert_eq!(bench.last()["data"]["turn"]["position"], 1);
}

#[test]
fn i16_the_same_id_gives_the_same_answer_and_anything_else_under_it_is_a_conflict() {
    let mut bench = Bench::new();
    let first = bench.send("a", "m1", "u1", WhenBusy::Queue).unwrap();
    let Done::Sent { seq, turn_id, .. } = first else { panic!("{first:?}") };
    let other = |bench: &mut Bench, parts: Vec<Part>, by: &str, answer: bool| {
        let turn = NewTurn { id: "other".into(), reply_id: "r".into(), agent: "echo".into() };
        let op = Op::Send {
            message_id: "m1".into(),
            parts,
            turn: answer.then_some(turn),
            when_busy: WhenBusy::Queue,
            max_queue: 3,
            asker: asker(by),
        };
        bench.apply(Some("b"), &op).map(|applied| applied.done)
    };
    let again = other(&mut bench, vec![Part::text("m1")], "u1", true).unwrap();
    assert_eq!(again, Done::Sent { message_id: "m1".into(), turn_id, seq, duplicate: true, interrupted: Vec::new() });
    for (text, by, answer) in [("else", "u1", true), ("m1", "u2", true), ("m1", "u1", false)] {
        let refused = other(&mut bench, vec![Part::text(text)], by, answer);
        assert!(matches!(refused, Err(Refused::Conflict(_))), "{text} {by} {answer}: {refused:?}");
    }
    assert_eq!(bench.events.len(), 2);
}

#[test]
fn the_id_of_an_answer_that_is_still_coming_is_taken() {
    let mut bench = Bench::new();
    bench.send("a", "one", "ada", WhenBusy::Queue).unwrap();
    bench.send("a", "two", "ada", WhenBusy::Queue).unwrap();
    let before = bench.session.last_seq;
    for id in ["reply-one", "reply-two"] {
        let outcome = bench.send("a", id, "ada", WhenBusy::Queue);
        assert!(matches!(outcome, Err(Refused::Conflict(_))), "{id}: {outcome:?}");
    }
    assert_eq!(bench.session.last_seq, before, "a refused send leaves no trace");
}

#[test]
fn l4_the_same_items_written_again_change_nothing_and_tell_the_same() {
    let mut bench = Bench::new();
    let turn = NewTurn { id: "turn-m1".into(), reply_id: "reply-m1".into(), agent: "echo".into() };
    let send = Op::Send {
        message_id: "m1".into(),
        parts: vec![Part::text("m1")],
        turn: Some(turn),
        when_busy: WhenBusy::Queue,
        max_queue: 3,
        asker: asker("u1"),
    };
    let first = bench.apply(Some("a"), &send).unwrap();
    let again = bench.apply(Some("a"), &send).unwrap();
    assert_eq!(first.done, again.done, "its own earlier try is no duplicate");
    assert_eq!(again.started.len(), 1, "the turn that it had started still needs its runner");
    bench.apply(Some("a"), &append("a", 1, 0)).unwrap();
    let events = bench.events.len();
    assert_eq!(bench.apply(Some("a"), &append("a", 1, 0)).unwrap().done, Done::Appended { intent: false });
    assert_eq!(bench.events.len(), events, "a flush that is there already");
    assert_eq!(bench.apply(Some("a"), &append("a", 1, 3)).unwrap_err(), Refused::HistoryLost);
    let end = finish("a", 1, 1, completed());
    assert!(matches!(bench.apply(Some("a"), &end).unwrap().done, Done::Ended { now: true, .. }));
    assert!(matches!(bench.apply(Some("a"), &end).unwrap().done, Done::Ended { now: false, .. }));
    assert_eq!(bench.kinds().into_iter().filter(|kind| is_terminal(*kind)).count(), 1);
}

#[test]
fn i13_queued_turns_survive_any_death_and_run_in_order() {
    let mut bench = Bench::new();
    for id in ["m1", "m2", "m3"] {
        bench.send("a", id, "u1", WhenBusy::Queue).unwrap();
    }
    bench.nodes[0].state = NodeState::Dead;
    let applied = bench.apply(Some("b"), &Op::Reconcile).unwrap();
    assert_eq!(applied.started.iter().map(|turn| turn.id.as_str()).collect::<Vec<_>>(), ["turn-m2"]);
    assert_eq!(bench.turn("m1").reason, Some(EndReason::OwnerGone), "I14: it is not run again");
    assert_eq!(bench.turn("m3").status, TurnStatus::Queued);
    assert_eq!(bench.turn("m2").owner, Some(owner("b")));
}

#[test]
fn i12_a_cut_answer_keeps_what_was_streamed_and_an_empty_one_disappears() {
    let mut bench = in_state(State::Orphan);
    bench.streamed.insert("turn-m1".into(), vec![Part::text("so far")]);
    bench.apply(Some("b"), &Op::Reconcile).unwrap();
    let end = bench.last();
    assert_eq!(end["data"]["message"]["parts"][0]["text"], "so far");
    assert_eq!((&end["data"]["message"]["status"], &end["data"]["reason"]), (&"partial".into(), &"owner_gone".into()));
    assert_eq!(end["data"]["message"]["seq"], 2, "that of turn_started");
    let mut bench = in_state(State::Orphan);
    bench.apply(Some("b"), &Op::Reconcile).unwrap();
    assert!(bench.last()["data"]["message"].is_null());
}

#[test]
fn i8_no_turn_starts_while_as_many_run_as_may() {
    let mut bench = Bench::new().slots(2);
    for id in ["m1", "m2", "m3", "m4"] {
        bench.send("a", id, "u1", WhenBusy::Queue).unwrap();
    }
    assert_eq!(running(&bench), 2);
    let update = |slots| Op::Update { title: None, metadata: None, max_running: Some(slots), asker: asker("u1") };
    bench.apply(Some("a"), &update(1)).unwrap();
    assert_eq!(running(&bench), 2, "lowering stops nothing");
    bench.apply(Some("a"), &finish("a", 1, 0, completed())).unwrap();
    assert_eq!(running(&bench), 1, "and nothing starts above it");
    bench.apply(Some("a"), &update(3)).unwrap();
    assert_eq!(running(&bench), 3, "raising starts what waits at once");
}

fn running(bench: &Bench) -> usize {
    bench.session.turns.iter().filter(|turn| turn.status == TurnStatus::Running).count()
}

#[test]
fn a_send_that_would_not_wait_is_refused_without_a_trace() {
    let mut bench = Bench::new();
    bench.send("a", "m1", "u1", WhenBusy::Queue).unwrap();
    let events = bench.events.len();
    assert_eq!(bench.send("a", "m2", "u1", WhenBusy::Reject).unwrap_err(), Refused::Busy);
    for id in ["m3", "m4", "m5"] {
        bench.send("a", id, "u1", WhenBusy::Queue).unwrap();
    }
    assert_eq!(bench.send("a", "m6", "u1", WhenBusy::Queue).unwrap_err(), Refused::QueueFull);
    assert_eq!(bench.events.len(), events + 6);
    let interrupt = bench.send("a", "m6", "u1", WhenBusy::Interrupt);
    assert!(matches!(interrupt, Ok(Done::Sent { .. })), "it makes the place that it takes: {interrupt:?}");
    assert_eq!(bench.send("a", "m7", "u1", WhenBusy::Interrupt).unwrap_err(), Refused::QueueFull, "it makes none");
    assert_eq!(bench.send("leaving", "m7", "u1", WhenBusy::Queue).unwrap_err(), Refused::Draining);
    assert_eq!(bench.send("gone", "m7", "u1", WhenBusy::Queue).unwrap_err(), Refused::Draining);
}

#[test]
fn an_interrupt_supersedes_ones_own_oldest_turn_and_goes_to_the_head() {
    let mut bench = Bench::new().slots(2);
    bench.send("a", "m0", "u2", WhenBusy::Queue).unwrap();
    bench.send("a", "m1", "u1", WhenBusy::Queue).unwrap();
    bench.send("a", "m2", "u1", WhenBusy::Queue).unwrap();
    let done = bench.send("b", "m3", "u1", WhenBusy::Interrupt).unwrap();
    let Done::Sent { interrupted, .. } = done else { panic!("{done:?}") };
    assert_eq!(interrupted, ["turn-m1"]);
    assert_eq!(bench.last()["data"]["turn"]["position"], 1, "before m2");
    bench.apply(Some("a"), &finish("a", 1, 0, End::Intent)).unwrap();
    assert_eq!(bench.turn("m1").reason, Some(EndReason::Superseded));
    assert_eq!(bench.turn("m3").status, TurnStatus::Running);
    let refused = bench.send("a", "m4", "u3", WhenBusy::Interrupt);
    assert!(matches!(refused, Err(Refused::Unauthorized(_))), "{refused:?}");
    bench.send("a", "m5", "admin", WhenBusy::Interrupt).unwrap();
}

#[test]
fn i17_a_cancel_is_for_those_who_may_and_names_one_turn() {
    let mut bench = in_state(State::Running);
    assert!(matches!(bench.apply(Some("b"), &cancel("u2")), Err(Refused::Unauthorized(_))));
    let op = Op::Cancel { turn_id: "turn-of-another-session".into(), asker: asker("u1") };
    assert!(matches!(bench.apply(Some("b"), &op), Err(Refused::NotFound(_))));
    bench.apply(Some("b"), &cancel("admin")).unwrap();
    assert_eq!(bench.turn("m1").intent.as_ref().unwrap().by.id, "admin");
    assert_eq!(bench.turn("m1").status, TurnStatus::Running, "T5 ends nothing");
}

#[test]
fn a_retry_is_a_new_attempt_of_the_prompt_by_the_same_agent() {
    let mut bench = in_state(State::Ended);
    bench.apply(Some("a"), &retry("u1", "again")).unwrap();
    let again = bench.turn("again");
    assert_eq!((again.attempt, again.prompt_id.as_str(), again.agent.as_str()), (2, "m1", "echo"));
    assert_eq!(again.retry_of.as_deref(), Some("turn-m1"));
    assert!(matches!(bench.apply(Some("a"), &retry("u2", "x")), Err(Refused::Unauthorized(_))));
}

#[test]
fn l12_only_an_admin_deletes_and_what_was_live_is_told() {
    let mut bench = Bench::new();
    bench.send("a", "m1", "ada", WhenBusy::Queue).unwrap();
    bench.send("a", "m2", "ada", WhenBusy::Queue).unwrap();
    bench.session.turns.iter_mut().for_each(|turn| turn.term += 1);
    let delete = |by: &str| Op::Delete { asker: asker(by) };
    let before = bench.session.last_seq;
    assert!(matches!(bench.apply(Some("a"), &delete("ada")), Err(Refused::Unauthorized(_))));
    let mut writes = Writes::default();
    let world = World { nodes: &nodes(), now: NOW };
    // Also where nobody may run anything: a node that drains, or none.
    let applied = apply(&mut bench.session, world, None, &delete("admin"), &mut writes).unwrap();
    let turns = vec!["turn-m1".to_owned(), "turn-m2".to_owned()];
    assert_eq!(applied.done, Done::Deleted { epoch: "e".to_owned(), turns });
    assert_eq!(writes.deleted.as_ref().map(|by| by.id.as_str()), Some("admin"));
    assert!(!writes.is_empty() && writes.events.is_empty() && applied.started.is_empty());
    assert_eq!(bench.session.last_seq, before, "a log that is gone has no last event");
}

#[test]
fn what_was_decided_folds_to_what_a_client_shows() {
    let mut bench = Bench::new();
    bench.send("a", "m1", "u1", WhenBusy::Queue).unwrap();
    bench.apply(Some("a"), &append("a", 1, 0)).unwrap();
    bench.send("a", "m2", "u1", WhenBusy::Queue).unwrap();
    bench.apply(Some("a"), &finish("a", 1, 1, failed())).unwrap();
    let mut view = View::default();
    for event in &bench.events {
        let mut text = String::new();
        event.write_to(&mut text);
        view.apply(&text).unwrap();
    }
    let statuses: Vec<_> = view.messages.iter().map(|message| (message.id.as_str(), message.status)).collect();
    assert_eq!(
        statuses,
        [
            ("m1", MessageStatus::Complete),
            ("reply-m1", MessageStatus::Partial),
            ("m2", MessageStatus::Complete),
            ("reply-m2", MessageStatus::Streaming),
        ]
    );
    assert_eq!(view.ended["m1"].error.as_ref().unwrap()["code"], "lost");
}
