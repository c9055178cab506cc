//! Chunks in, deltas out: which part of the answer each piece of a chat completion belongs to.
//!
//! Pure; it knows no connection. Text and reasoning append to the part that is being written, a change between them
//! starts a new part; each tool call has one part whose value is replaced as its arguments grow. Its invariant: parts
//! are numbered from 0 without holes, and after [`Assembler::flush`] the value of each call is exact.

use serde::{Deserialize, Serialize};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use crate::{agent::Delta, model::PartKind};

/// Why a chunk could not be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// It is not a chunk of a chat completion.
    Malformed,
    /// The endpoint says that it failed, in the form that it chose.
    Reported(Value),
}

#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Option<Vec<Choice>>,
    #[serde(default)]
    usage: Option<Map<String, Value>>,
    #[serde(default)]
    error: Option<Value>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(default)]
    delta: Option<Pieces>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Pieces {
    #[serde(default)]
    content: Option<Value>,
    #[serde(default)]
    refusal: Option<String>,
    #[serde(default)]
    reasoning: Option<String>,
    #[serde(default)]
    reasoning_content: Option<String>,
    #[serde(default)]
    tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Debug, Deserialize)]
struct CallPiece {
    #[serde(default)]
    index: Option<u64>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    function: Option<FunctionPiece>,
}

#[derive(Debug, Default, Deserialize)]
struct FunctionPiece {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    arguments: Option<String>,
}

/// A tool call as far as it is known: the value of its part.
#[derive(Debug, Default, Serialize)]
struct Call {
    id: String,
    name: String,
    arguments: String,
    #[serde(skip)]
    index: Option<u64>,
    #[serde(skip)]
    part: u32,
    /// Length of the arguments when the value was last told; none if it has changed otherwise or was never told.
    #[serde(skip)]
    told: Option<usize>,
}

impl Call {
    /// Whether to tell the value again. Waiting until it has grown by a quarter keeps all values of one call together
    /// within a few times its length.
    fn is_due(&self) -> bool {
        self.told.is_none_or(|told| self.arguments.len() - told >= (told / 4).max(64))
    }

    fn tell(&mut self) -> Option<Delta> {
        let value = to_raw_value(&self).ok()?;
        self.told = Some(self.arguments.len());
        Some(Delta { part: self.part, kind: PartKind::ToolCall, text: None, value: Some(value) })
    }
}

/// An answer as it is put together.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    parts: u32,
    writing: Option<(u32, PartKind)>,
    calls: Vec<Call>,
    finish_reason: Option<String>,
    usage: Option<Map<String, Value>>,
}

impl Assembler {
    /// Takes one chunk, as the JSON text that arrived, and gives the deltas that it makes.
    pub(super) fn take(&mut self, json: &str) -> Result<Vec<Delta>, Fault> {
        let chunk: Chunk = serde_json::from_str(json).map_err(|_| Fault::Malformed)?;
        if let Some(error) = chunk.error {
            return Err(Fault::Reported(error));
        }
        if chunk.usage.is_some() {
            self.usage = chunk.usage;
        }
        let mut deltas = Vec::new();
        for choice in chunk.choices.into_iter().flatten().filter(|choice| choice.index == 0) {
            self.pieces(choice.delta.unwrap_or_default(), &mut deltas);
            if choice.finish_reason.is_some() {
                self.finish_reason = choice.finish_reason;
                deltas.extend(self.flush());
            }
        }
        Ok(deltas)
    }

    /// The values of calls that have grown since they were last told.
    pub(super) fn flush(&mut self) -> Vec<Delta> {
        self.calls.iter_mut().filter(|call| call.told != Some(call.arguments.len())).filter_map(Call::tell).collect()
    }

    /// Whether the model said that its answer is whole.
    pub(super) fn is_finished(&self) -> bool {
        self.finish_reason.is_some()
    }

    /// Whether the endpoint's own rules cut the answer.
    pub(super) fn is_filtered(&self) -> bool {
        self.finish_reason.as_deref() == Some("content_filter")
    }

    /// What the answer cost, as the endpoint told it. An end other than `stop`, such as `length`, is kept in it as
    /// `finish_reason`.
    pub(super) fn usage(&self) -> Option<Box<RawValue>> {
        let reason = self.finish_reason.as_deref().filter(|reason| *reason != "stop");
        if self.usage.is_none() && reason.is_none() {
            return None;
        }
        let mut usage = self.usage.clone().unwrap_or_default();
        if let Some(reason) = reason {
            usage.insert("finish_reason".to_owned(), Value::from(reason));
        }
        to_raw_value(&usage).ok()
    }

