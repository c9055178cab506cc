use serde_json::{Map, json};

use super::*;
use crate::presence::state::Meta;

fn life(name: &str) -> Incarnation {
    Incarnation(name.to_owned())
}

fn at(name: &str) -> NodeId {
    NodeId(name.into())
}

fn member(phx_ref: &str) -> Member {
    let fields = Map::from_iter([("name".to_owned(), json!(phx_ref))]);
    Member { topic: "t".into(), key: "u".into(), meta: Meta::new(phx_ref, None, &fields) }
}

fn join(phx_ref: &str) -> Located {
    member(phx_ref).join()
}

fn leave(phx_ref: &str) -> Located {
    member(phx_ref).leave()
}

/// What topics are told, shortly: `+a`, `-a`, `a>b`.
fn told(changes: &[Located]) -> Vec<String> {
    let text = |(_, change): &Located| match change {
        Change::Join { meta, .. } => format!("+{}", meta.phx_ref()),
        Change::Leave { phx_ref, .. } => format!("-{phx_ref}"),
        Change::Replace { old, meta, .. } => format!("{old}>{}", meta.phx_ref()),
    };
    let mut told: Vec<String> = changes.iter().map(text).collect();
    told.sort();
    told
}

/// A node that follows others, and its clock.
struct Follower {
    replica: Replica,
    now: Instant,
}

impl Follower {
    fn new() -> Self {
        Self { replica: Replica::new(life("me"), 7), now: Instant::now() }
    }

    fn hear(&mut self, of: &str, news: News) -> Vec<String> {
        self.now += Duration::from_millis(1);
        told(&self.replica.hear(&at(&format!("at {of}")), &life(of), news, self.now))
    }

    fn delta(&mut self, of: &str, number: u64, changes: Vec<Located>) -> Vec<String> {
        self.hear(of, News::Delta { number, changes })
    }

    fn list(&mut self, of: &str, number: u64, members: Vec<Member>) -> Vec<String> {
        self.hear(of, News::List { number, part: 0, parts: 1, members })
    }

    fn asks(&mut self, after_ms: u64) -> Vec<u64> {
        self.now += Duration::from_millis(after_ms);
        self.replica.ask(self.now).iter().map(|ask| ask.have).collect()
    }

    fn look(&mut self, rows: &[(&str, bool)]) -> Vec<String> {
        self.now += Duration::from_millis(1);
        let rows = rows.iter().map(|(name, dead)| (life(name), *dead)).collect();
        told(&self.replica.look(&Roster { own: life("me"), rows, asked: self.now }))
    }
}

#[test]
fn changes_are_taken_in_their_order_and_once() {
    let mut node = Follower::new();
    assert_eq!(node.delta("a", 1, vec![join("x")]), ["+x"]);
    assert!(node.delta("a", 1, vec![join("x")]).is_empty(), "a repeat");
    assert!(node.delta("a", 3, vec![leave("y")]).is_empty(), "one is missing");
    assert_eq!(node.delta("a", 2, vec![join("y"), leave("x")]), ["+y", "-x", "-y"]);
    assert!(node.replica.next_ask().is_none() && node.replica.members().is_empty());
    assert!(node.delta("a", 2, vec![join("y")]).is_empty());
}

#[test]
fn what_is_missing_is_asked_for_until_it_is_there() {
    let mut node = Follower::new();
    node.delta("a", 1, vec![join("x")]);
    node.hear("a", News::Position { number: 3 });
    assert!(node.asks(0).is_empty(), "it may still come");
    assert_eq!(node.asks(40), [1]);
    assert!(node.asks(100).is_empty(), "the answer may still come");
    for _ in 0..20 {
        assert_eq!(node.asks(1_200), [1]);
    }
    node.delta("a", 2, vec![join("y")]);
    assert_eq!(node.asks(1_200), [2]);
    node.delta("a", 3, vec![]);
    assert!(node.replica.next_ask().is_none());
}

#[test]
fn a_list_tells_the_difference_and_nothing_where_there_is_none() {
    let mut node = Follower::new();
    node.delta("a", 1, vec![join("x"), join("y")]);
    assert_eq!(node.list("a", 4, vec![member("y"), member("z")]), ["+z", "-x"]);
    assert!(node.list("a", 5, vec![member("z"), member("y")]).is_empty());
    assert!(node.list("a", 3, vec![]).is_empty(), "an old one");
    assert!(node.delta("a", 5, vec![leave("z")]).is_empty(), "it is in the list already");
    assert_eq!(node.delta("a", 6, vec![leave("z")]), ["-z"]);
}

