//! `phoenix-chan`: a bare version 2 client. It hands over every frame, sends heartbeats while it is read from and has
//! nothing else to send, and leaves coming back to its user.

use phoenix_chan::{Client, Error, Message};
use real_clients::{commands, config, say, url};
use serde_json::{Value, json};
use std::time::Duration;

async fn connect() -> Result<Client, Error> {
    let heartbeat = Duration::from_millis(config()["heartbeat_ms"].as_u64().unwrap_or(5_000));
    Client::builder(url().parse().expect("a uri"))?.heartbeat(heartbeat).connect().await
}

fn tell(message: Message<Value>) {
    let Message { message_reference, topic_name, event_name, payload, .. } = message;
    match (event_name.as_str(), topic_name.as_str()) {
        ("phx_reply", "phoenix") => say("heartbeat", json!({})),
        ("phx_reply", _) if message_reference.is_some() => {
            say("reply", json!({ "status": payload["status"], "response": payload["response"] }));
        }
        ("phx_close", topic) => say("left", json!({ "topic": topic })),
        (event, topic) => say("message", json!({ "topic": topic, "event": event, "payload": payload })),
    }
}

async fn obey(client: &Client, command: &Value) {
    let (topic, payload) = (command["topic"].as_str().unwrap_or_default(), &command["payload"]);
    let done = match command["do"].as_str() {
        Some("join") => client.join(topic).await,
        Some("push") => client.send(topic, command["event"].as_str().expect("an event"), payload).await,
        Some("leave") => client.leave(topic).await,
        other => panic!("{other:?} is nothing that this client can do"),
    };
    done.expect("it is written");
}

#[tokio::main]
async fn main() {
    let client = connect().await.expect("it connects");
    say("open", json!({}));
    let mut commands = commands();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(command) => obey(&client, &command).await,
                None => return,
            },
            message = client.recv::<Value>() => match message {
                Ok(message) => tell(message),
                Err(error) => {
                    say("closed", json!({ "code": null, "error": error.to_string() }));
                    break;
                }
            },
        }
    }
    while commands.recv().await.is_some() {}
}
