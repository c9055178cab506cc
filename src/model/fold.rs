//! The fold of a message: deltas in, parts out.
//!
//! The same function, in the same words, is in `client-js/src/fold.ts`; `protocol/vectors/fold` holds both to it.
//! Text appends, a value replaces, a part's kind is that of its first delta, parts have no holes.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::message::{Part, PartKind};

/// The data of a `turn_delta`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Delta {
    /// Index of the part, from 0, without holes.
    pub part: u32,
    /// What that part holds.
    pub kind: PartKind,
    /// Appended to the part's text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
    /// Replaces the part's value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Box<RawValue>>,
}

impl Delta {
    /// Whether nothing would change by applying it to a part that exists.
    pub fn is_empty(&self) -> bool {
        self.text.as_ref().is_none_or(String::is_empty) && self.value.is_none()
    }

    /// Takes `next`, a later delta of the same part, into this one. Applying the result is applying both.
    pub fn merge(&mut self, next: &Self) {
        if let Some(text) = &next.text {
            self.text.get_or_insert_default().push_str(text);
        }
        if next.value.is_some() {
            self.value.clone_from(&next.value);
        }
    }

    /// Bytes of content.
    pub fn size(&self) -> usize {
        self.text.as_ref().map_or(0, String::len) + self.value.as_ref().map_or(0, |v| v.get().len())
    }
}

/// Applies one delta to the parts of a message. A delta that would leave a hole starts the next part instead, so that
/// the result never has one.
pub fn apply(parts: &mut Vec<Part>, delta: &Delta) {
    let index = usize::try_from(delta.part).unwrap_or(usize::MAX).min(parts.len());
    if index == parts.len() {
        parts.push(Part { kind: delta.kind, text: None, value: None });
    }
    let part = &mut parts[index];
    if let Some(text) = &delta.text {
        part.text.get_or_insert_default().push_str(text);
    }
    if let Some(value) = &delta.value {
        part.value = Some(value.clone());
    }
}

/// The deltas that make `parts` out of nothing, one a part: what a chunk holds.
pub fn deltas_of(parts: &[Part]) -> Vec<Delta> {
    (0u32..)
        .zip(parts)
        .map(|(index, part)| Delta { part: index, kind: part.kind, text: part.text.clone(), value: part.value.clone() })
        .collect()
}

/// Adds `delta` to a list of deltas that will be applied in order: into the last one if it is of the same part.
pub fn gather(deltas: &mut Vec<Delta>, delta: &Delta) {
    match deltas.last_mut() {
        Some(last) if last.part == delta.part => last.merge(delta),
        _ => deltas.push(delta.clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(part: u32, text: &str) -> Delta {
        Delta { part, kind: PartKind::Text, text: Some(text.to_owned()), value: None }
    }

    #[test]
    fn text_appends_and_a_value_replaces() {
        let mut parts = Vec::new();
        apply(&mut parts, &text(0, "a"));
        apply(&mut parts, &text(0, "b"));
        let value = |v: &str| Some(RawValue::from_string(v.to_owned()).unwrap());
        for v in ["1", "{\"x\":2}"] {
            apply(&mut parts, &Delta { part: 1, kind: PartKind::ToolCall, text: None, value: value(v) });
        }
        assert_eq!(
            serde_json::to_string(&parts).unwrap(),
            r#"[{"kind":"text","text":"ab"},{"kind":"tool_call","value":{"x":2}}]"#
        );
    }

    #[test]
    fn gathered_deltas_fold_to_the_same_parts() {
        let deltas = [text(0, "a"), text(0, "b"), text(1, "c"), text(0, "d"), text(1, "")];
        let (mut one, mut all) = (Vec::new(), Vec::new());
        let mut gathered = Vec::new();
        for delta in deltas {
            apply(&mut one, &delta);
            gather(&mut gathered, &delta);
        }
        assert_eq!(gathered.len(), 4);
        gathered.iter().for_each(|delta| apply(&mut all, delta));
        assert_eq!(one, all);
        let mut again = Vec::new();
        deltas_of(&one).iter().for_each(|delta| apply(&mut again, delta));
        assert_eq!(one, again);
    }
}
