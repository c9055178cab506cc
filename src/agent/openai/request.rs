//! What an endpoint is sent: the session's messages as chat messages.
//!
//! Pure. Where several people speak in a session, the model must know who said what. The `name` field of a chat
//! message allows only a few characters, and some endpoints refuse it or leave it out of what the model sees; so each
//! person's text begins with `NAME: ` instead, which works everywhere. With one person nothing is added. A cut answer
//! ends with a note that it was cut, so that the model does not take it for a whole one.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::Options;
use crate::{
    agent::Context,
    model::{Message, MessageStatus, Part, PartKind, Person, Role},
};

const CUT: &str = "[This answer was cut off before its end.]";

/// The body of the request.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    stream: bool,
    stream_options: StreamOptions,
    messages: Vec<ChatMessage<'a>>,
}

#[derive(Debug, Serialize)]
struct StreamOptions {
    include_usage: bool,
}

#[derive(Debug, Serialize)]
struct ChatMessage<'a> {
    role: Role,
    content: Content<'a>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Content<'a> {
    Given(&'a str),
    Made(String),
}

/// The request for an answer to `context`.
pub(super) fn body<'a>(options: &'a Options, context: &'a Context) -> Body<'a> {
    let skipped = context.messages.len().saturating_sub(options.max_messages.unwrap_or(usize::MAX).max(1));
    let messages = &context.messages[skipped..];
    let names = Names::of(messages);
    let system =
        options.system.as_deref().map(|text| ChatMessage { role: Role::System, content: Content::Given(text) });
    Body {
        model: &options.model,
        stream: true,
        stream_options: StreamOptions { include_usage: true },
        messages: system.into_iter().chain(messages.iter().filter_map(|message| chat(message, &names))).collect(),
    }
}

/// A message as the model reads it; none for an answer that holds nothing to read.
fn chat<'a>(message: &Message, names: &Names<'_>) -> Option<ChatMessage<'a>> {
    let mut text = readable(&message.parts);
    if message.status == MessageStatus::Partial {
        if !text.is_empty() {
            text.push_str("\n\n");
        }
        text.push_str(CUT);
    }
    if text.is_empty() && message.role == Role::Assistant {
        return None;
    }
    if message.role == Role::User
        && let Some(name) = message.author.as_ref().and_then(|author| names.label(author))
    {
        text = format!("{name}: {text}");
    }
    Some(ChatMessage { role: message.role, content: Content::Made(text) })
}

/// The text of `parts`, then their results and data as JSON. What a model thought, and the tools that it called, are
/// not told to it again: endpoints refuse calls without their answers.
fn readable(parts: &[Part]) -> String {
    let mut text = crate::model::message::plain_text(parts);
    for part in parts.iter().filter(|part| matches!(part.kind, PartKind::ToolResult | PartKind::Data)) {
        let value = part.value.as_deref().map(serde_json::value::RawValue::get);
        for piece in part.text.as_deref().into_iter().chain(value) {
            if !text.is_empty() {
                text.push('\n');
            }
            text.push_str(piece);
        }
    }
    text
}

/// How the people of a context are told apart: not at all while there is only one.
struct Names<'a> {
    ids_by_name: BTreeMap<&'a str, BTreeSet<&'a str>>,
    several: bool,
}

impl<'a> Names<'a> {
    fn of(messages: &'a [Message]) -> Self {
        let mut ids_by_name = BTreeMap::<_, BTreeSet<_>>::new();
        for author in messages.iter().filter(|m| m.role == Role::User).filter_map(|m| m.author.as_ref()) {
            ids_by_name.entry(author.name.as_str()).or_default().insert(author.id.as_str());
        }
        let several = ids_by_name.values().map(BTreeSet::len).sum::<usize>() > 1;
        Self { ids_by_name, several }
    }

    /// The name to put before what `person` says; with the id where two people share a name.
    fn label(&self, person: &Person) -> Option<String> {
        if !self.several {
            return None;
        }
        let shared = self.ids_by_name.get(person.name.as_str()).is_some_and(|ids| ids.len() > 1);
        let label = if shared { format!("{} ({})", person.name, person.id) } else { person.name.clone() };
        // A name with a line break in it could pass for somebody else's message.
        Some(label.replace(char::is_control, " "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::RawValue};

    use super::*;
    use crate::agent::testing;

    fn message(role: Role, author: Option<(&str, &str)>, text: &str, partial: bool) -> Message {
        let author = author.map(|(id, name)| Person { id: id.to_owned(), name: name.to_owned() });
        let status = if partial { MessageStatus::Partial } else { MessageStatus::Complete };
        Message { status, ..testing::message(role, author, text) }
    }

    fn sent(system: Option<&str>, max_messages: Option<usize>, messages: Vec<Message>) -> serde_json::Value {
        let options = Options {
            base_url: String::new(),
            model: "m1".to_owned(),
            api_key: None,
            system: system.map(str::to_owned),
            max_messages,
        };
        serde_json::to_value(body(&options, &testing::context(messages))).unwrap()
    }

    #[test]
    fn one_person_speaks_without_a_name_and_the_system_prompt_is_first() {
        let body = sent(Some("Be brief."), None, vec![message(Role::User, Some(("u1", "Ada")), "hi", false)]);
        assert_eq!(
            body,
            json!({"model": "m1", "stream": true, "stream_options": {"include_usage": true},
                   "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]})
        );
    }

    #[test]
    fn several_people_are_named_and_namesakes_are_told_apart() {
        let body = sent(
            None,
            None,
            vec![
                message(Role::User, Some(("u1", "Ada")), "one", false),
                message(Role::Assistant, Some(("agent:a", "a")), "yes", false),
                message(Role::User, Some(("u2", "Bob\nEve: x")), "two", false),
                message(Role::User, Some(("u3", "Ada")), "three", false),
                message(Role::User, None, "four", false),
            ],
        );
        let texts: Vec<_> =
            body["messages"].as_array().unwrap().iter().map(|m| m["content"].as_str().unwrap()).collect();
        assert_eq!(texts, ["Ada (u1): one", "yes", "Bob Eve: x: two", "Ada (u3): three", "four"]);
    }

    #[test]
    fn a_cut_answer_says_so_and_an_empty_one_is_left_out() {
        let body = sent(
            None,
            None,
            vec![message(Role::Assistant, None, "Once upon", true), message(Role::Assistant, None, "", false)],
        );
        assert_eq!(
            body["messages"],
            json!([{"role": "assistant", "content": "Once upon\n\n[This answer was cut off before its end.]"}])
        );
    }

    #[test]
    fn only_the_newest_messages_are_sent_where_a_limit_is_set() {
        let messages = (0..5).map(|n| message(Role::User, None, &n.to_string(), false)).collect();
        let body = sent(None, Some(2), messages);
        assert_eq!(body["messages"], json!([{"role": "user", "content": "3"}, {"role": "user", "content": "4"}]));
    }

    #[test]
    fn data_is_sent_as_json_and_reasoning_is_not_sent() {
        let value = RawValue::from_string("{\"a\":1}".to_owned()).unwrap();
        let parts = vec![
            Part { kind: PartKind::Reasoning, text: Some("hm".to_owned()), value: None },
            Part::text("see"),
            Part { kind: PartKind::Data, text: None, value: Some(value) },
        ];
        assert_eq!(readable(&parts), "see\n{\"a\":1}");
    }
}
