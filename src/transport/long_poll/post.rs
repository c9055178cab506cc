//! A batch of frames that a long-polling client brings.
//!
//! Knows HTTP bodies, and no frame from the inside. A batch is handed in frame by frame, each when there is room for
//! what it may be answered; the invariant: one batch of a session is held at a time, for at most a window. What was
//! handed in before the window was over stays handed in.

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header::CONTENT_TYPE},
    response::Response,
};
use futures::StreamExt as _;

use super::{
    super::Options,
    answer,
    lines::{BadLine, Line, lines, whole},
    session::Session,
};
use crate::protocol::codes::{CloseCode, close};

/// What a body holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One frame a line.
    Batch,
    /// One text frame, whatever the content is called.
    Single,
}

/// Why a body is not taken.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the body is too large: send less at once")]
    TooLarge,
    #[error("the body broke off")]
    Broken,
    #[error(transparent)]
    Line(#[from] BadLine),
    #[error("this is no frame of the protocol: the session has ended, begin a new one")]
    NoFrame,
    /// The session ended for a reason of its own.
    #[error("the session has ended: begin a new one")]
    Gone,
}

impl Kind {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let kind = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if kind.eq_ignore_ascii_case("application/x-ndjson") { Self::Batch } else { Self::Single }
    }
}

/// Takes the frames of a body. A body that cannot be taken ends the session.
pub(super) async fn take(session: &Session, kind: Kind, body: Body, options: &Options) -> Response {
    let work = async {
        // Never closed, so this waits for those before and nothing else.
        let _turn = session.batch().acquire().await;
        let body = read(body, options.max_body_bytes).await?;
        hand_in(session, kind, &body, options.max_frame_bytes).await
    };
    match tokio::time::timeout(session.window(), work).await {
        Ok(Ok(())) => answer::taken(),
        Ok(Err(refusal)) => refuse(session, &refusal),
        Err(_) => answer::timed_out(),
    }
}

async fn read(body: Body, max_bytes: usize) -> Result<Vec<u8>, Refusal> {
    let (mut parts, mut held) = (body.into_data_stream(), Vec::new());
    while let Some(part) = parts.next().await {
        let part = part.map_err(|_| Refusal::Broken)?;
        if held.len() + part.len() > max_bytes {
            return Err(Refusal::TooLarge);
        }
        held.extend_from_slice(&part);
    }
    Ok(held)
}

async fn hand_in(session: &Session, kind: Kind, body: &[u8], max_frame_bytes: usize) -> Result<(), Refusal> {
    match kind {
        Kind::Single => hand_in_one(session, whole(body, max_frame_bytes)).await,
        Kind::Batch => {
            for line in lines(body, max_frame_bytes) {
                hand_in_one(session, line).await?;
            }
            Ok(())
        }
    }
}

async fn hand_in_one(session: &Session, line: Result<Line<'_>, BadLine>) -> Result<(), Refusal> {
    let (socket, outbox) = (session.socket(), session.socket().outbox());
    outbox.room().await;
    if outbox.is_closed() {
        return Err(Refusal::Gone);
    }
    match line? {
        Line::Text(text) => socket.text(text),
        Line::Binary(bytes) => socket.binary(&bytes),
    }
    match session.closing() {
        None => Ok(()),
        Some(closing) if closing.code == close::BAD_FRAME => Err(Refusal::NoFrame),
        Some(_) => Err(Refusal::Gone),
    }
}

fn refuse(session: &Session, refusal: &Refusal) -> Response {
    let (status, code) = match refusal {
        Refusal::Gone => return answer::gone(),
        Refusal::TooLarge | Refusal::Line(BadLine::TooLarge) => (StatusCode::PAYLOAD_TOO_LARGE, close::TOO_LARGE),
        Refusal::Broken | Refusal::Line(_) | Refusal::NoFrame => (StatusCode::BAD_REQUEST, close::BAD_FRAME),
    };
    end(session, code);
    answer::refused(status, &refusal.to_string())
}

fn end(session: &Session, code: CloseCode) {
    tracing::debug!(connection = %session.socket().id(), code = code.code, "a body was not taken");
    session.socket().outbox().close(code, "the body was not taken");
}