    fn pieces(&mut self, pieces: Pieces, deltas: &mut Vec<Delta>) {
        // Some endpoints send the same thought under both names.
        let reasoning = pieces.reasoning_content.or(pieces.reasoning);
        deltas.extend(self.text(PartKind::Reasoning, reasoning));
        deltas.extend(self.text(PartKind::Text, pieces.content.map(plain)));
        deltas.extend(self.text(PartKind::Text, pieces.refusal));
        for piece in pieces.tool_calls.into_iter().flatten() {
            deltas.extend(self.call(piece));
        }
    }

    fn text(&mut self, kind: PartKind, text: Option<String>) -> Option<Delta> {
        let text = text.filter(|text| !text.is_empty())?;
        let part = match self.writing {
            Some((part, current)) if current == kind => part,
            _ => self.next_part(),
        };
        self.writing = Some((part, kind));
        Some(Delta { part, kind, text: Some(text), value: None })
    }

    fn call(&mut self, piece: CallPiece) -> Option<Delta> {
        let id = piece.id.filter(|id| !id.is_empty());
        let at = self.find_call(piece.index, id.as_deref()).unwrap_or_else(|| {
            let part = self.next_part();
            self.calls.push(Call { index: piece.index, part, ..Call::default() });
            self.writing = None;
            self.calls.len() - 1
        });
        let call = self.calls.get_mut(at)?;
        let function = piece.function.unwrap_or_default();
        if let Some(id) = id.filter(|id| *id != call.id) {
            call.id = id;
            call.told = None;
        }
        if let Some(name) = function.name.filter(|name| !name.is_empty() && *name != call.name) {
            call.name.push_str(&name);
            call.told = None;
        }
        call.arguments.push_str(&function.arguments.unwrap_or_default());
        if call.is_due() { call.tell() } else { None }
    }

    /// The call that a piece continues. Endpoints that number no call tell them apart by id, and some that do number
    /// give every call the number 0.
    fn find_call(&self, index: Option<u64>, id: Option<&str>) -> Option<usize> {
        let same_id = |call: &Call| id.is_none_or(|id| call.id.is_empty() || call.id == id);
        match (index, id) {
            (Some(_), _) => self.calls.iter().rposition(|call| call.index == index && same_id(call)),
            (None, Some(id)) => self.calls.iter().rposition(|call| call.id == id),
            (None, None) => self.calls.len().checked_sub(1),
        }
    }

    fn next_part(&mut self) -> u32 {
        let part = self.parts;
        self.parts += 1;
        part
    }
}

