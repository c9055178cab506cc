//! Following one answer in a session's events, over as many connections as it takes.
//!
//! Pure: join responses and events in, text to print and the end out. Its invariant: the texts, put together, are the
//! answer's text once, whatever was replayed, merged or seen twice.

use serde::Deserialize;
use serde_json::{Value, json};

/// What a client holds of a session's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor {
    epoch: String,
    seq: u64,
}

impl Cursor {
    /// The place that a join's response leaves a client at.
    pub(super) fn of(joined: &Joined) -> Self {
        Self { epoch: joined.session.epoch.clone(), seq: joined.replay.to }
    }

    /// The join parameters that go on from here.
    pub(super) fn params(&self) -> Value {
        json!({"last_seq": self.seq, "epoch": self.epoch})
    }

    /// Takes a push of events; false if it does not follow what is held.
    pub(super) fn advance(&mut self, push: &Events) -> bool {
        let follows = push.prev == self.seq;
        if follows && let Some(last) = push.events.last() {
            self.seq = last.seq;
        }
        follows
    }
}

/// A join's response, as far as it matters here.
#[derive(Debug, Deserialize)]
pub(super) struct Joined {
    session: Session,
    turns: Vec<Turn>,
    replay: Replay,
}

#[derive(Debug, Deserialize)]
struct Session {
    epoch: String,
}

#[derive(Debug, Deserialize)]
struct Replay {
    to: u64,
    #[serde(default)]
    events: Vec<Event>,
    /// Only in a snapshot, like `ended`.
    #[serde(default)]
    messages: Option<Vec<Message>>,
    #[serde(default)]
    ended: Vec<Turn>,
}

#[derive(Debug, Deserialize)]
struct Turn {
    id: String,
    prompt_id: String,
    status: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    error: Option<Fault>,
}

#[derive(Debug, Deserialize)]
struct Fault {
    code: String,
    message: String,
}

#[derive(Debug, Deserialize)]
struct Message {
    #[serde(default)]
    turn_id: Option<String>,
    parts: Vec<Part>,
}

#[derive(Debug, Deserialize)]
struct Part {
    kind: String,
    #[serde(default)]
    text: Option<String>,
}

/// A push of events.
#[derive(Debug, Deserialize)]
pub(super) struct Events {
    prev: u64,
    events: Vec<Event>,
}

#[derive(Debug, Deserialize)]
struct Event {
    seq: u64,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    turn_id: Option<String>,
    data: Data,
}

/// What any event may hold.
#[derive(Debug, Deserialize)]
struct Data {
    #[serde(default)]
    turn: Option<Turn>,
    #[serde(default)]
    message: Option<Message>,
    #[serde(default)]
    part: usize,
    #[serde(default)]
    kind: String,
    #[serde(default)]
    text: Option<String>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    error: Option<Fault>,
}

/// How the answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    Completed,
    /// Failed or cancelled, in words.
    Cut(String),
}

/// One answer that is awaited.
#[derive(Debug)]
pub(super) struct Follow {
    prompt: String,
    turn: Option<String>,
    /// Bytes printed of each part.
    printed: Vec<usize>,
    out: String,
    end: Option<End>,
}

impl Follow {
    /// Awaits the answer to the message that is sent with this id.
    pub(super) fn new(prompt: String) -> Self {
        Self { prompt, turn: None, printed: Vec::new(), out: String::new(), end: None }
    }

    /// Takes a join's response.
    pub(super) fn joined(&mut self, joined: Joined) {
        let Joined { turns, replay, .. } = joined;
        for turn in turns.iter().chain(&replay.ended) {
            self.recognise(turn);
        }
        let Some(messages) = replay.messages else {
            return self.events(replay.events);
        };
        let answer = messages.iter().find(|message| message.turn_id.is_some() && message.turn_id == self.turn);
        if let Some(message) = answer {
            self.whole(message);
        }
        let Some(known) = self.turn.clone() else { return };
        if let Some(turn) = replay.ended.into_iter().find(|turn| turn.id == known) {
            self.end = Some(end_of(&turn.status, turn.reason, turn.error));
        } else if turns.iter().all(|turn| turn.id != known) {
            self.end = Some(End::Cut("the answer ended while the connection was away; look into the session".into()));
        }
    }

