//! One WebSocket connection from the upgrade to its end: reads frames into a socket, writes its outbox.
//!
//! Knows no topic. One task does both, so that a connection costs one future and one small read buffer. The invariant:
//! every wait is bounded — for a frame by the idle timeout, for a write by the client reading something, for the end
//! by the closing timeout — and nothing that is sent leaves a buffer behind: frames are gathered in one that lives only
//! while they are written, and large messages leave from where they lie.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt as _},
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
                FrameHeader,
                coding::{Data, OpCode},
            },
        },
    },
};

use super::{
    Options,
    patient::{Patient, is_given_up},
    write_now::WriteNow,
};
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
/// What is gathered before it is written, and the largest message that is copied for it.
const WRITE_BUFFER: usize = 16 * 1024;
/// More than the codec ever has to hold.
const MAX_WRITE_BUFFER: usize = 256 * 1024;

/// A connection's bytes, as frames.
pub(super) struct Link<S> {
    ws: WebSocketStream<Patient<S, ()>>,
    /// Frames that are gathered or being written; nothing at all while the connection is idle.
    unsent: Unsent,
    /// The client has said that it goes: it is shown nothing more.
    leaving: bool,
    farewell: Farewell,
    socket: Arc<Socket>,
    idle_timeout: Duration,
    close_timeout: Duration,
    heard: Instant,
}

/// Frames on their way, and how much of them is written. The codec's own buffer would do, but it keeps for ever the
/// size that a join's answer gave it.
#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    /// The payload of the last frame where it is too large to be copied; its header is the end of `bytes`.
    large: Option<Wire>,
    written: usize,
}

/// How the server ends a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Farewell {
    /// With a close frame.
    CloseFrame,
    /// Without one, for a client that would take it for its own wish and never come back.
    Abrupt,
}

/// Why the loop ends.
enum End {
    /// With a close frame of ours.
    Close(CloseCode, &'static str),
    /// The client has read nothing for too long.
    Stalled,
    /// The client's close frame was answered, or nothing can be written any more.
    Gone,
}

impl<S: AsyncRead + AsyncWrite + WriteNow + Unpin> Link<S> {
    /// A link over a stream that was upgraded; `read` is what was read beyond the request.
    pub(super) async fn new(
        stream: S,
        read: Vec<u8>,
        socket: Arc<Socket>,
        farewell: Farewell,
        options: &Options,
    ) -> Self {
        let stream = Patient::new(stream, options.stall_timeout, ());
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
            unsent: Unsent::default(),
            leaving: false,
            farewell,
            socket,
            idle_timeout: options.idle_timeout,
            close_timeout: options.close_timeout,
            heard: Instant::now(),
        }
    }

    /// Runs the connection to its end.
    pub(super) async fn run(&mut self) {
        let end = match self.serve().await {
            End::Close(code, reason) => Some((code, reason)),
            End::Stalled => {
                self.socket.count_stalled();
                Some((close::POLICY, "nothing was read for too long"))
            }
            End::Gone => None,
        };
        if let Some((code, reason)) = end {
            tracing::debug!(connection = %self.socket.id(), code = code.code, reason, "closing a connection");
            // Whoever does not take the close frame in time is cut.
            let _ = tokio::time::timeout(self.close_timeout, Box::pin(self.part(code, reason))).await;
        }
    }

