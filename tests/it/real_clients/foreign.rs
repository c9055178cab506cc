//! Channels as other services have them, so that the clients of those services find what they look for: Supabase's
//! broadcast and presence, and the control topic of Absinthe (GraphQL).

use async_trait::async_trait;
use rejoin::{
    channel::{Channel, Context, Joined, Next, Refusal, Router},
    presence::{Tracked, Tracker},
    protocol::{Payload, Reply},
};
use serde_json::{Value, json};

/// The id of every subscription that is made.
pub(crate) const SUBSCRIPTION: &str = "doc:1";

/// Adds the topics to an application.
pub(crate) fn routes(router: Router, presence: &Tracker) -> Router {
    let presence = presence.clone();
    router
        .route("realtime:*", move || {
            Box::new(Supabase { presence: presence.clone(), key: String::new(), tracked: None })
        })
        .route("__absinthe__:graph", || Box::new(Absinthe))
}

struct Supabase {
    presence: Tracker,
    key: String,
    tracked: Option<Tracked>,
}

#[async_trait]
impl Channel for Supabase {
    async fn join(&mut self, _: &mut Context, params: Payload) -> Result<Joined, Refusal> {
        let params: Value = params.parse().unwrap();
        let config = &params["config"];
        assert!(config["broadcast"].is_object() && config["presence"].is_object(), "{params}");
        self.key = config["presence"]["key"].as_str().unwrap().to_owned();
        Ok(Joined { response: Payload::json(&json!({ "postgres_changes": [] })), cursor: None })
    }

    async fn joined(&mut self, cx: &mut Context) {
        let state = self.presence.state(cx.topic());
        cx.push("presence_state", &state);
    }

    async fn handle_in(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Next {
        match event {
            "broadcast" => cx.broadcast_from(event, payload),
            "presence" => {
                let told: Value = payload.parse().unwrap();
                self.tracked = match told["event"].as_str() {
                    Some("track") => {
                        let fields = told["payload"].as_object().unwrap();
                        Some(self.presence.track(cx.topic(), &self.key, fields).unwrap())
                    }
                    _ => None,
                };
            }
            other => panic!("nobody handles {other}"),
        }
        Next::Reply(Reply::ok(Payload::empty()))
    }
}

struct Absinthe;

#[async_trait]
impl Channel for Absinthe {
    async fn join(&mut self, _: &mut Context, _: Payload) -> Result<Joined, Refusal> {
        Ok(Joined::default())
    }

    async fn handle_in(&mut self, _: &mut Context, event: &str, payload: Payload) -> Next {
        let told: Value = payload.parse().unwrap();
        let response = match event {
            "doc" if told["query"].as_str().unwrap().starts_with("subscription") => {
                json!({ "subscriptionId": SUBSCRIPTION })
            }
            "doc" => json!({ "data": { "asked": told["query"] } }),
            "unsubscribe" => json!({ "subscriptionId": told["subscriptionId"] }),
            other => panic!("nobody handles {other}"),
        };
        Next::Reply(Reply::ok(Payload::json(&response)))
    }
}
