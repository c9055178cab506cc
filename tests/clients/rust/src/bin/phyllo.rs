//! `phyllo`: version 2 with join refs and refs that are numbers from 0; it comes back and rejoins by itself.
//!
//! Where its parts run on several threads it panics when an answer comes before it has noticed that the question is
//! sent. So all of it runs on one thread here, in tasks that take turns in the order in which they are woken.

use std::{collections::HashMap, time::Duration};

use phyllo::{
    channel::{ChannelBuilder, ChannelHandler},
    message::{Event, Message, Payload},
    socket::{SocketBuilder, SocketHandler},
};
use real_clients::{commands, config, say, url};
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

type Handler = ChannelHandler<String, String, Value, Value>;
type Told = Message<String, String, Value, Value>;

fn tell(message: Told) {
    let Told { topic, event, payload, .. } = message;
    let payload = match payload {
        Some(Payload::Custom(payload)) => payload,
        Some(Payload::PushReply { response, .. }) => response,
        None => Value::Null,
    };
    match event {
        Event::Event(event) => say("message", json!({ "topic": topic, "event": event, "payload": payload })),
        Event::Protocol(event) => {
            say("protocol", json!({ "topic": topic, "event": serde_json::to_value(event).expect("a name") }));
        }
    }
}

async fn join(socket: &mut SocketHandler<String>, topic: &str, params: &Value) -> Handler {
    let timeout = Duration::from_millis(config()["timeout_ms"].as_u64().unwrap_or(20_000));
    let builder = ChannelBuilder::new(topic.to_owned()).params(Some(params)).timeout(timeout);
    let (handler, mut told) = socket.channel::<String, Value, Value>(builder).await.expect("the topic is new");
    let topic = topic.to_owned();
    tokio::spawn(async move {
        loop {
            match told.recv().await {
                Ok(message) => tell(message),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return say("left", json!({ "topic": topic })),
            }
        }
    });
    handler
}

async fn push(mut handler: Handler, command: Value) {
    let event = Event::Event(command["event"].as_str().expect("an event").to_owned());
    match handler.send(event, Payload::Custom(command["payload"].clone())).await {
        Ok(Message { payload: Some(Payload::PushReply { status, response }), .. }) => {
            say("reply", json!({ "status": serde_json::to_value(status).expect("a word"), "response": response }));
        }
        other => say("reply", json!({ "status": format!("{other:?}"), "response": {} })),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let heartbeat = Duration::from_millis(config()["heartbeat_ms"].as_u64().unwrap_or(30_000));
    let mut socket = SocketBuilder::new(url().parse().expect("a url")).heartbeat(heartbeat).build::<String>().await;
    let mut handlers: HashMap<String, Handler> = HashMap::new();
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        let topic = command["topic"].as_str().unwrap_or_default();
        match command["do"].as_str() {
            Some("join") => {
                let handler = join(&mut socket, topic, &command["params"]).await;
                handlers.insert(topic.to_owned(), handler);
            }
            Some("push") => {
                let handler = handlers[topic].clone();
                tokio::spawn(push(handler, command)).await.expect("no panic");
            }
            Some("leave") => {
                let handler = handlers.remove(topic).expect("a joined topic");
                let left = tokio::spawn(handler.close()).await.expect("no panic");
                say("reply", json!({ "status": if left.is_ok() { "ok" } else { "error" }, "response": {} }));
            }
            other => panic!("{other:?} is nothing that this client can do"),
        }
    }
    socket.close();
}