    async fn serve(&mut self) -> End {
        let socket = Arc::clone(&self.socket);
        let outbox = socket.outbox();
        let idle = tokio::time::sleep_until(self.heard + self.idle_timeout);
        tokio::pin!(idle);
        loop {
            // A client that does not read what it is answered is not listened to either.
            let listening = self.leaving || outbox.has_room();
            let end = tokio::select! {
                message = self.ws.next(), if listening => self.received(message),
                () = outbox.ready(), if !self.leaving => self.write(outbox).await,
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
            // A close is echoed by the codec, and the stream ends with the next read.
            Some(Ok(Message::Close(_))) => self.leaving = true,
            // Pings are answered by the codec.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => self.socket.sign_of_life(),
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

    /// Gathers a message as a frame; what is too much to be held is written.
    async fn put(&mut self, wire: Wire, outbox: &Outbox) -> Option<End> {
        self.unsent.add(wire);
        if self.unsent.is_full() { self.flush(outbox).await } else { None }
    }

    /// Writes what was gathered, for as long as the client reads anything and what waits is still to be written.
    async fn flush(&mut self, outbox: &Outbox) -> Option<End> {
        tokio::select! {
            biased;
            sent = self.send() => sent.err().map(|error| if is_stalled(&error) { End::Stalled } else { End::Gone }),
            () = outbox.cut() => Some(cut(outbox)),
        }
    }

    /// Writes what was gathered. Cancel safe: the rest is written by the next call.
    async fn send(&mut self) -> Result<(), tungstenite::Error> {
        // What the codec has to say itself, a pong say, must not fall into a frame that has begun.
        if self.unsent.written == 0 {
            self.ws.flush().await?;
        }
        while let Some(rest) = self.unsent.rest() {
            match self.ws.get_mut().write(rest).await? {
                0 => return Err(std::io::Error::from(std::io::ErrorKind::WriteZero).into()),
                count => self.unsent.written += count,
            }
        }
        self.unsent = Unsent::default();
        Ok(())
    }

    async fn part(&mut self, code: CloseCode, reason: &'static str) {
        match self.farewell {
            Farewell::CloseFrame => self.shut(code, reason).await,
            // What was begun is ended: only the close frame is missing.
            Farewell::Abrupt => {
                if self.send().await.is_ok() {
                    self.drain_raw().await;
                }
            }
        }
    }

    /// Sends our close frame and waits for the client's, dropping what comes before it: closing at once would reset
    /// the connection, and the frame might never be seen.
    async fn shut(&mut self, code: CloseCode, reason: &'static str) {
        let frame = CloseFrame { code: code.code.into(), reason: reason.into() };
        // A frame that has begun is ended first, or the close frame would be taken for a part of it.
        if self.send().await.is_err() || self.ws.close(Some(frame)).await.is_err() {
            return;
        }
        while let Some(Ok(_)) = self.ws.next().await {}
        self.drain_raw().await;
    }

    /// Says at the stream's own level that nothing more comes, and reads what the client still sends past the codec,
    /// which after framing that is none reads no more.
    async fn drain_raw(&mut self) {
        use tokio::io::AsyncReadExt as _;
        let stream = self.ws.get_mut();
        if stream.shutdown().await.is_err() {
            return;
        }
        let mut scratch = [0_u8; 512];
        while matches!(stream.read(&mut scratch).await, Ok(1..)) {}
    }
}

impl Unsent {
    /// Adds a frame. A server's frames have no mask. After a large one nothing is added before it is written.
    fn add(&mut self, wire: Wire) {
        let kind = if matches!(wire, Wire::Text(_)) { Data::Text } else { Data::Binary };
        let header = FrameHeader { is_final: true, opcode: OpCode::Data(kind), ..FrameHeader::default() };
        let length = wire.len() as u64;
        // A vector takes whatever is written to it.
        if wire.len() > WRITE_BUFFER {
            let _ = header.format(length, &mut self.bytes);
            self.large = Some(wire);
        } else {
            self.bytes.reserve(header.len(length) + wire.len());
            let _ = header.format(length, &mut self.bytes);
            self.bytes.extend_from_slice(wire.as_bytes());
        }
    }

    /// Whether this has to be written before more is gathered.
    fn is_full(&self) -> bool {
        self.large.is_some() || self.bytes.len() >= WRITE_BUFFER
    }

    /// What is still to be written, as far as it lies together.
    fn rest(&self) -> Option<&[u8]> {
        let large = self.large.as_ref().map_or(&[][..], Wire::as_bytes);
        match self.written.checked_sub(self.bytes.len()) {
            None => self.bytes.get(self.written..),
            Some(written) => large.get(written..).filter(|rest| !rest.is_empty()),
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
        error if is_stalled(error) => End::Stalled,
        _ => End::Gone,
    }
}

fn is_stalled(error: &tungstenite::Error) -> bool {
    matches!(error, tungstenite::Error::Io(error) if is_given_up(error))
}

fn is_reset(error: &tungstenite::Error) -> bool {
    use tungstenite::error::ProtocolError;
    matches!(error, tungstenite::Error::Protocol(ProtocolError::ResetWithoutClosingHandshake))
}
