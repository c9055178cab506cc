use proptest::prelude::*;

use super::*;
use crate::protocol::{Broadcast, Payload};

fn message(kind: Kind, event: &str) -> Arc<Published> {
    Arc::new(Published { kind, from: None, broadcast: Broadcast::new("t", event, Payload::empty()) })
}

fn logged(first: u64, last: u64) -> Arc<Published> {
    message(Kind::Logged { first, last }, "events")
}

fn ephemeral(event: &str) -> Arc<Published> {
    message(Kind::Ephemeral, event)
}

fn presence(event: &str) -> Arc<Published> {
    message(Kind::Presence, event)
}

/// A gate and what it let pass.
struct Bench {
    gate: Gate,
    full: bool,
    seen: Vec<u64>,
    events: Vec<String>,
}

impl Bench {
    fn new() -> Self {
        Self { gate: Gate::new(), full: false, seen: Vec::new(), events: Vec::new() }
    }

    fn live(position: u64) -> Self {
        let mut bench = Self::new();
        bench.open(Some(Cursor { position, complete: true, log: None }));
        bench.with(|gate, emit| gate.refreshed(emit));
        bench
    }

    fn with<T>(&mut self, run: impl FnOnce(&mut Gate, &mut dyn FnMut(&Arc<Published>) -> bool) -> T) -> T {
        let (full, seen, events) = (self.full, &mut self.seen, &mut self.events);
        run(&mut self.gate, &mut |message: &Arc<Published>| {
            if full {
                return false;
            }
            match message.kind {
                Kind::Logged { first, last } => seen.extend(first..=last),
                _ => events.push(message.broadcast.event().to_owned()),
            }
            true
        })
    }

    fn deliver(&mut self, message: &Arc<Published>) -> Effect {
        self.with(|gate, emit| gate.deliver(message, emit))
    }

    fn open(&mut self, cursor: Option<Cursor>) -> Effect {
        self.with(|gate, emit| gate.open(cursor, emit))
    }

    /// Shows a page of a log that ends at `head`, at most `size` records of it.
    fn page(&mut self, head: u64, size: u64) -> Paged {
        let Need::Page(after) = self.gate.need() else { panic!("no page is needed: {:?}", self.gate) };
        let last = head.min(after + size);
        self.seen.extend(after + 1..=last);
        self.gate.paged(last, last == head)
    }
}

fn head(last: u64) -> Arc<Published> {
    message(Kind::Head { last }, "")
}

#[test]
fn l7_a_hint_beyond_what_is_held_is_a_gap_and_any_other_is_nothing() {
    let mut bench = Bench::live(3);
    assert_eq!(bench.deliver(&head(3)), Effect::Nothing);
    assert_eq!(bench.deliver(&head(6)), Effect::Read);
    assert_eq!(bench.gate.need(), Need::Page(3));
    assert_eq!(bench.deliver(&head(9)), Effect::Nothing);
    assert_eq!(bench.page(6, 10), Paged::More);
    assert_eq!(bench.page(9, 10), Paged::CaughtUp);
    bench.deliver(&logged(10, 10));
    assert_eq!(bench.seen, [4, 5, 6, 7, 8, 9, 10]);
    assert!(bench.events.is_empty(), "a hint is never shown");
}

#[test]
fn l7_a_hint_during_a_join_counts_when_it_is_answered() {
    for (hint, need) in [(5, Need::Nothing), (8, Need::Page(5))] {
        let mut bench = Bench::new();
        bench.deliver(&head(hint));
        bench.open(Some(Cursor { position: 5, complete: true, log: None }));
        bench.with(|gate, emit| gate.refreshed(emit));
        assert_eq!(bench.gate.need(), need, "{hint}");
    }
    let mut bench = Bench::new();
    bench.deliver(&head(7));
    bench.deliver(&logged(6, 7));
    bench.open(Some(Cursor { position: 5, complete: true, log: None }));
    assert_eq!((bench.gate.need(), &bench.seen[..]), (Need::Nothing, &[6, 7][..]), "what it hints at was held");
    let mut bench = Bench::new();
    bench.deliver(&head(7));
    bench.open(None);
    assert_eq!(bench.gate.need(), Need::Nothing, "a channel without a log");
}

#[test]
fn records_in_order_pass() {
    let mut bench = Bench::live(3);
    assert_eq!(bench.deliver(&logged(4, 4)), Effect::Nothing);
    assert_eq!(bench.deliver(&logged(5, 8)), Effect::Nothing);
    assert_eq!(bench.seen, [4, 5, 6, 7, 8]);
}

