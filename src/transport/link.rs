//! One WebSocket connection from the upgrade to its end: reads frames into a socket, writes its outbox.
//!
//! Knows no topic. One task does both, so that a connection costs one future and one small read buffer. The invariant:
//! every wait is bounded — for a frame by the idle timeout, for a write by the client reading something, for the end
//! by the closing timeout — and no message makes the codec's buffers grow, since large ones leave in fragments.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        self, Message,
        error::CapacityError,
        protocol::{
            CloseFrame, Role, WebSocketConfig,
            frame::{
                Frame,
                coding::{Data, OpCode},
            },
        },
    },
};

use super::{Options, meter::Meter};
use crate::{
    channel::{Closing, Outbox, OutboxNext},
    protocol::{
        Wire,
        codes::{CloseCode, close},
    },
    socket::Socket,
};

/// The read buffer of a connection; most of what an idle one costs.
const READ_BUFFER: usize = 2 * 1024;
/// What is gathered before it is written, and the largest frame that is sent.
const WRITE_BUFFER: usize = 16 * 1024;
/// More than the codec ever has to hold.
const MAX_WRITE_BUFFER: usize = 256 * 1024;

/// A connection's bytes, as frames.
pub(super) struct Link<S> {
    ws: WebSocketStream<Meter<S>>,
    socket: Arc<Socket>,
    written: Arc<AtomicU64>,
    idle_timeout: Duration,
    stall_timeout: Duration,
    close_timeout: Duration,
    heard: Instant,
}

