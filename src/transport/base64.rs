//! Base64 as clients write it: in either alphabet, padded or not.
//!
//! Pure. What is anything else is nothing.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The bytes that `text` stands for.
pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let standard: Vec<u8> = text
        .iter()
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => *other,
        })
        .collect();
    LENIENT.decode(standard).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read_padded_or_not() {
        for text in ["+/+/", "-_-_", "-/+_"] {
            assert_eq!(decode(text.as_bytes()), Some(vec![0xfb, 0xff, 0xbf]), "{text}");
        }
        for text in ["dG8=", "dG8"] {
            assert_eq!(decode(text.as_bytes()), Some(b"to".to_vec()), "{text}");
        }
        assert_eq!(decode(b""), Some(Vec::new()));
    }

    #[test]
    fn what_is_no_base64_is_nothing() {
        for bad in ["a", "a b=", "ab\n", "=", "ab==c", "äöüß", "abc.def"] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
    }
}
