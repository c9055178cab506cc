//! `phoenix_channels_client` as it is published (0.1.2): version 2, the ref "0" again and again, no join parameters. Its
//! setting to reconnect is read by nobody: when the connection is gone, so is the client.

use std::{collections::HashMap, sync::Arc, time::Duration};

use phoenix_channels_client::{Channel, Client, Config, Payload, SendError};
use real_clients::{commands, config, say, url};
use serde_json::{Value, json};

const LIMIT: Option<Duration> = Some(Duration::from_secs(10));

fn shown(payload: &Payload) -> Value {
    match payload {
        Payload::Value(value) => value.clone(),
        Payload::Binary(bytes) => json!({ "bytes": bytes }),
    }
}

async fn join(client: &Client, topic: &str) -> Arc<Channel> {
    let channel = client.join(topic, LIMIT).await.expect("it joins");
    for event in config()["events"].as_array().expect("the events to listen to") {
        let event = event.as_str().expect("a name").to_owned();
        let name = event.clone();
        let told = move |channel: Arc<Channel>, payload: &Payload| {
            say("message", json!({ "topic": channel.topic(), "event": name, "payload": shown(payload) }));
        };
        channel.on(event, told).await.expect("the channel lives");
    }
    say("joined", json!({ "topic": topic, "response": {} }));
    channel
}

async fn push(channel: &Channel, command: &Value) {
    let event = command["event"].as_str().expect("an event");
    match channel.send_with_timeout(event, command["payload"].clone(), LIMIT).await {
        Ok(response) => say("reply", json!({ "status": "ok", "response": shown(&response) })),
        Err(SendError::Reply(response)) => say("reply", json!({ "status": "error", "response": shown(&response) })),
        Err(error) => say("closed", json!({ "code": null, "error": error.to_string() })),
    }
}

#[tokio::main]
async fn main() {
    let mut settings = Config::new(url().as_str()).expect("a url");
    settings.reconnect(true);
    let mut client = Client::new(settings).expect("a scheme that it knows");
    client.connect().await.expect("it connects");
    say("open", json!({}));
    let mut channels: HashMap<String, Arc<Channel>> = HashMap::new();
    let mut commands = commands();
    while let Some(command) = commands.recv().await {
        let topic = command["topic"].as_str().unwrap_or_default();
        match command["do"].as_str() {
            Some("join") => {
                channels.insert(topic.to_owned(), join(&client, topic).await);
            }
            Some("push") => push(&channels[topic], &command).await,
            Some("leave") => {
                channels[topic].leave().await;
                say("left", json!({ "topic": topic }));
            }
            other => panic!("{other:?} is nothing that this client can do"),
        }
    }
}
