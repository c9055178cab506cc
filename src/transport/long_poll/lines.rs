//! The body of a batch: one frame a line.
//!
//! Pure. A line that begins with `[` or `{` is a text frame, any other the base64 of a binary one. The body is split as
//! it is read, so that a body of line ends costs nothing; the invariant: at most [`MAX_LINES`] frames come out of it,
//! none larger than it may be.

use super::super::base64;

/// How many frames of one body are taken; more are left out, as Phoenix does.
pub const MAX_LINES: usize = 100;

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line<'a> {
    /// A text frame.
    Text(&'a str),
    /// A binary frame.
    Binary(Vec<u8>),
}

/// Why a line is no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLine {
    /// A text frame that is no text.
    #[error("a frame is not UTF-8: send JSON, or binary frames as base64")]
    NotUtf8,
    /// Neither text nor base64.
    #[error("a line is neither JSON nor base64: send one frame a line")]
    NotBase64,
    /// A frame larger than it may be.
    #[error("a frame is too large: send less at once")]
    TooLarge,
}

/// The frames of a body, none of them larger than `max_bytes`. Lines end with `\n` or `\r\n`; empty ones are passed over.
pub fn lines(body: &[u8], max_bytes: usize) -> impl Iterator<Item = Result<Line<'_>, BadLine>> {
    let lines = body.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.is_empty()).take(MAX_LINES).map(move |line| read(line, max_bytes))
}

/// The whole body as one text frame.
///
/// # Errors
/// [`BadLine`] where it is none.
pub(super) fn whole(body: &[u8], max_bytes: usize) -> Result<Line<'_>, BadLine> {
    if body.len() > max_bytes {
        return Err(BadLine::TooLarge);
    }
    std::str::from_utf8(body).map(Line::Text).map_err(|_| BadLine::NotUtf8)
}

fn read(line: &[u8], max_bytes: usize) -> Result<Line<'_>, BadLine> {
    if line.starts_with(b"[") || line.starts_with(b"{") {
        return whole(line, max_bytes);
    }
    // Looked at before it is decoded: four characters stand for three bytes.
    if line.len() / 4 > max_bytes / 3 + 1 {
        return Err(BadLine::TooLarge);
    }
    match base64::decode(line) {
        Some(bytes) if bytes.len() > max_bytes => Err(BadLine::TooLarge),
        Some(bytes) => Ok(Line::Binary(bytes)),
        None => Err(BadLine::NotBase64),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read_all(body: &[u8]) -> Vec<Result<Line<'_>, BadLine>> {
        lines(body, 16).collect()
    }

    #[test]
    fn l113_text_and_base64_lines_in_their_order() {
        let body = "[1]\nAAEC\r\n{\"a\":1}\n\n-_8\n";
        let expected =
            [Line::Text("[1]"), Line::Binary(vec![0, 1, 2]), Line::Text("{\"a\":1}"), Line::Binary(vec![0xfb, 0xff])];
        assert_eq!(read_all(body.as_bytes()), expected.map(Ok));
    }

    #[test]
    fn l113_of_more_than_a_hundred_lines_the_rest_is_left_out() {
        assert_eq!(read_all(&b"[]\n".repeat(101)).len(), 100);
        let mut late = b"\n".repeat(1_000_000);
        late.extend_from_slice(b"[9]");
        assert_eq!(read_all(&late), [Ok(Line::Text("[9]"))]);
    }

    #[test]
    fn lines_that_are_no_frames() {
        assert_eq!(read_all(b"[\xff]"), [Err(BadLine::NotUtf8)]);
        assert_eq!(read_all(b"hello there\n[1]"), [Err(BadLine::NotBase64), Ok(Line::Text("[1]"))]);
        assert_eq!(read_all(b"[23456789012345]"), [Ok(Line::Text("[23456789012345]"))]);
        assert_eq!(read_all(b"[234567890123456]"), [Err(BadLine::TooLarge)]);
        assert_eq!(read_all("A".repeat(22).as_bytes()), [Ok(Line::Binary(vec![0; 16]))]);
        assert_eq!(read_all("A".repeat(23).as_bytes()), [Err(BadLine::TooLarge)]);
        assert_eq!(read_all("A".repeat(1_000_000).as_bytes()), [Err(BadLine::TooLarge)]);
        assert_eq!(whole(b"", 16), Ok(Line::Text("")));
        assert_eq!(whole(&[b' '; 17], 16), Err(BadLine::TooLarge));
    }

    proptest! {
        #[test]
        fn any_body_gives_at_most_a_hundred_frames_of_the_size_that_is_allowed(body: Vec<u8>, max in 0_usize..64) {
            let frames: Vec<_> = lines(&body, max).collect();
            prop_assert!(frames.len() <= MAX_LINES);
            for frame in frames.into_iter().flatten() {
                let size = match frame {
                    Line::Text(text) => text.len(),
                    Line::Binary(bytes) => bytes.len(),
                };
                prop_assert!(size <= max);
            }
        }
    }
}
