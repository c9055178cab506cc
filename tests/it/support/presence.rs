//! Who is here, as Phoenix's own clients keep it: diffs wait for a state, and are taken one after the other from then
//! on.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{client::SessionClient, http::keys, ws::TestClient};

/// What a client that follows states and diffs holds: for each key its metas by `phx_ref`.
#[derive(Debug, Default)]
pub(crate) struct Here {
    list: BTreeMap<String, BTreeMap<String, Value>>,
    /// Whether it takes what leaves out before it puts what joins in; some clients do.
    pub(crate) leaves_first: bool,
    /// Whether it was shown the state.
    pub(crate) synced: bool,
    waiting: Vec<Value>,
    /// How many states and diffs it was sent.
    pub(crate) states: usize,
    pub(crate) diffs: usize,
}

impl Here {
    /// Follows everything that a client was sent.
    pub(crate) fn of(client: &SessionClient) -> Self {
        let mut here = Self::default();
        client.presence.iter().for_each(|frame| here.take(frame));
        here
    }

    /// Takes in one frame; frames that have nothing to do with presence change nothing.
    pub(crate) fn take(&mut self, frame: &Value) {
        match frame[3].as_str() {
            Some("presence_state") => {
                self.states += 1;
                self.list = read(&frame[4]);
                self.synced = true;
                std::mem::take(&mut self.waiting).iter().for_each(|diff| self.diff(diff));
            }
            Some("presence_diff") => {
                self.diffs += 1;
                assert_eq!(keys(&frame[4]), ["joins", "leaves"], "{frame}");
                if self.synced { self.diff(&frame[4]) } else { self.waiting.push(frame[4].clone()) }
            }
            _ => {}
        }
    }

    /// The channel is about to be joined again: what comes before the next state waits for it.
    pub(crate) fn rejoin(&mut self) {
        self.synced = false;
        self.waiting.clear();
    }

    /// Reads frames until `ready`; each other frame is left aside.
    pub(crate) async fn until(&mut self, client: &mut TestClient, what: &str, ready: impl Fn(&Self) -> bool) {
        super::ws::within(what, async {
            while !ready(self) {
                let frame = client.next().await;
                self.take(&frame);
            }
        })
        .await;
    }

    fn diff(&mut self, diff: &Value) {
        if self.leaves_first {
            self.leave(&diff["leaves"]);
            self.join(&diff["joins"]);
        } else {
            self.join(&diff["joins"]);
            self.leave(&diff["leaves"]);
        }
    }

    fn join(&mut self, joins: &Value) {
        for (key, metas) in read(joins) {
            self.list.entry(key).or_default().extend(metas);
        }
    }

    fn leave(&mut self, leaves: &Value) {
        for (key, metas) in read(leaves) {
            let Some(held) = self.list.get_mut(&key) else { continue };
            held.retain(|phx_ref, _| !metas.contains_key(phx_ref));
            if held.is_empty() {
                self.list.remove(&key);
            }
        }
    }

    pub(crate) fn keys(&self) -> Vec<&str> {
        self.list.keys().map(String::as_str).collect()
    }

    /// The metas under a key, oldest reference or not.
    pub(crate) fn metas(&self, key: &str) -> Vec<&Value> {
        self.list.get(key).map(|metas| metas.values().collect()).unwrap_or_default()
    }

    /// Everything that it holds.
    pub(crate) fn list(&self) -> &BTreeMap<String, BTreeMap<String, Value>> {
        &self.list
    }
}

/// A state, or one side of a diff.
pub(crate) fn read(side: &Value) -> BTreeMap<String, BTreeMap<String, Value>> {
    let metas = |entry: &Value| -> BTreeMap<String, Value> {
        let metas = entry["metas"].as_array().unwrap_or_else(|| panic!("no metas: {entry}"));
        assert!(!metas.is_empty(), "a key without metas");
        metas.iter().map(|meta| (reference(meta).to_owned(), meta.clone())).collect()
    };
    side.as_object().unwrap().iter().map(|(key, entry)| (key.clone(), metas(entry))).collect()
}

/// What names a meta.
pub(crate) fn reference(meta: &Value) -> &str {
    meta["phx_ref"].as_str().unwrap()
}