/// The text of a piece of content: a string, or, as a few endpoints send it, a list of typed blocks.
fn plain(content: Value) -> String {
    match content {
        Value::String(text) => text,
        Value::Array(blocks) => blocks.iter().filter_map(|block| block.get("text")?.as_str()).collect(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::model::{Part, fold};

    fn delta(pieces: &Value) -> String {
        json!({"choices": [{"index": 0, "delta": pieces}]}).to_string()
    }

    fn fold_all(assembler: &mut Assembler, chunks: &[String]) -> (Vec<Part>, usize) {
        let mut parts = Vec::new();
        let mut told = 0;
        for chunk in chunks {
            for delta in assembler.take(chunk).unwrap() {
                told += delta.size();
                fold::apply(&mut parts, &delta);
            }
        }
        for delta in assembler.flush() {
            fold::apply(&mut parts, &delta);
        }
        (parts, told)
    }

    fn value(part: &Part) -> Value {
        serde_json::from_str(part.value.as_ref().unwrap().get()).unwrap()
    }

    #[test]
    fn reasoning_and_text_are_parts_of_their_own_in_the_order_in_which_they_came() {
        let chunks = [
            delta(&json!({"role": "assistant", "content": ""})),
            delta(&json!({"reasoning": "let ", "reasoning_content": "let "})),
            delta(&json!({"reasoning": "me see"})),
            delta(&json!({"content": "He"})),
            delta(&json!({"content": [{"type": "text", "text": "llo"}]})),
            delta(&json!({"refusal": "!"})),
            delta(&json!({"reasoning_content": "done"})),
        ];
        let (parts, _) = fold_all(&mut Assembler::default(), &chunks);
        let texts: Vec<_> = parts.iter().map(|part| (part.kind, part.text.as_deref().unwrap())).collect();
        let expected = [(PartKind::Reasoning, "let me see"), (PartKind::Text, "Hello!"), (PartKind::Reasoning, "done")];
        assert_eq!(texts, expected);
    }

    #[test]
    fn calls_that_come_in_pieces_and_interleaved_are_put_together() {
        let call = |index: u32, id: &str, name: &str, arguments: &str| {
            delta(&json!({"tool_calls": [{"index": index, "id": id, "type": "function",
                                          "function": {"name": name, "arguments": arguments}}]}))
        };
        let more = |index: u32, arguments: &str| {
            delta(&json!({"tool_calls": [{"index": index, "function": {"arguments": arguments}}]}))
        };
        let chunks = [
            delta(&json!({"content": "hm"})),
            call(0, "c0", "look", ""),
            more(0, "{\"q\""),
            call(1, "c1", "send", "{"),
            more(0, ":1}"),
            more(1, "}"),
            delta(&json!({"content": "so"})),
        ];
        let (parts, _) = fold_all(&mut Assembler::default(), &chunks);
        assert_eq!(parts.len(), 4);
        assert_eq!(value(&parts[1]), json!({"id": "c0", "name": "look", "arguments": "{\"q\":1}"}));
        assert_eq!(value(&parts[2]), json!({"id": "c1", "name": "send", "arguments": "{}"}));
        assert_eq!((parts[1].kind, parts[3].text.as_deref()), (PartKind::ToolCall, Some("so")));
    }

    #[test]
    fn calls_without_a_number_or_all_with_number_zero_are_told_apart_by_id() {
        for index in [json!(null), json!(0)] {
            let call = |id: &str, arguments: &str| {
                delta(&json!({"tool_calls": [{"index": index, "id": id,
                                              "function": {"name": "f", "arguments": arguments}}]}))
            };
            let (parts, _) = fold_all(&mut Assembler::default(), &[call("a", "1"), call("b", "2"), call("b", "3")]);
            let values: Vec<_> = parts.iter().map(|part| value(part)["arguments"].clone()).collect();
            assert_eq!(values, ["1", "23"], "{index}");
        }
    }

    #[test]
    fn a_long_call_is_told_again_only_as_it_grows_and_is_exact_at_its_end() {
        let piece = |arguments: &str| {
            delta(&json!({"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": arguments}}]}))
        };
        let chunks: Vec<_> = std::iter::repeat_n(piece("0123456789"), 5_000).collect();
        let (parts, told) = fold_all(&mut Assembler::default(), &chunks);
        assert_eq!(value(&parts[0])["arguments"], "0123456789".repeat(5_000));
        assert!(told < 6 * 50_000, "{told} bytes for a call of 50000");
    }

    #[test]
    fn an_end_other_than_stop_is_kept_in_the_usage() {
        for (reason, usage, expected) in [
            ("stop", json!({"total_tokens": 3}), Some(json!({"total_tokens": 3}))),
            ("length", json!({"total_tokens": 3}), Some(json!({"total_tokens": 3, "finish_reason": "length"}))),
            ("length", json!(null), Some(json!({"finish_reason": "length"}))),
            ("stop", json!(null), None),
        ] {
            let mut assembler = Assembler::default();
            assembler.take(&json!({"choices": [{"index": 0, "finish_reason": reason}]}).to_string()).unwrap();
            assembler.take(&json!({"choices": [], "usage": usage}).to_string()).unwrap();
            let found = assembler.usage().map(|usage| serde_json::from_str::<Value>(usage.get()).unwrap());
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_is_no_chunk_is_a_fault_and_other_choices_are_left_out() {
        let mut assembler = Assembler::default();
        assert_eq!(assembler.take("{\"choices\": [").unwrap_err(), Fault::Malformed);
        let error = json!({"message": "no"});
        assert_eq!(assembler.take(&json!({"error": error}).to_string()).unwrap_err(), Fault::Reported(error));
        let other = json!({"choices": [{"index": 1, "delta": {"content": "x"}}]}).to_string();
        assert!(assembler.take(&other).unwrap().is_empty());
        assert!(!assembler.is_finished());
    }
}
