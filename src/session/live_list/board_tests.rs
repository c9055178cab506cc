use super::*;

fn idle(id: &str, last_seq: u64) -> Summary {
    Summary::sample(id, "idle", None, last_seq)
}

fn running(id: &str, last_seq: u64) -> Summary {
    Summary::sample(id, "running", None, last_seq)
}

/// A look that finds these; the number up to which is told.
fn look(board: &mut Board, why: Why, found: impl IntoIterator<Item = Summary>) -> Option<u64> {
    let mut look = board.begin();
    found.into_iter().for_each(|summary| board.found(&mut look, summary, why));
    board.finish()
}

/// A reader: what it is shown, `id:last_seq`, or `-id` for one that is gone.
struct Reader(u64);

impl Reader {
    fn new(board: &Board) -> Self {
        Self(board.position())
    }

    fn read(&mut self, board: &Board) -> Vec<String> {
        let Changes { changes, last, complete } = board.after(self.0).unwrap();
        assert!(complete && last >= self.0);
        self.0 = last;
        changes.iter().map(|change| shown(change)).collect()
    }
}

fn shown(change: &Change) -> String {
    let payload: serde_json::Value = change.broadcast().payload().parse().unwrap();
    assert_eq!((payload["id"].as_str().unwrap(), change.topic()), (change.session(), &*topic_of(change.session())));
    match change.broadcast().event() {
        SESSION_CHANGED => format!("{}:{}", change.session(), payload["last_seq"]),
        SESSION_REMOVED => format!("-{}", change.session()),
        other => panic!("{other}"),
    }
}

#[test]
fn status_title_and_turns_are_told_at_once_and_a_place_alone_in_its_round() {
    let mut board = Board::default();
    look(&mut board, Why::Round, [idle("a", 1)]);
    let mut reader = Reader::new(&board);
    assert_eq!(look(&mut board, Why::Said, [idle("a", 1)]), None, "nothing is new");
    assert_eq!(look(&mut board, Why::Said, [idle("a", 2)]), None, "only its place");
    assert!(board.due().contains("a"), "the round asks for it");
    assert!(look(&mut board, Why::Round, [idle("a", 2)]).is_some());
    assert_eq!(reader.read(&board), ["a:2"]);
    assert!(board.due().is_empty(), "once");
    for changed in [running("a", 3), Summary::sample("a", "running", Some("plans"), 4), idle("a", 5)] {
        let seq = format!("a:{}", serde_json::to_value(&changed).unwrap()["last_seq"]);
        assert!(look(&mut board, Why::Said, [changed]).is_some());
        assert_eq!(reader.read(&board), [seq]);
    }
    assert_eq!(reader.read(&board), [""; 0]);
}

#[test]
fn a_round_asks_for_what_has_a_turn_as_far_as_is_known() {
    let mut board = Board::default();
    look(&mut board, Why::Round, [idle("a", 1), running("b", 1), Summary::sample("c", "queued", None, 2)]);
    assert_eq!(board.due(), HashSet::from(["b".into(), "c".into()]));
    look(&mut board, Why::Round, [idle("b", 2)]);
    assert_eq!(board.due(), HashSet::from(["c".into()]));
    assert_eq!(board.known().len(), 3);
}

#[test]
fn a_slow_reader_is_told_each_session_once_as_it_is_now() {
    let mut board = Board::default();
    look(&mut board, Why::Round, [idle("a", 1), idle("b", 1), idle("c", 1)]);
    let (mut slow, mut quick) = (Reader::new(&board), Reader::new(&board));
    let mut seen = 0;
    for seq in 2..100 {
        look(&mut board, Why::Round, [idle("a", seq)]);
        look(&mut board, Why::Round, [idle("b", seq)]);
        seen += quick.read(&board).len();
    }
    assert_eq!(seen, 2 * 98);
    assert_eq!(slow.read(&board), ["a:99", "b:99"]);
}