#[test]
fn parts_of_a_list_come_in_any_order_and_changes_between_them() {
    let mut node = Follower::new();
    let part = |number, part, phx_ref| News::List { number, part, parts: 2, members: vec![member(phx_ref)] };
    assert!(node.hear("a", part(7, 1, "old")).is_empty());
    assert!(node.hear("a", part(8, 1, "y")).is_empty());
    assert!(node.hear("a", part(7, 0, "old")).is_empty(), "of another list");
    assert!(node.delta("a", 9, vec![leave("y")]).is_empty());
    assert!(node.hear("a", part(8, 1, "y")).is_empty(), "a repeat");
    assert_eq!(node.hear("a", part(8, 0, "x")), ["+x", "+y", "-y"]);
    assert!(node.replica.next_ask().is_none());
}

#[test]
fn i18_only_a_row_or_a_goodbye_ends_a_life() {
    let mut node = Follower::new();
    node.delta("a", 1, vec![join("x")]);
    node.delta("b", 1, vec![join("y")]);
    node.delta("c", 1, vec![join("z")]);
    node.now += Duration::from_secs(86_400);
    assert!(node.look(&[("me", false), ("a", false), ("b", false), ("c", false)]).is_empty(), "a day of silence");
    assert_eq!(node.look(&[("me", false), ("a", true), ("b", false), ("c", false)]), ["-x"]);
    assert_eq!(node.look(&[("me", false), ("b", false)]), ["-z"], "only a dead row is taken away");
    assert!(node.delta("a", 2, vec![join("x2")]).is_empty() && node.list("c", 9, vec![member("z")]).is_empty());
    assert_eq!(told(&node.replica.end(&life("b"))), ["-y"]);
    assert!(node.list("b", 9, vec![member("y")]).is_empty());
    assert!(node.look(&[("me", false), ("b", false)]).is_empty() && node.replica.members().is_empty());
}

#[test]
fn a_life_without_a_row_is_judged_by_a_look_that_began_after_it_spoke() {
    let mut node = Follower::new();
    let asked = node.now;
    node.delta("new", 1, vec![join("x")]);
    let early = Roster { own: life("me"), rows: vec![(life("me"), false)], asked };
    assert!(node.replica.look(&early).is_empty(), "its row may have come after the look");
    assert_eq!(node.replica.members().len(), 1);
    assert_eq!(node.look(&[("me", false)]), ["-x"], "it was dead and is forgotten");
}

#[test]
fn a_node_that_goes_on_under_a_new_name_is_not_seen_leaving() {
    let mut node = Follower::new();
    node.delta("old", 1, vec![join("x"), join("y")]);
    assert!(node.list("new", 1, vec![member("x"), member("y")]).is_empty());
    assert_eq!(node.delta("new", 2, vec![leave("y"), join("z")]), ["+z"], "the old name still shows the other");
    assert_eq!(told(&node.replica.end(&life("old"))), ["-y"]);
    assert_eq!(node.delta("new", 3, vec![leave("x")]), ["-x"]);
    assert_eq!(node.delta("new", 4, vec![leave("z")]), ["-z"]);
    // The other way round: the old one is ended first.
    node.delta("old2", 1, vec![join("v")]);
    assert_eq!(told(&node.replica.end(&life("old2"))), ["-v"]);
    assert_eq!(node.list("new2", 1, vec![member("v")]), ["+v"]);
}

#[test]
fn it_is_known_how_many_live_nodes_are_not_known_yet() {
    let mut node = Follower::new();
    assert_eq!(node.replica.missing(), None);
    node.look(&[("me", false), ("a", false), ("b", false), ("c", true)]);
    assert_eq!(node.replica.missing(), Some(2));
    node.hear("a", News::Position { number: 0 });
    node.delta("b", 1, vec![join("x")]);
    assert_eq!(node.replica.missing(), Some(1), "there may be more");
    node.hear("b", News::Position { number: 2 });
    assert_eq!(node.replica.missing(), Some(1));
    let before = node.replica.progress();
    node.hear("a", News::Position { number: 0 });
    assert_eq!(node.replica.progress(), before, "who is known brings nobody further");
    node.list("b", 2, vec![]);
    assert_eq!((node.replica.missing(), node.replica.progress()), (Some(0), before + 1));
}

#[test]
fn one_who_talks_nonsense_costs_a_bounded_amount() {
    let mut node = Follower::new();
    (2..20_000).for_each(|number| drop(node.delta("a", number, vec![join("x")])));
    (0..20_000).for_each(|number| drop(node.hear(&format!("n{number}"), News::Position { number: 0 })));
    assert_eq!(node.replica.lives[&life("a")].held.len(), MAX_HELD);
    assert_eq!(node.replica.lives.len(), MAX_LIVES);
    (0..20_000).for_each(|number| drop(node.replica.end(&life(&format!("n{number}")))));
    assert_eq!((node.replica.gone.names.len(), node.replica.gone.order.len()), (MAX_GONE, MAX_GONE));
}
