//! Putting envelopes for one place into as few frames as fit.
//!
//! Pure. Its invariant: the envelopes for one place keep their order, and a frame is longer than the limit only if it
//! holds one envelope that has no shorter form.

use std::collections::HashMap;

use super::{
    NodeId,
    bus::{Address, Parcel},
    envelope,
};

/// A frame for one place of a form's own: a subject, a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) to: String,
    pub(super) text: String,
}

/// Frames of at most `limit` bytes for `parcels`, in the order of the first envelope of each.
pub(super) fn pack(node: &NodeId, parcels: &[Parcel], limit: usize, place: impl Fn(&Address) -> String) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    let header = envelope::frame(node, []).len();
    for parcel in parcels {
        let too_long = header + parcel.text.len() > limit;
        let text = parcel.short.as_ref().filter(|_| too_long).unwrap_or(&parcel.text);
        let to = place(&parcel.to);
        match open.get(&to).and_then(|at| frames.get_mut(*at)) {
            Some(frame) if frame.text.len() + text.len() <= limit => frame.text.push_str(text),
            _ => {
                open.insert(to.clone(), frames.len());
                frames.push(Frame { to, text: envelope::frame(node, [text.as_str()]) });
            }
        }
    }
    frames
}

/// A number for a text that is the same on every node and in every release (FNV-1a).
pub(super) fn digest(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parcel(to: &str, size: usize, short: bool) -> Parcel {
        let text = format!("{{\"n\":1,\"kind\":\"gap\",\"x\":\"{}\"}}", "y".repeat(size));
        Parcel { to: Address::Topic(to.into()), text, short: short.then(|| "{\"n\":1,\"kind\":\"gap\"}".to_owned()) }
    }

    fn packed(parcels: &[Parcel]) -> Vec<(String, usize, usize)> {
        let place = |to: &Address| match to {
            Address::Topic(topic) => topic.to_string(),
            _ => String::new(),
        };
        let frames = pack(&NodeId("n".into()), parcels, 1_000, place);
        let count = |frame: &Frame| envelope::read(frame.text.as_bytes()).unwrap().1.len();
        frames.iter().map(|frame| (frame.to.clone(), count(frame), frame.text.len())).collect()
    }

    #[test]
    fn many_for_one_place_share_a_frame_up_to_the_limit() {
        let parcels: Vec<_> = (0..30).flat_map(|_| [parcel("a", 50, false), parcel("b", 10, false)]).collect();
        let frames = packed(&parcels);
        assert!(frames.iter().all(|(_, _, size)| *size <= 1_000));
        let all = |to: &str| frames.iter().filter(|(place, ..)| place == to).map(|(_, count, _)| count).sum::<usize>();
        assert_eq!((all("a"), all("b")), (30, 30));
        assert!(frames.len() <= 6, "{frames:?}");
    }

    #[test]
    fn what_is_too_long_is_shortened_or_alone() {
        let frames = packed(&[parcel("a", 5_000, true), parcel("a", 5_000, false), parcel("a", 10, false)]);
        assert_eq!(frames.len(), 3);
        assert!(frames[0].2 < 100 && frames[1].2 > 5_000 && frames[1].1 == 1);
    }

    #[test]
    fn digests_never_change() {
        assert_eq!((digest(""), digest("a")), (0xcbf2_9ce4_8422_2325, 0xaf63_dc4c_8601_ec8c));
    }
}
