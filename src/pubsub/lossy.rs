//! A bus that loses, repeats and reorders what another one brings, by a seed: for tests.

use std::{collections::VecDeque, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;

use super::{
    Bus, NodeId,
    bus::{Incoming, Inward, Outward, Result},
};

/// What becomes of frames, in percent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mischief {
    pub(super) seed: u64,
    pub(super) drop: u64,
    pub(super) repeat: u64,
    /// Frames that are held back until the next one has passed them.
    pub(super) hold: u64,
}

/// Another bus, as a bad network would bring it.
pub(super) struct Lossy {
    pub(super) bus: Arc<dyn Bus>,
    pub(super) mischief: Mischief,
}

#[async_trait]
impl Bus for Lossy {
    async fn connect(&self, node: &NodeId) -> Result<(Box<dyn Outward>, Box<dyn Inward>)> {
        let (outward, inward) = self.bus.connect(node).await?;
        let chance = self.mischief.seed;
        let ear = LossyEar { inward, mischief: self.mischief, chance, ready: VecDeque::new(), held: None };
        Ok((outward, Box::new(ear)))
    }
}

struct LossyEar {
    inward: Box<dyn Inward>,
    mischief: Mischief,
    chance: u64,
    ready: VecDeque<Bytes>,
    held: Option<Bytes>,
}

impl LossyEar {
    /// Below 100, from a generator whose whole state is one number (splitmix).
    fn draw(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % 100
    }

    fn disturb(&mut self, frame: Bytes) {
        let (drop, repeat, hold) = (self.draw(), self.draw(), self.draw());
        if drop < self.mischief.drop {
            return;
        }
        if repeat < self.mischief.repeat {
            self.ready.push_back(frame.clone());
        }
        if hold < self.mischief.hold && self.held.is_none() {
            self.held = Some(frame);
            return;
        }
        self.ready.push_back(frame);
        self.ready.extend(self.held.take());
    }
}

#[async_trait]
impl Inward for LossyEar {
    async fn listen(&mut self, more: &[Arc<str>], fewer: &[Arc<str>]) -> Result<Vec<Arc<str>>> {
        self.inward.listen(more, fewer).await
    }

    async fn receive(&mut self) -> Result<Incoming> {
        loop {
            if let Some(frame) = self.ready.pop_front() {
                return Ok(Incoming::Frame(frame));
            }
            match self.inward.receive().await? {
                Incoming::Frame(frame) => self.disturb(frame),
                Incoming::Gap => return Ok(Incoming::Gap),
            }
        }
    }
}
