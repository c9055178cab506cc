//! `rejoin send`: one message, and its answer on stdout as it comes.
//!
//! The message has one id for all attempts, so that a lost connection never sends it twice; a cursor makes the answer
//! go on where it was.

use std::io::Write;

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::time::{Duration, Instant, timeout_at};

use super::{
    Failure,
    client::{Client, Error, Incoming, Retry, Target},
    follow::{Cursor, End, Events, Follow, Joined},
};
use crate::{ids, session::topic_of};

/// How long the answer to a send may take.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);

/// Sends `text` to `session` and prints the answer.
pub(super) async fn run(target: &Target, session: &str, text: &str) -> Result<(), Failure> {
    if !ids::is_session_id(session) {
        return Err(Failure::usage(format_args!("{session:?} names no session: {}", ids::SESSION_ID_RULE)));
    }
    let id = ids::fresh();
    let mut sending = Sending {
        target,
        topic: topic_of(session),
        message: json!({"id": id, "text": text}),
        follow: Follow::new(id),
        cursor: None,
        retry: Retry::new(),
        printed: false,
    };
    let end = sending.finish().await;
    if sending.printed {
        print("\n")?;
    }
    match end? {
        End::Completed => Ok(()),
        End::Cut(why) => Err(Failure::other(why)),
    }
}

struct Sending<'a> {
    target: &'a Target,
    topic: String,
    message: Value,
    follow: Follow,
    cursor: Option<Cursor>,
    retry: Retry,
    printed: bool,
}

/// Why an attempt is over: the connection, or stdout.
enum Stop {
    Connection(Error),
    Output(Failure),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Connection(error)
    }
}

#[derive(Deserialize)]
struct Accepted {
    turn_id: Option<String>,
}

impl Sending<'_> {
    async fn finish(&mut self) -> Result<End, Failure> {
        loop {
            match self.attempt().await {
                Ok(end) => return Ok(end),
                Err(Stop::Output(failure)) => return Err(failure),
                Err(Stop::Connection(error)) => self.retry.after(error).await.map_err(Failure::other)?,
            }
        }
    }

    /// Joins, sends and reads on one connection.
    async fn attempt(&mut self) -> Result<End, Stop> {
        let params = self.cursor.as_ref().map_or_else(|| json!({}), Cursor::params);
        let (mut client, response) = Client::join(self.target, &self.topic, params).await?;
        let joined: Joined = read(&response)?;
        if self.cursor.is_none() {
            // Only the first connection has to work at once; later ones are tried again for a while.
            self.retry.progress();
        }
        self.cursor = Some(Cursor::of(&joined));
        self.follow.joined(joined);
        let end = self.converse(&mut client).await?;
        client.close().await;
        Ok(end)
    }

    async fn converse(&mut self, client: &mut Client) -> Result<End, Stop> {
        let mut sent = None;
        let until = Instant::now() + ACCEPT_TIMEOUT;
        loop {
            self.print_new().map_err(Stop::Output)?;
            if let Some(end) = self.follow.end() {
                return Ok(end.clone());
            }
            if sent.is_none() {
                sent = Some((client.push("send", &self.message).await?, false));
            }
            let incoming = match &sent {
                Some((_, false)) => timeout_at(until, client.next()).await.map_err(|_| Error::Lost)??,
                _ => client.next().await?,
            };
            match incoming {
                Incoming::Push { event, payload } => self.take_push(&event, &payload)?,
                Incoming::Reply { reference, outcome } => {
                    if let Some((_, answered)) = sent.as_mut().filter(|(sent, _)| *sent == reference) {
                        *answered = true;
                        self.take_acceptance(&outcome?)?;
                    }
                }
            }
        }
    }

    fn take_acceptance(&mut self, response: &RawValue) -> Result<(), Error> {
        self.retry.progress();
        let accepted: Accepted = read(response)?;
        if let Some(turn) = accepted.turn_id {
            self.follow.accepted(&turn);
        }
        Ok(())
    }

    fn take_push(&mut self, event: &str, payload: &RawValue) -> Result<(), Error> {
        if event == "deleted" {
            let message = " (the session was deleted)".to_owned();
            return Err(Error::Refused { reason: "not_found".to_owned(), message });
        }
        if event != "events" {
            return Ok(());
        }
        let push: Events = read(payload)?;
        if self.cursor.as_mut().is_none_or(|cursor| !cursor.advance(&push)) {
            // A hole: joining again with the cursor fills it.
            return Err(Error::Lost);
        }
        self.retry.progress();
        self.follow.pushed(push);
        Ok(())
    }

    fn print_new(&mut self) -> Result<(), Failure> {
        let text = self.follow.take_text();
        if text.is_empty() {
            return Ok(());
        }
        self.printed = true;
        print(&text)
    }
}

fn read<'de, T: Deserialize<'de>>(json: &'de RawValue) -> Result<T, Error> {
    serde_json::from_str(json.get()).map_err(|_| Error::Garbled)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(Failure::caused)
}
