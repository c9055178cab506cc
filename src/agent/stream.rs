//! An answer as it arrives, cut into its texts: the data of server-sent events, or lines.
//!
//! It knows nothing of what they say. Its invariants: nothing is read ahead of who pulls, and no event or line that has
//! no end is kept in memory beyond a limit. Dropping the stream closes the request.

use bytes::{Buf, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream, stream::BoxStream};
use reqwest::Response;
use sse_stream::SseByteStream;

/// The most bytes that one event or line may have.
pub(super) const MAX_TEXT_BYTES: usize = 1024 * 1024;

/// Why there is nothing more to read, although the other side has not ended the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// The connection did not last.
    #[error("a connection that broke")]
    Connection,
    /// Something is longer than it may be.
    #[error("an event that is too long: more than {MAX_TEXT_BYTES} bytes")]
    TooLong,
    /// It is not UTF-8.
    #[error("something that is not a stream of events in UTF-8")]
    NotText,
}

/// The texts of an answer, in the order in which they come. After an error nothing follows.
pub(super) type Texts = BoxStream<'static, Result<String, Broken>>;

/// The data of each server-sent event. Events without data are left out, an event that is cut at the end as well.
pub(super) fn events(response: Response) -> Texts {
    SseByteStream::new(bounded(response.bytes_stream()))
        .filter_map(async |event| match event {
            Ok(event) => event.data.map(Ok),
            Err(sse_stream::Error::Body(cause)) => match cause.downcast_ref::<Broken>() {
                Some(broken) => Some(Err(*broken)),
                None => Some(Err(Broken::Connection)),
            },
            Err(_) => Some(Err(Broken::NotText)),
        })
        .boxed()
}

/// Each line that is not empty; the last one also without its line break.
pub(super) fn lines(response: Response) -> Texts {
    lines_of(response.bytes_stream().map(|piece| piece.map_err(|_| Broken::Connection)).boxed())
}

fn lines_of(body: BoxStream<'static, Result<Bytes, Broken>>) -> Texts {
    let lines = Lines { body, held: BytesMut::new(), searched: 0 };
    stream::unfold(Some(lines), |lines| async move {
        let mut lines = lines?;
        match lines.next().await? {
            Ok(line) => Some((Ok(line), Some(lines))),
            Err(broken) => Some((Err(broken), None)),
        }
    })
    .boxed()
}

/// A body that is cut into lines.
struct Lines {
    body: BoxStream<'static, Result<Bytes, Broken>>,
    held: BytesMut,
    /// How much of what is held has no line break in it.
    searched: usize,
}

impl Lines {
    async fn next(&mut self) -> Option<Result<String, Broken>> {
        loop {
            while let Some(line) = self.take() {
                match text(&line) {
                    Ok("") => {}
                    checked => return Some(checked.map(str::to_owned)),
                }
            }
            if self.held.len() > MAX_TEXT_BYTES {
                return Some(Err(Broken::TooLong));
            }
            match self.body.next().await {
                Some(Ok(piece)) => self.held.extend_from_slice(&piece),
                Some(Err(broken)) => return Some(Err(broken)),
                None => {
                    let last = std::mem::take(&mut self.held);
                    self.searched = 0;
                    return text(&last).map(|line| (!line.is_empty()).then(|| line.to_owned())).transpose();
                }
            }
        }
    }

    /// The next whole line that is held.
    fn take(&mut self) -> Option<BytesMut> {
        match self.held[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) => {
                let line = self.held.split_to(self.searched + at);
                self.held.advance(1);
                self.searched = 0;
                Some(line)
            }
            None => {
                self.searched = self.held.len();
                None
            }
        }
    }
}

/// A line without the white space around it.
fn text(line: &[u8]) -> Result<&str, Broken> {
    if line.len() > MAX_TEXT_BYTES {
        return Err(Broken::TooLong);
    }
    std::str::from_utf8(line).map(str::trim).map_err(|_| Broken::NotText)
}

