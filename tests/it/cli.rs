//! `rejoin send` and `rejoin tail` as a shell sees them, against a server that follows a script.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
};

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

use crate::support::upstream::LIMIT;

/// A command that runs; it is killed with this value.
struct Running {
    child: Child,
    out: Option<BufReader<ChildStdout>>,
    errors: Option<ChildStderr>,
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where the test went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn rejoin(args: &[&str]) -> Running {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rejoin"))
        .args(args)
        .env_clear()
        // A proxy for the outside world, which nobody asks for a server on this machine.
        .env("http_proxy", "http://127.0.0.1:1")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (out, errors) = (child.stdout.take().map(BufReader::new), child.stderr.take());
    Running { child, out, errors }
}

impl Running {
    /// The next line of its output, as JSON.
    async fn line(&mut self) -> Value {
        let mut out = self.out.take().unwrap();
        let reading = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            out.read_line(&mut line).unwrap();
            (out, line)
        });
        let (out, line) = timeout(LIMIT, reading).await.expect("no line comes").unwrap();
        self.out = Some(out);
        serde_json::from_str(&line).unwrap()
    }

    /// Its end: exit code, what is left of stdout, stderr.
    async fn end(mut self) -> (Option<i32>, String, String) {
        let (mut out, mut errors) = (self.out.take().unwrap(), self.errors.take().unwrap());
        let reading = tokio::task::spawn_blocking(move || {
            let (mut said, mut failed) = (String::new(), String::new());
            out.read_to_string(&mut said).unwrap();
            errors.read_to_string(&mut failed).unwrap();
            (said, failed)
        });
        let (said, failed) = timeout(LIMIT, reading).await.expect("the command does not end").unwrap();
        (self.child.wait().unwrap().code(), said, failed)
    }
}

/// The server's side.
struct Server {
    listener: TcpListener,
}

impl Server {
    async fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        (Self { listener }, url)
    }

    async fn accept(&self) -> Peer {
        let (stream, _) = timeout(LIMIT, self.listener.accept()).await.expect("nobody connects").unwrap();
        Peer { socket: accept_async(stream).await.unwrap(), join_ref: Value::Null }
    }
}

/// One connection on the server's side.
struct Peer {
    socket: WebSocketStream<TcpStream>,
    join_ref: Value,
}

impl Peer {
    /// The next frame, which has to be for `topic`: ref, event, payload.
    async fn read(&mut self, topic: &str) -> (Value, String, Value) {
        let message = timeout(LIMIT, self.socket.next()).await.expect("nothing is sent").unwrap().unwrap();
        let frame: Vec<Value> = serde_json::from_str(message.to_text().unwrap()).unwrap();
        assert_eq!((frame.len(), &frame[2]), (5, &json!(topic)));
        (frame[1].clone(), frame[3].as_str().unwrap().to_owned(), frame[4].clone())
    }

    async fn expect(&mut self, topic: &str, expected: &str) -> (Value, Value) {
        let (reference, event, payload) = self.read(topic).await;
        assert_eq!(event, expected);
        if event == "phx_join" {
            self.join_ref = reference.clone();
        }
        (reference, payload)
    }

