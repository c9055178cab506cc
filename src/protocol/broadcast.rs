//! One message to everybody on a topic, encoded once per serializer however many read it.
//!
//! Knows no subscriber. Its invariant: all readers that speak the same version get the same bytes, from one
//! allocation.

use std::sync::{Arc, OnceLock};

use super::{Error, Payload, Serializer, Wire};

/// A message to everybody on a topic.
#[derive(Debug)]
pub struct Broadcast {
    topic: Arc<str>,
    event: String,
    payload: Payload,
    v2: OnceLock<Wire>,
}

impl Broadcast {
    /// A broadcast of `event`. Clients expect `payload` to be a JSON object.
    pub fn new(topic: impl Into<Arc<str>>, event: impl Into<String>, payload: Payload) -> Self {
        Self { topic: topic.into(), event: event.into(), payload, v2: OnceLock::new() }
    }

    /// Where it goes.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// What it is called. Empty where there is nothing to show to clients.
    pub fn event(&self) -> &str {
        &self.event
    }

    /// What it carries.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// The message for those who speak `serializer`; encoded by the first who asks.
    ///
    /// # Errors
    /// [`Error::Binary`] where the serializer cannot carry the payload.
    pub fn encoded(&self, serializer: Serializer) -> Result<Wire, Error> {
        let cell = match serializer {
            Serializer::V2Json => &self.v2,
        };
        if let Some(wire) = cell.get() {
            return Ok(wire.clone());
        }
        let wire = serializer.broadcast(&self.topic, &self.event, &self.payload)?;
        // Two who encode at once make the same bytes; the first one's stay.
        Ok(cell.get_or_init(|| wire).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn j94_everybody_shares_one_encoding() {
        let broadcast = Broadcast::new("room:1", "x", Payload::json(&serde_json::json!({ "a": 1 })));
        let one = broadcast.encoded(Serializer::V2Json).unwrap();
        let two = broadcast.encoded(Serializer::V2Json).unwrap();
        assert_eq!(one.as_text(), Some(r#"[null,null,"room:1","x",{"a":1}]"#));
        assert_eq!(one.as_text().unwrap().as_ptr(), two.as_text().unwrap().as_ptr());
    }
}