#[test]
fn records_that_were_shown_are_dropped() {
    let mut bench = Bench::live(8);
    assert_eq!(bench.deliver(&logged(4, 8)), Effect::Nothing);
    assert_eq!(bench.deliver(&logged(8, 8)), Effect::Nothing);
    assert!(bench.seen.is_empty());
    assert_eq!(bench.gate.need(), Need::Nothing);
}

#[test]
fn a_gap_is_read_from_the_log() {
    let mut bench = Bench::live(3);
    assert_eq!(bench.deliver(&logged(6, 6)), Effect::Gap);
    assert_eq!(bench.gate.need(), Need::Page(3));
    assert_eq!(bench.page(6, 100), Paged::CaughtUp);
    assert_eq!(bench.deliver(&logged(7, 7)), Effect::Nothing);
    assert_eq!(bench.seen, [4, 5, 6, 7]);
}

#[test]
fn an_overlap_is_read_from_the_log() {
    let mut bench = Bench::live(3);
    assert_eq!(bench.deliver(&logged(2, 5)), Effect::Read);
    assert_eq!(bench.page(5, 100), Paged::CaughtUp);
    assert_eq!(bench.seen, [4, 5]);
}

#[test]
fn a_full_outbox_turns_records_into_a_replay() {
    let mut bench = Bench::live(0);
    bench.deliver(&logged(1, 1));
    bench.full = true;
    assert_eq!(bench.deliver(&logged(2, 2)), Effect::Repair);
    assert_eq!(bench.deliver(&logged(3, 3)), Effect::Nothing, "one repair is enough");
    bench.full = false;
    assert_eq!(bench.deliver(&logged(4, 4)), Effect::Nothing, "nothing overtakes the replay");
    assert_eq!(bench.page(4, 2), Paged::More);
    assert_eq!(bench.page(4, 2), Paged::CaughtUp);
    assert_eq!(bench.seen, [1, 2, 3, 4]);
}

#[test]
fn a_record_published_behind_the_last_page_is_not_lost() {
    let mut bench = Bench::live(0);
    bench.deliver(&logged(2, 2));
    // The page was read when the log ended at 2; 3 is published before the page is shown.
    bench.deliver(&logged(3, 3));
    assert_eq!(bench.page(2, 100), Paged::More);
    assert_eq!(bench.page(3, 100), Paged::CaughtUp);
    assert_eq!(bench.seen, [1, 2, 3]);
}

#[test]
fn a_record_published_after_the_page_that_had_it_is_dropped() {
    let mut bench = Bench::live(0);
    bench.deliver(&logged(2, 2));
    assert_eq!(bench.page(5, 100), Paged::CaughtUp);
    bench.deliver(&logged(3, 5));
    bench.deliver(&logged(6, 6));
    assert_eq!(bench.seen, [1, 2, 3, 4, 5, 6]);
}

#[test]
fn a_page_that_brings_nothing_is_told_from_one_that_does() {
    let mut bench = Bench::live(4);
    bench.deliver(&logged(7, 7));
    assert_eq!(bench.gate.paged(4, true), Paged::Stuck);
    assert_eq!(bench.gate.paged(3, true), Paged::Stuck);
    assert_eq!(bench.gate.need(), Need::Page(4));
}

#[test]
fn c36_what_is_published_during_a_join_passes_after_it() {
    let mut bench = Bench::new();
    for held in [ephemeral("a"), logged(4, 4), presence("b"), logged(5, 5), logged(6, 6)] {
        assert_eq!(bench.deliver(&held), Effect::Nothing);
    }
    assert!(bench.seen.is_empty() && bench.events.is_empty());
    assert_eq!(bench.open(Some(Cursor { position: 5, complete: true, log: None })), Effect::Nothing);
    assert_eq!(bench.seen, [6]);
    assert_eq!(bench.events, ["a"], "changes of who is there wait for the state that the join pushes");
    bench.with(|gate, emit| gate.refreshed(emit));
    assert_eq!(bench.events, ["a", "b"]);
}

#[test]
fn an_incomplete_join_goes_on_with_pages_before_records() {
    let mut bench = Bench::new();
    bench.deliver(&logged(9, 9));
    assert_eq!(bench.open(Some(Cursor { position: 4, complete: false, log: None })), Effect::Repair);
    assert!(bench.seen.is_empty());
    assert_eq!(bench.page(9, 3), Paged::More);
    assert_eq!(bench.page(9, 3), Paged::CaughtUp);
    assert_eq!(bench.seen, [5, 6, 7, 8, 9]);
}

