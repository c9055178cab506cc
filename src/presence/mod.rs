//! Presence: who is on a topic, as Phoenix.Presence and its clients know it.
//!
//! `topic` is what one topic holds and has not yet told, pure; [`Tracker`] keeps all topics of this node and publishes
//! their changes, at once where a topic is quiet and gathered into one diff where it is not. It knows no channel and
//! no connection. Its invariant: whoever subscribes, is then given the state, and applies every diff that was published
//! since the subscription to it, in their order, holds what the topic holds once nothing is pending.

mod cluster;
mod due;
mod exchange;
mod members;
mod own;
mod replica;
mod state;
mod topic;
mod tracker;
mod wire;

use crate::ids;

pub use self::{
    cluster::{Cluster, ClusterOptions},
    replica::Roster,
    state::{Extras, Meta},
    tracker::{Fetch, Flusher, Options, Tracked, Tracker},
};

/// Why a presence is not shown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key would break the clients of everybody on the topic.
    #[error("{key:?} cannot be a presence key, since JavaScript objects have it already: use another one")]
    Key {
        /// The key.
        key: String,
    },
}

/// Whether `key` may stand in a presence map that JavaScript clients read; for those who want to know before they do
/// anything else. [`Tracker::track`] asks by itself.
///
/// # Errors
/// [`Error::Key`].
pub fn check_key(key: &str) -> Result<(), Error> {
    if ids::is_name_of_objects(key) {
        return Err(Error::Key { key: key.to_owned() });
    }
    Ok(())
}