    /// Takes the events of a push.
    pub(super) fn pushed(&mut self, push: Events) {
        self.events(push.events);
    }

    /// Takes the answer to the send.
    pub(super) fn accepted(&mut self, turn: &str) {
        self.turn.get_or_insert_with(|| turn.to_owned());
    }

    /// The text that came since this was last asked.
    pub(super) fn take_text(&mut self) -> String {
        std::mem::take(&mut self.out)
    }

    /// How the answer ended, once it has.
    pub(super) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    fn events(&mut self, events: Vec<Event>) {
        for event in events {
            if let Some(turn) = &event.data.turn {
                self.recognise(turn);
            }
            if event.turn_id.is_some() && event.turn_id == self.turn {
                self.event(&event.kind, event.data);
            }
        }
    }

    fn event(&mut self, kind: &str, data: Data) {
        if kind == "turn_delta" && data.kind == "text" {
            let text = data.text.unwrap_or_default();
            *self.printed_of(data.part) += text.len();
            self.out.push_str(&text);
        }
        let status = match kind {
            "turn_completed" => "completed",
            "turn_failed" => "failed",
            "turn_cancelled" => "cancelled",
            _ => return,
        };
        if let Some(message) = &data.message {
            self.whole(message);
        }
        self.end = Some(end_of(status, data.reason, data.error));
    }

    fn recognise(&mut self, turn: &Turn) {
        if self.turn.is_none() && turn.prompt_id == self.prompt {
            self.turn = Some(turn.id.clone());
        }
    }

    /// Takes the answer as far as it is, and keeps what was not printed yet.
    fn whole(&mut self, message: &Message) {
        for (at, part) in message.parts.iter().enumerate() {
            let text = part.text.as_deref().filter(|_| part.kind == "text").unwrap_or_default();
            let printed = self.printed_of(at);
            if let Some(rest) = text.get(*printed..) {
                *printed = text.len();
                self.out.push_str(rest);
            }
        }
    }

    fn printed_of(&mut self, part: usize) -> &mut usize {
        if self.printed.len() <= part {
            self.printed.resize(part + 1, 0);
        }
        &mut self.printed[part]
    }
}