/// Why the loop ends.
enum End {
    /// With a close frame of ours.
    Close(CloseCode, &'static str),
    /// The client's close frame was answered, or nothing can be written any more.
    Gone,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Link<S> {
    /// A link over a stream that was upgraded; `read` is what was read beyond the request.
    pub(super) async fn new(stream: S, read: Vec<u8>, socket: Arc<Socket>, options: &Options) -> Self {
        let (stream, written) = Meter::new(stream);
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(WRITE_BUFFER)
            .max_write_buffer_size(MAX_WRITE_BUFFER)
            .max_message_size(Some(options.max_frame_bytes))
            .max_frame_size(Some(options.max_frame_bytes));
        let ws = if read.is_empty() {
            WebSocketStream::from_raw_socket(stream, Role::Server, Some(config)).await
        } else {
            WebSocketStream::from_partially_read(stream, read, Role::Server, Some(config)).await
        };
        Self {
            ws,
            socket,
            written,
            idle_timeout: options.idle_timeout,
            stall_timeout: options.stall_timeout,
            close_timeout: options.close_timeout,
            heard: Instant::now(),
        }
    }

    /// Runs the connection to its end.
    pub(super) async fn run(&mut self) {
        if let End::Close(code, reason) = self.serve().await {
            tracing::debug!(connection = %self.socket.id(), code = code.code, reason, "closing a connection");
            // Whoever does not take the close frame in time is cut.
            let _ = tokio::time::timeout(self.close_timeout, Box::pin(self.shut(code, reason))).await;
        }
    }

    async fn serve(&mut self) -> End {
        let socket = Arc::clone(&self.socket);
        let outbox = socket.outbox();
        let idle = tokio::time::sleep_until(self.heard + self.idle_timeout);
        tokio::pin!(idle);
        loop {
            // A client that does not read what it is answered is not listened to either.
            let listening = outbox.has_room();
            let end = tokio::select! {
                message = self.ws.next(), if listening => self.received(message),
                () = outbox.ready() => self.write(outbox).await,
                () = idle.as_mut() => {
                    let end = self.idled(listening);
                    idle.as_mut().reset(self.next_look());
                    end
                }
            };
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// When silence has to be looked at again.
    fn next_look(&self) -> Instant {
        let due = self.heard + self.idle_timeout;
        if due > Instant::now() { due } else { Instant::now() + self.idle_timeout }
    }

    fn idled(&mut self, listening: bool) -> Option<End> {
        if !listening || self.heard.elapsed() < self.idle_timeout {
            return None;
        }
        // What has arrived but was not read yet counts.
        match self.ws.next().now_or_never() {
            Some(message) => self.received(message),
            None => Some(End::Close(close::PROTOCOL, "nothing was heard for too long")),
        }
    }

    fn received(&mut self, message: Option<Result<Message, tungstenite::Error>>) -> Option<End> {
        self.heard = Instant::now();
        match message {
            Some(Ok(Message::Text(text))) => self.socket.text(text.as_str()),
            Some(Ok(Message::Binary(bytes))) => self.socket.binary(&bytes),
            // Pings are answered by the codec; a close is echoed by it, and the stream ends with the next read.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_))) => {}
            Some(Err(error)) => return Some(refusal(&error)),
            None => return Some(End::Gone),
        }
        None
    }

    /// Writes what waits, many messages to one flush.
    async fn write(&mut self, outbox: &Outbox) -> Option<End> {
        loop {
            match outbox.next() {
                OutboxNext::Write(wire) => {
                    if let Some(end) = self.put(wire, outbox).await {
                        return Some(end);
                    }
                }
                OutboxNext::Idle => return self.flush(outbox).await,
                OutboxNext::Close(Closing { code, reason, flush }) => {
                    if flush && let Some(end) = self.flush(outbox).await {
                        return Some(end);
                    }
                    return Some(End::Close(code, reason));
                }
            }
        }
    }

    async fn put(&mut self, wire: Wire, outbox: &Outbox) -> Option<End> {
        let (whole, kind) = match wire {
            Wire::Text(text) if text.as_str().len() <= WRITE_BUFFER => {
                return self.feed(Message::Text(text.into_utf8_bytes()), outbox).await;
            }
            Wire::Binary(bytes) if bytes.len() <= WRITE_BUFFER => {
                return self.feed(Message::Binary(bytes), outbox).await;
            }
            Wire::Text(text) => (Bytes::from(text.into_utf8_bytes()), Data::Text),
            Wire::Binary(bytes) => (bytes, Data::Binary),
        };
        let mut rest = whole;
        let mut kind = kind;
        while !rest.is_empty() {
            let part = rest.split_to(rest.len().min(WRITE_BUFFER));
            let frame = Frame::message(part, OpCode::Data(kind), rest.is_empty());
            kind = Data::Continue;
            if let Some(end) = self.feed(Message::Frame(frame), outbox).await {
                return Some(end);
            }
            if let Some(end) = self.flush(outbox).await {
                return Some(end);
            }
        }
        None
    }

    async fn feed(&mut self, message: Message, outbox: &Outbox) -> Option<End> {
        let (stall, written) = (self.stall_timeout, Arc::clone(&self.written));
        moving(self.ws.feed(message), stall, &written, outbox).await
    }

    async fn flush(&mut self, outbox: &Outbox) -> Option<End> {
        let (stall, written) = (self.stall_timeout, Arc::clone(&self.written));
        moving(self.ws.flush(), stall, &written, outbox).await
    }

    /// Sends our close frame and waits for the client's, dropping what comes before it: closing at once would reset
    /// the connection, and the frame might never be seen.
    async fn shut(&mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code: code.code.into(), reason: reason.into() };
        if self.ws.close(Some(frame)).await.is_err() {
            return;
        }
        while let Some(Ok(_)) = self.ws.next().await {}
        self.drain_raw().await;
    }

    /// After framing that is none the codec reads no more; what the client still sends is read past it.
    async fn drain_raw(&mut self) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let stream = self.ws.get_mut();
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut scratch = [0_u8; 512];
        while matches!(stream.read(&mut scratch).await, Ok(1..)) {}
    }
}

/// Waits for a write as long as the client reads anything, and what waits is still to be written.
async fn moving(
    write: impl Future<Output = Result<(), tungstenite::Error>>,
    stall: Duration,
    written: &AtomicU64,
    outbox: &Outbox,
) -> Option<End> {
    tokio::pin!(write);
    // Nearly every write is done at once, and needs no timer.
    if let Some(done) = write.as_mut().now_or_never() {
        return done.err().map(|_| End::Gone);
    }
    loop {
        let before = written.load(Ordering::Relaxed);
        let done = tokio::select! {
            biased;
            done = write.as_mut() => Some(done),
            () = outbox.cut() => return Some(cut(outbox)),
            () = tokio::time::sleep(stall) => None,
        };
        match done {
            Some(done) => return done.err().map(|_| End::Gone),
            None if written.load(Ordering::Relaxed) == before => {
                return Some(End::Close(close::POLICY, "nothing was read for too long"));
            }
            None => {}
        }
    }
}

fn cut(outbox: &Outbox) -> End {
    match outbox.next() {
        OutboxNext::Close(Closing { code, reason, .. }) => End::Close(code, reason),
        OutboxNext::Write(_) | OutboxNext::Idle => End::Gone,
    }
}

/// What a client is told about framing that is none.
fn refusal(error: &tungstenite::Error) -> End {
    match error {
        tungstenite::Error::Capacity(CapacityError::MessageTooLong { .. }) => {
            End::Close(close::TOO_LARGE, "the message is too large")
        }
        tungstenite::Error::Capacity(_) | tungstenite::Error::Protocol(_) | tungstenite::Error::AttackAttempt => {
            if is_reset(error) {
                End::Gone
            } else {
                End::Close(close::PROTOCOL, "the framing is broken")
            }
        }
        tungstenite::Error::Utf8(_) => End::Close(close::NOT_UTF8, "the text is not UTF-8"),
        _ => End::Gone,
    }
}

fn is_reset(error: &tungstenite::Error) -> bool {
    use tungstenite::error::ProtocolError;
    matches!(error, tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))
}
