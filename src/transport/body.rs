//! A request's body that gives up on a client that sends it too slowly.
//!
//! Knows no request. Without it whoever sends one byte a minute would hold what was read, and its connection, for as
//! long as it likes. The invariant: no body is waited for longer than its grace and the time that its bytes take at
//! [`LEAST`] a second.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::BoxError;
use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

/// How many bytes have to come in each second beyond the grace.
const LEAST: u64 = 4 * 1024;

/// A body was sent too slowly.
#[derive(Debug, thiserror::Error)]
#[error("the body came too slowly: send it at once")]
pub struct TooSlow;

impl TooSlow {
    /// Whether this is what lies behind an error.
    pub fn is_behind(error: &(dyn Error + 'static)) -> bool {
        error.is::<Self>() || error.source().is_some_and(Self::is_behind)
    }
}

/// A body with a limit of time.
pub(super) struct Paced<B> {
    body: B,
    grace: Duration,
    /// When it was first asked for.
    began: Option<Instant>,
    taken: u64,
    /// Runs while it is waited for.
    due: Option<Pin<Box<Sleep>>>,
}

impl<B> Paced<B> {
    /// The body, which may take `grace` whatever its length.
    pub(super) fn new(body: B, grace: Duration) -> Self {
        Self { body, grace, began: None, taken: 0, due: None }
    }

    fn deadline(&mut self) -> Instant {
        *self.began.get_or_insert_with(Instant::now) + self.grace + Duration::from_secs(self.taken / LEAST)
    }
}

impl<B> Body for Paced<B>
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            self.due = None;
            let data = frame.as_ref().and_then(|frame| frame.as_ref().ok()?.data_ref());
            self.taken += data.map_or(0, |data| data.len() as u64);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let deadline = self.deadline();
        let due = self.due.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
        due.as_mut().poll(cx).map(|()| Some(Err(TooSlow.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures::{Stream, StreamExt as _, stream};

    use super::*;

    /// Reads a body of these pieces, which may take `grace`.
    async fn read(
        pieces: impl Stream<Item = &'static [u8]> + Send + Unpin + 'static,
        grace: Duration,
    ) -> Result<Bytes, axum::Error> {
        let pieces = pieces.map(|piece| Ok::<_, Infallible>(Bytes::from_static(piece)));
        let body = Paced::new(axum::body::Body::from_stream(pieces), grace);
        axum::body::to_bytes(axum::body::Body::new(body), usize::MAX).await.map_err(axum::Error::new)
    }

    #[tokio::test]
    async fn a_body_that_comes_is_read_and_one_that_stops_is_given_up() {
        let whole = read(stream::iter([&b"he"[..], b"llo"]), Duration::from_secs(60)).await;
        assert_eq!(whole.unwrap(), "hello");
        let stops = stream::iter([&b"he"[..]]).chain(stream::pending());
        let error = read(stops, Duration::from_millis(20)).await.unwrap_err();
        assert!(TooSlow::is_behind(&error), "{error:?}");
    }

    #[tokio::test]
    async fn a_trickle_is_given_up_and_bytes_earn_time() {
        let trickle = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((&b"x"[..], ()))
        });
        let error = read(trickle.boxed(), Duration::from_millis(50)).await.unwrap_err();
        assert!(TooSlow::is_behind(&error), "{error:?}");
        let grace = Duration::from_secs(1);
        let mut body = Paced { taken: 10 * LEAST, ..Paced::new(axum::body::Body::empty(), grace) };
        let deadline = body.deadline();
        assert_eq!(deadline, body.began.unwrap() + grace + Duration::from_secs(10));
        assert!(!TooSlow::is_behind(&axum::Error::new(std::io::Error::other("gone"))));
    }
}