/// `body`, ended with an error where an event, that is what lies between two empty lines, is too long to be kept.
fn bounded<S>(body: S) -> impl Stream<Item = Result<Bytes, Broken>> + Send
where
    S: Stream<Item = Result<Bytes, reqwest::Error>> + Send,
{
    let mut meter = Meter::default();
    body.map(move |piece| {
        let piece = piece.map_err(|_| Broken::Connection)?;
        if meter.longest(&piece) > MAX_TEXT_BYTES { Err(Broken::TooLong) } else { Ok(piece) }
    })
}

/// Counts the bytes of the event that is being received.
#[derive(Default)]
struct Meter {
    event: usize,
    line: usize,
    after_cr: bool,
}

impl Meter {
    /// The length that the longest event reaches in `piece`.
    fn longest(&mut self, piece: &[u8]) -> usize {
        let mut longest = self.event;
        for &byte in piece {
            let second_of_crlf = self.after_cr && byte == b'\n';
            self.after_cr = byte == b'\r';
            if second_of_crlf {
                continue;
            }
            if byte == b'\r' || byte == b'\n' {
                self.event = if self.line == 0 { 0 } else { self.event + 1 };
                self.line = 0;
            } else {
                self.line += 1;
                self.event += 1;
            }
            longest = longest.max(self.event);
        }
        longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn lines_from(pieces: &[&[u8]]) -> (Vec<String>, Option<Broken>) {
        let pieces: Vec<_> = pieces.iter().map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        let mut lines = lines_of(stream::iter(pieces).boxed());
        let mut found = Vec::new();
        while let Some(line) = lines.next().await {
            match line {
                Ok(line) => found.push(line),
                Err(broken) => {
                    assert!(lines.next().await.is_none(), "something follows an error");
                    return (found, Some(broken));
                }
            }
        }
        (found, None)
    }

    #[tokio::test]
    async fn lines_are_found_however_they_arrive() {
        let whole = "{\"a\":1}\r\n\n  \n{\"b\":\"é\"}\n{\"c\":3}".as_bytes();
        let bytes: Vec<_> = whole.chunks(1).collect();
        for pieces in [&[whole][..], &bytes, &[&whole[..3], &whole[3..]]] {
            assert_eq!(
                lines_from(pieces).await,
                (vec!["{\"a\":1}".into(), "{\"b\":\"é\"}".into(), "{\"c\":3}".into()], None)
            );
        }
        assert_eq!(lines_from(&[]).await, (vec![], None));
    }

    #[tokio::test]
    async fn a_line_may_be_as_long_as_the_limit_and_no_longer_whether_it_ends_or_not() {
        let mut long = vec![b'x'; MAX_TEXT_BYTES];
        long.push(b'\n');
        assert_eq!(lines_from(&[b"a\n", &long]).await.1, None);
        long.insert(0, b'x');
        assert_eq!(lines_from(&[b"a\n", &long]).await, (vec!["a".to_owned()], Some(Broken::TooLong)));
        long.pop();
        assert_eq!(lines_from(&[b"a\n", &long]).await, (vec!["a".to_owned()], Some(Broken::TooLong)));
    }

    #[tokio::test]
    async fn what_is_not_utf8_is_no_line() {
        assert_eq!(lines_from(&[b"a\n\xff\nb\n"]).await, (vec!["a".to_owned()], Some(Broken::NotText)));
        assert_eq!(lines_from(&[b"\xc3"]).await, (vec![], Some(Broken::NotText)));
    }

    #[test]
    fn an_event_is_measured_between_empty_lines_whatever_ends_them() {
        for text in ["data: 1\n\ndata: 22\n\n", "data: 1\r\n\r\ndata: 22\r\n\r\n", "data: 1\r\rdata: 22\r\r"] {
            assert_eq!(Meter::default().longest(text.as_bytes()), 9, "{text:?}");
            let mut meter = Meter::default();
            let piecewise = text.bytes().map(|byte| meter.longest(&[byte])).max();
            assert_eq!(piecewise, Some(9), "{text:?}");
        }
        assert_eq!(Meter::default().longest(b"data: 1\r\ndata: 2\r\n"), 16);
    }
}
