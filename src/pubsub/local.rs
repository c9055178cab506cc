//! A bus between the nodes of one process: for programs that run several, and for their tests.
//!
//! Knows no network. A node that does not read has its frames dropped, and is told so. Its invariant: what one node
//! sends to one address reaches a node in order, each frame at most once.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

use super::{
    Bus, NodeId,
    bus::{Address, Error, Incoming, Inward, Outward, Parcel, Result, Sent},
    envelope,
};

/// Frames that wait for one node.
const INBOX: usize = 4_096;

/// A bus in memory. Clones are the same bus.
#[derive(Clone, Default)]
pub struct Local {
    nodes: Arc<Mutex<HashMap<NodeId, Member>>>,
    closed: Arc<AtomicBool>,
}

struct Member {
    inbox: mpsc::Sender<Bytes>,
    overflowed: Arc<AtomicBool>,
    topics: HashSet<Arc<str>>,
}

impl Local {
    /// A bus without nodes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts every node off and lets none back, as the end of a server would.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.lock().clear();
    }

    /// Lets nodes come back; they do so by themselves.
    pub fn open(&self) {
        self.closed.store(false, Ordering::Release);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<NodeId, Member>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    fn wants(&self, own: &NodeId, to: &Address) -> bool {
        match to {
            Address::Topic(topic) => self.topics.contains(topic),
            Address::Everyone => true,
            Address::Node(node) => node == own,
        }
    }
}

#[async_trait]
impl Bus for Local {
    async fn connect(&self, node: &NodeId) -> Result<(Box<dyn Outward>, Box<dyn Inward>)> {
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::broken("connecting: this bus is closed"));
        }
        let (sender, inbox) = mpsc::channel(INBOX);
        let overflowed = Arc::<AtomicBool>::default();
        let member = Member { inbox: sender, overflowed: overflowed.clone(), topics: HashSet::new() };
        self.lock().insert(node.clone(), member);
        let outward = End { bus: self.clone(), node: node.clone() };
        let inward = Ear { bus: self.clone(), node: node.clone(), inbox, overflowed };
        Ok((Box::new(outward), Box::new(inward)))
    }
}

struct End {
    bus: Local,
    node: NodeId,
}

#[async_trait]
impl Outward for End {
    async fn send(&mut self, parcels: &[Parcel]) -> Result<Sent> {
        let nodes = self.bus.lock();
        if !nodes.contains_key(&self.node) {
            return Err(Error::broken("sending"));
        }
        for parcel in parcels {
            let frame = Bytes::from(envelope::frame(&self.node, [parcel.text.as_str()]));
            for (node, member) in nodes.iter().filter(|(node, _)| **node != self.node) {
                if member.wants(node, &parcel.to) && member.inbox.try_send(frame.clone()).is_err() {
                    member.overflowed.store(true, Ordering::Release);
                }
            }
        }
        Ok(Sent::default())
    }
}

struct Ear {
    bus: Local,
    node: NodeId,
    inbox: mpsc::Receiver<Bytes>,
    overflowed: Arc<AtomicBool>,
}

#[async_trait]
impl Inward for Ear {
    async fn listen(&mut self, more: &[Arc<str>], fewer: &[Arc<str>]) -> Result<Vec<Arc<str>>> {
        let mut nodes = self.bus.lock();
        let member = nodes.get_mut(&self.node).ok_or(Error::broken("listening"))?;
        let late = more.iter().filter(|topic| member.topics.insert(Arc::clone(topic))).cloned().collect();
        fewer.iter().for_each(|topic| _ = member.topics.remove(topic));
        Ok(late)
    }

    async fn receive(&mut self) -> Result<Incoming> {
        if self.overflowed.swap(false, Ordering::AcqRel) {
            return Ok(Incoming::Gap);
        }
        self.inbox.recv().await.map(Incoming::Frame).ok_or(Error::broken("receiving"))
    }
}
