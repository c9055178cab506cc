//! Lines in, outputs out: what each line of a backend's answer means.
//!
//! Pure; it knows no connection. A line that names no part goes on with the part that is being written if both are
//! text of one kind, and begins a new one otherwise. Its invariant: parts are numbered from 0 without holes, and what
//! is passed on can be read by everybody ([`strict::check`]).

use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};

use crate::{
    agent::Delta,
    model::PartKind,
    protocol::{
        complaint,
        strict::{self, Unsound},
    },
};

/// Why a line could not be taken. The texts go on after "The backend sent".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("a line that is not a JSON object with a \"kind\" ({0})")]
    Malformed(String),
    #[error("a line of the unknown kind {0:?} (known are {known}, done, error)", known = PartKind::NAMES)]
    UnknownKind(String),
    #[error("a line of kind {kind} without {needed}")]
    Empty { kind: String, needed: &'static str },
    #[error("a line for part {part} where the next new one is {next}")]
    Hole { part: u32, next: u32 },
    #[error("a value that cannot be kept ({0})")]
    Unsound(Unsound),
}

/// What a backend says of its own failure.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) code: Option<String>,
    pub(super) message: Option<String>,
    pub(super) retryable: Option<bool>,
}

/// What a line means.
#[derive(Debug)]
pub(super) enum Said {
    Nothing,
    Delta(Delta),
    Done { usage: Option<Box<RawValue>> },
    Error(Report),
}

#[derive(Debug, Deserialize)]
struct Line {
    kind: String,
    part: Option<u32>,
    text: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value: Option<Box<RawValue>>,
    usage: Option<Box<RawValue>>,
    code: Option<Value>,
    message: Option<String>,
    retryable: Option<bool>,
}

/// A value that is there, also as `null`.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// The parts of an answer as they are put together: the kind of each.
#[derive(Debug, Default)]
pub(super) struct Parts {
    kinds: Vec<PartKind>,
    /// The part that a text without a number would go on with.
    writing: Option<u32>,
}

impl Parts {
    /// Takes one line.
    pub(super) fn take(&mut self, json: &str) -> Result<Said, Fault> {
        if json.trim().is_empty() {
            return Ok(Said::Nothing);
        }
        // A list in the order of the fields would be read as well.
        if !json.trim_start().starts_with('{') {
            return Err(Fault::Malformed("it does not begin with {".to_owned()));
        }
        let line: Line = serde_json::from_str(json).map_err(|error| Fault::Malformed(complaint(&error)))?;
        match line.kind.as_str() {
            "done" => Ok(Said::Done { usage: line.usage.and_then(object).map(sound).transpose()? }),
            "error" => Ok(Said::Error(Report {
                code: line.code.and_then(word),
                message: line.message,
                retryable: line.retryable,
            })),
            _ => match part_kind(&line.kind) {
                Some(kind) => self.piece(kind, line),
                None => Err(Fault::UnknownKind(line.kind)),
            },
        }
    }

    fn piece(&mut self, kind: PartKind, line: Line) -> Result<Said, Fault> {
        let is_text = matches!(kind, PartKind::Text | PartKind::Reasoning);
        let needed = match (is_text, &line.text, &line.value) {
            (true, None, _) => Some("\"text\""),
            (false, None, None) => Some("\"value\" or \"text\""),
            _ => None,
        };
        if let Some(needed) = needed {
            return Err(Fault::Empty { kind: line.kind, needed });
        }
        // A part that is named is begun even so, since later lines count on its number.
        if line.part.is_none() && line.value.is_none() && line.text.as_deref() == Some("") {
            return Ok(Said::Nothing);
        }
        let value = line.value.map(sound).transpose()?;
        let part = self.place(kind, is_text, line.part)?;
        let kind = self.kind_of(part).unwrap_or(kind);
        Ok(Said::Delta(Delta { part, kind, text: line.text, value }))
    }

    /// The part that a piece belongs to; a new one is begun where it has to be.
    fn place(&mut self, kind: PartKind, is_text: bool, named: Option<u32>) -> Result<u32, Fault> {
        let next = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
        let going_on = self.writing.filter(|part| is_text && self.kind_of(*part) == Some(kind));
        let part = named.or(going_on).unwrap_or(next);
        if part > next {
            return Err(Fault::Hole { part, next });
        }
        if part == next {
            self.kinds.push(kind);
        }
        self.writing = Some(part);
        Ok(part)
    }

    /// The kind of a part is that of its first piece.
    fn kind_of(&self, part: u32) -> Option<PartKind> {
        self.kinds.get(usize::try_from(part).ok()?).copied()
    }
}

fn part_kind(name: &str) -> Option<PartKind> {
    Some(match name {
        "text" => PartKind::Text,
        "reasoning" => PartKind::Reasoning,
        "tool_call" => PartKind::ToolCall,
        "tool_result" => PartKind::ToolResult,
        "data" => PartKind::Data,
        _ => return None,
    })
}

/// A value that everybody can read, with U+FFFD for U+0000; or why there is none.
fn sound(value: Box<RawValue>) -> Result<Box<RawValue>, Fault> {
    let value = strict::without_nul(value);
    strict::check(value.get()).map_err(Fault::Unsound)?;
    Ok(value)
}

/// Usage that is no object means nothing.
fn object(value: Box<RawValue>) -> Option<Box<RawValue>> {
    value.get().starts_with('{').then_some(value)
}

