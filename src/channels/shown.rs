//! What a connection shows of itself on one topic, for every channel that has presence.
//!
//! Knows the contract's fields and the client's own, and nothing of what the topic is about. Its invariant: of the
//! fields that the server sets a client's own never win, and what is refused changes nothing.

use std::sync::Arc;

use serde_json::{Map, Value, value::RawValue};

use super::renewals::Renewals;
use crate::{
    channel::Context,
    clock::{self, Timestamp},
    model::Person,
    presence::{Tracked, Tracker, check_key},
    protocol::{Payload, codes::event},
    session::{Error, fields},
};

/// A connection's own fields, as JSON.
const MAX_OWN: usize = 1024;

/// Where connections are shown: the presence of a node that others know as `node`. Cheap to clone.
#[derive(Clone)]
pub struct Stage {
    presence: Tracker,
    node: Arc<str>,
    renewals: Renewals,
}

impl Stage {
    /// Shows connections in `presence`, as connections of `node`, and renews them by `renewals`.
    pub fn new(presence: Tracker, node: &str, renewals: Renewals) -> Self {
        Self { presence, node: node.into(), renewals }
    }
}

/// One connection's presence on one topic; it ends when this is dropped.
pub(super) struct Shown {
    stage: Stage,
    joined_at: Timestamp,
    own: Map<String, Value>,
    tracked: Option<Tracked>,
}

impl Shown {
    /// Not shown yet.
    pub(super) fn new(stage: &Stage) -> Self {
        Self { stage: stage.clone(), joined_at: clock::now(), own: Map::new(), tracked: None }
    }

    /// Takes the connection's own fields out of join parameters, where they may be missing or null. Once this has
    /// worked, so will [`Shown::enter`].
    ///
    /// # Errors
    /// [`Error::Invalid`] where they are no object or `person` has an id that cannot be shown, [`Error::TooLarge`]
    /// where they are more than may be shown.
    pub(super) fn take(&mut self, person: &Person, own: Option<&RawValue>) -> Result<(), Error> {
        check_key(&person.id).map_err(|error| Error::Invalid(error.to_string()))?;
        if let Some(own) = own {
            self.own = parse(own.get())?;
        }
        Ok(())
    }

    /// Shows the connection, and pushes the state with it in. To be called within a join: the state then follows the
    /// reply at once, and the diffs that are published meanwhile follow that, so that it is the first that a client
    /// hears of presence.
    ///
    /// # Errors
    /// [`Error::Invalid`] where the user's id cannot be shown.
    pub(super) fn enter(&mut self, cx: &mut Context) -> Result<(), Error> {
        let identity = cx.identity();
        let meta = self.meta(&identity.person);
        let tracked = self.stage.presence.track(cx.topic(), &identity.person.id, &meta);
        self.tracked = Some(tracked.map_err(|error| Error::Invalid(error.to_string()))?);
        let state = self.stage.presence.state(cx.topic());
        cx.push(event::PRESENCE_STATE, &state);
        Ok(())
    }

    /// Handles the push `presence`: its payload replaces the connection's own fields.
    ///
    /// # Errors
    /// As [`Shown::take`]; what was shown stays.
    pub(super) fn replace(&mut self, person: &Person, text: &str) -> Result<(), Error> {
        self.own = parse(text)?;
        if let Some(tracked) = &self.tracked {
            tracked.update(&self.meta(person));
        }
        Ok(())
    }

    /// What renews the connection.
    pub(super) fn renewals(&self) -> Renewals {
        self.stage.renewals.clone()
    }

    /// Who is on the topic.
    pub(super) fn state(&self, cx: &Context) -> Payload {
        Payload::clone(&self.stage.presence.state(cx.topic()))
    }

    /// Ends the presence.
    pub(super) fn leave(&mut self) {
        self.tracked = None;
    }

    /// The connection's own fields and the server's, which win.
    fn meta(&self, person: &Person) -> Map<String, Value> {
        let mut meta = self.own.clone();
        meta.insert("name".to_owned(), person.name.clone().into());
        meta.insert("joined_at".to_owned(), self.joined_at.to_string().into());
        meta.insert("node".to_owned(), (*self.stage.node).into());
        meta
    }
}

/// A connection's own fields. What counts is their size as they are shown, without the spaces between them.
fn parse(text: &str) -> Result<Map<String, Value>, Error> {
    if !text.trim_start().starts_with('{') {
        return Err(Error::Invalid("presence fields must be a JSON object".to_owned()));
    }
    let own = Value::Object(fields(text)?);
    if text.len() > MAX_OWN && own.to_string().len() > MAX_OWN {
        return Err(Error::TooLarge(format!("presence fields are larger than {MAX_OWN} bytes; show less")));
    }
    Ok(if let Value::Object(own) = own { own } else { Map::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{auth::Verifier, pubsub::PubSub};

    #[test]
    fn own_fields_are_measured_as_they_are_shown() {
        let padded = format!("{{\"a\":{}1}}", " ".repeat(2 * MAX_OWN));
        assert_eq!(parse(&padded).unwrap().len(), 1);
        let fits = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_OWN - 8));
        assert!(parse(&fits).is_ok());
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(MAX_OWN - 7));
        assert!(matches!(parse(&large), Err(Error::TooLarge(_))));
    }

    #[test]
    fn who_cannot_be_shown_is_refused_before_anything_else() {
        let mut shown = Shown::new(&Stage::new(Tracker::new(PubSub::new()), "a", Renewals::new(Verifier::open())));
        let person = |id: &str| Person { id: id.to_owned(), name: "x".to_owned() };
        for id in ["__proto__", "constructor", "prototype"] {
            assert!(matches!(shown.take(&person(id), None), Err(Error::Invalid(_))), "{id}");
        }
        let own = RawValue::from_string(r#"{"color":"red","name":"Eve"}"#.to_owned()).unwrap();
        shown.take(&person("u1"), Some(&own)).unwrap();
        let meta = shown.meta(&person("u1"));
        assert_eq!((&meta["color"], &meta["name"], &meta["node"]), (&"red".into(), &"x".into(), &"a".into()));
    }

    #[test]
    fn own_fields_are_an_object_that_everybody_can_read() {
        for bad in ["[]", "1", "\"x\"", "true", r#"{"a":"\u0000"}"#, r#"{"a":"\ud800"}"#] {
            assert!(matches!(parse(bad), Err(Error::Invalid(_))), "{bad}");
        }
    }
}