#[test]
fn what_is_gone_is_told_once_and_may_come_back() {
    let mut board = Board::default();
    look(&mut board, Why::Round, [running("a", 7)]);
    let mut reader = Reader::new(&board);
    for _ in 0..2 {
        let mut look = board.begin();
        board.missing(&mut look, "a".into());
        board.finish();
    }
    assert_eq!(reader.read(&board), ["-a"]);
    assert!(board.known().is_empty() && board.due().is_empty());
    look(&mut board, Why::Said, [idle("a", 0)]);
    assert_eq!(reader.read(&board), ["a:0"]);
    let mut look = board.begin();
    board.missing(&mut look, "never known".into());
    board.finish();
    assert_eq!(reader.read(&board), ["-never known"], "somebody may have been given it with a join");
}

#[test]
fn a_look_that_began_before_a_reader_is_not_told_to_it_and_one_that_began_after_is() {
    let mut board = Board::default();
    look(&mut board, Why::Round, [idle("a", 1)]);
    let mut before = Reader::new(&board);
    let mut under_way = board.begin();
    let mut reader = Reader::new(&board);
    board.found(&mut under_way, running("a", 2), Why::Said);
    assert_eq!(reader.read(&board), [""; 0], "nothing is told while a look is under way");
    board.finish();
    assert_eq!(reader.read(&board), [""; 0], "it read the store after that look had");
    look(&mut board, Why::Said, [idle("a", 3)]);
    assert_eq!(reader.read(&board), ["a:3"]);
    assert_eq!(before.read(&board), ["a:3"]);
}

#[test]
fn what_a_reader_brings_is_news_to_the_others_only_where_it_was_not_known() {
    let mut board = Board::default();
    look(&mut board, Why::Round, [idle("a", 1)]);
    let mut other = Reader::new(&board);
    let (own, told) = board.bring([idle("a", 1), idle("b", 4)].iter());
    assert!(told.is_some());
    let Changes { changes, .. } = board.after(other.0).unwrap();
    assert!(changes.iter().all(|change| own.contains(&change.number())));
    assert_eq!(other.read(&board), ["b:4"]);
    assert_eq!(board.bring([idle("a", 1), idle("b", 4)].iter()).1, None);
    look(&mut board, Why::Round, [idle("b", 5)]);
    let Changes { changes, .. } = board.after(other.0).unwrap();
    assert!(!own.contains(&changes[0].number()), "its next change is news to all");
}

#[test]
fn what_is_brought_while_a_look_is_under_way_is_told_with_it_and_nothing_is_passed_over() {
    let mut board = Board::default();
    look(&mut board, Why::Round, [idle("a", 1)]);
    let mut reader = Reader::new(&board);
    let mut under_way = board.begin();
    let (_, told) = board.bring([idle("b", 1)].iter());
    assert_eq!((told, reader.read(&board)), (None, Vec::new()));
    board.found(&mut under_way, running("a", 2), Why::Said);
    assert!(board.finish().is_some());
    assert_eq!(reader.read(&board), ["a:2", "b:1"]);
}

#[test]
fn many_changes_come_in_pages() {
    let mut board = Board::default();
    let position = board.position();
    look(&mut board, Why::Round, (0..PAGE * 2 + 1).map(|n| idle(&format!("s{n}"), 1)));
    let (mut at, mut sizes) = (position, Vec::new());
    loop {
        let Changes { changes, last, complete } = board.after(at).unwrap();
        assert!(last > at);
        (at, _) = (last, sizes.push(changes.len()));
        if complete {
            break;
        }
    }
    assert_eq!(sizes, [PAGE, PAGE, 1]);
}

#[test]
fn a_million_sessions_cost_as_much_as_are_kept_and_who_is_too_far_behind_begins_anew() {
    let mut board = Board::default();
    look(&mut board, Why::Round, [idle("first", 1)]);
    let slow = board.position();
    for n in 0..KEPT / 100 + 1 {
        look(&mut board, Why::Round, (0..100).map(|m| idle(&format!("s{n}.{m}"), 1)));
    }
    let quick = board.position();
    assert_eq!((board.entries.len(), board.order.len()), (KEPT, KEPT));
    assert!(board.after(slow).is_none());
    assert!(board.after(quick).is_some());
    board.clear();
    assert!(board.entries.is_empty() && board.after(quick).is_some(), "it holds all that was told");
    let next = board.position();
    look(&mut board, Why::Round, [idle("a", 1)]);
    assert!(board.order.keys().all(|number| *number > next), "no number is used twice");
}
