//! A channel of one's own: everybody on a topic sees every roll.
//!
//! Run it, and join `dice:NAME` with any Phoenix client on the printed address; then push `roll` with `{"sides": 6}`.

use std::sync::Arc;

use async_trait::async_trait;
use rejoin::{
    auth::Identity,
    channel::{Channel, Context, Host, Joined, Next, Options, Refusal, Router},
    protocol::{Payload, Reply, codes::reason},
    pubsub::PubSub,
    transport,
};
use serde_json::json;

struct Dice;

#[async_trait]
impl Channel for Dice {
    async fn join(&mut self, _: &mut Context, _: Payload) -> Result<Joined, Refusal> {
        Ok(Joined::default())
    }

    async fn handle_in(&mut self, cx: &mut Context, event: &str, payload: Payload) -> Next {
        let sides = payload.parse::<serde_json::Value>().ok().and_then(|value| value["sides"].as_u64());
        let (true, Some(sides @ 2..=100)) = (event == "roll", sides) else {
            return Next::Reply(Reply::refuse(reason::INVALID, "push roll with 2 to 100 sides"));
        };
        let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
        let rolled = json!({ "by": cx.identity().person.name, "value": random % sides + 1 });
        cx.broadcast("rolled", Payload::json(&rolled));
        Next::Reply(Reply::ok(Payload::empty()))
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let router = Router::new().route("dice:*", || Box::new(Dice));
    let host = Host::new(router, PubSub::new(), Options::default());
    let connect: transport::Connect = Arc::new(|client| {
        Identity::open(client.get("user_id"), client.get("name")).map_err(|_| transport::Refused::default()).into()
    });
    let state = transport::State::new(host, connect, transport::Options::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("join dice:NAME at ws://{}/socket", listener.local_addr()?);
    let shutdown = tokio_util::sync::CancellationToken::new();
    let (routes, lobby) = (transport::routes(state.clone()), state.lobby().clone());
    let server = tokio::spawn(transport::serve(listener, routes, lobby, shutdown.clone()));
    tokio::signal::ctrl_c().await?;
    state.connections().drain(std::time::Duration::from_secs(1), |_| false).await;
    shutdown.cancel();
    Ok(server.await?)
}
