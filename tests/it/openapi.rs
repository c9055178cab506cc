//! `/openapi.json`, held against the server that sends it: the same routes, the same answers.
//!
//! What schemathesis (a program of others', see `tests/clients/README.md`) tries is up to its seed, which is fixed;
//! `tests/run` installs it and runs these tests, which plain `cargo test` leaves out.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use rejoin::model::PartKind;
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    http::{Http, keys},
    jwt::{SECRET, guarded},
    process::{self, Process},
    script::{Script, ScriptedTurn},
    server::TestServer,
    ws::{LIMIT, within},
};

/// How long one program of others' may take, which needs less than a minute on a machine that has nothing else to do.
const PATIENCE: Duration = Duration::from_secs(300);
/// How many cases it makes up at most for each operation beside those that it takes from the document.
const CASES: &str = "60";

/// The methods that a path of the document describes.
fn described(operations: &Value) -> BTreeSet<String> {
    operations.as_object().unwrap().keys().map(|method| method.to_ascii_uppercase()).collect()
}

/// A path with something in the places of its parameters.
fn example(path: &str) -> String {
    path.replace("{id}", "s").replace("{turn}", "t").replace("{topic}", "room:lobby")
}

/// What a path answers: the header `Allow` of a refusal of what no path does.
async fn answered(server: &TestServer, path: &str) -> BTreeSet<String> {
    let client = Client::builder().no_proxy().timeout(LIMIT).build().unwrap();
    let asked = client.request(Method::from_bytes(b"QUERY").unwrap(), server.http(path)).send();
    let answer = within("an answer", asked).await.unwrap();
    assert_eq!(answer.status(), 405, "{path}");
    assert_eq!(answer.headers()["cache-control"], "no-store", "{path}");
    assert_eq!(answer.headers()["content-type"], "application/problem+json", "{path}");
    let methods = answer.headers()["allow"].to_str().unwrap().split(',').map(|method| method.trim().to_owned());
    // Whoever answers GET answers HEAD.
    methods.filter(|method| method != "HEAD").collect()
}

#[tokio::test]
async fn the_document_has_the_methods_of_every_path_and_no_others() {
    let (server, _script) = TestServer::start().await;
    let document = Http::new(&server.http("/")).get("/openapi.json").await.ok(200);
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 10, "{paths:?}");
    for (path, operations) in paths {
        assert_eq!(described(operations), answered(&server, &example(path)).await, "{path}");
    }
    server.stop().await;
}

#[tokio::test]
async fn the_document_is_open_and_says_who_may_ask() {
    for ((server, _script), free) in [(TestServer::start().await, true), (guarded().await, false)] {
        let document = Http::new(&server.http("/")).get("/openapi.json").await.ok(200);
        let security = document["paths"]["/api/nodes"]["get"]["security"].as_array().unwrap();
        assert_eq!(security.contains(&json!({})), free, "{security:?}");
        assert!(security.contains(&json!({ "bearer": [] })), "{security:?}");
        server.stop().await;
    }
}

/// The fields that the document gives to a shape.
fn fields<'a>(document: &'a Value, shape: &str) -> Vec<&'a str> {
    keys(&document["components"]["schemas"][shape]["properties"])
}

/// The fields that the document gives to the data of an event.
fn data_fields<'a>(document: &'a Value, event: &Value) -> Vec<&'a str> {
    let kinds = document["components"]["schemas"]["Event"]["oneOf"].as_array().unwrap();
    let kind = kinds.iter().find(|kind| kind["properties"]["type"]["enum"][0] == event["type"]);
    keys(&kind.unwrap_or_else(|| panic!("{} is not described", event["type"]))["properties"]["data"]["properties"])
}

/// A session in which everything has happened that its log has words for, and where one turn runs and one waits.
async fn eventful(http: &Http, script: &mut Script) -> ScriptedTurn {
    let path = "/api/sessions/s/messages?user_id=ada";
    for text in ["done", "failed", "cancelled"] {
        let sent = http.post(path, &json!({ "text": text })).await.ok(202);
        let turn = script.turn().await;
        turn.delta(0, PartKind::Data, None, Some("1")).await;
        match text {
            "done" => turn.done().await,
            "failed" => turn.fail("odd").await,
            _ => {
                let path = format!("/api/sessions/s/turns/{}/cancel", sent["turn_id"].as_str().unwrap());
                http.post(&path, &json!({})).await.ok(200);
            }
        }
        let ended = async { while http.get("/api/sessions/s").await.ok(200)["turns"] != json!([]) {} };
        within("the end of the turn", ended).await;
    }
    http.patch("/api/sessions/s", &json!({ "title": "Plans" })).await.ok(200);
    http.post(path, &json!({ "text": "runs" })).await.ok(202);
    let running = script.turn().await;
    running.say("a word").await;
    http.post(path, &json!({ "text": "waits" })).await.ok(202);
    let has_delta = |events: &Value| events["events"].as_array().unwrap().iter().any(|e| e["type"] == "turn_delta");
    let shown = async { while !has_delta(&http.get("/api/sessions/s/events").await.ok(200)) {} };
    within("the delta", shown).await;
    running
}

