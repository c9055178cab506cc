//! The nodes of the cluster as an operator looks at them: each with its state, how long ago it was seen moving, and how
//! much it has to do.
//!
//! What a node says of itself it says with its renewals, so nothing is sent for it and no bus is needed; how many turns
//! it runs is counted where they stand, in the store. How long ago is reckoned by this node's own monotonic clock.

use std::{
    collections::HashMap,
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use serde::Serialize;
use utoipa::ToSchema;

use super::{Error, Inner, Sessions};
use crate::{
    ids::Incarnation,
    model::{Node, NodeState, Owner},
};

/// How many clients this node has.
pub type Connections = Arc<dyn Fn() -> usize + Send + Sync>;

/// The nodes, and which of them answers.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NodeList {
    /// Those that live before those that drain, and these before the dead; by name.
    pub nodes: Vec<NodeSummary>,
    /// The one that answers.
    pub node: NodeName,
}

/// A node by its label and its identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeName {
    /// The label that its operator gave it.
    pub name: String,
    /// The identity of this life of it.
    #[schema(value_type = String)]
    pub incarnation: Incarnation,
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct NodeSummary {
    /// The label that its operator gave it.
    pub name: String,
    /// The identity of this life of it.
    #[schema(value_type = String)]
    pub incarnation: Incarnation,
    /// `live`, `draining` or `dead`.
    #[schema(value_type = String)]
    pub state: NodeState,
    /// How long its lease lasts, in milliseconds.
    pub lease_ttl_ms: u64,
    /// Milliseconds since the node that answers has seen it move; null if it never has.
    #[schema(required = true)]
    pub seen_ms_ago: Option<u64>,
    /// Clients that it has, as it said when it last moved; none once it is dead.
    pub connections: u64,
    /// Turns that the store shows as running there.
    pub running_turns: u64,
}

/// When each node was seen moving.
#[derive(Debug, Default)]
pub(super) struct Movements {
    seen: HashMap<Incarnation, (i64, Instant)>,
}

impl Movements {
    /// Takes in what a renewal read: another beat is a movement.
    pub(super) fn observe(&mut self, nodes: &[Node], now: Instant) {
        let mut seen = HashMap::with_capacity(nodes.len());
        for node in nodes {
            let before = self.seen.get(&node.owner.incarnation).copied();
            let movement = match before {
                Some((beat, at)) if beat == node.beat => Some((beat, at)),
                None if node.state == NodeState::Dead => None,
                _ => Some((node.beat, now)),
            };
            seen.extend(movement.map(|movement| (node.owner.incarnation.clone(), movement)));
        }
        self.seen = seen;
    }

    fn since(&self, node: &Incarnation, now: Instant) -> Option<Duration> {
        self.seen.get(node).map(|(_, at)| now.saturating_duration_since(*at))
    }
}

/// Asks how many clients this node has, once that can be known.
#[derive(Default)]
pub(super) struct Clients(OnceLock<Connections>);

impl Clients {
    pub(super) fn count(&self) -> u64 {
        self.0.get().map_or(0, |count| u64::try_from(count()).unwrap_or(u64::MAX))
    }
}

impl Sessions {
    /// Has this node's renewals tell the others how many clients it has. To be called once.
    pub fn count_clients(&self, connections: Connections) {
        // A second way to count would be a mistake of those who wire the parts, and the first one stays right.
        let _kept = self.inner.clients.0.set(connections);
    }

    /// Every node that has a row, dead ones of the last while among them.
    ///
    /// # Errors
    /// [`Error::Unavailable`].
    pub async fn node_list(&self) -> Result<NodeList, Error> {
        let (rows, running) = self.inner.store.at_work().await?;
        let own = self.inner.owner();
        self.inner.movements(|movements| movements.observe(&rows, Instant::now()));
        let mut nodes: Vec<NodeSummary> =
            rows.iter().map(|node| self.inner.node_summary(node, &own, &running)).collect();
        let rank = |state| [NodeState::Live, NodeState::Draining, NodeState::Dead].iter().position(|s| *s == state);
        nodes.sort_by(|a, b| (rank(a.state), &a.name, &a.incarnation).cmp(&(rank(b.state), &b.name, &b.incarnation)));
        let Owner { node: name, incarnation } = own;
        Ok(NodeList { nodes, node: NodeName { name, incarnation } })
    }
}

impl Inner {
    fn node_summary(&self, node: &Node, own: &Owner, running: &HashMap<Incarnation, u64>) -> NodeSummary {
        let Owner { node: name, incarnation } = &node.owner;
        let since = self.movements(|movements| movements.since(incarnation, Instant::now()));
        let connections = match node.state {
            // Those of a node that has returned are told by the life that it has now.
            NodeState::Dead => 0,
            _ if node.owner == *own => self.clients.count(),
            _ => node.connections,
        };
        NodeSummary {
            name: name.clone(),
            incarnation: incarnation.clone(),
            state: node.state,
            lease_ttl_ms: node.lease_ttl_ms,
            seen_ms_ago: since.map(|since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            connections,
            running_turns: running.get(incarnation).copied().unwrap_or(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, beat: i64, state: NodeState) -> Node {
        let owner = Owner { node: name.to_owned(), incarnation: Incarnation(name.to_owned()) };
        Node { owner, state, beat, lease_ttl_ms: 6_000, exclusive: false, connections: 0 }
    }

    #[test]
    fn a_node_has_moved_when_its_beat_is_another() {
        let (mut movements, start) = (Movements::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let since = |movements: &Movements, name: &str, ms| {
            movements.since(&Incarnation(name.to_owned()), at(ms)).map(|since| since.as_millis())
        };
        movements.observe(&[node("a", 1, NodeState::Live), node("b", 1, NodeState::Dead)], at(0));
        assert_eq!((since(&movements, "a", 300), since(&movements, "b", 300)), (Some(300), None));
        movements.observe(&[node("a", 1, NodeState::Live)], at(1_000));
        assert_eq!(since(&movements, "a", 1_500), Some(1_500), "it stands still");
        movements.observe(&[node("a", 2, NodeState::Draining)], at(2_000));
        movements.observe(&[node("a", 2, NodeState::Dead)], at(3_000));
        assert_eq!(since(&movements, "a", 4_000), Some(2_000), "a tombstone is no movement");
        movements.observe(&[], at(4_000));
        assert_eq!(since(&movements, "a", 4_000), None);
    }
}
