//! What one topic holds: keys, and for each key its metas. Pure; texts in, texts out.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// One connection or turn under a key.
#[derive(Debug, Clone)]
struct Meta {
    phx_ref: String,
    /// The whole meta as JSON, `phx_ref` included.
    text: String,
}

/// The metas of a topic by key.
#[derive(Debug, Default)]
pub(super) struct State {
    keys: BTreeMap<String, Vec<Meta>>,
}

/// A change, as it is sent: `{"joins":{…},"leaves":{…}}`.
pub(super) type Diff = String;

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Adds a meta under `key`.
    pub(super) fn join(&mut self, key: &str, phx_ref: &str, fields: &Map<String, Value>) -> Diff {
        let meta = Meta { phx_ref: phx_ref.to_owned(), text: encode(phx_ref, None, fields) };
        let diff = diff(&[(key, &meta.text)], &[]);
        self.keys.entry(key.to_owned()).or_default().push(meta);
        diff
    }

    /// Replaces the meta `old` under `key`; the new one names the one before. `None` if it is not there.
    pub(super) fn update(&mut self, key: &str, old: &str, new: &str, fields: &Map<String, Value>) -> Option<Diff> {
        let meta = self.keys.get_mut(key)?.iter_mut().find(|meta| meta.phx_ref == old)?;
        let text = encode(new, Some(old), fields);
        let diff = diff(&[(key, &text)], &[(key, &meta.text)]);
        *meta = Meta { phx_ref: new.to_owned(), text };
        Some(diff)
    }

    /// Takes a meta away. `None` if it is not there.
    pub(super) fn leave(&mut self, key: &str, phx_ref: &str) -> Option<Diff> {
        let metas = self.keys.get_mut(key)?;
        let place = metas.iter().position(|meta| meta.phx_ref == phx_ref)?;
        let meta = metas.remove(place);
        if metas.is_empty() {
            self.keys.remove(key);
        }
        Some(diff(&[], &[(key, &meta.text)]))
    }

    /// The whole state, as `presence_state` sends it.
    pub(super) fn encode(&self) -> String {
        let keys = self.keys.iter().map(|(key, metas)| {
            let metas: Vec<&str> = metas.iter().map(|meta| meta.text.as_str()).collect();
            entry(key, &metas.join(","))
        });
        format!("{{{}}}", keys.collect::<Vec<_>>().join(","))
    }
}

fn entry(key: &str, metas: &str) -> String {
    format!("{}:{{\"metas\":[{metas}]}}", Value::from(key))
}

fn diff(joins: &[(&str, &String)], leaves: &[(&str, &String)]) -> Diff {
    let side = |side: &[(&str, &String)]| side.iter().map(|(key, meta)| entry(key, meta)).collect::<Vec<_>>().join(",");
    format!("{{\"joins\":{{{}}},\"leaves\":{{{}}}}}", side(joins), side(leaves))
}

fn encode(phx_ref: &str, before: Option<&str>, fields: &Map<String, Value>) -> String {
    let mut meta = fields.clone();
    meta.remove("phx_ref_prev");
    meta.insert("phx_ref".to_owned(), phx_ref.into());
    if let Some(before) = before {
        meta.insert("phx_ref_prev".to_owned(), before.into());
    }
    Value::Object(meta).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(name: &str) -> Map<String, Value> {
        Map::from_iter([("name".to_owned(), name.into())])
    }

    fn json(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn two_connections_of_one_user_are_two_metas_and_the_key_goes_with_the_last() {
        let mut state = State::default();
        state.join("u1", "a", &fields("Ada"));
        let diff = json(&state.join("u1", "b", &fields("Ada")));
        assert_eq!(diff["joins"]["u1"]["metas"].as_array().unwrap().len(), 1);
        assert_eq!(json(&state.encode())["u1"]["metas"].as_array().unwrap().len(), 2);
        assert_eq!(json(&state.leave("u1", "a").unwrap())["leaves"]["u1"]["metas"][0]["phx_ref"], "a");
        assert!(!state.is_empty());
        state.leave("u1", "b").unwrap();
        assert!(state.is_empty());
        assert!(state.leave("u1", "b").is_none());
    }

    #[test]
    fn an_update_is_one_diff_that_names_the_meta_before() {
        let mut state = State::default();
        state.join("u1", "a", &fields("Ada"));
        let diff = json(&state.update("u1", "a", "b", &fields("Ada L.")).unwrap());
        let join = &diff["joins"]["u1"]["metas"][0];
        assert_eq!((&join["phx_ref"], &join["phx_ref_prev"]), (&"b".into(), &"a".into()));
        assert_eq!(diff["leaves"]["u1"]["metas"][0]["phx_ref"], "a");
        assert!(state.update("u1", "a", "c", &fields("x")).is_none());
    }

    #[test]
    fn the_servers_names_win_over_a_clients() {
        let mut state = State::default();
        let own = Map::from_iter([("phx_ref".to_owned(), "forged".into()), ("phx_ref_prev".to_owned(), "x".into())]);
        let diff = json(&state.join("u", "real", &own));
        assert_eq!(diff["joins"]["u"]["metas"][0], json(r#"{"phx_ref":"real"}"#));
    }
}
