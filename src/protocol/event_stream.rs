//! The form of a server-sent event stream: what a reader is shown that listens to the log of one topic and says
//! nothing.
//!
//! Every message is whole lines, ended by an empty one. Of what a channel pushes only the log, its end and a restart
//! are shown. A message that stands at a place in the log begins with its seq, to which whoever writes it adds the
//! reader's epoch ([`Message::Placed`]): so one text serves all readers. The invariant: what is in a message can never look like
//! another line.

use serde::Deserialize;

use super::{Error, Payload, Reply, Text, Wire, codes::event};

/// What ends a stream: a message without a line.
pub const END: &str = "";
/// The name of the event that carries an answer that is none: the reply's response is a refusal.
const REFUSED: &str = "event: refused\ndata: ";

#[derive(Deserialize)]
struct Joined<'a> {
    #[serde(borrow)]
    session: Session<'a>,
    replay: Replay,
}

#[derive(Deserialize)]
struct Session<'a> {
    epoch: &'a str,
}

#[derive(Deserialize)]
struct Replay {
    to: u64,
}

#[derive(Deserialize)]
struct Events {
    events: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    seq: u64,
}

#[derive(Deserialize)]
struct Draining {
    reconnect_after_ms: u64,
}

/// A message as its writer has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message<'a> {
    /// The join was accepted: the reader's epoch, and the whole text.
    Joined(&'a str, &'a str),
    /// The join was refused: the response.
    Refused(&'a str),
    /// At a place in the log: to be written behind `id: EPOCH:`.
    Placed(&'a str),
    /// To be written as it is.
    Plain(&'a str),
    /// Nothing comes any more.
    End,
}

impl<'a> Message<'a> {
    /// What a text of this form is.
    pub fn of(text: &'a str) -> Self {
        if text == END {
            return Self::End;
        }
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return Self::Placed(text);
        }
        if let Some(response) = text.strip_prefix(REFUSED) {
            return Self::Refused(response.trim_end());
        }
        let id = text.strip_prefix("id: ").and_then(|rest| rest.split_once('\n')).and_then(|(id, _)| split_id(id));
        match id {
            Some((epoch, _)) => Self::Joined(epoch, text),
            None => Self::Plain(text),
        }
    }
}

/// Epoch and seq of an id: the last colon splits.
pub fn split_id(id: &str) -> Option<(&str, &str)> {
    id.rsplit_once(':')
}

/// Writes the answer to the join, the only one there is.
pub(super) fn reply(reply: &Reply) -> Result<Wire, Error> {
    let response = reply.response.as_json().ok_or(Error::Binary)?;
    match serde_json::from_str::<Joined<'_>>(response) {
        Ok(Joined { session, replay }) if reply.status == "ok" => {
            Ok(text(&format!("id: {}:{}\nevent: joined\ndata: ", session.epoch, replay.to), response))
        }
        _ => Ok(text(REFUSED, response)),
    }
}

/// Writes a push or a broadcast.
pub(super) fn push(name: &str, payload: &Payload) -> Result<Wire, Error> {
    let json = || payload.as_json().ok_or(Error::Binary);
    match name {
        event::EVENTS => {
            let Events { events } = payload.parse().map_err(|_| Error::NotShown)?;
            let last = events.last().ok_or(Error::NotShown)?.seq;
            Ok(text(&format!("{last}\nevent: {}\ndata: ", event::EVENTS), json()?))
        }
        event::DELETED => Ok(text(&format!("event: {}\ndata: ", event::DELETED), json()?)),
        event::DRAINING => {
            let Draining { reconnect_after_ms } = payload.parse().map_err(|_| Error::NotShown)?;
            Ok(Wire::Text(Text::from(retry(reconnect_after_ms))))
        }
        event::PHX_CLOSE | event::PHX_ERROR => Ok(Wire::Text(Text::from(END.to_owned()))),
        _ => Err(Error::NotShown),
    }
}