#[tokio::test]
async fn what_is_put_together_from_the_log_has_the_fields_that_the_document_gives_it() {
    let (server, mut script) = TestServer::start().await;
    let http = Http::new(&server.http("/"));
    let _running = Box::pin(eventful(&http, &mut script)).await;
    let document = http.get("/openapi.json").await.ok(200);
    let session = http.get("/api/sessions/s").await.ok(200);
    assert_eq!(keys(&session["session"]), fields(&document, "Session"));
    let history = http.get("/api/sessions/s/messages").await.ok(200);
    assert_eq!(keys(&history), fields(&document, "History"));
    let all = |list: &Value| list.as_array().unwrap().clone();
    let turns: Vec<Value> = [all(&session["turns"]), all(&history["ended"])].concat();
    assert_eq!(turns.len(), 5, "{turns:?}");
    turns.iter().for_each(|turn| assert_eq!(keys(turn), fields(&document, "Turn"), "{turn}"));
    all(&history["messages"]).iter().for_each(|message| assert_eq!(keys(message), fields(&document, "Message")));
    let page = http.get("/api/sessions/s/events").await.ok(200);
    assert_eq!(keys(&page), fields(&document, "Events"));
    let mut kinds = BTreeSet::new();
    for event in all(&page["events"]) {
        // A delta that stands for several has one more, and holds a text or a value.
        let is_delta = event["type"] == "turn_delta";
        let fit = |held: Vec<&str>, said: Vec<&str>| {
            if is_delta { held.iter().all(|f| said.contains(f)) } else { held == said }
        };
        let mut described = fields(&document, "Event");
        described.retain(|field| is_delta || *field != "first");
        assert!(fit(keys(&event), described), "{event}");
        assert!(fit(keys(&event["data"]), data_fields(&document, &event)), "{event}");
        kinds.insert(event["type"].as_str().unwrap().to_owned());
    }
    let said = document["components"]["schemas"]["Event"]["oneOf"].as_array().unwrap().iter();
    let said: BTreeSet<String> =
        said.filter_map(|kind| kind["properties"]["type"]["enum"][0].as_str().map(str::to_owned)).collect();
    assert_eq!(kinds, said);
    server.stop().await;
}

/// A program of the environment of Python that `tests/run` installs.
fn tool(name: &str) -> PathBuf {
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients-python/openapi/bin").join(name);
    assert!(tool.exists(), "there is no {}: tests/run installs it", tool.display());
    tool
}

/// What a program says, once it has ended well.
async fn ends_well(mut command: tokio::process::Command) -> String {
    command.kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await;
    let Output { status, stdout, stderr } = output.expect("the program does not end").unwrap();
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{said}\n{}", String::from_utf8_lossy(&stderr));
    said
}

/// Tries a server that runs: whether its document is one, and whether its answers are what the document says.
async fn try_out(server: &Process, folder: &Path, more: &[String]) {
    let document = Http::new(&server.http("/")).get("/openapi.json").await;
    let file = folder.join("openapi.json");
    fs::write(&file, &document.body).unwrap();
    let mut validate = Command::new(tool("openapi-spec-validator"));
    validate.args(["--schema", "3.1"]).arg(&file);
    ends_well(validate.into()).await;
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/python/schemathesis.toml");
    let mut st = Command::new(tool("schemathesis"));
    st.current_dir(folder).arg("--config-file").arg(config).arg("run").arg(server.http("/openapi.json"));
    st.args(["--checks", "all", "--no-color", "--max-examples", CASES]).args(more);
    let said = ends_well(st.into()).await;
    let figures = said.lines().skip_while(|line| !line.contains("SUMMARY"));
    println!("{}", figures.collect::<Vec<_>>().join("\n"));
    // It lives, and is well.
    Http::new(&server.http("/")).get("/readyz").await.ok(200);
}

#[tokio::test]
#[ignore = "needs schemathesis, which tests/run installs"]
async fn schemathesis_finds_nothing_where_nobody_is_asked_for_a_token() {
    let folder = TempDir::new().unwrap();
    let server = Process::start(folder.path(), &["--rate-limit", "0", "--echo-delay", "0ms"]).await;
    // Whoever has a token may ask, and whoever has none: nothing is to be refused for want of one.
    let more = ["--exclude-checks".to_owned(), "ignored_auth".to_owned()];
    try_out(&server, folder.path(), &more).await;
    server.kill().await;
}

#[tokio::test]
#[ignore = "needs schemathesis, which tests/run installs"]
async fn schemathesis_finds_nothing_where_tokens_are_asked_for() {
    let folder = TempDir::new().unwrap();
    let identity = ["--auth", "jwt", "--jwt-secret", SECRET];
    let mut mint = process::command(folder.path());
    mint.arg("token").args(identity).args(["--sub", "ada"]);
    let (status, token, error) = process::run(mint).await;
    assert!(status.success(), "{error}");
    let args = [&identity[..], &["--rate-limit", "0", "--echo-delay", "0ms"]].concat();
    let server = Process::start(folder.path(), &args).await;
    let more = ["--header".to_owned(), format!("Authorization: Bearer {}", token.trim())];
    try_out(&server, folder.path(), &more).await;
    server.kill().await;
}
