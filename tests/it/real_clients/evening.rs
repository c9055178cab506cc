//! What every client goes through: meet somebody, talk both ways, lose the server to `kill -9`, come back to it, leave.

use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::program::Program;
use crate::support::{process::Process, ws::TestClient, ws::within};

/// Which kind of topic they meet on: events travel differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Session,
    Room,
}

impl Place {
    pub(crate) fn topic(self) -> &'static str {
        match self {
            Self::Session => "session:evening",
            Self::Room => "room:evening",
        }
    }

    /// The event and payload of a push that says `words` to the others.
    pub(crate) fn push(self, words: &str) -> (&'static str, Value) {
        match self {
            Self::Session => ("broadcast", json!({ "event": "hi", "payload": { "words": words } })),
            Self::Room => ("hi", json!({ "words": words })),
        }
    }

    /// The words of a message that was made by such a push.
    fn words(self, payload: &Value) -> &Value {
        match self {
            Self::Session => &payload["payload"]["words"],
            Self::Room => &payload["words"],
        }
    }
}

/// A server in a process of its own and somebody who is there already, under the name `ben`.
pub(crate) struct Evening {
    place: Place,
    folder: TempDir,
    /// Emptied only while the server is away.
    server: Option<Process>,
    ben: TestClient,
    listen: String,
}

impl Evening {
    /// Each evening has a loopback address of its own, so that nobody else takes the port while the server is away.
    pub(crate) async fn begin(place: Place, args: &[&str]) -> Self {
        static NEXT: AtomicU8 = AtomicU8::new(2);
        let host = format!("127.0.0.{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let folder = TempDir::new().unwrap();
        let listen = format!("{host}:0");
        let server = Process::start(folder.path(), &[&["--listen", &listen], args].concat()).await;
        let ben = Self::come(&server, place).await;
        let listen = server.address.to_string();
        Self { place, folder, server: Some(server), ben, listen }
    }

    async fn come(server: &Process, place: Place) -> TestClient {
        let mut ben = TestClient::connect(server.ws("ben")).await;
        ben.frame(json!(["11", "1", place.topic(), "phx_join", {}])).await;
        ben.assert_reply("1", "ok").await;
        ben
    }

    /// `http://…` or `ws://…` of the socket.
    pub(crate) fn socket(&self, scheme: &str) -> String {
        format!("{scheme}://{}/socket", self.listen)
    }

    /// Waits until Ben sees somebody come, or finds them there when he comes himself.
    pub(crate) async fn sees(&mut self, user: &str) {
        self.until_presence(|event, payload| match event {
            "presence_state" => payload[user].is_object(),
            _ => payload["joins"][user].is_object(),
        })
        .await;
    }

    /// Waits until Ben sees somebody leave.
    pub(crate) async fn sees_leave(&mut self, user: &str) {
        self.until_presence(|_, payload| payload["leaves"][user].is_object()).await;
    }

    async fn until_presence(&mut self, is_it: impl Fn(&str, &Value) -> bool) {
        within("news of who is there", async {
            loop {
                let frame = self.ben.next().await;
                let event = frame[3].as_str().unwrap_or_default();
                if event.starts_with("presence_") && is_it(event, &frame[4]) {
                    return;
                }
            }
        })
        .await;
    }

    /// Ben says something.
    pub(crate) async fn say(&mut self, words: &str) {
        let (event, payload) = self.place.push(words);
        let reference = self.ben.push(self.place.topic(), event, payload).await;
        self.ben.assert_reply(&reference, "ok").await;
    }

    /// The client hears what Ben said.
    pub(crate) async fn is_heard(&self, program: &mut Program, words: &str) {
        let heard = program.message(self.place.push(words).0).await;
        assert_eq!(self.place.words(&heard), words, "{heard}");
    }

    /// Ben says something, and the client hears it.
    pub(crate) async fn talk_to(&mut self, program: &mut Program, words: &str) {
        self.say(words).await;
        self.is_heard(program, words).await;
    }

    /// Nothing that was said reaches Ben before the answer to a push of his own.
    pub(crate) async fn hears_nothing(&mut self) {
        let event = self.place.push("").0;
        let reference = self.ben.push(self.place.topic(), "presence", json!({})).await;
        loop {
            let frame = self.ben.next().await;
            assert_ne!(frame[3], event, "{frame}");
            if frame[1] == reference {
                return;
            }
        }
    }

    /// The client says something, is answered, and Ben hears it.
    pub(crate) async fn hear(&mut self, program: &mut Program, words: &str) {
        let (event, payload) = self.place.push(words);
        let reply = program.push(self.place.topic(), event, payload).await;
        assert_eq!((&reply["status"], &reply["response"]), (&json!("ok"), &json!({})), "{reply}");
        let heard = self.ben.assert_push(self.place.topic(), event).await;
        assert_eq!(self.place.words(&heard), words, "{heard}");
    }

    /// Kills the server.
    pub(crate) async fn kill(&mut self) {
        self.server.take().unwrap().kill().await;
    }

    /// Starts it again at the same place; Ben comes back.
    pub(crate) async fn start_again(&mut self) {
        let server = Process::start(self.folder.path(), &["--listen", &self.listen]).await;
        self.ben = Self::come(&server, self.place).await;
        self.server = Some(server);
    }
}