fn end_of(status: &str, reason: Option<String>, error: Option<Fault>) -> End {
    match (status, error) {
        ("completed", _) => End::Completed,
        (_, Some(fault)) => End::Cut(format!("the answer failed: {} ({})", fault.message, fault.code)),
        _ => End::Cut(format!("the answer was {status}: {}", reason.as_deref().unwrap_or("no reason given"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(turns: Value, replay: Value) -> Joined {
        serde_json::from_value(json!({"session": {"id": "s", "epoch": "e"}, "turns": turns, "replay": replay})).unwrap()
    }

    fn turn(status: &str) -> Value {
        json!({"id": "t", "prompt_id": "p", "status": status})
    }

    fn event(seq: u64, kind: &str, data: Value) -> Value {
        json!({"seq": seq, "type": kind, "turn_id": "t", "data": data})
    }

    fn delta(seq: u64, text: &str) -> Value {
        event(seq, "turn_delta", json!({"part": 0, "kind": "text", "text": text}))
    }

    fn push(follow: &mut Follow, cursor: &mut Cursor, prev: u64, events: &[Value]) -> bool {
        let push: Events = serde_json::from_value(json!({"prev": prev, "events": events})).unwrap();
        let follows = cursor.advance(&push);
        follow.pushed(push);
        follows
    }

    fn started() -> (Follow, Cursor) {
        let mut follow = Follow::new("p".to_owned());
        let join = joined(json!([]), json!({"mode": "snapshot", "to": 3, "messages": []}));
        let mut cursor = Cursor::of(&join);
        follow.joined(join);
        assert!(push(&mut follow, &mut cursor, 3, &[event(5, "turn_started", json!({"turn": turn("running")}))]));
        (follow, cursor)
    }

    #[test]
    fn deltas_are_the_text_and_the_end_adds_nothing_to_it() {
        let (mut follow, mut cursor) = started();
        push(&mut follow, &mut cursor, 5, &[delta(6, "Hel"), delta(7, "lo")]);
        assert_eq!(follow.take_text(), "Hello");
        let message = json!({"parts": [{"kind": "text", "text": "Hello"}]});
        push(&mut follow, &mut cursor, 7, &[event(8, "turn_completed", json!({"message": message, "usage": null}))]);
        assert_eq!((follow.take_text().as_str(), follow.end()), ("", Some(&End::Completed)));
        assert_eq!(cursor.params(), json!({"last_seq": 8, "epoch": "e"}));
    }

    #[test]
    fn other_turns_and_other_kinds_are_not_printed() {
        let (mut follow, mut cursor) = started();
        let mut other = delta(6, "no");
        other["turn_id"] = json!("u");
        let thought = event(7, "turn_delta", json!({"part": 0, "kind": "reasoning", "text": "hm"}));
        let said = event(8, "turn_delta", json!({"part": 1, "kind": "text", "text": "yes"}));
        push(&mut follow, &mut cursor, 5, &[other, thought, said]);
        assert_eq!(follow.take_text(), "yes");
    }

    #[test]
    fn after_a_reconnect_only_what_is_missing_is_printed() {
        for replay in [
            json!({"mode": "replay", "to": 9, "events": [
                event(9, "turn_failed", json!({"error": {"code": "timeout", "message": "Too long."},
                                               "message": {"parts": [{"kind": "text", "text": "Hello"}]}}))]}),
            json!({"mode": "snapshot", "to": 9,
                   "messages": [{"turn_id": "t", "parts": [{"kind": "text", "text": "Hello"}]}],
                   "ended": [{"id": "t", "prompt_id": "p", "status": "failed",
                              "error": {"code": "timeout", "message": "Too long."}}]}),
        ] {
            let (mut follow, mut cursor) = started();
            push(&mut follow, &mut cursor, 5, &[delta(6, "Hel")]);
            assert_eq!(follow.take_text(), "Hel");
            follow.joined(joined(json!([]), replay));
            assert_eq!(follow.take_text(), "lo");
            assert_eq!(follow.end(), Some(&End::Cut("the answer failed: Too long. (timeout)".to_owned())));
        }
    }

    #[test]
    fn a_snapshot_of_a_running_answer_goes_on_with_its_deltas() {
        let (mut follow, _) = started();
        let partial = json!([{"turn_id": "t", "parts": [{"kind": "text", "text": "Hel"}]}]);
        let join = joined(json!([turn("running")]), json!({"mode": "snapshot", "to": 6, "messages": partial}));
        let mut cursor = Cursor::of(&join);
        follow.joined(join);
        push(&mut follow, &mut cursor, 6, &[delta(7, "lo")]);
        assert_eq!((follow.take_text().as_str(), follow.end()), ("Hello", None));
    }

    #[test]
    fn a_cancel_says_why_and_a_lost_turn_is_an_end_too() {
        let (mut follow, mut cursor) = started();
        push(&mut follow, &mut cursor, 5, &[event(6, "turn_cancelled", json!({"reason": "user", "message": null}))]);
        assert_eq!(follow.end(), Some(&End::Cut("the answer was cancelled: user".to_owned())));
        let (mut follow, _) = started();
        follow.joined(joined(json!([]), json!({"mode": "snapshot", "to": 0, "messages": []})));
        assert!(matches!(follow.end(), Some(End::Cut(_))));
    }

    #[test]
    fn a_push_that_does_not_follow_is_noticed() {
        let (mut follow, mut cursor) = started();
        assert!(!push(&mut follow, &mut cursor, 6, &[delta(7, "x")]));
        assert_eq!(cursor.seq, 5);
    }
}