/// When to come back after the stream has ended, in milliseconds.
pub fn retry(ms: u64) -> String {
    format!("retry: {ms}\n\n")
}

/// JSON on one line: outside its strings a line break means nothing, and inside there is none.
fn text(head: &str, json: &str) -> Wire {
    let mut text = String::with_capacity(head.len() + json.len() + 2);
    text.push_str(head);
    let mut lines = json.split(['\n', '\r']);
    text.extend(lines.next());
    for line in lines {
        text.push(' ');
        text.push_str(line);
    }
    text.push_str("\n\n");
    Wire::Text(Text::from(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(wire: Result<Wire, Error>) -> String {
        wire.unwrap().as_text().unwrap().to_owned()
    }

    #[test]
    fn the_answer_to_a_join_carries_the_place_up_to_which_it_brings_its_reader() {
        let response =
            json!({ "session": { "epoch": "a:b.1", "title": "x" }, "replay": { "to": 41, "mode": "replay" } });
        let text = written(reply(&Reply::ok(Payload::json(&response))));
        assert_eq!(text, format!("id: a:b.1:41\nevent: joined\ndata: {response}\n\n"));
        assert_eq!(Message::of(&text), Message::Joined("a:b.1", &text));
        let text = written(reply(&Reply::refuse("not_found", "there is none")));
        let Message::Refused(response) = Message::of(&text) else { panic!("{text}") };
        assert_eq!(serde_json::from_str::<serde_json::Value>(response).unwrap()["reason"], "not_found");
        let text = written(reply(&Reply::ok(Payload::empty())));
        assert!(matches!(Message::of(&text), Message::Refused("{}")), "a topic without a log");
    }

    #[test]
    fn events_stand_at_the_place_of_their_last_one() {
        let payload =
            Payload::raw(r#"{"prev":3,"events":[{"seq":4,"data":{"seq":9}},{"seq":7,"first":5}]}"#.to_owned());
        let text = written(push(event::EVENTS, &payload));
        assert_eq!(text, format!("7\nevent: events\ndata: {}\n\n", payload.as_json().unwrap()));
        assert_eq!(Message::of(&text), Message::Placed(&text));
    }

    #[test]
    fn only_the_log_its_end_and_a_restart_are_shown() {
        let deleted = written(push(event::DELETED, &Payload::json(&json!({ "by": null }))));
        assert_eq!(Message::of(&deleted), Message::Plain("event: deleted\ndata: {\"by\":null}\n\n"));
        let draining = written(push(event::DRAINING, &Payload::json(&json!({ "reconnect_after_ms": 361 }))));
        assert_eq!(Message::of(&draining), Message::Plain("retry: 361\n\n"));
        for end in [event::PHX_CLOSE, event::PHX_ERROR] {
            assert_eq!(Message::of(&written(push(end, &Payload::empty()))), Message::End);
        }
        for other in [event::PRESENCE_STATE, event::PRESENCE_DIFF, event::MISSED, "broadcast", "anything"] {
            assert!(matches!(push(other, &Payload::empty()), Err(Error::NotShown)), "{other}");
        }
        assert!(matches!(push(event::EVENTS, &Payload::raw(r#"{"events":[]}"#.to_owned())), Err(Error::NotShown)));
    }

    #[test]
    fn nothing_in_a_message_looks_like_another_line() {
        let payload = Payload::raw("{\"by\":\n\r\"a\\nb\"\r\n}".to_owned());
        let text = written(push(event::DELETED, &payload));
        assert_eq!(text, "event: deleted\ndata: {\"by\":  \"a\\nb\"  }\n\n");
    }

    #[test]
    fn the_last_colon_splits_an_id() {
        assert_eq!(split_id("a:b.1:41"), Some(("a:b.1", "41")));
        assert_eq!(split_id(":41"), Some(("", "41")));
        assert_eq!(split_id("41"), None);
    }
}