    async fn frame(&mut self, frame: Value) {
        self.socket.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn reply(&mut self, topic: &str, reference: Value, status: &str, response: Value) {
        let payload = json!({"status": status, "response": response});
        self.frame(json!([self.join_ref, reference, topic, "phx_reply", payload])).await;
    }

    async fn events(&mut self, topic: &str, prev: u64, events: Value) {
        self.frame(json!([null, null, topic, "events", {"prev": prev, "events": events}])).await;
    }
}

fn joined(to: u64, replay: Value) -> Value {
    let mut replay = replay;
    replay["to"] = json!(to);
    json!({"session": {"id": "s", "epoch": "e1", "last_seq": to}, "turns": [], "replay": replay, "node": {}})
}

fn snapshot(to: u64) -> Value {
    joined(to, json!({"mode": "snapshot", "reason": "first_join", "messages": [], "ended": []}))
}

fn event(seq: u64, kind: &str, data: Value) -> Value {
    json!({"seq": seq, "type": kind, "at": "x", "by": null, "turn_id": "t1", "data": data})
}

fn started(seq: u64, prompt: &Value) -> Value {
    event(seq, "turn_started", json!({"turn": {"id": "t1", "prompt_id": prompt, "status": "running"}}))
}

fn delta(seq: u64, text: &str) -> Value {
    event(seq, "turn_delta", json!({"part": 0, "kind": "text", "text": text}))
}

fn message(text: &str) -> Value {
    json!({"id": "r1", "turn_id": "t1", "status": "complete", "parts": [{"kind": "text", "text": text}]})
}

const TOPIC: &str = "session:s";

/// Takes a join and a send; gives the send's ref and payload.
async fn join_and_send(peer: &mut Peer, response: Value) -> (Value, Value, Value) {
    let (reference, params) = peer.expect(TOPIC, "phx_join").await;
    peer.reply(TOPIC, reference, "ok", response).await;
    let (reference, payload) = peer.expect(TOPIC, "send").await;
    (reference, payload, params)
}

#[tokio::test]
async fn send_goes_on_after_a_lost_connection_and_sends_the_same_message() {
    let (server, url) = Server::start().await;
    let child = rejoin(&["send", "s", "hello", "--url", &url, "--user", "ada"]);
    let mut peer = server.accept().await;
    let (_, first, params) = join_and_send(&mut peer, snapshot(3)).await;
    assert_eq!((params, &first["text"]), (json!({}), &json!("hello")));
    peer.events(TOPIC, 3, json!([started(5, &first["id"]), delta(6, "Hel")])).await;
    // The connection is lost before the send was answered.
    drop(peer);
    let mut peer = server.accept().await;
    let replay = joined(7, json!({"mode": "replay", "from": 6, "events": [delta(7, "lo ")]}));
    let (reference, second, params) = join_and_send(&mut peer, replay).await;
    assert_eq!(params, json!({"last_seq": 6, "epoch": "e1"}));
    assert_eq!(second, first);
    peer.reply(TOPIC, reference, "ok", json!({"message_id": "m", "turn_id": "t1", "seq": 4, "duplicate": true})).await;
    let done = event(9, "turn_completed", json!({"message": message("Hello you"), "usage": null}));
    peer.events(TOPIC, 7, json!([delta(8, "you"), done])).await;
    assert_eq!(child.end().await, (Some(0), "Hello you\n".to_owned(), String::new()));
}

#[tokio::test]
async fn send_tells_a_failed_answer_from_a_refused_message() {
    let (server, url) = Server::start().await;
    let child = rejoin(&["send", "s", "hello", "--url", &url]);
    let mut peer = server.accept().await;
    let (reference, sent, _) = join_and_send(&mut peer, snapshot(0)).await;
    peer.reply(TOPIC, reference, "ok", json!({"message_id": "m", "turn_id": "t1", "seq": 1, "duplicate": false})).await;
    let error = json!({"code": "timeout", "message": "The agent said nothing.", "retryable": true});
    let failed = event(4, "turn_failed", json!({"error": error, "message": message("par")}));
    peer.events(TOPIC, 0, json!([started(2, &sent["id"]), delta(3, "par"), failed])).await;
    let expected = "error: the answer failed: The agent said nothing. (timeout)\n";
    assert_eq!(child.end().await, (Some(1), "par\n".to_owned(), expected.to_owned()));

    let child = rejoin(&["send", "s", "hello", "--url", &url]);
    let mut peer = server.accept().await;
    let (reference, _, _) = join_and_send(&mut peer, snapshot(0)).await;
    peer.reply(TOPIC, reference, "error", json!({"reason": "queue_full", "message": "100 turns wait."})).await;
    let expected = "error: the server refused: queue_full (100 turns wait.)\n";
    assert_eq!(child.end().await, (Some(1), String::new(), expected.to_owned()));
}

#[tokio::test]
async fn send_to_nobody_fails_at_once() {
    let (server, url) = Server::start().await;
    drop(server);
    let (code, out, errors) = rejoin(&["send", "s", "hello", "--url", &url]).end().await;
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(errors.starts_with(&format!("error: cannot connect to {url} (")), "{errors}");
}

#[tokio::test]
async fn tail_prints_joins_and_pushes_as_lines_and_joins_again() {
    let (server, url) = Server::start().await;
    let mut child = rejoin(&["tail", TOPIC, "--url", &url]);
    let mut peer = server.accept().await;
    let (reference, params) = peer.expect(TOPIC, "phx_join").await;
    assert_eq!(params, json!({"create": false}));
    peer.reply(TOPIC, reference, "ok", snapshot(3)).await;
    assert_eq!(child.line().await, json!({"event": "joined", "payload": snapshot(3)}));
    peer.frame(json!([null, null, TOPIC, "presence_state", {"u1": {"metas": []}}])).await;
    assert_eq!(child.line().await, json!({"event": "presence_state", "payload": {"u1": {"metas": []}}}));
    peer.events(TOPIC, 3, json!([delta(4, "x")])).await;
    assert_eq!(child.line().await, json!({"event": "events", "payload": {"prev": 3, "events": [delta(4, "x")]}}));
    drop(peer);
    let mut peer = server.accept().await;
    let (reference, params) = peer.expect(TOPIC, "phx_join").await;
    assert_eq!(params, json!({"create": false, "last_seq": 4, "epoch": "e1"}));
    let reply = joined(4, json!({"mode": "replay", "from": 4, "events": []}));
    peer.reply(TOPIC, reference, "ok", reply.clone()).await;
    assert_eq!(child.line().await, json!({"event": "joined", "payload": reply}));
    peer.frame(json!([null, null, TOPIC, "deleted", {"by": null}])).await;
    assert_eq!(child.line().await["event"], "deleted");
    peer.frame(json!([peer.join_ref, peer.join_ref, TOPIC, "phx_close", {}])).await;
    let mut peer = server.accept().await;
    let (reference, _) = peer.expect(TOPIC, "phx_join").await;
    peer.reply(TOPIC, reference, "error", json!({"reason": "not_found", "message": "There is no such session."})).await;
    let (code, _, errors) = child.end().await;
    let expected = "error: the server refused: not_found (There is no such session.)\n";
    assert_eq!((code, errors.as_str()), (Some(1), expected));
}

#[tokio::test]
async fn ctrl_c_ends_tail_cleanly() {
    let (server, url) = Server::start().await;
    let mut child = rejoin(&["tail", "room:x", "--url", &url]);
    let mut peer = server.accept().await;
    let (reference, params) = peer.expect("room:x", "phx_join").await;
    assert_eq!(params, json!({}));
    peer.reply("room:x", reference, "ok", json!({})).await;
    peer.frame(json!([null, null, "room:x", "moved", {"x": 1}])).await;
    assert_eq!(child.line().await, json!({"event": "moved", "payload": {"x": 1}}));
    let pid = child.child.id();
    let killed = std::process::Command::new("sh").args(["-c", &format!("kill -INT {pid}")]).status().unwrap();
    assert!(killed.success());
    let (code, _, errors) = child.end().await;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
}
