//! A stream that gives up on a client that reads nothing of what it asked for.
//!
//! Knows no HTTP. Requests have no timeout for their answers, so without it an answer that nobody reads would be held
//! for as long as the other end keeps the connection. The invariant: no write waits longer than the limit without a
//! byte having been taken.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Sleep,
};

/// A stream whose writes fail once nothing was taken for a while.
pub(super) struct Patient<S, G> {
    stream: S,
    limit: Duration,
    /// Runs while a write waits.
    due: Option<Pin<Box<Sleep>>>,
    /// Dropped after the stream.
    guard: G,
}

impl<S, G> Patient<S, G> {
    /// The stream, whose writes wait for at most `limit`. `guard` is kept as long as the stream.
    pub(super) fn new(stream: S, limit: Duration, guard: G) -> Self {
        Self { stream, limit, due: None, guard }
    }

    /// The bare stream, and what was to be kept with it.
    pub(super) fn into_parts(self) -> (S, G) {
        (self.stream, self.guard)
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.due = None;
            return outcome;
        }
        let limit = self.limit;
        let due = self.due.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        due.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads nothing")))
    }
}

impl<S: AsyncRead + Unpin, G: Unpin> AsyncRead for Patient<S, G> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin, G: Unpin> AsyncWrite for Patient<S, G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn a_client_that_reads_is_waited_for() {
        let (near, mut far) = tokio::io::duplex(16);
        let mut stream = Patient::new(near, Duration::from_secs(60), ());
        let mut read = [0; 80];
        let (written, taken) = tokio::join!(stream.write_all(&[7; 80]), far.read_exact(&mut read));
        written.unwrap();
        taken.unwrap();
        assert!(stream.due.is_none(), "nothing is waited for any more");
    }

    #[tokio::test]
    async fn one_that_reads_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(16);
        let mut stream = Patient::new(near, Duration::from_millis(20), ());
        let written = tokio::time::timeout(Duration::from_secs(20), stream.write_all(&[7; 80])).await;
        assert_eq!(written.unwrap().unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
