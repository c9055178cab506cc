//! The members of one topic: keys, and for each key its metas. Pure.
//!
//! Knows nothing of what was told to whom. Its invariant: no key without a meta, and what is kept encoded of a key is
//! what the key holds.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::{
    Map, Value,
    value::{RawValue, to_raw_value},
};

use crate::protocol::Payload;

/// For each key, what stands beside `metas` in its entry.
pub type Extras = BTreeMap<String, Map<String, Value>>;

/// What one connection, or one turn, shows under a key. Cheap to clone.
///
/// Written as the JSON object that clients get: the fields that were tracked, `phx_ref`, and after an update
/// `phx_ref_prev`, the `phx_ref` of the meta in whose place this one came.
#[derive(Debug, Clone)]
pub struct Meta {
    phx_ref: Arc<str>,
    text: Arc<RawValue>,
}

impl Meta {
    pub(super) fn new(phx_ref: &str, before: Option<&str>, fields: &Map<String, Value>) -> Self {
        let raw = to_raw_value(&Fields { phx_ref, before, fields });
        let text = raw.unwrap_or_else(|_| RawValue::NULL.to_owned());
        Self { phx_ref: phx_ref.into(), text: text.into() }
    }

    /// Names this meta; never used again for another one.
    pub fn phx_ref(&self) -> &str {
        &self.phx_ref
    }

    /// A meta of another node, as that one wrote it.
    pub(super) fn read(phx_ref: Arc<str>, text: &RawValue) -> Self {
        Self { phx_ref, text: text.to_owned().into() }
    }

    pub(super) fn shared_ref(&self) -> &Arc<str> {
        &self.phx_ref
    }

    pub(super) fn raw(&self) -> &RawValue {
        &self.text
    }

    /// The whole object as JSON text.
    pub fn as_json(&self) -> &str {
        self.text.get()
    }

    /// The whole object, parsed anew at each call.
    pub fn fields(&self) -> Map<String, Value> {
        serde_json::from_str(self.as_json()).unwrap_or_default()
    }
}

impl Serialize for Meta {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(serializer)
    }
}

/// A meta on its way to JSON; the names of the protocol win over the fields.
struct Fields<'a> {
    phx_ref: &'a str,
    before: Option<&'a str>,
    fields: &'a Map<String, Value>,
}

impl Serialize for Fields<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.fields {
            if name != "phx_ref" && name != "phx_ref_prev" {
                map.serialize_entry(name, value)?;
            }
        }
        map.serialize_entry("phx_ref", self.phx_ref)?;
        if let Some(before) = self.before {
            map.serialize_entry("phx_ref_prev", before)?;
        }
        map.end()
    }
}

/// A key's entry on its way to JSON: `{"metas":[…]}` and what stands beside.
pub(super) struct Entry<'a, M> {
    pub(super) metas: &'a [M],
    pub(super) extra: Option<&'a Map<String, Value>>,
}

impl<M: Serialize> Serialize for Entry<'_, M> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("metas", self.metas)?;
        for (name, value) in self.extra.into_iter().flatten() {
            if name != "metas" {
                map.serialize_entry(name, value)?;
            }
        }
        map.end()
    }
}

/// The members of a topic. Boxed, because most topics have a member or two, and a tree has room for more.
#[derive(Debug, Default)]
pub(super) struct State {
    keys: BTreeMap<Box<str>, Box<Key>>,
}

#[derive(Debug)]
struct Key {
    metas: Vec<Meta>,
    /// The key's entry as it is sent; made when it is needed, thrown away by a change of the key.
    encoded: Option<Box<RawValue>>,
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.encoded {
            Some(encoded) => encoded.serialize(serializer),
            None => Entry { metas: &self.metas, extra: None }.serialize(serializer),
        }
    }
}

impl State {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn insert(&mut self, key: &str, meta: Meta) {
        if let Some(entry) = self.keys.get_mut(key) {
            entry.metas.push(meta);
            entry.encoded = None;
        } else {
            self.keys.insert(key.into(), Box::new(Key { metas: vec![meta], encoded: None }));
        }
    }

    /// Puts `meta` in the place of the meta `old`, which comes back; `None` and no change if that is not there.
    pub(super) fn replace(&mut self, key: &str, old: &str, meta: Meta) -> Option<Meta> {
        let entry = self.keys.get_mut(key)?;
        let place = entry.metas.iter_mut().find(|meta| meta.phx_ref() == old)?;
        entry.encoded = None;
        Some(std::mem::replace(place, meta))
    }

