//! `rejoin tail`: what a topic pushes, one JSON line each, until Ctrl-C.
//!
//! Each join of a session's topic is a line too, `joined`: it holds what came before, or while the connection was
//! away. It never creates a session.

use std::io::{ErrorKind, Write};

use serde::Serialize;
use serde_json::{json, value::RawValue};

use super::{
    Failure,
    client::{Client, Error, Incoming, Retry, Target},
    follow::{Cursor, Events, Joined},
};
use crate::session::TOPIC_PREFIX;

#[derive(Serialize)]
struct Line<'a> {
    event: &'a str,
    payload: &'a RawValue,
}

/// Prints what `topic` pushes, until Ctrl-C or until nobody reads any more.
pub(super) async fn run(target: &Target, topic: &str) -> Result<(), Failure> {
    let mut tail = Tail { target, topic, cursor: None, retry: Retry::new() };
    tokio::select! {
        end = tail.lines() => end,
        interrupt = tokio::signal::ctrl_c() => interrupt.map_err(Failure::caused),
    }
}

struct Tail<'a> {
    target: &'a Target,
    topic: &'a str,
    cursor: Option<Cursor>,
    retry: Retry,
}

/// Why an attempt is over: the connection, or stdout.
enum Stop {
    Connection(Error),
    Output(std::io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Connection(error)
    }
}

impl From<std::io::Error> for Stop {
    fn from(error: std::io::Error) -> Self {
        Self::Output(error)
    }
}

impl Tail<'_> {
    async fn lines(&mut self) -> Result<(), Failure> {
        loop {
            match self.attempt().await {
                Stop::Output(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(()),
                Stop::Output(error) => return Err(Failure::caused(error)),
                Stop::Connection(error) => self.retry.after(error).await.map_err(Failure::other)?,
            }
        }
    }

    /// Prints from one connection until that is over.
    async fn attempt(&mut self) -> Stop {
        match self.connection().await {
            Ok(never) => match never {},
            Err(stop) => stop,
        }
    }

    async fn connection(&mut self) -> Result<std::convert::Infallible, Stop> {
        let is_session = self.topic.starts_with(TOPIC_PREFIX);
        let mut params = self.cursor.as_ref().map_or_else(|| json!({}), Cursor::params);
        if is_session {
            params["create"] = json!(false);
        }
        let (mut client, response) = Client::join(self.target, self.topic, params).await?;
        self.retry.progress();
        if is_session {
            let joined: Joined = serde_json::from_str(response.get()).map_err(|_| Error::Garbled)?;
            self.cursor = Some(Cursor::of(&joined));
            print("joined", &response)?;
        }
        loop {
            let Incoming::Push { event, payload } = client.next().await? else { continue };
            if is_session && event == "events" && !self.advance(&payload)? {
                return Err(Error::Lost.into());
            }
            print(&event, &payload)?;
        }
    }

    fn advance(&mut self, payload: &RawValue) -> Result<bool, Error> {
        let push: Events = serde_json::from_str(payload.get()).map_err(|_| Error::Garbled)?;
        Ok(self.cursor.as_mut().is_some_and(|cursor| cursor.advance(&push)))
    }
}

fn print(event: &str, payload: &RawValue) -> Result<(), std::io::Error> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, &Line { event, payload })?;
    out.write_all(b"\n")?;
    out.flush()
}