#[test]
fn what_the_bus_loses_during_a_join_is_a_gap_and_the_client_is_not_to_blame() {
    let mut bench = Bench::new();
    bench.deliver(&logged(5, 5));
    bench.deliver(&logged(7, 7));
    assert_eq!(bench.open(Some(Cursor { position: 4, complete: true, log: None })), Effect::Gap);
    assert_eq!(bench.page(7, 100), Paged::CaughtUp);
    assert_eq!(bench.seen, [5, 6, 7]);
}

#[test]
fn too_much_during_a_join_becomes_a_replay_and_a_count() {
    let mut bench = Bench::new();
    for seq in 1..=1_000 {
        bench.deliver(&logged(seq, seq));
    }
    assert_eq!(bench.open(Some(Cursor { position: 10, complete: true, log: None })), Effect::Repair);
    assert!(bench.seen.is_empty());
    assert_eq!(bench.page(1_000, 5_000), Paged::CaughtUp);
    assert_eq!(bench.seen, (11..=1_000).collect::<Vec<_>>());

    let mut bench = Bench::new();
    for n in 0..=MAX_HELD {
        bench.deliver(&ephemeral(&n.to_string()));
    }
    bench.deliver(&presence("late"));
    assert_eq!(bench.open(None), Effect::Repair);
    assert_eq!(bench.events.len(), MAX_HELD);
    assert_eq!(bench.gate.need(), Need::Missed(1));
    bench.gate.told(1);
    assert_eq!(bench.gate.need(), Need::Presence);
}

#[test]
fn a_channel_without_a_log_is_shown_no_records() {
    let mut bench = Bench::new();
    bench.open(None);
    assert_eq!(bench.deliver(&logged(1, 1)), Effect::Nothing);
    bench.deliver(&ephemeral("a"));
    assert!(bench.seen.is_empty());
    assert_eq!(bench.events, ["a"]);
}

#[test]
fn ephemeral_messages_that_do_not_fit_are_counted() {
    let mut bench = Bench::live(0);
    bench.full = true;
    assert_eq!(bench.deliver(&ephemeral("a")), Effect::Repair);
    // Behind is who has not caught up, however much more is missed.
    assert_eq!(bench.deliver(&ephemeral("b")), Effect::Read);
    bench.full = false;
    bench.deliver(&ephemeral("c"));
    assert_eq!(bench.gate.need(), Need::Missed(2));
    bench.gate.told(2);
    assert_eq!(bench.gate.need(), Need::Nothing);
    bench.full = true;
    assert_eq!(bench.deliver(&ephemeral("d")), Effect::Repair);
    assert_eq!(bench.events, ["c"]);
}

#[test]
fn after_a_missed_change_presence_waits_for_a_new_state() {
    let mut bench = Bench::live(0);
    bench.full = true;
    assert_eq!(bench.deliver(&presence("lost")), Effect::Repair);
    bench.full = false;
    bench.deliver(&presence("in the state"));
    assert_eq!(bench.gate.need(), Need::Presence);
    bench.gate.refresh();
    assert_eq!(bench.gate.need(), Need::Nothing);
    bench.deliver(&presence("after the state"));
    assert!(bench.events.is_empty());
    bench.with(|gate, emit| gate.refreshed(emit));
    bench.deliver(&presence("live"));
    assert_eq!(bench.events, ["after the state", "live"]);
}

#[test]
fn a_refresh_that_does_not_fit_is_repeated() {
    let mut bench = Bench::live(0);
    bench.gate.refresh();
    bench.deliver(&presence("a"));
    bench.full = true;
    bench.with(|gate, emit| gate.refreshed(emit));
    assert_eq!(bench.gate.need(), Need::Presence);

    let mut bench = Bench::live(0);
    bench.gate.refresh();
    for n in 0..=MAX_HELD {
        bench.deliver(&presence(&n.to_string()));
    }
    bench.with(|gate, emit| gate.refreshed(emit));
    assert_eq!(bench.gate.need(), Need::Presence);
    assert!(bench.events.is_empty());
}

#[test]
fn a_control_ends_the_channel_also_when_it_comes_during_a_join() {
    let close = message(Kind::Control(Control::Close), "deleted");
    let mut bench = Bench::live(0);
    assert_eq!(bench.deliver(&close), Effect::End(Control::Close));
    assert_eq!(bench.deliver(&ephemeral("a")), Effect::Nothing);

    let mut joining = Bench::new();
    joining.deliver(&ephemeral("a"));
    assert_eq!(joining.deliver(&close), Effect::Nothing);
    assert_eq!(joining.open(None), Effect::End(Control::Close));
    assert_eq!(joining.events, ["a", "deleted"]);
    assert_eq!(bench.events, ["deleted"]);

    let restart = message(Kind::Control(Control::Restart), "not shown");
    let mut bench = Bench::live(0);
    assert_eq!(bench.deliver(&restart), Effect::End(Control::Restart));
    assert!(bench.events.is_empty());
}