/// A code: a word, or a number as some have them.
fn word(code: Value) -> Option<String> {
    match code {
        Value::String(word) => Some(word),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Part, fold};

    fn folded(lines: &[&str]) -> Value {
        let (mut parts, mut answer) = (Parts::default(), Vec::<Part>::new());
        for line in lines {
            match parts.take(line).unwrap() {
                Said::Delta(delta) => fold::apply(&mut answer, &delta),
                Said::Nothing => {}
                said => panic!("{said:?}"),
            }
        }
        serde_json::to_value(answer).unwrap()
    }

    #[test]
    fn lines_without_a_part_go_on_with_the_text_of_their_kind_or_begin_anew() {
        let found = folded(&[
            " ",
            r#"{"kind":"text","text":""}"#,
            r#"{"kind":"reasoning","text":"h"}"#,
            r#"{"kind":"reasoning","text":"m"}"#,
            r#"{"kind":"text","text":"a"}"#,
            r#"{"kind":"text","text":"b","extra":1}"#,
            r#"{"kind":"tool_call","value":{"name":"f"}}"#,
            r#"{"kind":"tool_call","value":{"name":"g"}}"#,
            r#"{"kind":"tool_result","value":null}"#,
            r#"{"kind":"text","text":"c"}"#,
        ]);
        let expected = json!([
            {"kind": "reasoning", "text": "hm"},
            {"kind": "text", "text": "ab"},
            {"kind": "tool_call", "value": {"name": "f"}},
            {"kind": "tool_call", "value": {"name": "g"}},
            {"kind": "tool_result", "value": null},
            {"kind": "text", "text": "c"},
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn a_named_part_is_written_in_any_order_and_keeps_the_kind_of_its_first_piece() {
        let found = folded(&[
            r#"{"kind":"tool_call","part":0,"value":{"n":1}}"#,
            r#"{"kind":"text","part":1,"text":"a"}"#,
            r#"{"kind":"tool_call","part":0,"value":{"n":2}}"#,
            r#"{"kind":"text","part":1,"text":"b"}"#,
            r#"{"kind":"text","text":"c"}"#,
            r#"{"kind":"data","part":1,"text":"d"}"#,
            r#"{"kind":"text","part":2,"text":""}"#,
            r#"{"kind":"text","part":3,"text":"e"}"#,
        ]);
        let expected = json!([
            {"kind": "tool_call", "value": {"n": 2}},
            {"kind": "text", "text": "abcd"},
            {"kind": "text", "text": ""},
            {"kind": "text", "text": "e"},
        ]);
        assert_eq!(found, expected);
    }

    #[test]
    fn what_cannot_be_taken_says_why() {
        for (line, said) in [
            ("[DONE]", "not a JSON object"),
            (r#"["text",0,"x"]"#, "it does not begin with {"),
            ("{\"kind\":\"te", "EOF while parsing"),
            (r#"{"kind":"done"} {"kind":"done"}"#, "trailing characters"),
            (r#"{"text":"x"}"#, "missing field \"kind\""),
            (r#"{"kind":7}"#, "invalid type"),
            (r#"{"kind":"text","part":-1,"text":"x"}"#, "invalid value"),
            (r#"{"kind":"text","text":"\ud83d"}"#, "hex escape"),
            (r#"{"kind":"message","text":"x"}"#, "unknown kind \"message\" (known are text, reasoning, tool_call"),
            (r#"{"kind":"text","value":1}"#, "kind text without \"text\""),
            (r#"{"kind":"data"}"#, "kind data without \"value\" or \"text\""),
            (r#"{"kind":"text","part":1,"text":"x"}"#, "for part 1 where the next new one is 0"),
            (r#"{"kind":"data","value":"\ud83d"}"#, "half of a surrogate pair"),
        ] {
            let fault = Parts::default().take(line).unwrap_err().to_string();
            assert!(fault.contains(said), "{line}: {fault:?} does not say {said:?}");
        }
        let deep = format!(r#"{{"kind":"data","value":{}{}}}"#, "[".repeat(200), "]".repeat(200));
        assert_eq!(Parts::default().take(&deep).unwrap_err(), Fault::Unsound(Unsound::Depth));
    }

    #[test]
    fn u0000_becomes_a_character_that_every_store_can_hold() {
        let found =
            folded(&[r#"{"kind":"data","value":{"a\u0000":"\\u0000\u0000","n":123456789012345678901234567890}}"#]);
        assert_eq!(found[0]["value"]["a\u{fffd}"], "\\u0000\u{fffd}");
    }

    #[test]
    fn an_end_carries_its_usage_or_its_error() {
        let usage = |line: &str| match Parts::default().take(line).unwrap() {
            Said::Done { usage } => usage.map(|usage| usage.get().to_owned()),
            said => panic!("{said:?}"),
        };
        assert_eq!(usage(r#"{"kind":"done","usage":{"tokens":3}}"#).as_deref(), Some("{\"tokens\":3}"));
        for without in [r#"{"kind":"done"}"#, r#"{"kind":"done","usage":null}"#, r#"{"kind":"done","usage":[1]}"#] {
            assert_eq!(usage(without), None, "{without}");
        }
        let error = |line: &str| match Parts::default().take(line).unwrap() {
            Said::Error(report) => report,
            said => panic!("{said:?}"),
        };
        let found = error(r#"{"kind":"error","code":429,"message":"slow","retryable":false}"#);
        let expected = Report { code: Some("429".into()), message: Some("slow".into()), retryable: Some(false) };
        assert_eq!((found, error(r#"{"kind":"error","code":{}}"#)), (expected, Report::default()));
    }
}
