//! Which of another node's messages have been seen already.
//!
//! Pure. A sender numbers what it sends; a bus may bring a number twice, or out of order. Its invariant: what is called
//! a repeat is one. A number older than the window is called new, for it is more likely late than seen.

use std::collections::HashMap;

use super::NodeId;

/// Numbers below the highest that are remembered.
const WIDTH: u64 = 2_048;
const WORDS: usize = (WIDTH / 64) as usize;
/// Senders that are remembered; beyond, all are forgotten, which costs repeats that are shown and no message.
const MAX_SENDERS: usize = 1_024;

/// The numbers seen of each sender.
#[derive(Default)]
pub(super) struct Windows {
    senders: HashMap<NodeId, Window>,
}

struct Window {
    highest: u64,
    /// One bit for each of the numbers from `highest - WIDTH + 1` to `highest`, at its number modulo `WIDTH`.
    bits: [u64; WORDS],
}

impl Windows {
    /// Whether this is the first time that `number` of `sender` comes by.
    pub(super) fn is_new(&mut self, sender: &NodeId, number: u64) -> bool {
        if !self.senders.contains_key(sender) {
            if self.senders.len() >= MAX_SENDERS {
                self.senders.clear();
            }
            self.senders.insert(sender.clone(), Window { highest: number, bits: [0; WORDS] });
        }
        self.senders.get_mut(sender).is_none_or(|window| window.is_new(number))
    }
}

impl Window {
    fn is_new(&mut self, number: u64) -> bool {
        if number > self.highest {
            if number - self.highest >= WIDTH {
                self.bits = [0; WORDS];
            } else {
                (self.highest + 1..=number).for_each(|passed| self.set(passed, false));
            }
            self.highest = number;
        } else if self.highest - number >= WIDTH {
            return true;
        }
        let new = !self.get(number);
        self.set(number, true);
        new
    }

    fn place(number: u64) -> (usize, u64) {
        let at = number % WIDTH;
        (usize::try_from(at / 64).unwrap_or(0), 1 << (at % 64))
    }

    fn get(&self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        self.bits[word] & bit != 0
    }

    fn set(&mut self, number: u64, seen: bool) {
        let (word, bit) = Self::place(number);
        if seen { self.bits[word] |= bit } else { self.bits[word] &= !bit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_found_in_any_order_and_senders_do_not_mix() {
        let (mut windows, a, b) = (Windows::default(), NodeId("a".into()), NodeId("b".into()));
        for number in [5, 3, 4, 9, 7, 2_000, 1] {
            assert!(windows.is_new(&a, number), "{number}");
            assert!(!windows.is_new(&a, number), "{number} again");
            assert!(windows.is_new(&b, number), "{number} of another");
        }
        assert!(windows.is_new(&a, 6) && !windows.is_new(&a, 4));
    }

    #[test]
    fn what_is_older_than_the_window_is_called_new() {
        let (mut windows, a) = (Windows::default(), NodeId("a".into()));
        assert!(windows.is_new(&a, 1) && windows.is_new(&a, 10_000));
        assert!(windows.is_new(&a, 1), "too old to tell");
        assert!(windows.is_new(&a, 10_000 + WIDTH - 1) && !windows.is_new(&a, 10_000));
        assert!(windows.is_new(&a, 10_000 + WIDTH));
    }
}