#[test]
fn l12_only_those_who_show_a_deleted_log_are_ended() {
    let (old, new) = (LogId::of("old"), LogId::of("new"));
    let deleted = |log| message(Kind::Control(Control::Deleted(log)), "deleted");
    let cursor = |log| Some(Cursor { position: 3, complete: true, log: Some(log) });
    let mut bench = Bench::new();
    bench.open(cursor(new));
    assert_eq!(bench.deliver(&deleted(old)), Effect::Nothing);
    assert_eq!(bench.deliver(&deleted(new)), Effect::End(Control::Deleted(new)));
    assert_eq!((bench.deliver(&logged(4, 4)), bench.events.as_slice()), (Effect::Nothing, &["deleted".to_owned()][..]));
    // While a join is under way nobody knows which log it will read, and others may be deleted meanwhile.
    for (shown, end) in [(new, Effect::Nothing), (old, Effect::End(Control::Deleted(old)))] {
        let mut joining = Bench::new();
        joining.deliver(&deleted(old));
        joining.deliver(&deleted(LogId::of("between")));
        assert_eq!(joining.open(cursor(shown)), end);
        assert_eq!(joining.events.len(), usize::from(shown == old));
    }
    let mut joining = Bench::new();
    joining.deliver(&deleted(old));
    joining.deliver(&message(Kind::Control(Control::Restart), ""));
    assert_eq!(joining.open(cursor(new)), Effect::End(Control::Restart), "what ends everybody ends this one too");
    let mut joining = Bench::new();
    joining.deliver(&deleted(new));
    (0..MAX_ENDINGS - 1).for_each(|n| _ = joining.deliver(&deleted(LogId::of(&n.to_string()))));
    assert_eq!(joining.open(cursor(new)), Effect::End(Control::Deleted(new)));
}

#[test]
fn a_closed_gate_lets_nothing_pass() {
    let mut bench = Bench::live(0);
    bench.gate.close();
    bench.deliver(&logged(1, 1));
    bench.deliver(&ephemeral("a"));
    assert!(bench.seen.is_empty() && bench.events.is_empty());
    assert_eq!(bench.gate.need(), Need::Nothing);
}

#[derive(Debug, Clone)]
enum Step {
    /// Appends so many records and publishes them.
    Publish(u64),
    /// Appends so many records; nobody is told.
    Lose(u64),
    /// Publishes a batch again.
    Repeat(usize),
    /// The outbox fills or drains.
    Full(bool),
    /// A page is read, then so many records are published, then the page is shown.
    Page { size: u64, meanwhile: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4_u64).prop_map(Step::Publish),
        1 => (1..3_u64).prop_map(Step::Lose),
        1 => (0..50_usize).prop_map(Step::Repeat),
        2 => any::<bool>().prop_map(Step::Full),
        3 => (1..6_u64, 0..3_u64).prop_map(|(size, meanwhile)| Step::Page { size, meanwhile }),
    ]
}

proptest! {
    #[test]
    fn no_gap_and_no_repeat_ever(steps in proptest::collection::vec(step(), 1..80), start in 0..5_u64, complete: bool) {
        let mut bench = Bench::new();
        let mut head = start;
        let mut batches = vec![];
        let append = |head: &mut u64, n: u64| { let first = *head + 1; *head += n; logged(first, *head) };
        bench.open(Some(Cursor { position: start, complete, log: None }));
        for step in steps {
            match step {
                Step::Publish(n) => {
                    let batch = append(&mut head, n);
                    bench.deliver(&batch);
                    batches.push(batch);
                }
                Step::Lose(n) => drop(append(&mut head, n)),
                Step::Repeat(index) => if let Some(batch) = batches.get(index) { bench.deliver(&batch.clone()); },
                Step::Full(full) => bench.full = full,
                Step::Page { size, meanwhile } => if let Need::Page(after) = bench.gate.need() {
                    let (last, end) = (head.min(after + size), head);
                    if meanwhile > 0 { let batch = append(&mut head, meanwhile); bench.deliver(&batch); }
                    bench.seen.extend(after + 1..=last);
                    bench.gate.paged(last, last == end);
                },
            }
        }
        // Something is published at last, or the log is looked at; then the reader catches up.
        bench.full = false;
        let batch = append(&mut head, 1);
        bench.deliver(&batch);
        while let Need::Page(_) = bench.gate.need() {
            prop_assert_ne!(bench.page(head, 7), Paged::Stuck);
        }
        prop_assert_eq!(bench.seen, (start + 1..=head).collect::<Vec<_>>());
    }
}
