//! Ends a user's live connections, on every node.
//!
//! Knows no request. A node tells the others over the bus; what it says is a hint as everything there is, so whoever
//! asks is told when others cannot be reached. Its invariant: when a call returns, this node's connections of the user
//! are closing.

use std::sync::Arc;

use bytes::Bytes;

use super::Connections;
use crate::pubsub::{NodeId, PubSub, Receiver, Status};

/// A user's connections end; the body is the user's id.
const DISCONNECT: &str = "user.disconnect";

/// Ends connections by their users. Clones do the same.
#[derive(Clone)]
pub struct Disconnects {
    connections: Connections,
    pubsub: PubSub,
    /// Hears what other nodes say, as long as this lives.
    _ear: Arc<dyn Receiver>,
}

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnected {
    /// How many connections of this node are closing.
    pub here: usize,
    /// Whether the other nodes were told; true where there is none.
    pub told: bool,
}

impl Disconnects {
    /// For the connections of this node, and those of the others on its bus.
    pub fn new(connections: Connections, pubsub: PubSub) -> Self {
        let ear: Arc<dyn Receiver> = Arc::new(Ear(connections.clone()));
        pubsub.receive(DISCONNECT, &ear);
        Self { connections, pubsub, _ear: ear }
    }

    /// Closes what this user has open, everywhere, with 1001.
    pub fn user(&self, user_id: &str) -> Disconnected {
        let here = close(&self.connections, user_id);
        self.pubsub.publish_to_all(DISCONNECT, Bytes::copy_from_slice(user_id.as_bytes()));
        Disconnected { here, told: self.pubsub.status() != Status::Away }
    }
}

struct Ear(Connections);

impl Receiver for Ear {
    fn receive(&self, _from: &NodeId, body: Bytes) {
        if let Ok(user_id) = std::str::from_utf8(&body) {
            close(&self.0, user_id);
        }
    }
}

fn close(connections: &Connections, user_id: &str) -> usize {
    let closed = connections.disconnect(|identity| identity.person.id == user_id);
    if closed > 0 {
        tracing::info!(user_id, closed, "a user was disconnected");
    }
    closed
}
