//! The line protocol between a client program and the test that drives it; `../README.md` describes it.

use std::{
    io::Write as _,
    sync::{LazyLock, OnceLock},
    time::Instant,
};

use serde_json::{Value, json};
use tokio::sync::mpsc;

static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
static CONFIG: OnceLock<Value> = OnceLock::new();

/// What the program was started with.
pub fn config() -> &'static Value {
    LazyLock::force(&BEGUN);
    CONFIG.get_or_init(|| {
        let text = std::env::args().nth(1).expect("one argument: the configuration as JSON");
        serde_json::from_str(&text).expect("the configuration is JSON")
    })
}

/// The address of the WebSocket with the parameters of this run; the library adds its own version.
pub fn url() -> String {
    let mut url = url::Url::parse(&format!("{}/websocket", config()["url"].as_str().expect("a url"))).expect("a url");
    if let Some(params) = config()["params"].as_object() {
        for (key, value) in params {
            url.query_pairs_mut().append_pair(key, value.as_str().expect("parameters are strings"));
        }
    }
    url.into()
}

/// Tells the driver what happened.
pub fn say(at: &str, fields: Value) {
    let mut line = json!({ "at": at, "ms": BEGUN.elapsed().as_millis() as u64 });
    for (key, value) in fields.as_object().expect("fields are an object") {
        line[key] = value.clone();
    }
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The commands, in order; it ends with `quit` or with the input.
pub fn commands() -> mpsc::Receiver<Value> {
    let (tx, rx) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            let command: Value = serde_json::from_str(&line).expect("a command is JSON");
            if command["do"] == "quit" || tx.blocking_send(command).is_err() {
                return;
            }
        }
    });
    rx
}
