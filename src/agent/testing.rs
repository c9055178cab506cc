//! What the tests of agents ask them.

use serde_json::value::RawValue;

use super::{Context, SessionContext, TurnContext};
use crate::{
    clock,
    model::{Message, MessageStatus, Part, Person, Role},
};

/// A person whose name is her id.
pub(super) fn person(id: &str) -> Person {
    Person { id: id.to_owned(), name: id.to_owned() }
}

/// A message of plain text.
pub(super) fn message(role: Role, author: Option<Person>, text: &str) -> Message {
    Message {
        id: "m".to_owned(),
        seq: 1,
        role,
        author,
        turn_id: None,
        status: MessageStatus::Complete,
        parts: vec![Part::text(text)],
        created_at: clock::now(),
    }
}

/// The context of a first turn that answers `messages`.
pub(super) fn context(messages: Vec<Message>) -> Context {
    Context {
        session: SessionContext {
            id: "s".to_owned(),
            epoch: "e".to_owned(),
            title: None,
            metadata: RawValue::from_string("{}".to_owned()).unwrap_or_default(),
            created_at: clock::now(),
        },
        turn: TurnContext {
            id: "t".to_owned(),
            prompt_id: "m".to_owned(),
            reply_id: "r".to_owned(),
            agent: "a".to_owned(),
            attempt: 1,
            retry_of: None,
            by: person("u1"),
        },
        messages,
    }
}