    /// Takes the meta `phx_ref` away. `None` if it is not there.
    pub(super) fn remove(&mut self, key: &str, phx_ref: &str) -> Option<Meta> {
        let entry = self.keys.get_mut(key)?;
        let place = entry.metas.iter().position(|meta| meta.phx_ref() == phx_ref)?;
        let meta = entry.metas.remove(place);
        entry.encoded = None;
        if entry.metas.is_empty() {
            self.keys.remove(key);
        }
        Some(meta)
    }

    /// One meta.
    pub(super) fn meta(&self, key: &str, phx_ref: &str) -> Option<&Meta> {
        self.metas(key).iter().rev().find(|meta| meta.phx_ref() == phx_ref)
    }

    /// The metas under a key, oldest first.
    pub(super) fn metas(&self, key: &str) -> &[Meta] {
        self.keys.get(key).map(|entry| entry.metas.as_slice()).unwrap_or_default()
    }

    pub(super) fn list(&self) -> BTreeMap<String, Vec<Meta>> {
        self.keys.iter().map(|(key, entry)| (key.to_string(), entry.metas.clone())).collect()
    }

    /// The whole state as it is sent. `fetch` is asked once, for the keys that have changed since the last time; the
    /// others are copied.
    pub(super) fn encode(&mut self, fetch: &dyn Fn(&[&str]) -> Extras) -> Payload {
        let changed: Vec<&str> =
            self.keys.iter().filter(|(_, key)| key.encoded.is_none()).map(|(name, _)| &**name).collect();
        if !changed.is_empty() {
            let extras = fetch(&changed);
            for (name, key) in self.keys.iter_mut().filter(|(_, key)| key.encoded.is_none()) {
                key.encoded = to_raw_value(&Entry { metas: &key.metas, extra: extras.get(&**name) }).ok();
            }
        }
        Payload::json(&self.keys)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use serde_json::json;

    use super::*;

    fn meta(phx_ref: &str) -> Meta {
        Meta::new(phx_ref, None, &Map::new())
    }

    fn encode(state: &mut State) -> Value {
        state.encode(&|_| Extras::new()).parse().unwrap()
    }

    #[test]
    fn two_connections_of_one_user_are_two_metas_and_the_key_goes_with_the_last() {
        let mut state = State::default();
        state.insert("u1", meta("a"));
        state.insert("u1", meta("b"));
        assert_eq!(encode(&mut state), json!({ "u1": { "metas": [{ "phx_ref": "a" }, { "phx_ref": "b" }] } }));
        assert_eq!(state.remove("u1", "a").unwrap().as_json(), r#"{"phx_ref":"a"}"#);
        assert_eq!((state.len(), state.metas("u1").len(), state.metas("u2").len()), (1, 1, 0));
        assert!(state.replace("u1", "a", meta("c")).is_none());
        assert_eq!(state.replace("u1", "b", meta("c")).unwrap().phx_ref(), "b");
        state.remove("u1", "c").unwrap();
        assert!(state.is_empty());
        assert!(state.remove("u1", "c").is_none());
    }

    #[test]
    fn the_protocols_names_win_over_tracked_fields() {
        let own = Map::from_iter([("phx_ref".to_owned(), "forged".into()), ("phx_ref_prev".to_owned(), "x".into())]);
        assert_eq!(Meta::new("real", None, &own).as_json(), r#"{"phx_ref":"real"}"#);
        let after = Meta::new("new", Some("real"), &own);
        assert_eq!(Value::Object(after.fields()), json!({ "phx_ref": "new", "phx_ref_prev": "real" }));
    }

    #[test]
    fn only_what_has_changed_is_fetched_and_encoded_again() {
        let asked = RefCell::new(Vec::new());
        let fetch = |keys: &[&str]| -> Extras {
            asked.borrow_mut().push(keys.join(","));
            let extra = |key: &&str| Map::from_iter([("is".to_owned(), (*key).into()), ("metas".to_owned(), 1.into())]);
            keys.iter().map(|key| ((*key).to_owned(), extra(key))).collect()
        };
        let mut state = State::default();
        state.insert("a", meta("1"));
        state.insert("b", meta("2"));
        let first: Value = state.encode(&fetch).parse().unwrap();
        assert_eq!(first["b"], json!({ "metas": [{ "phx_ref": "2" }], "is": "b" }));
        state.insert("b", meta("3"));
        let second: Value = state.encode(&fetch).parse().unwrap();
        assert_eq!((&second["a"], second["b"]["metas"].as_array().unwrap().len()), (&first["a"], 2));
        state.encode(&fetch);
        assert_eq!(*asked.borrow(), ["a,b", "b"]);
    }

    #[test]
    fn any_key_is_written_as_json() {
        let mut state = State::default();
        state.insert("a\"\\\n😀", meta("1"));
        assert_eq!(encode(&mut state)["a\"\\\n😀"]["metas"][0]["phx_ref"], "1");
    }
}
