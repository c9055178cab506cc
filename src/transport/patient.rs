//! A stream that gives up on a client that reads nothing of what is written to it.
//!
//! Knows no HTTP and no frames. Without it, what nobody reads would be held for as long as the other end keeps the
//! connection. The invariant: no write waits longer than the limit, and a look more, without a byte having been taken;
//! and bytes go out in their order, however they go.

use std::{
    error::Error,
    fmt, io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::write_now::WriteNow;

/// How often it is looked, within the limit, whether a client has read a little.
const LOOKS: u32 = 6;

/// A stream whose writes fail, with [`is_given_up`], once nothing was taken for a while.
pub(super) struct Patient<S, G> {
    stream: S,
    limit: Duration,
    waiting: Option<Waiting>,
    /// Whether there was room that the runtime did not know of, and nothing has shown yet that it is used up.
    pressing: bool,
    /// Dropped after the stream.
    guard: G,
}

/// A write that waits.
struct Waiting {
    since: Instant,
    look: Pin<Box<Sleep>>,
}

/// Nothing was read for too long.
#[derive(Debug)]
struct NothingRead;

impl fmt::Display for NothingRead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the client reads nothing")
    }
}

impl Error for NothingRead {}

/// Whether a stream failed because nothing was read for too long.
pub(super) fn is_given_up(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|why| why.is::<NothingRead>())
}

impl<S, G> Patient<S, G> {
    /// The stream, whose writes wait for at most `limit`. `guard` is kept as long as the stream.
    pub(super) fn new(stream: S, limit: Duration, guard: G) -> Self {
        Self { stream, limit, waiting: None, pressing: false, guard }
    }

    /// The bare stream, and what was to be kept with it.
    pub(super) fn into_parts(self) -> (S, G) {
        (self.stream, self.guard)
    }

    /// What becomes of a write that ended with `outcome`. One that waits is tried again `past` the runtime: now and
    /// then, and where that was of use until it is of none, so that what waits after it begins at a full stream.
    fn watch<T>(
        &mut self,
        cx: &mut Context<'_>,
        outcome: Poll<io::Result<T>>,
        past: impl Fn(&S) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if outcome.is_ready() {
            self.waiting = None;
            return outcome;
        }
        let pause = self.limit / LOOKS;
        loop {
            if self.pressing {
                let pressed = past(&self.stream);
                self.pressing = pressed.is_ready();
                if self.pressing {
                    self.waiting = None;
                    return pressed;
                }
            }
            let now = Instant::now();
            let waiting = self
                .waiting
                .get_or_insert_with(|| Waiting { since: now, look: Box::pin(tokio::time::sleep_until(now + pause)) });
            ready!(waiting.look.as_mut().poll(cx));
            if let pressed @ Poll::Ready(_) = past(&self.stream) {
                (self.pressing, self.waiting) = (true, None);
                return pressed;
            }
            if waiting.since.elapsed() >= self.limit {
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, NothingRead)));
            }
            waiting.look.as_mut().reset(Instant::now() + pause);
        }
    }
}

impl<S: AsyncRead + Unpin, G: Unpin> AsyncRead for Patient<S, G> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + WriteNow + Unpin, G: Unpin> AsyncWrite for Patient<S, G> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(cx, written, |stream| stream.write_now(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(cx, written, |stream| stream.write_first_now(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.watch(cx, flushed, |_| Poll::Pending)
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
        assert!(stream.waiting.is_none(), "nothing is waited for any more");
    }

    #[tokio::test]
    async fn one_that_reads_nothing_is_given_up() {
        let (near, _far) = tokio::io::duplex(16);
        let mut stream = Patient::new(near, Duration::from_millis(20), ());
        let written = tokio::time::timeout(Duration::from_secs(20), stream.write_all(&[7; 80])).await;
        assert!(is_given_up(&written.unwrap().unwrap_err()));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn one_of_which_the_system_knows_only_little_progress_is_kept() {
        use crate::transport::write_now::tests::{full, read_a_little};

        let (near, mut far) = full().await;
        let mut stream = Patient::new(near, Duration::ZERO, ());
        let given_up = loop {
            if let Err(error) = stream.write(&[7; 1024]).await {
                break error;
            }
        };
        assert!(is_given_up(&given_up), "{given_up}");
        let read = read_a_little(&mut far, async || stream.write(&[7]).await.is_ok()).await;
        assert!(read < 512 << 10);
    }
}
